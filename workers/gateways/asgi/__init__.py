"""ASGI 3 apps: HTTP and lifespan; what is asked of a WebSocket is in `websocket/`."""

from preforkd.workers.gateways.asgi.gateway import AsgiGateway
from preforkd.workers.gateways.asgi.options import AsgiOptions

__all__ = ["AsgiGateway", "AsgiOptions"]
