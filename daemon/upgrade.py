"""Replace the running program by a newer one, in place: same pid, same sockets, same workers.

First a dry run: the new program is started beside this one and boots the app once (`--check`). Then `exec`: the
listeners, the channels and the scoreboard are inherited, and what the master knows is handed over in a memfd. The new
program goes on as if it had always been there, with a reload: the old workers serve until the new ones are ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from enum import Enum
from typing import Any, Final

from preforkd.daemon import address, signals
from preforkd.daemon.backoff import Backoff
from preforkd.daemon.children import Link
from preforkd.daemon.comparison import Answers, Record
from preforkd.daemon.listeners import Listener
from preforkd.daemon.slots import Generation, Worker, WorkerState
from preforkd.daemon.spawn import Child
from preforkd.daemon.turn import ON_TRIAL, Phase, State
from preforkd.workers import log
from preforkd.workers.channel import Decoder
from preforkd.workers.records import dataclass
from preforkd.workers.scoreboard import Scoreboard

VARIABLE: Final = "_PREFORKD_HANDOVER"
"""In the environment of the new program: the format of the handover, and the descriptor that it is read from."""
FORMAT: Final = 3
"""Of the handover and the scoreboard; a program that does not know it refuses in its dry run, which does no harm."""
MOST_OUTPUT: Final = 16384
"""Bytes of a dry run's output that go into the log."""
MORE_THAN_STARTUP: Final = 10.0
"""Seconds that a dry run may take beside the start-up timeout: for the interpreter, and for reporting the timeout."""


UPGRADABLE: Final = ON_TRIAL | {Phase.SERVING}
"""When the program may be replaced."""


class UpgradeError(Exception):
    """The program cannot be replaced; the text says why. Nothing has changed."""


