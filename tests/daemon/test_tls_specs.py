"""How each address speaks TLS, from the options."""

from __future__ import annotations

from typing import Any

import pytest

from preforkd.daemon.address import Address, parse
from preforkd.daemon.config import ConfigError, load
from preforkd.daemon.tls_specs import PairSpec, TlsSpec, secured


def specs(**cli: object) -> dict[Address, TlsSpec]:
    return dict(load({"app": "a:b", "chdir": "/srv", **cli}, {}, folder="/", read=missing).tls)


def missing(path: str) -> bytes:
    raise FileNotFoundError


def toml(text: str, **cli: object) -> dict[Address, TlsSpec]:
    values: dict[str, Any] = {"app": "a:b", "chdir": "/srv", "config": "c.toml", **cli}
    return dict(load(values, {}, folder="/", read=lambda _: text.encode()).tls)


@pytest.mark.parametrize(
    ("addresses", "certfile", "tls"),
    [
        (["127.0.0.1:80"], "", [False]),
        (["127.0.0.1:80", "[::1]:80"], "a", [True, True]),
        (["127.0.0.1:80", "tls:[::1]:80"], "a", [False, True]),
        (["127.0.0.1:80", "tls:[::1]:80"], "", [False, True]),
    ],
)
def test_which_addresses_speak_tls(addresses: list[str], certfile: str, tls: list[bool]) -> None:
    assert [one.tls is not None for one in secured(map(parse, addresses), certfile)] == tls


def test_an_address_that_is_said_to_be_plain_stays_so() -> None:
    found = toml('certfile = "a"\nbind = [":80", { address = ":81" }]')
    assert list(found) == [parse(":80")]


def test_paths_start_from_chdir_and_a_key_may_be_with_its_certificate() -> None:
    found = specs(certfile="tls/a.pem", keyfile_password="@pw", sni_certificate=["/b.pem:b.key"])
    (spec,) = found.values()
    assert spec.pairs == (
        PairSpec("--certfile on the command line", "/srv/tls/a.pem", "/srv/tls/a.pem", "@/srv/pw"),
        PairSpec("--sni-certificate on the command line", "/b.pem", "/srv/b.key"),
    )


def test_an_address_has_settings_of_its_own_and_the_rest_of_all() -> None:
    found = toml(
        """
        certfile = "a"
        keyfile = "k"
        keyfile_password = "p"
        tls_min = "1.3"
        bind = [
            "tls::1",
            { address = ":2", ca_certs = "ca", cert_reqs = "required" },
            { address = ":3", certfile = "c", tls_min = "1.2" },
        ]
        """
    )
    first, second, third = found.values()
    assert (first.cert_reqs, first.tls_min) == ("none", "1.3")
    assert (second.cert_reqs, second.ca_certs, second.tls_min) == ("required", "/srv/ca", "1.3")
    assert second.pairs == first.pairs
    assert third.tls_min == "1.2"
    assert (third.pairs[0].certfile, third.pairs[0].keyfile, third.pairs[0].password) == ("/srv/c", "/srv/c", "")
    assert third.pairs[0].origin == "bind in c.toml (0.0.0.0:3, certfile)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('bind = "tls::80"', 'bind in c.toml: "tls:0.0.0.0:80" has no certificate'),
        ('keyfile = "k"', "keyfile in c.toml: no address speaks TLS"),
        ("[[sni_certificate]]\ncertfile = 'a'", "sni_certificate in c.toml: no address speaks TLS"),
        ('certfile = "a"\nbind = [{ address = ":80" }]', "certfile in c.toml: no address speaks TLS"),
        ('certfile = "a"\ncert_reqs = "optional"', "cert_reqs in c.toml: optional needs the authorities"),
        (
            'certfile = "a"\nbind = [{ address = ":80", cert_reqs = "required" }]',
            "bind in c.toml (0.0.0.0:80, cert_reqs): required needs the authorities",
        ),
    ],
)
def test_what_is_missing_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        toml(text)
    assert len(raised.value.errors) == 1
    assert raised.value.errors[0].startswith(said)


def test_a_password_on_the_command_line_is_refused_and_elsewhere_not() -> None:
    with pytest.raises(ConfigError, match="everybody can read it there"):
        specs(certfile="a", keyfile_password="secret")
    assert toml('certfile = "a"\nkeyfile_password = "secret"')


def test_authorities_for_nothing_are_warned_of() -> None:
    config = load({"app": "a:b", "certfile": "a", "ca_certs": "ca"}, {}, folder="/", read=missing)
    assert [one for one in config.warnings if "ca_certs" in one]
