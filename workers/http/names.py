"""The vocabulary of requests: field names and methods that HTTP repeats by definition, in fixed tables.

Nothing that a client sends gets into these tables. A name that is not in them is served all the same, only looked at
anew each time.
"""

from __future__ import annotations

# The fields that have a meaning for the protocol itself: RFC 9110, 9112 and 6455.
MEANT = frozenset(
    b"host connection content-length transfer-encoding expect upgrade content-encoding"
    b" sec-websocket-key sec-websocket-version".split()
)

# What clients, browsers, proxies and load balancers send besides.
PLAIN = tuple(
    b"accept accept-charset accept-encoding accept-language access-control-request-headers"
    b" access-control-request-method alt-used authorization cache-control cdn-loop cf-connecting-ip cf-ipcountry"
    b" cf-ray cf-visitor client-ip content-disposition content-language content-location content-md5 content-range"
    b" content-type cookie date dnt downlink dpr early-data ect etag fastly-client-ip forwarded from if-match"
    b" if-modified-since if-none-match if-range if-unmodified-since keep-alive last-event-id last-modified link"
    b" max-forwards mcp-protocol-version mcp-session-id origin pragma prefer priority proxy-authorization"
    b" proxy-connection purpose range referer rtt save-data sec-ch-ua sec-ch-ua-arch sec-ch-ua-mobile"
    b" sec-ch-ua-model sec-ch-ua-platform sec-ch-ua-platform-version sec-fetch-dest sec-fetch-mode sec-fetch-site"
    b" sec-fetch-user sec-gpc sec-websocket-extensions sec-websocket-protocol soapaction te traceparent tracestate"
    b" trailer true-client-ip upgrade-insecure-requests user-agent via warning x-amzn-trace-id x-api-key"
    b" x-b3-parentspanid x-b3-sampled x-b3-spanid x-b3-traceid x-client-ip x-cloud-trace-context x-correlation-id"
    b" x-csrf-token x-csrftoken x-envoy-attempt-count x-envoy-expected-rq-timeout-ms x-envoy-external-address"
    b" x-envoy-original-path x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port"
    b" x-forwarded-prefix x-forwarded-proto x-forwarded-scheme x-forwarded-server x-forwarded-ssl"
    b" x-http-method-override x-original-url x-real-ip x-request-id x-request-start x-requested-with x-rewrite-url"
    b" x-scheme x-trace-id x-xsrf-token".split()
)

# By which proxies say who the client is and what it has asked for: of anybody else a claim (`forwarded.py`).
FORWARDING = frozenset(
    b"cf-connecting-ip client-ip fastly-client-ip forwarded front-end-https true-client-ip x-client-ip"
    b" x-cluster-client-ip x-envoy-external-address x-forwarded x-forwarded-by x-forwarded-client-cert x-forwarded-for"
    b" x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto x-forwarded-protocol x-forwarded-scheme"
    b" x-forwarded-server x-forwarded-ssl x-original-forwarded-for x-original-host x-original-url x-real-ip"
    b" x-rewrite-url x-scheme x-url-scheme".split()
)
# By which they say the id of a request (`request_id.py`).
REQUEST_IDS = frozenset(b"x-request-id x-correlation-id".split())
NOTED = FORWARDING | REQUEST_IDS
# What is noted of a head that has such fields; it is looked at once more for that, the others are not.
TELLS, HAS_ID, ODDLY, SEVERAL_IDS = 1, 2, 4, 8
# Above these bits is the place of the (first) field with an id among the fields: so nobody has to look for it.
PLACE_OF_ID = 4


def is_forwarding(name: bytes) -> bool:
    """Whether a field says what proxies say, by its name in lower case, however it is spelled."""
    return bool(note_of(name) & TELLS)


def note_of(name: bytes) -> int:
    """Return what is noted of a head for a field of that name, in lower case; 0: nothing.

    ODDLY is one with underscores, which apps that make variables of names (CGI, WSGI) take for the one with hyphens.
    """
    plain = name.replace(b"_", b"-")
    note = HAS_ID if plain in REQUEST_IDS else TELLS if plain in FORWARDING or plain.startswith(b"x-forwarded-") else 0
    return note | ODDLY if note and plain != name else note


def noted_with(noted: int, note: int, place: int) -> int:
    """Return what is noted of a head with one more field.

    Args:
        noted: so far.
        note: for the field.
        place: of the field.
    """
    if note & HAS_ID:
        noted |= SEVERAL_IDS if noted & HAS_ID else place << PLACE_OF_ID
    return noted | note


def _spellings(name: bytes) -> set[bytes]:
    """Those in which clients send a name: lower case, a capital for each word, and what they are used to."""
    return {name, name.title(), _HABITS.get(name, name)}


_HABITS = {
    b"dnt": b"DNT", b"etag": b"ETag", b"soapaction": b"SOAPAction", b"te": b"TE", b"x-request-id": b"X-Request-ID",
}  # fmt: skip
# From the spelling of a plain name that is not noted to its lower case: one lookup a field.
LOWER = {spelling: name for name in PLAIN if name not in NOTED for spelling in _spellings(name)}

# Those that llhttp, which most servers have below them, knows; RFC 9110 section 9 and the registry of methods.
METHODS = {
    method.encode(): method
    for method in (
        "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "COPY", "LOCK", "MKCOL", "MOVE",
        "PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "BIND", "REBIND", "UNBIND", "ACL", "REPORT", "MKACTIVITY",
        "CHECKOUT", "MERGE", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PATCH", "PURGE", "MKCALENDAR", "LINK",
        "UNLINK", "SOURCE", "QUERY",
    )
}  # fmt: skip
# Those that are known and not served: of a proxy, and of protocols that look like HTTP.
UNSERVED_METHODS = frozenset(
    b"CONNECT PRI DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH".split()
)
