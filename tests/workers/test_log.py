"""The daemon's log lines."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator

import pytest

from preforkd.workers import log


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    handlers, level, propagate = log.LOGGER.handlers[:], log.LOGGER.level, log.LOGGER.propagate
    yield
    log.LOGGER.handlers[:] = handlers
    log.LOGGER.setLevel(level)
    log.LOGGER.propagate = propagate


def test_a_text_line_says_when_how_bad_who_and_what(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("worker 0")
    log.LOGGER.warning("%d of %d", 1, 2)
    line = capfd.readouterr().err
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z WARNING worker 0\[{os.getpid()}\] 1 of 2\n", line)


def test_a_json_line_holds_whatever_the_message_holds(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("master", form="json")
    log.LOGGER.error('a "quote"\nand a line')
    (line,) = capfd.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["role"], entry["pid"]) == ("error", "master", os.getpid())
    assert entry["message"] == 'a "quote"\nand a line'


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_part_of_the_entry(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("master", form=form)
    try:
        raise ValueError("broken")
    except ValueError:
        log.LOGGER.exception("trouble")
    assert "ValueError: broken" in capfd.readouterr().err


def test_the_level_holds_and_is_case_blind(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("master", level="error")
    log.LOGGER.info("quiet")
    assert capfd.readouterr().err == ""


def test_the_levels_are_those_of_logging() -> None:
    assert {name: getattr(logging, name.upper()) for name in log.LEVELS} == log.LEVELS


def test_text_that_cannot_be_encoded_is_written_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("master")
    log.LOGGER.error("path \udcff")
    assert "path \\udcff" in capfd.readouterr().err


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    log.configure("master")
    reader, writer = os.pipe()
    os.close(reader)
    saved = os.dup(log.STDERR)
    try:
        os.dup2(writer, log.STDERR)
        log.LOGGER.error("nobody reads this")
    finally:
        os.dup2(saved, log.STDERR)
        os.close(saved)
        os.close(writer)
