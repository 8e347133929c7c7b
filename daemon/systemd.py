"""What systemd tells a service in its environment, and how a service answers: sd_listen_fds(3), sd_notify(3).

All of it is meant for the master alone. So the variables are taken out of the environment before anything is forked:
a worker, or what the app starts, could otherwise speak for the service or take its sockets for its own.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping, MutableMapping
from typing import Final

from preforkd.workers.records import dataclass
from preforkd.workers.spelling import similar

FIRST_SOCKET: Final = 3
"""SD_LISTEN_FDS_START: the descriptors follow standard input, output and error."""
_UNNAMED: Final = "unknown"  # what sd_listen_fds_with_names(3) calls a socket for which LISTEN_FDNAMES has no name
_MOST_SOCKETS: Final = 4096
_NOTIFY: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_LISTEN: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class ActivationError(Exception):
    """systemd has not passed such a socket; the message says in one line what it has passed."""


@dataclass(frozen=True, slots=True)
class Activation:
    """The sockets that systemd has bound and passed to this process.

    Attributes:
        sockets: name and descriptor of each, in systemd's order; several may have one name.
        absence: why there is none; empty when there is.
    """

    sockets: tuple[tuple[str, int], ...] = ()
    absence: str = "systemd has passed no socket (LISTEN_FDS is not set): is the socket unit enabled and started?"

    def named(self, name: str) -> list[int]:
        """Return the descriptors of a name, all of them for an empty name.

        Args:
            name: as FileDescriptorName= gives it; without that it is the name of the socket unit, whose `.socket` may
                be left out.

        Raises:
            ActivationError: there is none.
        """
        if self.absence:
            raise ActivationError(self.absence)
        for wanted in (name, f"{name}.socket"):
            if found := [fd for have, fd in self.sockets if wanted in (have, "")]:
                return found
        raise ActivationError(self._unknown(name))

    def descriptors(self) -> list[int]:
        """Return the descriptors that are open."""
        return [fd for _name, fd in self.sockets if _is_open(fd)]

    def pass_on(self, on: bool) -> None:
        """Have a program that this process becomes or starts inherit the sockets, or not."""
        for fd in self.descriptors():
            os.set_inheritable(fd, on)

    def _unknown(self, name: str) -> str:
        counted = Counter(have for have, _fd in self.sockets)
        near = similar(name, counted, 1)
        hint = f"; did you mean systemd:{near[0]}?" if near else ""
        names = ", ".join(f'"{have}"' + (f" ({times} times)" if times > 1 else "") for have, times in counted.items())
        return (
            f'systemd has passed no socket named "{name}", only {names}{hint} (FileDescriptorName= of the socket unit)'
        )


NO_ACTIVATION: Final = Activation()


@dataclass(frozen=True, slots=True)
class Systemd:
    """What systemd has told this process.

    Attributes:
        notify: the address to send messages to, empty without one: a path, or `@` and an abstract name.
        watchdog: seconds within which systemd wants to hear from this process, 0 when it does not.
        activation: the sockets that it has passed.
        warnings: what makes no sense, one line each.
    """

    notify: str = ""
    watchdog: float = 0.0
    activation: Activation = NO_ACTIVATION
    warnings: tuple[str, ...] = ()


def take(environ: MutableMapping[str, str], pid: int) -> Systemd:
    """Read what systemd has told this process, and remove it from the environment.

    Args:
        environ: the environment of the process; changed.
        pid: of this process: what is meant for another one is removed, and not used.
    """
    variables = {name: environ.pop(name).strip() for name in (*_NOTIFY, *_LISTEN) if name in environ}
    warnings: list[str] = []
    activation = _activation(variables, pid)
    activation.pass_on(False)  # what the app starts must not have them
    notify = variables.get("NOTIFY_SOCKET", "")
    if notify and not notify.startswith(("/", "@")):
        warnings.append(f"systemd is not told anything: NOTIFY_SOCKET is {notify!a}, neither a path nor an @name")
        notify = ""
    return Systemd(
        notify=notify,
        watchdog=_watchdog(variables, pid, warnings) if notify else 0.0,
        activation=activation,
        warnings=tuple(warnings),
    )


def _watchdog(variables: Mapping[str, str], pid: int, warnings: list[str]) -> float:
    """Seconds: sd_watchdog_enabled(3)."""
    text = variables.get("WATCHDOG_USEC")
    if text is None or variables.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**63):
        warnings.append(f"the watchdog of systemd is not served: WATCHDOG_USEC is {text!a}, no number of microseconds")
        return 0.0
    return int(text) / 1e6


def _activation(variables: Mapping[str, str], pid: int) -> Activation:
    number = variables.get("LISTEN_FDS")
    if number is None:
        return NO_ACTIVATION
    if not (number.isascii() and number.isdecimal() and 0 < int(number) <= _MOST_SOCKETS):
        return Activation(absence=f"systemd has passed no socket: LISTEN_FDS is {number!a}")
    meant = variables.get("LISTEN_PID", "not set")
    if meant != str(pid):
        return Activation(
            absence=f"the sockets of systemd are not for this process: LISTEN_PID is {meant}, this is {pid} "
            "(a script between the two has to start preforkd by exec)"
        )
    names = variables.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (int(number) - len(names))
    return Activation(tuple((names[i] or _UNNAMED, FIRST_SOCKET + i) for i in range(int(number))), absence="")


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def message(*assignments: str) -> bytes:
    """Return a message to systemd.

    Args:
        assignments: `NAME=value` each; what would end the line is made a blank.
    """
    return "\n".join(" ".join(one.split()) for one in assignments).encode("utf-8", "backslashreplace")


def send(address: str, datagram: bytes) -> None:
    """Send a message to systemd; never blocks.

    A socket for each message: there are few, and so no worker inherits one.

    Raises:
        BlockingIOError: systemd is behind with reading; to be tried again.
        OSError: it is not there.
    """
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(datagram, target)
