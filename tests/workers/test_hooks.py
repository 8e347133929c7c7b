"""Hooks: what is taken for one, and what is done with what they raise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforkd.workers.blame import AppError
from preforkd.workers.hooks import Hooks


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", sys.path[:])
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def boot(folder: Path, source: str, name: str = "") -> Hooks:
    file = folder / "some_hooks.py"
    file.write_text(source)
    hooks = Hooks(3, 7)
    hooks.boot(f"{file}{name}", str(folder), "start")
    return hooks


def test_a_module_an_object_or_a_class_has_hooks(tmp_path: Path) -> None:
    source = "seen = []\nclass Made:\n    def boot(self, *a):\n        seen.append(a)\n    exit = boot\nmade = Made()\n"
    for name in (":Made", ":made"):
        boot(tmp_path, source, name).run("exit", "stop")
        assert sys.modules["some_hooks"].seen == [(3, 7, "start"), (3, 7, "stop")]
        del sys.modules["some_hooks"]
    boot(tmp_path, "def ready(*a):\n    pass\n").run("drain", "stop")


def test_without_a_name_there_are_none() -> None:
    hooks = Hooks(0, 1)
    hooks.boot("", ".", "start")
    hooks.run("ready", "start")


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        ("", "", "has none of boot, ready, drain, exit"),
        ("async def boot(*a):\n    pass\n", "", "is a coroutine function, not a plain function"),
        ("drain = 3\n", "", "is a int, not a plain function"),
        ("class A:\n    def __init__(self):\n        raise OSError('x')\n", ":A", "cannot be made: .*OSError: x"),
        ("", ":nope", 'has no attribute "nope"'),
        ("def boot(*a):\n    raise SystemExit('no')\n", "", r"boot\(\) of .* failed: .*no"),
    ],
)
def test_what_is_none_is_said(tmp_path: Path, source: str, name: str, said: str) -> None:
    with pytest.raises(AppError, match=f"--hooks: .*{said}"):
        boot(tmp_path, source, name)
