"""The constants of the cost model, and what they are where nothing was measured."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

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
    link
        Bytes per second from one worker to another while all of them send.
    task
        Seconds that a task costs its worker beside its work.
    hop
        Seconds from a result to the beginning of a task that needs it on another worker.
    parallel
        So many tasks run at once as fast as one alone: the number of tasks at a time, or of
        cores where several workers share them.
    memory_at_rest
        Bytes of a worker process that does nothing.
    source
        Where the numbers are from.
    """

    multiply_adds: float = 3e10
    touched: float = 5e9
    link: float = 5e8
    task: float = 1.5e-3
    hop: float = 4e-3
    parallel: float = 6.0
    memory_at_rest: float = 3.5e8
    source: Literal["default", "measured"] = "default"

    def seconds(self, multiply_adds: float, touched: float, itemsize: int) -> float:
        """Return what work takes that is alone on the machine."""
        slower = itemsize / MEASURED_DTYPE_BYTES
        return slower * multiply_adds / self.multiply_adds + touched / self.touched


DEFAULTS = Speeds()
"""A core of a server of today, and a network of ten gigabits of which Dask uses the half."""


def on_this_machine(tasks_at_a_time: int) -> Speeds:
    """Return the defaults for workers that all share the cores of this machine."""
    return replace(DEFAULTS, parallel=float(min(tasks_at_a_time, os.cpu_count() or 1)))
