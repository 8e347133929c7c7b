"""`preforkctl top`: the status of a daemon, live in a terminal, by rich."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click

from preforkd.daemon import ctl_text
from preforkd.daemon.asking import UnreachableError
from preforkd.daemon.ctl_target import Target, on_target, report
from preforkd.daemon.finding import NotFoundError

if TYPE_CHECKING:
    from rich.console import Group

WIDE: Final = 110
"""Columns from which on all of a worker is shown."""
NARROW: Final = ("SLOT", "PID", "STATE", "CONN", "ACTIVE", "REQ/S", "P50", "P99", "CPU", "MEMORY")
_COLOURS: Final = {"ready": "green", "starting": "yellow", "retiring": "yellow", "draining": "cyan", "standby": "cyan"}


@click.command(epilog="Examples: preforkctl top --interval 0.5 · preforkctl top --once > status.txt")
@click.option("--interval", type=click.FloatRange(0.1, 60), default=1, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Print it once, as plain text.")
@on_target
def top(target: Target, interval: float, once: bool) -> None:
    """Show workers, totals, requests in flight and the last events, live; q or Ctrl-C ends it."""
    if once or not sys.stdout.isatty():
        found = target.status()
        click.echo(f"{ctl_text.status(found)}\n\nrequests in flight:\n{ctl_text.requests(found['in_flight'])}")
        return
    if find_spec("rich") is None:
        report({"result": "failed", "text": "top needs rich: pip install 'preforkd[top]', or use --once"})
    with contextlib.suppress(KeyboardInterrupt):
        _live(target, interval)


def _live(target: Target, interval: float) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(screen=True, auto_refresh=False) as live, _keys():
        while True:
            try:
                size = live.console.size
                live.update(view(target.status(), size.width, size.height), refresh=True)
            except (NotFoundError, UnreachableError) as exc:
                live.update(Text(f"waiting for the daemon ... ({exc})"), refresh=True)
            if _quits(time.monotonic() + interval):
                return


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Have keys come one by one and unseen, as long as somebody types them."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _quits(until: float) -> bool:
    """Wait until a time of the monotonic clock, or for the key q; tells whether it was that."""
    while (left := until - time.monotonic()) > 0:
        if not sys.stdin.isatty():
            time.sleep(left)
        elif select.select([sys.stdin], [], [], left)[0] and os.read(sys.stdin.fileno(), 64) in (b"q", b"Q", b""):
            return True
    return False


def view(found: Mapping[str, Any], width: int, height: int) -> Group:
    """Return what is shown of a status.

    Args:
        found: as /status answers it.
        width, height: of the terminal.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    first, second, third, *_ = ctl_text.status(found).splitlines()
    rates, durations = third.split("; p50 ", 1)
    table = Table(box=None, expand=True, padding=(0, 1), header_style="bold")
    shown = [name for name in ctl_text.HEAD if width >= WIDE or name in NARROW]
    for name in shown:
        table.add_column(name, justify="left" if name == "STATE" else "right", no_wrap=True, overflow="ellipsis")
    room = max(height - 15, 3)
    for one in found["workers"][:room]:
        cells = dict(zip(ctl_text.HEAD, ctl_text.worker(one), strict=True))
        colour = _COLOURS.get(one["state"], "red") if one["silent"] < 2 else "red"
        table.add_row(*(Text(cells[name], style=colour if name == "STATE" else "") for name in shown))
    left = max(height - 10 - min(len(found["workers"]), room), 2)
    requests = ctl_text.requests(found["in_flight"][: left // 2]).splitlines()
    events = [ctl_text.event(one) for one in reversed(found["events"][-max(left - len(requests), 1) :])]
    lines: list[Text | Table] = [
        Text(first, style="bold"),
        Text(second, style="green" if found["ready"] else "bold red"),
        Text(rates),
        Text(f"durations: p50 {durations}"),
        Text(),
        table,
        Text(),
        *(Text(line, style="bold" if index == 0 and found["in_flight"] else "") for index, line in enumerate(requests)),
        Text(),
        *(Text(line, style="dim" if " info " in line else "yellow") for line in events),
    ]
    for line in lines:
        if isinstance(line, Text):
            line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)
