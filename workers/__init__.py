"""The process that serves: the HTTP protocol, its responses and the life of a worker.

The public names are imported when they are first used: the master imports parts of this package (the settings, the
channel) and must not load asyncio, uvloop or the parser with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preforkd.workers.http.errors import ClientDisconnectedError, HttpProcessingError, ResponseError
    from preforkd.workers.http.message import HttpVersion, HttpVersion10, HttpVersion11, RequestMessage
    from preforkd.workers.http.payload import EMPTY_PAYLOAD, PayloadStream
    from preforkd.workers.http.protocol import ServerHttpProtocol
    from preforkd.workers.http.response import Response
    from preforkd.workers.http.states import ConnectionState

__all__ = [
    "EMPTY_PAYLOAD",
    "ClientDisconnectedError",
    "ConnectionState",
    "HttpProcessingError",
    "HttpVersion",
    "HttpVersion10",
    "HttpVersion11",
    "PayloadStream",
    "RequestMessage",
    "Response",
    "ResponseError",
    "ServerHttpProtocol",
]

_MODULES = {
    "ClientDisconnectedError": "errors",
    "ConnectionState": "states",
    "EMPTY_PAYLOAD": "payload",
    "HttpProcessingError": "errors",
    "HttpVersion": "message",
    "HttpVersion10": "message",
    "HttpVersion11": "message",
    "PayloadStream": "payload",
    "RequestMessage": "message",
    "Response": "response",
    "ResponseError": "errors",
    "ServerHttpProtocol": "protocol",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"preforkd.workers.http.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
