"""What every WSGI framework has to do on the daemon; the test files of the frameworks say on which app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.e2e.client import Connection
from tests.e2e.daemon import Daemon

SIZE = 50_000_000


def url(daemon: Daemon, path: str) -> str:
    return f"http://127.0.0.1:{daemon.port}{path}"


def answers_get_form_and_json(daemon: Daemon, *, files: bool = True) -> None:
    with httpx.Client(timeout=10) as client:
        for _ in range(3):
            assert client.get(url(daemon, "/")).text == "Hello"
        fields = {"name": "José", "text": "a&b=c"}
        assert client.post(url(daemon, "/form"), data=fields).json()["fields"] == fields
        if files:
            sent: Any = {"one": ("one.txt", b"x" * 200_000), "two": ("two.txt", b"")}
            said = client.post(url(daemon, "/form"), data=fields, files=sent).json()
            assert said == {"fields": fields, "files": {"one": 200_000, "two": 0}}
        document = {"list": [1, 2.5, None], "text": "é" * 1000}
        assert client.post(url(daemon, "/json"), json=document).json() == document
        assert client.get(url(daemon, "/nowhere")).status_code == 404
        assert client.head(url(daemon, "/")).status_code in (200, 405)
        assert client.get(url(daemon, "/")).text == "Hello"


def knows_no_resource_for_the_whole_server(daemon: Daemon) -> None:
    """`OPTIONS *` (RFC 9110 section 9.3.7) is neither redirected to the root nor answered with the root's methods."""
    with Connection(daemon.port) as connection:
        connection.ask("*", method="OPTIONS")
        said = connection.answer()
        assert (said.status, said.header("Location"), said.header("Allow")) == (404, None, None)
        assert connection.get("/").text == "Hello"


def takes_an_upload_of_50_mb(daemon: Daemon, *, chunked: bool = True) -> None:
    block = b"x" * 1_000_000

    def parts() -> Any:
        for _ in range(SIZE // len(block)):
            yield block

    with httpx.Client(timeout=60) as client:
        length = {"Content-Length": str(SIZE)}
        assert client.put(url(daemon, "/upload"), content=parts(), headers=length).json() == {"size": SIZE}
        if chunked:
            assert client.put(url(daemon, "/upload"), content=parts()).json() == {"size": SIZE}


def streams(daemon: Daemon) -> None:
    lines = [f"{number} /stream/20" for number in range(20)]
    with httpx.Client(timeout=10) as client, client.stream("GET", url(daemon, "/stream/20")) as response:
        assert list(response.iter_lines()) == lines
    with Connection(daemon.port) as connection:
        connection.ask("/stream/20")
        assert b"\n19 " not in connection.read_some(), "it comes while it is made"
        assert connection.answer().text.splitlines() == lines


def sends_files(daemon: Daemon, file: Path) -> None:
    with Connection(daemon.port) as connection:
        for _ in range(2):
            said = connection.get("/file")
            assert said.body == file.read_bytes()
            assert said.header("Content-Length") == str(file.stat().st_size)
        connection.ask("/file", method="HEAD")
        connection.answer(to="HEAD")
        assert connection.get("/").text == "Hello"


def survives_clients_that_leave(daemon: Daemon) -> None:
    workers = daemon.worker_pids()
    for number in range(20):
        connection = Connection(daemon.port)
        if number % 2:
            connection.ask("/stream/100")
            connection.read_some()
        else:
            connection.send(b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
        connection.reset()
    with Connection(daemon.port) as connection:
        assert connection.get("/").text == "Hello"
    assert daemon.worker_pids() == workers


def answers_errors(daemon: Daemon) -> None:
    with Connection(daemon.port) as connection:
        assert connection.get("/fail").status == 500
    with Connection(daemon.port) as connection:
        assert connection.get("/").text == "Hello"
