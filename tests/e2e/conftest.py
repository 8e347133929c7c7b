"""The `start` fixture: real daemons for one test, always ended, their logs in the report of a failure."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xprocess.xprocess import XProcess  # type: ignore[import-untyped] # pytest-xprocess has no type hints

from tests.certificates import Authority
from tests.e2e.daemon import SITE, Daemon, free_port

COMMAND = (sys.executable, "-m", "preforkd.daemon")
_numbers = itertools.count()


class Start:
    """Starts daemons for one test and keeps them together."""

    def __init__(self, xprocess: XProcess, test: str) -> None:
        self._xprocess = xprocess
        self._test = re.sub(r"[^a-z0-9]+", "-", test.lower())[:60]
        self.daemons: list[Daemon] = []

    def __call__(
        self,
        *arguments: str,
        app: str | None = SITE,
        workers: int | None = 2,
        port: int | None = 0,
        environment: Mapping[str, str] | None = None,
        tolerated: str = "(?!)",
        command: Sequence[str] = COMMAND,
        wait: bool = True,
    ) -> Daemon:
        """Start one.

        Args:
            arguments: for the command, behind those that follow from the keywords.
            app: None leaves it out, as it does for `workers` and `port`.
            workers: how many.
            port: where it serves; 0: where nobody else does.
            environment: in addition to that of the tests.
            tolerated: what its log may show although no daemon should write it.
            command: what to run.
            wait: return when it is ready, all its workers included; False: at once.
        """
        port = free_port() if port == 0 else port
        line = [*command, *([] if app is None else [app])]
        line += [] if workers is None else ["--workers", str(workers)]
        line += [] if port is None else ["--bind", f"127.0.0.1:{port}"]
        name = f"{self._test}-{os.getpid()}-{next(_numbers)}"
        environment = environment or {}
        daemon = Daemon(
            self._xprocess, name, [*line, *arguments], port=port, environment=environment, tolerated=tolerated
        )
        self.daemons.append(daemon)
        daemon.launch(wait=wait)
        for slot in range(workers or 0) if wait else ():
            daemon.wait_log(rf"worker {slot} \(generation 1\) is ready")
        return daemon


@pytest.fixture(scope="session")
def xprocess(request: pytest.FixtureRequest) -> Iterator[XProcess]:
    """As the plugin's own, but each process of pytest-xdist has a folder of its own.

    The plugin's opens all logs in the folder, which another process may be removing at that moment.
    """
    config: Any = request.config  # pytest-xprocess wants a folder of py.path, which is not in the types of pytest
    folder = config.cache.makedir(f".xprocess{os.environ.get('PYTEST_XDIST_WORKER', '')}")
    with XProcess(config, folder) as processes:
        config._xprocess = processes  # where the plugin looks for what Ctrl-C has left
        yield processes


STARTED = pytest.StashKey[Start]()


@pytest.fixture
def start(request: pytest.FixtureRequest, xprocess: XProcess) -> Iterator[Start]:
    """Start daemons. Afterwards none may have written what no daemon should write, and all are ended."""
    started = request.node.stash[STARTED] = Start(xprocess, request.node.name)
    yield started
    defects = [line for daemon in started.daemons for line in daemon.defects()]
    for daemon in started.daemons:
        daemon.end()
    started.daemons.clear()
    assert not defects, "in the log of the daemon"


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs of `.crt` and `.key`, good and bad, and the authority that has issued them."""
    folder = tmp_path_factory.mktemp("wrong")
    authority = Authority(folder)
    authority.issue("good", "localhost")
    authority.issue("other", "localhost")
    authority.issue("old", "localhost", days=-1)
    authority.issue("locked", "localhost", password="opensesame")
    authority.issue("user", "localhost", usage="clientAuth")
    (folder / "text").write_text("no certificate\n")
    return folder


@contextmanager
def shared_daemon(xprocess: XProcess, name: str, *arguments: str, app: str, tolerated: str) -> Iterator[Start]:
    """One daemon with one worker for several tests: it has to stop in order and to have written nothing wrong.

    Args:
        xprocess: the fixture.
        name: unique among those that are shared.
        arguments, app, tolerated: as for `Start`.
    """
    start = Start(xprocess, name)
    try:
        daemon = start(*arguments, app=app, workers=1, tolerated=tolerated)
        yield start
        assert daemon.stop() == 0
        assert not daemon.defects(), "in the log of the daemon"
    finally:
        for daemon in start.daemons:
            daemon.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the logs of the daemons to the report of a failing test."""
    report = yield
    if report.failed and STARTED in item.stash:
        report.sections += [(f"log of {daemon.name}", daemon.log()) for daemon in item.stash[STARTED].daemons]
    return report