class DryRun:
    """The new program, booting the app once in a process of its own.

    Args:
        environ: of the daemon when it was started.
        startup_timeout: seconds that the app has to boot.

    Raises:
        UpgradeError: there is no such program, or the system has no memory that outlives this one.
    """

    def __init__(self, environ: Mapping[str, str], startup_timeout: float) -> None:
        if not hasattr(os, "memfd_create"):
            raise UpgradeError("this system has no memory that outlives a program (memfd): restart instead")
        self._output = os.memfd_create("preforkd-dry-run")
        arguments = [*command(), "--check"]
        try:
            # Not subprocess: it would be 10 ms of imports at every start of every daemon.
            self.pid: Final = os.posix_spawn(
                arguments[0],
                arguments,
                {**environ, VARIABLE: f"{FORMAT}:"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, self._output, 1),
                    (os.POSIX_SPAWN_DUP2, self._output, 2),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=signals.CAUGHT,
            )
        except OSError as exc:
            os.close(self._output)
            raise UpgradeError(f"{arguments[0]} cannot be executed: {exc.strerror}") from exc
        self.deadline: Final = time.monotonic() + startup_timeout + MORE_THAN_STARTUP

    def end(self) -> None:
        """Give it up, and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def result(self, status: int) -> str | None:
        """Return why the new program does not boot, or None when it does.

        Args:
            status: of its process, which has been reaped.
        """
        code = os.waitstatus_to_exitcode(status)
        output = os.pread(self._output, MOST_OUTPUT, 0).decode(errors="replace").strip()
        os.close(self._output)
        if code == 0:
            return None
        return output or f"it ended with exit code {code} and said nothing"


class Progress(Enum):
    """How far an upgrade has come."""

    IDLE = "idle"
    TRYING = "trying"
    """The dry run goes on."""
    DUE = "due"
    """The dry run was good: the program is to be replaced."""


class Upgrade:
    """The way from the wish for a new program to the moment when it may take over.

    Args:
        environ: of the daemon when it was started.
        folder: that it was started in. A deploy may have switched the symlink that it goes by to another release.
    """

    def __init__(self, environ: Mapping[str, str], folder: str) -> None:
        self._environ = environ
        self._folder = folder
        self._dry_run: DryRun | None = None
        self._given_up = ""
        self.progress = Progress.IDLE
        self.failure = ""
        """Why the last one has come to nothing, in one line."""

    @property
    def deadline(self) -> float | None:
        """When the dry run has to be over."""
        return None if self._dry_run is None else self._dry_run.deadline

    def start(self, startup_timeout: float) -> None:
        """Begin with a dry run, unless one goes on already."""
        if self.progress is not Progress.IDLE:
            log.LOGGER.info("upgrade: one is being tried already")
            return
        self.failure = ""
        try:
            os.chdir(self._folder)
            self._dry_run = DryRun(self._environ, startup_timeout)
        except (UpgradeError, OSError) as exc:
            self.failure = str(exc)
            log.LOGGER.error("upgrade refused: %s", exc)
            return
        self.progress = Progress.TRYING
        self._given_up = ""
        log.LOGGER.info("upgrade: the new program is tried first (process %d)", self._dry_run.pid)

    def ended(self, pid: int, status: int) -> bool:
        """Take note of a process that has been reaped; tells whether it was the dry run."""
        if self._dry_run is None or pid != self._dry_run.pid:
            return False
        why = self._dry_run.result(status)
        self._dry_run = None
        self.progress = Progress.IDLE if why is not None or self._given_up else Progress.DUE
        if self._given_up:
            self.failure = self._given_up
            log.LOGGER.warning("upgrade given up: %s; nothing has changed", self._given_up)
        elif why is not None:
            last = why.splitlines()[-1].removeprefix("preforkd: error: ")
            self.failure = f"the new program does not boot: {last}"
            log.LOGGER.error("upgrade refused, for the new program does not boot: %s", why)
            log.LOGGER.error("nothing has changed: the running program goes on")
        return True

    def give_up(self, why: str) -> None:
        """End a dry run that takes too long, or that nobody wants any more; its end is told to `ended`."""
        if self._dry_run is not None:
            self._given_up = self._given_up or why
            self._dry_run.end()
        self.progress = Progress.IDLE if self._dry_run is None else Progress.TRYING

    def carry_out(self, handover: Handover, wakeup: int) -> None:
        """Replace the program; returns only when the system refuses, and has said so in the log."""
        self.progress = Progress.IDLE
        log.LOGGER.info("upgrade: the new program boots, and takes over")
        try:
            os.chdir(self._folder)
            replace_program(handover, self._environ, wakeup)
        except (UpgradeError, OSError) as exc:
            self.failure = str(exc)
            log.LOGGER.error("upgrade failed: %s; nothing has changed", exc)


def command() -> list[str]:
    """Return the command line that this program was started with.

    The interpreter is the one by its path, not by its inode: a new version may be installed there.
    """
    return [sys.executable, *sys.orig_argv[1:]]


@dataclass(frozen=True, slots=True)
class Handover:
    """What one program leaves to the next."""

    state: State
    listeners: tuple[Listener, ...]
    links: tuple[Link, ...]
    scoreboard: Scoreboard
    certificates: int | None = None
    """The memory in which its workers look for new certificates, None when they speak no TLS."""


def replace_program(handover: Handover, environ: Mapping[str, str], wakeup: int) -> None:
    """Become the new program; returns only by an exception.

    Args:
        handover: what it gets.
        environ: of the daemon when it was started.
        wakeup: where the signals arrive that have not been read yet: the new program gets them.

    Raises:
        UpgradeError: the system refuses. Everything is as before.
    """
    page = os.memfd_create("preforkd-handover", 0)
    kept = [page, *_descriptors(handover)]
    # A signal that arrives while there is no handler waits until the new program has one.
    mask = signals.block()
    for unread in signals.read(wakeup):
        os.kill(os.getpid(), unread)
    arguments = command()
    try:
        with os.fdopen(os.dup(page), "wb") as file:
            file.write(pack(handover))
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        os.execve(arguments[0], arguments, {**environ, VARIABLE: f"{FORMAT}:{page}"})  # noqa: S606 - our own command line
    except OSError as exc:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)
        os.close(page)
        signals.unblock(mask)
        raise UpgradeError(f"{arguments[0]} cannot be executed: {exc.strerror}") from exc


def take_over(environ: dict[str, str]) -> Handover | None:
    """Return what the program before this one has left, or None when there was none.

    Args:
        environ: the environment; the variable is taken out of it.

    Raises:
        UpgradeError: it is in a format that this version does not know.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    known, _, descriptor = text.partition(":")
    if known != str(FORMAT):
        raise UpgradeError(
            f"the running program hands over in format {known}, this one reads {FORMAT}: restart instead"
        )
    if not descriptor:
        return None  # this is the dry run
    with os.fdopen(int(descriptor), "rb") as file:
        file.seek(0)
        handover = unpack(file.read())
    for inherited in _descriptors(handover):
        os.set_inheritable(inherited, False)
    return handover


