"""TLS on a connection, between a fake transport and a client in memory: record by record, and in every state."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from preforkd.workers.tls_connection import HTTP_INSTEAD, TlsConnection, TlsState
from preforkd.workers.tls_contexts import Material, Profile, make_context
from tests.certificates import Authority, needs_openssl

pytestmark = needs_openssl


class Below(asyncio.Transport):
    """The transport below: notes what is done to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.written = bytearray()
        self.writes = 0
        self.done: list[str] = []

    def write(self, data: Any) -> None:
        self.writes += 1
        self.written += data

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def write_eof(self) -> None:
        self.done.append("eof")

    def is_closing(self) -> bool:
        return "close" in self.done or "abort" in self.done

    def pause_reading(self) -> None:
        self.done.append("pause")

    def resume_reading(self) -> None:
        self.done.append("resume")

    def get_write_buffer_size(self) -> int:
        return 7


class Above(asyncio.Protocol):
    """The protocol above: notes what it is told."""

    keeps_open = False

    def __init__(self) -> None:
        self.received = bytearray()
        self.told: list[str] = []
        self.transport: Any = None
        self.each: Callable[[], object] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.each()

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class Wire:
    """A connection, and its client."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        self.below, self.above = Below(), Above()
        self.shaken: list[Exception | None] = []
        self.handshakes = 0
        self.tls = TlsConnection(server, self.above, loop, self)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.tls.connection_made(self.below)

    def begun(self, tls: TlsConnection) -> None:
        self.handshakes += 1

    def costs(self, tls: TlsConnection) -> None:
        tls.begin()

    def over(self, tls: TlsConnection, exc: Exception | None) -> None:
        self.shaken.append(exc)

    def client_does(self, step: Callable[[], Any], at_a_time: int = 1 << 20) -> Any:
        """Have the client do something, and carry the records both ways; None when it waits for more of them."""
        for _ in range(10):
            result, waits = None, False
            try:
                result = step()
            except ssl.SSLWantReadError:
                waits = True
            records = self.outgoing.read()
            for start in range(0, len(records), at_a_time):
                self.tls.data_received(records[start : start + at_a_time])
            self.incoming.write(self.below.written)
            got_some = bool(self.below.written)
            self.below.written.clear()
            if not waits or not got_some:
                return result
        return None

    def shake_hands(self, at_a_time: int = 1 << 20) -> None:
        self.client_does(self.client.do_handshake, at_a_time)
        assert self.tls.state is TlsState.OPEN

    def client_reads(self) -> bytes:
        """All that there is."""
        data = b""
        while part := self.client_does(lambda: self.client.read(65536)):
            data += part
        return data


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    certificate, key = authority.issue("server", "localhost")
    return make_context(Profile((Material(certificate.read_text(), key.read_text()),))), authority.client()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def wire(
    request: pytest.FixtureRequest,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    loop: asyncio.AbstractEventLoop,
) -> Wire:
    contexts[1].maximum_version = request.param
    return Wire(loop, *contexts)


@pytest.mark.parametrize("at_a_time", [1, 7, 1 << 20])
def test_records_are_read_however_they_are_divided(wire: Wire, at_a_time: int) -> None:
    wire.shake_hands(at_a_time)
    assert (wire.handshakes, wire.shaken, wire.above.told) == (1, [None], ["made"])
    for text in (b"x" * 50000, b"y", b"z" * 16384, b"end"):
        wire.above.received.clear()
        for start in range(0, len(text), 16384):
            wire.client_does(partial(wire.client.write, text[start : start + 16384]), at_a_time)
        assert wire.above.received == text
        assert not wire.tls.half_a_record()
        assert not wire.tls.unread()


def test_what_is_written_arrives_whatever_its_size_and_kind(wire: Wire) -> None:
    wire.shake_hands()
    wire.tls.write(b"a" * 100_000)
    wire.tls.write(bytearray(b"b"))
    wire.tls.write(memoryview(b"c"))
    wire.tls.write(b"")
    wire.tls.writelines([b"d" * 40_000, b"", memoryview(b"e")])
    assert wire.client_reads() == b"a" * 100_000 + b"bc" + b"d" * 40_000 + b"e"


def test_half_a_record_is_seen(wire: Wire) -> None:
    wire.shake_hands()
    wire.client.write(b"hello")
    record = wire.outgoing.read()
    wire.tls.data_received(record[:-1])
    assert wire.tls.half_a_record()
    assert not wire.above.received
    wire.tls.data_received(record[-1:])
    assert wire.above.received == b"hello"
    assert not wire.tls.half_a_record()


def test_a_pause_between_two_records_holds_the_second_back(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    wire.shake_hands()
    wire.above.each = wire.tls.pause_reading
    wire.client.write(b"one")
    wire.client.write(b"two")
    wire.client_does(lambda: None)
    assert wire.above.received == b"one"
    assert wire.tls.unread()
    assert not wire.tls.is_reading()
    wire.above.each = lambda: None
    wire.tls.resume_reading()
    assert wire.above.received == b"one", "not from within the call"
    loop.run_until_complete(asyncio.sleep(0))
    assert wire.above.received == b"onetwo"
    assert not wire.tls.unread()


def early_request(wire: Wire) -> None:
    """The client's part of the end of a handshake of TLS 1.3, and right behind it a request."""
    wire.client_does(lambda: None)
    with pytest.raises(ssl.SSLWantReadError):
        wire.client.do_handshake()
    wire.tls.data_received(wire.outgoing.read())
    wire.incoming.write(wire.below.written)
    wire.below.written.clear()
    wire.client.do_handshake()
    wire.client.write(b"request")
    wire.below.writes = 0
    wire.tls.data_received(wire.outgoing.read())
    assert wire.above.received == b"request"


