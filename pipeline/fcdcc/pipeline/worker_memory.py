"""A worker keeps some of the memory that it frees, for the next array.

Strips and runs of images are arrays of megabytes. The C library gives such memory back to the
system as soon as it is free, and Dask's own settings make it give back smaller pieces as well,
so that every array comes anew from the kernel, page by page. Preloading this module in a
worker (``dask worker --preload fcdcc.pipeline.worker_memory``) makes it keep some.

It would keep more and more: arrays of many sizes leave gaps between those that are still there.
So the worker looks a few times a second, and gives back what is free when that is too much.
"""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

import psutil
from tornado.ioloop import PeriodicCallback

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ["KEPT", "FreedMemory", "dask_setup", "give_back_all", "keep_freed_memory"]

KEPT = 128 * 2**20
"""Bytes of free memory that may be kept: at the end of the heap, and in all."""

LARGEST = (2**30, 32 * 2**20)
"""Larger arrays have memory of their own; the second for C libraries that refuse the first."""

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # of malloc.h

EVERY = 0.1
"""Seconds between two looks, each some hundredths of a millisecond."""


def keep_freed_memory() -> bool:
    """Have this process keep freed memory; return whether it does.

    Only the C library of GNU can be told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    # What one thread frees another one takes; and the ends of other heaps are never given back.
    kept = set_option(ARENA_MAX, 1) == 1 and set_option(TRIM_THRESHOLD, KEPT) == 1
    return kept and any(set_option(MMAP_THRESHOLD, size) == 1 for size in LARGEST)


def give_back_all() -> None:
    """Give back to the system what this process has freed, where the C library can be told."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class _MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


class FreedMemory:
    """What this process has freed and not given back.

    That is its resident memory less what is in use; what else is resident, code for the most
    part, was there at first.

    Raises
    ------
    AttributeError
        If the C library does not say what is in use (GNU's does since 2.33).
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._info, self._trim = library.mallinfo2, library.malloc_trim
        self._info.restype = _MallocInfo
        self._process = psutil.Process()
        self._other = self._unused()

    def _unused(self) -> int:
        info = self._info()
        return int(self._process.memory_info().rss) - int(info.uordblks) - int(info.hblkhd)

    def give_back(self) -> bool:
        """Give back what is free, if it is more than is to be kept; return whether it was."""
        unused = self._unused()
        self._other = min(self._other, unused)
        if unused - self._other <= KEPT:
            return False
        self._trim(0)
        self._other = self._unused()
        return True


def dask_setup(worker: Worker) -> None:
    """Do it in the process of a Dask worker."""
    if not keep_freed_memory():
        return
    try:
        freed = FreedMemory()
    except AttributeError:
        return

    def look() -> None:
        freed.give_back()

    # Dask starts it with its own.
    worker.periodic_callbacks["fcdcc-freed-memory"] = PeriodicCallback(look, EVERY * 1000)
