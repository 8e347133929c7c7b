"""What somebody types who comes from another server: taken for an option of ours, left out, or answered. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

from preforkd.daemon.equivalents import EQUIVALENTS, INTERFACES, WORKER_CLASSES, Left, left, taken
from preforkd.daemon.options import BY_NAME, DECLARATIONS
from preforkd.workers.records import dataclass

_PREFIX: Final = "foreign_"
_WORKER_CLASS: Final = ("-k", "--worker-class")
_HOST_AND_PORT: Final = ("--host", "--port")
_OURS: Final = frozenset(flag for one in DECLARATIONS for flag in (one.flag, one.short, one.negative) if flag)
_TAKEN: Final = {flag: one for flag, one in taken() if flag not in _OURS}
_LEFT: Final = {flag: one for flag, one in left() if flag not in _OURS}
_FLAGS: Final = {
    _PREFIX + flag.lstrip("-").replace("-", "_"): flag
    for flag in (*_TAKEN, *_LEFT, *_HOST_AND_PORT, *_WORKER_CLASS)
    if flag not in _OURS
}
"""By the name of the parameter."""
KNOWN: Final = frozenset([*_FLAGS.values(), *(flag for one in EQUIVALENTS for flag in one.flags("gunicorn"))])
"""Flags that `meaning()` has something to say of."""
_OUR_SHORT: Final = {one.short: one.name for one in DECLARATIONS if one.short}


@dataclass(frozen=True, slots=True)
class Given:
    """A foreign option with its value is this one of ours."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """It means nothing here."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be taken."""

    instead: str


Meaning = Given | Ignored | Refused


def options() -> Iterator[click.Option]:
    """Yield the foreign options for the command line; no help shows them."""
    for name, flag in _FLAGS.items():
        is_flag = _is_flag(flag)
        yield click.Option([name, flag], is_flag=is_flag, multiple=not is_flag, hidden=True)


def _is_flag(flag: str) -> bool:
    one = _TAKEN.get(flag) or _LEFT.get(flag)
    return one is not None and one.is_flag


def meaning(flag: str, value: str = "") -> Meaning:
    """Return what an option of another server means here.

    Args:
        flag: as it is typed there.
        value: empty for one without.
    """
    if flag in _WORKER_CLASS:
        return _worker_class(value)
    if flag in _LEFT:
        return _left(_LEFT[flag], value)
    if flag in _TAKEN:
        one = _TAKEN[flag]
        found = Given(one.ours, one.form.format(value), one.note)
    else:
        found = Given(_OUR_SHORT.get(flag, flag.lstrip("-").replace("-", "_")), value)
    return found if found.name in BY_NAME else Refused("preforkd has nothing like it")


def _left(one: Left, value: str) -> Meaning:
    return Refused(one.text) if one.refused and value not in one.harmless else Ignored(one.text)


def _worker_class(value: str) -> Meaning:
    interface = WORKER_CLASSES.get(value)
    if interface is not None:
        return Given("interface", interface)
    return Refused(
        f"preforkd has its own workers, and none of {value or 'that class'}: leave it out; an ASGI app waits for many "
        "things at a time by itself, of a WSGI app --threads N calls do"
    )


def translate(cli: Mapping[str, object]) -> tuple[dict[str, object], list[str], list[str]]:
    """Put foreign options of a command line into ours.

    Args:
        cli: by the names of the parameters, the foreign ones included.

    Returns:
        The values by the names of our options; what to tell the user of those that were taken or left out; and what is
        wrong, a line each.
    """
    values = {name: value for name, value in cli.items() if name not in _FLAGS}
    notes: list[str] = []
    errors: list[str] = []
    _translate_interface(values, notes)
    typed = {_FLAGS[name]: value for name, value in cli.items() if name in _FLAGS}
    _translate_address(typed, values, notes)
    for flag, given in typed.items():
        for value in given if isinstance(given, Sequence) else ("",):
            _add(flag, str(value), values, notes, errors)
    return values, notes, errors


def _add(flag: str, value: str, values: dict[str, object], notes: list[str], errors: list[str]) -> None:
    typed = f"{flag} {value}".rstrip()
    match meaning(flag, value):
        case Given(name, ours, note):
            option = BY_NAME[name]
            if option.repeatable:
                values[name] = (*_several(values.get(name)), ours)
            elif values.setdefault(name, ours) != ours:
                errors.append(f"{flag} is {option.flag} here, which is given as well: leave one of them out")
                return
            notes.append(f"{typed} is taken as {option.flag} {ours}" + (f": {note}" if note else ""))
        case Ignored(why):
            notes.append(f"{typed} is left out: {why}")
        case Refused(instead):
            errors.append(f"{flag}: {instead}")


def _several(value: object) -> Sequence[object]:
    return value if isinstance(value, tuple | list) else ()


def _translate_interface(values: dict[str, object], notes: list[str]) -> None:
    named = values.get("interface")
    if isinstance(named, str) and named in INTERFACES:
        values["interface"] = INTERFACES[named]
        notes.append(f"--interface {named} is taken as --interface {INTERFACES[named]}")


def _translate_address(typed: dict[str, object], values: dict[str, object], notes: list[str]) -> None:
    """Make one address of --host and --port, as uvicorn and granian have them."""
    given = {flag: str(_several(typed.pop(flag))[-1]) for flag in _HOST_AND_PORT if flag in typed}
    if not given:
        return
    host = given.get("--host", "127.0.0.1")
    address = f"{f'[{host}]' if ':' in host else host}:{given.get('--port', '8000')}"
    values["bind"] = (*_several(values.get("bind")), address)
    notes.append(f"{' '.join(f'{flag} {value}' for flag, value in given.items())} is taken as --bind {address}")
