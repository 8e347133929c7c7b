"""The entry of the command `preforkctl`."""

import os
import sys

from preforkd.daemon import health


def main() -> int:
    """Run the command with the arguments of the process; returns its exit code."""
    # What a health check asks every few seconds is answered before anything is imported that it does not need.
    asked = health.read(sys.argv[1:], os.environ)
    if asked is not None:
        return health.run(asked)
    from preforkd.daemon import ctl_command

    return ctl_command.run(sys.argv[1:], os.environ)
