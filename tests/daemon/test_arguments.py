"""A usual command line means what click says that it means, and any other is left to click."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preforkd.daemon import command_line
from preforkd.daemon.arguments import usual
from preforkd.daemon.config import ConfigError
from preforkd.daemon.options import DECLARATIONS
from preforkd.daemon.values import Choice, StreamChoice

FLAGS = [flag for one in DECLARATIONS for flag in (one.flag, one.short, one.negative) if flag and flag != "APP"]
WORDS = [
    "",
    "x",
    "app:app",
    "a=b",
    "4",
    "-1",
    "-",
    "--",
    "-w4",
    "-w",
    "-w=4",
    "asgi",
    "asgi3",
    "migrate",
    "-xyz",
    "--help",
]
FOREIGN = ["--host", "--port", "-k", "--workers-class", "--reuse-port", "--access-logfile"]
OURS = ["-c", "--config", "--check", "--print-config", "--version", "--versio", "--no-check"]
ONE = st.sampled_from([*FLAGS, *WORDS, *FOREIGN, *OURS])
JOINED = st.builds("{}={}".format, st.sampled_from([*FLAGS, *OURS]), st.sampled_from(WORDS))


def by_click(arguments: Sequence[str]) -> Mapping[str, object] | None:
    """What click makes of them; None: it has answered by itself."""
    seen: list[Mapping[str, object]] = []

    def then(cli: Mapping[str, object], notes: Sequence[str]) -> int:
        assert not notes
        seen.append(cli)
        return 0

    try:
        command_line.run(arguments, then)
    except ConfigError:
        return None
    return seen[0] if seen else None


@given(st.lists(ONE | JOINED, max_size=5))
@example(["--bind", "a", "-b", "b", "--bind=-c", "app:app", "--no-access-log", "--access-log"])
def test_it_means_what_click_says(arguments: list[str]) -> None:
    found = usual(arguments)
    assert found is None or found == by_click(arguments)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.startswith("--")])
def test_every_option_is_usual(flag: str) -> None:
    one = next(one for one in DECLARATIONS if flag in (one.flag, one.negative))
    word = one.kind.words[0] if isinstance(one.kind, Choice) else "x"
    ways: list[list[str]] = [[flag]] if one.negative else [[flag, word], [f"{flag}={word}"]]
    for way in ways:
        assert by_click(way) is not None
        # The value of this one kind may be left out: then the next argument may be the app.
        assert usual(way) == (None if isinstance(one.kind, StreamChoice) else by_click(way))


@pytest.mark.parametrize(
    "line", ["-w4 x", "x y", "--help", "-h", "--worker 4", "--workers", "-- x", "-w -1", "--interface asgi3", "-k sync"]
)
def test_what_is_unusual_is_left_to_click(line: str) -> None:
    assert usual(line.split()) is None


def test_a_usual_start_does_not_import_click() -> None:
    code = (
        "import sys; from preforkd.daemon import command; command._run = lambda cli, notes: print(cli, notes)\n"
        "command.run(['app:app', '-w', '2', '--bind=:80']); print('click' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'app': 'app:app', 'workers': '2', 'bind': (':80',)} []\nFalse\n"
