"""Which workers are late: what they have to do, since when, and how long such tasks usually take.

A task counts as *assigned* from when Dask sends it to a worker until its result arrives or it is
taken back. It may wait in a queue on the worker, so the age of its tasks does not say whether a
worker is late. Its *stall* does: how many seconds it has had something to do and returned nothing.

What is usual is learned from the same quantity at the moment of a result: how long the worker had
been stalled when the result arrived. Both include the transfer of inputs and delays of a busy
machine, so they can be compared. How fast a worker is (its pace) is learned from the time alone
that it spent computing shares. Either is learned per :class:`TaskCategory`: run, layer and stage.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from statistics import median
from typing import NamedTuple, Protocol

from fcdcc.pipeline.anyk.keys import parse_key

from .events import Key
from .workers import WorkerRecord, Workers

MAX_CATEGORIES = 2_000
"""Number of categories of tasks that times are kept of."""

CATEGORY_TIMES = 64
"""Number of the latest tasks of a category that say what is usual."""

UNKNOWN_FACTOR = 5.0
"""A task of a category with too few times may take this many times the longest share of its run."""

MIN_UNKNOWN_SHARES = 3
"""Number of shares of a run that must be known before :data:`UNKNOWN_FACTOR` applies."""

MIN_JUDGING_TASKS = 3
"""Number of tasks of a category that must be known before a worker is judged by one of them."""

SHARE = "share"
"""The stage of shares. How fast workers are is learned from these."""

PARITY = "parity"
"""The stage of parity shares, if their keys distinguish them from other shares."""

EXPENSIVE_RATIO = 1.5
"""Parity is expensive if it takes more than this many times as long as other shares."""

RESOLUTION_SECONDS = 0.02
"""Seconds that are added to a share's time and to the usual time before they are compared, so that
differences below this say nothing about a worker's pace."""


class LatenessRule(Protocol):
    """Says when a worker is late."""

    def patience(self, usual: Sequence[float], idle: bool) -> float | None:
        """Return after how many seconds without a result a worker is late.

        Parameters
        ----------
        usual
            How many seconds workers were stalled when results of such tasks arrived; oldest first.
        idle
            Whether another worker has nothing to do, so that trying the task there costs little.

        Returns
        -------
        float or None
            None if too little is known.
        """
        ...


@dataclass(frozen=True)
class LateByHistory:
    """Late compared with what such tasks usually take: their median, and how much they vary.

    Parameters
    ----------
    factor, spread
        A worker is late after ``factor`` times the median, plus ``spread`` times the distance from
        the median to the upper quartile.
    idle_factor
        If another worker is idle it is late after ``idle_factor`` times the 90th percentile, if
        that is shorter.
    floor
        Seconds that are added in either case, for delays by other programs on the machine.
    samples
        Number of times that must be known.
    """

    factor: float = 2.0
    spread: float = 3.0
    idle_factor: float = 1.5
    floor: float = 0.2
    samples: int = 3

    def patience(self, usual: Sequence[float], idle: bool) -> float | None:
        """Return after how many seconds without a result a worker is late.

        >>> rule = LateByHistory()
        >>> rule.patience([1.0, 1.0, 1.0, 1.0, 1.1], idle=False)
        2.2
        >>> rule.patience([1.0, 1.0, 1.0, 1.0, 1.1], idle=True)
        1.85
        >>> rule.patience([1.0, 1.0], idle=False) is None
        True
        """
        if len(usual) < self.samples:
            return None
        ordered = sorted(usual)
        middle = median(ordered)
        seconds = self.factor * middle + self.spread * (_quantile(ordered, 0.75) - middle)
        if idle:
            seconds = min(seconds, self.idle_factor * _quantile(ordered, 0.9))
        return round(seconds + self.floor, 9)


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest value such that more than this part of the values are not above it."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class TaskCategory(NamedTuple):
    """Run, layer and stage: tasks of one category are compared with each other."""

    run: str
    layer: int
    stage: str


