"""The values of the TLS options: read from text and from TOML, written back, and never a password shown."""

from __future__ import annotations

import tomllib

import pytest

from preforkd.daemon.address import Secured, TcpAddress
from preforkd.daemon.tls_values import Binds, NamedCertificate, NamedCertificates, Secret, TlsVersion


def test_a_number_of_toml_is_a_version_of_tls() -> None:
    assert TlsVersion().read(1.3) == "1.3"
    assert TlsVersion().read("1.2") == "1.2"


@pytest.mark.parametrize("raw", ["1.1", 1.0, 2, "TLSv1.2", True])
def test_old_versions_are_not_offered(raw: object) -> None:
    with pytest.raises(ValueError, match=r"is not one of 1\.2, 1\.3"):
        TlsVersion().read(raw)


@pytest.mark.parametrize(
    ("given", "shown"), [("@/run/pw", '"@/run/pw"'), ("$PW", '"$PW"'), ("", '""'), ("tr0ub4dor", '"***"')]
)
def test_a_password_is_not_shown_and_where_it_is_is(given: str, shown: str) -> None:
    assert Secret().write(Secret().read(given)) == shown


@pytest.mark.parametrize("raw", ["a\nsecret", 77, "@", "$"])
def test_a_wrong_password_is_not_in_the_message(raw: object) -> None:
    with pytest.raises(ValueError, match=r"the password is not|names nothing") as raised:
        Secret().read(raw)
    assert "secret" not in str(raised.value)
    assert "77" not in str(raised.value)


TABLE = {
    "address": "0.0.0.0:9443",
    "certfile": "a.pem",
    "keyfile_password": "tr0ub4dor",
    "tls_min": 1.3,
    "cert_reqs": "required",
}


def test_an_address_may_have_settings_of_its_own() -> None:
    (one,) = Binds().read([TABLE])
    assert one == TcpAddress("0.0.0.0", 9443)
    assert one.tls is not None
    assert dict(one.tls.settings) == {
        "certfile": "a.pem", "keyfile_password": "tr0ub4dor", "tls_min": "1.3", "cert_reqs": "required"
    }  # fmt: skip
    assert "tr0ub4dor" not in repr(one)


@pytest.mark.parametrize(
    ("item", "secured", "plain"),
    [
        (":80", None, False),
        ("tls::80", Secured(), False),
        ({"address": ":80"}, None, True),
        ({"address": ":80", "tls": False}, None, True),
        ({"address": "tls::80", "tls": False}, None, True),
        ({"address": ":80", "tls": True}, Secured(), False),
        ({"address": "tls::80"}, Secured(), False),
    ],
)
def test_an_address_says_whether_it_speaks_tls(item: object, secured: Secured | None, plain: bool) -> None:
    (one,) = Binds().read([item])
    assert (one.tls, one.is_plain) == (secured, plain)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({}, "a table without an address"),
        ({"address": 80}, "a table without an address"),
        ({"address": ":80", "cert": "a"}, 'an address has no "cert", only tls, certfile'),
        ({"address": ":80", "tls": "maybe"}, '":80": tls: "maybe" is neither true nor false'),
        ({"address": ":80", "cert_reqs": "all"}, '":80": cert_reqs: "all" is not one of'),
        ({"address": ":80", "tls": False, "ca_certs": "a"}, "tls is false, and ca_certs is given"),
        (8, "is not an address"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(item: object, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        Binds().read([item])
    assert said in str(raised.value)


@pytest.mark.parametrize("item", [":80", "tls::80", {"address": ":80"}, {"address": "[::1]:80", "ca_certs": "a b"}])
def test_addresses_are_read_back_as_they_are_written(item: object) -> None:
    value = Binds().read([item])
    again = Binds().read(tomllib.loads(f"bind = {Binds().write(value)}")["bind"])
    assert [(one, one.tls, one.is_plain) for one in again] == [(one, one.tls, one.is_plain) for one in value]


def test_a_password_of_an_address_is_not_shown() -> None:
    assert "tr0ub4dor" not in Binds().write(Binds().read([TABLE]))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("a.pem", (NamedCertificate("a.pem"),)),
        ("a.pem:a.key, b.pem", (NamedCertificate("a.pem", "a.key"), NamedCertificate("b.pem"))),
        (["a.pem:a.key"], (NamedCertificate("a.pem", "a.key"),)),
        (
            [{"certfile": "a", "keyfile": "k", "keyfile_password": "@p", "names": ["x", "*.x"]}],
            (NamedCertificate("a", "k", "@p", ("x", "*.x")),),
        ),
        ([], ()),
    ],
)
def test_further_certificates(raw: object, value: tuple[NamedCertificate, ...]) -> None:
    kind = NamedCertificates()
    assert kind.read(raw) == value
    assert kind.read(tomllib.loads(f"a = {kind.write(value)}")["a"]) == value


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (7, "is not a certificate"),
        ([7], "is not a certificate"),
        (":a.key", "without a file"),
        ([{"keyfile": "a"}], "without a file"),
        ([{"certfile": "a", "name": "x"}], 'no "name", only certfile, keyfile, keyfile_password, names'),
        ([{"certfile": "a", "names": "x"}], "not a list of host names"),
        ([{"certfile": "a", "names": ["a*.x"]}], "is not a host name"),
        ([{"certfile": "a", "names": ["*.*.x"]}], "is not a host name"),
        ([{"certfile": "a", "names": ["bücher.example"]}], "is not a host name"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(raw: object, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        NamedCertificates().read(raw)
    assert said in str(raised.value)
