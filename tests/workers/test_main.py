"""The life of a worker, in parts; as a whole it is tested by `tests/e2e`."""

from __future__ import annotations

import asyncio
import time

import uvloop

from preforkd.workers.main import sleep_until


def test_a_wait_is_never_shorter_than_it_was_to_be() -> None:
    async def wait() -> None:
        for tenths in range(60):  # of a millisecond, which is what uvloop's timers count in
            when = time.monotonic() + tenths / 10_000
            await sleep_until(when)
            assert time.monotonic() >= when

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(wait())


def test_a_wait_that_is_over_lets_the_loop_turn_once() -> None:
    async def wait() -> list[str]:
        happened: list[str] = []
        asyncio.get_running_loop().call_soon(happened.append, "a turn")
        await sleep_until(time.monotonic() - 1)
        return happened

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(wait()) == ["a turn"]
