"""Error pages: what they say, and what is logged of them."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from preforkd.workers import HttpProcessingError, Response, ServerHttpProtocol
from preforkd.workers.http.response import Response as ResponseClass
from tests.workers.http.wire import GET, Echo, Talk, parse_replies, talk


def calling(status: Any, exc: Exception | None = None, headers: Any = None) -> Talk:
    """Have a handler call `handle_error()`, perhaps while it handles an exception."""

    class Handler(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.keep_alive(True)
            if exc is None:
                await self.handle_error(status, message, payload, headers=headers)
                return
            try:
                raise exc
            except type(exc):
                await self.handle_error(status, message, payload, headers=headers)

    return talk(GET, GET, handler=Handler)


def test_an_error_500_of_a_handlers_own_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert calling(500).statuses == [500]
    assert [record.getMessage() for record in caplog.records] == [
        "Error handling request <RequestMessage GET / HTTP/1.1>"
    ]
    assert not caplog.records[0].exc_info


def test_an_error_500_is_logged_with_what_the_handler_handles(caplog: pytest.LogCaptureFixture) -> None:
    assert calling(500, exc=ValueError("handled")).statuses == [500]
    assert "ValueError: handled" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("status", [404, 503])
def test_other_errors_are_not_logged(status: int, caplog: pytest.LogCaptureFixture) -> None:
    assert calling(status, exc=ValueError("handled")).statuses == [status]
    assert caplog.text == ""


def test_a_handler_that_answers_nothing_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            pass

    assert talk(GET, handler=Silent).statuses == [500]
    assert len(caplog.records) == 1
    assert "the handler has not answered" in caplog.text


class Old(int, enum.Enum):
    GONE = 410


@pytest.mark.parametrize(
    ("status", "sent"),
    [(100, 500), (101, 500), (199, 500), (0, 500), (1000, 500), ("404", 500), (None, 500), (Old.GONE, 410)],
)
def test_a_status_that_is_not_final_is_answered_as_500(status: Any, sent: int) -> None:
    result = calling(status)
    assert result.statuses == [sent]
    assert f"<h1>{sent} ".encode() in result.output
    assert result.ended


HEADERS = {
    "content-type": "application/json",
    "Content-Length": "3",
    "transfer-encoding": "chunked",
    "Retry-After": 5,
    "X-A": "b",
}


@pytest.mark.parametrize("headers", [HEADERS, list(HEADERS.items())], ids=["mapping", "pairs"])
@pytest.mark.parametrize("how", ["raised", "called"])
def test_the_headers_of_an_error(headers: Any, how: str) -> None:
    class Raising(ServerHttpProtocol):
        async def handle_request(self, message: Any, payload: Any) -> None:
            raise HttpProcessingError(429, headers=headers)

    result = talk(GET, GET, handler=Raising) if how == "raised" else calling(429, headers=headers)
    reply = result.replies[0]
    assert reply.status == 429
    assert reply.headers.getall("Content-Type") == ["application/json"]
    assert reply.headers.getall("Content-Length") == [str(len(reply.body))]
    assert "Transfer-Encoding" not in reply.headers
    assert reply.headers["Retry-After"] == "5"
    assert reply.headers["X-A"] == "b"
    assert reply.body.startswith(b"<html>")


def test_a_second_compression_filter_is_refused() -> None:
    class Twice(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            response = Response(self.writer, 200)
            response.add_compression_filter("gzip")
            for encoding in ("gzip", "deflate"):
                with pytest.raises(ValueError, match="already"):
                    response.add_compression_filter(encoding)
            response.add_chunking_filter(7)
            response.send_headers()
            await response.write_eof()

    assert issubclass(ResponseClass, Response)
    assert talk(GET, handler=Twice).replies[0].headers.getall("Content-Encoding") == ["gzip"]


def test_debug_shows_no_traceback_of_the_clients_own_bad_request() -> None:
    bad = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ]
    for data in bad:
        result = talk(data, debug=True)
        reply = parse_replies(result.output)[0]
        assert reply.status == 400
        assert b"Traceback" not in reply.body
        assert b".py" not in reply.body
