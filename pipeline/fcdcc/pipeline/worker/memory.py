"""The memory of a worker process: keep freed memory for the next array, and measure the peak.

Strips and runs of images are arrays of megabytes. By default the C library returns such memory
to the system as soon as it is free, and Dask's settings make it return smaller pieces as well, so
that the kernel has to provide new pages for every array. :func:`keep_freed_memory` makes the
process keep some of it. The price is gaps between arrays that are still in use; returning these
ten times a second took 7 % more CPU time for a VGG-16 (docs/healthy.md).
"""

from __future__ import annotations

import ctypes
import platform
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from distributed import Worker

MAX_KEPT_BYTES = 256 * 2**20
"""Free memory at the end of the heap that the process keeps."""

MMAP_THRESHOLD_BYTES = (2**30, 32 * 2**20)
"""Size above which an array gets pages of its own, which are returned when it is freed.

The second value is for C libraries that refuse the first.
"""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of mallopt, from malloc.h

PEAK_SAMPLE_SECONDS = 0.05
"""Time between two samples of the memory; one takes microseconds, a share tens of milliseconds."""


def keep_freed_memory() -> bool:
    """Make this process keep freed memory; return whether it does.

    Only the GNU C library has these options.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = mallopt(M_TRIM_THRESHOLD, MAX_KEPT_BYTES) == 1
    return kept and any(mallopt(M_MMAP_THRESHOLD, size) == 1 for size in MMAP_THRESHOLD_BYTES)


def return_freed_memory() -> None:
    """Return all freed memory of this process to the system; only with the GNU C library."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_since_start() -> int:
    """Return the largest memory of this process so far, in bytes; where unknown, today's."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process held before it became a worker
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return PeakMemory.peak()


def dask_setup(worker: Worker) -> None:  # noqa: ARG001 - Dask calls it with the worker
    """Keep freed memory in the process of a worker that preloads this module."""
    keep_freed_memory()


class PeakMemory:
    """Samples the memory of this process in a thread, from :meth:`start` to :meth:`stop`.

    All users in a process share one thread and one peak, because workers may share a process.
    """

    _users: int = 0
    _peak: int = 0
    _lock = threading.Lock()
    _end = threading.Event()

    @classmethod
    def start(cls) -> None:
        """Begin sampling."""
        with cls._lock:
            cls._users += 1
            if cls._users == 1:
                cls._peak, cls._end = 0, threading.Event()
                args = (cls._end,)
                threading.Thread(
                    target=cls._sample, args=args, name="peak memory", daemon=True
                ).start()

    @classmethod
    def stop(cls) -> None:
        """Undo one :meth:`start`."""
        with cls._lock:
            cls._users = max(0, cls._users - 1)
            if not cls._users:
                cls._end.set()

    @classmethod
    def peak(cls) -> int:
        """Return the largest resident set size sampled, in bytes."""
        return max(cls._peak, _resident_bytes(psutil.Process()))

    @classmethod
    def _sample(cls, end: threading.Event) -> None:
        process = psutil.Process()
        while not end.wait(PEAK_SAMPLE_SECONDS):
            cls._peak = max(cls._peak, _resident_bytes(process))


def _resident_bytes(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
