"""The client is the first address from the right that is no trusted proxy; nobody else's word counts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers.forwarded import Networks, network_of, node_of, read
from preforkd.workers.http.message import Forwarded

PEER = ("10.0.0.1", 40000)
TRUSTED = Networks(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])


def said(*fields: tuple[str, str], form: str = "x-forwarded", host: str = "app.internal") -> Forwarded:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in [("host", host), *fields]]
    return read(form, pairs, PEER, TRUSTED, "http")[0]


def for_(*values: str) -> Forwarded:
    return said(*[("X-Forwarded-For", value) for value in values])


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.9", ("203.0.113.9", 0)),
        ("203.0.113.9:4711", ("203.0.113.9", 4711)),
        ("[2001:dead::1]:4711", ("2001:dead::1", 4711)),
        ("[2001:dead::1]", ("2001:dead::1", 0)),
        ("2001:DEAD:0::1", ("2001:dead::1", 0)),
        ('"[2001:dead::1]:4711"', ("2001:dead::1", 4711)),
        ('"203.0.113.9"', ("203.0.113.9", 0)),
        ("::ffff:203.0.113.9", ("203.0.113.9", 0)),
        ("evil, 203.0.113.9", ("203.0.113.9", 0)),
        ("127.0.0.1, 203.0.113.9, 10.1.2.3", ("203.0.113.9", 0)),
        ("203.0.113.9,10.1.2.3 ,\t2001:db8::7, 192.0.2.7", ("203.0.113.9", 0)),
        ("203.0.113.9, , ,", ("203.0.113.9", 0)),
        ("10.1.2.3, 10.0.0.9", ("10.1.2.3", 0)),
        ("unknown", None), ("_hidden", None), ("203.0.113.9, unknown", None), ("203.0.113.9, _hidden, 10.1.1.1", None),
        ("localhost", None), ("203.0.113.9:http", None), ("203.0.113.9:70000", None),
        ("203.0.113.9:", ("203.0.113.9", 0)),
        ("203.0.113.9:_port", ("203.0.113.9", 0)), ("[203.0.113.9]:1", None), ("[2001:dead::1]x", None),
        ("[2001:dead::1", ("2001:dead::1", 0)),
        ("fe80::1%eth0", None), ("203.0.113.09", None), ("0x7f.1", None), ("1", None), ("203.0.113.9\xb2", None),
        ('"', None), ('""', None), ("[", None), ("[]", None), (":", None), ("::", ("::", 0)),
        ("", PEER), (",", PEER), (" \t", PEER),
    ],
)  # fmt: skip
def test_x_forwarded_for_is_walked_from_the_right(value: str, client: tuple[str, int] | None) -> None:
    assert for_(value).client == client


def test_several_fields_are_one_list() -> None:
    assert for_("evil", "203.0.113.9, 10.1.1.1", "10.1.1.2").client == ("203.0.113.9", 0)


def test_nothing_said_leaves_the_peer() -> None:
    assert said() == Forwarded(PEER)


def test_hundreds_of_addresses_are_walked_as_far_as_they_are_trusted() -> None:
    trusted = ", ".join(f"10.{number // 250}.{number % 250}.1" for number in range(900))
    assert for_(f"198.51.100.1, 203.0.113.9, {trusted}").client == ("203.0.113.9", 0)
    assert for_(trusted).client == ("10.0.0.1", 0)
    for number in range(256):
        for text in (f"203.0.113.{number}", f"2001:dead::{number + 1:x}", f"203.0.{number}.5:{number + 1}"):
            client = for_(f"10.0.0.1, {text}, 10.0.0.7").client
            assert client is not None
            assert f"{client[0]}:{client[1]}" == (text if text.count(":") == 1 else f"{text}:0")


@pytest.mark.parametrize(
    ("fields", "scheme", "authority", "server"),
    [
        ([("Proto", "https")], "https", b"", None),
        ([("Proto", "HTTPS")], "https", b"", None),
        ([("Proto", "wss")], "https", b"", None),
        ([("Proto", "gopher")], "", b"", None),
        ([("Proto", "https, http")], "http", b"", None),
        ([("Proto", "gopher, https")], "https", b"", None),
        ([("For", "203.0.113.9, 10.1.1.1"), ("Proto", "gopher, https, http")], "https", b"", None),
        ([("For", "203.0.113.9, 10.1.1.1"), ("Proto", "https")], "https", b"", None),
        ([("For", "evil, 203.0.113.9"), ("Proto", "evil, https")], "https", b"", None),
        ([("Host", "shop.example")], "", b"shop.example", ("shop.example", 80)),
        ([("Host", "shop.example:8443")], "", b"shop.example:8443", ("shop.example", 8443)),
        ([("Host", "shop.example"), ("Proto", "https")], "https", b"shop.example", ("shop.example", 443)),
        ([("Host", "shop.example"), ("Port", "8443")], "", b"shop.example:8443", ("shop.example", 8443)),
        ([("Host", "shop.example:30443"), ("Port", "443")], "", b"shop.example:30443", ("shop.example", 30443)),
        ([("Host", "s"), ("Port", "443"), ("Proto", "https")], "https", b"s", ("s", 443)),
        ([("Host", "[2001:dead::1]"), ("Port", "81")], "", b"[2001:dead::1]:81", ("[2001:dead::1]", 81)),
        ([("Port", "8443")], "", b"app.internal:8443", ("app.internal", 8443)),
        ([("Port", "80")], "", b"", ("app.internal", 80)),
        ([("Port", "0")], "", b"", None),
        ([("Port", "65536")], "", b"", None),
        ([("Port", "8\xb2")], "", b"", None),
        ([("Host", "a b")], "", b"", None),
        ([("Host", "user@shop")], "", b"", None),
        ([("Host", "a.example, b.example")], "", b"b.example", ("b.example", 80)),
    ],
)
def test_scheme_host_and_port_are_those_that_the_client_has_used(
    fields: list[tuple[str, str]], scheme: str, authority: bytes, server: tuple[str, int] | None
) -> None:
    found = said(*[(f"X-Forwarded-{name}", value) for name, value in fields])
    assert (found.scheme, found.authority, found.server) == (scheme, authority, server)


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        ("/api", "/api"), ("/api/", "/api"), ("/a/b%20c", "/a/b%20c"), ("/", ""), ("", ""),
        ("api", ""), ("//evil.example", ""), ("/a//b", ""), ("/../a", ""), ("/a?b", ""), ("/a b", ""), ("/%zz", ""),
        ("/evil, /api", "/api"),
    ],
)  # fmt: skip
def test_a_prefix_is_a_path_and_nothing_else(value: str, prefix: str) -> None:
    assert said(("X-Forwarded-Prefix", value)).prefix == prefix


def test_proxies_one_behind_the_other_have_each_stripped_a_part() -> None:
    found = said(("X-Forwarded-For", "203.0.113.9, 10.1.1.1"), ("X-Forwarded-Prefix", "/evil, /outer, /inner"))
    assert found.prefix == "/outer/inner"


@pytest.mark.parametrize(
    ("value", "client", "scheme", "authority"),
    [
        ("for=203.0.113.9", ("203.0.113.9", 0), "", b""),
        ("For=203.0.113.9;Proto=HTTPS;by=10.0.0.1;host=shop.example", ("203.0.113.9", 0), "https", b"shop.example"),
        ('for="203.0.113.9:4711"', ("203.0.113.9", 4711), "", b""),
        ('for="[2001:dead::1]:4711"; host="shop.example:8443"', ("2001:dead::1", 4711), "", b"shop.example:8443"),
        ('for="[2001:dead::1]"', ("2001:dead::1", 0), "", b""),
        ('for="203.0.11\\3.9"', ("203.0.113.9", 0), "", b""),
        ("for=unknown", None, "", b""), ("for=_hidden;proto=https", None, "https", b""),
        ("proto=https", None, "https", b""),
        ("for=evil;proto=gopher, for=203.0.113.9;proto=https, for=10.1.1.1;proto=http;host=in",
         ("203.0.113.9", 0), "https", b"in"),
        ('for="a, for=127.0.0.1", for=203.0.113.9', ("203.0.113.9", 0), "", b""),
        ('for=", for=203.0.113.9', ("203.0.113.9", 0), "", b""),
        ('x="\\, for=203.0.113.9', ("203.0.113.9", 0), "", b""),
        ('for=203.0.113.9, for="10.1.1.1', None, "", b""),
        ("for=203.0.113.9, nonsense", None, "", b""),
        ("for=203.0.113.9;for=198.51.100.1", None, "", b""),
        ("for=203.0.113.9, , for=10.1.1.1,", ("203.0.113.9", 0), "", b""),
        (";;for=203.0.113.9 ; ;", ("203.0.113.9", 0), "", b""),
        ("", PEER, "", b""), (",,", PEER, "", b""),
        ("for=203.0.113.9;host=a b", None, "", b""), ('for=203.0.113.9;host="a b"', ("203.0.113.9", 0), "", b""),
    ],
)  # fmt: skip
def test_forwarded_is_walked_from_the_right(
    value: str, client: tuple[str, int] | None, scheme: str, authority: bytes
) -> None:
    found = said(("Forwarded", value), form="rfc7239")
    assert (found.client, found.scheme, found.authority) == (client, scheme, authority)


def test_what_stands_left_of_the_client_is_not_shown_to_the_app() -> None:
    fields = [
        (b"x-forwarded-for", b"127.0.0.1, 203.0.113.9"), (b"x-forwarded-for", b"10.1.1.1"),
        (b"x-forwarded-proto", b"evil, https, http"), (b"x-forwarded-host", b"shop.example"),
    ]  # fmt: skip
    _, claims = read("x-forwarded", fields, PEER, TRUSTED, "http")
    assert claims == {b"x-forwarded-for": [b"203.0.113.9", b"10.1.1.1"], b"x-forwarded-proto": [b"https", b"http"]}
    _, claims = read("rfc7239", [(b"forwarded", b"for=127.0.0.1, for=203.0.113.9")], PEER, TRUSTED, "http")
    assert claims == {b"forwarded": [b"for=203.0.113.9"]}
    _, claims = read("rfc7239", [(b"forwarded", b" for=203.0.113.9,")], PEER, TRUSTED, "http")
    assert claims == {}
    fields = [(b"x-forwarded-for", b"203.0.113.9"), (b"forwarded", b"for=198.51.100.1")]
    assert read("x-forwarded", fields, PEER, TRUSTED, "http")[1] == {b"forwarded": []}
    assert read("rfc7239", fields, PEER, TRUSTED, "http")[1] == {b"x-forwarded-for": []}


def test_the_usual_two_fields_and_all_others_are_read_alike() -> None:
    for value in ("203.0.113.9", "203.0.113.9:1", "[2001:dead::1]:1", "unknown", "", "10.1.1.1"):
        two = said(("X-Forwarded-For", value), ("X-Forwarded-Proto", "https"))
        three = said(("X-Forwarded-For", value), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Prefix", ""))
        assert two == three, value
    repeated = said(
        ("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "http")
    )
    assert repeated.client == ("203.0.113.9", 0)


@pytest.mark.parametrize(
    "value", [b";  " * 9000 + b'"', b'for="' + b"," * 20000, b"for=a;" * 9000 + b"=", b'"' * 20000, b"," * 60000]
)
def test_nonsense_does_not_take_long(value: bytes) -> None:
    began = time.process_time()
    read("rfc7239", [(b"forwarded", value)], PEER, TRUSTED, "http")
    read("x-forwarded", [(b"x-forwarded-for", value)], PEER, TRUSTED, "http")
    assert time.process_time() - began < 1


VALUES = st.text(st.sampled_from('0123456789abf.:,;="\\[]/ _for%'), max_size=60).map(str.encode) | st.binary(
    max_size=20
)
NAMES = st.sampled_from([b"x-forwarded-" + name for name in (b"for", b"proto", b"host", b"port", b"prefix")])
NAMES |= st.sampled_from([b"forwarded", b"host"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.sampled_from(["x-forwarded", "rfc7239"]))
def test_no_bytes_confuse_it(fields: list[tuple[bytes, bytes]], form: str) -> None:
    found, _ = read(form, fields, PEER, TRUSTED, "http")
    if found.client is not None:
        assert node_of(found.client[0].encode()) is not None
    assert found.scheme in ("", "http", "https")


def test_a_claim_of_the_client_changes_nothing() -> None:
    @given(st.binary(max_size=40))
    def claims(claim: bytes) -> None:
        for form, name, value in (
            ("x-forwarded", b"x-forwarded-for", b"203.0.113.9"),
            ("rfc7239", b"forwarded", b"for=203.0.113.9"),
        ):
            found, _ = read(form, [(name, claim + b", " + value)], PEER, TRUSTED, "http")
            assert found == Forwarded(("203.0.113.9", 0))

    claims()


def test_networks_hold_what_is_in_them() -> None:
    for host, held in {
        "10.1.2.3": True, "11.0.0.1": False, "2001:db8::1": True, "2001:dead::1": False, "192.0.2.7": True,
        "192.0.2.8": False, "::ffff:10.1.1.1": True, "nonsense": False, None: False,
    }.items():  # fmt: skip
        assert TRUSTED.hold_peer(host) is held, host
    assert Networks(["unix:"]).hold_peer(None)
    assert not Networks(["unix:"]).hold_peer("127.0.0.1")
    everybody = Networks(["*"])
    assert everybody.hold_peer("203.0.113.9")
    assert everybody.hold_peer(None)
    assert not Networks([]).hold_peer("127.0.0.1")
    assert Networks(["::ffff:10.0.0.0/104"]).hold_peer("10.1.1.1")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("10.0.0.1/8", "write 10.0.0.0/8$"),
        ("10.0.0", "is not an address or network"),
        ("unix", "unix: or"),
        ("", "is not"),
    ],
)
def test_what_is_no_network_is_refused_with_what_would_be_right(text: str, right: str) -> None:
    with pytest.raises(ValueError, match=right):
        network_of(text)
