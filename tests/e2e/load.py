"""Steady load from a process of its own, with every request's fate counted under its true name.

`python -m tests.e2e.load` is that process: it takes its plan as JSON, says `started` when every client had its first
outcome, stops when its standard input ends (so also when the test run dies), and prints what it counted as JSON.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from tests.e2e.client import (
    Answer,
    AnswerError,
    Connection,
    MalformedError,
    NoAnswerError,
    ResetError,
    SilentError,
    TruncatedError,
)

ROOT = Path(__file__).parents[2]

OK = "ok"
REFUSED = "refused"  # no connection came about: nobody listens, or nobody does any more
HANDSHAKE = "handshake"  # no TLS came about: its end, an alert, or a certificate that is not trusted
RESET = "reset"  # RST: before the answer on a new connection, or in the middle of it, or instead of an orderly close
CLOSED = "closed"  # FIN before the first byte of the answer, on a new connection
STALE = "stale"  # the same or a reset on a reused one: the server closed an idle connection across a request
TRUNCATED = "truncated"  # FIN in the middle of the answer
STATUS = "status"  # a whole answer that is not 200
WRONG = "wrong"  # a whole answer with another body than expected, or bytes that are no answer
TIMEOUT = "timeout"  # nothing came in time, or the connection was not closed after `Connection: close`


@dataclass(slots=True)
class Failure:
    """One request that failed."""

    outcome: str
    detail: str
    began: float  # time.monotonic(), which is the same clock in every process of the machine
    ended: float
    keep_alive: bool
    answers: int  # how many the connection had given before
    last: str  # the body of the last of them: which worker it was


@dataclass(slots=True)
class Result:
    """What a load counted; filled in when the load has ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    bodies: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    reopened: int = 0  # idle connections that were seen closed before the next request was sent: no failure
    slowest: float = 0.0  # seconds
    slowest_began: float = 0.0

    @property
    def total(self) -> int:
        """All requests."""
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """Those that are not `ok`."""
        return self.total - self.outcomes[OK]

    def add(self, outcome: str, began: float, ended: float) -> None:
        """Count one request."""
        self.outcomes[outcome] += 1
        if ended - began > self.slowest:
            self.slowest, self.slowest_began = ended - began, began

    def merge(self, other: Result) -> None:
        """Count in what another client counted."""
        self.outcomes += other.outcomes
        self.bodies += other.bodies
        self.failures += other.failures
        self.reopened += other.reopened
        if other.slowest > self.slowest:
            self.slowest, self.slowest_began = other.slowest, other.slowest_began

    def describe(self) -> str:
        """For the message of a failing test."""
        lines = [f"{dict(self.outcomes)}, {self.reopened} reopened, slowest {self.slowest:.3f} s"]
        lines += [str(failure) for failure in sorted(self.failures, key=lambda failure: failure.began)[:20]]
        return "\n  ".join(lines)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the load is to do."""

    port: int
    clients: int = 8
    one_shot: int = 4  # how many of the clients use a new connection for each request; the others keep theirs
    pause: float = 0.005  # seconds between two requests of a client
    timeout: float = 10.0  # seconds for each answer
    paths: Sequence[str] = ("/",)  # taken in turn
    expect: str = ".*"  # a regular expression that matches each body as a whole
    authority: str = ""  # speak TLS, and trust the certificates in this file
    post: int = 0  # every other request of a client is a POST of so many bytes to /upload
    requests: int = 0  # stop after so many in all; 0: when told


class Client:
    """One client: a request, a pause, a request. It never retries."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan = plan
        self.keep_alive = number >= plan.one_shot
        self.result = Result()
        self.had_one = threading.Event()
        self._path = number
        self._connection: Connection | None = None
        self._last = ""
        self._tls = ssl.create_default_context(cafile=plan.authority) if plan.authority else None

    def run(self, stop: threading.Event, requests: int) -> None:
        """Work until told to stop, or for that many requests when it is not 0."""
        try:
            while not stop.is_set():
                self.one_request()
                self.had_one.set()
                if requests and self.result.total >= requests:
                    break
                if self.plan.pause:
                    stop.wait(self.plan.pause)
        finally:
            self.had_one.set()
            self._drop()

    def one_request(self) -> None:
        """Send one request and count what became of it."""
        began = time.monotonic()
        outcome, detail, before = OK, "", 0
        try:
            before = self._open()
            answer = self._exchange()
        except (AnswerError, OSError) as error:
            outcome, detail = verdict(error, reused=before > 0), repr(error)
        else:
            outcome, detail = self._judge(answer)
        ended = time.monotonic()
        self.result.add(outcome, began, ended)
        if outcome != OK:
            self.result.failures.append(Failure(outcome, detail, began, ended, self.keep_alive, before, self._last))
            self._drop()

    def _open(self) -> int:
        """Have a connection; how many answers it has given already."""
        if self._connection is not None and self._connection.is_closed():
            self.result.reopened += 1
            self._drop()
        if self._connection is None:
            self._last = ""
            self._connection = Connection(self.plan.port, timeout=self.plan.timeout, tls=self._tls)
        return self._connection.answers

    def _exchange(self) -> Answer:
        assert self._connection is not None
        path = self.plan.paths[self._path % len(self.plan.paths)]
        self._path += 1
        headers = [] if self.keep_alive else [("Connection", "close")]
        if self.plan.post and self._path // 2 % 2:
            self._connection.ask("/upload", method="POST", headers=headers, body=b"x" * self.plan.post)
            answer = self._connection.answer()
        else:
            answer = self._connection.get(path, headers=headers)
        if not self.keep_alive and not answer.closes:
            raise MalformedError("the request said close, the answer does not")
        if answer.closes:
            self._connection.expect_close()
            self._drop()
        return answer

    def _judge(self, answer: Answer) -> tuple[str, str]:
        self._last = answer.body[:80].decode("latin-1")
        if answer.status != 200:
            return STATUS, f"{answer.status} {answer.reason}"
        if not re.fullmatch(self.plan.expect, self._last):
            return WRONG, f"body {self._last!r}"
        self.result.bodies[self._last] += 1
        return OK, ""

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def verdict(error: AnswerError | OSError, *, reused: bool) -> str:
    """The name of a failure. A connection that ends before the answer began is `stale` when it had served before."""
    match error:
        case NoAnswerError():
            return STALE if reused else CLOSED
        case ResetError():
            return STALE if reused and not error.began else RESET
        case TruncatedError():
            return TRUNCATED
        case SilentError() | TimeoutError():
            return TIMEOUT
        case ssl.SSLError():
            return HANDSHAKE
        case ConnectionError():  # not one of `Connection`'s own errors: connect() itself has failed
            return REFUSED
        case _:
            return WRONG


