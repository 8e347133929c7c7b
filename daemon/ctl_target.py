"""The daemon that `preforkctl` asks, and what all of its commands have in common."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from preforkd.daemon.asking import UnreachableError, ask
from preforkd.daemon.finding import addresses

FAILED: Final = 1
TIMEOUT: Final = 10.0
"""Seconds for an answer that needs no waiting."""
POLL: Final = 0.1
"""Seconds between two looks at what has no answer of its own."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which daemon is meant: see `addresses()`."""

    admin: tuple[str, ...]
    pid_file: str
    environ: Mapping[str, str]

    def ask(self, method: str, path: str, timeout: float | None = TIMEOUT) -> tuple[int, bytes]:
        """Ask it; raises NotFoundError and UnreachableError."""
        return ask(addresses(self.admin, self.pid_file, self.environ), method, path, timeout)

    def status(self) -> dict[str, Any]:
        """Return all that it says of itself."""
        _, body = self.ask("GET", "/status")
        return parsed(body, "in_flight")

    def control(self, verb: str, *, wait: bool = False) -> dict[str, Any]:
        """Have it do something; returns the answer."""
        query = f"{'&' if '?' in verb else '?'}wait=1" if wait else ""
        _, body = self.ask("POST", f"/control/{verb}{query}", None if wait else TIMEOUT)
        return parsed(body, "result")


def parsed(body: bytes, name: str) -> dict[str, Any]:
    """Return an answer that has to have something of that name."""
    try:
        found: dict[str, Any] = json.loads(body)
        found[name]
    except (ValueError, KeyError, TypeError):
        raise UnreachableError(f"that is no admin address of preforkd: it answers {body[:40]!r}") from None
    return found


def on_target(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the `Target` as its first argument."""
    return click.pass_obj(function)


slot_argument: Final = click.argument("slot", type=click.IntRange(0))


def report(answer: Mapping[str, Any]) -> None:
    """Say what has come of something; ends the command if that is not what was wanted."""
    if answer["result"] in ("done", "accepted"):
        seconds = f" ({answer['seconds']:.1f} s)" if answer.get("seconds") else ""
        click.echo(f"{answer['text']}{seconds}")
        return
    click.echo(f"{answer['result']}: {answer['text']}", err=True)
    sys.exit(FAILED)
