"""Listeners: bound, or refused with one clear line; a reload's plan; unix files only while they are ours."""

from __future__ import annotations

import errno
import importlib
import os
import socket
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.daemon import listeners
from preforkd.daemon.address import FdAddress, TcpAddress, UnixAddress, parse
from preforkd.daemon.listeners import BindError, Listener, bind_all, permit_again, plan
from preforkd.daemon.privileges import Identity


@pytest.fixture
def bind() -> Iterator[Callable[..., list[Listener]]]:
    with ExitStack() as stack:

        def bind(*texts: str) -> list[Listener]:
            bound = bind_all([parse(text) for text in texts])
            for listener in bound:
                stack.callback(listener.close)
            return bound

        yield bind


def refused(*texts: str) -> list[str]:
    with pytest.raises(BindError) as raised:
        bind_all([parse(text) for text in texts])
    assert all(len(line.splitlines()) == 1 for line in raised.value.errors)
    return raised.value.errors


Bind = Callable[..., list[Listener]]


# TCP


def test_a_tcp_listener_is_bound_and_does_not_listen_block_or_leak_through_exec(bind: Bind) -> None:
    [listener] = bind("127.0.0.1:0")
    host, port = listener.socket.getsockname()
    assert (host, port > 0) == ("127.0.0.1", True)
    assert listener.url == f"http://127.0.0.1:{port}"
    assert listener.socket.getblocking() is False
    assert listener.socket.get_inheritable() is False
    assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0


def test_ipv6_means_ipv6_alone(bind: Bind) -> None:
    [six] = bind("[::]:0")
    port = six.socket.getsockname()[1]
    six.socket.listen()
    [four] = bind(f"0.0.0.0:{port}")
    four.socket.listen()
    assert (six.url, four.url) == (f"http://[::]:{port}", f"http://0.0.0.0:{port}")


def test_a_name_is_bound_at_all_its_addresses_with_one_port(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "::1", "127.0.0.1", "127.0.0.1")
    bound = bind("localhost:0")
    port = bound[0].socket.getsockname()[1]
    assert [one.url for one in bound] == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"]
    assert {one.address for one in bound} == {TcpAddress("localhost", 0)}


def test_an_address_of_a_name_that_this_machine_lacks_is_left_out(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "2001:db8::1", "127.0.0.1")
    assert [one.socket.family for one in bind("localhost:0")] == [socket.AF_INET]


