"""The apps as WSGI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tests.benchmarks.apps.bodies import HELLO, LARGE, PIECE, PIECES

READ = 65536


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A few bytes of a known length."""
    return answer(start_response, HELLO)


def post(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Reads the body, then answers."""
    environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    return answer(start_response, HELLO)


def large(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """1 MB."""
    return answer(start_response, LARGE)


def stream(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """64 kB in eight parts of an unknown length in all."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    for _ in range(PIECES):
        yield PIECE


def upload(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Counts the bytes of a body, part by part."""
    source, size = environ["wsgi.input"], 0
    while part := source.read(READ):
        size += len(part)
    return answer(start_response, b"%d" % size)


def answer(start_response: Any, body: bytes) -> list[bytes]:
    """Respond with a body of a known length."""
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
    return [body]
