"""The opening handshake of a WebSocket (RFC 6455 section 4.2), checked by the library `websockets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from preforkd.workers.gateways.asgi.failures import error_of
from preforkd.workers.http.errors import HttpProcessingError
from preforkd.workers.http.message import HttpVersion11

if TYPE_CHECKING:
    from preforkd.workers.gateways.asgi.http_call import Gateway
    from preforkd.workers.gateways.websocket.session import WebSocket
    from preforkd.workers.http.exchange import Exchange
    from preforkd.workers.http.message import RequestMessage

_MISSING = "WebSocket needs the library websockets, which is not installed: pip install 'preforkd[websocket]'"
_told: set[str] = set()


def wants_websocket(message: RequestMessage) -> bool:
    """Whether a request with an Upgrade field asks for a WebSocket, be it with a valid handshake or not.

    Upgrades to other protocols, those of HTTP/1.0, and those that a proxy has cut off from their Connection field are
    ignored (RFC 9110 section 7.8): the request is answered as if they were not there.
    """
    return (
        message.method == "GET"
        and message.version >= HttpVersion11
        and "websocket" in _tokens(message, "Upgrade")
        and "upgrade" in _tokens(message, "Connection")
    )


def _tokens(message: RequestMessage, name: str) -> list[str]:
    return [token.strip(" \t") for value in message.headers.getall(name, []) for token in value.lower().split(",")]


async def serve_websocket(gateway: Gateway, exchange: Exchange, scope: dict[str, Any]) -> None:
    """Have the app serve a WebSocket, from its handshake to its end.

    Raises:
        HttpProcessingError: the handshake is refused, or cannot be served: 400, 426 or 501.
    """
    exchange.keep_alive = False  # whatever the answer is, the connection does not come back to HTTP
    websocket = exchange.observer = _open(gateway, exchange)
    try:
        await gateway.app(scope, websocket.receive, websocket.send)
    except BaseException as exc:
        error = error_of(exc)
        answer = websocket.app_has_failed(error)
        if answer is not None:
            raise answer  # noqa: B904 -- it has its cause already, if it has one
        if not isinstance(error, Exception):
            raise  # it is cancelled
    else:
        websocket.app_has_returned()
    finally:
        websocket.app_has_ended()


def _open(gateway: Gateway, exchange: Exchange) -> WebSocket:
    """Check the handshake.

    Raises:
        HttpProcessingError: see `serve_websocket`.
    """
    message = exchange.request
    if not message.upgrade:
        if message.headers.getall("Sec-WebSocket-Version", []) != ["13"]:
            # RFC 6455 section 4.4: says which version we speak.
            wanted = {"Sec-WebSocket-Version": "13", "Upgrade": "websocket"}
            raise HttpProcessingError(426, "WebSocket version 13 is needed", wanted)
        raise HttpProcessingError(400, "Invalid WebSocket handshake")
    try:
        from preforkd.workers.gateways.websocket.session import WebSocket
    except ImportError as exc:
        if not _told:
            _told.add(_MISSING)
            exchange.carrier.logger.error("%s (%s)", _MISSING, exc)  # noqa: TRY400 -- one line is all that there is to say
        raise HttpProcessingError(501, "WebSocket is not available here") from None
    return WebSocket(gateway, exchange)
