"""The compiled forms of the parser (`_parsing.c`), and of usual requests (`_exchange*.c`), where they were built.

The code in Python is the reference and runs without. An operator chooses with `--parser`; without the daemon the
compiled forms run if they are there.

Attributes:
    usual_head: of `_parsing`: takes bytes that begin with a head, and the limits for the number of fields, for the size
        of a body and for that of the head; returns None for a head that is for the reference. None: the pure form runs.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from preforkd.workers.http import fields
from preforkd.workers.http.clock import clock
from preforkd.workers.http.done import DONE
from preforkd.workers.http.message import HttpVersion11, RequestMessage
from preforkd.workers.http.names import FORWARDING, MEANT, METHODS, PLAIN, REQUEST_IDS
from preforkd.workers.http.states import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T", bound=type)

try:
    from preforkd.workers.http import _exchange as built_exchange
    from preforkd.workers.http import _parsing as built_parsing
except ImportError as exc:  # there was no compiler, or they were built for another interpreter
    _parsing: ModuleType | None = None
    MISSING = str(exc)
else:
    built_parsing.setup(RequestMessage, HttpVersion11, MEANT, FORWARDING, REQUEST_IDS, PLAIN, METHODS)
    built_exchange.setup(clock, fields.PLAIN_LINES, HttpVersion11, DONE, ConnectionState.ACTIVE, vars(fields))
    built_exchange.learn(RequestMessage)
    _parsing = built_parsing
    MISSING = ""

try:
    from preforkd.workers.http import _logged
except ImportError:  # as above
    _logged = None  # type: ignore[assignment]  # of the module, where there is one

usual_head: Callable[[bytes, int, int, int], RequestMessage | None] | None = None

# Of each class with methods in both forms: by their names, those of Python and those of C.
_methods: list[tuple[type, dict[str, Any], dict[str, Any]]] = []


def choose(form: str) -> None:
    """Have the connections that are made from now on served in this form.

    Args:
        form: "pure", "compiled", or "auto": compiled where it was built.

    Raises:
        ValueError: the compiled form is not there, or the form is none of these.
    """
    global usual_head
    if form not in ("auto", "compiled", "pure"):
        raise ValueError(f"the parser is auto, compiled or pure, not {form!r}")
    if form == "compiled" and _parsing is None:
        raise ValueError(f"the compiled parser was not built: {MISSING}; install preforkd where there is a C compiler")
    usual_head = None if form == "pure" or _parsing is None else _parsing.parse_head
    for cls, pure, compiled in _methods:
        _have_methods(cls, pure if usual_head is None else compiled)


def log_parts() -> Callable[..., Callable[[RequestMessage | None], tuple[str, ...]]] | None:
    """Return what makes what makes parts of lines of the access log; None where the pure form runs."""
    return _logged.Parts if _logged is not None and usual_head is not None else None


def form() -> str:
    """Return which form runs: "compiled" or "pure"."""
    return "pure" if usual_head is None else "compiled"


def setup_flow(*needed: Any) -> None:
    """Have the way of a request be gone in C, too, where that was built; see `setup_flow()` there."""
    if _parsing is not None:
        built_exchange.setup_flow(*needed)


def in_both_forms(cls: T) -> T:
    """A class whose slots `_exchange*.c` read and write, and some of whose methods may be there too."""
    if _parsing is not None:
        compiled = built_exchange.learn(cls)
        _methods.append((cls, {name: vars(cls)[name] for name in compiled}, compiled))
        if usual_head is not None:
            _have_methods(cls, compiled)
    return cls


def _have_methods(cls: type, methods: dict[str, Any]) -> None:
    for name, method in methods.items():
        setattr(cls, name, method)


choose("auto")
