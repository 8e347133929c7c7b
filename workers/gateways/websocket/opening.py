"""What of an opening handshake needs the library `websockets`: its protocol, the check and the answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import PerMessageDeflate, enable_server_permessage_deflate
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from preforkd.workers import log
from preforkd.workers.gateways.asgi.errors import AsgiProtocolError
from preforkd.workers.gateways.asgi.response import AsgiResponse, pairs_of
from preforkd.workers.gateways.websocket.deflate import Deflater, Inflater
from preforkd.workers.http.errors import HttpProcessingError

if TYPE_CHECKING:
    from websockets.http11 import Response as HandshakeResponse

    from preforkd.workers.gateways.asgi.options import AsgiOptions
    from preforkd.workers.gateways.asgi.scope import Message
    from preforkd.workers.gateways.hop_by_hop import HopByHopFields
    from preforkd.workers.http.exchange import Wire
    from preforkd.workers.http.message import RequestMessage

_OURS = frozenset(
    (b"connection", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol", b"upgrade")
)
_logger = log.ServerLogger("preforkd.websocket", log.LOGGER)  # the library tells it of each connection at level INFO
_logger.setLevel(logging.WARNING)


def server_protocol(options: AsgiOptions) -> ServerProtocol:
    """Return the library's protocol for a new WebSocket (RFC 6455, RFC 7692); its handshake is still to be checked."""
    return ServerProtocol(
        extensions=enable_server_permessage_deflate(None) if options.websocket_compression else None,
        select_subprotocol=_no_subprotocol,
        state=State.OPEN,  # the handshake's bytes are read and written by the HTTP protocol
        logger=_logger,
    )


def _no_subprotocol(protocol: ServerProtocol, offered: Any) -> None:
    """The app chooses one when it accepts."""


def check(server: ServerProtocol, message: RequestMessage) -> HandshakeResponse:
    """Have the library check a handshake and negotiate the extensions; return its answer.

    Raises:
        HttpProcessingError: the handshake is not valid.
    """
    headers = Headers()
    try:
        for name, value in message.headers.items():
            if name.lower() in ("connection", "upgrade") or name.lower().startswith("sec-websocket-"):
                headers[name] = value
    except InvalidHandshake:  # a value with bytes that no such field has
        raise HttpProcessingError(400, "Invalid WebSocket handshake") from None
    answer = server.accept(Request(message.path, headers))
    if answer.status_code != 101:
        raise HttpProcessingError(answer.status_code, "Invalid WebSocket handshake")
    return answer


def compression_of(server: ServerProtocol) -> tuple[Deflater, Inflater] | None:
    """Return what compresses the messages of both sides, as was agreed upon; None: they are not compressed."""
    for extension in server.extensions:
        if isinstance(extension, PerMessageDeflate):
            deflater = Deflater(extension.local_max_window_bits, keeps_context=not extension.local_no_context_takeover)
            inflater = Inflater(
                extension.remote_max_window_bits, keeps_context=not extension.remote_no_context_takeover
            )
            server.extensions = []  # and with it 30 kB that nobody would use
            return deflater, inflater
    return None


def response_to(
    wire: Wire,
    message: RequestMessage,
    answer: HandshakeResponse,
    accept: Message,
    hop_by_hop: HopByHopFields,
) -> AsgiResponse:
    """Return the 101 response: the library's answer, and what the app has chosen.

    Args:
        wire: the way out.
        message: the handshake.
        answer: of the library.
        accept: the app's message: a subprotocol, of those that the client knows, and headers.
        hop_by_hop: what is done with headers that are the server's.

    Raises:
        AsgiProtocolError: the app has chosen what it must not.
    """
    response = AsgiResponse(wire, 101)
    for name, value in answer.headers.raw_items():
        if name != "Date":
            response.add_header(name, value)
    chosen = accept.get("subprotocol")
    if chosen is not None:
        offered = message.headers.getall("Sec-WebSocket-Protocol", [])
        if chosen not in [one.strip(" \t") for value in offered for one in value.split(",")]:
            raise AsgiProtocolError(f"the subprotocol {chosen!r} is none of those that the client has offered")
        response.add_header("Sec-WebSocket-Protocol", chosen)
    pairs = list(pairs_of(accept))
    for field, _ in pairs:
        if field.lower() in _OURS:
            raise AsgiProtocolError(f"the header {field!r} of websocket.accept is the server's to send")
    response.add_pairs(pairs, hop_by_hop)
    return response
