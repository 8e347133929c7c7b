"""How each address is to speak TLS, from the options. Pure: no file is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from preforkd.daemon.address import Address, Secured
from preforkd.daemon.tls_values import TLS_SETTINGS, NamedCertificate
from preforkd.workers.records import dataclass

if TYPE_CHECKING:
    from preforkd.daemon.options import Options


@dataclass(frozen=True, slots=True)
class PairSpec:
    """Where a certificate and its key are.

    Attributes:
        origin: who has asked for it, for messages.
        certfile, keyfile: absolute paths; they may be one file.
        password: as given: text, `@` and an absolute path, or `$VARIABLE`.
        names: that it is for, empty: what it says itself.
    """

    origin: str
    certfile: str
    keyfile: str
    password: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """How an address speaks TLS.

    Attributes:
        pairs: first the certificate of clients that ask for no name that we know.
        ca_certs: absolute path, empty: no client is asked for a certificate.
        cert_reqs, tls_min, ciphers: as the options.
        origins: who has asked for the authorities and the ciphers.
    """

    pairs: tuple[PairSpec, ...]
    ca_certs: str
    cert_reqs: str
    tls_min: str
    ciphers: str
    origins: Mapping[str, str]


class SpecError(ValueError):
    """The options contradict each other.

    Attributes:
        errors: one line each.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def secured(addresses: Iterable[Address], certfile: str) -> tuple[Address, ...]:
    """Return the addresses with TLS where it is meant.

    Those that are written with `tls:`; with a certificate and none that is written so, all that are not said to be
    plain: who gives uvicorn or gunicorn a certificate expects that.
    """
    addresses = tuple(addresses)
    if not certfile or any(one.tls for one in addresses):
        return addresses
    return tuple(one if one.is_plain else replace(one, tls=Secured()) for one in addresses)


def specs(options: Options, origins: Mapping[str, str]) -> dict[Address, TlsSpec]:
    """Return how each address that speaks TLS does.

    Args:
        options: with `bind` from `secured`.
        origins: of the options.

    Raises:
        SpecError: something is missing, or given for nothing.
    """
    errors: list[str] = []
    found = {one: _spec(options, origins, one, errors) for one in options.bind if one.tls is not None}
    if not found:
        errors += [
            f"{origins[name]}: no address speaks TLS: give certfile too, or write --bind tls:HOST:PORT"
            for name in (*TLS_SETTINGS, "sni_certificate")
            if name not in ("tls_min", "ciphers", "cert_reqs") and getattr(options, name)
        ]
    if errors:
        raise SpecError(list(dict.fromkeys(errors)))
    return found


def _spec(options: Options, origins: Mapping[str, str], address: Address, errors: list[str]) -> TlsSpec:
    own = dict(address.tls.settings) if address.tls else {}

    def origin(name: str) -> str:
        return f"{origins['bind']} ({replace(address, tls=None)}, {name})" if name in own else origins[name]

    given: dict[str, Any] = {name: own.get(name, getattr(options, name)) for name in TLS_SETTINGS}
    if not given["certfile"]:
        errors.append(f'{origins["bind"]}: "{address}" has no certificate: give --certfile, or certfile for it in TOML')
    if "certfile" in own:  # with a key and a password of its own, or none
        given |= {"keyfile": own.get("keyfile", ""), "keyfile_password": own.get("keyfile_password", "")}
    if given["cert_reqs"] != "none" and not given["ca_certs"]:
        errors.append(f"{origin('cert_reqs')}: {given['cert_reqs']} needs the authorities to verify with: --ca-certs")
    chdir = options.chdir
    pair = NamedCertificate(given["certfile"], given["keyfile"], given["keyfile_password"])
    first = _pair(origin("certfile"), pair, chdir)
    others = [_pair(origins["sni_certificate"], one, chdir) for one in options.sni_certificate]
    return TlsSpec(
        (first, *others),
        _under(chdir, given["ca_certs"]),
        given["cert_reqs"],
        given["tls_min"],
        given["ciphers"],
        {name: origin(name) for name in ("ca_certs", "ciphers")},
    )


def _pair(origin: str, one: NamedCertificate, chdir: str) -> PairSpec:
    password = one.keyfile_password
    if password.startswith("@"):
        password = "@" + _under(chdir, password[1:])
    certfile = _under(chdir, one.certfile)
    return PairSpec(origin, certfile, _under(chdir, one.keyfile) or certfile, password, one.names)


def _under(folder: str, path: str) -> str:
    return str(PurePath(folder, path)) if path else ""
