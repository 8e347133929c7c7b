"""Figures as a table in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Costs = list[float] | str  # those of the rounds, or why there are none


def cell(costs: Costs | None, *, spread: bool) -> str:
    """Return the median, with the least and the greatest figure if `spread`; a hyphen when it was not measured."""
    if costs is None:
        return "-"
    if isinstance(costs, str):
        return "fails"
    median = f"{statistics.median(costs):.1f}"
    return f"{median} ({min(costs):.1f}-{max(costs):.1f})" if spread else median


def render(
    corner: str, rows: Mapping[str, Mapping[str, Costs]], columns: Mapping[str, str], *, spread: bool = False
) -> str:
    """Return the table, without the columns that no row has.

    Args:
        corner: says what the figures are.
        rows: by title, the figures by column.
        columns: titles by column, in order.
        spread: whether cells show the least and the greatest figure too.
    """
    used = [name for name in columns if any(name in costs for costs in rows.values())]
    lines = [[corner, *(columns[name] for name in used)]]
    lines += [[title, *(cell(costs.get(name), spread=spread) for name in used)] for title, costs in rows.items()]
    widths = [max(len(line[number]) for line in lines) for number in range(len(used) + 1)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(words, widths) for words in (lines[0], rule, *lines[1:]))


def _line(words: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        f" {word:{'<' if number == 0 else '>'}{width}} "
        for number, (word, width) in enumerate(zip(words, widths, strict=True))
    )
    return "|" + "|".join([first, *rest]) + "|"
