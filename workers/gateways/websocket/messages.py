"""The messages between a WebSocket and its app (ASGI WebSocket message format): what they say, how they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preforkd.workers.gateways.asgi.errors import AsgiProtocolError

if TYPE_CHECKING:
    from websockets.frames import Close

    from preforkd.workers.gateways.asgi.scope import Message


def payload_of(message: Message) -> tuple[bytes, bool]:
    """Return the payload of a `websocket.send`, and whether it is text.

    Raises:
        AsgiProtocolError: it has neither text nor bytes, or both.
        TypeError: they are not what they are called.
    """
    text, data = message.get("text"), message.get("bytes")
    if (text is None) == (data is None):
        raise AsgiProtocolError("websocket.send needs either text or bytes")
    if text is not None:
        if not isinstance(text, str):
            raise TypeError(f"the text of websocket.send must be a str, not {type(text).__name__}")
        return text.encode(), True
    if not isinstance(data, bytes | bytearray | memoryview):  # an integer, say, of which bytes() makes so many zeros
        raise TypeError(f"the bytes of websocket.send must be bytes, not {type(data).__name__}")
    return bytes(data), False


def close_of(message: Message) -> tuple[int, str]:
    """Return code and reason of a `websocket.close`; without them 1000 (normal closure) and nothing.

    Raises:
        TypeError: they are no integer and no string.
    """
    code, reason = message.get("code") or 1000, message.get("reason") or ""
    if not isinstance(code, int) or not isinstance(reason, str):
        raise TypeError(f"websocket.close has an int and a str as code and reason, not {code!r} and {reason!r}")
    return code, reason


def received(data: bytes | bytearray | memoryview, is_text: bool) -> Message:
    """Return the `websocket.receive` of a whole message of the client, with no key but that of its kind.

    The specification allows the other one with None, and apps ask `"bytes" in message` all the same.

    Raises:
        UnicodeDecodeError: it is text, but not UTF-8.
    """
    if is_text:
        return {"type": "websocket.receive", "text": str(data, "utf-8")}
    return {"type": "websocket.receive", "bytes": bytes(data)}


def size_of(message: Message) -> int:
    """Return how long the content of a `websocket.receive` is: bytes, or characters."""
    return len(message["text"] if "text" in message else message["bytes"])


def disconnected(close: Close) -> Message:
    """Return the `websocket.disconnect` that tells the app of the end."""
    return {"type": "websocket.disconnect", "code": int(close.code), "reason": close.reason}
