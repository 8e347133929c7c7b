"""Whether the compiled forms are there; for those who must not load them, as the master."""

from __future__ import annotations

from importlib.util import find_spec


def parser_is_built() -> bool:
    """Whether `_parsing.c`, and with it `_exchange.c`, was compiled for this interpreter."""
    return all(find_spec(f"preforkd.workers.http.{name}") is not None for name in ("_parsing", "_exchange"))
