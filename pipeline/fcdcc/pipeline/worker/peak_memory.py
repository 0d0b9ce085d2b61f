"""The most memory that a process has had since somebody began to look."""

from __future__ import annotations

import threading

import psutil

EVERY = 0.05
"""Seconds between two looks: a look takes some microseconds, a share tens of milliseconds."""


class PeakMemory:
    """Looks at this process from a thread of its own, from :meth:`start` to :meth:`stop`.

    There is one thread however many look: workers may share a process.
    """

    _looking: int = 0
    _peak: int = 0
    _lock = threading.Lock()
    _end = threading.Event()

    @classmethod
    def start(cls) -> None:
        """Begin to look, from now on."""
        with cls._lock:
            cls._looking += 1
            if cls._looking == 1:
                cls._peak, cls._end = 0, threading.Event()
                args = (cls._end,)
                threading.Thread(
                    target=cls._look, args=args, name="peak memory", daemon=True
                ).start()

    @classmethod
    def stop(cls) -> None:
        """Undo one :meth:`start`."""
        with cls._lock:
            cls._looking = max(0, cls._looking - 1)
            if not cls._looking:
                cls._end.set()

    @classmethod
    def peak(cls) -> int:
        """Return the most bytes that were seen."""
        return max(cls._peak, _resident(psutil.Process()))

    @classmethod
    def _look(cls, end: threading.Event) -> None:
        process = psutil.Process()
        while not end.wait(EVERY):
            cls._peak = max(cls._peak, _resident(process))


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
