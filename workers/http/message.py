"""The head of a request as handlers see it."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from collections.abc import Callable

Address = tuple[str, int]
Fields = list[tuple[bytes, bytes]]
RawHeaders = tuple[tuple[bytes, bytes], ...]


class HttpVersion(NamedTuple):
    """An HTTP version; compares as a tuple: `message.version < (1, 1)`."""

    major: int
    minor: int


HttpVersion10 = HttpVersion(1, 0)
HttpVersion11 = HttpVersion(1, 1)


class Forwarded(NamedTuple):
    """What trusted proxies say of a request, see `forwarded.py`.

    Attributes:
        client: its address and port (0: not said); None: a proxy hides it, or nobody knows.
        scheme: "http" or "https"; empty: not said.
        authority: what the client has asked for as `Host`, if that is another than was sent; else empty.
        server: its host and port; None: nothing was said of them.
        prefix: the path that was stripped, percent-encoded as it was, without a slash at its end.
    """

    client: Address | None
    scheme: str = ""
    authority: bytes = b""
    server: Address | None = None
    prefix: str = ""


class RequestMessage:
    """Request line and headers (the seed's contract).

    Slots, which the compiled parser fills without `__init__()`.

    Attributes:
        method: as sent, the case kept (RFC 9110 section 9.1: methods are case-sensitive).
        path: the request target as sent (RFC 9112 section 3.2), printable ASCII.
        version: `HttpVersion10` or `HttpVersion11`.
        fields: the fields as pairs of bytes, names in lower case, values without the white space around them. With a
            target in absolute form, `Host` is the target's authority (RFC 9112 section 3.2.2).
        should_close: the client asked for the connection to end after this request, or its HTTP version implies it.
        compression: 'gzip' or 'deflate' when the body is sent in that content coding, else None.
        has_upgrade: there is an `Upgrade` field, whatever it says.
        upgrade: the client asks to switch to WebSocket with a valid handshake (RFC 6455 section 4.2.1).
        chunked: the body is sent in the chunked transfer coding.
        content_length: the announced length in bytes, None when there is none.
        expect_continue: the client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
        noted: what there is of fields by which proxies say something, whoever has sent them; see `names.py`.
        request_id: the id by which it is known; empty: it has none.
        id_line: the field that says so in the response, as a line of its head.
        forwarded: what trusted proxies say of the client; None: nothing, and the connection's own client asks.
        head_size: bytes that its head had, with the empty line; 0: it did not come as one.

    Args:
        head: the bytes that `fields` were read from, for their names as sent; empty: those are the names in `fields`.
    """

    __slots__ = (
        "_head", "_headers", "chunked", "compression", "content_length", "expect_continue", "fields", "forwarded",
        "has_upgrade", "head_size", "id_line", "method", "noted", "path", "request_id", "should_close", "upgrade",
        "version",
    )  # fmt: skip

    def __init__(
        self, method: str, path: str, version: HttpVersion, fields: Fields, should_close: bool, head: bytes = b""
    ) -> None:
        self.method = method
        self.path = path
        self.version = version
        self.fields = fields
        self.should_close = should_close
        self.compression: str | None = None
        self.chunked = self.expect_continue = self.has_upgrade = self.upgrade = False
        self.content_length: int | None = None
        self.noted = 0
        self.request_id = ""
        self.id_line = b""
        self.forwarded: Forwarded | None = None
        self.head_size = len(head)
        self._head = head
        self._headers: CIMultiDictProxy[str] | None = None

    @property
    def raw_headers(self) -> RawHeaders:
        """The fields with their names as sent."""
        if not self._head:
            return tuple(self.fields)
        lines = self._head.split(b"\r\n")[1:-2]
        sent = [(line[: len(name)], value) for line, (name, value) in zip(lines, self.fields, strict=False)]
        return (*sent, *self.fields[len(lines) :])  # behind them what was added here

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The fields as a read-only case-insensitive multidict; built when first asked for.

        Bytes that are not UTF-8 come as surrogate escapes, so that no value is lost or altered.
        """
        headers = self._headers
        if headers is None:
            headers = self._headers = CIMultiDictProxy(
                CIMultiDict(
                    [
                        (name.decode("ascii"), value.decode("utf-8", "surrogateescape"))
                        for name, value in self.raw_headers
                    ]
                )
            )
        return headers

    def replace_host(self, authority: bytes) -> None:
        """Have another `Host`, whatever was sent.

        The authority of a target in absolute form (RFC 9112 section 3.2.2), or the one that a trusted proxy tells.
        """
        self.take_out(lambda name: name == b"host")
        if self._head:
            line, rest = self._head.split(b"\r\n", 1)
            self._head = b"\r\n".join([line, b"Host: " + authority, rest])
        self.fields.insert(0, (b"host", authority))

    def take_out(self, unwanted: Callable[[bytes], bool]) -> None:
        """Have the app not see fields.

        Args:
            unwanted: tells which by their name in lower case.
        """
        fields = self.fields
        kept = [not unwanted(name) for name, _ in fields]
        if all(kept):
            return
        if self._head:
            line, *lines, _, _ = self._head.split(b"\r\n")
            self._head = b"\r\n".join([line, *compress(lines, kept), b"", b""])
        self.fields = list(compress(fields, kept))
        self._headers = None

    def replace_list(self, name: bytes, elements: list[bytes]) -> None:
        """Have the fields of a name be one, with these elements.

        Args:
            name: in lower case.
            elements: of the list (RFC 9110 section 5.6.1); without any there is no such field.
        """
        self.take_out(lambda one: one == name)
        if elements:
            self.fields.append((name, b", ".join(elements)))

    def __repr__(self) -> str:
        return f"<RequestMessage {self.method} {self.path} HTTP/{self.version.major}.{self.version.minor}>"
