"""Properties over random divisions and mutations of requests.

Never an unhandled exception, never two responses to a request, never a response to bytes behind an error, and the
division of the bytes into portions changes nothing. The coverage-guided target in `tests/fuzz/` checks the same.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.properties import check
from tests.workers.http.test_parser import REFUSED, REQUESTS

requests = st.lists(st.sampled_from([*REQUESTS, *REFUSED]), min_size=1, max_size=4).map(b"".join)
interesting = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"Host: a\r\n", b"Content-Length: 5\r\n", b"0\r\n\r\n",
     b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"\r\n\r\n", b"HTTP/1.0",
     b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"GET / HTTP/1.1\r\n", b"5\r\nhello\r\n", b"-", b"+", b"\xff"]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(requests))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at:at] = draw(interesting)
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == 2:
            data[at:at] = draw(st.binary(min_size=1, max_size=4))
        else:
            data[at:at] = data[draw(st.integers(0, len(data))) :][:30]
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(mutated(), st.lists(st.integers(0, 400), max_size=8), st.booleans())
@example(b"".join(REQUESTS), [], False)
@example(b"\r\nHEAD http://b/ HTTP/1.1\r\n\r\nHost: a\r\n\r\n", [], False)
@example(
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nConnection: close\r\n\r\n" * 2, [70], True
)
def test_no_input_breaks_the_protocol(data: bytes, cuts: list[int], eof: bool) -> None:
    check(data, cuts, eof)
