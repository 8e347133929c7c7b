"""Responses in both forms: what is done with one, by any interface, and all that can be seen of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from preforkd.workers.gateways.asgi.draining import DrainingEvent
from preforkd.workers.gateways.asgi.http_call import HttpCall
from preforkd.workers.gateways.hop_by_hop import HopByHopFields
from preforkd.workers.gateways.streams import StreamDrain
from preforkd.workers.gateways.wsgi.response import WsgiResponse
from preforkd.workers.http import compiled
from preforkd.workers.http.exchange import Exchange
from preforkd.workers.http.intake import Intake
from preforkd.workers.http.limits import Limits
from preforkd.workers.http.message import HttpVersion11, RequestMessage
from preforkd.workers.http.payload import EMPTY_PAYLOAD
from preforkd.workers.http.protocol import ServerHttpProtocol
from preforkd.workers.http.response import Response
from preforkd.workers.http.states import ConnectionState
from preforkd.workers.http.writer import ResponseWriter

QUIET = logging.getLogger("tests.responses")
QUIET.propagate = False
QUIET.addHandler(logging.NullHandler())


class Circumstances(NamedTuple):
    """What a response depends on beside what is said of it."""

    method: str = "GET"
    version: Any = HttpVersion11
    keep_alive: Any = True
    should_close: bool = False
    id_line: bytes = b""
    persistent: bool = True
    corked: bool = True
    paused: bool = False
    continue_is_due: bool = False
    rest_may_be_long: bool = False
    state: ConnectionState = ConnectionState.ACTIVE
    is_over: bool = False
    is_closing: bool = False


class Transport:
    """Keeps what is written."""

    def __init__(self, *, is_closing: bool) -> None:
        self.written: list[bytes] = []
        self._is_closing = is_closing

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, parts: list[bytes]) -> None:
        self.written += parts

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0


class Loop:
    """Does nothing later."""

    def call_soon(self, *args: object, **kwargs: object) -> None:
        pass


class Gateway:
    """What a call of ASGI asks of its own."""

    drained_by = context = None
    logger = QUIET

    def __init__(self) -> None:
        self.hop_by_hop = HopByHopFields(QUIET)
        self.draining = DrainingEvent()
        self.streams = StreamDrain("auto", lambda: None)


def circumstances(given: Circumstances) -> Exchange:
    """Make an exchange of a connection that nothing has been sent on."""
    connection = ServerHttpProtocol(logger=QUIET)
    connection.persistent, connection.state = given.persistent, given.state
    connection.loop = Loop()  # type: ignore[assignment]  # as much as is needed
    connection.transport = transport = Transport(is_closing=given.is_closing)  # type: ignore[assignment]  # as above
    intake = Intake(connection, Limits(), None, None)  # type: ignore[arg-type]  # it takes nothing in
    intake.continue_is_due, intake.rest_may_be_long = given.continue_is_due, given.rest_may_be_long
    writer = ResponseWriter(connection, intake, transport, connection.loop)  # type: ignore[arg-type]  # as above
    writer.corked, writer.paused = given.corked, given.paused
    connection.writer = writer
    request = RequestMessage(given.method, "/", given.version, [], given.should_close)
    request.id_line = given.id_line
    exchange = writer.exchange = Exchange(request, EMPTY_PAYLOAD, writer, connection)
    exchange.keep_alive = given.keep_alive
    if given.is_over:
        writer.exchange = None
    return exchange


Step = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A method's name and its arguments."""


def outcome(call: Callable[[], Any]) -> object:
    """What a call returns, or what it waits for or raises."""
    try:
        result = call()
        if isinstance(result, Coroutine):
            try:
                return "waits", type(result.send(None)).__name__
            except StopIteration as end:
                return "done", end.value
            finally:
                result.close()
    except Exception as exc:  # noqa: BLE001 -- that is the outcome
        return type(exc), str(exc)
    return result


def of_class(exchange: Exchange, arguments: tuple[Any, ...], options: dict[str, Any], steps: list[Step]) -> object:
    """The outcome of each step of a response of the seed's class, and what is seen then."""
    made: list[Any] = []
    outcomes = [outcome(lambda: made.append(Response(exchange.wire, *arguments, **options)))]
    return _steps(exchange, made[0], steps, outcomes) if made else outcomes


def of_asgi(exchange: Exchange, messages: list[Any]) -> object:
    """The outcome of each message of an ASGI app, and what is seen then."""
    gateway: Any = Gateway()
    call = HttpCall(gateway, exchange)
    outcomes = [outcome(lambda one=one: call.send(one)) for one in messages]  # type: ignore[misc]  # a default
    state = (call.phase, call.is_gone, call._wants_trailers, call.payload is EMPTY_PAYLOAD)
    return outcomes, state, _flushed(exchange, call.response)


def of_wsgi(exchange: Exchange, status: Any, fields: Any, steps: list[Step]) -> object:
    """The outcome of `start_response` and of each step behind it."""
    made: list[Any] = []
    outcomes = [outcome(lambda: made.append(WsgiResponse(exchange, HopByHopFields(QUIET), status, fields)))]
    return _steps(exchange, made[0], steps, outcomes) if made else outcomes


def _steps(exchange: Exchange, response: Any, steps: list[Step], outcomes: list[object]) -> object:
    for name, arguments, options in steps:
        outcomes.append(outcome(lambda: getattr(response, name)(*arguments, **options)))  # noqa: B023 -- called at once
    return outcomes, _flushed(exchange, response)


def _flushed(exchange: Exchange, response: Any) -> object:
    wire: Any = exchange.wire
    before = _seen(exchange, response)
    flushed = outcome(wire.flush)
    return before, flushed, _seen(exchange, response)


def _seen(exchange: Exchange, response: Any) -> object:
    wire: Any = exchange.wire
    slots = () if response is None else Response.__mro__[1].__slots__  # type: ignore[attr-defined]  # it has some
    own: dict[str, Any] = {name: getattr(response, name, "deleted") for name in slots if not name.startswith("__")}
    if response is not None:
        own["_writer"], own["exchange"] = own["_writer"] is wire, own["exchange"] is exchange
    rest = {} if response is None else {name: repr(value) for name, value in vars(response).items()}
    return (
        {name: (type(value), value) for name, value in own.items()},
        rest,
        (wire.due, list(wire.parts), wire.response is response, wire.sent, wire._size, list(wire._transport.written)),
    )


@contextmanager
def running(form: str) -> Iterator[None]:
    """Have one form run for a while."""
    before = compiled.form()
    compiled.choose(form)
    try:
        yield
    finally:
        compiled.choose(before)


def both(run: Callable[..., object], given: Circumstances, *arguments: object) -> tuple[object, object]:
    """What comes of something in the pure form, and in the compiled one."""
    with running("pure"):
        pure = run(circumstances(given), *arguments)
    with running("compiled"):
        return pure, run(circumstances(given), *arguments)
