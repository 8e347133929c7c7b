"""What an ASGI gateway acts on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preforkd.workers.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class AsgiOptions:
    """What the gateway acts on; names and units are those of the daemon's options.

    Attributes:
        root_path: where the app is mounted; a proxy in front has stripped it from the paths.
        drain_streams: when streams are told of a drain: "auto", "all" or "late"; see `streams.py`.
        limit_websocket_message: bytes of a message; 0: no limit.
        websocket_ping: seconds between two pings; 0: none.
        websocket_ping_timeout: seconds that a client gets to answer one; 0: for ever.
        websocket_compression: accept permessage-deflate.
    """

    root_path: str = ""
    drain_streams: str = "auto"
    limit_websocket_message: int = 16 * 1024 * 1024
    websocket_ping: float = 20.0
    websocket_ping_timeout: float = 20.0
    websocket_compression: bool = True

    @classmethod
    def from_settings(cls, settings: WorkerSettings) -> AsgiOptions:
        """Return those of a worker."""
        values = {name: getattr(settings, name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "root_path": settings.root_path.rstrip("/")})
