"""An MCP server on the real daemon, and the client of its own SDK: a tool at work when its worker leaves."""

from __future__ import annotations

import asyncio
import importlib
import signal
from contextlib import suppress
from typing import Any

import pytest

from tests.e2e.daemon import Daemon
from tests.frameworks import suite

pytestmark = [suite.need("mcp"), pytest.mark.parallel]
FILE = suite.FOLDER / "mcp_app.py"


async def call_while_stopping(daemon: Daemon) -> str:
    """What the tool answers a call that is at work when the daemon is told to stop."""
    session_type: Any = importlib.import_module("mcp").ClientSession
    http: Any = importlib.import_module("mcp.client.streamable_http").streamable_http_client
    said = ""
    # The client comes back for its GET stream, and finds nobody: whatever it makes of that comes later.
    with suppress(Exception):
        async with http(f"http://127.0.0.1:{daemon.port}/mcp") as streams, session_type(*streams[:2]) as session:
            await session.initialize()
            await session.list_tools()  # else it asks for them behind the answer
            await asyncio.to_thread(daemon.wait_log, '"GET|POST /mcp HTTP/1.1" 202')
            call = asyncio.create_task(session.call_tool("slow", {"seconds": 2.5}))
            await asyncio.to_thread(daemon.wait_log, "^the tool works$")
            daemon.signal(signal.SIGTERM)
            said = (await call).content[0].text
    return said


def test_a_tool_at_work_answers_though_the_stream_of_its_session_is_told_at_once(daemon: Daemon) -> None:
    assert asyncio.run(call_while_stopping(daemon)) == "done"
    assert daemon.wait_exit(10) == 0
    daemon.wait_log("told 1 stream that this worker leaves")
    assert '"GET /mcp HTTP/1.1" 200' in daemon.log()
    assert " ERROR " not in daemon.log()
    assert "Traceback" not in daemon.log()
