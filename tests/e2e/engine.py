"""Images and containers where no engine runs and no registry is: Debian's own packages make all of it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.e2e.deadline import until

T = TypeVar("T")

TOOLS = ("buildah", "mmdebstrap", "podman", "runc")
SUITE = "bookworm"
_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
# Unpacked, never configured: that is much quicker. The first has no shell, the second what a build needs.
BASES = {"base": "python3", "builder": "python3-venv,python3-dev,dash,coreutils,gcc,libc6-dev"}
# What nobody needs there: documents, link time optimisation, sanitizers, the static Python.
_SLIM = (
    '--extract-hook=cd "$1/usr" && rm -rf share/doc share/locale share/man lib/gcc/*/*/lto1 bin/*lto-dump* '
    "lib/*/lib*san.* lib/gcc/*/*/lib*san* lib/*/lib*python3*.a lib/python3*/config-*/*.a"
)
_MERGED = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
SCOPE = ("--cgroup-manager=cgroupfs", "--log-level=fatal")
# podman would raise its own limits above what is allowed here.
_LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")


def missing() -> str:
    """Why images cannot be made here, empty when they can."""
    if os.geteuid() != 0:
        return "needs root, to make images and containers"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs the Debian packages {' '.join(absent)}" if absent else ""


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "preforkd-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def base_archives() -> dict[str, Path]:
    """The file systems that images are based on, as archives: made at the same time, and kept for the next run."""
    archives = {name: _cache() / f"{SUITE}-{platform.machine()}-{name}.tar" for name in BASES}
    made: dict[Path, tuple[Path, subprocess.Popen[str]]] = {}
    for name, archive in archives.items():
        if not archive.exists():
            partial = archive.with_name(f"{os.getpid()}-{archive.name}")
            command = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={BASES[name]}", _MERGED, _SLIM, SUITE]
            made[archive] = (
                partial,
                subprocess.Popen([*command, partial], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True),
            )
    for archive, (partial, process) in made.items():
        _, complaint = process.communicate(timeout=240)
        assert process.returncode == 0, complaint
        partial.rename(archive)
    return archives


class Container:
    """A container that runs.

    Attributes:
        name: of the container.
        pid: of its first process, as seen from outside.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name
        self.pid = int(engine.podman("inspect", "--format", "{{.State.Pid}}", name))

    def inside(self, do: Callable[[], T]) -> T:
        """Call something in the network of the container: there, 127.0.0.1 is its own."""
        found: list[T] = []
        failed: list[BaseException] = []

        def enter() -> None:  # the network of a thread is its own, and a socket stays in the one that it was made in
            try:
                with Path(f"/proc/{self.pid}/ns/net").open() as network:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(network.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                found.append(do())
            except BaseException as exc:  # noqa: BLE001 - raised below
                failed.append(exc)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    def log(self) -> str:
        """What it has written, each line behind the engine's own time stamp."""
        return self._engine.log_of(self.name).read_text()

    def wait_log(self, text: str) -> None:
        """Wait until it has written that."""
        until(lambda: text in self.log(), 20, lambda: f"{text!r} in {self.log()}")

    def status(self, field: str) -> list[str]:
        """A field of /proc/PID/status of its first process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith(f"{field}:")]
        return line.split()[1:]

    def health(self) -> int:
        """The exit code of its health check, as the engine runs it."""
        return self._engine.podman_process("healthcheck", "run", self.name).returncode

    def stop(self) -> int:
        """Stop it as the engine does; returns its exit code."""
        self._engine.podman("stop", "--time", "40", self.name)
        return int(self._engine.podman("inspect", "--format", "{{.State.ExitCode}}", self.name))


class Engine:
    """buildah and podman with a storage of their own, which is removed in the end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="preforkd-images-"))
        self._storage = ("--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run")
        self._containers: list[str] = []

    def podman_process(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run podman to its end, whatever that is."""
        command = ["podman", *self._storage, *SCOPE, *arguments]
        # Its monitor leaves a file where it was started, when the kernel has killed for want of memory.
        return subprocess.run(command, cwd=self.folder, check=False, capture_output=True, text=True, timeout=120)

    def podman(self, *arguments: str | Path) -> str:
        """What podman prints."""
        done = self.podman_process(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log_of(self, name: str) -> Path:
        """The file that a container's log is in: to ask podman again and again would take longer than the test."""
        return self.folder / f"{name}.log"

    def import_bases(self) -> None:
        """Have the base images."""
        for name, archive in base_archives().items():
            self.podman("import", "--quiet", archive, f"localhost/{name}")

    def build(self, folder: Path, tag: str, arguments: Mapping[str, str], *options: str | Path) -> None:
        """Build an image; pip asks the index, and trusts the authorities, that it does outside: told by secrets."""
        settings = ["[global]", "timeout = 60"]
        secrets = [f"--secret=id=pip.conf,src={self.folder}/pip.conf"]
        if certificates := os.environ.get("PIP_CERT"):
            secrets.append(f"--secret=id=ca,src={certificates}")
            settings.append("cert = /run/secrets/ca.crt")
        if index := os.environ.get("PIP_INDEX_URL"):
            settings.append(f"index-url = {index}")
        (self.folder / "pip.conf").write_text("\n".join(settings) + "\n")
        command = ["buildah", *self._storage, "build", "--isolation=chroot", "--pull-never", "--format", "docker"]
        build = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        done = subprocess.run(
            [*command, *secrets, *build, "--tag", tag, *options, folder],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    def start(self, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Start a container in a network of its own, on a file system that nobody can write to, without privileges."""
        name = f"preforkd-{os.getpid()}-{len(self._containers)}"
        self._containers.append(name)
        confined = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
        logged = ("--log-driver=k8s-file", f"--log-opt=path={self.log_of(name)}")
        self.podman(
            "run", *logged, "--detach", "--name", name, "--network=none", "--pull=never", *_LIMITS, *confined, *options,
            image, *command,
        )  # fmt: skip
        return Container(self, name)

    def once(self, image: str, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        return self.podman_process("run", "--rm", "--network=none", "--pull=never", *_LIMITS, *options, image, *command)

    def remove_containers(self) -> None:
        """End and remove those that were started."""
        for name in self._containers:
            self.podman_process("rm", "--force", "--time", "0", name)

    def close(self) -> None:
        """Remove everything that was made, but for the archives of the bases."""
        self.remove_containers()
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for point in sorted((one for one in mounted if one.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", point], check=True, timeout=30)
        shutil.rmtree(self.folder)
