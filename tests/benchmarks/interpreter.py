"""Which interpreter the servers run on, and whether it was built with profile-guided optimisation (PGO)."""

from __future__ import annotations

import platform
import sys
import sysconfig
from collections.abc import Mapping

# Debian builds all interpreters of its packages with PGO, and takes the flags out of what sysconfig says afterwards.
_DISTRIBUTIONS = {"debian", "ubuntu"}
# Where flags lie that the interpreter itself was compiled with. PGO_PROF_USE_FLAG only says what the compiler could do.
_FLAGS = ("CONFIG_ARGS", "PY_CFLAGS", "PY_CFLAGS_NODIST", "PY_CORE_CFLAGS", "CFLAGS", "CONFIGURE_CFLAGS_NODIST")


def has_pgo(config: Mapping[str, object], prefix: str, distribution: str) -> bool:
    """Return whether the interpreter was built with PGO, as far as it says so.

    Args:
        config: the variables of sysconfig.
        prefix: `sys.base_prefix`.
        distribution: its name in os-release, empty when there is none.
    """
    flags = " ".join(str(config.get(name, "")) for name in _FLAGS)
    if "--enable-optimizations" in flags or "-fprofile-use" in flags or "-fprofile-instr-use" in flags:
        return True
    return prefix == "/usr" and distribution in _DISTRIBUTIONS


def distribution() -> str:
    """Return the name of the Linux distribution; empty when it does not say."""
    try:
        return platform.freedesktop_os_release()["ID"]
    except (OSError, KeyError):
        return ""


def describe() -> str:
    """Return a line on the interpreter, with a warning if it is slower than what users run."""
    name = f"{platform.python_implementation()} {platform.python_version()}"
    build = f"{name} ({sys.executable}, {platform.python_compiler()}"
    if has_pgo(sysconfig.get_config_vars(), sys.base_prefix, distribution()):
        return f"{build}, built with PGO)"
    return (
        f"{build}, built **without PGO**)\n\n**Warning**: without PGO it is slower than what users run, and "
        "servers in Python look worse beside those in C than they are. Take the interpreter of a distribution or of an "
        "official image (Debian: `apt install python3-venv`, then `/usr/bin/python3 -m venv .venv`)."
    )
