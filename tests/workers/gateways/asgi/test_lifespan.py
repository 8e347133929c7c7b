"""The lifespan of an app: its startup gates, its failure is a failure, an app without one is fine."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from preforkd.workers.gateways import StartupError
from preforkd.workers.gateways.asgi.lifespan import Lifespan
from tests.workers.gateways.asgi.serving import Receive, Records, Scope, Send

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


@pytest.mark.parametrize("exits", [False, True])
def test_a_lifespan_that_dies_while_the_app_serves_is_told_at_once_and_once(exits: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise SystemExit("too early") if exits else LookupError("too early")

    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        assert life.is_supported
        await ended(life)
        assert len(log) == 1
        assert ("SystemExit" if exits else "too early") in log[0]
        await life.shutdown(1.0)
        assert len(log) == 1

    run(main())


# Messages and their state

COMPLETE = {"type": "lifespan.startup.complete"}


async def ended(life: Lifespan) -> None:
    """Wait until the app has ended its lifespan, and that was looked at."""
    assert life._task is not None
    await asyncio.wait([life._task])
    await asyncio.sleep(0)


@pytest.mark.parametrize("again", ["startup.complete", "startup.failed", "shutdown.complete", "shutdown.failed"])
def test_a_message_after_the_startup_and_before_the_shutdown_is_an_error_of_the_app(again: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        with pytest.raises(RuntimeError, match=f"'lifespan.{again}' before it was told to shut down"):
            await send({"type": f"lifespan.{again}"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        with pytest.raises(RuntimeError, match=r"'lifespan\.startup\.complete' after it has shut down"):
            await send(COMPLETE)

    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        await life.shutdown(5.0)
        assert not log, "what it has done was right in the end"

    run(main())


@pytest.mark.parametrize("early", ["shutdown.complete", "shutdown.failed"])
def test_an_answer_to_what_was_not_asked_is_a_startup_that_failed(early: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": f"lifespan.{early}"})

    async def main() -> None:
        life, _ = lifespan(app)
        with pytest.raises(StartupError, match=f"has sent 'lifespan.{early}' while it starts"):
            await life.startup()
        assert not life.is_supported

    run(main())


def test_nothing_can_be_said_behind_a_failure() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        await send(COMPLETE)

    async def main() -> None:
        life, _ = lifespan(app)
        with pytest.raises(StartupError, match="no database"):
            await life.startup()
        assert not life.is_supported
        await ended(life)

    run(main())


@pytest.mark.parametrize("answer", ["complete", "failed"])
def test_an_app_that_receives_once_more_after_its_shutdown_is_ended_at_once(answer: str) -> None:
    done: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while True:
                phase = (await receive())["type"]
                last = answer if phase == "lifespan.shutdown" else "complete"
                await send({"type": f"{phase}.{last}", "message": "a pity"})
        finally:
            done.append("cleaned up")

    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        async with asyncio.timeout(5):
            await life.shutdown(1000.0)
        assert done == ["cleaned up"]
        assert log == ([] if answer == "complete" else ["the app's shutdown failed: a pity"])

    run(main())


# sys.exit(), and other ways to end


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (SystemExit("DATABASE_URL is missing"), "DATABASE_URL is missing"),
        (SystemExit(7), "it calls sys.exit(7)"),
        (SystemExit(), "it calls sys.exit()"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (BaseExceptionGroup("unhandled errors", [SystemExit("no database")]), "no database"),
        (ExceptionGroup("unhandled errors", [LookupError("no database")]), "LookupError: no database"),
        (asyncio.CancelledError(), "CancelledError"),
        (GeneratorExit(), "GeneratorExit"),
    ],
    ids=repr,
)
def test_whatever_a_startup_raises_is_a_failure_with_its_message(exc: BaseException, text: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise exc

    async def main() -> None:
        life, log = lifespan(app)
        with pytest.raises(StartupError) as raised:
            await life.startup()
        assert str(raised.value) == f"the app's startup failed: {text}"
        assert not log

    run(main())


def test_an_app_that_exits_before_it_has_received_anything_is_not_one_without_lifespan() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit("DATABASE_URL is missing")

    async def main() -> None:
        life, _ = lifespan(app)
        with pytest.raises(StartupError, match="DATABASE_URL is missing"):
            await life.startup()

    run(main())


def test_an_app_that_says_why_and_then_exits_as_under_starlette_is_quoted_and_not_logged_again() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback:\n  File x\nSystemExit: no database\n"})
        raise SystemExit("no database")

    async def main() -> None:
        life, log = lifespan(app)
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        with pytest.raises(StartupError, match="the app's startup failed: SystemExit: no database"):
            await life.startup()
        await ended(life)
        del life
        gc.collect()
        assert (told, log) == ([], [])

    run(main())


def test_an_app_that_exits_while_it_shuts_down_does_not_end_the_worker() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        await receive()
        raise SystemExit(9)

    async def main() -> None:
        life, log = lifespan(app)
        await life.startup()
        await life.shutdown(1.0)
        assert len(log) == 1
        assert "the app raised SystemExit" in log[0]

    run(main())
