"""What users install: the wheel has every module, and the daemon starts from it in an empty environment."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

import pytest

from preforkd.workers.http import compiled
from tests.e2e import client
from tests.e2e.daemon import BOOT, FOREIGN, free_port, listens
from tests.e2e.deadline import until

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENVIRONMENT = {key: value for key, value in os.environ.items() if not FOREIGN.fullmatch(key)}
OFFLINE = re.compile(
    r"NewConnectionError|Temporary failure in name resolution|Network is unreachable|ConnectTimeoutError"
)


def pip(
    *arguments: str | Path, python: str | Path = sys.executable, environment: Mapping[str, str] = ENVIRONMENT
) -> None:
    """Run pip; without a package index these tests cannot be done."""
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    pip = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if pip.returncode and OFFLINE.search(pip.stderr):
        pytest.skip("pip reaches no package index: the wheel can neither be built nor installed")
    assert pip.returncode == 0, pip.stderr


def sources() -> Iterator[tuple[str, Path]]:
    """Each file of the packages, by its name in the wheel: modules, their types and the marks that they are typed."""
    for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".pyi", ".html") or path.name == "py.typed":
                yield f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder)}", path


class Wheel(NamedTuple):
    """What was built, and with which form of the HTTP parser."""

    path: Path
    parser: str


pytestmark = pytest.mark.together  # each wheel is built once


@pytest.fixture(scope="module", params=["compiled", "pure"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The wheel, built with a compiler and without, from a copy: a build leaves files behind, which the next finds."""
    if request.param == "compiled" and compiled.MISSING:
        pytest.skip(f"the compiled parser cannot be built here: {compiled.MISSING}")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]):
        shutil.copy(ROOT / name, folder)
    for name in PROJECT["tool"]["setuptools"]["package-dir"].values():
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    environment = ENVIRONMENT if request.param == "compiled" else {**ENVIRONMENT, "CC": "false"}
    pip("wheel", "--no-deps", "--wheel-dir", folder, folder, environment=environment)
    (path,) = folder.glob("*.whl")
    return Wheel(path, request.param)


def test_the_wheel_has_every_module_as_it_is_and_nothing_else(wheel: Wheel) -> None:
    expected = {name: path.read_bytes() for name, path in sources()}
    with zipfile.ZipFile(wheel.path) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    built = [name for name in packed if name.endswith(tuple(EXTENSION_SUFFIXES))]
    extensions = [one["name"].replace(".", "/") for one in PROJECT["tool"]["setuptools"]["ext-modules"]]
    assert sorted(name.partition(".")[0] for name in built) == (
        sorted(extensions) if wheel.parser == "compiled" else []
    )
    for name in built:
        del packed[name]
    assert sorted(packed) == sorted(expected)
    assert packed == expected


def test_the_daemon_starts_from_the_wheel_in_an_empty_environment(wheel: Wheel, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=120)
    pip("install", wheel.path, python=environment / "bin" / "python")
    app, port = tmp_path / "hello.py", free_port()
    shutil.copy(ROOT / "deploy" / "examples" / "hello.py", app)
    command: list[str | Path] = [
        environment / "bin" / "preforkd",
        "hello.py:HttpRequestHandler",
        "--bind",
        f"127.0.0.1:{port}",
    ]
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert f"{wheel.parser} HTTP parser" in version.stdout
    with subprocess.Popen([*command, "--workers", "2"], cwd=tmp_path, env=ENVIRONMENT) as daemon:
        try:
            until(lambda: daemon.poll() is not None or listens(port), BOOT, "the daemon listens")
            assert daemon.poll() is None, "the daemon has ended instead of serving; its log is above"
            assert client.get(port).text == "<h1>It Works!</h1>"
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(BOOT) == 0
        finally:
            daemon.kill()
