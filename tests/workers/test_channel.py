"""Messages between a worker and its master."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers.channel import (
    LENGTH,
    LIMIT,
    TEXT_LIMIT,
    ChannelError,
    Decoder,
    Drain,
    Failed,
    GotTerm,
    Hello,
    Message,
    Pause,
    Ready,
    Reopen,
    Resume,
    Retire,
    encode,
)

TIMES = st.floats(allow_nan=False, allow_infinity=False)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, st.integers(1, 1 << 22)),
    st.builds(Ready),
    st.builds(Failed, st.text(), st.text(), st.text()),
    st.builds(GotTerm),
    st.builds(Retire, st.text()),
    st.builds(Pause, TIMES),
    st.builds(Resume),
    st.builds(Drain, TIMES, TIMES, st.booleans()),
    st.builds(Reopen),
)


@given(st.lists(MESSAGES), st.integers(1, 64))
def test_messages_arrive_whole_and_in_order_however_the_stream_is_cut(messages: list[Message], size: int) -> None:
    stream = b"".join(map(encode, messages))
    decoder = Decoder()
    arrived = [m for start in range(0, len(stream), size) for m in decoder.feed(stream[start : start + size])]
    assert arrived == messages


def test_a_long_text_is_cut_and_still_arrives() -> None:
    (message,) = Decoder().feed(encode(Failed("import", "x" * 10**6, "y" * 10**6)))
    assert message == Failed("import", "x" * TEXT_LIMIT, "y" * TEXT_LIMIT)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'["Ready"]',
        b'["Nonsense", {}]',
        b'["Ready", {"x": 1}]',
        b"\xff",
        b"[[], {}]",
        b'["Pause", {"deadline": "x"}]',
        b'["Retire", {"reason": 7}]',
        b'["Hello", {"pid": true}]',
        b'["Pause", {"deadline": NaN}]',
    ],
)
def test_what_is_not_a_message_is_an_error(body: bytes) -> None:
    with pytest.raises(ChannelError, match="not a message"):
        list(Decoder().feed(LENGTH.pack(len(body)) + body))


def test_a_length_beyond_the_limit_is_an_error_before_anything_is_buffered() -> None:
    with pytest.raises(ChannelError, match=str(LIMIT)):
        list(Decoder().feed(LENGTH.pack(LIMIT + 1)))
