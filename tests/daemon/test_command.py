"""The command: what it hands to the master, what it prints, and its exit codes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from preforkd.daemon import command, master, signals, version
from preforkd.daemon.config import Config, ConfigError
from preforkd.daemon.listeners import Listener
from preforkd.daemon.options import DECLARATIONS
from preforkd.daemon.values import Addresses, Flag
from tests.certificates import Authority, needs_openssl

HANDLER = "from preforkd.workers import ServerHttpProtocol\nclass Handler(ServerHttpProtocol): pass\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an app in it and no variable that would count."""
    for name in list(os.environ):
        if name.startswith("PREFORKD_") or name in ("PORT", "WEB_CONCURRENCY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    (tmp_path / "hello.py").write_text(HANDLER)
    return tmp_path


class Served:
    """What the master was started with."""

    config: Config
    bound: Sequence[Listener]
    reload: Callable[[], Config]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """In place of the master: it notes what it is given and ends with 77."""
    served = Served()

    def run(config: Config, bound: Sequence[Listener], origin: master.Origin, *_: object) -> int:
        served.config, served.bound, served.reload = config, bound, origin.reload
        for listener in bound:
            listener.close()
        return 77

    monkeypatch.setattr(signals, "catch", lambda: -1)
    monkeypatch.setattr(master, "run", run)
    monkeypatch.setattr(command, "set_umask", lambda digits: None)  # that of the tests stays
    return served


def run(*arguments: str) -> int:
    return command.run(["hello.py:Handler", "--bind", "127.0.0.1:0", *arguments])


# Serving


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--user", "nobdy"), "--user on the command line: there is no user 'nobdy'"),
        (("--group", "xyzzy"), "--group on the command line: there is no group 'xyzzy'"),
        (("--pid", "none/x.pid"), "--pid on the command line: the folder .*/none does not exist"),
    ],
)
def test_what_the_system_lacks_is_an_error_with_its_origin_before_anything_is_bound(
    served: Served, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(*arguments) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not hasattr(served, "bound")


def test_what_systemd_has_said_is_not_in_the_environment_any_more(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert run() == 77
    assert "NOTIFY_SOCKET" not in os.environ
    assert "LISTEN_PID" not in os.environ


def test_variables_of_other_servers_are_said_not_to_be_read(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"UVICORN_PORT": "1", "GUNICORN_CMD_ARGS": "-w 3", "GRANIAN_HOST": "", "UVICORN": "x"}.items():
        monkeypatch.setenv(name, text)
    assert run() == 77
    said = [line.partition(" ")[0] for line in served.config.warnings if "is not read" in line]
    assert said == ["GUNICORN_CMD_ARGS", "UVICORN_PORT"]


@needs_openssl
def test_every_option_of_the_command_line_arrives(
    served: Served, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    certificate, key = map(str, authority.issue("server", "localhost"))
    values = {
        "certfile": certificate,
        "keyfile": key,
        "keyfile_password": "$HOME",
        "sni_certificate": f"{certificate}:{key}",
        "tls_min": "1.3",
        "ciphers": "ECDHE+AESGCM",
        "ca_certs": str(authority.certificate),
        "cert_reqs": "optional",
        "app_dir": str(folder),
        "chdir": str(folder),
        "interface": "protocol",
        "workers": "3",
        "access_log_format": "%(h)s",
        "log_format": "json",
        "log_level": "debug",
        "parser": "pure",
        "proc_name": "shop",
        "health_path": "/health",
        "root_path": "/shop",
        "drain_streams": "late",
        "access_log_skip": "/health",
        "log_config": str(folder / "log.toml"),
        "hooks": "shop.hooks",
        "reload_dir": str(folder),
        "forwarded": "rfc7239",
        "forwarded_allow_ips": "10.0.0.0/8,unix:",
        "proxy_protocol": "v2",
        "proxy_allow_from": "*",
        "user": str(os.geteuid()),
        "group": str(os.getegid()),
        "admin": f"unix:{folder}/admin.sock",
    }
    (folder / "log.toml").write_text("version = 1")
    arguments = []
    for one in DECLARATIONS:
        if isinstance(one.kind, Flag):
            arguments.append(f"--no-{one.flag[2:]}" if one.default else one.flag)
        elif one.name not in ("app", "bind"):
            address = "127.0.0.1:0" if isinstance(one.kind, Addresses) else "7"
            arguments += [one.flag, values.get(one.name, address)]
    assert run(*arguments) == 77
    given = {name for name, origin in served.config.origins.items() if origin.endswith("on the command line")}
    assert given == {one.name for one in DECLARATIONS}
    assert served.config.options.limit_body == 7
    assert served.config.options.debug is True
    assert served.config.options.access_log is False


def test_an_address_may_be_given_repeatedly_and_short_flags_work(served: Served, folder: Path) -> None:
    assert run("-b", f"unix:{folder}/a.sock", "-w", "2") == 77
    assert [str(one.address) for one in served.bound] == ["127.0.0.1:0", f"unix:{folder}/a.sock"]
    assert served.config.options.workers == 2


def test_the_environment_and_the_file_are_read(served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFORKD_BACKLOG", "9")
    (folder / "preforkd.toml").write_text("keep_alive = '2m'")
    assert run() == 77
    assert (served.config.options.backlog, served.config.options.keep_alive) == (9, 120)


def test_a_reload_reads_the_sources_anew_from_the_first_command_line(
    served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "preforkd.toml"
    file.write_text("keep_alive = 1\nworkers = 5")
    assert run("-w", "2", "-c", "preforkd.toml") == 77
    monkeypatch.chdir("/")
    file.write_text("keep_alive = 2\nworkers = 6")
    assert served.config.options.keep_alive == 1
    assert served.reload().options.keep_alive == 2
    assert served.reload().options.workers == 2


def test_a_reload_tells_all_that_is_wrong_as_a_configuration_error(served: Served, folder: Path) -> None:
    assert run() == 77
    (folder / "hello.py").rename(folder / "gone.py")
    with pytest.raises(ConfigError, match=r"^hello\.py does not exist"):
        served.reload()
    (folder / "preforkd.toml").write_text("keep_alive = -1\nbacklog = 0")
    with pytest.raises(ConfigError) as raised:
        served.reload()
    assert len(raised.value.errors) == 2


def test_a_reload_follows_a_symlink_that_was_switched(
    served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for release in ("1", "2"):
        (folder / release).mkdir()
        (folder / release / "preforkd.toml").write_text(f"keep_alive = {release}\n")
        (folder / release / "hello.py").write_text(HANDLER)
    current = folder / "current"
    current.symlink_to("1")
    monkeypatch.chdir(current)
    monkeypatch.setenv("PWD", str(current))  # as a shell sets it
    assert run() == 77
    assert served.config.options.keep_alive == 1
    assert served.config.options.chdir == str(current)
    current.unlink()
    current.symlink_to("2")
    assert served.reload().options.keep_alive == 2


def test_a_pwd_that_is_not_the_folder_is_not_believed(
    served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("/", "", "hello", f"{folder}/none"):
        monkeypatch.setenv("PWD", wrong)
        assert run() == 77
        assert served.config.options.chdir == str(folder)


# Errors: one line each on standard error, nothing on standard output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "no app given: name it, as in `preforkd hello.py:HttpRequestHandler`"),
        (["hello.py", "--worker", "2"], 2, r"No such option.*Did you mean.*--workers.*preforkd --help"),
        (["hello.py", "--workers"], 2, r"Option '--workers' requires an argument"),
        (["hello.py", "--debug=1"], 2, r"does not take a value"),
        (["hello.py", "more"], 2, r"unexpected extra argument \(more\)"),
        (["hello.py", "--workers", "many"], 2, '--workers on the command line: "many" is not a whole number'),
        (["hello.py", "--keep-alive", "-3"], 2, '--keep-alive on the command line: "-3" is not a time'),
        (["hello.py", "--bind", "localhost:99999"], 2, "the port 99999 is not in 0 to 65535"),
        (["hello.py", "--bind", "8000"], 2, "has no host"),
        (["hello.py", "--interface", "ajp"], 2, '"ajp" is not one of auto, protocol, asgi, wsgi'),
        (["hello.py", "--config", "none.toml"], 2, r"none\.toml does not exist"),
        (["hello.py", "--chdir", "none"], 2, r"--chdir on the command line: .*/none is not a folder"),
        (["hello.py", "--app-dir", "none"], 3, r"/none \(--app-dir\) does not exist"),
        (["none.py"], 3, r"none\.py does not exist in "),
        (["helo.py:Handler"], 3, r"helo\.py does not exist; did you mean hello\.py\?"),
        (["hello.py:a-b"], 3, "is not the name of an attribute"),
        (["hello.py", "--bind", "192.0.2.1:80"], 2, "cannot bind 192.0.2.1:80: this machine has no address"),
        (["hello.py", "--bind", "unix:none/a.sock"], 2, "the folder .*/none does not exist"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(signals, "catch", lambda: -1)
    assert command.run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("preforkd: error: ")
    assert re.search(said, err), err


def test_errors_of_several_options_are_told_at_once(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "preforkd.toml").write_text("backlog = 0\nwrokers = 1")
    assert run("--workers", "x") == 2
    assert [line.split(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "wrokers in preforkd.toml",
        "backlog in preforkd.toml",
        "--workers on the command line",
    ]


# --help, --version, --print-config


def test_the_help_names_every_option_with_its_default_and_what_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--help"]) == 0
    text = capsys.readouterr().out
    flat = " ".join(text.split())
    for one in DECLARATIONS:
        assert re.search(rf"^  .*{one.flag}\b", text, re.MULTILINE), one.flag
        assert one.help in flat
        assert f"[{one.default_text or 'none'}]" in flat or one.name == "app"
    for word in (
        "PREFORKD_KEEP_ALIVE=75",
        "$PORT",
        "$WEB_CONCURRENCY",
        "TERM",
        "HUP",
        "TTIN",
        "Exit codes",
        "--config",
    ):
        assert word in flat


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--version"]) == 0
    assert re.fullmatch(
        r"preforkd \d+\.\d+\.\d+ \(CPython 3\.\d+\.\d+, \w+ \w+, (compiled|pure) HTTP parser\)\n",
        capsys.readouterr().out,
    )


def test_the_compiled_parser_is_refused_where_it_was_not_built(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "parser_is_built", lambda: False)
    monkeypatch.setattr(version, "parser_is_built", lambda: False)
    assert run("--parser", "compiled") == 2
    assert "--parser on the command line: the compiled parser was not built" in capsys.readouterr().err
    assert command.run(["--version"]) == 0
    assert "pure HTTP parser" in capsys.readouterr().out


def test_the_configuration_is_printed_with_its_origins_and_without_an_app(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFORKD_DEBUG", "1")
    assert command.run(["--print-config", "-w", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "workers = 2  # --workers on the command line" in lines
    assert "debug = true  # PREFORKD_DEBUG in the environment" in lines
    assert command.run(["--print-config", "-w", "x"]) == 2


# As a process


def preforkd(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "preforkd.daemon", *arguments], capture_output=True, text=True, timeout=20
    )


def test_a_taken_port_ends_the_start_with_one_line_before_any_fork() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        began = time.monotonic()
        done = preforkd("hello.py:Handler", "--bind", f"127.0.0.1:{port}")
        took = time.monotonic() - began
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"preforkd: error: cannot bind 127\.0\.0\.1:{port}: the port is in use.*\n", done.stderr)
    assert took < 2, "0.15 s on an idle machine"


def test_a_daemon_can_be_started_again_at_once_on_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["hello.py:Handler", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--no-access-log"]
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-m", "preforkd.daemon", *arguments], stderr=subprocess.PIPE) as daemon:
            assert daemon.stderr
            said = daemon.stderr.readline()
            assert b"is ready" in said, said
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                while client.recv(65536):  # the server closes first: its side goes to TIME_WAIT
                    pass
            daemon.terminate()
            daemon.stderr.read()
        assert daemon.returncode == 0


def test_a_folder_that_has_been_removed_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && exec "$2" -P -m preforkd.daemon hello.py'
    done = subprocess.run(["sh", "-c", script, "sh", gone, sys.executable], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "preforkd: error: the folder that preforkd was started in has been removed\n"


def test_neither_event_loop_nor_parser_nor_app_is_imported_before_a_fork_is_due() -> None:
    code = (
        "import sys, preforkd.daemon.command; "
        "print(sorted({'asyncio', 'uvloop', 'httptools', 'multidict', 'ssl', 'concurrent.futures'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
