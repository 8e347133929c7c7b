"""A WSGI app with a path for each behaviour that the end-to-end tests need; answers name their version and process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

VERSION = "1"

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """`/NAME/ARGUMENT` calls the function `NAME(environ, ARGUMENT)`."""
    name, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    parts = NAMES[name or "who"](environ, argument)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return parts


def who(environ: Environ, argument: str) -> list[bytes]:
    """Who answers."""
    return [f"{VERSION} {os.getpid()}".encode()]


def websocket(environ: Environ, argument: str) -> list[bytes]:
    """What Flask-Sock and Socket.IO do when a server does not lend its sockets."""
    raise RuntimeError("Cannot obtain socket from WSGI environment.")


def slow(environ: Environ, seconds: str) -> list[bytes]:
    """The same, later."""
    time.sleep(float(seconds))
    return who(environ, "")


def chunks(environ: Environ, argument: str) -> Iterator[bytes]:
    """`COUNT/SECONDS`: who answers, then so many chunks, one every so many seconds."""
    count, _, seconds = argument.partition("/")
    yield f"{VERSION} {os.getpid()}\n".encode()
    for number in range(int(count)):
        time.sleep(float(seconds))
        yield f"{number}\n".encode()


def upload(environ: Environ, argument: str) -> list[bytes]:
    """How many bytes came."""
    size = 0
    while data := environ["wsgi.input"].read(65536):
        size += len(data)
    return [f"{VERSION} {os.getpid()} {size}".encode()]


def large(environ: Environ, size: str) -> list[bytes]:
    """So many bytes."""
    return [b"x" * int(size)]


def source(environ: Environ, argument: str) -> Iterable[bytes]:
    """This file."""
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](open(__file__, "rb"))  # noqa: SIM115, PTH123 - it is closed by its wrapper
    return wrapped


def coroutine(environ: Environ, argument: str) -> Iterator[bytes]:
    """Who answers, by coroutines that the app runs: in its call, and between the parts."""

    async def part(number: int) -> bytes:
        await asyncio.sleep(0)
        return f"{number}\n".encode()

    first = asyncio.run(part(0))
    return (first if number == 0 else asyncio.run(part(number)) for number in range(3))


def fail(environ: Environ, argument: str) -> list[bytes]:
    """A bug in the app."""
    raise RuntimeError("a bug in the app")


def leave(environ: Environ, argument: str) -> list[bytes]:
    """The app tries to end the process."""
    sys.exit(7)


def note(environ: Environ, argument: str) -> list[bytes]:
    """`SECONDS/FILE`: takes so long, and then notes in the file that it has ended."""
    seconds, _, file = argument.partition("/")
    time.sleep(float(seconds))
    with open("/" + file, "w") as noted:  # noqa: PTH123 - as apps do
        noted.write("ended")
    return who(environ, "")


def describe(environ: Environ, argument: str) -> list[bytes]:
    """What the app was told."""
    return [repr({key: value for key, value in environ.items() if isinstance(value, str | bool)}).encode()]


NAMES: dict[str, Callable[[Environ, str], Iterable[bytes]]] = {
    function.__name__: function
    for function in (who, slow, chunks, upload, large, source, coroutine, fail, leave, note, describe, websocket)
}
