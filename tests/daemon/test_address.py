"""Addresses: every form reads back as it is written, and what is wrong is said with what would be right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.daemon.address import (
    SUN_PATH_MAX,
    AddressError,
    FdAddress,
    Secured,
    SystemdAddress,
    TcpAddress,
    UnixAddress,
    parse,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", TcpAddress("127.0.0.1", 8000)),
        (":8000", TcpAddress("0.0.0.0", 8000)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("Example.ORG.:65535", TcpAddress("example.org.", 65535)),
        ("my_host-1:80", TcpAddress("my_host-1", 80)),
        ("*:8000", TcpAddress("*", 8000)),
        ("[::1]:8000", TcpAddress("::1", 8000)),
        ("[0:0::1]:8000", TcpAddress("::1", 8000)),
        ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:run/a b:c.sock", UnixAddress("run/a b:c.sock")),
        ("unix:@preforkd", UnixAddress("@preforkd")),
        ("unix:/a?mode=660", UnixAddress("/a", 0o660)),
        ("unix:/a?mode=0606&user=1&group=www-data", UnixAddress("/a", 0o606, "1", "www-data")),
        ("systemd:web", SystemdAddress("web")),
        ("systemd:", SystemdAddress("")),
        ("fd:0", FdAddress(0)),
        ("fd:3", FdAddress(3)),
    ],
)
def test_every_form_is_read(text: str, address: object) -> None:
    assert repr(parse(text)) == repr(address)
    assert repr(parse(str(address))) == repr(address)


@pytest.mark.parametrize("text", ["127.0.0.1:8443", "[::1]:8443", "*:8443", "unix:/a?mode=660", "fd:3", "systemd:web"])
def test_tls_before_an_address_is_no_other_address(text: str) -> None:
    secure, plain = parse(f"tls:{text}"), parse(text)
    assert secure.tls == Secured()
    assert plain.tls is None
    assert secure == plain
    assert str(secure) == f"tls:{text}"
    assert parse(str(secure)).tls == Secured()


def test_the_url_says_whether_it_is_tls() -> None:
    assert parse("tls:127.0.0.1:8443").url == "https://127.0.0.1:8443"
    assert parse("127.0.0.1:8443").url == "http://127.0.0.1:8443"
    assert parse("tls:unix:/a").url == "tls:unix:/a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty address"),
        ("8000", 'no host: write "127.0.0.1:8000"'),
        ("localhost", 'no port: write "localhost:8000"'),
        ("localhost:", 'no port: write "localhost:8000"'),
        (":", "no port"),
        ("[::1]", 'no port: write "[::1]:8000"'),
        ("[::1]:", "no port"),
        ("[::1", "closing bracket"),
        ("[::1]8000", 'after "]" comes ":"'),
        ("[]:80", "not an IPv6 address"),
        ("[127.0.0.1]:80", "not an IPv6 address"),
        ("[::1%]:80", "not an interface"),
        ("[::1%a b]:80", "not an interface"),
        ("::1:8000", "needs brackets"),
        ("localhost:65536", "65536 is not in 0 to 65535"),
        ("localhost:99999999999999999999", "not in 0 to 65535"),
        ("localhost:-1", "not a number"),
        ("localhost:+80", "not a number"),
        ("localhost:8_0", "not a number"),
        ("localhost: 80", "not a number"),
        ("localhost:\u0668\u0660", "not a number"),
        ("localhost:\uff18\uff10", "not a number"),
        ("localhost:http", "not a number"),
        ("*", "no port"),
        ("*:", "no port"),
        ("*a:80", "not a host name"),
        ("tls:", 'behind "tls:" comes an address'),
        ("tls:tls::80", 'behind "tls:" comes an address'),
        ("tls:80", "no host"),
        ("256.0.0.1:80", "not an IPv4 address"),
        ("127.1:80", "not an IPv4 address"),
        ("0177.0.0.1:80", "not an IPv4 address"),
        ("a b:80", "not a host name"),
        ("-a:80", "not a host name"),
        ("héllo:80", "not a host name"),
        ("a..b:80", "not a host name"),
        (f"{'a' * 64}:80", "not a host name"),
        ("http://localhost:80", "is a URL"),
        ("tcp://10.0.0.1:80", "is a URL"),
        ("/run/app.sock", 'write "unix:/run/app.sock"'),
        ("unix:", "no path"),
        ("unix:@", "no path"),
        ("unix:/run/", "names a folder"),
        ("unix:/a\0b", "cannot be printed"),
        ("unix:/a\nb", "cannot be printed"),
        ("unix:/a\udcff", "cannot be printed"),
        ("unix:/" + "x" * SUN_PATH_MAX, f"{SUN_PATH_MAX + 1} bytes"),
        ("unix:/" + "é" * 60, "121 bytes"),
        ("fd:", "number of an inherited file descriptor"),
        ("fd:-1", "number of an inherited file descriptor"),
        ("fd:three", "number of an inherited file descriptor"),
        ("fd:99999999999", "so high a number"),
        ("systemd:a:b", "the name that the socket unit gives"),
        ("systemd:" + "x" * 256, "the name that the socket unit gives"),
        ("unix:?mode=660", "no path"),
        ("unix:/a?", 'behind "?" come mode, user and group'),
        ("unix:/a?mode=", 'behind "?" come mode, user and group'),
        ("unix:/a?perm=660", 'behind "?" come mode, user and group'),
        ("unix:/a?mode=660&mode=666", 'behind "?" come mode, user and group'),
        ("unix:/a?mode=888", '"888" is not a mode'),
        ("unix:/a?mode=66", '"66" is not a mode'),
        ("unix:/a?mode=4755", '"4755" is not a mode'),
        ("unix:@a?mode=660", "neither a mode nor an owner"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(AddressError) as error:
        parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9\[\]:.%@/]{0,30}"))
def test_any_text_is_an_address_that_reads_back_or_an_address_error(text: str) -> None:
    try:
        said = str(parse(text))
        address = parse(text)
    except AddressError as error:
        said, address = str(error), None
    assert len(said.splitlines()) == 1
    assert address is None or parse(said) == address


@given(st.ip_addresses(v=6), st.integers(0, 65535))
def test_ipv6_addresses_read_back_in_their_canonical_form(host: object, port: int) -> None:
    assert parse(f"[{host}]:{port}") == TcpAddress(str(host), port)


def test_urls_can_be_opened() -> None:
    assert parse("127.0.0.1:80").url == "http://127.0.0.1:80"
    assert parse("[::1]:80").url == "http://[::1]:80"
    assert parse("unix:/run/a.sock").url == "unix:/run/a.sock"
    assert parse("fd:3").url == "fd:3"


def test_a_relative_unix_path_stays_where_it_is_when_the_folder_changes() -> None:
    assert UnixAddress("run/../a.sock").under("/srv/app") == UnixAddress("/srv/app/a.sock")
    assert UnixAddress("/run/a.sock").under("/srv/app") == UnixAddress("/run/a.sock")
    assert UnixAddress("@name").under("/srv/app") == UnixAddress("@name")
