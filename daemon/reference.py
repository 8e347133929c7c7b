"""The options for people, generated: `deploy/preforkd.toml` and the page `deploy/docs/options.md`.

python -m preforkd.daemon.reference toml > deploy/preforkd.toml
python -m preforkd.daemon.reference markdown > deploy/docs/options.md
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby

from preforkd.daemon.options import DECLARATIONS, Declaration
from preforkd.daemon.reasons import REASONS
from preforkd.daemon.values import Choice

WIDTH = 120
_TOML_APP = "deploy/examples/hello.py:HttpRequestHandler"
_TOML_HEAD = """\
# preforkd's configuration, every option of it: `preforkd --config preforkd.toml`, or ./preforkd.toml without asking.
#
# A line that is commented out shows the default. What is given on the command line (--drain-delay 10) or in the
# environment (PREFORKD_DRAIN_DELAY=10) wins over this file. `preforkd --print-config` shows every value and where it
# came from; `preforkd --check` tries it out. `kill -HUP` reads the file again, and the code of the app, without losing
# a request.
#
# Times are seconds, or text with a unit: 0.5, 30, "500ms", "2m", "1h". Sizes are bytes, or text: 8190, "64k", "10M".
#
# Generated: python -m preforkd.daemon.reference toml > deploy/preforkd.toml
"""
_MARKDOWN_HEAD = """\
# Options

<!-- Generated: python -m preforkd.daemon.reference markdown > deploy/docs/options.md -->

Each can be given on the command line, in the environment and in TOML (`./preforkd.toml`, or the file that `--config`
or `PREFORKD_CONFIG` names), and counts in that order. The option `--keep-alive` is `PREFORKD_KEEP_ALIVE` in the
environment and `keep_alive` in TOML. Times are seconds, or text with a unit: `500ms`, `2m`, `1h`; sizes are bytes, or
`64k`, `10M`, `1G`. `preforkd APP --print-config` prints the values in force and where each comes from;
[preforkd.toml](../preforkd.toml) is this page as a file to copy.
"""


def sections() -> Iterator[tuple[str, list[Declaration]]]:
    """The headings and their options, in the order of the declarations."""
    for heading, group in groupby(DECLARATIONS, key=lambda one: one.section):
        yield heading, list(group)


def as_toml() -> str:
    """An example configuration that shows every option with its default."""
    lines = [_TOML_HEAD]
    for heading, group in sections():
        lines += [f"# ---- {heading} ".ljust(WIDTH, "-"), ""]
        for one in group:
            lines += [*_comment(one), _example(one), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _comment(one: Declaration) -> list[str]:
    what = " ".join(part for part in (one.help, _choices(one)) if part)
    return [line for words in (what, REASONS[one.name]) for line in _wrapped(words)]


def _wrapped(words: str) -> list[str]:
    return textwrap.wrap(
        words, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _choices(one: Declaration) -> str:
    if not isinstance(one.kind, Choice):
        return ""
    *first, last = [f'"{word}"' for word in one.kind.words]
    return f"{', '.join(first)} or {last}."


def _example(one: Declaration) -> str:
    if one.name == "app":
        return f'app = "{_TOML_APP}"'
    return f"# {one.name} = {one.kind.write(one.default)}"


def as_markdown() -> str:
    """The page: a table for each heading."""
    lines = [_MARKDOWN_HEAD]
    for heading, group in sections():
        lines += [f"## {heading}", "", "| option | default | what | why, and what else |", "|---|---|---|---|"]
        lines += [_row(one) for one in group]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _row(one: Declaration) -> str:
    names = [
        f"`{one.flag}`",
        *([f"`{one.short}`"] if one.short else []),
        *([f"`{one.negative}`"] if one.negative else []),
    ]
    value = "" if one.negative or one.name == "app" else f" `{one.kind.metavar}`"
    default = f"`{one.default_text}`" if one.default_text not in ("", '""') else ""
    if one.generic:
        default += f"; `${one.generic}`" if default else f"`${one.generic}`"
    cells = (", ".join(names) + value, default, one.help, REASONS[one.name])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write({"toml": as_toml, "markdown": as_markdown}[sys.argv[1]]())
