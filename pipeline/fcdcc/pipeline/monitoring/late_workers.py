"""The workers whose tasks were started again elsewhere although they were there.

A worker that stops for a moment may be late with single tasks, such as a read or a write, and be
neither slow nor lost: only the events of the run name it.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..formatting import count, counted
from .record.loss_cost import BYPASSED, LOSSES, WorkerLoss
from .stragglers import MAX_NAMED_WORKERS, WorkerView

BACKED_UP = "doubled"
"""The event that a task of a worker was late, and was started again on another one."""

SECONDS_AFTER_LOSS = 5.0
"""Seconds for which others are busy, after a worker was given up, with what it had."""

MAX_NEEDED_SECONDS = 15.0
"""Seconds of silence after which a worker has been given up if anything was needed of it."""

MAX_LATEST_TASKS = 10_000
"""Most late tasks of which it is kept when they were."""

MAX_SILENCES = 1_000
"""Most losses of workers that are kept, the latest."""

MAX_KEPT = 20
"""Most workers that are kept of a run: bypassed ones, and those with the most late tasks."""


@dataclass(frozen=True)
class LateWorker:
    """A worker whose tasks were started again on others.

    Parameters
    ----------
    worker
        Its address.
    tasks
        Late tasks of it that another worker started, too.
    bypassed
        Whether it did not answer for a while, and others did all its work.
    name, pid
        As of :class:`.stragglers.WorkerView`, as far as they are known.
    """

    worker: str
    tasks: int
    bypassed: bool = False
    name: str = ""
    pid: int = 0

    @property
    def called(self) -> str:
        """Its address, with its name and the id of its process."""
        return WorkerView(self.worker, name=self.name, pid=self.pid).called


class LateWorkers:
    """Counts the events of late tasks and of workers that did not answer.

    A task does not count for its worker if another worker did not answer then, or was gone just
    before: it may have waited for input from that one, or for its other tasks.

    >>> late = LateWorkers()
    >>> late.add({"event": "doubled", "time": 3.0, "worker": "tcp://a:1", "elsewhere": "tcp://b:1"})
    >>> late.add({"event": "late", "time": 3.0, "layer": 2, "block": 0})
    >>> [worker.called for worker in late.found([{"address": "tcp://a:1", "name": "0"}])]
    ['tcp://a:1 (worker 0)']
    """

    def __init__(self, events: Iterable[Mapping[str, Any]] = ()) -> None:
        self._tasks: Counter[str] = Counter()
        self._latest: deque[tuple[float, str]] = deque()
        """When and where the latest tasks were late; ``_tasks`` and ``_waiting`` count others."""
        self._waiting = 0
        self._silences: deque[WorkerLoss] = deque(maxlen=MAX_SILENCES)
        self._bypassed: set[str] = set()
        for event in events:
            self.add(event)

    def add(self, event: Mapping[str, Any]) -> None:
        """Count an event of any of these kinds; other events are ignored."""
        kind, now = event.get("event"), float(event.get("time", 0.0))
        if kind == BACKED_UP:
            self._latest.append((now, str(event["worker"])))
            if len(self._latest) > MAX_LATEST_TASKS:
                oldest = self._latest.popleft()
                self._waiting += (waits := _may_wait(*oldest, self._silences))
                self._tasks[oldest[1]] += not waits
        if kind in LOSSES:
            gone = str(event["worker"])
            self._silences.append(WorkerLoss(gone, float(event.get("heard", now)), now))
        if kind == BYPASSED:
            self._bypassed.add(str(event["worker"]))

    def found(
        self, rows: Iterable[Mapping[str, Any]], silent: Iterable[WorkerLoss] = ()
    ) -> tuple[LateWorker, ...]:
        """Return the workers, those with the most late tasks first.

        ``rows`` have the addresses, names and processes of workers that are known; ``silent`` are
        those that do not answer now and were not removed.
        """
        known = {str(row["address"]): row for row in rows}

        def worker(address: str, tasks: int) -> LateWorker:
            row = known.get(address, {})
            name, pid = str(row.get("name") or ""), int(row.get("pid") or 0)
            return LateWorker(address, tasks, address in self._bypassed, name, pid)

        silences = [*self._silences, *silent]
        tasks = self._tasks + Counter(
            address for moment, address in self._latest if not _may_wait(moment, address, silences)
        )
        tasks.update(dict.fromkeys(self._bypassed - tasks.keys(), 0))
        by_tasks = tasks.most_common()
        kept = sorted(by_tasks, key=lambda one: one[0] not in self._bypassed)[:MAX_KEPT]
        return tuple(itertools.starmap(worker, filter(kept.__contains__, by_tasks)))

    def waiting(self, silent: Iterable[WorkerLoss] = ()) -> int:
        """Return how many late tasks count for no worker; ``silent`` is as for :meth:`found`."""
        silences = [*self._silences, *silent]
        return self._waiting + sum(_may_wait(*task, silences) for task in self._latest)


def _may_wait(moment: float, worker: str, silences: Iterable[WorkerLoss]) -> bool:
    """Return whether another worker did not answer at a moment, or was given up just before.

    A worker that did not answer itself is late for that reason.
    """
    found = {silence.worker for silence in silences if _covers(silence, moment)}
    return bool(found) and worker not in found


def _covers(silence: WorkerLoss, moment: float) -> bool:
    """Return whether others may wait at a moment for what a silent worker has.

    If it is still silent later and was not removed, nothing is needed of it.
    """
    needed_until = min(silence.gone, silence.heard + MAX_NEEDED_SECONDS)
    return silence.heard <= moment <= needed_until + SECONDS_AFTER_LOSS


def started_elsewhere(tasks: int, late: Sequence[LateWorker] = (), waiting: int = 0) -> str:
    """Return how many late tasks were started again, and which workers were late with them.

    ``waiting`` of the tasks may have been late because another worker was silent.

    >>> started_elsewhere(1, [LateWorker("tcp://a:1", 1, name="2", pid=77)])
    '1 late task was started again on another worker: tcp://a:1 (worker 2, pid 77) was late with it'
    >>> started_elsewhere(8, [LateWorker("tcp://a:1", 7), LateWorker("tcp://b:1", 1)])
    '8 late tasks were started again on another worker: tcp://a:1 was late with 7 of them and \
tcp://b:1 with 1'
    >>> started_elsewhere(2, [LateWorker("tcp://a:1", 1)], waiting=1).partition(": ")[2]
    'tcp://a:1 was late with 1 of them, and 1 may have been late because of a silent worker'
    """
    said = counted(tasks, "late task was", "late tasks were") + " started again on another worker"
    late = [worker for worker in late if worker.tasks]
    if not late:
        return said
    first, *others = late
    if first.tasks == tasks:
        return f"{said}: {first.called} was late with {'it' if tasks == 1 else 'them'}"
    named = [f"{first.called} was late with {count(first.tasks)} of them"]
    named += [f"{w.called} with {count(w.tasks)}" for w in others[: MAX_NAMED_WORKERS - 1]]
    if hidden := others[MAX_NAMED_WORKERS - 1 :]:
        rest = sum(worker.tasks for worker in hidden)
        named.append(f"{counted(len(hidden), 'other')} with {count(rest)}")
    said += f": {' and '.join(named)}"
    if waiting:
        said += f", and {count(waiting)} may have been late because of a silent worker"
    return said


def bypassed_workers(late: Sequence[LateWorker]) -> str:
    """Return which workers did not answer and were bypassed; '' if none was.

    >>> bypassed_workers([LateWorker("tcp://a:1", 0, bypassed=True), LateWorker("tcp://b:1", 1)])
    'tcp://a:1 did not answer, and others did its work'
    """
    called = [worker.called for worker in late if worker.bypassed]
    named = called[:MAX_NAMED_WORKERS]
    if len(called) > len(named):
        named.append(counted(len(called) - len(named), "other"))
    whose = "its" if len(called) == 1 else "their"
    return f"{' and '.join(named)} did not answer, and others did {whose} work" if named else ""
