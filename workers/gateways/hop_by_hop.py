"""Fields of a response that belong to the connection, which is the server's, and what becomes of an app's.

They are left out: gunicorn, uWSGI and mod_wsgi let such apps run, and examples of server-sent events set them. What an
app can mean by them and have is that the connection ends: `Connection: close` is kept to.
"""

from __future__ import annotations

import logging
import threading

# RFC 2616 section 13.5.1, to which PEP 3333 refers, and what predates its standard (RFC 9110 section 7.6.1).
_OF_BOTH = ("connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade")
WSGI_NAMES = frozenset((*_OF_BOTH, "proxy-authenticate", "proxy-authorization", "trailer", "trailers"))
# An ASGI app may have trailers, and nothing forbids it to be a proxy.
ASGI_NAMES = frozenset(name.encode() for name in _OF_BOTH)

UPGRADE_REQUIRED = 426


class HopByHopFields:
    """What is done with such fields of one app, in any thread.

    Args:
        logger: where it is said, once for each name, that one is left out.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: set[str] = set()  # bounded by the names above
        self._telling = threading.Lock()

    def is_sent(self, name: str, status: int) -> bool:
        """Whether one is sent after all: a 426 has to say to what (RFC 9110 section 15.5.22).

        Args:
            name: in lower case.
            status: of the response.
        """
        return name == "upgrade" and status == UPGRADE_REQUIRED

    def asks_to_close(self, name: str, value: str) -> bool:
        """Leave one out; return whether it says that the connection ends with this response.

        Args:
            name: in lower case.
            value: as the app has given it.
        """
        if name == "connection" and "close" in (option.strip().lower() for option in value.split(",")):
            return True
        if name not in self._told:
            self._tell(name, value)
        return False

    def _tell(self, name: str, value: str) -> None:
        with self._telling:
            if name in self._told:
                return
            self._told.add(name)
        self._logger.warning(
            "the app sets %s: %.100r in a response: that is left out, for it belongs to the connection, which is the"
            " server's (said once for each name)",
            name,
            value,
        )
