"""What systemd says in the environment, and the messages to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from preforkd.daemon.systemd import Activation, ActivationError, Systemd, message, send, take

PID = 42


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Three inheritable sockets; the first one's number is where systemd's begin."""
    monkeypatch.setattr("preforkd.daemon.systemd.FIRST_SOCKET", 900)
    made = [900, 901, 902]
    with closing(socket.socket()) as sock:
        for fd in made:
            os.dup2(sock.fileno(), fd)
    yield made
    for fd in made:
        os.close(fd)


def names(environ: dict[str, str], pid: int = PID) -> tuple[tuple[str, int], ...]:
    return take(environ, pid).activation.sockets


def test_every_variable_of_systemd_is_taken_out_of_the_environment_and_no_other() -> None:
    told = {
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": "42",
        "LISTEN_FDS": "0",
        "LISTEN_PID": "42",
        "LISTEN_FDNAMES": "",
        "LISTEN_PIDFDID": "7",
    }
    environ = {"INVOCATION_ID": "a", "PATH": "/bin", **told}
    take(environ, PID)
    assert environ == {"INVOCATION_ID": "a", "PATH": "/bin"}


def test_a_socket_that_was_announced_and_is_not_there_harms_nothing(listeners: list[int]) -> None:
    found = take({"LISTEN_FDS": "4", "LISTEN_PID": "42"}, PID)
    assert len(found.activation.sockets) == 4
    assert found.activation.descriptors() == listeners


def test_without_systemd_there_is_nothing_to_say_and_no_socket() -> None:
    found = take({}, PID)
    assert found == Systemd()
    assert (found.notify, found.watchdog, found.activation.sockets) == ("", 0.0, ())


@pytest.mark.parametrize("notify", ["/run/systemd/notify", "@/org/freedesktop/systemd1/notify"])
def test_messages_go_to_a_path_or_an_abstract_name(notify: str) -> None:
    assert take({"NOTIFY_SOCKET": notify}, PID).notify == notify


def test_an_address_of_another_kind_is_named_in_a_warning_and_not_used() -> None:
    found = take({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000"}, PID)
    assert (found.notify, found.watchdog) == ("", 0.0)
    assert "vsock:2:1234" in found.warnings[0]


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        pytest.param({"WATCHDOG_USEC": "30000000"}, 30.0, id="no pid: for whoever reads it"),
        pytest.param({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "42"}, 1.5, id="for us"),
        pytest.param({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "43"}, 0.0, id="for another process"),
        pytest.param({"WATCHDOG_PID": "42"}, 0.0, id="none"),
    ],
)
def test_the_watchdog_is_served_when_it_is_meant_for_this_process(environ: dict[str, str], seconds: float) -> None:
    found = take({"NOTIFY_SOCKET": "/n", **environ}, PID)
    assert (found.watchdog, found.warnings) == (seconds, ())


def test_blanks_around_a_value_do_not_count() -> None:
    found = take({"NOTIFY_SOCKET": " /n", "WATCHDOG_USEC": "1500000 ", "WATCHDOG_PID": " 42 "}, PID)
    assert (found.notify, found.watchdog, found.warnings) == ("/n", 1.5, ())
    assert "is '0'" in take({"LISTEN_FDS": " 0 ", "LISTEN_PID": "42"}, PID).activation.absence


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "9" * 30, "٣"])
def test_a_watchdog_time_that_is_none_is_named_in_a_warning(text: str) -> None:
    found = take({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": text}, PID)
    assert found.watchdog == 0.0
    assert "WATCHDOG_USEC" in found.warnings[0]


@pytest.mark.usefixtures("listeners")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("web:admin:web", (("web", 900), ("admin", 901), ("web", 902)), id="named"),
        pytest.param("web", (("web", 900), ("unknown", 901), ("unknown", 902)), id="too few names"),
        pytest.param("a:b:c:d", (("a", 900), ("b", 901), ("c", 902)), id="too many names"),
        pytest.param("::x", (("unknown", 900), ("unknown", 901), ("x", 902)), id="empty names"),
        pytest.param(None, (("unknown", 900), ("unknown", 901), ("unknown", 902)), id="no names"),
    ],
)
def test_each_socket_has_its_name(given: str | None, expected: tuple[tuple[str, int], ...]) -> None:
    environ = {"LISTEN_FDS": "3", "LISTEN_PID": "42"} | ({} if given is None else {"LISTEN_FDNAMES": given})
    assert names(environ) == expected


def test_no_process_that_the_app_starts_inherits_the_sockets_but_an_upgrade_does(listeners: list[int]) -> None:
    found = take({"LISTEN_FDS": "3", "LISTEN_PID": "42"}, PID)
    assert [os.get_inheritable(fd) for fd in listeners] == [False, False, False]
    found.activation.pass_on(True)
    assert [os.get_inheritable(fd) for fd in listeners] == [True, True, True]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        pytest.param({}, "LISTEN_FDS is not set", id="not started by systemd"),
        pytest.param({"LISTEN_FDS": "0", "LISTEN_PID": "42"}, "LISTEN_FDS is '0'", id="none"),
        pytest.param({"LISTEN_FDS": "many", "LISTEN_PID": "42"}, "LISTEN_FDS is 'many'", id="no number"),
        pytest.param({"LISTEN_FDS": "9" * 9, "LISTEN_PID": "42"}, "LISTEN_FDS is '999999999'", id="far too many"),
        pytest.param({"LISTEN_FDS": "1", "LISTEN_PID": "41"}, "LISTEN_PID is 41, this is 42", id="another process"),
        pytest.param({"LISTEN_FDS": "1"}, "LISTEN_PID is not set, this is 42", id="nobody's"),
    ],
)
def test_why_there_is_no_socket_is_said(environ: dict[str, str], said: str) -> None:
    activation = take(environ, PID).activation
    assert activation.sockets == ()
    for name in ("web", ""):
        with pytest.raises(ActivationError, match=said):
            activation.named(name)


PASSED = Activation((("web", 3), ("admin.socket", 4), ("web", 5)), absence="")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("web", [3, 5]), ("admin.socket", [4]), ("admin", [4]), ("", [3, 4, 5])],
)
def test_a_name_gives_its_sockets_and_no_name_all_of_them(name: str, expected: list[int]) -> None:
    assert PASSED.named(name) == expected


def test_a_name_that_nobody_has_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ActivationError) as caught:
        PASSED.named("wev")
    assert str(caught.value).startswith(
        'systemd has passed no socket named "wev", only "web" (2 times), "admin.socket"'
    )
    assert "did you mean systemd:web?" in str(caught.value)
    with pytest.raises(ActivationError) as caught:
        PASSED.named("xyz")
    assert "did you mean" not in str(caught.value)


def test_no_text_can_forge_another_assignment() -> None:
    assert message("READY=1", "STATUS=a\nSTOPPING=1\r b") == b"READY=1\nSTATUS=a STOPPING=1 b"
    assert message("STATUS=\udc80") == b"STATUS=\\udc80"


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_arrives_as_one_datagram(tmp_path: Path, abstract: bool) -> None:
    address = f"@preforkd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if abstract else address)
        send(address, b"READY=1\nSTATUS=x")
        assert receiver.recv(1000) == b"READY=1\nSTATUS=x"


def send_for_ever(address: str) -> None:
    while True:
        send(address, b"x" * 1000)


def test_a_receiver_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        with pytest.raises(BlockingIOError):
            send_for_ever(address)


def test_a_receiver_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        send(str(tmp_path / "nobody"), b"READY=1")
