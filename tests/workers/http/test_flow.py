"""A connection does the same in both forms, whatever is said on it and whatever its handlers do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers.http import compiled
from tests.workers.http.conversations import DEEDS, HEADS, KINDS, have, portions

pytestmark = pytest.mark.skipif(compiled.MISSING != "", reason=f"nothing was compiled here: {compiled.MISSING}")

PLAIN = b"GET /answer HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", KINDS)
@given(number=st.integers(0, 1 << 32))
def test_conversations(kind: str, number: int) -> None:
    said = portions(Random(number))
    assert have("compiled", kind, said, number) == have("pure", kind, said, number)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deed", sorted(set(DEEDS)))
def test_each_deed_with_each_head(kind: str, deed: str) -> None:
    for number, head in enumerate(HEADS):
        for line, body in (
            (b"GET /%b HTTP/1.1", b""),
            (b"POST /%b HTTP/1.1\r\nContent-Length: 3", b"abc"),
            (b"HEAD /%b HTTP/1.1", b""),
        ):
            one = line % deed.encode() + b"\r\n" + head + b"\r\n\r\n" + body
            for said in ([one, PLAIN, one], [one + PLAIN + one]):
                assert have("compiled", kind, said, number) == have("pure", kind, said, number)
