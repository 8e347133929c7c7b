"""Lines on their way out: their order, their wholeness, what is kept and what is lost; the way is a fake."""

from __future__ import annotations

import errno
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers.output import SAY_EVERY, Losses, Output, packed


class FakeWay:
    """Takes so many bytes, or raises."""

    whole = 20

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.error: OSError | None = None
        self.taken = b""
        self.closed = False
        self.writes: list[bytes] = []
        self.long = True

    def has_room(self, size: int) -> bool:
        return self.long

    def write(self, data: bytes) -> int:
        self.writes.append(data)
        if self.error is not None:
            raise self.error
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "full")
        sent = min(self.room, len(data))
        self.taken += data[:sent]
        self.room -= sent
        return sent

    def fileno(self) -> int:
        return 7

    def close(self) -> None:
        self.closed = True


def make(way: FakeWay, room: int = 1000) -> Output:
    return Output(way, Losses("the log", "the file"), room)


def test_what_finds_room_is_not_kept() -> None:
    way = FakeWay(1000)
    output = make(way)
    output.write(b"a\n")
    assert (way.taken, output.waits, output.error, output.size) == (b"a\n", False, None, 0)
    assert output.fileno() == 7


def test_what_finds_none_is_kept_in_order_and_joined() -> None:
    way = FakeWay()
    output = make(way)
    for line in (b"1234567\n", b"a\n", b"b\n", b"c" * 19 + b"\n"):
        output.write(line)
    assert isinstance(output.error, BlockingIOError)
    assert not output.flush()
    way.room = 1000
    way.writes.clear()
    assert output.flush()
    assert way.taken == b"1234567\na\nb\n" + b"c" * 19 + b"\n"
    assert len(way.writes) == 3
    assert output.error is None
    assert not output.waits


def test_the_rest_of_a_line_comes_first() -> None:
    way = FakeWay(3)
    output = make(way)
    output.write(b"12345\n")
    output.write(b"x\n")
    assert way.taken == b"123"
    assert not output.flush()
    way.room = 1000
    output.flush()
    assert way.taken == b"12345\nx\n"


def test_a_long_line_waits_until_it_goes_out_whole_but_not_in_its_middle() -> None:
    way = FakeWay(30)
    way.long = False
    output = make(way)
    long = b"y" * 40 + b"\n"
    output.write(long)
    assert not output.flush()
    assert isinstance(output.error, BlockingIOError)
    assert way.writes == []
    way.long = True
    assert not output.flush()
    assert way.taken == long[:30]
    way.long, way.room = False, 1000
    assert output.flush()
    assert way.taken == long


def test_what_is_kept_is_bounded_and_the_rest_is_counted() -> None:
    way = FakeWay()
    output = make(way, room=10)
    output.write(b"1234567\n", 2)
    output.write(b"abc\n", 3)
    output.write(b"z\n")
    assert (output.lost, output.size) == (3, 10)
    way.room = 1000
    output.flush()
    assert way.taken == b"1234567\nz\n"
    assert output.news() == "3 lines of the log were lost"
    assert output.news() is None


def test_a_message_that_a_socket_never_takes_holds_up_no_other() -> None:
    way = FakeWay()
    output = make(way)
    output.write(b"long\n")
    output.write(b"x\n")
    real = way.write

    def send(data: bytes) -> int:
        if b"long" in data:
            raise OSError(errno.EMSGSIZE, "Message too long")
        return real(data)

    output._send = send
    way.room = 100
    assert output.flush()
    assert (way.taken, output.lost) == (b"x\n", 1)


def test_a_file_that_is_opened_anew_gets_what_was_kept_but_no_half_line() -> None:
    old, new = FakeWay(2), FakeWay(1000)
    output = make(old)
    output.write(b"half\n")
    output.write(b"whole\n")
    output.redirect(new)
    assert old.closed
    assert output.flush()
    assert (new.taken, output.lost) == (b"whole\n", 1)


def test_at_the_end_what_does_not_go_out_counts_as_lost() -> None:
    output = make(FakeWay())
    output.write(b"a\n", 2)
    output.finish(0.0)
    assert (output.lost, output.waits, output.size) == (2, False, 0)


@given(st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"") + b"\n")), st.integers(1, 40))
def test_pieces_are_all_lines_whole_and_no_longer_than_allowed(lines: list[bytes], whole: int) -> None:
    pieces = list(packed(lines, whole))
    assert b"".join(piece for piece, _ in pieces) == b"".join(lines)
    assert [number for piece, number in pieces] == [piece.count(b"\n") for piece, _ in pieces]
    assert all(len(piece) <= whole or number == 1 for piece, number in pieces)
    assert all(len(a) + len(b.split(b"\n")[0]) + 1 > whole for (a, _), (b, _) in itertools.pairwise(pieces))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(32, "Broken pipe")]
)
def test_an_error_is_said_every_ten_seconds_and_the_number_at_the_end(error: OSError) -> None:
    losses = Losses("the log", "/file")
    first = losses.news(0, error, 100.0)
    assert first == f"the log cannot be written to /file: {error.strerror}"
    assert losses.news(5, error, 100.0 + SAY_EVERY - 0.1) is None
    again = losses.news(12345, error, 100.0 + SAY_EVERY)
    assert again == f"{first}; 12,345 lines lost so far"
    assert losses.news(12346, None, 111.0) == (
        f"12,346 lines of the log were lost: /file could not be written ({error.strerror})"
    )
    assert losses.news(12346, None, 112.0) is None
    assert losses.news(12347, None, 113.0) == (
        f"1 line of the log was lost: /file could not be written ({error.strerror})"
    )


def test_a_pipe_that_is_full_is_no_news_before_a_line_is_lost() -> None:
    losses = Losses("the log", "standard output")
    full = BlockingIOError(errno.EAGAIN, "full")
    assert losses.news(0, full, 0.0) is None
    assert losses.news(1, full, 0.0) == (
        "the log cannot be written to standard output: nobody reads it; 1 line lost so far"
    )