def _descriptors(handover: Handover) -> list[int]:
    channels = [link.child.channel.fileno() for link in handover.links if link.listens]
    certificates = [] if handover.certificates is None else [handover.certificates]
    listeners = [one.socket.fileno() for one in handover.listeners]
    return [handover.scoreboard.descriptor, *certificates, *listeners, *channels]


def pack(handover: Handover) -> bytes:
    """Return a handover as bytes: JSON, with sockets as their descriptors."""
    state = handover.state
    return json.dumps(
        {
            "state": {
                **{name: getattr(state, name) for name in _plain_fields(state)},
                "phase": state.phase.value,
                "target": asdict(state.target),
                "committed": None if state.committed is None else asdict(state.committed),
                "workers": [{**asdict(worker), "state": worker.state.value} for worker in state.workers.values()],
                "backoffs": [[slot, asdict(backoff)] for slot, backoff in state.backoffs.items()],
                "record": asdict(state.record),
            },
            "listeners": [[str(one.address), one.socket.fileno(), one.inode] for one in handover.listeners],
            "links": [
                [link.serial, link.child.pid, link.child.channel.fileno(), link.decoder.pending.hex()]
                for link in handover.links
            ],
            "scoreboard": handover.scoreboard.descriptor,
            "certificates": handover.certificates,
        }
    ).encode()


def _plain_fields(state: State) -> list[str]:
    return [one.name for one in fields(state) if one.name not in ("workers", "backoffs", "record")]


def unpack(text: bytes) -> Handover:
    """Return the handover that `pack` has made these bytes of, with the same descriptors."""
    fields: Mapping[str, Any] = json.loads(text)
    state = dict(fields["state"])
    state["phase"] = Phase(state["phase"])
    state["target"] = Generation(**state["target"])
    state["committed"] = state["committed"] and Generation(**state["committed"])
    workers = [
        Worker(**{**one, "state": WorkerState(one["state"]), "answers": Answers(**one["answers"])})
        for one in state["workers"]
    ]
    state["workers"] = {worker.serial: worker for worker in workers}
    state["backoffs"] = {slot: Backoff(**backoff) for slot, backoff in state["backoffs"]}
    record = state["record"]
    counts = {name: Answers(**record[name]) for name in ("old", "new", "before")}
    state["record"] = Record(
        **counts, samples=tuple((when, total, errors) for when, total, errors in record["samples"])
    )
    scoreboard = Scoreboard(fields["scoreboard"])
    rows = {worker.serial: worker.row for worker in workers}
    return Handover(
        state=State(**state),
        listeners=tuple(_listener(*one) for one in fields["listeners"]),
        links=tuple(
            Link(serial, Child(pid, _channel(descriptor)), scoreboard.row(rows[serial]), Decoder(bytes.fromhex(unread)))
            for serial, pid, descriptor, unread in fields["links"]
        ),
        scoreboard=scoreboard,
        certificates=fields.get("certificates"),  # a program without TLS has none
    )


def _listener(name: str, descriptor: int, inode: Sequence[int] | None) -> Listener:
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return Listener(address.parse(name), sock, None if inode is None else (inode[0], inode[1]))


def _channel(descriptor: int) -> socket.socket:
    """The master's end of a channel; one that had been closed stays closed."""
    if descriptor >= 0:
        channel = socket.socket(fileno=descriptor)
        channel.setblocking(False)
        return channel
    channel = socket.socket(socket.AF_UNIX)
    channel.close()
    return channel
