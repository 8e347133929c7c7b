"""The lifespan of an app: its startup gates, its failure is a failure, an app without one is fine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from preforkd.workers.gateways import StartupError
from preforkd.workers.gateways.lifespan import Lifespan
from tests.workers.gateways.serving import Receive, Records, Scope, Send

T = TypeVar("T")


def lifespan(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> tuple[Lifespan, list[str]]:
    records = Records()
    logger = logging.Logger("test", logging.INFO)
    logger.addHandler(records)
    return Lifespan(app, logger), records.lines


def run(work: Coroutine[Any, Any, T]) -> T:
    async def within() -> T:
        async with asyncio.timeout(5):
            return await work

    return asyncio.run(within())


def test_an_app_starts_and_shuts_down_and_its_state_is_kept() -> None:
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append((scope["type"], scope["asgi"]["version"]))
        events.append((await receive())["type"])
        scope["state"]["db"] = "connected"
        await send({"type": "lifespan.startup.complete"})
        events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})
        await asyncio.sleep(0.01)
        events.append("cleaned up")

    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        assert life.is_supported
        assert life.state == {"db": "connected"}
        await life.shutdown(1.0)
        assert events == [("lifespan", "3.0"), "lifespan.startup", "lifespan.shutdown", "cleaned up"]
        assert not log

    run(main())


@pytest.mark.parametrize(
    ("message", "text", "details"),
    [
        ("no database", "the app's startup failed: no database", ""),
        (
            "Traceback:\n  File x\nKeyError: 'URL'\n",
            "the app's startup failed: KeyError: 'URL'",
            "Traceback:\n  File x",
        ),
        ("", "the app's startup failed: it gave no reason", ""),
    ],
)
def test_startup_failed_is_a_failure_with_its_message(message: str, text: str, details: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": message})

    async def main() -> None:
        life, _ = lifespan(app)
        with pytest.raises(StartupError) as raised:
            await life.startup()
        assert str(raised.value) == text
        assert raised.value.details.startswith(details)
        await life.shutdown(1.0)

    run(main())


def test_an_exception_in_the_startup_is_a_failure_with_its_traceback() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError("no database")

    async def main() -> None:
        life, _ = lifespan(app)
        with pytest.raises(StartupError, match="LookupError: no database") as raised:
            await life.startup()
        assert "in app" in raised.value.details

    run(main())


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def answers_as_if_it_were_a_request(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200})


@pytest.mark.parametrize("app", [raises, returns, answers_as_if_it_were_a_request])
def test_an_app_without_lifespan_is_fine(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        assert not life.is_supported
        await life.shutdown(1.0)
        assert not log

    run(main())


def test_an_app_that_does_not_shut_down_is_cancelled_in_time() -> None:
    cancelled: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        await life.shutdown(0.05)
        assert cancelled
        assert "not shut down within 0.04 s" in log[0]

    run(main())


@pytest.mark.parametrize("says", [True, False])
def test_a_shutdown_that_fails_is_logged(says: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if says:
            await send({"type": "lifespan.shutdown.failed", "message": "a pity"})
        else:
            raise LookupError("a pity")

    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        await life.shutdown(1.0)
        assert "a pity" in log[0]

    run(main())


def test_a_lifespan_that_dies_while_the_app_serves_is_told_at_the_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise LookupError("too early")

    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        await asyncio.sleep(0.01)
        await life.shutdown(1.0)
        assert "too early" in log[0]

    run(main())
