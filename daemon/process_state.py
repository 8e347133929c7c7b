"""What the system says of a process."""

from __future__ import annotations

from pathlib import Path


def is_frozen(pid: int) -> bool:
    """Tell whether a process has been stopped by a signal or a debugger: then it does not hang, it is held.

    Always False where there is no /proc.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # The name of the program, in parentheses, may hold anything; the state is the first letter after it.
    return text.rpartition(b")")[2].split()[0] in (b"T", b"t")
