"""The response of an ASGI app: its head comes as byte pairs, its end may have trailers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from preforkd.workers.gateways.hop_by_hop import ASGI_NAMES
from preforkd.workers.http import compiled
from preforkd.workers.http.fields import meaning_of
from preforkd.workers.http.response import Response

if TYPE_CHECKING:
    from preforkd.workers.gateways.hop_by_hop import HopByHopFields

# Fields that are the same in most responses of an app, checked and formatted once: a lookup costs 0.1 us, the checks
# 0.8. Content-Length comes with its number. Bounded, oldest out first. Those of `_REPEATED` are kept at once, others
# when a value comes twice in a row: one that is never the same, as X-Request-Id, must not push them out. The compiled
# form makes a line in less than a lookup takes, and remembers nothing.
_FIELDS: dict[tuple[bytes, bytes], tuple[bytes, int | None]] = {}
_FIELDS_MAX = 1024
_FIELD_SIZE_MAX = 512
_LAST: dict[bytes, bytes] = {}
_LAST_MAX = 512
_REPEATED = frozenset(
    b"access-control-allow-origin cache-control content-length content-type expires pragma referrer-policy"
    b" strict-transport-security vary x-content-type-options x-frame-options".split()
)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch

# RFC 9110 section 6.5.1: a trailer must not be needed for framing, routing, authentication or the content's form.
_NO_TRAILERS = frozenset(
    b"authorization cache-control connection content-encoding content-length content-range content-type date expect"
    b" host keep-alive max-forwards proxy-authenticate proxy-authorization range server set-cookie te trailer"
    b" transfer-encoding upgrade www-authenticate".split()
)


@compiled.in_both_forms
class AsgiResponse(Response):
    """A `Response` that takes its fields as ASGI has them."""

    _trailers: bytes = b""

    def add_pairs(self, pairs: Iterable[tuple[bytes, bytes]], hop_by_hop: HopByHopFields) -> None:
        """Add the fields of `http.response.start`.

        Args:
            pairs: of name and value.
            hop_by_hop: what is done with those that are the server's.

        Raises:
            TypeError: a name or a value is not bytes.
            ValueError: it would break the head, or is an invalid length.
        """
        lines = self.lines
        for pair in pairs:
            try:
                field = _FIELDS.get(pair) if pair.__class__ is tuple else None
            except TypeError:
                field = None  # a bytearray, say: refused below
            if field is None:
                self._add_pair(*pair, hop_by_hop)
                continue
            line, length = field
            if length is None:
                lines.append(line)
            elif self.content_length is None:
                self.content_length = length
                self.length_line = line
            else:
                self._add_pair(*pair, hop_by_hop)

    def _add_pair(self, name: bytes, value: bytes, hop_by_hop: HopByHopFields) -> None:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(f"header names and values are bytes in ASGI, not {name!r}: {value!r}")
        lower = name.lower()
        if lower in ASGI_NAMES and not self._takes_hop_by_hop(lower, value, hop_by_hop):
            return
        if not value.isascii():
            self._add_opaque(name, value)
            return
        before = len(self.lines)
        self.add_header(name.decode("latin-1"), value.decode("ascii"))
        if len(value) > _FIELD_SIZE_MAX:
            return
        if lower in _REPEATED or (_LAST.get(name) == value and not meaning_of(name.decode("ascii"))):
            if len(_FIELDS) >= _FIELDS_MAX:
                del _FIELDS[next(iter(_FIELDS))]
            if lower == b"content-length":
                _FIELDS[name, value] = self.length_line, self.content_length
            elif len(self.lines) == before + 1:
                _FIELDS[name, value] = self.lines[-1], None
        elif name in _LAST or len(_LAST) < _LAST_MAX:
            _LAST[name] = value

    def _takes_hop_by_hop(self, name: bytes, value: bytes, fields: HopByHopFields) -> bool:
        """Deal with a field that belongs to the connection; true when it is sent all the same."""
        text = name.decode("ascii")
        if fields.is_sent(text, self.status):
            return True
        if fields.asks_to_close(text, value.decode("latin-1")):
            self.force_close()
        return False

    def _add_opaque(self, name: bytes, value: bytes) -> None:
        """A value that is not ASCII goes out byte for byte as it is, whatever its encoding (RFC 9110 section 5.5)."""
        if _CONTROL(value) or not _TOKEN(name):
            raise ValueError(f"invalid header: {name!r}: {value!r}")
        self.lines.append(b"%b: %b\r\n" % (name, value))

    def has_length(self) -> bool:
        """Whether the app has said how long the body is."""
        return self.content_length is not None

    def add_trailers(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Add fields for the end of the body.

        Raises:
            TypeError: a name or a value is not bytes.
            ValueError: it would break the framing, or may not be a trailer.
        """
        for name, value in pairs:
            if not isinstance(name, bytes) or not isinstance(value, bytes):
                raise TypeError(f"trailer names and values are bytes in ASGI, not {name!r}: {value!r}")
            if not _TOKEN(name) or _CONTROL(value) or name.lower() in _NO_TRAILERS:
                raise ValueError(f"not a valid trailer: {name!r}: {value!r}")
            self._trailers += name + b": " + value + b"\r\n"

    def end_with_trailers(self) -> None:
        """End the body with the trailers; without chunks there is no place for them, and it just ends."""
        self.end(self._trailers)


def as_bytes(body: object) -> bytes:
    """Return the body of a message.

    Raises:
        TypeError: it is none.
    """
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"the body of http.response.body must be bytes, not {type(body).__name__}")


def pairs_of(message: Any) -> Iterable[tuple[bytes, bytes]]:
    """Return the header pairs of an ASGI message; they are optional."""
    pairs: Iterable[tuple[bytes, bytes]] = message.get("headers", ())
    return pairs
