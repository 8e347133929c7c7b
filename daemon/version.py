"""`preforkd --version`, which imports nothing of the daemon: it is asked in health checks and scripts."""

from __future__ import annotations

import os
import sys

from preforkd.daemon import __version__
from preforkd.workers.http.built import parser_is_built


def version_text() -> str:
    """Return the version, and what it runs on."""
    number = ".".join(map(str, sys.version_info[:3]))
    system = os.uname()
    parser = "compiled" if parser_is_built() else "pure"
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(sys.implementation.name, sys.implementation.name)
    return f"preforkd {__version__} ({name} {number}, {system.sysname} {system.machine}, {parser} HTTP parser)"
