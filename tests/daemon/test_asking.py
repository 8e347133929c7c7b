"""A question to the admin process: what is sent, and what answers are good for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preforkd.daemon.asking import UnreachableError, ask


@contextmanager
def answering(answer: bytes, listener: socket.socket) -> Iterator[list[bytes]]:
    """Answer one connection; yields what it has sent."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(65536))
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    with listener:
        thread.start()
        yield asked
        thread.join()


def test_a_question_over_tcp() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with answering(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno", listener) as asked:
        assert ask([f"0.0.0.0:{port}"], "GET", "/readyz?x=1", 5) == (503, b"no")
    assert asked[0].startswith(b"GET /readyz?x=1 HTTP/1.0\r\n")


@pytest.mark.parametrize("abstract", [True, False])
def test_a_question_over_a_unix_socket(tmp_path: Path, abstract: bool) -> None:
    listener = socket.socket(socket.AF_UNIX)
    name = f"preforkd-{tmp_path.name}"
    listener.bind(f"\0{name}" if abstract else str(tmp_path / "a.sock"))
    listener.listen()
    address = f"unix:@{name}" if abstract else f"unix:{tmp_path}/a.sock?mode=660"
    with answering(b"HTTP/1.0 200 OK\r\n\r\nyes", listener):
        assert ask([f"unix:{tmp_path}/nobody", address], "POST", "/", 5) == (200, b"yes"), "the first that listens"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "is no admin address of preforkd"),
        (b"HTTP/1.1 \r\n\r\n", "is no admin address of preforkd"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "is cut: 4 of 9 bytes"),
    ],
)
def test_what_is_no_answer(answer: bytes, text: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with answering(answer, listener), pytest.raises(UnreachableError, match=text):
        ask([address], "GET", "/", 5)


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"nobody listens on unix:.* \(No such file or directory\); nobody"):
        ask([f"unix:{tmp_path}/a", f"unix:{tmp_path}/b"], "GET", "/", 5)
    with pytest.raises(UnreachableError, match=r'"/run/a\.sock" is not an address: write "unix:/run/app/admin'):
        ask(["/run/a.sock"], "GET", "/", 5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnreachableError, match="has not answered within 0"):
            ask([address], "GET", "/", 0.1)
