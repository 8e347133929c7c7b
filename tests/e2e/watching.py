"""Asking the admin process of a daemon, over TCP and over its unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from tests.e2e import client
from tests.e2e.conftest import Start
from tests.e2e.daemon import Daemon, free_port, title


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


class Admin:
    """The admin process of a daemon.

    Args:
        start: the fixture.
        folder: where its unix socket is made.
        arguments: for the daemon, as for `Start`.
    """

    def __init__(self, start: Start, folder: Path, *arguments: str, **more: Any) -> None:
        self.port = free_port()
        self.path = folder / "admin.sock"
        addresses = ("--admin", f"127.0.0.1:{self.port}", "--admin", f"unix:{self.path}")
        self.daemon: Daemon = start(*addresses, *arguments, **more)

    @property
    def pid(self) -> int:
        """Of the process; there is one at a time, but for a moment."""
        return self.daemon.until(self._pid, 10, "an admin process")

    def _pid(self) -> int:
        found = [one.pid for one in self.daemon.processes() if title(one) == "preforkd: admin"]
        return found[0] if len(found) == 1 else 0

    def get(self, path: str) -> client.Answer:
        """Ask over TCP."""
        return client.get(self.port, path)

    def status(self) -> dict[str, Any]:
        """All that it knows."""
        answer = self.get("/status")
        assert answer.status == 200
        found: dict[str, Any] = json.loads(answer.text)
        return found

    def ready(self) -> tuple[int, list[str]]:
        """Whether it is, and why not."""
        answer = self.get("/readyz")
        return answer.status, json.loads(answer.text)["reasons"]

    def control(self, verb: str) -> tuple[int, dict[str, Any]]:
        """Ask for something through the unix socket: the status, and what is answered."""
        connection = UnixConnection(self.path)
        try:
            connection.request("POST", f"/control/{verb}")
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()
