"""WSGI apps (PEP 3333)."""

from preforkd.workers.gateways.wsgi.gateway import WsgiGateway

__all__ = ["WsgiGateway"]
