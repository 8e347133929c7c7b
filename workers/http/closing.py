"""How a connection ends: every way to close one, and what its deadlines do to it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
from array import array
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from preforkd.workers.http.connections import cut_in_time
from preforkd.workers.http.deadlines import Allowance, Deadline, Marks, Sight, expired
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.leaving import Sign, sign_of
from preforkd.workers.http.limits import Limits
from preforkd.workers.http.payload import EMPTY_PAYLOAD, PayloadStream
from preforkd.workers.http.states import ConnectionEvent, ConnectionState, following

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

    from preforkd.workers.edge import Edge
    from preforkd.workers.http.connections import Connections
    from preforkd.workers.http.exchange import Service
    from preforkd.workers.http.message import RequestMessage
    from preforkd.workers.http.parser import RequestParser
    from preforkd.workers.http.waiter import Rest, Wakeup
    from preforkd.workers.http.writer import ResponseWriter
    from preforkd.workers.proxy_protocol import ProxyHeader
    from preforkd.workers.tls_connection import TlsConnection

    Address = tuple[str, int]

# Seconds for the rest of a head when the worker is about to exit; half of the time that is left, if that is less, so
# that the answer does not fall into the moment of the exit.
HALF_HEAD_GRACE = 1.0
# Seconds for the next request behind a response that said keep-alive before the worker was about to exit: its client
# may have it ready. Half of the time that is left, if that is less.
NEXT_REQUEST_GRACE = 1.0
# Seconds to the first look whether all of the last response is taken when its connection is to be closed; twice that
# to the next, and so on.
LOOK_AGAIN = 0.02
LOOK_AGAIN_MAX = 0.5
# Bytes at most that a close leaves to the kernel, unless they are known to be taken. It sends them as well as we would,
# but keeps them for minutes for a client that does not read, where no limit of ours counts; and to wait for the
# client's acknowledgement costs a short connection a turn of the loop.
LEFT_TO_KERNEL = 16384

# Has the kernel keep bytes until the end that follows them: who sees them sees both.
_WITH_THE_END = getattr(socket, "MSG_MORE", 0)

# The intake: what is done with bytes that arrive, a detail within a state.
HEAD = 0  # they belong to a request's head
BODY = 1  # to its body
HOLD = 2  # the request is complete and is being handled: they are a later one's, and are kept unparsed
DRAIN = 3  # to the rest of a body that the handler did not read
DISCARD = 4  # nothing will be answered any more
RAW = 5  # to another protocol


class ClosingConnection(asyncio.Protocol):
    """The state of a connection and its end.

    Attributes:
        state: where the connection is in its life.
        transport: None when it is gone.
        reader: the parser of requests.
        writer: the way out.
        connections: the table of the loop's connections that this one is in.
        requests: how many there were, with the current one.
        persistent: whether the connection may stay open after this request at all; not any more when it drains.
        limits: what the client may cost.
        loop: the event loop.
        rest_may_be_long: more of the current body is still to come than would be drained if the handler does not read
            it, or nobody knows how much.
        client_finished: the client has closed its side.
        reading_paused: the socket is not read for now.
        continue_is_due: the client waits for `100 Continue` before it sends the body of the current request.
        proxy_header: what a PROXY header has said of the connection; None: there was none.
        peer_is_trusted: whether the peer's word on its clients counts; None: nobody has asked yet.
        speaks_for_others: the peer has spoken for a client of its own.
        service: what serves the requests; None: the connection itself, by `handle_request()`.
    """

    # Slots: more than 30 attributes in an instance's dictionary make every one of them slower. Subclasses of
    # ServerHttpProtocol get a dictionary as usual.
    __slots__ = (
        "__weakref__",
        "_allowed",
        "_bad",
        "_client",
        "_context",
        "_discarded",
        "_edge",
        "_given_loop",
        "_has_guard",
        "_intake",
        "_loop",
        "_marks",
        "_message",
        "_payload",
        "_receiver",
        "_remote",
        "_rest",
        "_scheme",
        "_tail",
        "_task",
        "_waited_for_others",
        "_wakeup",
        "client_finished",
        "connections",
        "continue_is_due",
        "limits", "loop",
        "peer_is_trusted",
        "persistent",
        "proxy_header",
        "reader",
        "reading_paused",
        "requests",
        "rest_may_be_long",
        "service",
        "speaks_for_others",
        "state",
        "transport",
        "writer",
    )  # fmt: skip

    reader: RequestParser
    writer: ResponseWriter
    connections: Connections
    loop: asyncio.AbstractEventLoop
    service: Service | None
    _wakeup: Wakeup
    _context: Context

    def __init__(self, loop: asyncio.AbstractEventLoop | None, limits: Limits, allowed: Allowance) -> None:
        self._given_loop = loop
        self._allowed = allowed
        self.limits = limits
        self.state = ConnectionState.NEW
        self.service = None
        self.transport: asyncio.Transport | None = None
        self.requests = 0
        self.persistent = True
        self._intake = HEAD
        self._tail = b""  # of later requests: came while another is being handled
        self._message: RequestMessage | None = None
        self._bad: BadRequestError | None = None
        self._payload: PayloadStream = EMPTY_PAYLOAD
        self._task: asyncio.Task[None] | None = None
        self._rest: Rest | Coroutine[Any, Any, None] | None = None
        self.reading_paused = self.client_finished = self.continue_is_due = False
        self.rest_may_be_long = False
        self._discarded = 0
        self._remote: str | None = None
        self._client: Address | None = None
        self._edge: Edge | None = None
        self._scheme = ""
        self._has_guard = False  # requests may be refused because there are too many
        self._waited_for_others = False  # of the client's own, in a pipeline
        self.proxy_header: ProxyHeader | None = None
        self.peer_is_trusted: bool | None = None
        self.speaks_for_others = False
        self._receiver: asyncio.Protocol | None = None
        self._marks = Marks()

    # What the other half of the class adds.

    def _refuse(self, exc: BadRequestError, data: bytes = b"") -> None:
        """Answer an error instead of a request."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Read the socket again."""
        raise NotImplementedError

    def client_has_closed(self) -> bool:
        """The client will send nothing behind what it has sent by now: mostly it is gone."""
        raise NotImplementedError

    def expire_request(self) -> None:
        """The request takes longer than `request_timeout`."""
        raise NotImplementedError

    def report_error(self, *args: object, exc: BaseException | None = None) -> None:
        """Log an error, whatever becomes of the log."""
        raise NotImplementedError

    # The end.

    def close(self, linger: bool = True) -> None:
        """Close after what was written has gone out.

        Args:
            linger: half-close first and discard what comes for a while, so that the response is not destroyed by a
                reset (RFC 9112 section 9.6).
        """
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        self.writer.flush()
        has_unread = self._intake != HOLD or bool(self._tail)
        if self._marks.cut and not has_unread:
            linger = False  # the worker is about to exit: what would be waited for is only the client's own close
        self.state = following(self.state, ConnectionEvent.CLOSE)
        self._intake = DISCARD
        self._discarded = 0
        self._tail = b""
        self._message = self._bad = None
        transport = self.transport
        if transport is None:
            return
        # asyncio's TLS transports cannot: there the client closes, or the time is over.
        half = transport.can_write_eof()
        self._marks.linger = monotonic()
        stays = (linger and not self.client_finished) or (half and self._may_leave_much())
        if not stays or transport.is_closing() or not (half or has_unread):
            transport.close()  # with TLS it waits half a minute for the client's close_notify: the linger cuts that
            return
        if half:
            try:
                transport.write_eof()
            except OSError:  # asyncio's own loop lets it out: the client has reset the connection meanwhile
                transport.abort()
                return
        self.resume_reading()
        if self._marks.cut and not has_unread:
            self._look_later()

    def _may_leave_much(self) -> bool:
        """Whether the kernel may have more of what was written than it should keep for us. Costs no system call."""
        return self.writer.sent - self._marks.delivered > LEFT_TO_KERNEL

    def cut(self) -> None:
        """End for a deadline, and leave nothing in the kernel for a client that does not read.

        What is complete, and is being taken by its client, the kernel may finish.
        """
        if self._cuts_response():
            self.reset()
        else:
            self.abort()

    def _cuts_response(self) -> bool:
        """Whether the client does not get all of the response by an end here and now, or does not take it."""
        response = self.writer.response
        if response is not None and response.ends_with_connection and not response.is_complete:
            return True
        is_over = self.state in (ConnectionState.IDLE, ConnectionState.CLOSING)
        return self.untaken() > 0 and (not is_over or self.writer.unsent() > 0 or self._marks.stalls(monotonic()))

    def reset(self) -> None:
        """Close at once by a reset: the client sees that something is missing, and the kernel keeps nothing."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever was written."""
        self.state = following(self.state, ConnectionEvent.CLOSE)
        self._intake = DISCARD
        if self.transport is not None:
            self.transport.abort()

    def closing(self, timeout: float = 15.0) -> None:
        """The worker is about to exit (the seed's contract).

        An idle connection closes now, unless bytes of a request have arrived; one in a request finishes it, and is cut
        by `cancel_slow_request()` after `timeout`.

        Args:
            timeout: seconds.
        """
        self.persistent = False
        idles = self.state in (ConnectionState.NEW, ConnectionState.IDLE)
        if self.state is ConnectionState.CLOSED:
            return
        if timeout > 0 and not self._marks.cut and self._has_half_a_record():
            self._cut_in(timeout)
            self.loop.call_later(min(HALF_HEAD_GRACE, timeout / 2), _close_again, ref(self))
        elif self._only_waits() if self.state is ConnectionState.CLOSING else idles and not self._has_unread():
            self._close_behind_last(timeout)
        elif idles and self.reader.partial:
            # Half a head: its sender gets a moment for the rest, but silence must not hold up a drain.
            self._cut_in(timeout)
            if timeout > 0:
                self.loop.call_later(min(HALF_HEAD_GRACE, timeout / 2), _refuse_half_a_head, ref(self))
            else:
                self._refuse_half_a_head()
        else:
            self._cut_in(timeout)
            if timeout <= 0:
                self.cancel_slow_request()
            elif self._intake == DRAIN:
                self.close_when_idle()

    def _close_behind_last(self, timeout: float) -> None:
        """Close a connection on which nothing is to come, behind the last response, when the client has taken it."""
        if timeout > 0 and self.untaken():
            # The close would come some turns of the loop behind the last byte, and the next request before it.
            self._cut_in(timeout)
            self._look_later()
        elif self.state is not ConnectionState.CLOSING:
            self._cut_in(timeout)
            if self._finish_sending():
                self.close(linger=False)
        elif self.transport is not None:
            self.transport.close()  # for the client's end, which may be long in coming: that must not hold up a drain

    def _cut_in(self, timeout: float) -> None:
        """Have what is left cut in so many seconds, to the moment: drains are rare, a timer each is no cost."""
        at = monotonic() + timeout
        # A look at the same deadline again, or one that is later: the timer that runs sees to it.
        if timeout > 0 and (not self._marks.cut or at < self._marks.cut - 0.001):
            self.loop.call_later(timeout, cut_in_time, ref(self))
        self._marks.cut = at

    def _look_later(self) -> None:
        self.loop.call_later(LOOK_AGAIN, _look_again, ref(self), LOOK_AGAIN)

    def close_when_idle(self) -> None:
        """The worker is about to exit, and a response is complete that has said keep-alive: close if nothing comes."""
        left = self._marks.cut - monotonic()
        if left > 0:
            self.loop.call_later(min(NEXT_REQUEST_GRACE, left / 2), _look_again, ref(self), 0.0)
        else:
            self.closing(left)

    def _finish_sending(self) -> bool:
        """Have the client see the end in the very moment in which no request of its has been seen.

        The loop closes a transport some turns after it was told to, and a request that comes until then would be lost.

        Returns:
            False: a request has come, and nothing was ended.
        """
        transport = self.transport
        if transport is None or not transport.can_write_eof() or self.writer.unsent():
            return True  # the end comes behind the rest of the last response
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            tls = self._tls()
            # A duplicate: the sockets that loops lend out cannot be shut down.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as duplicate:
                # Looked at last: what comes behind this look is lost, and all that is above takes longer than the end.
                if _is_readable(duplicate):
                    return False
                if tls is not None:
                    duplicate.send(tls.farewell(), _WITH_THE_END)
                duplicate.shutdown(socket.SHUT_WR)
        return True

    def _refuse_half_a_head(self) -> None:
        waits = self.state in (ConnectionState.NEW, ConnectionState.IDLE) and self.reader.partial
        if waits and self._marks.cut:  # else the worker serves on
            # The cut must not come between this and the answer, which is written some turns of the loop later.
            self._cut_in(max(self._marks.cut - monotonic(), HALF_HEAD_GRACE))
            self._marks.head = 0.0
            self._refuse(BadRequestError("Request timeout", code=408))

    def _only_waits(self) -> bool:
        """Whether a lingering connection is quiet: nothing comes whose arrival would cause a reset."""
        return not self._discarded and not self._has_unread()

    def _has_unread(self) -> bool:
        """Whether bytes of a request have come, in the parser or still in the socket."""
        if self._message is not None or self._bad is not None or self.reader.partial or self._tail:
            return True
        if (tls := self._tls()) is not None and tls.unread():
            return True
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        return sock is not None and sock.fileno() >= 0 and _is_readable(sock)

    def _tls(self) -> TlsConnection | None:
        """The TLS of the daemon, None for a plain connection and for one of asyncio's TLS."""
        found: TlsConnection | None
        found = self.transport.get_extra_info("tls_connection") if self.transport is not None else None
        return found

    def _has_half_a_record(self) -> bool:
        """Whether a request may have come of which TLS cannot read anything yet."""
        if self.state not in (ConnectionState.NEW, ConnectionState.IDLE):
            return False
        tls = self._tls()
        return tls is not None and tls.half_a_record()

    def cancel_slow_request(self) -> None:
        """Cancel the handler and close the transport (the seed's contract)."""
        self.cancel_handler()
        self.cut()

    def cancel_handler(self) -> None:
        """Cancel the handler of the current request, if there is one."""
        if self._task is not None and (self._wakeup.callback is None or self._wakeup.held):
            self._task.cancel()

    def check_deadlines(self, now: float) -> None:
        """Act on what has run out; called by the sweep."""
        if self.reading_paused and self.state is ConnectionState.ACTIVE:
            self._look_for_client()
        untaken = self.untaken()
        waits_for_body = self._intake in (BODY, DRAIN) and not self.reading_paused and not self.continue_is_due
        received = self.reader.body_received if waits_for_body else None
        sight = Sight(self.state, self.requests, received, self.writer.sent - untaken, untaken)
        deadline = expired(sight, self._marks, self._allowed, now)
        if deadline is not None:
            self._act_on(deadline)

    def may_have_left(self) -> bool:
        """Whether the client has closed its side, be it in what was read or behind it."""
        return self.client_finished or self._marks.left == self.requests

    def _look_for_client(self) -> None:
        """Notice that a client has left whose next requests, or whose body, are not read for now."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None or sock.fileno() < 0:
            return
        sign = sign_of(sock)
        if sign is Sign.GONE and self.transport is not None:
            self.transport.abort()
        elif sign is Sign.CLOSED_ITS_SIDE and self._marks.left != self.requests:
            self._marks.left = self.requests
            self.client_has_closed()

    def untaken(self) -> int:
        """Bytes written that the client's system has not acknowledged; costs a system call only if there may be any."""
        sent = self.writer.sent
        if sent == self._marks.delivered:
            return 0
        untaken = self.writer.unsent() + self._in_flight()
        if not untaken:
            self._marks.delivered = sent
        return untaken

    def _in_flight(self) -> int:
        """Bytes that the kernel has and the client's has not."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None or sock.fileno() < 0:
            return 0
        size = array("i", [0])
        with contextlib.suppress(OSError):  # not every system tells (tcp(7), SIOCOUTQ)
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, size)
        return size[0]

    def _act_on(self, deadline: Deadline) -> None:
        if deadline in (Deadline.HEAD, Deadline.KEEP_ALIVE) and (self._message is not None or self._bad is not None):
            return  # a request has come: the loop is late, not the client
        if deadline is Deadline.HEAD and self.reader.partial:
            self._marks.head = 0.0
            self._refuse(BadRequestError("Request timeout", code=408))
        elif deadline is Deadline.KEEP_ALIVE and self._has_half_a_record():
            self._marks.head = monotonic()  # it has begun, and has the time of any head
        elif deadline in (Deadline.HEAD, Deadline.KEEP_ALIVE):
            # A request that is there already will be read in a moment.
            if not self._has_unread() and self._finish_sending():
                self.close(linger=False)
        elif deadline is Deadline.BODY:
            self._payload.set_exception(BadRequestError("Request timeout", code=408))
            self._intake = DISCARD
            self.persistent = False
        elif deadline is Deadline.REST:
            self.close()
        elif deadline is Deadline.REQUEST:
            self.expire_request()
        elif deadline is Deadline.WRITE:
            self.reset()
        else:
            self.abort()


def _is_readable(sock: socket.socket) -> bool:
    """Whether bytes have come that nobody has read, or the end."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _look_again(connection: ref[ClosingConnection], waited: float) -> None:
    """The client may have taken all that the connection was to be closed behind. Timers hold no connection.

    Args:
        connection: the connection.
        waited: seconds since the last look, if something was not taken then; 0: all was.
    """
    protocol = connection()
    if protocol is None or not protocol._marks.cut:
        return
    if protocol.state is not ConnectionState.IDLE and protocol.state is not ConnectionState.CLOSING:
        return
    if protocol.untaken():
        waited = min(2 * (waited or LOOK_AGAIN), LOOK_AGAIN_MAX)
        protocol.loop.call_later(waited, _look_again, connection, waited)
    elif waited:  # perhaps in this very moment: a timer of a loop that was busy is due at once
        protocol.loop.call_later(LOOK_AGAIN, _look_again, connection, 0.0)
    else:
        protocol.closing(protocol._marks.cut - monotonic())


def _close_again(connection: ref[ClosingConnection]) -> None:
    """The time for the rest of a record of TLS is over. The timer holds no connection."""
    protocol = connection()
    if protocol is not None and protocol._marks.cut and protocol._has_half_a_record():
        protocol.closing(protocol._marks.cut - monotonic())


def _refuse_half_a_head(connection: ref[ClosingConnection]) -> None:
    """The time for the rest of a head is over. The timer holds no connection: it may have closed meanwhile."""
    protocol = connection()
    if protocol is not None:
        protocol._refuse_half_a_head()
