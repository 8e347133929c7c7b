"""The servers that are measured, each a column of the table, and how one of them is run."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from tests.e2e.daemon import free_port, listens

ROOT = Path(__file__).parents[2]
BOOT = 20.0  # seconds
Interface = Literal["bare", "protocol", "asgi", "wsgi"]


@dataclass(frozen=True)
class Kind:
    """A server with its options.

    Attributes:
        title: of its column.
        interface: of the apps that it runs.
        command: what starts it on 127.0.0.1, with {app}, {module}, {attribute} and {port} to be filled in.
        quiet: arguments for no access log.
        logged: arguments for an access log on standard output; None: it has none.
        package: what is installed when it is; empty: our own.
        websocket: whether it speaks WebSocket.
        tls: arguments for TLS, with {certificate} and {key} to be filled in; None: it does not speak it.
    """

    title: str
    interface: Interface
    command: tuple[str, ...]
    quiet: tuple[str, ...] = ()
    logged: tuple[str, ...] | None = None
    package: str = ""
    websocket: bool = False
    tls: tuple[str, ...] | None = None

    @property
    def is_installed(self) -> bool:
        """Whether it can be run here."""
        return not self.package or is_installed(self.package)


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


_PYTHON = sys.executable
_BIND = ("--bind", "127.0.0.1:{port}")
_WARNINGS = ("--log-level", "warning")
_PREFORKD = (_PYTHON, "-m", "preforkd.daemon", "{app}", "--workers", "1", *_WARNINGS, *_BIND)
_SILENT, _LOGGED = ("--no-access-log",), ("--access-log",)
_GRANIAN = (_PYTHON, "-m", "granian", "--workers", "1", "--port", "{port}", "--interface")
_GRANIAN_SILENT = (*_SILENT, *_WARNINGS, "{app}")
_GRANIAN_LOGGED = (*_LOGGED, "--log-level", "info", "{app}")
_GUNICORN = (_PYTHON, "-m", "gunicorn", "{app}", "--workers", "1", "--keep-alive", "75", *_WARNINGS, *_BIND)
_GUNICORN_LOGGED = ("--access-logfile", "-")
_TLS = ("--certfile", "{certificate}", "--keyfile", "{key}")
_UVICORN_TLS = ("--ssl-certfile", "{certificate}", "--ssl-keyfile", "{key}")
_GRANIAN_TLS = ("--ssl-certificate", "{certificate}", "--ssl-keyfile", "{key}")
_FASTPYSGI = (str(Path(_PYTHON).with_name("fastpysgi")), "{app}", "--host", "127.0.0.1", "--port", "{port}")
_FREASTAL = "import freastal, {module} as apps; freastal.{call}(apps.{attribute}, host='127.0.0.1', port={port})"

KINDS = {
    "limit": Kind(
        "bare uvloop",
        "bare",
        (_PYTHON, "-m", "tests.benchmarks.apps.bare", "{attribute}", "{port}"),
        logged=(),
        tls=("{certificate}", "{key}"),
    ),
    "preforkd-protocol": Kind("protocol", "protocol", _PREFORKD, _SILENT, _LOGGED, tls=_TLS),
    "preforkd-asgi": Kind("ASGI", "asgi", _PREFORKD, _SILENT, _LOGGED, websocket=True, tls=_TLS),
    "preforkd-wsgi-1": Kind("WSGI, 1 thread", "wsgi", (*_PREFORKD, "--threads", "1"), _SILENT, _LOGGED, tls=_TLS),
    "preforkd-wsgi-0": Kind("WSGI, 0 threads", "wsgi", (*_PREFORKD, "--threads", "0"), _SILENT, _LOGGED, tls=_TLS),
    "uvicorn-asgi": Kind(
        "uvicorn",
        "asgi",
        (_PYTHON, "-m", "uvicorn", "{app}", "--port", "{port}"),
        (*_SILENT, *_WARNINGS),
        (*_LOGGED, "--log-level", "info"),
        package="uvicorn",
        websocket=True,
        tls=_UVICORN_TLS,
    ),
    "granian-asgi": Kind(
        "granian ASGI",
        "asgi",
        (*_GRANIAN, "asgi"),
        _GRANIAN_SILENT,
        _GRANIAN_LOGGED,
        package="granian",
        websocket=True,
        tls=_GRANIAN_TLS,
    ),
    "hypercorn-asgi": Kind(
        "hypercorn",
        "asgi",
        (_PYTHON, "-m", "hypercorn", "{app}", "--workers", "1", "--worker-class", "uvloop", *_WARNINGS, *_BIND),
        logged=_GUNICORN_LOGGED,
        package="hypercorn",
        websocket=True,
        tls=_TLS,
    ),
    "granian-wsgi": Kind(
        "granian WSGI",
        "wsgi",
        (*_GRANIAN, "wsgi", "--blocking-threads", "1"),
        _GRANIAN_SILENT,
        _GRANIAN_LOGGED,
        package="granian",
        tls=_GRANIAN_TLS,
    ),
    "gunicorn-asgi": Kind(
        "gunicorn ASGI",
        "asgi",
        (*_GUNICORN, "--worker-class", "asgi"),
        logged=_GUNICORN_LOGGED,
        package="gunicorn",
        websocket=True,
        tls=_TLS,
    ),
    "gunicorn-wsgi": Kind(
        "gunicorn WSGI",
        "wsgi",
        (*_GUNICORN, "--worker-class", "gthread", "--threads", "1"),
        logged=_GUNICORN_LOGGED,
        package="gunicorn",
        tls=_TLS,
    ),
    "fastpysgi-asgi": Kind("fastpysgi ASGI", "asgi", _FASTPYSGI, package="fastpysgi"),
    "fastpysgi-wsgi": Kind("fastpysgi WSGI", "wsgi", _FASTPYSGI, package="fastpysgi"),
    "freastal-asgi": Kind(
        "freastal ASGI", "asgi", (_PYTHON, "-c", _FREASTAL.replace("{call}", "serve_asgi")), package="freastal"
    ),
    "freastal-wsgi": Kind(
        "freastal WSGI", "wsgi", (_PYTHON, "-c", _FREASTAL.replace("{call}", "serve")), package="freastal"
    ),
}


@functools.cache
def pair() -> tuple[str, str]:
    """Return the paths of a certificate and its key: ECDSA, as authorities issue them today."""
    folder = tempfile.mkdtemp(prefix="benchmark-")
    atexit.register(shutil.rmtree, folder)
    certificate, key = f"{folder}/tls.crt", f"{folder}/tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class ServerError(Exception):
    """A server did not start."""


class Server:
    """A running server.

    Args:
        kind: which one.
        app: `module:attribute`.
        arguments: in addition to those of the kind.
        environ: in addition to the environment of this process.
    """

    def __init__(
        self, kind: Kind, app: str, arguments: tuple[str, ...] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        module, _, attribute = app.partition(":")
        certificate, key = pair() if set(kind.tls or ()) & set(arguments) else ("", "")
        words = {"app": app, "module": module, "attribute": attribute, "port": self.port}
        words |= {"certificate": certificate, "key": key}
        command = [word.format_map(words) for word in (*kind.command, *arguments)]
        environment = {**os.environ, **(environ or {}), "PYTHONPATH": str(ROOT)}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=self._errors
        )
        self._watched = psutil.Process(self._process.pid)
        deadline = time.monotonic() + BOOT
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerError(f"{' '.join(command)} did not start: {self._last_words()}")
            time.sleep(0.005)

    def _last_words(self) -> str:
        """The last line that it has written to standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]

    def processes(self) -> list[psutil.Process]:
        """Return the server's process and those that it has started."""
        return [self._watched, *self._watched.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return user and system time of the process tree."""
        return sum(times.user + times.system for times in (process.cpu_times() for process in self.processes()))

    def stop(self) -> None:
        """End it and its workers, by force if need be."""
        with suppress(psutil.NoSuchProcess):
            children = self._watched.children(recursive=True)
            self._process.terminate()
            _, left = psutil.wait_procs([self._watched, *children], timeout=3)
            for process in left:
                process.kill()
        self._process.wait()
