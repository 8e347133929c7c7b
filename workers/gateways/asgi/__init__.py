"""ASGI 3 apps: HTTP and lifespan; what is asked of a WebSocket is in `websocket/`."""

from preforkd.workers.gateways.asgi.gateway import AsgiGateway, AsgiOptions

__all__ = ["AsgiGateway", "AsgiOptions"]
