"""Command lines of gunicorn's and uvicorn's users."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from preforkd.daemon import command
from preforkd.daemon.foreign import translate
from preforkd.daemon.options import BY_NAME


def given(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """The values in force that the command line has given."""
    code = command.run([*arguments, "--print-config"])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    lines = [line for line in captured.out.splitlines() if line.endswith("on the command line")]
    return dict(line.partition("  #")[0].split(" = ", 1) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--host", "0.0.0.0", "--port", "8080"], {"bind": '["0.0.0.0:8080"]'}),
        (["--port=8080"], {"bind": '["127.0.0.1:8080"]'}),
        (["--host", "::"], {"bind": '["[::]:8000"]'}),
        (["--uds", "/run/x.sock"], {"bind": '["unix:/run/x.sock"]'}),
        (["--fd", "3"], {"bind": '["fd:3"]'}),
        (["-b", "a:1", "--port", "2"], {"bind": '["a:1", "127.0.0.1:2"]'}),
        (["-k", "uvicorn.workers.UvicornWorker"], {"interface": '"asgi"'}),
        (["-kgthread", "--threads", "4"], {"interface": '"wsgi"', "threads": "4"}),
        (["--worker-class=sync", "-w", "4"], {"interface": '"wsgi"', "workers": "4"}),
        (["--timeout", "120", "--graceful-timeout", "9"], {"stall_timeout": "120", "graceful_timeout": "9"}),
        (["--timeout-keep-alive", "5"], {"keep_alive": "5"}),
        (["--access-logfile", "-", "--access-logformat", "%(r)s"],
         {"access_log_file": '"-"', "access_log_format": '"%(r)s"'}),
        (["--proxy-headers", "--loop", "uvloop", "--http", "httptools", "--lifespan", "on", "--use-colors"], {}),
        (["--interface", "asgi3"], {"interface": '"asgi"'}),
        (["--no-server-header"], {"server_header": '"off"'}),
        (["--workers-max-rss", "512"], {"max_rss": str(512 << 20)}),
        (["-n", "shop", "-p", "x.pid"], {"proc_name": '"shop"', "pid": '"x.pid"'}),
    ],
)  # fmt: skip
def test_they_are_taken(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], expected: dict[str, str]) -> None:
    assert given(capsys, "shop:app", *arguments) == {"app": '"shop:app"', **expected}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-k", "gevent"], "-k: preforkd has its own workers, and none of gevent"),
        (["--daemon"], "--daemon: run it under systemd"),
        (["--env-file", ".env"], "--env-file: set the environment where the daemon is started"),
        (["--lifespan", "off"], "--lifespan: an app that raises"),
        (["--error-logfile", "/var/log/x"], "--error-logfile: the log goes to standard error"),
        (["--timeout-keep-alive", "5", "--keep-alive", "6"], "--timeout-keep-alive is --keep-alive here"),
        (["--check-config"], "--check-config: --check goes through"),
    ],
)
def test_or_answered(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str) -> None:
    assert command.run(["shop:app", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"preforkd: error: {said}")


def test_an_option_that_is_not_there_is_said_to_be_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(BY_NAME, "keep_alive")
    assert command.run(["shop:app", "--timeout-keep-alive", "5"]) == 2
    assert "--timeout-keep-alive: preforkd has nothing like it" in capsys.readouterr().err


def test_each_is_told_once_what_it_is_called_here() -> None:
    values, notes, errors = translate({"foreign_timeout": ("3",), "foreign_host": ("h",), "foreign_D": True})
    assert values == {"stall_timeout": "3", "bind": ("h:8000",)}
    assert notes[0] == "--host h is taken as --bind h:8000"
    assert notes[1].startswith("--timeout 3 is taken as --stall-timeout 3: a worker whose event loop stands still")
    assert [error.partition(":")[0] for error in errors] == ["-D"]


def test_a_note_says_what_does_the_same_here() -> None:
    assert translate({"foreign_proxy_headers": True})[1] == [
        "--proxy-headers is left out: which proxies are believed is said by --forwarded-allow-ips"
    ]


def test_no_help_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--help"]) == 0
    assert "--worker-class" not in capsys.readouterr().out
