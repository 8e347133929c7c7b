"""What goes wrong with a request, and whose fault it is.

A `HttpProcessingError` is the client's fault (or the handler's wish) and carries the status to answer with. A
`ClientDisconnectedError` has nobody left to answer. A `ResponseError` is a mistake of the handler in its own response.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preforkd.workers.http.message import RequestMessage

HeaderPairs = Mapping[str, str | int] | Iterable[tuple[str, str | int]]


class HttpProcessingError(Exception):
    """Raised by a handler (or the parser) to have the request answered by an error page (the seed's contract).

    Args:
        code: the HTTP status to answer with.
        message: text for the reason of the page; empty: the standard phrase of the status.
        headers: more headers of the error response, as a mapping or as pairs.
    """

    code = 500
    message = ""
    headers: HeaderPairs | None = None

    def __init__(self, code: int | None = None, message: str = "", headers: HeaderPairs | None = None) -> None:
        super().__init__(code if code is not None else self.code, message)
        if code is not None:
            self.code = code
        self.message = message
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.code}, message={self.message!r}"


class BadRequestError(HttpProcessingError):
    """The bytes are not a valid HTTP/1.1 request: 400, and nothing more is parsed on this connection.

    Attributes:
        request: what is known of the request; None when its request line was not understood. The answer depends on the
            method (HEAD has no body), and the access log shows the line.
    """

    code = 400
    request: RequestMessage | None = None

    def __init__(self, message: str = "", code: int | None = None) -> None:
        super().__init__(code, message)


class ClientDisconnectedError(ConnectionError):
    """The client is gone, or its request body was cut by the end of the connection (RFC 9112 section 8)."""


class ResponseError(RuntimeError):
    """The handler used a `Response` against its contract: twice, out of order, or with a wrong Content-Length."""


def overloaded() -> HttpProcessingError:
    """Return what a request is refused with that could not be served in time; another server may have room."""
    return HttpProcessingError(503, headers={"Retry-After": "1"})
