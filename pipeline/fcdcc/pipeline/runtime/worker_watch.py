"""Notice that no worker takes tasks, say what is waited for, and end the run if that lasts.

A run without workers, or with workers that are all paused because their memory is full, would wait
for ever. :class:`WorkerWatch` has neither clock nor cluster: its caller passes what moved, the
workers, and the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import dask.config
from dask.utils import format_bytes, parse_timedelta
from distributed import Client

from ..anyk.queries import cluster_workers
from ..errors import NoWorkersError
from ..formatting import counted

LOOK_SECONDS = 5.0
"""Time without any movement after which the workers are looked at, and between two looks."""

MAX_NAMED_WORKERS = 4
"""Workers that a message names."""


def worker_patience_seconds() -> float:
    """Return how long a run waits for a worker that takes tasks, in seconds.

    Dask's configuration value ``fcdcc.worker-patience`` sets it; the default is three minutes.
    """
    return float(parse_timedelta(dask.config.get("fcdcc.worker-patience", "180s")))


@dataclass(frozen=True)
class WorkerState:
    """What the scheduler says of a worker.

    Parameters
    ----------
    address
        Its address.
    status
        As Dask names it; ``running`` if it takes tasks.
    executing
        Number of tasks that it executes.
    memory, memory_limit
        Bytes that its process has, and bytes that it may have; 0 for no limit.
    """

    address: str
    status: str
    executing: int = 0
    memory: int = 0
    memory_limit: int = 0

    def __str__(self) -> str:
        if not self.memory_limit:
            return self.address
        return f"{self.address}: {format_bytes(self.memory)} of {format_bytes(self.memory_limit)}"


def worker_states(client: Client) -> list[WorkerState]:
    """Return the workers that a client's scheduler has, from their latest heartbeats."""
    states = []
    for address, worker in cluster_workers(client).items():
        metrics = worker["metrics"] or {}
        executing = int((metrics.get("task_counts") or {}).get("executing", 0))
        memory, limit = int(metrics.get("memory", 0)), int(worker["memory_limit"] or 0)
        states.append(WorkerState(address, worker["status"], executing, memory, limit))
    return states


class WorkerWatch:
    """Decides when a run without a worker that takes tasks warns, and when it ends.

    Workers that are paused and still execute something may free memory and go on, so they count as
    workers that take tasks.

    Parameters
    ----------
    patience
        Seconds without such a worker after which the run ends.
    now
        The time in seconds, on the clock that the methods use.
    """

    def __init__(self, patience: float, now: float) -> None:
        self._patience = patience
        self._counts: Hashable = None
        self._last_movement = now
        self._next_look = now
        self._waiting_since: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether there was no worker that takes tasks at the last look."""
        return self._waiting_since is not None

    def wants_workers(self, counts: Hashable, now: float) -> bool:
        """Return whether :meth:`check` should be called: nothing has moved for some seconds.

        Parameters
        ----------
        counts
            A value that changes whenever a block, group or share ends.
        now
            The time in seconds.
        """
        if counts != self._counts:
            self._counts, self._last_movement = counts, now
        since = min(LOOK_SECONDS, self._patience)
        if now - self._last_movement < since and not self.is_waiting:
            return False
        if now < self._next_look:
            return False
        self._next_look = now + since
        return True

    def check(self, workers: Sequence[WorkerState], now: float) -> str | None:
        """Return a message for the user, or None if there is nothing new to say.

        Raises
        ------
        NoWorkersError
            If there has been no worker that takes tasks for as long as the patience.
        """
        if any(worker.status == "running" or worker.executing for worker in workers):
            if self._waiting_since is None:
                return None
            self._waiting_since = None
            return f"going on: {counted(len(workers), 'worker is', 'workers are')} there"
        if self._waiting_since is None:
            self._waiting_since = max(self._last_movement, now - LOOK_SECONDS)
            return (
                f"{_what_is_missing(workers)}: waiting up to {self._patience:.0f} s for a worker "
                "that takes tasks (fcdcc.worker-patience)"
            )
        waited = now - self._waiting_since
        if waited < self._patience:
            return None
        raise NoWorkersError(
            f"{_what_is_missing(workers)}, and nothing has changed for {waited:.0f} s: "
            f"{_advice(workers)}, and run again to continue"
        )


def _what_is_missing(workers: Sequence[WorkerState]) -> str:
    if not workers:
        return "the scheduler has no workers"
    counts = ", ".join(f"{n} {status}" for status, n in sorted(_statuses(workers).items()))
    named = ", ".join(map(str, workers[:MAX_NAMED_WORKERS]))
    more = len(workers) - MAX_NAMED_WORKERS
    rest = f" and {more} more" if more > 0 else ""
    which = f"none of the {len(workers)} workers takes tasks"
    if len(workers) == 1:
        which = "the only worker takes no tasks"
    return f"{which}: {counts} ({named}{rest})"


def _advice(workers: Sequence[WorkerState]) -> str:
    if _statuses(workers)["paused"]:
        return (
            "Dask pauses workers whose memory is nearly full; use a smaller --batch or "
            "--in-flight, fewer workers on this memory, or workers with more of it"
        )
    return "start workers, or have the run wait longer (fcdcc.worker-patience)"


def _statuses(workers: Sequence[WorkerState]) -> Counter[str]:
    return Counter(worker.status for worker in workers)
