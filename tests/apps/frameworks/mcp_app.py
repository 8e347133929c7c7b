"""A server of the Model Context Protocol (streamable HTTP) with a tool that takes its time."""

from __future__ import annotations

import asyncio

from mcp.server import MCPServer

server = MCPServer("tests")


@server.tool()
async def slow(seconds: float) -> str:
    """Wait, and say so."""
    print("the tool works", flush=True)
    await asyncio.sleep(seconds)
    return "done"


app = server.streamable_http_app()
