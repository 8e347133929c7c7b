"""What a record becomes, for each reader."""

from __future__ import annotations

import json
import logging
import os
import pty
import sys
from pathlib import Path

import pytest

from preforkd.workers.log_lines import Style, coloured, formatter, priority, style_of


def record(level: int = logging.INFO, text: str = "text", **more: object) -> logging.LogRecord:
    made = logging.LogRecord("preforkd", level, "", 0, "%s", (text,), None)
    made.__dict__.update(more)
    return made


def test_an_event_is_said_with_its_fields() -> None:
    line = formatter("json", "master", Style.PLAIN).format(
        record(event="reload", fields={"result": "done", "odd": {1}})
    )
    entry = json.loads(line)
    assert (entry["event"], entry["result"], entry["odd"], entry["message"]) == ("reload", "done", "{1}", "text")
    assert "event" not in json.loads(formatter("json", "master", Style.PLAIN).format(record(event="", fields={})))


@pytest.mark.parametrize("form", ["text", "json"])
def test_each_line_for_the_journal_has_a_priority(form: str) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        said = record(logging.ERROR, "two\nlines", exc_info=sys.exc_info())
    lines = formatter(form, "master", Style.JOURNAL).format(said).splitlines()
    assert all(line.startswith("<3>") for line in lines)
    assert len(lines) == 1 if form == "json" else len(lines) > 4


def test_priorities_are_those_of_syslog() -> None:
    assert [priority(level) for level in (10, 20, 25, 30, 40, 50)] == [7, 6, 6, 4, 3, 2]


def test_a_terminal_alone_gets_colours() -> None:
    assert "\x1b[31mERROR\x1b[0m" in formatter("text", "master", Style.TERMINAL).format(record(logging.ERROR))
    assert "\x1b" not in formatter("text", "master", Style.PLAIN).format(record(logging.ERROR))
    assert "\x1b" not in formatter("json", "master", Style.TERMINAL).format(record(logging.ERROR))
    assert coloured("x", 503) == "\x1b[31mx\x1b[0m"


def test_what_reads_a_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        status = os.fstat(file.fileno())
        stream = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert style_of(file.fileno(), stream) is Style.JOURNAL
        assert style_of(file.fileno(), {"JOURNAL_STREAM": "1:2"}) is Style.PLAIN
    descriptors = pty.openpty()
    assert style_of(descriptors[1], {}) is Style.TERMINAL
    assert style_of(descriptors[1], {"NO_COLOR": "1"}) is Style.PLAIN
    assert style_of(descriptors[1], {"TERM": "dumb"}) is Style.PLAIN
    for descriptor in descriptors:
        os.close(descriptor)
