"""The options for people are what the code says: generated, and compared with what the real command prints."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from preforkd.daemon.options import BY_NAME, DECLARATIONS
from preforkd.daemon.reasons import REASONS
from preforkd.daemon.reference import as_markdown, as_toml

ROOT = Path(__file__).parents[2]
FILES = {"toml": ROOT / "deploy" / "preforkd.toml", "markdown": ROOT / "deploy" / "docs" / "options.md"}


def test_the_files_are_what_the_code_says() -> None:
    for form, made in (("toml", as_toml()), ("markdown", as_markdown())):
        command = f"python -m preforkd.daemon.reference {form} > {FILES[form].relative_to(ROOT)}"
        assert FILES[form].read_text() == made, f"it has changed: {command}"


def test_each_option_has_a_reason_or_is_known_to_need_none() -> None:
    assert set(REASONS) == set(BY_NAME), "write the reason into daemon/reasons.py"


def test_what_the_command_prints_without_any_source_is_what_the_example_shows(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "preforkd.daemon", "--print-config"]
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    printed = tomllib.loads(done.stdout)
    shown = [line.removeprefix("# ") for line in as_toml().splitlines() if line.split(" = ")[0].lstrip("# ") in BY_NAME]
    assert tomllib.loads("\n".join(line for line in shown if not line.startswith("app = "))) == printed


def test_the_page_says_each_option_in_every_way_it_can_be_written() -> None:
    text = as_markdown()
    for one in DECLARATIONS:
        for name in filter(None, (one.flag, one.short, one.negative)):
            assert f"`{name}`" in text
