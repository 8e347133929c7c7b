"""Gateways: how apps that are no protocol class are served."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from preforkd.workers import log
from preforkd.workers.gateways.gateway import Gateway, StartupError

if TYPE_CHECKING:
    from preforkd.workers.loader import LoadedApp
    from preforkd.workers.settings import WorkerSettings

__all__ = ["Gateway", "StartupError", "gateway_for", "import_gateway"]


def import_gateway(interface: str) -> None:
    """Import what serving an interface takes, before the workers are forked that then share it."""
    if interface in ("asgi", "wsgi"):
        import_module(f"preforkd.workers.gateways.{interface}")


def gateway_for(loaded: LoadedApp, settings: WorkerSettings) -> Gateway | None:
    """Return the gateway of an app; None for a protocol class, which needs none."""
    if loaded.interface == "asgi":
        from preforkd.workers.gateways.asgi.gateway import AsgiGateway
        from preforkd.workers.gateways.asgi.options import AsgiOptions

        return AsgiGateway(loaded.app, AsgiOptions.from_settings(settings), log.LOGGER)
    if loaded.interface == "wsgi":
        from preforkd.workers.gateways.wsgi.gateway import WsgiGateway

        return WsgiGateway.from_settings(loaded.app, settings)
    return None
