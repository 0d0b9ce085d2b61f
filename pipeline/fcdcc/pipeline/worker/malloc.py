"""A worker keeps the memory that it frees, for the next array.

Strips and runs of images are arrays of megabytes. The C library gives such memory back to the
system as soon as it is free, and Dask's own settings make it give back smaller pieces as well,
so that every array comes anew from the kernel, page by page. Preloading this module in a
worker (``dask worker --preload fcdcc.pipeline.worker_memory``) makes it keep some. So its memory
has gaps between arrays that are still there; giving these back ten times a second cost a
VGG-16 7 % of CPU time (docs/healthy.md).
"""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker


KEPT = 256 * 2**20
"""Bytes of free memory that may be kept at the end of the heap."""

LARGEST = (2**30, 32 * 2**20)
"""Larger arrays have memory of their own; the second for C libraries that refuse the first."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Have this process keep freed memory; return whether it does.

    Only the C library of GNU can be told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    kept = set_option(TRIM_THRESHOLD, KEPT) == 1
    return kept and any(set_option(MMAP_THRESHOLD, size) == 1 for size in LARGEST)


def give_back_all() -> None:
    """Give back to the system what this process has freed, where the C library can be told."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def dask_setup(worker: Worker) -> None:  # noqa: ARG001 - Dask calls it so
    """Do it in the process of a Dask worker."""
    keep_freed_memory()
