"""What apps are told of usual requests, in its compiled form (`_described.c`), where it was built.

`asgi/scope.py` and `wsgi/environ.py` run without, and have the unusual ones.
"""

from __future__ import annotations

from types import ModuleType

from preforkd.workers.http import compiled
from preforkd.workers.http.message import HttpVersion11, RequestMessage

try:
    import preforkd.workers.gateways._described as built
except ImportError:  # there was no compiler
    _described: ModuleType | None = None
else:
    built.setup(RequestMessage, HttpVersion11)
    _described = built


def compiled_form() -> ModuleType | None:
    """Return what has `scope()` and `environ()`; None where the pure form runs."""
    return _described if compiled.form() == "compiled" else None
