"""What is shipped for deployment stays true: every option, path, port and time in it is one that the daemon has."""

from __future__ import annotations

import asyncio
import json
import os
import re
import runpy
import shutil
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from preforkd.daemon.address import parse
from preforkd.daemon.config import load
from preforkd.daemon.options import BY_NAME
from tests.e2e.daemon import FOREIGN

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = DEPLOY / "systemd" / "preforkd@.service"
COMMAND = (sys.executable, "-m", "preforkd.daemon")


def run(*arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    """The real command's standard output, when it takes these arguments."""
    clean = {key: value for key, value in os.environ.items() if not FOREIGN.fullmatch(key)}
    run = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=clean | dict(environment or {}), capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def configured(*arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The values of all options that the command would run with."""
    return tomllib.loads(run(*arguments, "--print-config", cwd=cwd, environment=environment))


def stop_budget(options: Mapping[str, float]) -> float:
    """The seconds that the daemon may take from TERM to its exit."""
    return options["drain_delay"] + options["graceful_timeout"] + options["shutdown_timeout"]


def parsed(name: str) -> Any:
    """One of the YAML files."""
    return yaml.safe_load((DEPLOY / name).read_text())


def instructions(name: str) -> list[str]:
    """The arguments of each such instruction of the Dockerfile, in its order."""
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)


def image_environment() -> dict[str, str]:
    """What the image's ENV says, without its PATH."""
    pairs = dict(pair.split("=", 1) for pair in instructions("ENV")[0].split())
    del pairs["PATH"]
    return pairs


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The image's working directory, filled by the Dockerfile's own COPY lines."""
    for source, target in (line.split() for line in instructions("COPY")[-2:]):
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / target)
    return tmp_path


# preforkd.toml


def test_the_example_configuration_boots() -> None:
    run("--config", "deploy/preforkd.toml", "--check")


def test_the_example_configuration_shows_every_option_with_its_default() -> None:
    text = (DEPLOY / "preforkd.toml").read_text()
    shown = re.sub(rf"^# (?=(?:{'|'.join(BY_NAME)}) = )", "", text, flags=re.MULTILINE)
    assert set(tomllib.loads(shown)) == set(BY_NAME)
    config = load({"config": "all.toml"}, {}, folder=str(ROOT), read=lambda path: shown.encode())
    different = {name: value for name, value in config.asked.items() if value != BY_NAME[name].default}
    assert set(different) == {"app"}, different


# The Dockerfile


def test_the_image_serves_an_example_when_no_app_is_given(image: Path) -> None:
    run("--check", cwd=image, environment=image_environment())


def test_arguments_take_the_place_of_the_images_example(image: Path) -> None:
    options = configured("examples/get.py:HttpRequestHandler", cwd=image, environment=image_environment())
    assert options["app"] == "examples/get.py:HttpRequestHandler"


def test_the_image_listens_where_others_can_reach_it(image: Path) -> None:
    (port,) = instructions("EXPOSE")
    options = configured(cwd=image, environment=image_environment())
    assert options["bind"] == [f"0.0.0.0:{port}"]


def test_the_image_runs_the_command_as_a_process_of_its_own_without_privileges() -> None:
    (entrypoint,) = map(json.loads, instructions("ENTRYPOINT"))  # the exec form is JSON; a shell would swallow TERM
    assert entrypoint[0] in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert re.fullmatch(r"[1-9]\d*:\d+", instructions("USER")[-1]), "a number, and not root's"


def test_neither_the_image_nor_its_health_check_needs_a_shell() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    forms = re.findall(r"^(?:RUN|CMD|ENTRYPOINT|HEALTHCHECK .*CMD) +(.*)$", final, re.MULTILINE)
    assert [all(isinstance(word, str) for word in json.loads(form)) for form in forms] == [True] * 4
    assert ["preforkctl", "health"] in map(json.loads, forms)


def test_the_image_can_be_based_on_another() -> None:
    assert instructions("FROM") == ["${BUILD_IMAGE} AS build", "${BASE_IMAGE}"]
    assert re.search(r"^ARG BASE_IMAGE=\S+$", DOCKERFILE, re.MULTILINE)
    assert "ARG BUILD_IMAGE=${BASE_IMAGE}\n" in DOCKERFILE


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if source not in kept] == []


def test_what_the_build_needs_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["setuptools"]["package-dir"].values())
    sources = {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert needed <= sources


def pins(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each package in a file of requirements."""
    text = (DEPLOY / "container" / name).read_text()
    found = re.findall(r"^([\w.-]+)==(\S+)(.*(?:\\\n +--hash=sha256:[0-9a-f]{64} ?)+)", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^[\w-]", text, re.MULTILINE)), "each has a version and hashes"
    return {canonicalize_name(package): (version, hashes.count("--hash")) for package, version, hashes in found}


def test_the_pinned_requirements_of_the_image_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = pins("requirements.txt")
    needed: dict[str, Requirement] = {}
    waiting = [Requirement(one) for one in (*project["dependencies"], *extras["metrics"], *extras["websocket"])]
    while waiting:
        one = waiting.pop()
        if one.marker is None or one.marker.evaluate({"sys_platform": "linux", "extra": ""}):
            name = canonicalize_name(one.name)
            assert name in pinned, f"{one} is not pinned: the head of requirements.txt says how it is made anew"
            assert one.specifier.contains(pinned[name][0]), f"{one} is pinned to {pinned[name][0]}"
            if name not in needed:
                waiting += [Requirement(text) for text in metadata.requires(name) or ()]
            needed[name] = one
    assert set(pinned) == set(needed)


def test_the_pinned_requirements_have_the_wheels_of_all_platforms() -> None:
    for name, (_, hashes) in pins("requirements.txt").items():
        tags = str(metadata.distribution(name).read_text("WHEEL"))
        if "-none-any" not in tags:
            assert hashes >= 20 or "abi3" in tags, f"{name}: {hashes} hashes are those of one platform alone"


def test_what_builds_the_image_is_pinned() -> None:
    (wanted,) = map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"])
    pinned = pins("requirements-build.txt")
    assert set(pinned) == {wanted.name}
    assert wanted.specifier.contains(pinned[wanted.name][0])


# Compose; Kubernetes is in tests/test_kubernetes.py


def test_the_composed_container_runs_with_options_that_exist(image: Path) -> None:
    web = parsed("container/compose.yaml")["services"]["web"]
    run(*web["command"], "--check", cwd=image, environment=image_environment())
    options = configured(*web["command"], cwd=image, environment=image_environment())
    assert float(web["stop_grace_period"].removesuffix("s")) > stop_budget(options)
    assert web["ports"][0].split(":")[-1] == options["bind"][0].split(":")[-1]
    assert (web["read_only"], web["cap_drop"], web["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])


# systemd


def unit_setting(name: str) -> str:
    """The value of a setting that the unit gives once."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(value)


needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (the Debian package systemd)"
)


@needs_analyze
def test_systemd_accepts_service_and_socket_and_the_daemon_its_name(tmp_path: Path) -> None:
    text = UNIT.read_text()
    for program in {unit_setting("ExecStart").split()[0], unit_setting("ExecReload").split()[0]}:
        text = text.replace(program, sys.executable)  # verify wants programs that exist
    (tmp_path / "preforkd@.service").write_text(text)
    socket_text = UNIT.with_suffix(".socket").read_text()
    (tmp_path / "preforkd@.socket").write_text(socket_text)
    verify = subprocess.run(
        [
            "systemd-analyze",
            "verify",
            "--man=no",
            tmp_path / "preforkd@shop.service",
            tmp_path / "preforkd@shop.socket",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (verify.returncode, verify.stderr) == (0, "")
    (name,) = re.findall(r"^FileDescriptorName=(.*)$", socket_text, re.MULTILINE)
    (bind,) = re.findall(r"^# In its TOML file: (bind = .*)$", socket_text, re.MULTILINE)
    assert tomllib.loads(bind)["bind"] == [str(parse(f"systemd:{name}"))]


@needs_analyze
def test_the_unit_is_hardened(tmp_path: Path) -> None:
    command: list[str | Path] = ["systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT]  # in tenths
    analyze = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert analyze.returncode == 0, analyze.stdout


def test_the_unit_is_told_by_the_daemon_when_it_is_ready() -> None:
    assert unit_setting("Type") == "notify"
    assert float(unit_setting("WatchdogSec")) > 0


def test_the_unit_waits_for_the_daemon_and_signals_its_master_alone() -> None:
    program, *arguments = unit_setting("ExecStart").split()
    assert Path(program).name == "preforkd"
    assert arguments[:1] == ["--config"]
    assert float(unit_setting("TimeoutStopSec")) > stop_budget(configured("--config", "deploy/preforkd.toml"))
    control, *arguments = unit_setting("ExecReload").split()
    assert (Path(control).name, arguments) == ("preforkctl", ["reload", "--wait"])
    admin = unit_setting("Environment=PREFORKD_ADMIN")
    assert admin.startswith(f"unix:/run/{unit_setting('RuntimeDirectory')}/")
    assert (unit_setting("KillMode"), unit_setting("KillSignal")) == ("mixed", "SIGTERM")


# Load balancers; their configurations run in tests/e2e/test_load_balancers.py


def test_load_balancers_give_up_idle_connections_before_the_daemon_does() -> None:
    keep_alive = float(str(BY_NAME["keep_alive"].default))
    (nginx,) = re.findall(r"^ *keepalive_timeout (\d+)s;", (DEPLOY / "nginx/preforkd.conf").read_text(), re.MULTILINE)
    (haproxy,) = re.findall(r"pool-purge-delay (\d+)s$", (DEPLOY / "haproxy/haproxy.cfg").read_text(), re.MULTILINE)
    assert max(float(nginx), float(haproxy)) < keep_alive


# The example without the daemon; the others are served in tests/e2e/test_examples.py


class FreePortLoop(asyncio.SelectorEventLoop):
    """Serves at a free port of 127.0.0.1 what was meant for all interfaces at 8080, and asks it for a page."""

    def __init__(self, *, tls: bool) -> None:
        super().__init__()
        self.tls = tls
        self.meant: tuple[Any, Any] | None = None
        self.page = b""

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        self.meant = host, port
        server = await super().create_server(protocol_factory, "127.0.0.1", 0, **options)
        self.asking = self.create_task(self.ask(server))
        return server

    async def ask(self, server: asyncio.Server) -> None:
        try:
            port = server.sockets[0].getsockname()[1]
            trusting = ssl._create_unverified_context() if self.tls else None  # noqa: S323 - the certificate signs itself
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            writer.write(b"GET / HTTP/1.1\r\nHost: tests\r\n\r\n")
            self.page = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            await writer.wait_closed()
        finally:
            server.close()


def served_page(*certificate_and_key: str) -> FreePortLoop:
    """The loop that has run the standalone example until its page was read."""
    loop = FreePortLoop(tls=bool(certificate_and_key))
    main = runpy.run_path(str(DEPLOY / "examples" / "standalone.py"))["main"]
    with asyncio.Runner(loop_factory=lambda: loop) as runner, suppress(asyncio.CancelledError):
        runner.run(main(*certificate_and_key))
    loop.asking.result()
    return loop


def test_the_standalone_example_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEPLOY / "examples")
    loop = served_page()
    assert loop.meant == ("0.0.0.0", 8080)
    assert loop.page.endswith(b"\r\n\r\n<h1>It Works!</h1>")


def test_the_standalone_example_serves_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: install the Debian package openssl")
    monkeypatch.syspath_prepend(DEPLOY / "examples")
    files = [str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")]
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    assert served_page(*files).page.endswith(b"\r\n\r\n<h1>It Works!</h1>")


# The words

README = DEPLOY / "README.md"
WORDS_OF_OTHERS = {"sd_notify", "stop_grace_period", "worker_exit"}  # the last: in the log
WORDS_OF_NGINX = {"keepalive_timeout", "keepalive_min_timeout", "least_conn"}


def test_the_readme_names_files_and_options_that_exist() -> None:
    words = re.findall(r"`([^`\n]+)`", README.read_text())
    paths = [word for word in words if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", word)]
    assert [path for path in paths if not (DEPLOY / path).exists() and not (ROOT / path).exists()] == []
    options = {word for word in words if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)}
    assert options - WORDS_OF_OTHERS - WORDS_OF_NGINX <= set(BY_NAME)


def test_the_readmes_commands_are_accepted() -> None:
    commands = re.findall(r"^    preforkd ([^&\n]*)", README.read_text(), re.MULTILINE)
    assert [configured(*command.split())["app"] for command in commands] != []


def test_the_readmes_table_of_files_is_complete() -> None:
    files = {path.relative_to(DEPLOY) for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert [str(path) for path in sorted(files - {Path("README.md")}) if f"`{path}`" not in README.read_text()] == []


PLATFORMS = (DEPLOY / "docs" / "proxies.md").read_text().split("\n## Platforms\n")[1]


@pytest.mark.parametrize(("name", "waits"), [("Heroku", 30), ("Cloud Run", 10), ("ECS, Fargate", 60), ("Fly", 40)])
def test_a_stop_fits_into_what_each_platform_waits(name: str, waits: float, image: Path) -> None:
    (row,) = re.findall(rf"^\| {name} \|.*$", PLATFORMS, re.MULTILINE)
    advice = row.split("|")[-2]
    said = re.findall(r"(?:stopTimeout: |kill_timeout = )(\d+)", advice) or re.findall(r"(\d+) s", row.split("|")[4])
    assert float(said[0]) == waits
    arguments = [word for pair in re.findall(r"(--[a-z-]+) (\d+)", advice) for word in pair]
    options = configured(*arguments, cwd=image, environment=image_environment() | {"PORT": "8123"})
    assert options["bind"] == ["0.0.0.0:8123"]
    assert stop_budget(options) < waits
