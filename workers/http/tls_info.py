"""What an application is told of the TLS of its connection and of the client's certificate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from preforkd.workers.records import dataclass

if TYPE_CHECKING:
    import ssl

# RFC 4514 section 3; other attributes go by the names that OpenSSL has for them.
_ATTRIBUTES = {
    "commonName": "CN", "localityName": "L", "stateOrProvinceName": "ST", "organizationName": "O",
    "organizationalUnitName": "OU", "countryName": "C", "streetAddress": "STREET", "domainComponent": "DC",
    "userId": "UID",
}  # fmt: skip
_SPECIAL = re.compile(r'[",+;<>\\]|^[ #]| $')


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client's certificate that one of our authorities has issued.

    Attributes:
        pem: the certificate itself.
        subject, issuer: distinguished names, as RFC 4514 writes them.
        common_name: of the subject; empty when it has none.
        serial: hexadecimal digits.
        not_before, not_after: its life, as OpenSSL writes times ("Jan  5 09:34:43 2027 GMT").
    """

    pem: str
    subject: str
    issuer: str
    common_name: str
    serial: str
    not_before: str
    not_after: str


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """The TLS of a connection.

    Attributes:
        version: "TLSv1.2" or "TLSv1.3".
        cipher: the cipher suite, as OpenSSL names it.
        server_name: the host name that the client has asked for (SNI), None when it has not.
        client_certificate: None when the client has shown none.
    """

    version: str
    cipher: str
    server_name: str | None
    client_certificate: ClientCertificate | None


def info_of(tls: ssl.SSLObject) -> TlsInfo:
    """Return what there is to be said of a connection whose handshake is done."""
    cipher = tls.cipher()
    return TlsInfo(
        tls.version() or "", cipher[0] if cipher else "", getattr(tls, "server_name", None), _certificate_of(tls)
    )


def _certificate_of(tls: ssl.SSLObject) -> ClientCertificate | None:
    data = tls.getpeercert(binary_form=True)
    if not data:
        return None
    from ssl import DER_cert_to_PEM_cert  # it has been imported, or there were no TLS

    found: Mapping[str, Any] = tls.getpeercert() or {}
    return ClientCertificate(
        pem=DER_cert_to_PEM_cert(data),
        subject=distinguished_name(found.get("subject", ())),
        issuer=distinguished_name(found.get("issuer", ())),
        common_name=next((value for rdn in found.get("subject", ()) for key, value in rdn if key == "commonName"), ""),
        serial=found.get("serialNumber", ""),
        not_before=found.get("notBefore", ""),
        not_after=found.get("notAfter", ""),
    )


def distinguished_name(parts: Any) -> str:
    """Return a name as RFC 4514 writes it: the most particular part first.

    Args:
        parts: as in what `ssl.SSLSocket.getpeercert()` returns.
    """
    written = ["+".join(f"{_ATTRIBUTES.get(key, key)}={_escape(value)}" for key, value in rdn) for rdn in parts]
    return ",".join(reversed(written))


def _escape(value: str) -> str:
    return _SPECIAL.sub(lambda match: "\\" + match[0], value).replace("\0", "\\00")


def variables_of(info: TlsInfo) -> dict[str, str]:
    """Return the variables that Apache's mod_ssl sets, and that nginx is configured to set by the same names."""
    certificate = info.client_certificate
    variables = {
        "HTTPS": "on",
        "SSL_PROTOCOL": info.version,
        "SSL_CIPHER": info.cipher,
        "SSL_CLIENT_VERIFY": "SUCCESS" if certificate else "NONE",
    }
    if info.server_name:
        variables["SSL_TLS_SNI"] = info.server_name
    if certificate is not None:
        variables |= {
            "SSL_CLIENT_CERT": certificate.pem,
            "SSL_CLIENT_S_DN": certificate.subject,
            "SSL_CLIENT_S_DN_CN": certificate.common_name,
            "SSL_CLIENT_I_DN": certificate.issuer,
            "SSL_CLIENT_M_SERIAL": certificate.serial,
            "SSL_CLIENT_V_START": certificate.not_before,
            "SSL_CLIENT_V_END": certificate.not_after,
        }
    # PEP 3333: strings of an environ hold bytes, one a character; a name may be in any script.
    return {name: value.encode().decode("latin-1") for name, value in variables.items()}
