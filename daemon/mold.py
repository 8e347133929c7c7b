"""Preload: a process per generation imports the app once, and every worker of the generation is forked from it.

So the workers share the memory of the import, and a reload still gets new code, which a master that imports the app
itself could not give. The rules:

1. The policy knows nothing of molds. One that dies after its import harms nobody: what it has still to fork is ordered
   from a new one. One that dies during the import takes along the workers that wait for it.
2. A worker is the child of the master, which reaps it and whose death it sees. The mold only gives birth to it.
3. The master never waits for a mold: orders wait in their socket until the import is done. A worker's start-up deadline
   counts from the order, so it covers the import.
4. A mold has the listening sockets of its generation, so it must not outlive the need for them: it is ended with its
   generation, at a stop, and by the kernel when the master dies.

The first half of this file is the master's, the second the mold's own.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Final, TypeVar

from preforkd.daemon import signals
from preforkd.daemon.actions import Fork
from preforkd.daemon.spawn import Child, flush_output, spawn_sibling
from preforkd.workers import log, offspring
from preforkd.workers.blame import AppError
from preforkd.workers.channel import INTERNAL, Failed, Hello, Message, encode

App = TypeVar("App")
FORK: Final = "fork"
"""The stage of a boot that a mold reports when the system refuses to fork."""
LONGEST_ORDER: Final = 256
"""Bytes; an order is a few numbers."""
EXIT_TIMEOUT: Final = 1.0
"""Seconds that killed molds get to disappear before the master leaves without them."""
INTERNAL_ERROR: Final = 1
ORPHANED: Final = signal.SIGKILL
"""What a mold gets when its master dies: it has nothing to finish, and the import may have caught any other signal."""


class Mold:
    """A mold, seen from its master.

    Args:
        generation: whose workers it forks.
        pid: of its process.
        control: the master's end of the socket for orders; it never blocks.
        selector: where room in that socket is waited for, with this mold as data.
    """

    def __init__(self, generation: int, pid: int, control: socket.socket, selector: selectors.BaseSelector) -> None:
        self.generation = generation
        self.pid = pid
        self._control = control
        self._selector = selector
        self._orders: deque[tuple[bytes, socket.socket]] = deque()
        self._waits = False
        self._abort = False
        self.awaited: set[int] = set()
        """The serials of the workers that it has been ordered to fork, that have not said their pid, and are wanted."""
        self.proven = False
        """It has forked a worker: the import is over and was good."""
        self.told = False
        """It has been told to end."""
        self.status: int | None = None
        """Of its process, once that has been reaped."""
        self.oom = False
        """The kernel has ended it for want of memory."""

    @property
    def usable(self) -> bool:
        """Whether it can be given an order; False also when it has died and has not been reaped."""
        if self.told or self.status is not None:
            return False
        try:
            return self._control.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def order(self, order: Fork, channel: socket.socket) -> None:
        """Have it fork a worker.

        Args:
            order: what the policy wants.
            channel: the worker's end of its channel; it is closed here when the mold has it.
        """
        self.awaited.add(order.serial)
        self._orders.append((json.dumps(astuple(order)).encode(), channel))
        self.flush()

    def flush(self) -> None:
        """Send the orders for which there was no room before."""
        while self._orders:
            text, channel = self._orders[0]
            try:
                socket.send_fds(self._control, [text], [channel.fileno()])
            except BlockingIOError:
                break
            except OSError as exc:
                # It is dead: the end of their channels says so to those who wait for these workers.
                log.LOGGER.debug("mold %d takes no orders: %s", self.pid, exc)
                self._drop_orders()
                break
            self._orders.popleft()
            channel.close()
        self._wait_for_room(bool(self._orders))

    def _wait_for_room(self, waits: bool) -> None:
        if waits and not self._waits:
            self._selector.register(self._control, selectors.EVENT_WRITE, self)
        elif self._waits and not waits:
            self._selector.unregister(self._control)
        self._waits = waits

    def _drop_orders(self) -> None:
        for _, channel in self._orders:
            channel.close()
        self._orders.clear()

    def descriptors(self) -> list[int]:
        """Return those that no child may inherit."""
        return [fd for fd in (self._control.fileno(), *(one.fileno() for _, one in self._orders)) if fd >= 0]

    def kill(self, signum: int) -> None:
        """Send it a signal that ends it; until it is reaped its pid is nobody else's."""
        self.told = True
        if self.status is None:
            os.kill(self.pid, signum)

    def kill_for(self, serial: int, signum: int) -> bool:
        """Give up one of the workers that it has still to fork.

        As long as the import goes on that is all that can be ended; but others may be waiting for it.

        Returns:
            Whether the mold has got the signal: nobody else waits for it, or it hangs. The worker ends with it then.
        """
        self._abort |= signum == signal.SIGABRT
        hangs = self.proven and signum == signal.SIGABRT  # it has not forked the worker within its start-up timeout
        useless = not self.proven and self.awaited <= {serial}
        if self.status is not None or not (self.told or hangs or useless):
            self.awaited.discard(serial)
            return False
        # ABRT is to show the stack of an import that takes too long, whoever was given up first.
        self.kill(signal.SIGABRT if self._abort and signum != signal.SIGKILL else signum)
        return True

    def end(self) -> None:
        """End it, if nothing else has: its generation is gone, or the daemon stops."""
        if not self.told:
            self.kill(signal.SIGKILL)

    def reaped(self, status: int) -> None:
        """Note that its process is gone."""
        self.status = status
        self._drop_orders()
        self._wait_for_room(False)
        self._control.close()
        if self.proven and not self.told:
            log.LOGGER.warning(
                "the mold of generation %d ended: %s; its workers go on, and the next one gets a new mold",
                self.generation,
                _cause(status),
            )


