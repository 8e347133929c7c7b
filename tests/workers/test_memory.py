"""What a worker costs: the memory that it shares is nobody's alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from preforkd.workers import memory

MB = 1 << 20
HOLD = """
import os, sys
from preforkd.workers import memory
before = memory.own()
block = bytearray({size})
block[::4096] = b"x" * len(block[::4096])
print(memory.own() - before)
if os.fork() == 0:
    print(memory.own() - before)
    block[::4096] = b"y" * len(block[::4096])
    print(memory.own() - before)
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""
needs_rollup = pytest.mark.skipif(not memory.SMAPS_ROLLUP.exists(), reason="only Linux tells what a process shares")


@needs_rollup
def test_what_a_process_shares_with_its_parent_costs_nothing_until_it_is_written_to() -> None:
    code = HOLD.format(size=64 * MB)
    output = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, check=True).stdout
    alone, shared, written = (int(line) / MB for line in output.split())
    assert 60 < alone < 80
    assert shared < 20
    assert written - shared > 60


@pytest.mark.parametrize("text", [None, "", "Rss: 5 kB\n", "garbage"])
def test_where_the_kernel_does_not_tell_it_is_all_that_is_resident(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "smaps_rollup"
    if text is not None:
        path.write_text(text)
    assert memory.own(path) == pytest.approx(memory.resident(), rel=0.1)


def test_the_private_pages_are_added_up(tmp_path: Path) -> None:
    path = tmp_path / "smaps_rollup"
    path.write_text(
        "563d7da0b000-7ffe1d68b000 ---p 00000000 00:00 0   [rollup]\nRss:  9000 kB\nShared_Clean:  1652 kB\n"
        "Shared_Dirty:  3 kB\nPrivate_Clean:      4456 kB\nPrivate_Dirty:   1028840 kB\nPrivate_Hugetlb: 7 kB\n"
    )
    assert memory.own(path) == (4456 + 1028840) * 1024


def test_a_limit_is_passed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident", lambda: 100)
    monkeypatch.setattr(memory, "own", lambda: 60)
    assert [memory.beyond(limit) for limit in (59, 60, 99, 100)] == [60, None, None, None]


@needs_rollup
def test_the_expensive_number_is_only_asked_for_when_the_cheap_one_is_beyond_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked() -> int:
        raise AssertionError("the kernel would walk all pages")

    monkeypatch.setattr(memory, "own", asked)
    assert memory.beyond(memory.resident() + 100 * MB) is None