@contextmanager
def load(port: int, **plan: object) -> Iterator[Result]:
    """Load for the duration of a `with` block; the result is complete behind the block.

    Args:
        port: where the daemon serves.
        plan: see `Plan`.

    Raises:
        AssertionError: the load process itself failed.
    """
    result = Result()
    text = json.dumps({"port": port, **plan})
    # Unbuffered: what a buffer has read beyond the first line would be lost to `communicate`.
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.load", text],
        bufsize=0,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == b"started\n", "the load did not start"
            yield result
            counted, _ = process.communicate(timeout=60)  # the end of its input is what it stops for
            assert process.returncode == 0, "the load failed"
        finally:
            process.kill()
    result.merge(_read(counted))


def _write(result: Result) -> str:
    # Field by field, because dataclasses.asdict() of Python 3.11 breaks a Counter.
    data = {item.name: getattr(result, item.name) for item in fields(result)}
    return json.dumps(data | {"failures": [asdict(failure) for failure in result.failures]})


def _read(text: bytes) -> Result:
    data = json.loads(text)
    return Result(
        Counter(data["outcomes"]),
        Counter(data["bodies"]),
        [Failure(**failure) for failure in data["failures"]],
        data["reopened"],
        data["slowest"],
        data["slowest_began"],
    )


def main(text: str) -> None:
    """The load process."""
    plan = Plan(**json.loads(text))
    stop = threading.Event()
    clients = [Client(plan, number) for number in range(plan.clients)]
    shares = [plan.requests // plan.clients + (n < plan.requests % plan.clients) for n in range(plan.clients)]
    total = Result()
    with ThreadPoolExecutor(plan.clients) as pool:
        runs = [pool.submit(client.run, stop, share) for client, share in zip(clients, shares, strict=True)]
        for client in clients:
            client.had_one.wait()
        print("started", flush=True)
        if not plan.requests:
            sys.stdin.read()
            stop.set()
        for client, run in zip(clients, runs, strict=True):
            run.result()  # raises what the client raised: a broken client must not look like a light load
            total.merge(client.result)
    print(_write(total), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