def category_of(key: Key) -> TaskCategory:
    """Return the category of a task that is no share, from its key."""
    if isinstance(key, tuple) and len(key) == 4 and isinstance(key[1], int):
        return TaskCategory(_run_of(key[0]), key[1], str(key[0]))
    return TaskCategory("", 0, str(key[0] if isinstance(key, tuple) else key))


@lru_cache(maxsize=1024)
def _run_of(name: Key) -> str:
    parsed = parse_key((name, 0, 0, 0))
    return "" if parsed is None else parsed.run


class Assignment(NamedTuple):
    """A task that a worker has, and since when."""

    worker: str
    category: TaskCategory
    since: float


class Lateness:
    """The tasks that workers have, and what tasks of their categories took before.

    Parameters
    ----------
    rule
        Says when a worker is late.

    Attributes
    ----------
    shortest
        The shortest time in seconds after which a worker with a share is late, as of the last call
        of :meth:`late_workers`.
    assigned
        The tasks that workers have.
    """

    def __init__(self, rule: LatenessRule) -> None:
        self.rule = rule
        self.shortest = inf
        self.assigned: dict[Key, Assignment] = {}
        self._tasks_of: dict[str, dict[Key, None]] = {}
        self._stalls: OrderedDict[TaskCategory, deque[float]] = OrderedDict()
        self._computed: OrderedDict[TaskCategory, deque[float]] = OrderedDict()
        self._longest_share: dict[str, tuple[int, float]] = {}
        """By run, the number of shares and the longest stall among them."""

    # ------------------------------------------------------------------ noticing

    def note_assigned(self, key: Key, category: TaskCategory, worker: str, now: float) -> None:
        """Note that a task was assigned to a worker."""
        self.take_back(key)
        self.assigned[key] = Assignment(worker, category, now)
        self._tasks_of.setdefault(worker, {})[key] = None

    def take_back(self, key: Key) -> Assignment | None:
        """Note that no worker has a task any more; return the assignment that it had."""
        had = self.assigned.pop(key, None)
        if had is not None:
            tasks = self._tasks_of[had.worker]
            del tasks[key]
            if not tasks:
                del self._tasks_of[had.worker]
        return had

    def note_result(
        self, key: Key, worker: WorkerRecord | None, now: float, learn: bool = True
    ) -> None:
        """Note a result; call it before the worker's ``last_result`` is set to now.

        Nothing is learned from it if ``learn`` is false or another worker returned it.
        """
        had = self.take_back(key)
        if had is None or worker is None or had.worker != worker.address or not learn:
            return
        stall = max(0.0, now - max(had.since, worker.last_result))
        self._judge(worker, had.category, stall, now)
        self._learn(had.category, stall)

    def note_share_time(self, key: Key, worker: WorkerRecord | None, seconds: float) -> None:
        """Learn a worker's pace from how long it computed a share, before :meth:`note_result`."""
        had = self.assigned.get(key)
        if had is None or worker is None or had.worker != worker.address or seconds <= 0.0:
            return
        times = self.add_compute_time(had.category, seconds)
        if len(times) >= MIN_JUDGING_TASKS:
            usual = sorted(times)[len(times) // 2]
            worker.add_share_ratio((seconds + RESOLUTION_SECONDS) / (usual + RESOLUTION_SECONDS))

    def add_compute_time(self, category: TaskCategory, seconds: float) -> Sequence[float]:
        """Note how long a share was computed; return the latest times of its category."""
        times = self._computed.get(category)
        if times is None:
            times = self._computed[category] = deque(maxlen=CATEGORY_TIMES)
            while len(self._computed) > MAX_CATEGORIES:
                self._computed.popitem(last=False)
        times.append(seconds)
        return times

    def is_more_expensive(self, category: TaskCategory, than: TaskCategory) -> bool:
        """Return whether shares of a category are known to take much longer than others."""
        one, other = (sorted(self._computed.get(each, ())) for each in (category, than))
        return bool(one and other) and (
            one[len(one) // 2] > EXPENSIVE_RATIO * other[len(other) // 2]
        )

    def _learn(self, category: TaskCategory, stall: float) -> None:
        stalls = self._stalls.get(category)
        if stalls is None:
            stalls = self._stalls[category] = deque(maxlen=CATEGORY_TIMES)
            while len(self._stalls) > MAX_CATEGORIES:
                old, _ = self._stalls.popitem(last=False)
                if all(category.run != old.run for category in self._stalls):
                    self._longest_share.pop(old.run, None)
        stalls.append(stall)
        if category.stage == SHARE:
            count, longest = self._longest_share.get(category.run, (0, 0.0))
            self._longest_share[category.run] = count + 1, max(longest, stall)

    def _judge(
        self, worker: WorkerRecord, category: TaskCategory, stall: float, now: float
    ) -> None:
        """Compare a worker's stall with what is usual."""
        stalls = self._stalls.get(category)
        if stalls is None or len(stalls) < MIN_JUDGING_TASKS:
            return
        usual = sorted(stalls)[len(stalls) // 2]
        worker.add_task_ratio(stall / max(usual, 1e-3), now)

    def forget(self, run: str) -> None:
        """Forget what was learned from a run."""
        self._longest_share.pop(run, None)
        for known in (self._stalls, self._computed):
            for category in [category for category in known if category.run == run]:
                del known[category]

    # ------------------------------------------------------------------- judging

    def has_tasks(self, worker: str) -> bool:
        """Return whether a worker has anything to do."""
        return worker in self._tasks_of

    def tasks_of(self, worker: str) -> Iterator[tuple[Key, Assignment]]:
        """Yield the tasks of a worker in the order in which they were assigned."""
        return ((key, self.assigned[key]) for key in self._tasks_of.get(worker, ()))

    def late_workers(self, workers: Workers, idle: bool, now: float) -> set[str]:
        """Return the workers that have had something to do and returned nothing for too long.

        If more than half of all workers would be late, none is: then the tasks take longer, or
        the machine that the workers share is busy.

        Parameters
        ----------
        idle
            Whether another worker has nothing to do.
        """
        patience: dict[TaskCategory, float | None] = {}
        late = set()
        for address, tasks in self._tasks_of.items():
            worker = workers.by_address.get(address)
            if worker is None:
                continue
            assignments = [self.assigned[key] for key in tasks]
            stall = now - max(worker.last_result, assignments[0].since)
            for category in {each.category for each in assignments} - patience.keys():
                patience[category] = self._patience(category, idle)
            # A worker that is known to be slow is late only if it takes long for its own pace.
            # If another worker is idle, that is no reason to wait.
            stall /= 1.0 if idle else max(1.0, worker.pace)
            if _exceeds(stall, (patience[each.category] for each in assignments)):
                late.add(address)
        shares = (limit for category, limit in patience.items() if category.stage == SHARE)
        self.shortest = min((limit for limit in shares if limit is not None), default=inf)
        return late if 2 * len(late) <= len(workers.by_address) else set()

    def _patience(self, category: TaskCategory, idle: bool) -> float | None:
        known = self.rule.patience(tuple(self._stalls.get(category, ())), idle)
        if known is not None:
            return known
        count, longest = self._longest_share.get(category.run, (0, 0.0))
        if count < MIN_UNKNOWN_SHARES:
            return None
        return self.rule.patience([UNKNOWN_FACTOR * longest] * MIN_UNKNOWN_SHARES, idle=False)


def _exceeds(stall: float, limits: Iterable[float | None]) -> bool:
    """Return whether a stall is longer than all limits, each of which must be known."""
    return all(limit is not None and stall > limit for limit in limits)