def _cause(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name if -code in signal.valid_signals() else -code}"


class Molds:
    """The molds of a master: the newest of each generation, and those that have not been reaped.

    Args:
        selector: where room for orders is waited for, each time with the `Mold` as data.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._by_generation: dict[int, Mold] = {}
        self._by_pid: dict[int, Mold] = {}

    def get(self, generation: int, start: Callable[[], Child]) -> Mold:
        """Return the mold of a generation; if there is none that works, `start` makes one.

        Raises:
            OSError: the system refuses to fork it.
        """
        mold = self._by_generation.get(generation)
        if mold is not None and mold.usable:
            return mold
        if mold is not None and mold.proven:
            log.LOGGER.warning(
                "generation %d gets a new mold: its next workers run the code as it is on disk now", generation
            )
        child = start()
        if child.pid is None:  # impossible: it was forked right here
            raise ValueError("a mold without a pid")
        mold = Mold(generation, child.pid, child.channel, self._selector)
        self._by_generation[generation] = self._by_pid[child.pid] = mold
        log.LOGGER.debug("the mold of generation %d is process %d", generation, child.pid)
        return mold

    def descriptors(self) -> list[int]:
        """Return those that no child may inherit."""
        return [fd for mold in self._by_pid.values() for fd in mold.descriptors()]

    def reaped(self, pid: int, status: int) -> Mold | None:
        """Note that a process is gone; returns the mold that it was."""
        mold = self._by_pid.pop(pid, None)
        if mold is not None:
            mold.reaped(status)
        return mold

    def end(self, keep: Collection[int] = ()) -> None:
        """End those whose generation is none of `keep`."""
        for generation in [one for one in self._by_generation if one not in keep]:
            self._by_generation.pop(generation).end()

    def leave_none(self) -> None:
        """Kill what is left and see it gone: for the end of the master, the one moment when it may wait."""
        deadline = time.monotonic() + EXIT_TIMEOUT
        for mold in self._by_pid.values():
            mold.kill(signal.SIGKILL)
        while self._by_pid and time.monotonic() < deadline:
            for pid in list(self._by_pid):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.reaped(pid, status)
            time.sleep(0.001)  # waitpid() knows no timeout


# The mold's own half


def serve(
    control: socket.socket, name: str, load: Callable[[], App], live: Callable[[socket.socket, Fork, App], int]
) -> int:
    """Be a mold: import the app, then fork workers until the master is gone.

    Args:
        control: where the orders come from.
        name: of the app, for the log.
        load: imports it; may raise AppError, which is then the answer to every order.
        live: the life of a worker with its channel, its order and the app; returns its exit code.

    Returns:
        The exit code of the process. A mold whose app cannot be imported waits to be ended, as every other one does.
    """
    log.show_fatal_signals()  # an import that takes too long gets ABRT, and shows where it is
    signals.do_nothing_on(signal.SIGUSR2)  # for workers only; its default would end this process
    offspring.claim(signal.SIGUSR2)
    began, before = time.monotonic(), _shareable()
    try:
        app = load()
    except AppError as exc:
        _refuse(control, Failed("import", str(exc), exc.details))
        return INTERNAL_ERROR
    except Exception as exc:  # noqa: BLE001 - of ours, for what the app raises is an AppError
        _refuse(control, Failed(INTERNAL, f"{type(exc).__name__}: {exc}", traceback.format_exc()))
        return INTERNAL_ERROR
    offspring.end_if_strayed()
    log.LOGGER.info("%s is imported after %.2f s, for all workers of this generation", name, time.monotonic() - began)
    _warn_of_threads()
    _warn_of_descriptors(_shareable() - before)
    gc.collect()
    while (taken := _take(control)) is not None:
        order, channel = taken
        with channel:
            _fork_worker(control, order, channel, live, app)
    return 0


def _take(control: socket.socket) -> tuple[Fork, socket.socket] | None:
    """Wait for an order; returns it with the worker's end of its channel, None when the master is gone."""
    text, descriptors, _, _ = socket.recv_fds(control, LONGEST_ORDER, 1, socket.MSG_CMSG_CLOEXEC)
    return (Fork(*json.loads(text)), socket.socket(fileno=descriptors[0])) if text else None


