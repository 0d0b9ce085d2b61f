"""Detect that a run has stalled, and describe where: block, layer and workers.

:class:`StallGuard` has neither clock nor cluster: its caller passes what moved, and the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

import dask.config
from dask.utils import parse_timedelta

from ..anyk.keys import name_in_words, place_in_words
from ..anyk.queries import WaitingTask
from ..formatting import counted

TASK_CHECK_FRACTION = 0.25
"""Fraction of the patience after which single tasks are compared, not only counters.

Fetching the tasks costs a request to the scheduler, so a run that moves never does it.
"""

MAX_NAMED_PLACES = 3
"""Layers, or other steps, of blocks that the warning names."""

MAX_NAMED_TASKS = 8
"""Tasks of each of these that the warning names."""


def stall_patience_seconds() -> float:
    """Return the time without any movement after which a run warns, in seconds.

    Dask's configuration value ``fcdcc.stall-after`` sets it; the default is a minute.
    """
    return float(parse_timedelta(dask.config.get("fcdcc.stall-after", "60s")))


class StallGuard:
    """Detects that nothing moves, and decides when to warn: after ever longer times.

    Parameters
    ----------
    patience
        Seconds without movement before the first warning.
    now
        The time in seconds, on the clock that :meth:`check` uses.
    """

    def __init__(self, patience: float, now: float) -> None:
        self._patience = self._warn_after = patience
        self._last_movement = now
        self._counts: Hashable = None
        self._tasks: frozenset[Hashable] | None = None

    def wants_tasks(self, now: float) -> bool:
        """Return whether :meth:`check` needs the tasks: nothing has moved for some time."""
        return now - self._last_movement >= TASK_CHECK_FRACTION * self._patience

    def check(
        self, counts: Hashable, tasks: Iterable[WaitingTask] | None, now: float
    ) -> float | None:
        """Return the seconds without movement if a warning is due now, else None.

        Parameters
        ----------
        counts
            A value that changes whenever a block, group or share ends.
        tasks
            The waiting tasks; None if :meth:`wants_tasks` returned False.
        now
            The time in seconds.
        """
        identities = None if tasks is None else frozenset(task.identity for task in tasks)
        moved = counts != self._counts or (
            identities is not None and self._tasks is not None and identities != self._tasks
        )
        self._counts = counts
        self._tasks = None if moved else identities
        if moved:
            self._last_movement, self._warn_after = now, self._patience
            return None
        still = now - self._last_movement
        if still < self._warn_after or identities is None:
            return None
        self._warn_after = 2 * still
        return still


def describe_stall(
    still: float,
    tasks: Iterable[WaitingTask] | None,
    workers: int,
    last_layer: int | None = None,
) -> str:
    """Return one line that names the tasks and workers that a run waits for.

    Parameters
    ----------
    still
        Seconds without movement.
    tasks
        The waiting tasks; None if they are not known.
    workers
        Number of workers that the scheduler has.
    last_layer
        The number of the last convolution; None if it is not known.

    >>> task = WaitingTask(12, 3, "share", 2, "tcp://10.0.0.7:4411", 58.2)
    >>> print(describe_stall(60.4, [task], workers=6))
    nothing has moved for 60 s: block 12, layer 3: share 2 on tcp://10.0.0.7:4411 (silent for 58 s)
    """
    head = f"nothing has moved for {still:.0f} s"
    if tasks is None:
        return head
    places: dict[str, list[WaitingTask]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: (task.block, task.layer)):
        places[place_in_words(task.stage, task.layer, task.block, last_layer)].append(task)
    if not places:
        return f"{head}: no worker has a task of this run, with {counted(workers, 'worker')} there"
    named = list(places.items())[:MAX_NAMED_PLACES]
    parts = [f"{place}: {_task_list(some)}" for place, some in named]
    more = len(places) - len(parts)
    return f"{head}: {'; '.join(parts)}" + (f"; and {more} more" if more > 0 else "")


def _task_list(tasks: list[WaitingTask]) -> str:
    named = [
        f"{name_in_words(task.stage, task.layer, task.position)} "
        + (f"on {task.worker}" if task.worker else "has no worker that may run it")
        + (f" (silent for {task.silent:.0f} s)" if task.worker and task.silent > 1 else "")
        for task in tasks[:MAX_NAMED_TASKS]
    ]
    more = len(tasks) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")
