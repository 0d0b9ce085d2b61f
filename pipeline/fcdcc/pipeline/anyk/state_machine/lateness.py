"""What the workers have to do, since when, and how long such work usually takes.

A task counts as *assigned* from when Dask sends it to a worker until its result is there or
it is taken back. It may stand in a queue there; so a worker is not judged by the age of its
tasks but by its *stall*: how long it has had something to do and returned nothing.

What is learned is the same quantity at the moment of a result: how long the worker had been
stalled when it came. It contains the transfer of inputs and what a busy machine adds, and so
like is compared with like. How fast a worker is is learned from the time that it computed
shares alone. Either is kept per *kind* of task: run, layer and stage.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from statistics import median
from typing import NamedTuple, Protocol

from fcdcc.pipeline.anyk.keys import parse_key

from .entities import WorkerRecord
from .events import Key


class SilenceRule(Protocol):
    """Says how long a worker may stay silent."""

    def patience(
        self, delivered: bool, heartbeat_interval: float, own: Sequence[float], worst: float
    ) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        Parameters
        ----------
        delivered
            Whether it has returned any result since it joined.
        heartbeat_interval
            How often a worker of this cluster is heard of when all is well.
        own
            The seconds between its latest heartbeats.
        worst
            The longest such time of any worker of the cluster lately.
        """
        ...


class LatenessRule(Protocol):
    """Says when a worker is late, so that what others wait for is started elsewhere."""

    def patience(self, usual: Sequence[float], idle: bool) -> float | None:
        """Return after how many seconds without a result a worker is late.

        Parameters
        ----------
        usual
            The seconds that tasks like the one it has took from when their worker had
            nothing else to do until their result was there; oldest first.
        idle
            Whether another worker has nothing to do, so that trying costs little.

        Returns
        -------
        float or None
            None where too little is known.
        """
        ...


@dataclass(frozen=True)
class FixedSilence:
    """A fixed time.

    Parameters
    ----------
    silent_after
        Seconds, for a worker that has returned results.
    grace
        Seconds, for a worker that has not: its first task imports libraries, during which
        Python may keep it from answering.
    heartbeats
        At least so many heartbeats must have been missed.
    """

    silent_after: float = 3.0
    grace: float = 15.0
    heartbeats: float = 4.0

    def patience(
        self,
        delivered: bool,
        heartbeat_interval: float,
        own: Sequence[float] = (),  # noqa: ARG002 - the protocol's signature
        worst: float = 0.0,  # noqa: ARG002 - the protocol's signature
    ) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        >>> FixedSilence().patience(delivered=True, heartbeat_interval=0.5)
        3.0
        >>> FixedSilence().patience(delivered=True, heartbeat_interval=2.0)
        8.0
        """
        fixed = self.silent_after if delivered else max(self.silent_after, self.grace)
        return max(fixed, self.heartbeats * heartbeat_interval)


@dataclass(frozen=True)
class LearnedSilence:
    """Learned from how regularly workers were heard of; never below ``silent_after``.

    A worker counts as gone after ``own_factor`` times its own longest time between
    heartbeats, or ``any_factor`` times anybody's: on a busy machine all are heard of less
    regularly, and the first sign of that may be another worker's.

    Parameters
    ----------
    silent_after
        Seconds that are always allowed.
    grace
        Seconds for a worker that has returned nothing yet. Never is more than this allowed,
        but for what ``heartbeats`` says.
    young
        Seconds at least for one that has been heard of fewer than ``known_after`` times.
    heartbeats
        At least so many heartbeats must have been missed.
    """

    silent_after: float = 3.0
    young: float = 5.0
    grace: float = 15.0
    heartbeats: float = 4.0
    own_factor: float = 4.0
    any_factor: float = 3.0
    known_after: int = 4

    def patience(
        self, delivered: bool, heartbeat_interval: float, own: Sequence[float], worst: float
    ) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        >>> rule = LearnedSilence()
        >>> rule.patience(True, 0.5, [0.5, 0.5, 0.51, 0.5], worst=0.6)
        3.0
        >>> rule.patience(True, 0.5, [0.5, 0.5, 0.51, 0.5], worst=2.0)
        6.0
        >>> rule.patience(False, 0.5, [0.5, 0.5, 0.51, 0.5], worst=0.6)
        15.0
        """
        least = self.heartbeats * heartbeat_interval
        if not delivered:
            return max(self.grace, least)
        always = self.silent_after if len(own) >= self.known_after else self.young
        learned = max(self.own_factor * max(own, default=0.0), self.any_factor * worst)
        return max(min(self.grace, max(always, learned)), least)


