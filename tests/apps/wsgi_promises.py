"""A WSGI app for the promises of PEP 3333 and what goes beyond it; its main callable is wsgiref's own validator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]
PLAIN = [("Content-Type", "text/plain")]


class Closing:
    """An iterable, and what its `close()` does."""

    def __init__(self, parts: Iterable[bytes], close: Callable[[], None]) -> None:
        self.parts = iter(parts)
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self.parts


def wait_for(path: Path) -> None:
    """Wait until a test has made a file."""
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"nobody has made {path}"
        time.sleep(0.01)


def echo(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """What was sent, read, written and returned in several ways."""
    stream = environ["wsgi.input"]
    body = stream.read(2) + stream.readline()
    while part := stream.read(65536):
        body += part
    write = start_response("200 OK", [*PLAIN, ("X-Length", str(len(body)))])
    write(b"written ")
    environ["wsgi.errors"].flush()
    return iter([b"and ", b"", b"returned: ", body])


def listed(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """A list, with its length."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
    return [b"ok"]


def nothing(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """No body."""
    start_response("204 No Content", [])
    return []


def hints(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """Early hints; with threads the response waits until they have come."""
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    if environ["QUERY_STRING"] == "wait":
        wait_for(folder / "hints-have-come")
    environ["wsgi.early_hints"]([("Link", "</script.js>; rel=preload")])
    return listed(environ, start_response, folder)


def file(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """The test's large file."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"]((folder / "large").open("rb"))
    return wrapped


def endless(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """A stream that only its client ends; notes when it was closed."""

    def parts() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000
            time.sleep(0.005)

    start_response("200 OK", PLAIN)
    return Closing(parts(), (folder / environ["QUERY_STRING"]).touch)


def late(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """Reads its input behind its response, and notes what has come of that."""

    def close() -> None:
        if environ["wsgi.multithread"] or environ["QUERY_STRING"] == "wait":
            wait_for(folder / "answered")
        try:
            outcome = str(len(environ["wsgi.input"].read(-1)))
        except OSError as exc:
            outcome = f"OSError: {exc}"
        (folder / "new").write_text(outcome)
        (folder / "new").replace(folder / "late")

    start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
    return Closing([b"ok"], close)


def lingering(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """Parts of an unknown length in all; their `close()` takes until the test has the response."""
    start_response("200 OK", PLAIN)
    return Closing([b"one ", b"two"], lambda: wait_for(folder / "answered"))


def leave(environ: Environ, start_response: StartResponse, folder: Path) -> Iterable[bytes]:
    """Raises what asyncio raises to end a coroutine."""
    raise GeneratorExit


PATHS = {
    function.__name__: function for function in (echo, listed, nothing, hints, file, endless, late, lingering, leave)
}


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """`/NAME` calls the function; the header `X-Folder` says where it finds and leaves files."""
    folder = Path(environ.get("HTTP_X_FOLDER", "/nowhere"))
    return PATHS[environ["PATH_INFO"].strip("/")](environ, start_response, folder)


validated = validator(application)  # type: ignore[arg-type]  # wsgiref's own types


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Through the validator, but for what it would hide from the server: the file wrapper."""
    if environ["PATH_INFO"] == "/file":
        return application(environ, start_response)
    return validated(environ, start_response)
