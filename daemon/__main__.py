"""`python -m preforkd.daemon`: the same as the command `preforkd`."""

import sys

from preforkd.daemon.cli import main

sys.exit(main())
