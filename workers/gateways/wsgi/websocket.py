"""WebSocket from WSGI: refused.

PEP 3333 has no place for it. What other servers give their apps is the client's socket (`gunicorn.socket`,
`werkzeug.socket`), on which the app speaks WebSocket by itself: a thread for each client as long as it is there, past
our TLS, limits and deadlines, and with nobody to tell the client 1012 when its worker leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from preforkd.workers.http.errors import HttpProcessingError

if TYPE_CHECKING:
    import logging

    from preforkd.workers.gateways.wsgi.environ import Environ

_told: set[str] = set()


def refuse_websocket(environ: Environ, logger: logging.Logger) -> None:
    """Refuse a request that has an Upgrade field, if it asks for a WebSocket, be it with a valid handshake or not.

    Before the app sees it: libraries that look for a socket raise when there is none, a traceback for each attempt.

    Raises:
        HttpProcessingError: 501. Clients of Socket.IO stay with long polling then.
    """
    if (
        environ["REQUEST_METHOD"] != "GET"
        or environ["SERVER_PROTOCOL"] != "HTTP/1.1"
        or not _has_token(environ["HTTP_UPGRADE"], "websocket")
        or not _has_token(environ.get("HTTP_CONNECTION", ""), "upgrade")
    ):
        return
    if not _told:
        _told.add("once")
        logger.warning(
            "WebSocket is not served for WSGI apps: the handshake for %s is answered 501, and others without a word; "
            "an ASGI app can have it",
            environ["PATH_INFO"],
        )
    raise HttpProcessingError(501, "WebSocket is not available for WSGI apps")


def _has_token(value: str, token: str) -> bool:
    return any(part.strip(" \t") == token for part in value.lower().split(","))
