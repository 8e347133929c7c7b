"""The access log: what gets into it, and its writing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from preforkd.workers import HttpVersion11, RequestMessage, Response, ServerHttpProtocol
from preforkd.workers.health import Health, with_health_path
from preforkd.workers.http.access_log import AccessLog, json_line
from preforkd.workers.http.connections import connections_of
from tests.workers.http.wire import GET, Echo, converse, talk, turns


def message(path: str = "/p?q=1", *fields: tuple[bytes, bytes]) -> RequestMessage:
    return RequestMessage(
        "GET", path, HttpVersion11, [(b"host", b"a"), *((name.lower(), value) for name, value in fields)], False
    )


class FakeResponse:
    status = 201
    output_length = 42
    cut = keeps = False
    headers = CIMultiDict({"X-A": "out"})


RESPONSE: Any = FakeResponse()


@pytest.mark.parametrize("text", ["%(z)s", "%(h)d", "%h", "%", "%(h)", "%({a}x)s", "%({}i)s", "%(hh)s", "a % b"])
def test_an_unknown_atom_is_refused_at_construction(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown atom"):
        AccessLog(tmp_path / "log", text)
    with pytest.raises(ValueError, match="unknown atom"):
        Echo(access_log_format=text)
    assert not (tmp_path / "log").exists()


def test_a_client_cannot_forge_a_line(tmp_path: Path) -> None:
    log_file = tmp_path / "log"

    async def main() -> None:
        log = AccessLog(log_file)
        forged = b'GET /"%20200 HTTP/1.1\r\nHost: a\r\nUser-Agent: x" 200 0 "-" "\tevil\xe2\x80\xa8\r\n\r\n'
        await converse(Echo(access_log=log), [forged])
        await turns()
        log.close()

    asyncio.run(main())
    text = log_file.read_text()
    assert len(text.splitlines()) == 1
    assert text.count('"') - text.count('\\"') == 6  # of the format: request line, referer, agent


def test_json_lines_come_from_an_encoder() -> None:
    request = message('/p"?q=1', (b"User-Agent", b'a"b\xff'))
    record = json.loads(json_line(request, RESPONSE, None, 1.5, "h"))
    assert record["path"] == '/p"'
    assert record["query"] == "q=1"
    assert record["user_agent"] == 'a"b\\xff'  # no lone surrogate, which strict parsers refuse
    assert (record["status"], record["bytes"], record["seconds"], record["remote"]) == (201, 42, 1.5, "h")
    nothing = json.loads(json_line(None, None, None, 0.0, "h"))
    assert nothing.keys() == record.keys()
    assert (nothing["method"], nothing["status"], nothing["cut"]) == (None, 499, True)
    assert record["cut"] is False


def record_writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    writes: list[bytes] = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        writes.append(bytes(data))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    return writes


def test_lines_are_written_once_per_turn_of_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = record_writes(monkeypatch)

    async def main() -> None:
        log = AccessLog(tmp_path / "log", "%(s)s")
        for _ in range(3):
            log.log(message(), RESPONSE, None, 0, "-")
        assert writes == []
        await asyncio.sleep(0)
        assert writes == [b"201\n201\n201\n"]
        log.close()

    asyncio.run(main())
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) & 0o022 == 0


def test_lines_to_a_pipe_are_never_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = record_writes(monkeypatch)

    async def main() -> None:
        readable, writable = os.pipe()
        log = AccessLog(writable, "%(U)s")
        for _ in range(10):
            log.log(message("/" + "x" * 1000), RESPONSE, None, 0, "-")
        log.flush()
        os.close(readable)
        os.close(writable)

    asyncio.run(main())
    assert all(len(data) <= 4096 and data.endswith(b"\n") for data in writes)
    assert b"".join(writes) == (b"/" + b"x" * 1000 + b"\n") * 10


def test_it_is_reopened_on_request(tmp_path: Path) -> None:
    async def main() -> None:
        log = AccessLog(tmp_path / "log", "%(U)s")
        log.log(message("/1"), None, None, 0, "-")
        (tmp_path / "log").rename(tmp_path / "log.1")  # a line in between belongs to the old file
        log.log(message("/2"), None, None, 0, "-")
        log.reopen()
        log.log(message("/3"), None, None, 0, "-")
        await asyncio.sleep(0)
        log.close()

    asyncio.run(main())
    assert (tmp_path / "log.1").read_text() == "/1\n/2\n"
    assert (tmp_path / "log").read_text() == "/3\n"


def test_a_log_that_cannot_be_written_does_not_reach_the_client() -> None:
    async def main() -> None:
        readable, writable = os.pipe()
        os.close(readable)
        log = AccessLog(writable)
        result = await converse(Echo(access_log=log), [GET, GET])
        assert result.statuses == [200, 200]
        await turns()
        log.close()
        assert log.lost == 2
        os.close(writable)

    asyncio.run(main())


def test_a_health_path_leaves_all_other_requests_on_the_fast_way_and_is_not_logged_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerHttpProtocol, "log_access", lambda *_: pytest.fail("the slow way"))
    path = tmp_path / "access.log"
    log = AccessLog(path, "%(s)s %(U)s")
    handler = with_health_path(Echo, "/health", Health())
    health = GET.replace(b"/", b"/health", 1)
    result = talk(health, GET, health, GET, handler=handler, access_log=log)
    assert result.statuses == [200] * 4
    log.close()
    assert path.read_text() == "200 /\n200 /\n"


# log_access of the protocol.


def test_a_logger_gets_the_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logger = logging.getLogger("access")
    data = GET.replace(b"\r\n\r\n", b"\r\nReferer: r\r\nUser-Agent: a\r\n\r\n")
    talk(data, access_log=logger)
    assert re.fullmatch(r'192\.0\.2\.1 - - \[.*\] "GET / HTTP/1.1" 200 7 "r" "a"', caplog.messages[0])


def test_errors_are_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    talk(b"GET / HTTP/7.0\r\n\r\n", access_log=logging.getLogger("access"), access_log_format="%(r)s %(s)s")
    talk(b"\x00\r\n\r\n", access_log=logging.getLogger("access"), access_log_format="%(r)s %(s)s")
    assert caplog.messages == ["GET / HTTP/7.0 505", "- 400"]


def test_a_handler_that_logs_by_itself_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    class Own(Echo):
        async def handle_request(self, message: Any, payload: Any) -> None:
            await super().handle_request(message, payload)
            self.log_access(message, {"WHO": "me"}, None, 0.0)

    talk(GET, GET, handler=Own, access_log=logging.getLogger("access"), access_log_format="%({WHO}e)s")
    assert caplog.messages == ["me", "me"]


def test_a_broken_logger_never_reaches_the_client() -> None:
    class Broken(logging.Logger):
        def handle(self, record: Any) -> None:
            raise RuntimeError("broken")

    broken = Broken("broken")
    result = talk(GET, GET, access_log=broken, logger=broken, debug=True)
    assert result.statuses == [200, 200]
    assert not result.ended


def test_an_overridden_log_access_that_fails_never_reaches_the_client() -> None:
    class Failing(Echo):
        def log_access(self, *args: Any) -> None:
            raise RuntimeError("broken")

    assert talk(GET, GET, handler=Failing).statuses == [200, 200]


@pytest.mark.parametrize("timed", [False, True])
def test_an_access_log_that_is_set_behind_the_constructor_is_used(timed: bool, tmp_path: Path) -> None:
    path = tmp_path / "access.log"

    class Late(Echo):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.access_log = AccessLog(path, "%(s)s %(U)s %(D)s" if timed else "%(s)s %(U)s")

    result = talk(GET, GET, handler=Late)
    result.protocol.access_log.close()
    assert [line[:5] for line in path.read_text().splitlines()] == ["200 /"] * 2


@pytest.mark.parametrize("behind", ["__init__", "connection_made"])
def test_a_logger_that_is_set_before_the_first_request_is_used(behind: str, caplog: pytest.LogCaptureFixture) -> None:
    class Late(Echo):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.set_log("__init__")

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.set_log("connection_made")

        def set_log(self, place: str) -> None:
            if place == behind:
                self.access_log = logging.getLogger("access")
                self.access_log_format = "%(s)s %(U)s"

    caplog.set_level(logging.INFO, logger="access")
    talk(GET, handler=Late)
    assert caplog.messages == ["200 /"]


# Requests that are cut.

WAYS = {
    "the client is gone": lambda protocol: protocol.connection_lost(None),
    "cut": lambda protocol: protocol.cancel_slow_request(),
    "aborted": lambda protocol: protocol.abort(),
}


class Begun(Echo):
    """Begins a response and waits."""

    length: int | None = None
    lines: list[tuple[int, int, bool]]

    async def handle_request(self, message: Any, payload: Any) -> None:
        if message.path == "/silent":
            await asyncio.Event().wait()
        response = Response(self.writer, 206)
        if self.length:
            response.add_header("Content-Length", str(self.length))
        response.send_headers()
        response.write(b"12345")
        await asyncio.Event().wait()

    def log_access(self, message: Any, environ: Any, response: Response | None, time: float) -> None:
        self.access_was_logged = True
        status = response.status if response is not None else 499
        self.lines.append((status, response.output_length if response else 0, response.cut if response else True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [None, 100])
@pytest.mark.parametrize(
    ("path", "unsent", "expected"),
    [(b"/", 0, (206, 5, True)), (b"/", 3, (206, 2, True)), (b"/silent", 0, (499, 0, True))],
)
def test_a_request_that_is_cut_has_one_line(
    way: str, length: int | None, path: bytes, unsent: int, expected: tuple[int, int, bool]
) -> None:
    async def main() -> None:
        protocol = Begun()
        protocol.length, protocol.lines = length, []
        result = await converse(protocol, [GET.replace(b"/", path, 1)], close=False)
        await turns()
        result.transport.unsent = unsent
        WAYS[way](protocol)
        await turns()
        assert protocol.lines == [expected]
        counted = connections_of(asyncio.get_running_loop()).responses
        assert (counted[2], counted[4]) == ((1, 0) if expected[0] == 206 else (0, 1))

    asyncio.run(main())


def test_a_handler_that_is_cut_and_logs_by_itself_is_not_logged_twice() -> None:
    class Own(Begun):
        async def handle_request(self, message: Any, payload: Any) -> None:
            try:
                await super().handle_request(message, payload)
            finally:
                self.log_access(message, {}, None, 0.0)

    async def main() -> None:
        protocol = Own()
        protocol.lines = []
        result = await converse(protocol, [GET], close=False)
        result.protocol.connection_lost(None)
        await turns()
        assert protocol.lines == [(499, 0, True)]

    asyncio.run(main())


def test_the_clients_address_is_that_of_the_first_request_when_a_reset_has_made_it_unknown(tmp_path: Path) -> None:
    class Forgetting(Begun):
        async def handle_request(self, message: Any, payload: Any) -> None:
            self.transport._extra.clear()  # type: ignore[union-attr]  # the fake's: uvloop asks the socket
            await super().handle_request(message, payload)

        log_access = Echo.log_access

    async def main() -> None:
        log = AccessLog(tmp_path / "log", "%(h)s")
        protocol = Forgetting(access_log=log)
        result = await converse(protocol, [GET], close=False)
        result.protocol.connection_lost(None)
        await turns()
        log.close()

    asyncio.run(main())
    assert (tmp_path / "log").read_text() == "192.0.2.1\n"


def test_paths_that_are_skipped_have_no_line_and_a_terminal_gets_colours(tmp_path: Path) -> None:
    async def write() -> None:
        log = AccessLog(tmp_path / "log", "%(U)s", skip=["/health"], colours=True)
        for path in ("/health", "/health?x", "/healthy"):
            log.log(message(path), None, None, 0.0, "1.2.3.4")
        log.log(None, None, None, 0.0, "1.2.3.4")
        log.close()

    asyncio.run(write())
    assert (tmp_path / "log").read_text() == "\x1b[33m/healthy\x1b[0m\n\x1b[33m-\x1b[0m\n"