def resolve(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    real = socket.getaddrinfo

    def fake(_host: str, port: int, **options: int) -> list[object]:
        return [one for host in hosts for one in real(host, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", fake)


def test_a_port_in_use_is_refused_and_its_owner_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [line] = refused(f"127.0.0.1:{port}")
    assert line.startswith(f"cannot bind 127.0.0.1:{port}: the port is in use")
    if sys.platform == "linux":
        assert f"in use by pid {os.getpid()} (" in line


def test_a_port_of_connections_in_time_wait_can_be_bound(bind: Bind) -> None:
    port = port_with_time_wait()
    assert bind(f"127.0.0.1:{port}")


def port_with_time_wait() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the server closes first: its side of the connection goes to TIME_WAIT
            assert client.recv(1) == b""
    return port


@pytest.mark.parametrize("restarted", [False, True])
def test_a_second_daemon_is_refused_while_the_app_of_the_first_still_boots(bind: Bind, restarted: bool) -> None:
    [first] = bind(f"127.0.0.1:{port_with_time_wait() if restarted else 0}")
    port = first.socket.getsockname()[1]
    assert refused(f"127.0.0.1:{port}") == [
        f"cannot bind 127.0.0.1:{port}: the port is in use; stop that, or --bind another port"
    ]
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))


@pytest.mark.alone  # it forks
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who may not")
def test_a_port_that_is_not_permitted_is_refused_with_what_would_be_right() -> None:
    start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if start.exists() and int(start.read_text()) <= 80:
        pytest.skip("this kernel gives every user port 80")
    importlib.import_module("encodings.idna")  # of an interpreter that only root may read, perhaps
    said = as_nobody(lambda: refused("127.0.0.1:80")[0])
    assert said == (
        "cannot bind 127.0.0.1:80: not permitted: a port below 1024 needs root or CAP_NET_BIND_SERVICE "
        "(AmbientCapabilities= of systemd); bind one from 1024 up"
    )


def as_nobody(body: Callable[[], str]) -> str:
    """Run it in a forked child without privileges; what it returns comes through a pipe."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, body().encode())
        except BaseException:  # noqa: BLE001 - nothing may climb out of the child into pytest
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("192.0.2.1:80", "cannot bind 192.0.2.1:80: this machine has no address 192.0.2.1 (:80 binds all that it has)"),
        ("no-such-name.invalid:80", 'the name "no-such-name.invalid" does not resolve ('),
        ("fd:999", "cannot bind fd:999: no such file descriptor was inherited"),
    ],
)
def test_an_address_that_is_not_there_is_refused(text: str, said: str) -> None:
    [line] = refused(text)
    assert said in line


def test_a_system_without_ipv6_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ipv6(*_arguments: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(listeners, "_tcp_socket", no_ipv6)
    assert refused("[::1]:80") == ["cannot bind [::1]:80: this machine has no IPv6"]


def test_all_or_nothing_and_all_errors_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        lines = refused("127.0.0.1:0", used, f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/none/b.sock")
    assert [line.split(": ")[0] for line in lines] == [
        f"cannot bind {used}",
        f"cannot bind unix:{tmp_path}/none/b.sock",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("one", "two"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("[::]", "[::1]")])
def test_addresses_that_take_each_others_connections_are_refused(one: str, two: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert refused(f"{one}:{port}", f"{two}:{port}") == [
        f"cannot bind {two}:{port}: {one}:{port} has the same port of the same addresses"
    ]


def test_an_address_given_twice_in_two_spellings_is_refused(tmp_path: Path) -> None:
    address = UnixAddress("a.sock").under(str(tmp_path))
    with pytest.raises(BindError, match="it is given twice"):
        bind_all([address, UnixAddress(f"{tmp_path}/a.sock")])
    assert list(tmp_path.iterdir()) == []


# Unix


def test_a_unix_socket_is_made_served_and_removed(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    [listener] = bind(f"unix:{path}")
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["a.sock"]
    assert listener.url == f"unix:{path}"
    listener.socket.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert not path.exists()


def test_what_a_dead_server_has_left_is_replaced(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    [listener] = bind(f"unix:{path}")
    listener.socket.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert client.getpeername() == str(path), "the name that is configured, not one that it was bound by before"


@pytest.mark.parametrize("full", [False, True])
def test_a_live_unix_socket_is_refused_also_with_a_full_queue(tmp_path: Path, full: bool) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as live, ExitStack() as stack:
        live.bind(str(path))
        live.listen(0)
        while full:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        assert refused(f"unix:{path}") == [
            f"cannot bind unix:{path}: a server listens there; stop it, or choose another path"
        ]
        assert path.exists()


def test_a_file_is_never_replaced_by_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    path.write_text("precious")
    [line] = refused(f"unix:{path}")
    assert "exists and is not a socket; remove it, or choose another path" in line
    assert path.read_text() == "precious"


def test_a_socket_of_another_kind_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        [line] = refused(f"unix:{path}")
        assert "cannot be asked who has it" in line
        assert path.exists()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    [line] = refused(f"unix:{tmp_path}/none/a.sock")
    assert line.endswith(f"the folder {tmp_path}/none does not exist")


@pytest.mark.alone  # it forks
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who may not")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    said = as_nobody(lambda: refused(f"unix:{tmp_path}/a.sock")[0])
    assert said == f"cannot bind unix:{tmp_path}/a.sock: no permission to make a file in {tmp_path}"


def test_the_file_of_a_successor_is_left_alone(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    [first] = bind(f"unix:{path}")  # it does not listen yet, so the second takes it for dead
    [second] = bind(f"unix:{path}")
    first.close()
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the abstract namespace")
def test_an_abstract_socket_leaves_no_file_and_is_bound_once(bind: Bind) -> None:
    name = f"unix:@preforkd-test-{os.getpid()}"
    [listener] = bind(name)
    listener.socket.listen()
    assert listener.url == name
    assert refused(name) == [f"cannot bind {name}: the name is in use"]


# Inherited


def test_an_inherited_socket_is_taken_as_it_is_bound(bind: Bind) -> None:
    fd = socket.create_server(("127.0.0.1", 0)).detach()
    os.set_inheritable(fd, True)
    [listener] = bind(f"fd:{fd}")
    assert listener.socket.fileno() == fd
    assert listener.url == f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    assert not os.get_inheritable(fd)
    assert not os.get_blocking(fd)


def test_an_inherited_unix_socket_keeps_its_file(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.set_inheritable(True)
    [listener] = bind(f"fd:{sock.detach()}")
    assert listener.url == f"unix:{path}"
    listener.close()
    assert path.exists()


def test_a_descriptor_that_this_process_has_opened_itself_was_not_inherited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        assert refused(f"fd:{own.fileno()}") == [
            f"cannot bind fd:{own.fileno()}: no such file descriptor was inherited"
        ]


def test_what_is_not_a_socket_to_listen_on_is_refused_and_left_open(tmp_path: Path) -> None:
    pair = socket.socketpair()
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    things: list[tuple[Any, str]] = [
        (socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "it is a socket of another kind (AF_INET, SOCK_DGRAM)"),
        (socket.socket(socket.AF_INET, socket.SOCK_STREAM), "it is not bound to an address"),
        (socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), "it is not bound to an address"),
        (client, "it is a connection, not a socket to listen on"),
        (pair[0], "it is a connection, not a socket to listen on"),
        ((tmp_path / "file").open("w"), "it is not a socket"),
    ]
    with closing(server), closing(pair[1]), ExitStack() as stack:
        for thing, said in things:
            stack.enter_context(thing)
            os.set_inheritable(thing.fileno(), True)
            [line] = refused(f"fd:{thing.fileno()}")
            assert said in line
            os.fstat(thing.fileno())


# The plan of a reload

ADDRESSES = st.sampled_from(
    [TcpAddress("127.0.0.1", 0), TcpAddress("::1", 80), UnixAddress("/a"), UnixAddress("@a"), FdAddress(3)]
)


class NoSocket(socket.socket):
    """A socket that is never opened: a plan must not touch one."""

    def __init__(self) -> None:
        pass


@given(st.lists(ADDRESSES), st.lists(ADDRESSES, unique=True))
def test_a_plan_keeps_what_stays_opens_what_is_new_and_closes_the_rest(old: list[object], new: list[object]) -> None:
    bound = [Listener(address, NoSocket()) for address in old]  # type: ignore[arg-type]  # the strategy gives addresses
    planned = plan(bound, new)  # type: ignore[arg-type]  # the strategy gives addresses
    assert {*planned.keep, *planned.close} == set(bound)
    assert not {*planned.keep} & {*planned.close}
    assert {one.address for one in planned.keep} | {*planned.open} == {*new}
    assert not {one.address for one in planned.close} & {*new}
    assert [*planned.open] == [address for address in new if address not in old]


# Owners and modes of unix sockets


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_unix_socket_has_the_mode_of_its_address_whatever_the_umask(bind: Bind, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        bind(f"unix:{tmp_path}/a?mode=666", f"unix:{tmp_path}/b")
    finally:
        os.umask(before)
    assert (permissions(tmp_path / "a"), permissions(tmp_path / "b")) == (0o666, 0o700)


@pytest.mark.parametrize(("setting", "said"), [("user", "there is no user 'xyzzy'"), ("group", "no group 'xyzzy'")])
def test_an_owner_that_does_not_exist_is_refused_and_leaves_nothing(tmp_path: Path, setting: str, said: str) -> None:
    [error] = refused(f"unix:{tmp_path}/a?{setting}=xyzzy")
    assert said in error
    assert list(tmp_path.iterdir()) == []


def test_who_may_not_give_a_socket_away_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    [error] = refused(f"unix:{tmp_path}/a?user=0")
    assert "not permitted to give the file to that user and group: it takes root" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_unix_socket_belongs_to_who_its_address_says_or_else_to_the_workers(tmp_path: Path) -> None:
    addresses = [parse(f"unix:{tmp_path}/a?user=31415"), parse(f"unix:{tmp_path}/b"), parse(f"unix:{tmp_path}/c")]
    bound = [*bind_all(addresses[:2], owner=Identity(1234, 5678)), *bind_all(addresses[2:])]
    owners = [(tmp_path / name).stat() for name in "abc"]
    for listener in bound:
        listener.close()
    assert [(one.st_uid, one.st_gid) for one in owners] == [(31415, 5678), (1234, 5678), (os.geteuid(), os.getegid())]


def test_a_unix_socket_that_stays_gets_the_mode_that_a_reload_gives_it(bind: Bind, tmp_path: Path) -> None:
    [kept, other] = bind(f"unix:{tmp_path}/a?mode=600", f"unix:{tmp_path}/b?mode=600")
    new = [parse(f"unix:{tmp_path}/a?mode=666"), parse(f"unix:{tmp_path}/c?mode=666")]
    assert plan([kept, other], new).keep == (kept,)
    for listener in (kept, other):
        permit_again(listener, new, None)
    assert (permissions(tmp_path / "a"), permissions(tmp_path / "b")) == (0o666, 0o600)
    with pytest.raises(BindError, match="no group 'xyzzy'"):
        permit_again(kept, [parse(f"unix:{tmp_path}/a?group=xyzzy")], None)


def test_a_file_that_has_become_anothers_keeps_its_mode(bind: Bind, tmp_path: Path) -> None:
    [listener] = bind(f"unix:{tmp_path}/a?mode=600")
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_text("")
    (tmp_path / "a").chmod(0o640)
    permit_again(listener, [parse(f"unix:{tmp_path}/a?mode=666")], None)
    assert permissions(tmp_path / "a") == 0o640
