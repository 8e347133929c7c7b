"""An app that fails while it is imported."""

from preforkd.workers import ServerHttpProtocol


class Site(ServerHttpProtocol):
    """Never reached."""


raise RuntimeError("broken on purpose")
