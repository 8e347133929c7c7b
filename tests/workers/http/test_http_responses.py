"""What a response may be, whatever the handler does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from preforkd.workers import Response, ServerHttpProtocol
from tests.workers.http.wire import GET, Echo, Talk, talk

# Responses.


def respond(write: str, *, data: bytes = GET, more: Sequence[bytes] = (), **arguments: object) -> Talk:
    """Run a handler whose body is the text `write`; `r` is made by it. `data` and `more` come one after the other."""

    class Handler(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.seen.append((message.method, message.path, b""))
            self.keep_alive(True)
            lines = "\n".join(f"    {line}" for line in write.splitlines())
            scope: dict[str, object] = {"Response": Response, "w": self.writer, "m": message, "self": self}
            exec(f"async def run():\n{lines}", scope)  # noqa: S102 -- the handlers of this file, side by side with their results
            await scope["run"]()  # type: ignore[operator]  # just defined

    return talk(data, *more, handler=Handler, **arguments)  # type: ignore[arg-type]  # keyword arguments of several kinds


SIMPLE = """
r = Response(w, {status}, http_version=m.version)
{more}
r.send_headers()
r.write(b"hello")
await r.write_eof()
"""


def test_no_transfer_encoding_towards_http_1_0() -> None:
    for more in ("", "r.enable_chunked_encoding()"):
        old = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        result = respond(SIMPLE.format(status=200, more=more), data=old)
        assert "Transfer-Encoding" not in result.replies[0].headers
        assert result.replies[0].headers["Connection"] == "close"
        assert result.replies[0].body == b"hello"
        assert result.ended


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("more", ["", 'r.add_header("Content-Length", "5")', "r.enable_chunked_encoding()"])
def test_statuses_without_body_never_have_one(status: int, more: str) -> None:
    result = respond(SIMPLE.format(status=status, more=more), data=GET * 2)
    assert result.statuses == [status, status]
    for reply in result.replies:
        assert "Transfer-Encoding" not in reply.headers
        assert ("Content-Length" in reply.headers) == (status == 304 and "Content-Length" in more)


@pytest.mark.parametrize("more", ["", 'r.add_header("Content-Length", "5")', 'r.add_header("Content-Length", "7")'])
def test_a_body_written_for_head_is_dropped(more: str) -> None:
    head = GET.replace(b"GET", b"HEAD")
    result = respond(SIMPLE.format(status=200, more=more), data=head * 2)
    assert result.statuses == [200, 200]
    assert b"hello" not in result.output


def test_length_and_transfer_encoding_are_never_both_sent() -> None:
    more = 'r.add_header("Content-Length", "5")\nr.add_header("Transfer-Encoding", "chunked")'
    reply = respond(SIMPLE.format(status=200, more=more)).replies[0]
    assert ("Content-Length" in reply.headers) + ("Transfer-Encoding" in reply.headers) == 1
    assert reply.body == b"hello"


def test_a_body_is_cut_at_its_length_and_the_connection_closes() -> None:
    result = respond(SIMPLE.format(status=200, more='r.add_header("Content-Length", "3")'), data=GET * 2)
    assert [reply.body for reply in result.replies] == [b"hel"]
    assert result.ended


def test_less_than_the_length_closes_the_connection() -> None:
    result = respond(SIMPLE.format(status=200, more='r.add_header("Content-Length", "9")'), data=GET * 2)
    assert [(reply.body, reply.complete) for reply in result.replies] == [(b"hello", False)]
    assert result.ended


def test_a_handler_that_fails_in_the_middle_sends_no_last_chunk() -> None:
    failing = 'r = Response(w, 200)\nr.send_headers()\nr.write(b"hello")\nraise ValueError("x")'
    result = respond(failing, data=GET * 2)
    assert [(reply.status, reply.body, reply.complete) for reply in result.replies] == [(200, b"hello", False)]
    assert result.ended


def test_a_failure_in_a_body_that_the_close_ends_resets_the_connection() -> None:
    failing = 'r = Response(w, 200, http_version=m.version)\nr.send_headers()\nr.write(b"hello")\nraise ValueError("x")'
    assert respond(failing, data=b"GET / HTTP/1.0\r\n\r\n").transport.aborted


@pytest.mark.parametrize("bad", ["a\\rb", "a\\nb", "a\\x00b", "a\\r\\nSet-Cookie: b"])
def test_line_ends_and_nul_are_refused_before_a_byte_is_sent(bad: str) -> None:
    for line in (f'r.add_header("X", "{bad}")', f'r.add_header("{bad}", "x")', f'Response(w, 200, reason="{bad}")'):
        result = respond(f'r = Response(w, 200)\ntry:\n    {line}\nexcept ValueError:\n    raise KeyError("refused")')
        assert result.statuses == [500]
        assert b"Set-Cookie" not in result.output


def test_there_is_one_response_to_a_request() -> None:
    result = respond(SIMPLE.format(status=200, more="") + SIMPLE.format(status=201, more=""), data=GET * 2)
    assert [reply.status for reply in result.replies] == [200]
    assert result.ended


def test_errors_have_a_date() -> None:
    for data in (b"x\x00\r\n\r\n", GET):
        result = talk(data, handler=ServerHttpProtocol)
        assert "Date" in result.replies[0].headers


def test_what_is_written_after_a_drain_is_sent_in_every_request_of_a_connection() -> None:
    write = """
    r = Response(w, 200)
    r.add_header("Content-Length", "160000")
    r.send_headers()
    for part in range(16):
        r.write(b"x" * 10000)
        await r.drain()
    await r.write_eof()
    """.replace("\n    ", "\n")
    result = respond(write, data=GET, more=[GET, GET])
    assert [(reply.complete, len(reply.body)) for reply in result.replies] == [(True, 160000)] * 3


def test_no_interim_response_towards_http_1_0() -> None:
    write = "Response(w, 103).send_headers()\n" + SIMPLE.format(status=200, more="")
    assert respond(write).statuses == [103, 200]
    assert respond(write, data=GET.replace(b"1.1", b"1.0")).statuses == [200]
