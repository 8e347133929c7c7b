"""`wsgi.file_wrapper`: files that the kernel sends (PEP 3333, "Optional Platform-Specific File Handling")."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, NamedTuple

from preforkd.workers.http.sendfile import measured


class FileWrapper:
    """A file as the body of a response, from where it stands.

    Args:
        filelike: has `read(size)`, and `close()` if there is something to close.
        blksize: bytes to read at a time, when the kernel cannot send it.
    """

    def __init__(self, filelike: Any, blksize: int = 65536) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration


class Range(NamedTuple):
    """A part of an open file."""

    descriptor: int
    offset: int
    size: int


def sendable(wrapper: FileWrapper) -> Range | None:
    """Return what the kernel can send of a wrapper's file; None: it has to be read.

    A `fileno()` alone says nothing: that of `gzip.GzipFile` is the compressed file's. Only Python's own plain files
    will do, opened for bytes.
    """
    file = wrapper.filelike
    tempfile = sys.modules.get("tempfile")  # it takes 2 ms to import, and who has such a file has imported it
    if tempfile is not None and isinstance(file, tempfile._TemporaryFileWrapper):
        file = file.file
    raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file
    if type(raw) is not io.FileIO:
        return None
    try:
        size = measured(os.fstat(raw.fileno()))
        if size is None:
            return None
        if type(file) is io.BufferedRandom:
            file.flush()
        offset = file.tell()
    except (OSError, ValueError):
        return None
    return Range(raw.fileno(), offset, max(0, size - offset))
