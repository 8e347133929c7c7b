"""What the app prints, as lines of the log."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from preforkd.workers import capture, log


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if "recursive" in self.lines[-1]:
            print("from a handler")


@contextlib.contextmanager
def capturing() -> Iterator[list[str]]:
    """No fixture: pytest gives each phase of a test streams of its own. The lines of the log."""
    handler, logger = Kept(), log.LOGGER
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = [handler], False
    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        log.open_standard()
        capture.install()
        yield handler.lines
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_a_print_is_a_line_whatever_the_level_is() -> None:
    with capturing() as lines:
        log.LOGGER.setLevel("CRITICAL")
        print("one", 2)
        print("a", end="")
        print("b\nc")
        sys.stderr.write("odd \udcff\n")
        sys.stdout.buffer.write(b"bytes\xff\r\n")
        print("rest", end="")
        capture.finish()
        assert lines == ["one 2", "ab", "c", "odd \\udcff", "bytes\\xff", "rest"]


def test_threads_do_not_mix_their_lines() -> None:
    with capturing() as lines:
        print("he", end="")
        thread = threading.Thread(target=print, args=("other",))
        thread.start()
        thread.join()
        print("llo")
        assert lines == ["other", "hello"]


def test_a_line_without_an_end_is_written_at_last() -> None:
    with capturing() as lines:
        print("x" * (capture.LONGEST + 1), end="")
        assert [len(line) for line in lines] == [capture.LONGEST + 1]


def test_what_a_handler_of_the_log_prints_is_not_logged_again(capfd: pytest.CaptureFixture[str]) -> None:
    with capturing() as lines:
        print("recursive")
        assert lines == ["recursive"]
    assert capfd.readouterr().err == "from a handler\n"


def test_a_stream_has_the_descriptor_of_the_real_one() -> None:
    with capturing():
        assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
        assert not sys.stdout.isatty()
