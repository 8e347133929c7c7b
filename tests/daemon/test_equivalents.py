"""The tables of other servers' options: they exist there, they exist here, and README shows them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from preforkd.daemon.equivalents import EQUIVALENTS, HOOKS, NO_HOOKS, SETTINGS, TAKEN, left, taken
from preforkd.daemon.options import BY_NAME
from tests.daemon.migration_table import rows

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_what_others_options_are_called_here_exists_here() -> None:
    named = {one.ours for one in (*EQUIVALENTS, *TAKEN)}
    assert named <= set(BY_NAME)
    assert len({one.ours for one in EQUIVALENTS}) == len(EQUIVALENTS)


def test_readme_has_the_table_and_no_line_that_is_not_so() -> None:
    table = rows()
    start = README.index(table[0])
    written = README[start:].split("\n\n", 1)[0].splitlines()
    assert written == table, "print it: python -m tests.daemon.migration_table"


def test_every_way_to_say_an_option_is_in_the_table() -> None:
    shown = {flag for one in EQUIVALENTS for server in ("gunicorn", "uvicorn", "granian", "hypercorn")
             for flag in one.flags(server)}  # fmt: skip
    assert {flag for flag, _ in taken()} <= shown


def test_no_flag_means_two_things() -> None:
    flags = [flag for flag, _ in (*taken(), *left())]
    assert len(flags) == len(set(flags))


def test_gunicorn_has_these_options_and_settings() -> None:
    config = pytest.importorskip("gunicorn.config")
    known = {flag for setting in config.KNOWN_SETTINGS for flag in setting.cli or ()}
    in_table = {flag for one in EQUIVALENTS for flag in one.flags("gunicorn") if flag.startswith("-")}
    assert in_table <= known
    names = {setting.name for setting in config.KNOWN_SETTINGS}
    assert {*SETTINGS, *HOOKS, *NO_HOOKS} <= names
    cli = {setting.name: setting.cli for setting in config.KNOWN_SETTINGS}
    assert all(flag in cli[name] for name, flag in SETTINGS.items())


def test_uvicorn_has_these_options() -> None:
    main = pytest.importorskip("uvicorn.main").main
    known = {flag for one in main.params for flag in (*one.opts, *one.secondary_opts)}
    assert {flag for one in EQUIVALENTS for flag in one.flags("uvicorn")} <= known


def test_granian_has_these_options() -> None:
    cli = pytest.importorskip("granian.cli").cli
    known = {flag for one in cli.params for flag in (*one.opts, *one.secondary_opts)}
    assert {flag for one in EQUIVALENTS for flag in one.flags("granian")} <= known


def test_hypercorn_has_these_options(capsys: pytest.CaptureFixture[str]) -> None:
    main = pytest.importorskip("hypercorn.__main__").main
    with pytest.raises(SystemExit):
        main(["--help"])
    words = set(capsys.readouterr().out.replace(",", " ").replace("[", " ").split())
    assert {flag for one in EQUIVALENTS for flag in one.flags("hypercorn")} <= words


@pytest.mark.skipif(shutil.which("uwsgi") is None, reason="needs uWSGI with its HTTP router and Python plugin")
def test_uwsgi_has_these_options() -> None:
    done = subprocess.run(["uwsgi", "--help"], capture_output=True, text=True, check=False)
    words = set(done.stdout.replace("|", " ").split())
    newer = {"--max-requests-delta"}  # than 2.0.21
    in_table = {flag for one in EQUIVALENTS for flag in one.flags("uwsgi") if flag.startswith("-")}
    assert in_table - newer <= words
