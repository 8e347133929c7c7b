"""What the kernel can send, and what is read in a thread instead."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from preforkd.workers.http.sendfile import measured
from tests.workers.gateways.wsgi.serving import MODES, Environ, StartResponse, serve

CONTENT = os.urandom(500_000)


def status(mode: int, size: int, blocks: int) -> os.stat_result:
    return cast("os.stat_result", SimpleNamespace(st_mode=mode, st_size=size, st_blocks=blocks))


@pytest.mark.parametrize(
    ("mode", "size", "blocks", "expected"),
    [
        (stat.S_IFREG, 5, 8, 5),
        (stat.S_IFREG, 10**9, 0, 10**9),  # nothing but a hole
        (stat.S_IFREG, 0, 0, None),  # /proc
        (stat.S_IFREG, mmap.PAGESIZE, 0, None),  # /sys
        (stat.S_IFIFO, 5, 8, None),
        (stat.S_IFCHR, 5, 8, None),
    ],
)
def test_only_a_file_on_a_disk_has_a_size_to_rely_on(mode: int, size: int, blocks: int, expected: int | None) -> None:
    assert measured(status(mode, size, blocks)) == expected


@pytest.mark.parametrize("threads", MODES.values(), ids=MODES)
def test_a_file_that_the_kernel_cannot_send_after_all_is_read_in_a_thread(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    readers = set()
    sendfile, pread = os.sendfile, os.pread

    def half(connection: int, file: int, offset: int, size: int) -> int:
        if offset > 100_000:
            raise OSError(errno.EINVAL, "no sendfile on this file system")
        return sendfile(connection, file, offset, min(size, 70_000))

    def noted(*args: Any) -> bytes:
        readers.add(threading.current_thread().name)
        return pread(*args)

    monkeypatch.setattr(os, "sendfile", half)
    monkeypatch.setattr(os, "pread", noted)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with serve(app, threads) as served, served.connect() as connection:
        for _ in range(2):
            assert connection.get().body == CONTENT
    assert readers
    assert all(name.startswith("uvloop_") for name in readers), "those of the loop's pool"
