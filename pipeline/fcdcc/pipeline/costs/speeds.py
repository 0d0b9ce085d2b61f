"""The constants of the cost model, and what they are where nothing was measured."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from .work import Work

__all__ = ["DEFAULTS", "MEASURED_DTYPE_BYTES", "Speeds", "on_this_machine"]

MEASURED_DTYPE_BYTES = 4
"""Rates are those of float32; twice the bytes take twice the time."""


@dataclass(frozen=True)
class Speeds:
    """How fast the workers of a cluster are.

    Parameters
    ----------
    multiply_adds
        Multiply-adds of a convolution per second in float32, of one task while no other runs.
    touched
        Bytes per second that an operation reads and writes beside its multiply-adds.
    task
        Seconds of a core that a task costs beside its work, the scheduler's included where it
        shares the machine of the workers.
    scheduler
        Seconds that a task costs the scheduler, which sees to one at a time.
    fetch
        Seconds of a core that a value costs which is fetched from another worker, both ends
        together, however large it is.
    copied
        Bytes per second of a core that go from one worker to another, both ends together.
    link
        Bytes per second on the way between two workers while all of them send.
    hop
        Seconds that a value is on its way, however small, beside what cores do for it.
    parallel
        So many tasks run at once as fast as one alone: the number of tasks at a time, or of
        cores where several workers share them.
    memory_at_rest
        Bytes of a worker process that does nothing.
    source
        Where the numbers are from.
    """

    multiply_adds: float = 3e10
    touched: float = 1e10
    task: float = 1.5e-3
    scheduler: float = 7e-4
    fetch: float = 1e-3
    copied: float = 1e9
    link: float = 5e8
    hop: float = 3e-3
    parallel: float = 6.0
    memory_at_rest: float = 3.5e8
    source: Literal["default", "measured"] = "default"

    def seconds(self, work: Work, itemsize: int) -> float:
        """Return what work takes that is alone on the machine."""
        slower = itemsize / MEASURED_DTYPE_BYTES
        moved = work.touched + work.fixed
        return slower * work.multiply_adds / self.multiply_adds + moved / self.touched

    def fetching(self, values: int, size: float) -> float:
        """Return the seconds of a core that it costs to fetch some values of so many bytes."""
        return values * self.fetch + size / self.copied

    def travelling(self, size: float) -> float:
        """Return for how long values of so many bytes are on their way between two cores."""
        return self.hop + size / self.link


DEFAULTS = Speeds()
"""A core of a server of today, and a network of ten gigabits of which Dask uses the half."""


def on_this_machine(tasks_at_a_time: int) -> Speeds:
    """Return the defaults for workers that all share the cores of this machine."""
    return replace(DEFAULTS, parallel=float(min(tasks_at_a_time, os.cpu_count() or 1)))
