"""Streams of a WSGI app: of events that tick, that know of the drain, or that wait; and of text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

EVENTS = [("Content-Type", "text/event-stream; charset=utf-8")]


def ticks(environ: dict[str, Any]) -> Iterator[bytes]:
    while True:
        yield b"data: tick\n\n"
        time.sleep(0.02)


def knows(environ: dict[str, Any]) -> Iterator[bytes]:
    yield b"data: first\n\n"
    while not environ["preforkd.draining"].wait(0.02):
        yield b"data: tick\n\n"
    yield b"data: bye\n\n"


def waits(environ: dict[str, Any]) -> Iterator[bytes]:
    yield b"data: first\n\n"
    time.sleep(4)
    yield b"data: too late\n\n"


WAYS = {"ticks": ticks, "knows": knows, "waits": waits}


def told(way: str, parts: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from parts
    finally:
        print(f"{way} has ended", flush=True)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    _, kind, *way = environ["PATH_INFO"].split("/")
    if kind == "environ":
        start_response("200 OK", [("Content-Type", "application/json")])
        shown = {key: value for key, value in environ.items() if isinstance(value, str)}
        return [json.dumps(shown).encode()]
    if kind == "short":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"%d\n" % number for number in range(3) if not time.sleep(0.5))  # type: ignore[func-returns-value]  # nothing
    start_response("200 OK", EVENTS if kind == "events" else [("Content-Type", "text/plain")])
    return told(way[0], WAYS[way[0]](environ))