@pytest.mark.parametrize("wire", [ssl.TLSVersion.TLSv1_3], indirect=True)
def test_the_session_ticket_goes_out_with_a_response_that_is_there(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    wire.above.each = lambda: loop.call_soon(wire.tls.write, b"response")  # as the task of a first request does
    early_request(wire)
    loop.run_until_complete(asyncio.sleep(0))
    assert wire.below.writes == 1
    assert wire.client_reads() == b"response"
    assert wire.client.session is not None
    assert wire.client.session.has_ticket


@pytest.mark.parametrize("wire", [ssl.TLSVersion.TLSv1_3], indirect=True)
def test_the_session_ticket_waits_for_no_response_longer_than_a_turn(
    wire: Wire, loop: asyncio.AbstractEventLoop
) -> None:
    early_request(wire)
    assert wire.below.writes == 0
    loop.run_until_complete(asyncio.sleep(0))
    assert wire.below.writes == 1
    assert wire.client_reads() == b""
    assert wire.client.session is not None
    assert wire.client.session.has_ticket


def test_what_is_held_back_goes_out_with_the_end(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    wire.shake_hands()
    wire.below.writes = 0
    wire.tls.hold_back()
    wire.tls.write(b"the last ")
    wire.tls.writelines([b"words"])
    assert wire.below.writes == 0
    wire.tls.close()
    loop.run_until_complete(asyncio.sleep(0))
    assert wire.below.writes == 1
    assert wire.client_reads() == b"the last words"
    assert wire.client.read(1) == b"", "a close_notify, else it would wait for more"


def test_what_is_held_back_waits_for_no_end_longer_than_a_turn(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    wire.shake_hands()
    wire.tls.hold_back()
    wire.tls.write(b"first")
    assert not wire.below.written
    loop.run_until_complete(asyncio.sleep(0))
    wire.tls.write(b"second")
    assert wire.client_reads() == b"firstsecond"


def test_what_is_held_back_is_not_sent_behind_an_abort(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    wire.shake_hands()
    wire.tls.hold_back()
    wire.tls.write(b"first")
    wire.tls.abort()
    loop.run_until_complete(asyncio.sleep(0))
    assert not wire.below.written


def test_a_client_that_has_finished_is_told_once_and_may_still_be_answered(wire: Wire) -> None:
    wire.shake_hands()
    wire.above.keeps_open = True
    with pytest.raises(ssl.SSLWantReadError):
        wire.client.unwrap()
    wire.client_does(lambda: None)
    assert wire.tls.eof_received()
    assert wire.above.told == ["made", "eof"]
    wire.tls.write(b"late")
    assert wire.client_reads() == b"late"


def test_a_client_that_has_finished_and_is_not_answered_is_left(wire: Wire) -> None:
    wire.shake_hands()
    assert not wire.tls.eof_received()
    assert wire.above.told == ["made", "eof"]
    assert wire.below.done == ["close"]


def test_one_side_is_closed_by_a_close_notify_and_below_and_the_other_is_read_on(wire: Wire) -> None:
    wire.shake_hands()
    assert wire.tls.can_write_eof()
    wire.tls.write(b"last")
    wire.tls.write_eof()
    wire.tls.write(b"never")
    assert wire.below.done == ["eof"]
    assert wire.client_reads() == b"last"
    assert wire.client.read(1) == b"", "a close_notify, else it would wait for more"
    assert not wire.tls.is_closing()
    wire.client_does(lambda: wire.client.write(b"still"))
    assert wire.above.received == b"still"
    wire.tls.close()
    assert wire.tls.is_closing()


def test_the_farewell_may_be_sent_past_the_transport(wire: Wire) -> None:
    wire.shake_hands()
    farewell = wire.tls.farewell()
    assert farewell
    assert not wire.below.written
    assert wire.tls.farewell() == b""
    wire.tls.close()
    assert not wire.below.written, "it has been said"


def test_a_close_says_so_and_closes_below(wire: Wire) -> None:
    wire.shake_hands()
    wire.tls.write(b"last")
    wire.tls.close()
    wire.tls.close()
    assert wire.below.done == ["close"]
    assert wire.client_reads() == b"last"
    wire.tls.connection_lost(None)
    wire.tls.connection_lost(None)
    assert wire.above.told == ["made", "lost"]


def test_an_abort_says_nothing(wire: Wire) -> None:
    wire.shake_hands()
    wire.tls.abort()
    assert wire.below.done == ["abort"]
    assert not wire.below.written


def test_bytes_that_are_no_record_end_the_connection_with_an_alert(wire: Wire) -> None:
    wire.shake_hands()
    wire.tls.data_received(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    assert wire.below.written
    assert wire.below.done == ["close"]
    assert not wire.above.received


def test_a_handshake_that_fails_says_why_and_reaches_no_protocol(wire: Wire) -> None:
    wire.tls.data_received(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
    assert wire.below.written.startswith(b"\x15"), "an alert"
    assert wire.below.done == ["close"]
    assert isinstance(wire.shaken[0], ssl.SSLError)
    wire.tls.connection_lost(None)
    assert wire.above.told == []
    assert len(wire.shaken) == 1


def test_plain_http_is_answered_plainly(wire: Wire) -> None:
    wire.tls.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.below.written == HTTP_INSTEAD
    assert wire.below.done == ["close"]


@pytest.mark.parametrize(
    "end",
    [TlsConnection.eof_received, lambda tls: tls.connection_lost(None), TlsConnection.abort, TlsConnection.close,
     lambda tls: tls.give_up(TimeoutError("too slow"))],
    ids=["eof", "lost", "abort", "close", "time"],
)  # fmt: skip
def test_whatever_ends_a_handshake_is_told_once(wire: Wire, end: Callable[[TlsConnection], object]) -> None:
    wire.client_does(lambda: None)
    end(wire.tls)
    wire.tls.connection_lost(None)
    assert len(wire.shaken) == 1
    assert isinstance(wire.shaken[0], OSError)
    assert wire.above.told == []


def test_a_protocol_that_does_not_want_the_connection_is_told_of_and_it_ends(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(transport: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(wire.above, "connection_made", refuse)
    wire.client_does(wire.client.do_handshake)
    assert wire.shaken[0] is None
    assert isinstance(wire.shaken[1], RuntimeError)
    assert wire.below.done == ["abort"]


def test_flow_control_and_what_is_not_sent_are_those_of_the_transport_below(wire: Wire) -> None:
    wire.tls.pause_writing()  # in the handshake nobody listens
    wire.shake_hands()
    wire.tls.pause_writing()
    wire.tls.resume_writing()
    assert wire.above.told == ["made", "pause", "resume"]
    assert wire.tls.get_write_buffer_size() == 7


def test_what_is_asked_of_the_transport(wire: Wire) -> None:
    wire.shake_hands()
    assert wire.tls.get_extra_info("peername") == ("192.0.2.1", 1)
    assert wire.tls.get_extra_info("nothing", 3) == 3
    assert wire.tls.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    assert isinstance(wire.tls.get_extra_info("sslcontext"), ssl.SSLContext)
    assert wire.tls.get_extra_info("tls_connection") is wire.tls
    assert wire.tls.get_extra_info("cipher")[1] in ("TLSv1.2", "TLSv1.3")
    assert wire.tls.get_extra_info("peercert", 3) is None
    assert wire.tls.get_extra_info("compression", 3) is None
    assert wire.tls.get_protocol() is wire.above
