"""Whose fault it is: the user's own line is named first, a library's only beside it."""

from __future__ import annotations

import json
import os
import site
import sys
from pathlib import Path

import pytest

from preforkd.workers.blame import blame, installed, ran, short


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (json.__file__, True),
        (str(Path(os.__file__).parent), True),
        (f"{site.getsitepackages()[0]}/flask/app.py", True),
        ("<string>", True),
        ("/srv/shop/app.py", False),
        pytest.param(f"{sys.prefix}/src/app/app.py", False, id="an image may have its app in /usr/src/app"),
        pytest.param(f"{site.getsitepackages()[0]}-more/app.py", False, id="another folder whose name begins alike"),
    ],
)
def test_what_is_installed_is_known_from_what_is_the_users(path: str, known: bool) -> None:
    assert installed(path) is known


def raised(code: str, filename: str) -> Exception:
    try:
        exec(compile(code, filename, "exec"))  # noqa: S102 - the code of the test, under a file name of its choice
    except Exception as exc:  # noqa: BLE001 - whatever the test raises
        return exc
    raise AssertionError("nothing was raised")


def test_the_users_line_comes_first_and_the_librarys_beside_it() -> None:
    error = blame("doing it", raised("\nimport json\njson.loads('x')", "/srv/shop/app.py"))
    assert str(error).startswith("doing it: /srv/shop/app.py:3: JSONDecodeError: Expecting value")
    assert f"(raised in {Path(json.__file__).parent}/" in str(error)
    assert 'File "/srv/shop/app.py", line 3' in error.details


def test_an_error_of_a_library_alone_is_named_by_its_own_line() -> None:
    library = f"{site.getsitepackages()[0]}/lib.py"
    frames_of_the_library_alone = raised("1 / 0", library)
    frames_of_the_library_alone.__traceback__ = frames_of_the_library_alone.__traceback__.tb_next  # type: ignore[union-attr]  # it was raised, so it has one
    assert str(blame("doing it", frames_of_the_library_alone)) == (
        f"doing it: {short(library)}:1: ZeroDivisionError: division by zero"
    )


def test_an_exception_that_was_never_raised_has_run_nothing() -> None:
    assert not ran(ValueError("x"))
    assert str(blame("doing it", ValueError("x"))) == "doing it: ValueError: x"


def test_paths_are_written_as_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "a/b.py") == "a/b.py"
    assert short("/srv/a.py") == "/srv/a.py"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert short(tmp_path / "a/b.py") == f"{tmp_path}/a/b.py"
