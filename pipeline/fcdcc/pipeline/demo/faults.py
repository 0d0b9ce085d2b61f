"""Stopping worker processes on purpose, and leaving none behind.

A process that gets SIGSTOP is the nastiest kind of straggler: it computes nothing, answers
nothing and keeps its connections open, so nobody is told that it is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

import psutil
from distributed import Client

from .timeline import Fault

__all__ = ["Stopper", "worker_processes"]


def worker_processes(client: Client) -> dict[str, psutil.Process]:
    """Return the process of each worker of a cluster on this machine, by the worker's address."""
    pids = cast("Mapping[str, int]", client.run(os.getpid))
    return {address: psutil.Process(pid) for address, pid in pids.items()}


class Stopper:
    """Stops some processes when it is told to, and ends them when it is left.

    A context: whatever happens inside, Ctrl-C included, no stopped process stays behind.

    Parameters
    ----------
    processes
        By name; a :class:`psutil.Process` is not mistaken for a later one of the same number.
    clock
        Gives the moments of the faults, in seconds.
    """

    def __init__(
        self, processes: Mapping[str, psutil.Process], clock: Callable[[], float] = time.time
    ) -> None:
        self._processes = dict(processes)
        self._clock = clock
        self._faults: list[Fault] = []

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What has been done so far, by the names of the processes."""
        return tuple(self._faults)

    def stop(self) -> None:
        """Stop the processes, once; those that have ended meanwhile are left out."""
        if self._faults:
            return
        for name, process in self._processes.items():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
                self._faults.append(Fault(name, self._clock(), "stopped"))

    def end(self) -> None:
        """End what was stopped: a stopped process obeys nothing but SIGKILL."""
        for fault in self._faults:
            with suppress(psutil.NoSuchProcess):
                self._processes[fault.worker].kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
