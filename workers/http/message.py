"""The head of a request as handlers see it."""

from __future__ import annotations

from typing import Any, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

RawHeaders = tuple[tuple[bytes, bytes], ...]


class HttpVersion(NamedTuple):
    """An HTTP version; compares as a tuple: `message.version < (1, 1)`."""

    major: int
    minor: int


HttpVersion10 = HttpVersion(1, 0)
HttpVersion11 = HttpVersion(1, 1)


class RequestMessage:
    """Request line and headers (the seed's contract).

    The rare properties are class attributes until a request has them: an instance then costs 0.2 us instead of 0.4.

    Attributes:
        method: as sent, the case kept (RFC 9110 section 9.1: methods are case-sensitive).
        path: the request target as sent (RFC 9112 section 3.2), printable ASCII.
        version: `HttpVersion10` or `HttpVersion11`.
        raw_headers: the fields as sent, names and values as bytes; values may still have white space around them.
            With a target in absolute form, `Host` is the target's authority (RFC 9112 section 3.2.2).
        should_close: the client asked for the connection to end after this request, or its HTTP version implies it.
        compression: 'gzip' or 'deflate' when the body is sent in that content coding, else None.
        upgrade: the client asks to switch to WebSocket with a valid handshake (RFC 6455 section 4.2.1).
        chunked: the body is sent in the chunked transfer coding.
        content_length: the announced length in bytes, None when there is none.
        expect_continue: the client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
        memo: what this package has made of a head that comes again and again, for the next time; None: this is none.
    """

    compression: str | None = None
    upgrade: bool = False
    chunked: bool = False
    content_length: int | None = None
    expect_continue: bool = False
    _headers: CIMultiDictProxy[str] | None = None

    def __init__(
        self,
        method: str,
        path: str,
        version: HttpVersion,
        raw_headers: RawHeaders,
        should_close: bool,
        memo: dict[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.version = version
        self.raw_headers = raw_headers
        self.should_close = should_close
        self.memo = memo

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The fields as a read-only case-insensitive multidict; built when first asked for.

        Bytes that are not UTF-8 come as surrogate escapes, so that no value is lost or altered.
        """
        headers = self._headers
        if headers is None:
            # SP and HTAB only: str.strip() would also take VT, FF and NBSP (RFC 9110 section 5.5).
            headers = self._headers = CIMultiDictProxy(
                CIMultiDict(
                    (name.decode("ascii"), value.strip(b" \t").decode("utf-8", "surrogateescape"))
                    for name, value in self.raw_headers
                )
            )
        return headers

    def lower_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the fields with lower-case names and stripped values as bytes: what the gateways hand to apps."""
        return [(name.lower(), value.strip(b" \t")) for name, value in self.raw_headers]

    def __repr__(self) -> str:
        return f"<RequestMessage {self.method} {self.path} HTTP/{self.version.major}.{self.version.minor}>"
