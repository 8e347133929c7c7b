"""`Response`: its contract, name by name."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import inspect
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from preforkd.workers import ClientDisconnectedError, HttpVersion10, HttpVersion11, Response, ResponseError
from tests.workers.http.wire import GET, Echo, Talk, talk

Setup = Callable[[Response], Any]

NOWHERE: Any = SimpleNamespace(exchange=None)  # a writer of no request


def answer(setup: Setup, *, data: bytes = GET, status: int = 200, reason: str | None = None, **arguments: Any) -> Talk:
    """Have a handler make a response and pass it to `setup`, which does the rest."""

    class Handler(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.seen.append((message.method, message.path, b""))
            self.keep_alive(True)
            response = Response(self.writer, status, http_version=message.version, reason=reason)
            result = setup(response)
            if inspect.isawaitable(result):
                await result

    return talk(data, handler=Handler, **arguments)


def send(response: Response, *parts: bytes) -> Any:
    response.send_headers()
    for part in parts:
        response.write(part)
    return response.write_eof()


def test_the_signature_is_the_seeds() -> None:
    parameters = inspect.signature(Response).parameters
    assert [(name, parameter.default) for name, parameter in parameters.items()][2:] == [
        ("http_version", HttpVersion11), ("close", False), ("reason", None),
    ]  # fmt: skip


def test_a_response_without_length_is_chunked_on_1_1() -> None:
    reply = answer(lambda r: send(r, b"hel", b"", b"lo")).replies[0]
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert (reply.body, reply.complete) == (b"hello", True)


def test_a_response_without_length_ends_with_the_connection_on_1_0() -> None:
    result = answer(lambda r: send(r, b"hello"), data=b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert result.output.startswith(b"HTTP/1.1 200 OK\r\n")
    assert result.replies[0].headers["Connection"] == "close"
    assert result.replies[0].body == b"hello"
    assert result.transport.closed or result.transport.half_closed


def test_an_old_http_version_of_the_handlers_choice_is_respected() -> None:
    class Old(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await send(Response(self.writer, 200, http_version=HttpVersion10), b"x")

    assert "Transfer-Encoding" not in talk(GET, handler=Old).replies[0].headers


def test_a_complete_response_is_one_write() -> None:
    def setup(response: Response) -> Any:
        response.add_header("Content-Length", "5")
        return send(response, b"he", b"llo")

    result = answer(setup, data=GET)
    assert len(result.transport.writes) == 1
    assert len(answer(lambda r: send(r, b"hello")).transport.writes) == 1


def test_what_is_written_goes_out_when_the_handler_waits() -> None:
    output_while_waiting = b""

    async def setup(response: Response) -> None:
        nonlocal output_while_waiting
        response.send_headers()
        response.write(b"first")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        connection: Any = response._writer
        output_while_waiting = bytes(connection._transport.output)
        await response.write_eof()

    answer(setup)
    assert output_while_waiting.endswith(b"5\r\nfirst\r\n")


def test_date_and_server_are_there_by_default_and_can_be_given() -> None:
    headers = answer(send).replies[0].headers
    assert headers["Server"] == "preforkd"
    assert headers["Date"].endswith(" GMT")

    def given(response: Response) -> Any:
        response.add_headers(("Server", "mine"), ("date", "Thu, 01 Jan 1970 00:00:00 GMT"))
        return send(response)

    headers = answer(given).replies[0].headers
    assert headers.getall("Server") == ["mine"]
    assert headers.getall("Date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]


def test_status_and_reason() -> None:
    assert b"HTTP/1.1 200 OK\r\n" in answer(send).output
    assert b"HTTP/1.1 200 Fine\r\n" in answer(send, reason="Fine").output
    assert b"HTTP/1.1 299 \r\n" in answer(send, status=299).output
    for status in (99, 1000, "200", 200.5):
        with pytest.raises(ValueError, match="invalid status"):
            Response(NOWHERE, status)  # type: ignore[arg-type]  # that is the test


def test_headers_can_be_read_and_changed_until_they_are_sent() -> None:
    def setup(response: Response) -> Any:
        response.add_header("X-A", "1")
        response.add_header("X-A", "2")
        response.add_header("Content-Length", "3")
        assert response.headers.getall("x-a") == ["1", "2"]
        assert response.headers["Content-Length"] == "3"
        response.headers["X-A"] = "3"
        response.headers["Content-Length"] = "5"
        response.add_header("X-B", "4")
        return send(response, b"hello")

    headers = answer(setup).replies[0].headers
    assert headers.getall("X-A") == ["3"]
    assert headers["X-B"] == "4"
    assert headers["Content-Length"] == "5"


def test_headers_changed_behind_our_back_are_checked() -> None:
    def setup(response: Response) -> Any:
        response.headers["X"] = "a\r\nSet-Cookie: b"
        return send(response)

    result = answer(setup)
    assert result.statuses == [500]
    assert b"Set-Cookie" not in result.output


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä", "a\n", "(", "a\x00", "a\r\nb"])
def test_an_invalid_name_is_refused(name: str) -> None:
    errors: list[Exception] = []

    def setup(response: Response) -> Any:
        with pytest.raises(ValueError, match="invalid header name") as caught:
            response.add_header(name, "x")
        errors.append(caught.value)
        return send(response)

    assert answer(setup).statuses == [200]
    assert errors


@pytest.mark.parametrize("value", ["a\r", "\na", "a\x00", "a\x1b", "\x7f", "\udc80"])
def test_an_invalid_value_is_refused(value: str) -> None:
    def setup(response: Response) -> Any:
        with pytest.raises(ValueError):
            response.add_header("X", value)
        with pytest.raises(ValueError):
            response.add_header("Content-Type", value)
        return send(response)

    assert answer(setup).statuses == [200]


def test_values_beyond_ascii_and_tabs_are_sent_as_utf_8() -> None:
    def setup(response: Response) -> Any:
        response.add_header("X", "ä\t→")
        return send(response)

    assert answer(setup).replies[0].headers["X"] == "ä\t→"


@pytest.mark.parametrize("pair", [(1, "x"), ("X", 1), (b"X", "x"), ("X", None)])
def test_names_and_values_are_text(pair: tuple[Any, Any]) -> None:
    def setup(response: Response) -> Any:
        with pytest.raises(TypeError):
            response.add_header(*pair)
        return send(response)

    assert answer(setup).statuses == [200]


@pytest.mark.parametrize("value", ["-1", "+1", "1_0", " 1", "1.0", "", "²"])
def test_an_invalid_content_length_is_refused(value: str) -> None:
    def setup(response: Response) -> Any:
        with pytest.raises(ValueError):
            response.add_header("Content-Length", value)
        return send(response)

    assert answer(setup).statuses == [200]


def test_a_second_different_content_length_is_refused() -> None:
    def setup(response: Response) -> Any:
        response.add_header("Content-Length", "0")
        response.add_header("Content-Length", "0")
        with pytest.raises(ValueError, match="another value"):
            response.add_header("content-length", "1")
        return send(response)

    assert answer(setup).replies[0].headers.getall("Content-Length") == ["0"]


def test_hop_by_hop_fields_are_ours() -> None:
    def setup(response: Response) -> Any:
        response.add_headers(("Keep-Alive", "timeout=1"), ("Connection", "x-foo"))
        with pytest.raises(ValueError, match="chunked"):
            response.add_header("Transfer-Encoding", "gzip")
        return send(response)

    headers = answer(setup).replies[0].headers
    assert "Keep-Alive" not in headers
    assert headers.getall("Connection") == ["keep-alive"]


@pytest.mark.parametrize("how", [lambda r: r.force_close(), lambda r: r.add_header("Connection", "Close")])
def test_a_response_can_close_the_connection(how: Setup) -> None:
    def setup(response: Response) -> Any:
        how(response)
        assert response.keep_alive() is False
        return send(response)

    result = answer(setup, data=GET * 2)
    assert [reply.headers["Connection"] for reply in result.replies] == ["close"]
    assert result.ended


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("own", [True, False])
def test_a_compression_filter_compresses_and_says_so(encoding: str, own: bool) -> None:
    lengths = []

    async def setup(response: Response) -> None:
        if own:
            response.add_header("Content-Encoding", encoding)
        response.add_header("Content-Length", "3000")
        response.add_compression_filter(encoding)
        response.send_headers()
        for _ in range(30):
            response.write(b"x" * 100)
        await response.write_eof()
        lengths.append(response.output_length)

    reply = answer(setup).replies[0]
    assert reply.headers.getall("Content-Encoding") == [encoding]
    assert "Content-Length" not in reply.headers
    unpacked = gzip.decompress(reply.body) if encoding == "gzip" else zlib.decompress(reply.body)
    assert unpacked == b"x" * 3000
    assert lengths == [len(reply.body)]


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown compression"):
        Response(NOWHERE, 200).add_compression_filter("br")


def test_a_chunking_filter_makes_parts_of_one_size() -> None:
    def setup(response: Response) -> Any:
        response.add_chunking_filter(4)
        return send(response, b"a", b"bcdef", b"gh", b"ij")

    result = answer(setup)
    assert result.output.endswith(b"4\r\nabcd\r\n4\r\nefgh\r\n2\r\nij\r\n0\r\n\r\n")
    for size in (0, -1, 1.5):
        with pytest.raises(ValueError, match="positive"):
            Response(NOWHERE, 200).add_chunking_filter(size)  # type: ignore[arg-type]  # that is the test


def test_filters_are_applied_in_the_order_they_were_added() -> None:
    def setup(response: Response) -> Any:
        response.add_compression_filter("deflate")
        response.add_chunking_filter(10)
        return send(response, bytes(range(256)) * 4)

    result = answer(setup)
    assert zlib.decompress(result.replies[0].body) == bytes(range(256)) * 4
    assert b"\r\n\r\na\r\n" in result.output


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_filters_do_no_harm_where_there_is_no_body(method: str) -> None:
    def setup(response: Response) -> Any:
        response.add_compression_filter("gzip")
        return send(response, b"hello")

    result = answer(setup, data=GET.replace(b"GET", method.encode()) + GET, status=304 if method == "GET" else 200)
    assert len(result.replies) == 2


def test_calls_out_of_order_are_errors_of_the_handler() -> None:
    async def setup(response: Response) -> None:
        with pytest.raises(ResponseError, match="after send_headers"):
            response.write(b"x")
        with pytest.raises(ResponseError, match="after send_headers"):
            response.write_eof()
        response.send_headers()
        for call in (
            response.send_headers,
            lambda: response.add_header("X", "y"),
            response.enable_chunked_encoding,
            lambda: response.add_compression_filter("gzip"),
            lambda: response.add_chunking_filter(5),
        ):
            with pytest.raises(ResponseError, match="sent"):
                call()
        with pytest.raises(TypeError):
            response.write("text")  # type: ignore[arg-type]  # that is the test
        await response.write_eof()
        await response.write_eof()
        with pytest.raises(ResponseError):
            response.write(b"late")

    result = answer(setup, data=GET * 2)
    assert result.statuses == [200, 200]


def test_a_buffer_can_be_used_again_after_write() -> None:
    def setup(response: Response) -> Any:
        response.send_headers()
        buffer = bytearray(b"first")
        response.write(buffer)  # type: ignore[arg-type]  # works with every buffer
        buffer[:] = b"other"
        response.write(memoryview(b"last"))  # type: ignore[arg-type]  # works with every buffer
        return response.write_eof()

    assert answer(setup).replies[0].body == b"firstlast"


def test_a_buffer_can_be_used_again_after_write_with_a_length() -> None:
    def setup(response: Response) -> Any:
        response.add_header("Content-Length", "9")
        response.send_headers()
        buffer = bytearray(b"first")
        response.write(buffer)  # type: ignore[arg-type]  # works with every buffer
        buffer[:] = b"other"
        response.write(memoryview(buffer)[:4])  # type: ignore[arg-type]  # works with every buffer
        buffer[:] = b"third"
        return response.write_eof()

    assert answer(setup).replies[0].body == b"firstothe"


def test_a_length_that_is_wrong_is_an_error_for_the_handler() -> None:
    async def setup(response: Response) -> None:
        response.add_header("Content-Length", "3")
        response.send_headers()
        with pytest.raises(ResponseError, match="more than the 3 bytes"):
            response.write(b"hello")

    assert answer(setup, data=GET * 2).replies[0].body == b"hel"

    async def less(response: Response) -> None:
        response.add_header("Content-Length", "9")
        response.send_headers()
        response.write(b"hello")
        with pytest.raises(ResponseError, match="4 of the 9 bytes"):
            await response.write_eof()

    result = answer(less, data=GET * 2)
    assert not result.replies[0].complete
    assert result.ended


def test_interim_responses_come_before_the_final_one() -> None:
    class Hints(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            hint = Response(self.writer, 103)
            hint.add_header("Link", "</a.css>; rel=preload")
            hint.send_headers()
            await hint.write_eof()
            await super().handle_request(message, payload)

    result = talk(GET, GET, handler=Hints)
    assert [reply.status for reply in result.replies] == [103, 200, 103, 200]
    for reply in result.replies[::2]:
        assert set(reply.headers) == {"Link"}


def test_output_length_counts_the_body_on_the_wire() -> None:
    seen = []

    async def setup(response: Response) -> None:
        await send(response, b"hello")
        seen.append(response.output_length)

    answer(setup)
    answer(setup, data=GET.replace(b"GET", b"HEAD"))
    answer(setup, status=204)

    async def with_length(response: Response) -> None:
        response.add_header("Content-Length", "5")
        await setup(response)

    answer(with_length)
    answer(with_length, data=GET.replace(b"GET", b"HEAD"))
    assert seen == [5, 0, 0, 5, 0]


def test_writing_to_a_client_that_is_gone_raises() -> None:
    async def setup(response: Response) -> None:
        response.send_headers()
        connection: Any = response._writer
        connection._transport.abort()
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        with pytest.raises(ClientDisconnectedError):
            await response.drain()
        with pytest.raises(ClientDisconnectedError):
            response.write(b"x")

    answer(setup)


def test_large_bodies_are_not_copied_together_with_the_head() -> None:
    body = b"x" * 1_000_000

    def setup(response: Response) -> Any:
        response.add_header("Content-Length", str(len(body)))
        return send(response, body)

    assert answer(setup).replies[0].body == body
