"""The commands of `preforkctl` that have a worker look at itself: `profile` and `memory`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from preforkd.daemon import profiles
from preforkd.daemon.asking import UnreachableError
from preforkd.daemon.ctl_target import FAILED, POLL, Target, on_target, parsed, report, slot_argument
from preforkd.daemon.ctl_text import memory as memory_text
from preforkd.daemon.ctl_text import printable

SILENCE: Final = 30.0
"""Seconds for which nobody may answer meanwhile: the admin process may be replaced."""
INTERRUPTED: Final = 130


@click.command(epilog="Example: preforkctl profile 2 --seconds 30")
@slot_argument
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=10, show_default=True, help="For so long.")
@click.option("--rate", type=click.IntRange(1, 1000), default=100, show_default=True, help="Looks a second.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["speedscope", "collapsed"]),
    default="speedscope",
    show_default=True,
    help="For https://www.speedscope.app, or for tools that draw flame graphs.",
)
@click.option("--output", metavar="FILE", help='Where to; "-" is standard output.  [default: a new file, here]')
@on_target
def profile(target: Target, slot: int, seconds: float, rate: int, form: str, output: str | None) -> None:
    """Show where the worker of a SLOT spends its time: all of its threads, also while it is blocked.

    It serves on meanwhile. Weights are microseconds. Ctrl-C ends it and writes what there is.
    """
    ending = "speedscope.json" if form == "speedscope" else "collapsed.txt"
    path = output or time.strftime(f"profile-slot{slot}-%Y%m%d-%H%M%S.{ending}")
    check_writable(path)
    found = examine(target, f"profile?slot={slot}&rate={rate}", seconds)
    text = profiles.speedscope(found, f"worker {slot}") if form == "speedscope" else profiles.collapsed(found)
    for line in profiles.summary(found):
        click.echo(printable(line), err=True)
    if path == "-":
        click.echo(text.rstrip())
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as exc:
        report({"result": "failed", "text": f"{path} cannot be written: {exc.strerror}"})
    hint = ": open it at https://www.speedscope.app" if form == "speedscope" else ""
    click.echo(f"written to {path}{hint}", err=True)


@click.command(epilog="Example: preforkctl memory 2 --seconds 60")
@slot_argument
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=30, show_default=True, help="For so long.")
@click.option("--top", type=click.IntRange(1, 50), default=15, show_default=True, help="So many lines.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@on_target
def memory(target: Target, slot: int, seconds: float, top: int, as_json: bool) -> None:
    """Show what grows in the worker of a SLOT: lines whose memory is not given back, and kinds of objects.

    It serves on meanwhile, slower: Python's tracemalloc is on for that time. Ctrl-C ends it and shows what there is.
    """
    found = examine(target, f"memory?slot={slot}", seconds)
    click.echo(json.dumps(found, ensure_ascii=False, indent=2) if as_json else memory_text(found, top))


def check_writable(path: str) -> None:
    """End the command when a file cannot be written, before anything is looked at."""
    if path == "-":
        return
    there = Path(path).exists()
    try:
        with Path(path).open("ab"):
            pass
    except OSError as exc:
        text = f"{path} cannot be written: {exc.strerror}; give --output FILE, or --output - for standard output"
        report({"result": "failed", "text": text})
    if not there:
        Path(path).unlink()


def examine(target: Target, verb: str, seconds: float) -> dict[str, Any]:
    """Have a worker look at itself, and return what it has found; ends the command when nothing comes of it.

    Args:
        target: the daemon.
        verb: what to look for, with the slot.
        seconds: for so long; a terminal is shown how many of them are over.
    """
    answer = target.control(f"{verb}&seconds={seconds:g}")
    if answer["result"] != "accepted":
        report(answer)
        sys.exit(FAILED)
    ident, cancelled = answer["examination"], False
    shows, said = sys.stderr.isatty(), ""
    while True:
        try:
            time.sleep(POLL)
            state = _progress(target, ident)
            if shows:
                said = _rewritten(said, _so_far(state, seconds))
        except KeyboardInterrupt:
            if cancelled:
                sys.exit(INTERRUPTED)
            cancelled = True
            target.ask("POST", f"/control/cancel?ident={ident}")
            continue
        if state["state"] == "done":
            found: dict[str, Any] = state["found"]
            return found
        if state["state"] == "failed":
            with contextlib.suppress(UnreachableError):
                target.ask("POST", f"/control/cancel?ident={ident}")
            report({"result": "failed", "text": state["text"]})


def _so_far(state: Mapping[str, Any], seconds: float) -> str:
    match state["state"]:
        case "asked":
            return "the worker is asked ..."
        case "running" if state["seconds"] < seconds:
            return f"{state['seconds']:.0f} of {seconds:g} s; Ctrl-C ends it"
        case "running":
            return "the worker sums it up ..."
    return ""


def _rewritten(before: str, text: str) -> str:
    """Show a text on a terminal in the place of the one before; returns it."""
    if text != before:
        click.echo(f"\r{text.ljust(len(before))}" if text else f"\r{' ' * len(before)}\r", nl=False, err=True)
    return text


def _progress(target: Target, ident: int) -> Mapping[str, Any]:
    """Return how far it has come; a new admin process, or a new program, is waited for."""
    until = time.monotonic() + SILENCE
    while True:
        try:
            return parsed(target.ask("GET", f"/control/examination?ident={ident}")[1], "state")
        except UnreachableError:
            if time.monotonic() > until:
                raise
            time.sleep(POLL)
