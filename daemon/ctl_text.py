"""What `preforkctl` says, as text for people: from the JSON of /status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

LAST_EVENTS: Final = 8
HEAD: Final = (
    "SLOT",
    "GEN",
    "PID",
    "STATE",
    "AGE",
    "CONN",
    "ACTIVE",
    "REQ/S",
    "P50",
    "P95",
    "P99",
    "CPU",
    "MEMORY",
    "LAG",
)
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


def status(found: Mapping[str, Any]) -> str:
    """Return the status of the daemon in a screenful.

    Args:
        found: as /status answers it.
    """
    requests = found["requests"]
    state = "ready" if found["ready"] else "NOT READY: " + "; ".join(found["reasons"])
    lines = [
        f"{found['app']} on {', '.join(found['listeners'])}:"
        f" process {found['master_pid']}, up {duration(found['uptime'])}",
        f"{state}; {found['phase']}, generation {found['generation']}"
        + (f" (to {found['target_generation']})" if found["target_generation"] != found["generation"] else "")
        + f", {found['workers_ready']} of {found['workers_wanted']} workers ready"
        + _log_levels(found),
        f"requests: {requests['per_second']:g}/s, {requests['errors_per_second']:g} errors/s,"
        f" {requests['active']} active, {requests['total']} since the start;"
        f" p50 {_ms(requests['p50'])}, p95 {_ms(requests['p95'])}, p99 {_ms(requests['p99'])};"
        f" {found['connections']} connections",
        "",
        *table(HEAD, [worker(one) for one in found["workers"]]),
    ]
    events = found["events"][-LAST_EVENTS:]
    if events:
        lines += ["", "last events:", *(event(one) for one in events)]
    return "\n".join(lines)


def requests(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the requests in flight as a table.

    Args:
        found: as `in_flight` of /status.
    """
    if not found:
        return "no request waits for anything"
    rows = [[f"{one['seconds']:.1f} s", str(one["slot"]), str(one["pid"]), one["method"], one["path"]] for one in found]
    return "\n".join(table(("AGE", "SLOT", "PID", "METHOD", "PATH"), rows))


def memory(found: Mapping[str, Any], top: int) -> str:
    """Return what grows in a worker.

    Args:
        found: as the worker has left it.
        top: lines of each table at most.
    """
    before, after = found["resident"]
    resident = "" if None in (before, after) else f"; the process from {_size(before)} to {_size(after)}"
    head = (
        f"in {found['seconds']:.1f} s {_size(found['size'])} in {found['blocks']} blocks were allocated"
        f" and not given back{resident}"
    )
    state = "on as before, by the app" if found["traced_by_app"] else "off again"
    cost = (
        f"tracemalloc took {_size(found['overhead'])} for itself, and held the worker up for"
        f" {found['longest_pause'] * 1000:.1f} ms at most; it is {state}"
    )
    rows = [
        [_size(size), str(blocks), _size(late), f"{file}:{line}", source]
        for file, line, size, blocks, late, source in found["lines"][:top]
    ]
    types = [[str(more), str(number), name] for name, more, number in found["types"][:top]]
    return "\n".join(
        [
            head,
            cost,
            "",
            *table(("GROWTH", "BLOCKS", "2ND HALF", "WHERE", "SOURCE"), rows),
            "",
            *table(("MORE", "NOW", "OBJECTS OF TYPE (that the garbage collector knows)"), types),
        ]
    )


def _size(number: int) -> str:
    if abs(number) < 1 << 20:
        return f"{number / 1024:.1f} KiB"
    return f"{number / (1 << 20):.1f} MiB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns: text to the left, what begins with a digit to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    right = [all(row[index][:1].isdigit() or row[index] == "-" for row in rows) for index in range(len(head))]
    return [_line(row, widths, right) for row in (head, *rows)]


def _line(row: Iterable[str], widths: Iterable[int], right: Iterable[bool]) -> str:
    cells = zip(map(printable, row), widths, right, strict=True)
    return "  ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in cells).rstrip()


def printable(text: str) -> str:
    """Return a text of a stranger, as a path is, without what a terminal would obey."""
    return "".join(one if one.isprintable() else "?" for one in text)


def lines(text: str) -> str:
    """Return a text of several lines, each as by `printable`."""
    return "\n".join(map(printable, text.splitlines()))


def duration(seconds: float) -> str:
    """Return a time in the two units that matter: `3 h 12 min`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    words: list[str] = []
    left = int(seconds)
    for size, unit in _UNITS:
        if left >= size or words:
            words.append(f"{left // size} {unit}")
            left %= size
    return " ".join(words[:2])


def _log_levels(found: Mapping[str, Any]) -> str:
    """Name the level of the log, and those of workers that have another one."""
    level = found.get("log_level")
    others = [
        f"{one['slot']}: {one['log_level']}" for one in found["workers"] if one.get("log_level") not in (None, level)
    ]
    return (f", log level {level}" if level else "") + (f" (worker {', '.join(others)})" if others else "")


def worker(one: Mapping[str, Any]) -> list[str]:
    """Return a worker as the cells below `HEAD`."""
    return [
        str(one["slot"]),
        str(one["generation"]),
        str(one["pid"] or "-"),
        one["state"] if one["silent"] < 2 else f"{one['state']}, silent for {duration(one['silent'])}",
        duration(one["age"]),
        str(one["connections"]),
        str(one["active"]),
        f"{one['per_second']:g}",
        *(_ms(one[name]) for name in ("p50", "p95", "p99")),
        "-" if one["cpu"] is None else f"{one['cpu'] * 100:.0f} %",
        "-" if one["memory"] is None else f"{one['memory'] / (1 << 20):.0f} MiB",
        _ms(one["loop_lag"]),
    ]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def event(one: Mapping[str, Any]) -> str:
    """Return an event as one line."""
    when = datetime.fromtimestamp(one["when"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    first, _, more = one["text"].partition("\n")
    return f"{when} {one['level']:<8} {printable(first)}" + (" ..." if more else "")
