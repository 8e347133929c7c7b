"""The command `preforkctl`: asks a running daemon about itself, and has it do something."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from preforkd.daemon import ctl_examining, ctl_text, ctl_top, health
from preforkd.daemon.asking import UnreachableError
from preforkd.daemon.ctl_target import POLL, TIMEOUT, Target, on_target, report, slot_argument
from preforkd.daemon.finding import NotFoundError
from preforkd.daemon.version import version_text
from preforkd.workers.log import LEVELS

NOBODY: Final = 3
CONFIGURED: Final = "configured"
SILENCE: Final = 30.0
"""Seconds for which nobody may answer while one program replaces the other."""
SHOWN: Final = ") is here:\n"
"""What the master says in front of a stack."""
_EPILOG: Final = """The daemon is found by --admin, by the pid file (--pid), or by PREFORKD_ADMIN or PREFORKD_PID, as
preforkd itself reads them. Control needs an admin address that is a unix socket, and the user of the master or root.

Exit codes: 0 done (or healthy), 1 refused, failed or not healthy, 2 usage, 3 there is no daemon that answers."""


_wait: Final = click.option("--wait", is_flag=True, help="Return when it is over, and say how it has ended.")
_json: Final = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--admin",
    multiple=True,
    metavar="ADDRESS",
    help="Where its admin process answers: unix:PATH or HOST:PORT; may be repeated.",
)
@click.option("--pid", default="", metavar="FILE", help="The pid file of its master: the admin process is found by it.")
@click.version_option(message="%(version)s", version=version_text())
@click.pass_context
def _group(context: click.Context, admin: tuple[str, ...], pid: str) -> None:
    """Ask a running preforkd about itself, and control it."""
    context.obj = Target(admin, pid, context.obj)


@_group.command("health", epilog='Example: HEALTHCHECK CMD ["preforkctl", "health"]')
@click.option("--live", is_flag=True, help="It is enough that the master lives, be it ready or not.")
@click.option(
    "--timeout",
    type=click.IntRange(1),
    default=int(health.TIMEOUT),
    show_default=True,
    metavar="SECONDS",
    help="For the answer.",
)
@on_target
def _health(target: Target, live: bool, timeout: int) -> None:
    """Exit with 0 when the daemon is ready, else with 1: for HEALTHCHECK and scripts."""
    question = health.Question(target.environ)
    question.admin, question.pid_file = list(target.admin), target.pid_file
    question.live, question.timeout = live, float(timeout)
    sys.exit(health.run(question))


@_group.command("status", epilog="Examples: preforkctl status · preforkctl status --json | jq .reloads")
@_json
@on_target
def _status(target: Target, as_json: bool) -> None:
    """Say how the daemon is: its workers, rates, durations and last events."""
    found = target.status()
    click.echo(json.dumps(found, ensure_ascii=False, indent=2) if as_json else ctl_text.status(found))


@_group.command("requests", epilog="Example: preforkctl requests --json")
@_json
@on_target
def _requests(target: Target, as_json: bool) -> None:
    """List the requests in flight, the oldest first: those that wait for something."""
    found = target.status()["in_flight"]
    click.echo(json.dumps(found, ensure_ascii=False, indent=2) if as_json else ctl_text.requests(found))


@_group.command("reload", epilog="Example: preforkctl reload --wait || exit 1")
@_wait
@on_target
def _reload(target: Target, wait: bool) -> None:
    """Read configuration and code anew, as by HUP; no request is lost."""
    report(target.control("reload", wait=wait))


@_group.command("stop", epilog="Examples: preforkctl stop --wait · preforkctl stop --now")
@_wait
@click.option("--now", is_flag=True, help="At once: requests in flight are cut, as by QUIT.")
@on_target
def _stop(target: Target, wait: bool, now: bool) -> None:
    """Drain and end, as by TERM."""
    report(target.control("halt" if now else "stop", wait=wait))


@_group.command("scale", epilog="Example: preforkctl scale 8 --wait")
@click.argument("workers", type=click.IntRange(1))
@_wait
@on_target
def _scale(target: Target, workers: int, wait: bool) -> None:
    """Have so many WORKERS from now on, until the next reload."""
    report(target.control(f"scale?workers={workers}", wait=wait))


@_group.command("restart", epilog="Example: preforkctl restart 2 --wait")
@slot_argument
@_wait
@on_target
def _restart(target: Target, slot: int, wait: bool) -> None:
    """Replace the worker of a SLOT; it serves until its successor is ready."""
    report(target.control(f"restart?slot={slot}", wait=wait))


@_group.command("drain", epilog="Example: preforkctl drain 2 --wait")
@slot_argument
@_wait
@on_target
def _drain(target: Target, slot: int, wait: bool) -> None:
    """Take the worker of a SLOT out of service at once; it finishes its requests and is replaced."""
    report(target.control(f"drain?slot={slot}", wait=wait))


@_group.command("stack", epilog="Example: preforkctl stack 2")
@slot_argument
@on_target
def _stack(target: Target, slot: int) -> None:
    """Show where the worker of a SLOT is: its threads and asyncio tasks, also while it is blocked."""
    asked = target.status()["time"]
    answer = target.control(f"stack?slot={slot}")
    until = time.monotonic() + TIMEOUT
    while answer["result"] == "accepted" and time.monotonic() < until:
        time.sleep(POLL)
        for event in target.status()["events"]:
            if event["when"] >= asked and event["text"].startswith(f"worker {slot} (") and SHOWN in event["text"]:
                click.echo(ctl_text.lines(event["text"]))
                return
    if answer["result"] == "accepted":
        text = (
            f"the worker is blocked outside of Python: it has said nothing for {TIMEOUT:g} s; the log has its threads"
        )
        answer = {"result": "failed", "text": text}
    report(answer)


@_group.command("log-level", epilog="Examples: preforkctl log-level debug · preforkctl log-level configured")
@click.argument("level", type=click.Choice([*LEVELS, CONFIGURED]))
@click.argument("slot", type=click.IntRange(0), required=False)
@on_target
def _log_level(target: Target, level: str, slot: int | None) -> None:
    """Log from another LEVEL on: all processes and those that come later, until a reload; or the worker of a SLOT."""
    report(target.control(f"log-level?level={level}" + ("" if slot is None else f"&slot={slot}")))


_group.add_command(ctl_examining.profile)
_group.add_command(ctl_examining.memory)
_group.add_command(ctl_top.top)


@_group.command("reopen", epilog="Example, for logrotate: postrotate preforkctl reopen")
@on_target
def _reopen(target: Target) -> None:
    """Open the log files anew, as by USR1, after logrotate has moved them."""
    report(target.control("reopen"))


@_group.command("upgrade", epilog="Example: preforkctl upgrade --wait || exit 1")
@_wait
@on_target
def _upgrade(target: Target, wait: bool) -> None:
    """Replace the program in place, as by USR2, after a dry run of the new one."""
    before = target.status() if wait else {}
    answer = target.control("upgrade", wait=wait)
    report(_upgraded(target, before) if wait and answer["result"] == "accepted" else answer)


def _upgraded(target: Target, before: Mapping[str, Any]) -> dict[str, Any]:
    """Wait for the end of an upgrade whose new program has taken over; returns an answer as of `control`."""
    seen = time.monotonic()
    while time.monotonic() < seen + SILENCE:
        time.sleep(POLL)
        try:
            found = target.status()
        except (NotFoundError, UnreachableError):
            continue  # its admin process is not there yet
        seen = time.monotonic()
        for result, count in found["reloads"].items():
            if found["admin_pid"] != before["admin_pid"] and count > before["reloads"][result]:
                if result == "done":
                    return {"result": "done", "text": f"the new program serves, as generation {found['generation']}"}
                return {
                    "result": "failed",
                    "text": f"the new program's workers are {result.replace('_', ' ')}; the log says why",
                }
    return {"result": "failed", "text": f"the new program has not answered for {SILENCE:g} s; the log says why"}


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command; returns its exit code.

    Args:
        arguments: without its name.
        environ: of the process.
    """
    try:
        _group.main(list(arguments), prog_name="preforkctl", obj=environ)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 0
    except (NotFoundError, UnreachableError) as exc:
        click.echo(f"preforkctl: {exc}", err=True)
        return NOBODY
    return 0
