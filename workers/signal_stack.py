"""A stack for signal handlers that has room for all of them at once.

While `faulthandler` is enabled, the interpreter's handlers run on the alternative stack that it has made, so that a
stack that overflows can still be shown. That one is for a single fatal signal: some 12 kB on the heap. The handlers of
ordinary signals nest when several are pending, and each needs 4 kB of it on a processor with AVX-512, and more with
AMX: five signals at a time overwrite whatever is beside it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from typing import Final

_AT_MINSIGSTKSZ: Final = 51  # getauxval(3): what the kernel puts on the stack for one signal
_LEAST: Final = 16384  # for each: that, and what the handler itself uses


class _Stack(ctypes.Structure):
    _fields_ = [("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t)]


_memory: list[mmap.mmap] = []  # as long as the process lives; pages that are never used cost nothing


def enlarge() -> None:
    """Give this thread, and what it forks, a stack on which the handlers of all signals find room; Linux only.

    To be called behind `faulthandler.enable()`.

    Raises:
        OSError: the system does not take it.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.getauxval.restype = ctypes.c_ulong
    size = max(2 * libc.getauxval(_AT_MINSIGSTKSZ), _LEAST) * len(signal.valid_signals())
    if not _memory:
        _memory.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    place = ctypes.addressof(ctypes.c_char.from_buffer(_memory[0]))
    if libc.sigaltstack(ctypes.byref(_Stack(place, 0, size)), None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
