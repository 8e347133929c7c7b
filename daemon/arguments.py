"""The command line as it usually is; any other one is left to click.

To import click and to tell it of some two hundred options is a seventh of the time from a start to the first answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from preforkd.daemon.options import DECLARATIONS
from preforkd.daemon.values import Choice, Flag, StreamChoice

_DECLARED = [one for one in DECLARATIONS if one.name != "app" and not isinstance(one.kind, StreamChoice)]
_SWITCHES = {
    "--check": ("check", True),
    "--print-config": ("print_config", True),
    "--version": ("version", True),
    **{one.flag: (one.name, True) for one in _DECLARED if isinstance(one.kind, Flag)},
    **{one.negative: (one.name, False) for one in _DECLARED if isinstance(one.kind, Flag)},
}
_VALUED = {
    "-c": "config",
    "--config": "config",
    **{flag: one.name for one in _DECLARED if not isinstance(one.kind, Flag) for flag in (one.flag, one.short) if flag},
}
_REPEATABLE = frozenset(one.name for one in _DECLARED if one.repeatable)
_WORDS = {one.name: one.kind.words for one in _DECLARED if isinstance(one.kind, Choice)}


def usual(arguments: Sequence[str]) -> dict[str, object] | None:
    """Return the options that a command line gives, by name, as click does (`preforkd.daemon.command_line`).

    Args:
        arguments: without the program's name.

    Returns:
        None when they are not spelled out one by one, or not all ours: then click is to say what they mean, or what is
        wrong with them.
    """
    given: dict[str, object] = {}
    repeated: dict[str, list[str]] = {}
    rest = iter(arguments)
    for argument in rest:
        flag, joined, value = argument.partition("=")
        if argument in _SWITCHES:
            name, on = _SWITCHES[argument]
            given[name] = on
        elif flag in _VALUED and (not joined or flag.startswith("--")):
            name = _VALUED[flag]
            value = value if joined else next(rest, "-")
            if (value.startswith("-") and not joined) or (name in _WORDS and value not in _WORDS[name]):
                return None  # other servers have other words
            if name in _REPEATABLE:
                repeated.setdefault(name, []).append(value)
            else:
                given[name] = value
        elif not argument.startswith("-") and "app" not in given:
            given["app"] = argument
        else:
            return None
    return given | {name: tuple(values) for name, values in repeated.items()}
