"""The image, built by its Dockerfile and run: as PID 1, without a shell, privileges or a file system to write to."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.client import Connection, NoAnswerError, ResetError, get
from tests.e2e.deadline import until
from tests.e2e.engine import Container, Engine, missing

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/preforkd"
SITE = ("--volume", f"{ROOT}/tests/apps:/srv:ro"), "/srv/site.py:Site"
APP = """
import asyncio, sys

EATEN = []
PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(0.5)'])"

async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/orphan":
            parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT)
            await parent.wait()
        EATEN.extend(bytearray(b"x" * (1 << 20)) for _ in range(500 if scope["path"] == "/eat" else 0))
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
"""

why = missing()
pytestmark = [
    pytest.mark.skipif(bool(why), reason=why),
    pytest.mark.parallel,
    pytest.mark.together,  # the image is built once
]


@pytest.fixture(scope="module")
def built() -> Iterator[Engine]:
    """An engine that has the image."""
    engine = Engine()
    try:
        engine.import_bases()
        bases = {"BASE_IMAGE": "localhost/base", "BUILD_IMAGE": "localhost/builder"}
        engine.build(ROOT, IMAGE, bases)
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(built: Engine) -> Iterator[Engine]:
    yield built
    built.remove_containers()


def serving(container: Container) -> Container:
    container.wait_log(" serving ")
    return container


def test_the_example_is_served_when_no_app_is_given_by_a_first_process_without_any_rights(engine: Engine) -> None:
    container = serving(engine.start(IMAGE))
    assert container.inside(lambda: get(8000)).text == "<h1>It Works!</h1>"
    assert container.status("NSpid")[-1] == "1"
    assert container.status("Uid") == ["10001"] * 4
    assert {int(container.status(name)[0], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert container.status("NoNewPrivs") == ["1"]
    mounts = [line.split() for line in Path(f"/proc/{container.pid}/mounts").read_text().splitlines()]
    (root,) = [options for _, folder, _, options, *_ in mounts if folder == "/"]
    assert root.split(",")[0] == "ro"
    assert container.health() == 0
    assert container.stop() == 0


def test_any_user_will_do_and_the_daemon_can_be_controlled_from_its_container(engine: Engine) -> None:
    container = serving(engine.start(IMAGE, options=["--user=54321:54321"]))
    assert container.status("Uid") == ["54321"] * 4
    reloaded = engine.podman("exec", container.name, "preforkctl", "reload", "--wait")
    assert "generation 2 has replaced the old one" in reloaded
    assert container.inside(lambda: get(8000)).status == 200
    assert container.stop() == 0


def test_the_health_check_finds_the_admin_process_wherever_it_answers(engine: Engine) -> None:
    container = serving(engine.start(IMAGE, "--bind=127.0.0.1:8100", "--admin=127.0.0.1:9100"))
    assert container.health() == 0
    assert container.inside(lambda: get(9100, "/livez")).status == 200


def test_a_container_that_cannot_serve_is_not_healthy(engine: Engine) -> None:
    container = engine.start(IMAGE, "/srv/slow_import.py", options=SITE[0])
    until(lambda: "unhealthy: " in engine.podman_process("exec", container.name, "preforkctl", "health").stderr, 5, "")
    assert container.health() == 1
    assert container.stop() == 0


def test_a_stop_by_the_engine_answers_what_is_in_flight(engine: Engine) -> None:
    options, app = SITE
    container = serving(engine.start(IMAGE, app, "--workers=1", options=options))
    with container.inside(lambda: Connection(8000)) as connection:
        connection.ask("/slow/1")
        codes: list[int] = []
        stopping = threading.Thread(target=lambda: codes.append(container.stop()))
        stopping.start()
        container.wait_log("stop")
        assert connection.answer().status == 200
        stopping.join()
    assert codes == [0]


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        pytest.param(["--cpus=0.5"], r"1 worker \(default, auto: \d+ CPUs? usable, cgroup quota of 0.5\)", id="cpus"),
        pytest.param(
            ["--cpus=0.5", "--memory=512m"],
            r"1 worker \(default, auto: \d+ CPUs? usable, cgroup quota of 0.5, "
            r"cgroup memory limit of 512 MiB for 4 of 128 MiB\)",
            id="both",
        ),
        pytest.param(
            ["--memory=200m"],
            r"1 worker \(default, auto: \d+ CPUs? usable, no cgroup quota(, so 8 at most)?, "
            r"cgroup memory limit of 200 MiB for 1 of 128 MiB\)",
            id="memory",
        ),
    ],
)
def test_the_cpus_and_the_memory_that_the_engine_allows_decide_how_many_workers_there_are(
    engine: Engine, options: list[str], workers: str
) -> None:
    container = serving(engine.start(IMAGE, options=options))
    assert re.search(f"with {workers}", container.log()), container.log()


@pytest.fixture
def app(tmp_path: Path) -> tuple[str, str]:
    """The option that has the folder of `APP`, and its name in the container."""
    (tmp_path / "app.py").write_text(APP)
    tmp_path.chmod(0o755)
    return f"--volume={tmp_path}:/srv:ro", "/srv/app.py:app"


def test_a_worker_that_needs_more_memory_than_the_engine_allows_is_replaced_and_the_reason_said(
    engine: Engine, app: tuple[str, str]
) -> None:
    options = [app[0], "--memory=200m", "--memory-swap=200m"]
    container = serving(engine.start(IMAGE, app[1], "--workers=1", options=options))
    with pytest.raises((NoAnswerError, ResetError)):
        container.inside(lambda: get(8000, "/eat"))
    container.wait_log("killed by the kernel, which was out of memory")
    assert container.inside(lambda: get(8000)).status == 204


def test_orphans_are_reaped(engine: Engine, app: tuple[str, str]) -> None:
    container = serving(engine.start(IMAGE, app[1], "--workers=1", options=[app[0]]))
    first = psutil.Process(container.pid)
    before = set(first.children())
    assert container.inside(lambda: get(8000, "/orphan")).status == 204
    until(lambda: len(first.children()) == len(before) + 1, 5, "the orphan is adopted")
    until(lambda: set(first.children()) == before, 5, "and reaped")


def test_there_is_no_shell_and_none_is_needed(engine: Engine) -> None:
    done = engine.once(IMAGE, "-c", "true", options=["--entrypoint=sh"])
    assert done.returncode != 0
    assert 'executable file "sh" not found' in done.stderr + done.stdout or "not found" in done.stderr


def test_everything_is_imported_from_bytecode(engine: Engine) -> None:
    modules = "asyncio, json, ssl, preforkd.daemon.command, preforkd.daemon.ctl_command, preforkd.workers.main"
    done = engine.once(IMAGE, "-v", "-c", f"import {modules}", options=["--entrypoint=python"])
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"code object from '[^']+\.pyc'", done.stderr)) > 100
    assert re.findall(r"code object from '[^']+\.py'", done.stderr) == []


def test_the_lines_of_the_readme_deploy_a_fastapi_app(engine: Engine, tmp_path: Path) -> None:
    (text,) = re.findall(
        r"<!-- an app in a container -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    lines = text.splitlines()
    assert len(lines) == 5
    assert lines[0] == "docker build -t preforkd . && mkdir shop", "the image that is built already"
    (tmp_path / "shop").mkdir()
    subprocess.run("\n".join(lines[1:3]), shell=True, check=True, cwd=tmp_path, timeout=10)
    assert lines[3] == "docker build -t shop -f deploy/container/Dockerfile.app shop"
    file = ROOT / "deploy" / "container" / "Dockerfile.app"
    engine.build(tmp_path / "shop", "localhost/shop", {"PREFORKD_IMAGE": IMAGE}, "--file", file)
    assert lines[4] == "docker run --rm -p 8000:8000 shop"
    container = serving(engine.start("localhost/shop"))
    assert container.inside(lambda: get(8000)).text == '"It works"'
    assert container.health() == 0
    assert container.stop() == 0
    look = (
        "import os; print(sum(map(os.path.getsize, filter(os.path.exists, ['/etc/pip.conf', '/run/secrets/ca.crt']))))"
    )
    kept = engine.once("localhost/shop", "-c", look, options=["--entrypoint=python"])
    assert kept.stdout.strip() == "0", "what was secret in the build is not in the image"
