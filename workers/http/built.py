"""Whether the compiled form of the parser is there; for those who must not load it, as the master."""

from __future__ import annotations

from importlib.util import find_spec


def parser_is_built() -> bool:
    """Whether `_parsing.c` was compiled for this interpreter."""
    return find_spec("preforkd.workers.http._parsing") is not None
