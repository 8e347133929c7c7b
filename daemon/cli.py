"""The entry of the command `preforkd`."""

import gc
import sys

from preforkd.daemon import signals, streams


def main() -> int:
    """Run the command with the arguments of the process; returns its exit code."""
    # The rest takes 0.1 s to import. As PID 1 a process ignores TERM for as long as it has no handler for it.
    signals.install_early()
    streams.open_missing()
    gc.disable()  # what a start makes stays: to look for garbage in it again and again is a tenth of its time
    if sys.argv[1:] == ["--version"]:
        from preforkd.daemon.version import version_text

        print(version_text())
        return 0
    from preforkd.daemon import command

    return command.run(sys.argv[1:])
