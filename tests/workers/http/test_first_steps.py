"""A request is processed in the name of the connection's task without being a step of it: nothing may show that."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from preforkd.workers import ConnectionState
from preforkd.workers.http.connections import connections_of
from tests.workers.http.wire import GET, Echo, Talk, converse, turns

RUNNERS: dict[str, Callable[..., Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
loops = pytest.mark.parametrize("loop", RUNNERS)


class Acting(Echo):
    """Does what `act` says before it answers; the first request is processed by the task itself, later ones are not."""

    async def act(self) -> None:
        raise NotImplementedError

    async def handle_request(self, message: Any, payload: Any) -> None:
        if message.path != "/plain":
            await self.act()
        await super().handle_request(message, payload)


PLAIN = GET.replace(b"/ ", b"/plain ")
# The request in question is the first of its connection, or a later one.
WHEN = {"first": [GET, PLAIN], "later": [PLAIN, GET, PLAIN]}
when = pytest.mark.parametrize("portions", WHEN.values(), ids=WHEN)


def hold(handler: type[Echo], portions: list[bytes], loop: str, **arguments: Any) -> Talk:
    async def main() -> Talk:
        result = await converse(handler(**arguments), portions, close=False)
        assert connections_of(asyncio.get_running_loop()).active == 0
        if not result.transport.closed:
            result.protocol.connection_lost(None)
        await turns()
        assert result.protocol.handler_task is None
        assert len(connections_of(asyncio.get_running_loop())) == 0
        return result

    talk: Talk = RUNNERS[loop](main())
    return talk


@loops
@when
def test_a_task_that_cancels_itself_is_cancelled_at_its_first_await(portions: list[bytes], loop: str) -> None:
    steps = []

    class Cancelling(Acting):
        async def act(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            steps.append("goes on")
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                steps.append("cancelled")
                task.uncancel()

    result = hold(Cancelling, portions, loop)
    assert steps == ["goes on", "cancelled"]
    assert result.statuses == [200] * len(portions)


@loops
@when
def test_a_task_that_cancels_itself_for_good_ends_its_connection(portions: list[bytes], loop: str) -> None:
    class Cancelling(Acting):
        async def act(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
            raise AssertionError("not cancelled")

    result = hold(Cancelling, portions, loop)
    assert result.transport.aborted
    assert result.statuses == [200] * portions.index(GET)
    assert result.protocol.state is ConnectionState.CLOSED


@loops
@when
def test_a_task_that_cancels_itself_and_does_not_wait_sends_its_answer_first(portions: list[bytes], loop: str) -> None:
    class Cancelling(Acting):
        async def act(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    result = hold(Cancelling, portions, loop)
    assert result.statuses == [200] * (portions.index(GET) + 1)
    assert result.transport.aborted


@loops
@pytest.mark.parametrize("wait", [False, True])
def test_context_variables_of_a_request_are_its_own(wait: bool, loop: str) -> None:
    variable = contextvars.ContextVar("variable", default="nobody's")
    seen = []

    class Setting(Acting):
        async def act(self) -> None:
            seen.append(variable.get())
            token = variable.set(f"of {len(self.seen)}")
            if wait:
                await asyncio.sleep(0)
                seen.append(variable.get())
                child = asyncio.ensure_future(self.look())
                await child
                variable.reset(token)
                variable.set("left behind")

        async def look(self) -> None:
            seen.append(variable.get())

    hold(Setting, [GET, GET, GET + GET], loop)
    if wait:
        assert seen == [text for number in range(4) for text in ("nobody's", f"of {number}", f"of {number}")]
    else:
        assert seen == ["nobody's"] * 4


@loops
@when
def test_the_current_task_is_the_same_before_and_after_the_first_await(portions: list[bytes], loop: str) -> None:
    tasks: list[Any] = []

    class Looking(Acting):
        async def act(self) -> None:
            for _ in range(3):
                tasks.append(asyncio.current_task())
                assert asyncio.current_task() in asyncio.all_tasks()
                await asyncio.sleep(0)
            async with asyncio.timeout(60):
                await asyncio.sleep(0)

    result = hold(Looking, portions, loop)
    assert result.statuses == [200] * len(portions)
    assert len(tasks) == 3
    assert len(set(tasks)) == 1
    assert isinstance(tasks[0], asyncio.Task)


@loops
@when
def test_a_timeout_that_is_over_at_once_ends_what_it_is_for_and_nothing_else(portions: list[bytes], loop: str) -> None:
    ended = []

    class Late(Acting):
        async def act(self) -> None:
            for _ in range(2):
                try:
                    async with asyncio.timeout(0):
                        await asyncio.Event().wait()
                except TimeoutError:
                    ended.append(asyncio.current_task().cancelling())  # type: ignore[union-attr]  # there is one

    result = hold(Late, portions, loop)
    assert ended == [0, 0]
    assert result.statuses == [200] * len(portions)


@loops
@when
def test_a_request_timeout_that_is_over_in_the_first_step_is_answered_503(portions: list[bytes], loop: str) -> None:
    class Slow(Acting):
        async def act(self) -> None:
            self.expire_request()  # what the sweep would call
            await asyncio.Event().wait()

        async def handle_error(self, *args: Any, **kwargs: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0  # else it could not use asyncio.timeout(), say
            await super().handle_error(*args, **kwargs)

    result = hold(Slow, portions, loop, request_timeout=5)
    assert result.statuses == [200] * portions.index(GET) + [503]
    assert result.ended
    assert not result.transport.aborted


@loops
def test_bytes_that_another_task_delivers_are_handled_by_the_connections_own(loop: str) -> None:
    tasks = []

    class Looking(Acting):
        async def act(self) -> None:
            tasks.append(asyncio.current_task())
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())

    async def main() -> None:
        result = await converse(Looking(), [GET], close=False)
        own = tasks[0]
        me = asyncio.current_task()
        for number in range(3):
            result.protocol.data_received(GET)
            assert asyncio.current_task() is me
            await turns()
            assert len(result.replies) == number + 2
        assert tasks == [own] * 8
        assert own is not me
        result.protocol.connection_lost(None)
        await turns()

    RUNNERS[loop](main())
