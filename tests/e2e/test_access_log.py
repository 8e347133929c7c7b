"""The access log of the real daemon: what its lines say, whatever becomes of the request and whatever the app does."""

from __future__ import annotations

import base64
import json
import re
import socket

import pytest

from preforkd.workers.scoreboard import Field
from tests.e2e.client import Connection, TruncatedError, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, SITE, Daemon, scoreboard

ASGI = f"{APPS / 'logging_asgi.py'}:app"
WSGI = f"{APPS / 'wsgi_site.py'}:app"


def test_lines_have_the_daemons_time_zone_and_the_user_and_an_error_behind_an_answer_is_called_that(
    start: Start,
) -> None:
    daemon = start(app=ASGI, workers=1, environment={"TZ": "Asia/Kolkata"}, tolerated="Traceback")
    with Connection(daemon.port) as connection:
        user = base64.b64encode(b'J\xc3\xb6rg "x":secret').decode()
        assert connection.get("/", headers=[("Authorization", f"basic {user}")]).status == 200
        connection.get("/boom")
    daemon.wait_log(r'^127\.0\.0\.1 - Jörg \\"x\\" \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0530\] "GET / HTTP/1\.1" 200 3 ')
    daemon.wait_log(r'^127\.0\.0\.1 - - \[.* \+0530\] "GET /boom HTTP/1\.1" 500 3 ')
    daemon.wait_log(r"ERROR .*The app has answered .*GET /boom .*and then raised")
    assert "behind its response" not in daemon.log()
    second = re.compile(r"\[[^]]*?(\d\d:\d\d:\d\d) ")

    def two_seconds() -> bool:
        return get(daemon.port).status == 200 and len(set(second.findall(daemon.log()))) > 1

    daemon.until(two_seconds, 5, "lines of two seconds: the text of one is made once")
    assert set(re.findall(r":\d\d ([+-]\d{4})\] ", daemon.log())) == {"+0530"}
    assert "secret" not in re.sub(user, "", daemon.log())


FORMAT = "%(h)s %(q)s %(s)s %(B)s %(X)s."
LOGGED = re.compile(r"^(\S+) (\S+) (\d+) (\d+|-) (\S)\.$", re.MULTILINE)
HUGE = 30_000_000  # bytes: more than the kernel takes
APPLICATIONS = {
    "protocol": (SITE, []),
    "asgi": (ASGI, []),
    "wsgi-1": (WSGI, ["--threads", "1"]),
    "wsgi-4": (WSGI, ["--threads", "4"]),
    "wsgi-0": (WSGI, ["--threads", "0"]),
}


def lines_of(daemon: Daemon) -> dict[str, tuple[str, int, int, str]]:
    """Client, status, bytes and end of each request, by its query."""
    found = LOGGED.findall(daemon.log())
    assert len({line[1] for line in found}) == len(found), "more than one line of a request"
    return {query: (client, int(status), int(size.strip("-") or 0), end) for client, query, status, size, end in found}


