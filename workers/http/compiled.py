"""The compiled form of the parser (`_parsing.c`), where it was built; `parsing.py` is the reference and runs without.

An operator chooses with `--parser`; without the daemon the compiled form runs if it is there.

Attributes:
    usual_head: of `_parsing`: takes bytes that begin with a head, and the limits for the number of fields, for the size
        of a body and for that of the head; returns None for a head that is for the reference. None: the pure form runs.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from preforkd.workers.http.message import HttpVersion11, RequestMessage
from preforkd.workers.http.names import FORWARDING, MEANT, METHODS, PLAIN, REQUEST_IDS

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from preforkd.workers.http import _parsing as built
except ImportError as exc:  # there was no compiler, or it was built for another interpreter
    _parsing: ModuleType | None = None
    MISSING = str(exc)
else:
    built.setup(RequestMessage, HttpVersion11, MEANT, FORWARDING, REQUEST_IDS, PLAIN, METHODS)
    _parsing = built
    MISSING = ""

usual_head: Callable[[bytes, int, int, int], RequestMessage | None] | None = None


def choose(form: str) -> None:
    """Have the connections that are made from now on parsed in this form.

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


def form() -> str:
    """Return which form runs: "compiled" or "pure"."""
    return "pure" if usual_head is None else "compiled"


choose("auto")
