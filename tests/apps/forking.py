"""Apps that fork, one for each interface: `/NAME` calls a function, which does it and says the pid of its child.

What the child has to say goes to standard output, which is the daemon's log.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from preforkd.workers import PayloadStream, RequestMessage, Response, ServerHttpProtocol

FORK = multiprocessing.get_context("fork")
SIGNALS = "grep -E '^Sig(Ign|Blk)' /proc/self/status"
pools: list[concurrent.futures.ProcessPoolExecutor] = []


def forked(child: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        child()
    return pid


def wait() -> NoReturn:
    """As a child does that works for long."""
    while True:
        time.sleep(60)


def waits() -> int:
    return forked(wait)


def waits_with_a_handler() -> int:
    """The app has a handler of its own for a signal that is ours otherwise: its child inherits that."""
    signal.signal(signal.SIGUSR1, lambda *_: say("the app's own handler"))
    return forked(wait)


def say(text: str) -> None:
    os.write(1, f"{text} in {os.getpid()}\n".encode())


def leave(code: Any) -> Callable[[], int]:
    return lambda: forked(lambda: sys.exit(code))


def fail() -> None:
    raise LookupError("in the child")


def tidy() -> int:
    """With `finally` and an exit function of its own; the worker's have nothing to do with it."""

    def child() -> None:
        import atexit

        atexit.register(say, "an exit function of the child")
        try:
            print("printed by the child", flush=False)
            sys.exit(5)
        finally:
            say("finally")

    return forked(child)


def loops() -> int:
    """The child runs an event loop of its own."""

    def child() -> None:
        async def main() -> None:
            await asyncio.sleep(0.01)
            process = await asyncio.create_subprocess_exec("true")
            say(f"a loop of its own: {await process.wait()}, {asyncio.current_task() is not None}")

        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            say("the worker's loop runs")
        asyncio.run(main())
        os._exit(0)

    return forked(child)


def grandchild() -> int:
    """The child ends at once, its own child lives on: an orphan."""

    def child() -> None:
        say(f"orphan {forked(wait)}")
        os._exit(0)

    return forked(child)


def process() -> int:
    started = FORK.Process(target=wait, daemon=True)
    started.start()
    assert started.pid is not None
    return started.pid


def terminated() -> int:
    """multiprocessing's own way to end a child, at once."""
    started = FORK.Process(target=wait)
    started.start()
    started.terminate()
    started.join(5)
    return started.exitcode or 0


def pool() -> int:
    executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=FORK)
    pools.append(executor)
    return executor.submit(os.getpid).result(10)


def stubborn() -> int:
    """A daemonic process that ignores TERM, as one that is deep in native code."""

    def child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say("stubborn")
        wait()

    started = FORK.Process(target=child, daemon=True, name="the-stubborn-one")
    started.start()
    assert started.pid is not None
    return started.pid


def thread() -> int:
    """A thread that the end of a Python program waits for."""
    started = threading.Thread(target=time.sleep, args=(600,), name="the-endless-one")
    started.start()
    return os.getpid()


def signals_of_programs() -> str:
    """What programs find that the app starts, in every way to start one."""
    shown = [
        subprocess.check_output(SIGNALS, shell=True, text=True),
        subprocess.check_output(SIGNALS, shell=True, text=True, preexec_fn=lambda: None),
        subprocess.check_output(SIGNALS, shell=True, text=True, start_new_session=True, close_fds=False),
    ]
    return json.dumps(shown)


def who() -> int:
    return os.getpid()


NAMES: dict[str, Callable[[], Any]] = {
    "who": who,
    "waits": waits,
    "waits_with_a_handler": waits_with_a_handler,
    "exits": leave(7),
    "exits_with_text": leave("the child's last words"),
    "fails": lambda: forked(fail),
    "returns": lambda: forked(lambda: None),
    "tidy": tidy,
    "loops": loops,
    "grandchild": grandchild,
    "process": process,
    "terminated": terminated,
    "pool": pool,
    "stubborn": stubborn,
    "thread": thread,
    "signals_of_programs": signals_of_programs,
}


def answer(path: str) -> bytes:
    """Do what the path names; `/kill/SIGNAL/PID` sends one, so that nobody else has to be quick."""
    name = path.strip("/")
    if name == "forks_and_kills":
        pid = os.fork()
        if pid == 0:
            wait()
        os.kill(pid, signal.SIGTERM)  # before it has come to itself
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode()
    if name.startswith("status/"):
        return str(os.waitstatus_to_exitcode(os.waitpid(int(name.partition("/")[2]), 0)[1])).encode()
    return str(NAMES[name or "who"]()).encode()


class Site(ServerHttpProtocol):
    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:
        body = answer(message.path)
        self.keep_alive(True)
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Length", str(len(body)))
        response.send_headers()
        response.write(body)
        await response.write_eof()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/awaits":
        pid = forked(lambda: None)
        await asyncio.sleep(0)
        body = str(pid).encode()
    elif scope["path"] == "/in-a-thread":
        body = str(await asyncio.to_thread(leave(7))).encode()
    elif scope["path"] == "/subprocess":
        process = await asyncio.create_subprocess_shell(SIGNALS, stdout=subprocess.PIPE)
        body = json.dumps([(await process.communicate())[0].decode()]).encode()
    else:
        body = answer(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