@dataclass(frozen=True)
class LateByHistory:
    """Late against what such tasks usually take: their median, and how much they vary.

    A worker is late after ``factor`` medians and ``spread`` times what the upper quartile is
    above the median. Where another worker is idle it is late already when it takes
    ``idle_factor`` times as long as nine tenths of them took. ``floor`` seconds are added in
    either case: so long a worker may be kept waiting on a machine that others use as well.
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
        busy = self.factor * middle + self.spread * (_quantile(ordered, 0.75) - middle)
        if idle:
            busy = min(busy, self.idle_factor * _quantile(ordered, 0.9))
        return round(busy + self.floor, 9)


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest value that at least this part of the values do not exceed."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


MAX_KINDS = 2_000

MAX_SERVICES = 64
"""So many of the latest tasks of a kind say what is usual."""

UNKNOWN_FACTOR = 5.0
"""A kind that little is known of may take so many times the longest known share of its run."""

UNKNOWN_AFTER = 3
"""So many shares of a run must be known for that."""

JUDGED_FROM = 3
"""So many tasks of a kind must be known before a worker is judged by one."""

SHARE = "share"
"""The stage of shares; how fast a worker is is learned from these."""

PARITY = "parity"
"""The stage of parity, where it is told apart from other shares."""

DEARER = 1.5
"""From so many times the seconds on, work is much dearer than other work."""

RESOLUTION = 0.02
"""Seconds that say nothing about how fast a worker is."""


class TaskKind(NamedTuple):
    """Which tasks are compared with each other."""

    run: str
    layer: int
    stage: str


def kind_of(key: Key) -> TaskKind:
    """Return with which tasks a single task is compared: those of its run, layer and stage."""
    if isinstance(key, tuple) and len(key) == 4 and isinstance(key[1], int):
        return TaskKind(_run_of(key[0]), key[1], str(key[0]))
    return TaskKind("", 0, str(key[0] if isinstance(key, tuple) else key))


@lru_cache(maxsize=1024)
def _run_of(name: Key) -> str:
    parsed = parse_key((name, 0, 0, 0))
    return "" if parsed is None else parsed.run


class Assigned(NamedTuple):
    """A task that a worker has."""

    worker: str
    kind: TaskKind
    since: float


class Workload:
    """The tasks that workers have, and what tasks of their kind took before.

    ``shortest`` is the shortest time after which a worker was late by the shares that it had,
    when that was last asked.
    """

    def __init__(self) -> None:
        self.shortest = inf
        self.assigned: dict[Key, Assigned] = {}
        self._tasks_of: dict[str, dict[Key, None]] = {}
        self._services: OrderedDict[TaskKind, deque[float]] = OrderedDict()
        self._taken: OrderedDict[TaskKind, deque[float]] = OrderedDict()
        self._longest: dict[str, tuple[int, float]] = {}

    # ------------------------------------------------------------------ noticing

    def started(self, key: Key, kind: TaskKind, worker: str, now: float) -> None:
        """Note that a worker was given a task."""
        self.gone(key)
        self.assigned[key] = Assigned(worker, kind, now)
        self._tasks_of.setdefault(worker, {})[key] = None

    def gone(self, key: Key) -> Assigned | None:
        """Note that no worker has a task any more; return who had it."""
        had = self.assigned.pop(key, None)
        if had is not None:
            tasks = self._tasks_of[had.worker]
            del tasks[key]
            if not tasks:
                del self._tasks_of[had.worker]
        return had

    def done(self, key: Key, worker: WorkerRecord | None, now: float, learn: bool = True) -> None:
        """Note a result, before the worker's ``last_result`` is set to now."""
        had = self.gone(key)
        if had is None or worker is None or had.worker != worker.address or not learn:
            return
        service = max(0.0, now - max(had.since, worker.last_result))
        self._judge(worker, had.kind, service, now)
        self._learn(had.kind, service)

    def paced(self, key: Key, worker: WorkerRecord | None, seconds: float) -> None:
        """Note how long a worker computed a share, before the share counts as done."""
        had = self.assigned.get(key)
        if had is None or worker is None or had.worker != worker.address or seconds <= 0.0:
            return
        taken = self.took(had.kind, seconds)
        if len(taken) >= JUDGED_FROM:
            usual = sorted(taken)[len(taken) // 2]
            worker.paced((seconds + RESOLUTION) / (usual + RESOLUTION))

    def took(self, kind: TaskKind, seconds: float) -> Sequence[float]:
        """Note how long a share was computed; return how long the latest of its kind were."""
        taken = self._taken.get(kind)
        if taken is None:
            taken = self._taken[kind] = deque(maxlen=MAX_SERVICES)
            while len(self._taken) > MAX_KINDS:
                self._taken.popitem(last=False)
        taken.append(seconds)
        return taken

    def is_dearer(self, kind: TaskKind, than: TaskKind) -> bool:
        """Return whether shares of a kind are known to take much longer than those of another."""
        one, other = (sorted(self._taken.get(each, ())) for each in (kind, than))
        return bool(one and other) and one[len(one) // 2] > DEARER * other[len(other) // 2]

    def _learn(self, kind: TaskKind, service: float) -> None:
        services = self._services.get(kind)
        if services is None:
            services = self._services[kind] = deque(maxlen=MAX_SERVICES)
            while len(self._services) > MAX_KINDS:
                old, _ = self._services.popitem(last=False)
                if all(kind.run != old.run for kind in self._services):
                    self._longest.pop(old.run, None)
        services.append(service)
        if kind.stage == SHARE:
            count, longest = self._longest.get(kind.run, (0, 0.0))
            self._longest[kind.run] = count + 1, max(longest, service)

    def _judge(self, worker: WorkerRecord, kind: TaskKind, service: float, now: float) -> None:
        """Learn how a worker's speed compares with what is usual."""
        services = self._services.get(kind)
        if services is None or len(services) < JUDGED_FROM:
            return
        usual = sorted(services)[len(services) // 2]
        worker.judged(service / max(usual, 1e-3), now)

    def forget(self, run: str) -> None:
        """Forget what was learned from a run."""
        self._longest.pop(run, None)
        for known in (self._services, self._taken):
            for kind in [kind for kind in known if kind.run == run]:
                del known[kind]

    # ------------------------------------------------------------------- judging

    def has(self, worker: str) -> bool:
        """Return whether a worker has anything to do."""
        return worker in self._tasks_of

    def tasks_of(self, worker: str) -> Iterator[tuple[Key, Assigned]]:
        """Return what a worker has to do, in the order in which it was given it."""
        return ((key, self.assigned[key]) for key in self._tasks_of.get(worker, ()))

    def usual(self, kind: TaskKind) -> tuple[float, ...]:
        """Return what tasks of a kind took."""
        return tuple(self._services.get(kind, ()))

    def late(
        self, workers: Mapping[str, WorkerRecord], rule: LatenessRule, idle: bool, now: float
    ) -> set[str]:
        """Return the workers that have had something to do and returned nothing for too long.

        When more than half of all are late, nobody is: it is the work that takes longer, or
        the machine that they share.
        """
        patience: dict[TaskKind, float | None] = {}
        found = set()
        for address, tasks in self._tasks_of.items():
            worker = workers.get(address)
            if worker is None:
                continue
            entries = [self.assigned[key] for key in tasks]
            stall = now - max(worker.last_result, entries[0].since)
            for kind in {entry.kind for entry in entries} - patience.keys():
                patience[kind] = self._patience(kind, rule, idle)
            # Who is known to be slow is late when it takes long for its own pace; while others
            # are idle, that is no reason to wait.
            stall /= 1.0 if idle else max(1.0, worker.pace)
            if _exceeds(stall, (patience[entry.kind] for entry in entries)):
                found.add(address)
        shares = (limit for kind, limit in patience.items() if kind.stage == "share")
        self.shortest = min((limit for limit in shares if limit is not None), default=inf)
        return found if 2 * len(found) <= len(workers) else set()

    def _patience(self, kind: TaskKind, rule: LatenessRule, idle: bool) -> float | None:
        known = rule.patience(self.usual(kind), idle)
        if known is not None:
            return known
        count, longest = self._longest.get(kind.run, (0, 0.0))
        if count < UNKNOWN_AFTER:
            return None
        return rule.patience([UNKNOWN_FACTOR * longest] * UNKNOWN_AFTER, idle=False)


def _exceeds(stall: float, limits: Iterable[float | None]) -> bool:
    """Return whether a stall is longer than all limits, each of which must be known."""
    return all(limit is not None and stall > limit for limit in limits)
