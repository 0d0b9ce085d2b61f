"""A run that stands still says so, and where: block, layer and workers.

The guard itself knows no clock and no cluster: it is told what moved and what time it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import dask.config
from dask.utils import parse_timedelta
from distributed import Client
from distributed.metrics import time

from ..anyk.keys import Stage, parse_key

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler


FIRST_LOOK = 0.25
"""Part of the patience after which single tasks are looked at: before, blocks and groups do."""

BLOCKS_NAMED = 3
TASKS_NAMED = 8


def patience() -> float:
    """Return the seconds without any movement after which a run says so.

    The configuration value ``fcdcc.stall-after`` of Dask, by default a minute.
    """
    return float(parse_timedelta(dask.config.get("fcdcc.stall-after", "60s")))


@dataclass(frozen=True)
class WaitingTask:
    """A task of a run that a worker has, or that none can be found for.

    ``silent`` is how long its worker has not been heard of, in seconds.
    """

    block: int
    layer: int
    stage: Stage
    position: int
    worker: str | None
    silent: float

    @property
    def identity(self) -> Hashable:
        """What stays the same while nothing moves."""
        return (self.block, self.layer, self.stage, self.position, self.worker)


class StallGuard:
    """Notices that nothing moves, and says when to tell of it: after ever longer times.

    Parameters
    ----------
    patience
        Seconds without movement after which it is told for the first time.
    now
        The time, on the clock that :meth:`look` uses.
    """

    def __init__(self, patience: float, now: float) -> None:
        self._patience = self._next = patience
        self._moved = now
        self._counts: Hashable = None
        self._tasks: frozenset[Hashable] | None = None

    def wants_tasks(self, now: float) -> bool:
        """Return whether it has been still for long enough to look at single tasks."""
        return now - self._moved >= FIRST_LOOK * self._patience

    def look(
        self, counts: Hashable, tasks: Iterable[WaitingTask] | None, now: float
    ) -> float | None:
        """Return for how long nothing has moved, if that is to be told now, else None.

        Parameters
        ----------
        counts
            Whatever changes when something is finished.
        tasks
            What the workers have; None where nobody looked.
        now
            The time in seconds.
        """
        held = None if tasks is None else frozenset(task.identity for task in tasks)
        moved = counts != self._counts or (
            held is not None and self._tasks is not None and held != self._tasks
        )
        self._counts = counts
        self._tasks = None if moved else held
        if moved:
            self._moved, self._next = now, self._patience
            return None
        still = now - self._moved
        if still < self._next or held is None:
            return None
        self._next = 2 * still
        return still


def waiting_tasks(client: Client, run: str) -> list[WaitingTask]:
    """Return the tasks of a run that workers have or that wait for one, lowest block first."""
    found = cast("list[tuple[Any, ...]]", client.run_on_scheduler(_waiting, run=run))
    return [WaitingTask(*fields) for fields in found]


def _waiting(dask_scheduler: Scheduler, run: str) -> list[tuple[Any, ...]]:
    now, found = time(), []
    for key, task in dask_scheduler.tasks.items():
        known = parse_key(key)
        if known is None or known.run != run or task.state not in ("processing", "no-worker"):
            continue
        if task.state == "no-worker" and known.stage == "parity":
            continue  # in reserve, and meant to rest
        worker = task.processing_on
        silent = 0.0 if worker is None else now - worker.last_seen
        address = None if worker is None else worker.address
        found.append((known.block, known.layer, known.stage, known.position, address, silent))
    return sorted(found, key=lambda fields: fields[:4])


def describe(still: float, tasks: Iterable[WaitingTask], workers: int) -> str:
    """Return one line that names what a run waits for.

    >>> task = WaitingTask(12, 3, "share", 2, "tcp://10.0.0.7:4411", 58.2)
    >>> print(describe(60.4, [task], workers=6))
    nothing has moved for 60 s: block 12, layer 3: share 2 on tcp://10.0.0.7:4411 (silent for 58 s)
    """
    head = f"nothing has moved for {still:.0f} s"
    if not workers:
        return f"{head}: the scheduler has no workers"
    layers: dict[tuple[int, int], list[WaitingTask]] = defaultdict(list)
    for task in tasks:
        layers[task.block, task.layer].append(task)
    if not layers:
        return f"{head}: no worker has a task of this run, and {workers} workers are there"
    parts = [
        f"block {block}, layer {layer}: {_named(layers[block, layer])}"
        for block, layer in sorted(layers)[:BLOCKS_NAMED]
    ]
    more = len(layers) - len(parts)
    return f"{head}: {'; '.join(parts)}" + (f"; and {more} more" if more > 0 else "")


def _named(tasks: list[WaitingTask]) -> str:
    named = [
        f"{task.stage} {task.position} "
        + (f"on {task.worker}" if task.worker else "has no worker that may run it")
        + (f" (silent for {task.silent:.0f} s)" if task.worker and task.silent > 1 else "")
        for task in tasks[:TASKS_NAMED]
    ]
    more = len(tasks) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")
