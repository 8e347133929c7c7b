"""Files as responses, on the real daemon: whatever their size says, the client gets all, or sees that it is cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.e2e.client import Answer, Connection, TruncatedError
from tests.e2e.conftest import STARTED, Start, shared_daemon
from tests.e2e.daemon import APPS, Daemon

WAYS = {"asgi": (), "wsgi-threads": ("--threads", "1"), "wsgi-loop": ("--threads", "0")}
MB = 1_000_000


@pytest.fixture(scope="module", params=WAYS)
def started(request: pytest.FixtureRequest, xprocess: XProcess) -> Iterator[Start]:
    """One daemon for all tests of a way."""
    way: str = request.param
    target = f"{APPS / 'files.py'}:{way.partition('-')[0]}"
    # Files that are shorter than said are logged as what they are.
    with shared_daemon(xprocess, f"files-{way}", *WAYS[way], app=target, tolerated="^Traceback") as start:
        yield start


@pytest.fixture
def daemon(request: pytest.FixtureRequest, started: Start) -> Daemon:
    request.node.stash[STARTED] = started
    return started.daemons[0]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Connection]:
    with Connection(daemon.port) as client:
        yield client


def ask(client: Connection, path: object, **query: object) -> Answer:
    """Answer to the request for a file."""
    return client.get("/?" + urlencode({"path": path, **query}))


def is_wsgi(daemon: Daemon) -> bool:
    return "wsgi" in daemon.name


# A file whose size says 0, and one whose size says more than is in it.
@pytest.mark.parametrize("path", ["/proc/version", "/proc/self/mounts", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_a_file_whose_size_does_not_tell_is_read(client: Connection, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"there is no {path} here")
    content = Path(path).read_bytes()
    assert content
    for _ in range(2):
        assert ask(client, path).body == content, "on one connection"


def test_an_empty_file_is_an_empty_body(client: Connection, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    said = ask(client, tmp_path / "empty")
    assert (said.status, said.body) == (200, b"")
    assert ask(client, "/proc/version").body


def test_a_pipe_is_read_and_one_that_nobody_writes_to_keeps_nobody(
    client: Connection, daemon: Daemon, tmp_path: Path
) -> None:
    if is_wsgi(daemon):
        assert ask(client, "pipe").text == "out of a pipe"
        return
    os.mkfifo(tmp_path / "fifo")
    assert ask(client, tmp_path / "fifo").status == 500, "pathsend is for files"


def test_an_offset_behind_the_end_is_an_empty_body(client: Connection, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"12345")
    assert ask(client, tmp_path / "short").body == b"12345"
    if is_wsgi(daemon):
        for offset in (5, 6, 10**9):
            said = ask(client, tmp_path / "short", offset=offset)
            assert (said.status, said.body) == (200, b"")
        assert ask(client, tmp_path / "short", offset=4).body == b"5"


def test_a_file_that_grows_meanwhile_is_sent_as_far_as_was_said(client: Connection, tmp_path: Path) -> None:
    path = tmp_path / "growing"
    block = os.urandom(MB)
    path.write_bytes(block * 30)
    client.ask("/?" + urlencode({"path": path}))
    client.read_some()
    with path.open("ab") as file:
        file.write(block)
    said = client.answer()
    assert (said.header("Content-Length"), said.body == block * 30) == (str(30 * MB), True)
    assert ask(client, "/proc/version").body, "and nothing of it comes behind"


def test_a_file_that_shrinks_meanwhile_is_seen_cut(client: Connection, tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(os.urandom(30 * MB))
    client.ask("/?" + urlencode({"path": path}))
    client.read_some()
    os.truncate(path, 10)
    with pytest.raises(TruncatedError):
        client.answer()


def test_a_file_that_has_less_than_content_length_says_is_seen_cut(client: Connection, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"12345")
    with pytest.raises(TruncatedError):
        ask(client, tmp_path / "short", length=6)
