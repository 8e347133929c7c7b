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
from typing import TYPE_CHECKING
from weakref import ref

from preforkd.workers.http.deadlines import Allowance, Deadline, Observed, Times, expired
from preforkd.workers.http.errors import BadRequestError
from preforkd.workers.http.intake import DISCARD, KEEP, SKIP
from preforkd.workers.http.leaving import Sign, sign_of
from preforkd.workers.http.states import ConnectionEvent, ConnectionState, following

if TYPE_CHECKING:
    from preforkd.workers.http.host import Host
    from preforkd.workers.http.intake import Intake
    from preforkd.workers.http.writer import ResponseWriter
    from preforkd.workers.tls_connection import TlsConnection

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


class Closer:
    """The end of one connection.

    Args:
        connection: what ends.
        intake: its way in.
        writer: its way out.
        allowed: how long things may take.
        times: those that its deadlines count from.

    Attributes:
        times: as given.
    """

    __slots__ = ("__weakref__", "_allowed", "_connection", "_intake", "_writer", "times")

    def __init__(
        self, connection: Host, intake: Intake, writer: ResponseWriter, allowed: Allowance, times: Times
    ) -> None:
        self._connection = connection
        self._intake = intake
        self._writer = writer
        self._allowed = allowed
        self.times = times

    def close(self, linger: bool = True) -> None:
        """Close after what was written has gone out.

        Args:
            linger: half-close first and discard what comes for a while, so that the response is not destroyed by a
                reset (RFC 9112 section 9.6).
        """
        connection = self._connection
        if connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        if self._writer.due:
            self._writer.flush()
        has_unread = self._intake.phase is not KEEP or bool(self._intake.tail)
        if self.times.cut and not has_unread:
            linger = False  # the worker is about to exit: what would be waited for is only the client's own close
        connection.state = following(connection.state, ConnectionEvent.CLOSE)
        self._intake.stop()
        transport = connection.transport
        if transport is None:
            return
        # asyncio's TLS transports cannot: there the client closes, or the time is over.
        half = transport.can_write_eof()
        self.times.linger = monotonic()
        stays = (linger and not connection.client_finished) or (half and self.may_leave_much())
        if not stays or transport.is_closing() or not (half or has_unread):
            transport.close()  # with TLS it waits half a minute for the client's close_notify: the linger cuts that
            return
        if half:
            try:
                transport.write_eof()
            except OSError:  # asyncio's own loop lets it out: the client has reset the connection meanwhile
                transport.abort()
                return
        self._intake.resume_reading()
        if self.times.cut and not has_unread:
            self._look_later()

    def may_leave_much(self) -> bool:
        """Whether the kernel may have more of what was written than it should keep for us. Costs no system call."""
        return self._writer.sent - self.times.delivered > LEFT_TO_KERNEL

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
        response = self._writer.response
        if response is not None and response.ends_with_connection and not response.is_complete:
            return True
        is_over = self._connection.state in (ConnectionState.IDLE, ConnectionState.CLOSING)
        return self.untaken() > 0 and (not is_over or self._writer.unsent() > 0 or self.times.stalls(monotonic()))

    def reset(self) -> None:
        """Close at once by a reset: the client sees that something is missing, and the kernel keeps nothing."""
        sock = self._socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever was written."""
        connection = self._connection
        connection.state = following(connection.state, ConnectionEvent.CLOSE)
        self._intake.phase = DISCARD
        if connection.transport is not None:
            connection.transport.abort()

    def closing(self, timeout: float = 15.0) -> None:
        """The worker is about to exit (the seed's contract).

        An idle connection closes now, unless bytes of a request have arrived; one in a request finishes it, and is cut
        by `cancel_slow_request()` after `timeout`.

        Args:
            timeout: seconds.
        """
        connection = self._connection
        connection.persistent = False
        idles = connection.state in (ConnectionState.NEW, ConnectionState.IDLE)
        if connection.state is ConnectionState.CLOSED:
            return
        if timeout > 0 and not self.times.cut and self.has_half_a_record():
            self._cut_in(timeout)
            connection.loop.call_later(min(HALF_HEAD_GRACE, timeout / 2), _close_again, ref(self))
        elif self._only_waits() if connection.state is ConnectionState.CLOSING else idles and not self._has_unread():
            self._close_behind_last(timeout)
        elif idles and self._intake.parser.partial:
            # Half a head: its sender gets a moment for the rest, but silence must not hold up a drain.
            self._cut_in(timeout)
            if timeout > 0:
                connection.loop.call_later(min(HALF_HEAD_GRACE, timeout / 2), _refuse_half_a_head, ref(self))
            else:
                self.refuse_half_a_head()
        else:
            self._cut_in(timeout)
            if timeout <= 0:
                connection.cancel_slow_request()
            elif self._intake.phase is SKIP:
                self.close_when_idle()

    def _close_behind_last(self, timeout: float) -> None:
        """Close a connection on which nothing is to come, behind the last response, when the client has taken it."""
        if timeout > 0 and self.untaken():
            # The close would come some turns of the loop behind the last byte, and the next request before it.
            self._cut_in(timeout)
            self._look_later()
        elif self._connection.state is not ConnectionState.CLOSING:
            self._cut_in(timeout)
            if self._finish_sending():
                self.close(linger=False)
        elif self._connection.transport is not None:
            # For the client's end, which may be long in coming: that must not hold up a drain.
            self._connection.transport.close()

    def _cut_in(self, timeout: float) -> None:
        """Have what is left cut in so many seconds, to the moment: drains are rare, a timer each is no cost."""
        at = monotonic() + timeout
        # A look at the same deadline again, or one that is later: the timer that runs sees to it.
        if timeout > 0 and (not self.times.cut or at < self.times.cut - 0.001):
            self._connection.loop.call_later(timeout, _cut_in_time, ref(self))
        self.times.cut = at

    def _look_later(self, waited: float = LOOK_AGAIN) -> None:
        self._connection.loop.call_later(LOOK_AGAIN, _look_again, ref(self), waited)

    def close_when_idle(self) -> None:
        """The worker is about to exit, and a response is complete that has said keep-alive: close if nothing comes."""
        connection = self._connection
        left = self.times.cut - monotonic()
        if left > 0:
            connection.loop.call_later(min(NEXT_REQUEST_GRACE, left / 2), _look_again, ref(self), 0.0)
        else:
            connection.closing(left)

    def _finish_sending(self) -> bool:
        """Have the client see the end in the very moment in which no request of its has been seen.

        The loop closes a transport some turns after it was told to, and a request that comes until then would be lost.

        Returns:
            False: a request has come, and nothing was ended.
        """
        transport = self._connection.transport
        if transport is None or not transport.can_write_eof() or self._writer.unsent():
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

    # What timers call, which hold no connection: it may have closed meanwhile, and the worker may serve on.

    def look_again(self, waited: float) -> None:
        """See whether the client has taken all of the last response; see `_look_again()`."""
        connection, times = self._connection, self.times
        if not times.cut or connection.state not in (ConnectionState.IDLE, ConnectionState.CLOSING):
            return
        if self.untaken():
            waited = min(2 * (waited or LOOK_AGAIN), LOOK_AGAIN_MAX)
            connection.loop.call_later(waited, _look_again, ref(self), waited)
        elif waited:  # perhaps in this very moment: a timer of a loop that was busy is due at once
            self._look_later(0.0)
        else:
            connection.closing(times.cut - monotonic())

    def close_again(self) -> None:
        """See whether the rest of a record of TLS has come."""
        if self.times.cut and self.has_half_a_record():
            self._connection.closing(self.times.cut - monotonic())

    def cut_in_time(self) -> None:
        """The time is over that `closing()` has given, unless it was given more since."""
        connection, times = self._connection, self.times
        if connection.state is ConnectionState.CLOSED or not times.cut:
            return
        left = times.cut - monotonic()
        if left > 0:
            connection.loop.call_later(left, _cut_in_time, ref(self))
            return
        try:
            connection.cancel_slow_request()
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 -- a subclass's own
            connection.report_error("Error in cancel_slow_request()", exc=exc)
            with contextlib.suppress(Exception, asyncio.CancelledError):
                connection.abort()

    def refuse_half_a_head(self) -> None:
        """Answer 408, if the rest of a head has not come."""
        waits = self._connection.state in (ConnectionState.NEW, ConnectionState.IDLE) and self._intake.parser.partial
        if waits and self.times.cut:  # else the worker serves on
            # The cut must not come between this and the answer, which is written some turns of the loop later.
            self._cut_in(max(self.times.cut - monotonic(), HALF_HEAD_GRACE))
            self.times.head = 0.0
            self._intake.refuse(BadRequestError("Request timeout", code=408))
            self._connection.proceed()

    def _only_waits(self) -> bool:
        """Whether a lingering connection is quiet: nothing comes whose arrival would cause a reset."""
        return not self._intake.discarded and not self._has_unread()

    def _has_unread(self) -> bool:
        """Whether bytes of a request have come, in the parser or still in the socket."""
        if self._intake.has_request or self._intake.parser.partial or self._intake.tail:
            return True
        if (tls := self._tls()) is not None and tls.unread():
            return True
        sock = self._socket()
        return sock is not None and sock.fileno() >= 0 and _is_readable(sock)

    def _tls(self) -> TlsConnection | None:
        """The TLS of the daemon, None for a plain connection and for one of asyncio's TLS."""
        transport = self._connection.transport
        found: TlsConnection | None
        found = transport.get_extra_info("tls_connection") if transport is not None else None
        return found

    def _socket(self) -> socket.socket | None:
        """Its socket; None: it is gone, or has none that one can ask."""
        transport = self._connection.transport
        found: socket.socket | None
        found = transport.get_extra_info("socket") if transport is not None else None
        return found

    def has_half_a_record(self) -> bool:
        """Whether a request may have come of which TLS cannot read anything yet."""
        if self._connection.state not in (ConnectionState.NEW, ConnectionState.IDLE):
            return False
        tls = self._tls()
        return tls is not None and tls.half_a_record()

    def cancel_slow_request(self) -> None:
        """Cancel the handler and close the transport (the seed's contract)."""
        self._connection.cancel_handler()
        self.cut()

    def check_deadlines(self, now: float) -> None:
        """Act on what has run out; called by the sweep."""
        connection, intake = self._connection, self._intake
        if intake.paused and connection.state is ConnectionState.ACTIVE:
            self._look_for_client()
        untaken = self.untaken()
        received = intake.parser.body_received if intake.waits_for_body else None
        observed = Observed(connection.state, connection.requests, received, self._writer.sent - untaken, untaken)
        deadline = expired(observed, self.times, self._allowed, now)
        if deadline is not None:
            self._act_on(deadline)

    def may_have_left(self) -> bool:
        """Whether the client has closed its side, be it in what was read or behind it."""
        return self._connection.client_finished or self.times.left == self._connection.requests

    def _look_for_client(self) -> None:
        """Notice that a client has left whose next requests, or whose body, are not read for now."""
        sock = self._socket()
        if sock is None or sock.fileno() < 0:
            return
        sign = sign_of(sock)
        if sign is Sign.GONE and self._connection.transport is not None:
            self._connection.transport.abort()
        elif sign is Sign.CLOSED_ITS_SIDE and self.times.left != self._connection.requests:
            self.times.left = self._connection.requests
            self._connection.client_has_closed()

    def untaken(self) -> int:
        """Bytes written that the client's system has not acknowledged; costs a system call only if there may be any."""
        sent = self._writer.sent
        if sent == self.times.delivered:
            return 0
        untaken = self._writer.unsent() + self._in_flight()
        if not untaken:
            self.times.delivered = sent
        return untaken

    def _in_flight(self) -> int:
        """Bytes that the kernel has and the client's has not."""
        sock = self._socket()
        if sock is None or sock.fileno() < 0:
            return 0
        size = array("i", [0])
        with contextlib.suppress(OSError):  # not every system tells (tcp(7), SIOCOUTQ)
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, size)
        return size[0]

    def _act_on(self, deadline: Deadline) -> None:
        if deadline in (Deadline.HEAD, Deadline.KEEP_ALIVE) and self._intake.has_request:
            return  # a request has come: the loop is late, not the client
        if deadline is Deadline.HEAD and self._intake.parser.partial:
            self.times.head = 0.0
            self._intake.refuse(BadRequestError("Request timeout", code=408))
            self._connection.proceed()
        elif deadline is Deadline.KEEP_ALIVE and self.has_half_a_record():
            self.times.head = monotonic()  # it has begun, and has the time of any head
        elif deadline in (Deadline.HEAD, Deadline.KEEP_ALIVE):
            # A request that is there already will be read in a moment.
            if not self._has_unread() and self._finish_sending():
                self.close(linger=False)
        elif deadline is Deadline.BODY:
            self._intake.fail_body(BadRequestError("Request timeout", code=408))
        elif deadline is Deadline.REST:
            self.close()
        elif deadline is Deadline.REQUEST:
            self._connection.expire_request()
        elif deadline is Deadline.WRITE:
            self.reset()
        else:
            self.abort()


def _is_readable(sock: socket.socket) -> bool:
    """Whether bytes have come that nobody has read, or the end."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _look_again(found: ref[Closer], waited: float) -> None:
    """The client may have taken all that the connection was to be closed behind. Timers hold no connection.

    Args:
        found: the end of the connection.
        waited: seconds since the last look, if something was not taken then; 0: all was.
    """
    closer = found()
    if closer is not None:
        closer.look_again(waited)


def _close_again(found: ref[Closer]) -> None:
    """The time for the rest of a record of TLS is over. The timer holds no connection."""
    closer = found()
    if closer is not None:
        closer.close_again()


def _refuse_half_a_head(found: ref[Closer]) -> None:
    """The time for the rest of a head is over. The timer holds no connection: it may have closed meanwhile."""
    closer = found()
    if closer is not None:
        closer.refuse_half_a_head()


def _cut_in_time(found: ref[Closer]) -> None:
    """The time is over that `closing()` has given a connection. The timer holds no connection."""
    closer = found()
    if closer is not None:
        closer.cut_in_time()
