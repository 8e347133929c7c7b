"""An app that takes longer to import than any test waits."""

import time

from preforkd.workers import ServerHttpProtocol


class Site(ServerHttpProtocol):
    """Never reached."""


time.sleep(60)
