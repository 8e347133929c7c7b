"""What the messages of a WebSocket say."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.frames import Close, CloseCode

from preforkd.workers.gateways.asgi.errors import AsgiProtocolError
from preforkd.workers.gateways.websocket.messages import close_of, disconnected, payload_of, received


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ({"text": "é"}, ("é".encode(), True)), ({"text": "", "bytes": None}, (b"", True)),
        ({"bytes": b"\xff"}, (b"\xff", False)), ({"bytes": bytearray(b"a"), "text": None}, (b"a", False)),
        ({"bytes": memoryview(b"")}, (b"", False)),
    ],
)  # fmt: skip
def test_one_content_is_the_payload(message: dict[str, Any], payload: tuple[bytes, bool]) -> None:
    assert payload_of({"type": "websocket.send", **message}) == payload
    assert type(payload_of(message)[0]) is bytes


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({}, AsgiProtocolError), ({"text": None, "bytes": None}, AsgiProtocolError),
        ({"text": "", "bytes": b""}, AsgiProtocolError), ({"text": b"x"}, TypeError), ({"bytes": "x"}, TypeError),
        ({"bytes": 5}, TypeError),
    ],
)  # fmt: skip
def test_no_content_two_and_a_wrong_one_are_refused(message: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"websocket\.send"):
        payload_of(message)


@pytest.mark.parametrize(
    ("message", "close"),
    [({}, (1000, "")), ({"code": None, "reason": None}, (1000, "")), ({"code": 4000, "reason": "x"}, (4000, "x"))],
)
def test_a_close_is_normal_unless_it_says_otherwise(message: dict[str, Any], close: tuple[int, str]) -> None:
    assert close_of(message) == close


@pytest.mark.parametrize("message", [{"code": "1000"}, {"reason": b"x"}, {"code": 1000.0}])
def test_a_close_with_a_wrong_type_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"websocket\.close"):
        close_of(message)


def test_what_the_app_receives_has_the_key_of_its_kind_alone_and_plain_types() -> None:
    assert received(bytearray(b"a"), True) == {"type": "websocket.receive", "text": "a"}
    message = received(bytearray(b"\xff"), False)
    assert message == {"type": "websocket.receive", "bytes": b"\xff"}
    assert type(message["bytes"]) is bytes
    with pytest.raises(UnicodeDecodeError):
        received(b"\xff", True)
    end = disconnected(Close(CloseCode.GOING_AWAY, "bye"))
    assert end == {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}
    assert type(end["code"]) is int
