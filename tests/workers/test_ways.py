"""Each kind of file is written to without waiting, and without changing it for those who share it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import socket
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preforkd.workers import ways
from preforkd.workers.ways import Way, way_to, way_to_file, way_to_nowhere

LINE = b"0123456789abcdef" * 6 + b"123\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def refused(_descriptor: int) -> None:
    """As for the pipe of another user."""


def fill(way: Way, line: bytes = LINE) -> int:
    """Write until it would wait; the bytes that have gone out."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while len(line) <= way.whole or way.has_room(len(line)):
            sent += way.write(line)
    return sent


def nothing(_monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual way."""


def another_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "_open_anew", refused)


def no_splice(monkeypatch: pytest.MonkeyPatch) -> None:
    another_users(monkeypatch)
    monkeypatch.delattr(os, "splice")


@pytest.mark.parametrize("prepare", [nothing, another_users, no_splice])
def test_a_full_pipe_is_never_waited_for_and_keeps_its_flags(
    prepare: Callable[[pytest.MonkeyPatch], None], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch)
    reader, writer = pipe
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    way = way_to(writer)
    assert way.fileno() > 2
    sent = fill(way)
    assert sent
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags
    data = b""
    while len(data) < sent:
        data += os.read(reader, 1 << 20)
    assert data == LINE * (sent // len(LINE))
    assert way.write(LINE) == len(LINE)
    assert os.read(reader, 1 << 20) == LINE
    way.close()


@pytest.mark.parametrize("prepare", [nothing, another_users])
def test_a_long_line_waits_for_room_for_all_of_it(
    prepare: Callable[[pytest.MonkeyPatch], None], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch)
    reader, writer = pipe
    long = b"x" * 20000 + b"\n"
    way = way_to(writer)
    sent = fill(way, long)
    assert sent
    assert sent % len(long) == 0
    assert os.read(reader, 1 << 20) == long * (sent // len(long))
    huge = b"x" * 200_000 + b"\n"
    sent = way.write(huge)
    assert 0 < sent < len(huge), "what never finds room for all of it goes out in parts, into an empty pipe"
    os.read(reader, 1 << 20)
    assert way.write(huge[sent:])
    way.close()


@pytest.mark.alone  # it forks
def test_a_fork_does_not_share_the_pipe_that_is_spliced_from(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    another_users(monkeypatch)
    reader, writer = pipe
    way = way_to(writer)
    pid = os.fork()
    if pid == 0:
        os._exit(way.write(b"child\n") != 6)
    assert os.waitpid(pid, 0)[1] == 0
    way.write(b"parent\n")
    assert os.read(reader, 1 << 20) == b"child\nparent\n"
    way.close()


def test_a_reader_that_has_gone_is_an_error() -> None:
    reader, writer = os.pipe()
    way = way_to(writer)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        way.write(LINE)
    way.close()
    os.close(writer)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_is_told_with_each_line_not_to_wait(kind: socket.SocketKind) -> None:
    ours, theirs = socket.socketpair(type=kind)
    with ours, theirs:
        way = way_to(theirs.fileno())
        sent = fill(way)
        assert sent
        assert not fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK
        assert ours.recv(len(LINE)) == LINE
        way.close()
        assert theirs.fileno() >= 0


@pytest.mark.parametrize("prepare", [nothing, another_users])
def test_a_terminal_that_is_stopped_is_not_waited_for(
    prepare: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch)
    ours, theirs = pty.openpty()
    way = way_to(theirs)
    assert way.write(LINE) == len(LINE)
    termios.tcflow(theirs, termios.TCOOFF)
    fill(way)
    assert not fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK
    termios.tcflow(theirs, termios.TCOON)
    for descriptor in (ours, theirs):
        os.close(descriptor)
    way.close()


def test_a_file_that_others_write_keeps_one_position(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as file:
        way = way_to(file.fileno())
        way.write(b"1\n")
        file.write(b"2\n")
        way.write(b"3\n")
        way.close()
    assert path.read_bytes() == b"1\n2\n3\n"


def test_a_full_disk_is_an_error() -> None:
    way = way_to_file(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        way.write(LINE)
    way.close()


def test_a_file_is_appended_to_and_not_writable_for_others(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for _ in range(2):
        way = way_to_file(path)
        way.write(LINE)
        way.close()
    assert path.read_bytes() == 2 * LINE
    assert not path.stat().st_mode & 0o022


def test_a_named_pipe_that_nobody_reads_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        way_to_file(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    way = way_to_file(tmp_path / "fifo")
    assert fill(way)
    way.close()
    os.close(reader)


def test_a_closed_descriptor_is_an_error_and_nowhere_takes_everything() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file"):
        way_to(writer)
    way = way_to_nowhere()
    assert way.write(LINE) == len(LINE)
    way.close()
