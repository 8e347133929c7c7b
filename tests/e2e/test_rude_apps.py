"""Apps that take the streams, the descriptors, the hooks or the logging of their process for their own."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.apps import AppFile
from tests.e2e.client import get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import APPS

RUDE = {
    "stderr is a StringIO": "import io, sys; sys.stderr = io.StringIO()",
    "stderr is None": "import sys; sys.stderr = sys.stdout = None",
    "stderr writes into logging": """
import logging, sys
class Writer:
    def write(self, text):
        logging.getLogger("app").info(text)
sys.stderr = sys.stdout = Writer()
""",
    "the streams raise": """
import sys
class Rude:
    def __getattr__(self, name):
        raise RuntimeError(name)
sys.stderr = sys.stdout = Rude()
""",
    "the streams are closed": "import sys; sys.stderr.close(); sys.stdout.close()",
    "the descriptors are closed": "import os; os.close(0); os.close(1); os.close(2)",
    "the descriptors are redirected": """
import os
null = os.open(os.devnull, os.O_RDWR)
for descriptor in range(3):
    os.dup2(null, descriptor)
""",
    "excepthook raises": """
import sys
def hook(*arguments):
    raise RuntimeError("hook")
sys.excepthook = sys.unraisablehook = hook
""",
    "all is traced": "import sys; sys.settrace(lambda *event: None); sys.setprofile(lambda *event: None)",
    "warnings are errors": "import warnings; warnings.simplefilter('error')",
    "warnings are shown by nobody": "import warnings; warnings.warn = warnings.showwarning = None",
    "standard signals are taken": """
import signal, faulthandler
faulthandler.disable()
signal.signal(signal.SIGALRM, signal.SIG_IGN)
""",
}


@pytest.mark.parallel
@pytest.mark.parametrize("mode", ["", "--preload"])
@pytest.mark.parametrize("rudeness", RUDE)
def test_what_an_app_does_to_its_process_stops_no_worker(
    start: Start, tmp_path: Path, rudeness: str, mode: str
) -> None:
    site = AppFile(tmp_path)
    site.version("1", first=RUDE[rudeness])
    daemon = start(*([mode] if mode else []), app=site.target, workers=1, tolerated="Traceback")
    for path, status in (("/", 200), ("/fail", 500)):
        assert get(daemon.port, path).status == status
    daemon.wait_log(r"ERROR worker 0.*Error handling request")
    daemon.wait_log("RuntimeError: a bug in the app")
    daemon.wait_log(r'"GET / HTTP/1\.1" 200')
    (worker,) = daemon.workers()
    daemon.signal(signal.SIGUSR2, worker.pid)
    daemon.wait_log("asyncio tasks:")
    daemon.wait_log("most recent call first")
    assert daemon.stop() == 0
    assert "did not boot" not in daemon.log()


@pytest.mark.parallel
@pytest.mark.parametrize("rudeness", RUDE)
def test_a_check_agrees(tmp_path: Path, rudeness: str) -> None:
    site = AppFile(tmp_path)
    site.version("1", first=RUDE[rudeness])
    done = subprocess.run([*COMMAND, site.target, "--check"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is fine (protocol" in done.stdout


CONFIGURES = {
    "dictConfig": 'logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})',
    "dictConfig of root": """logging.config.dictConfig({
        "version": 1, "handlers": {"all": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["all"], "level": "DEBUG"}, "loggers": {"preforkd": {"level": "CRITICAL"}},
    })""",
    "fileConfig": """logging.config.fileConfig(io.StringIO('''
[loggers]
keys=root
[handlers]
keys=all
[formatters]
keys=
[logger_root]
level=DEBUG
handlers=all
[handler_all]
class=StreamHandler
args=(sys.stderr,)
'''))""",
    "disable": "logging.disable(logging.CRITICAL)",
}
ASGI_SITE = """
import io, logging, logging.config, os, sys

def configure():
    {configure}

{first}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        raise RuntimeError("shutdown fails")
    if scope["path"] == "/later":
        configure()
    if scope["path"] == "/boom":
        raise ValueError("boom")
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": str(os.getpid()).encode()}})
"""


@pytest.mark.parallel
@pytest.mark.parametrize("mode", ["", "--preload"])
@pytest.mark.parametrize("when", ["at import", "later"])
@pytest.mark.parametrize("how", CONFIGURES)
def test_an_app_that_configures_logging_neither_silences_nor_doubles_us(
    start: Start, tmp_path: Path, how: str, when: str, mode: str
) -> None:
    app = tmp_path / "configures.py"
    app.write_text(ASGI_SITE.format(configure=CONFIGURES[how], first="configure()" if when == "at import" else ""))
    daemon = start(*([mode] if mode else []), app=f"{app}:app", workers=1, tolerated="Traceback")
    if when == "later":
        assert get(daemon.port, "/later").status == 200
    assert get(daemon.port, "/boom").status == 500
    daemon.wait_log("ValueError: boom")
    assert daemon.stop() == 0
    daemon.wait_log("RuntimeError: shutdown fails")
    for text in ("ValueError: boom", "Error handling request", "RuntimeError: shutdown fails", '"GET /boom'):
        assert daemon.log().count(text) == 1, text


def test_an_end_in_our_own_start_is_not_blamed_on_the_app(start: Start, tmp_path: Path) -> None:
    site = AppFile(tmp_path)
    breaks = "from preforkd.workers import recycling, main; main.Recycling = None"
    site.version("1", first=breaks)
    daemon = start(app=site.target, workers=1, wait=False, tolerated="Traceback")
    assert daemon.wait_exit() == 1
    assert re.search(r"worker 0 .*did not boot: this is a bug in preforkd: TypeError", daemon.log())
    assert "Traceback" in daemon.log()
    assert "the app" not in daemon.log()


LIFESPAN = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


@pytest.mark.parametrize(
    ("source", "arguments", "said"),
    [
        (LIFESPAN, [], "preforkd: error: lifespan: .*no database"),
        (
            "from preforkd.workers import ServerHttpProtocol\nclass app(ServerHttpProtocol):\n"
            "    def __init__(self, **k):\n        raise RuntimeError('none made')\n",
            [],
            "preforkd: error: protocol: .*cannot be made: RuntimeError: none made",
        ),
        (LIFESPAN, ["--access-log-file", "/nowhere/access.log"], "access_log_file: /nowhere/access.log cannot be op"),
    ],
)
def test_a_check_goes_through_all_of_a_start(tmp_path: Path, source: str, arguments: list[str], said: str) -> None:
    app = tmp_path / "starts.py"
    app.write_text(source)
    command = [*COMMAND, f"{app}:app", "--check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert re.search(said, done.stderr), done.stderr


def test_a_check_has_the_app_start_and_shut_down(tmp_path: Path) -> None:
    command = [*COMMAND, f"{APPS / 'asgi_site.py'}:app", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
