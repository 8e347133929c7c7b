"""The daemon as other programs see it: systemd, and those that read its pid file."""

from __future__ import annotations

from typing import Final

from preforkd.daemon.notifier import Notifier
from preforkd.daemon.pidfile import PidFile
from preforkd.daemon.systemd import Systemd
from preforkd.daemon.turn import ON_TRIAL, Phase, State
from preforkd.workers import log

_SERVING: Final = (Phase.SERVING, *ON_TRIAL)


class Service:
    """Follows the master's state and shows it to the outside.

    Args:
        systemd: what systemd has said in the environment.
        pid_file: checked already; None without one.
        serving: the daemon serves already: this program has replaced another.
    """

    def __init__(self, systemd: Systemd, pid_file: PidFile | None, *, serving: bool) -> None:
        self._notifier = Notifier(systemd, ready=serving)
        self._pid_file = pid_file
        self._written = False

    def reload_asked(self, state: State) -> None:
        """Say that a reload begins; `follow` will say when it is over, also when nothing has come of it."""
        self._notifier.reload_asked(state)

    def follow(self, state: State, now: float) -> None:
        """Show what is new; to be called after each turn of the master, and at `next_deadline`.

        Args:
            state: of the master.
            now: seconds of the monotonic clock.
        """
        if state.phase in _SERVING and not self._written:
            self._write()
        # The file first: who has waited for systemd's "started" or "stopped" finds it as it should be.
        if state.phase is Phase.GONE:
            self.end()
        self._notifier.follow(state, now)

    def next_deadline(self) -> float | None:
        """Return when `follow` is due even if nothing happens."""
        return self._notifier.next_deadline()

    def end(self) -> None:
        """Leave nothing behind."""
        if self._pid_file is not None:
            self._pid_file.remove()

    def _write(self) -> None:
        self._written = True
        if self._pid_file is not None:
            try:
                self._pid_file.write()
            except OSError as exc:
                # It serves: a tool that cannot find it is no reason to stop.
                log.LOGGER.error("the pid file (--pid) cannot be written: %s", exc)