def _refuse(control: socket.socket, answer: Failed) -> None:
    """Answer every order with the reason why there will be no worker."""
    while (taken := _take(control)) is not None:
        _answer(taken[1], answer)
        taken[1].close()


def _answer(channel: socket.socket, message: Message) -> None:
    with contextlib.suppress(OSError):  # the worker is not wanted any more
        channel.sendall(encode(message))


def _fork_worker(
    control: socket.socket,
    order: Fork,
    channel: socket.socket,
    live: Callable[[socket.socket, Fork, App], int],
    app: App,
) -> None:
    if _given_up(channel):
        return

    def life() -> int:
        control.close()
        try:
            channel.sendall(encode(Hello(os.getpid())))
        except OSError:
            return INTERNAL_ERROR  # given up in the meantime
        return live(channel, order, app)

    # What is frozen is never visited by the garbage collector, whose marks would make each worker copy the pages.
    gc.freeze()
    flush_output()
    try:
        pid = spawn_sibling(life)
    except TimeoutError as exc:
        _answer(channel, Failed("start", f"{exc.strerror}: is it safe to fork after the import? (--preload)"))
    except OSError as exc:
        _answer(channel, Failed(FORK, exc.strerror or str(exc)))
    else:
        # The worker says so, too; but what runs at each fork may hang in it before it can.
        _answer(channel, Hello(pid))


def _given_up(channel: socket.socket) -> bool:
    """Whether the master has closed its end before the worker was forked."""
    try:
        return channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _warn_of_threads() -> None:
    names = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    total = max(_tasks() - 1, len(names))
    if total > len(names):
        names.append(f"{total - len(names)} of native code")
    if total:
        log.LOGGER.warning(
            "%s started at import: %s; they do not exist in the workers, and what they have locked stays locked there:"
            " start them in each worker, or do without --preload",
            _counted(total, "thread"),
            ", ".join(names),
        )


def _tasks() -> int:
    """The threads of this process that the system counts, those of native code included."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return 1


def _shareable() -> set[str]:
    """The sockets and event loops that this process has open, as the system names them."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(f"{descriptor.readlink()} {descriptor.name}")
    return {one for one in found if one.startswith(("socket:", "anon_inode:[eventpoll]"))}


def _warn_of_descriptors(opened: Collection[str]) -> None:
    loops = sum(one.startswith("anon_inode:") for one in opened)
    counted: Sequence[str] = [
        _counted(number, word) for number, word in ((len(opened) - loops, "socket"), (loops, "event loop")) if number
    ]
    if counted:
        log.LOGGER.warning(
            "opened at import: %s, which all workers share: open them in each worker, or do without --preload",
            " and ".join(counted),
        )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
