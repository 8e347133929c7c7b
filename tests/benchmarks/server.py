"""One app on one uvloop: `python -m tests.benchmarks.server CASE bare|preforkd`; prints its port."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from tests.benchmarks.apps import CASES


async def main(name: str, side: str) -> None:
    """Serve until killed."""
    case = CASES[name]
    factory = case.limit if side == "bare" else case.make()
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
