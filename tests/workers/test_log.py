"""The daemon's log lines."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import logging.config
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preforkd.workers import log


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    handlers, level, propagate = log.LOGGER.handlers[:], log.LOGGER.level, log.LOGGER.propagate
    yield
    log.LOGGER.handlers[:] = handlers
    log.LOGGER.setLevel(level)
    log.LOGGER.propagate = propagate


def configure(role: str, **options: str) -> None:
    """With standard error as the test has it."""
    log.open_standard()
    log.configure(role, **options)


def test_a_text_line_says_when_how_bad_who_and_what(capfd: pytest.CaptureFixture[str]) -> None:
    configure("worker 0")
    log.LOGGER.warning("%d of %d", 1, 2)
    line = capfd.readouterr().err
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z WARNING worker 0\[{os.getpid()}\] 1 of 2\n", line)


def test_a_json_line_holds_whatever_the_message_holds(capfd: pytest.CaptureFixture[str]) -> None:
    configure("master", form="json")
    log.LOGGER.error('a "quote"\nand a line')
    (line,) = capfd.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["role"], entry["pid"]) == ("error", "master", os.getpid())
    assert entry["message"] == 'a "quote"\nand a line'


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_part_of_the_entry(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    configure("master", form=form)
    try:
        raise ValueError("broken")
    except ValueError:
        log.LOGGER.exception("trouble")
    assert "ValueError: broken" in capfd.readouterr().err


def test_the_level_holds_and_is_case_blind(capfd: pytest.CaptureFixture[str]) -> None:
    configure("master", level="error")
    log.LOGGER.info("quiet")
    assert capfd.readouterr().err == ""


def test_the_level_can_be_changed_meanwhile(capfd: pytest.CaptureFixture[str]) -> None:
    configure("worker 0", level="error")
    log.set_level("debug")
    log.LOGGER.debug("now it is said")
    log.set_level("critical")
    log.LOGGER.error("now it is not")
    assert re.findall("now it is.*", capfd.readouterr().err) == ["now it is said"]


def test_the_levels_are_those_of_logging() -> None:
    assert {name: getattr(logging, name.upper()) for name in log.LEVELS} == log.LEVELS


def test_text_that_cannot_be_encoded_is_written_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    configure("master")
    log.LOGGER.error("path \udcff")
    assert "path \\udcff" in capfd.readouterr().err


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The reading end of a full pipe that is standard error."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    saved = os.dup(log.STDERR)
    os.dup2(writer, log.STDERR)
    log.open_standard()
    yield reader
    os.dup2(saved, log.STDERR)
    for descriptor in (saved, writer, reader):
        os.close(descriptor)


def test_a_full_pipe_stops_nothing_and_gets_its_lines_when_it_has_room(full_pipe: int) -> None:
    log.configure("master")
    for number in range(10):
        log.LOGGER.error("line %d", number)
    assert log.waits()
    log.flush()
    assert log.waits()
    os.read(full_pipe, 1 << 20)
    log.flush()
    assert not log.waits()
    assert re.findall(r"line (\d)\n", os.read(full_pipe, 1 << 20).decode()) == list("0123456789")
    assert log.lost() == 0


def test_lost_lines_are_told_when_it_flows_again_also_with_another_configuration(full_pipe: int) -> None:
    log.configure("master")
    for _ in range(3):
        log.LOGGER.error("x" * 500_000)
    log.configure("master", form="json")
    assert log.lost() == 1
    while log.waits():
        os.read(full_pipe, 1 << 20)
        log.flush()
    text = os.read(full_pipe, 1 << 20).decode()
    assert "1 line of this log was lost" in text
    log.flush()
    log.LOGGER.error("next")
    assert "lost" not in os.read(full_pipe, 1 << 20).decode()


@pytest.mark.alone  # it forks
def test_a_child_has_nothing_of_what_its_parent_has_still_to_write(full_pipe: int) -> None:
    log.configure("master")
    log.LOGGER.error("the parent's")
    pid = os.fork()
    if pid == 0:
        os._exit(log.waits() or log.lost() > 0)
    assert os.waitpid(pid, 0)[1] == 0
    assert log.waits()


def test_the_end_waits_a_moment_for_the_last_lines_and_no_longer(full_pipe: int) -> None:
    log.configure("master")
    log.LOGGER.error("last")
    began = time.monotonic()
    log.finish()
    assert time.monotonic() - began < 5
    assert log.lost() == 1


def test_standard_error_is_what_it_was_when_the_daemon_was_started(capfd: pytest.CaptureFixture[str]) -> None:
    configure("worker 0")
    saved = os.dup(log.STDERR)
    os.close(log.STDERR)
    try:
        log.LOGGER.error("closed")
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), log.STDERR)
        log.LOGGER.error("redirected")
    finally:
        os.dup2(saved, log.STDERR)
        os.close(saved)
    assert [line.split()[-1] for line in capfd.readouterr().err.splitlines()] == ["closed", "redirected"]


def test_a_closed_standard_error_is_nowhere() -> None:
    saved = os.dup(log.STDERR)
    os.close(log.STDERR)
    try:
        configure("master")
        log.LOGGER.error("to nobody")
    finally:
        os.dup2(saved, log.STDERR)
        os.close(saved)


@pytest.fixture
def app_logging() -> Iterator[None]:
    """What an app does to logging is undone."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogRecordFactory()
    loggers = logging.Logger.manager.loggerDict
    known = {name: (one.disabled, one.level) for name, one in loggers.items() if isinstance(one, logging.Logger)}
    yield
    logging.disable(logging.NOTSET)
    root.handlers[:], root.level = before[:2]
    logging.setLogRecordFactory(before[2])
    for name, one in loggers.items():
        if isinstance(one, logging.Logger):
            one.disabled, level = known.get(name, (False, logging.NOTSET))
            one.setLevel(level)


def refuse(*_arguments: object, **_keywords: object) -> logging.LogRecord:
    raise AssertionError("the record of the app's own")


INI = """
[loggers]
keys=root
[handlers]
keys=all
[formatters]
keys=
[logger_root]
level=DEBUG
handlers=all
[handler_all]
class=StreamHandler
args=(sys.stderr,)
"""


@pytest.mark.parametrize(
    "configured",
    [
        lambda: logging.config.dictConfig({"version": 1, "disable_existing_loggers": True}),
        lambda: logging.config.dictConfig({"version": 1, "loggers": {"preforkd": {"level": "CRITICAL"}}}),
        lambda: logging.config.fileConfig(io.StringIO(INI)),
        lambda: logging.basicConfig(force=True, level=logging.DEBUG, stream=sys.stderr),
        lambda: logging.disable(logging.CRITICAL),
        lambda: logging.setLogRecordFactory(refuse),
        lambda: logging.shutdown(),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_whatever_an_app_configures_a_line_is_there_once(
    configured: Callable[[], object], first: bool, app_logging: None, capfd: pytest.CaptureFixture[str]
) -> None:
    if first:
        configured()
    configure("worker 0")
    if not first:
        configured()
    log.LOGGER.error("here")
    log.ServerLogger("preforkd.more", log.LOGGER).warning("more")
    log.LOGGER.debug("not this")
    assert [line.split()[-1] for line in capfd.readouterr().err.splitlines()] == ["here", "more"]