@pytest.mark.parallel
@pytest.mark.parametrize("interface", APPLICATIONS)
def test_every_request_has_one_line_however_it_ends_and_the_counters_agree(start: Start, interface: str) -> None:
    app, options = APPLICATIONS[interface]
    options = [*options, "--write-timeout", "1", "--graceful-timeout", "1", "--access-log-format", FORMAT]
    daemon = start(*options, app=app, workers=1)
    with Connection(daemon.port) as connection:
        whole = len(connection.get("/who?whole").body)
    assert get(daemon.port, "/who?closed").closes
    assert get(daemon.port, f"/large/{HUGE}?read").status == 200
    for name, path, begin in (
        ("before-{}", "/slow/0.5", False),
        ("amid-{}", "/chunks/30/0.05", True),
        ("large-{}", f"/large/{HUGE}", True),
    ):
        for way in ("fin", "rst"):
            connection = Connection(daemon.port)
            connection.ask(f"{path}?{name.format(way)}")
            if begin:
                connection.read_some()
            else:
                daemon.until(lambda: active(daemon) or interface == "wsgi-0", 5, "the request is being handled")
            connection.close() if way == "fin" else connection.reset()
    with Connection(daemon.port) as slow_reader:
        slow_reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow_reader.ask(f"/large/{HUGE}?unread")
        daemon.until(lambda: len(lines_of(daemon)) == 10, 20, "a line of each request")
    lines = lines_of(daemon)
    assert {client for client, *_ in lines.values()} == {"127.0.0.1"}
    assert lines["whole"][1:] == (200, whole, "+")
    assert lines["closed"][1:] == (200, whole, "-")
    assert lines["read"][1:] == (200, HUGE, "-")
    for query in ("amid-fin", "amid-rst"):
        assert lines[query][1] == 200
        assert 0 < lines[query][2] < 100
        assert lines[query][3] == "X"
    for query in ("large-fin", "large-rst", "unread"):
        assert lines[query][1] == 200
        assert 0 < lines[query][2] < HUGE
        assert lines[query][3] == "X"
    assert lines["before-rst"][1:] == (499, 0, "X") or interface == "wsgi-0", "which answers before it can know"
    assert lines["before-fin"][1:] in ((499, 0, "X"), (200, whole, "+"), (200, whole, "-"), (200, 3, "-"))
    with scoreboard(daemon) as board:
        row = board.row(0)
        statuses = [status // 100 for _, status, *_ in lines.values()]
        daemon.until(lambda: row[Field.RESPONSES_2XX] == statuses.count(2), 5, "the counter of 2xx")
        daemon.until(lambda: row[Field.RESPONSES_4XX] == statuses.count(4), 5, "the counter of 4xx")
    with Connection(daemon.port) as cut:
        cut.ask("/chunks/100/0.2?cut")
        cut.read_some()
        assert daemon.stop() == 0
    assert lines_of(daemon)["cut"][1] == 200
    assert lines_of(daemon)["cut"][3] == "X"


def active(daemon: Daemon) -> bool:
    with scoreboard(daemon) as board:
        return board.row(0)[Field.ACTIVE] > 0


def test_a_request_that_takes_too_long_has_one_line(start: Start) -> None:
    options = ["--request-timeout", "0.5", "--access-log-format", FORMAT]
    daemon = start(*options, app=ASGI, workers=1)
    assert get(daemon.port, "/slow/30?never").status == 503
    with Connection(daemon.port) as connection, pytest.raises(TruncatedError):
        connection.get("/chunks/100/0.1?begun")
    daemon.until(lambda: len(lines_of(daemon)) == 2, 5, "two lines")
    assert lines_of(daemon)["never"][1] == 503
    assert lines_of(daemon)["begun"][1::2] == (200, "X")


def test_an_app_that_does_not_notice_has_its_line_when_its_client_leaves(start: Start) -> None:
    daemon = start("--access-log-format", FORMAT, "--graceful-timeout", "1", app=ASGI, workers=1, tolerated="Traceback")
    with Connection(daemon.port) as connection:
        connection.ask("/deaf?left")
        connection.read_some()
        connection.reset()
    daemon.until(lambda: len(lines_of(daemon)) == 1, 2, "its line")
    assert lines_of(daemon)["left"] == ("127.0.0.1", 200, 6, "X")
    assert daemon.stop() == 0
    assert len(lines_of(daemon)) == 1


def test_json_says_that_a_response_was_cut(start: Start) -> None:
    daemon = start("--log-format", "json", app=ASGI, workers=1)
    get(daemon.port, "/who?whole")
    with Connection(daemon.port) as connection:
        connection.ask("/chunks/100/0.1?cut")
        connection.read_some()
        connection.reset()

    def records() -> dict[str, dict[str, object]]:
        found = [json.loads(line) for line in daemon.log().splitlines() if line.startswith('{"time"')]
        return {str(record["query"]): record for record in found if "query" in record}

    daemon.until(lambda: len(records()) == 2, 5, "two records")
    assert (records()["whole"]["cut"], records()["whole"]["status"]) == (False, 200)
    assert (records()["cut"]["cut"], records()["cut"]["status"]) == (True, 200)
    assert records()["cut"]["remote"] == "127.0.0.1"
