"""The access log of the real daemon: what its lines say, whatever becomes of the request and whatever the app does."""

from __future__ import annotations

import base64
import re

from tests.e2e.client import Connection, get
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS

ASGI = f"{APPS / 'logging_asgi.py'}:app"


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
