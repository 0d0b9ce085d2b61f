"""Adding up a run: the records of its shares and groups go in, facts come out (:mod:`.facts`).

Everything is bounded: what is kept grows with the numbers of workers and layers, not with the
length of a run.

*Lateness*: a share that was given up (an erasure) has no result, so how late it would have
been is not known. But its worker is stuck with it for a while: until it begins its next share, as
long as it reports cancelled tasks or does not answer, or until it leaves. The time from the
moment at which nobody waited any more to then is the share's lateness: at least so long
would its group have waited. What nobody has seen counts as nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from ...anyk.state_machine.history import GroupRecord, Log, ShareRecord

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper ends, in seconds, of the classes that group times are counted in; the last is open."""

RATIOS = 15

ENOUGH = 5
"""Shares that a worker's pace is taken from, at most and at least."""


@dataclass(slots=True)
class WorkerFacts:
    """What one worker has done.

    ``done``, ``erased``, ``lost`` count shares; ``late`` is the lateness of its erased shares
    in seconds, added up, and ``worst`` the largest; ``seen`` is the time of the last record,
    ``gone`` how it left, '' if it did not, and ``ratios`` are what its latest shares took, by
    the median of their layers.
    """

    done: int = 0
    erased: int = 0
    lost: int = 0
    late: float = 0.0
    worst: float = 0.0
    seen: float = 0.0
    gone: str = ""
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=RATIOS))

    @property
    def pace(self) -> float | None:
        """How slow it is: 1 is usual, 2 takes twice as long; None while it is not known."""
        return median(self.ratios) if len(self.ratios) >= ENOUGH else None


@dataclass(slots=True)
class LayerFacts:
    """What became of one layer's groups.

    ``seconds`` is added up over ``groups``: from a group's first assigned share to its last
    node's result. ``settled`` are the groups of which the lateness of all shares is known,
    ``settled_seconds`` their seconds and ``slowest`` the same up to the result of the slowest
    share, or to when that would have come at the earliest. ``buckets`` counts groups by
    seconds.
    """

    groups: int = 0
    solved: int = 0
    erased: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    settled: int = 0
    settled_seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=33))
    parity_durations: deque[float] = field(default_factory=lambda: deque(maxlen=33))

    def add(self, record: GroupRecord) -> float:
        """Count a group that is over, and return its seconds."""
        seconds = max(0.0, record.stop - record.start)
        self.groups += 1
        self.solved += record.solved
        self.seconds += seconds
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        return seconds

    def typical(self, stage: str) -> float:
        """Return the median of what the latest shares of a stage took, in seconds."""
        some = self.parity_durations if stage == "parity" else self.durations
        return median(some) if some else 0.0


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A group that is over: ``slowest`` is as in :class:`LayerFacts`, both from its start."""

    layer: int
    block: int
    start: float
    seconds: float
    slowest: float
    solved: bool
    erased: int


@dataclass(slots=True)
class Erasure:
    """A share that was given up at ``since`` by its group; ``freed`` is not known at first."""

    layer: int
    block: int
    position: int
    stage: str
    worker: str
    since: float
    freed: float | None = None

    @property
    def lateness(self) -> float:
        """Seconds, 0 if it is not known."""
        return 0.0 if self.freed is None else max(0.0, self.freed - self.since)


MAX_WORKERS = 2_000

MAX_LAYERS = 2_000

MAX_OPEN = 4_000

MAX_WAITING = 5_000

RECENT_GROUPS = 500

MAX_FREED = 2_000

MAX_SPARED = 64


@dataclass(slots=True)
class _OpenGroup:
    """A group whose record, or the lateness of one of its shares, is still to come."""

    last: float = 0.0
    erasures: list[Erasure] = field(default_factory=list)
    record: GroupRecord | None = None

    def is_settled(self) -> bool:
        return self.record is not None and all(e.freed is not None for e in self.erasures)


class RunStatistics:
    """Adds up the records of one run.

    Parameters
    ----------
    confirmed
        Until when each worker was seen to be stuck; somebody else keeps it up to date.
    """

    def __init__(self, confirmed: Mapping[str, float] | None = None) -> None:
        self.freed: Log[Erasure] = Log(MAX_FREED)
        """Erasures whose lateness is known, and is not zero."""
        self._confirmed: Mapping[str, float] = {} if confirmed is None else confirmed
        self.workers: OrderedDict[str, WorkerFacts] = OrderedDict()
        self.layers: dict[int, LayerFacts] = {}
        self.recent: Log[GroupFacts] = Log(RECENT_GROUPS)
        self.saved = 0.0
        """Seconds that groups did not wait, added up."""
        self._spared: list[tuple[float, float]] = []
        self._spared_before = 0.0
        self._open: OrderedDict[tuple[int, int], _OpenGroup] = OrderedDict()
        self._stuck: dict[str, list[Erasure]] = {}
        self._waiting = 0

    # ------------------------------------------------------------------ records

    def add_share(self, record: ShareRecord) -> None:
        """Take a share's record."""
        worker, layer = self._worker(record.worker), self._layer(record.layer)
        worker.seen = max(worker.seen, record.stop)
        if record.state == "done":
            self._unstick(record.worker, record)
            taken = max(0.0, record.stop - record.start)
            typical = layer.typical(record.stage)
            if typical > 0.0:
                worker.ratios.append(taken / typical)
            worker.done += 1
            kept = layer.parity_durations if record.stage == "parity" else layer.durations
            kept.append(taken)
            group = self._group(record.layer, record.block)
            if record.stage != "parity":
                group.last = max(group.last, record.stop)
        elif record.state == "erased":
            worker.erased += 1
            layer.erased += 1
            self._erase(record)
        else:
            worker.lost += 1

    def add_group(self, record: GroupRecord) -> None:
        """Take a group's record; those of its shares came before."""
        self._layer(record.layer).add(record)
        key = (record.layer, record.block)
        group = self._open.setdefault(key, _OpenGroup())
        group.record = record
        self._settle(key, group)

    def leave(self, address: str, what: str, now: float) -> None:
        """Note that a worker is gone: nobody can wait for it any longer."""
        self._worker(address).gone = what
        for erasure in self._stuck.pop(address, []):
            self._resolve(erasure, max(now, erasure.since))

    def free(self, address: str, stuck: Iterable[tuple[int, int, int]] = ()) -> None:
        """Note that a worker is stuck with no erased shares but these: (layer, block, position)."""
        held = set(stuck)
        kept = []
        for erasure in self._stuck.pop(address, []):
            if (erasure.layer, erasure.block, erasure.position) in held:
                kept.append(erasure)
            else:
                self._resolve(erasure, self._seen_stuck(erasure))
        if kept:
            self._stuck[address] = kept

    def pending(self, address: str) -> tuple[float, float]:
        """Return how late what a worker is stuck with is already: added up, and the largest."""
        late = [self._seen_stuck(e) - e.since for e in self._stuck.get(address, ())]
        return sum(late), max(late, default=0.0)

    @property
    def saved_at_once(self) -> float:
        """``saved`` on the clock: what several groups did not wait at a time counts once."""
        return self._spared_before + sum(end - begin for begin, end in self._spared)

    def saved_so_far(self) -> float:
        """Return ``saved_at_once`` with what workers are stuck with now."""
        held = [e for some in self._stuck.values() for e in some if e.stage != "parity"]
        spared = self._spared
        for erasure in held[:MAX_SPARED]:
            spared = _joined(spared, erasure.since, self._seen_stuck(erasure))
        return self._spared_before + sum(end - begin for begin, end in spared)

    @property
    def stuck(self) -> dict[str, list[Erasure]]:
        """The erased shares whose lateness is not known yet, by worker."""
        return self._stuck

    # ----------------------------------------------------------------- lateness

    def _erase(self, record: ShareRecord) -> None:
        place = (record.layer, record.block, record.position, record.stage, record.worker)
        erasure = Erasure(*place, since=record.stop)
        self._group(record.layer, record.block).erasures.append(erasure)
        self._stuck.setdefault(record.worker, []).append(erasure)
        self._waiting += 1
        if self._waiting > MAX_WAITING:  # of what is so old nobody will learn more
            for address in list(self._stuck):
                self.free(address)

    def _unstick(self, address: str, record: ShareRecord) -> None:
        """Note that a worker returned a share: what it was stuck with before is over."""
        waiting = self._stuck.get(address)
        if not waiting:
            return
        before = [erasure for erasure in waiting if erasure.since < record.stop]
        for erasure in before:
            seen = self._seen_stuck(erasure)
            self._resolve(erasure, min(seen, max(record.start, erasure.since)))
        after = [erasure for erasure in waiting if erasure.since >= record.stop]
        if after:
            self._stuck[address] = after
        else:
            del self._stuck[address]

    def _seen_stuck(self, erasure: Erasure) -> float:
        return max(erasure.since, self._confirmed.get(erasure.worker, 0.0))

    def _resolve(self, erasure: Erasure, freed: float) -> None:
        erasure.freed = freed
        self._waiting -= 1
        worker = self._worker(erasure.worker)
        worker.late += erasure.lateness
        worker.worst = max(worker.worst, erasure.lateness)
        typical = self._layer(erasure.layer).typical(erasure.stage)
        if erasure.lateness > typical > 0.0:
            worker.ratios.append(1.0 + erasure.lateness / typical)
        if erasure.lateness > 0.0:
            self.freed.append(erasure)
        if erasure.stage != "parity" and erasure.lateness > 0.0:
            self._spared = _joined(self._spared, erasure.since, freed)
            if len(self._spared) > MAX_SPARED:
                begin, end = self._spared.pop(0)
                self._spared_before += end - begin
        key = (erasure.layer, erasure.block)
        group = self._open.get(key)
        if group is not None:
            self._settle(key, group)

    def _settle(self, key: tuple[int, int], group: _OpenGroup) -> None:
        """Close a group of which everything is known."""
        if group.record is None or not group.is_settled():
            return
        del self._open[key]
        record = group.record
        freed = [e.freed for e in group.erasures if e.stage != "parity" and e.freed is not None]
        last = max([record.stop, group.last, *freed])
        seconds = max(0.0, record.stop - record.start)
        slowest = max(seconds, last - record.start)
        layer = self._layer(record.layer)
        layer.slowest += slowest
        layer.settled += 1
        layer.settled_seconds += seconds
        self.saved += slowest - seconds
        self.recent.append(
            GroupFacts(
                record.layer, record.block, record.start, seconds, slowest, record.solved,
                len(group.erasures),
            )
        )  # fmt: skip

    # -------------------------------------------------------------------- places

    def _group(self, layer: int, block: int) -> _OpenGroup:
        key = (layer, block)
        group = self._open.get(key)
        if group is None:
            group = self._open[key] = _OpenGroup()
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return group

    def _layer(self, number: int) -> LayerFacts:
        known = self.layers.get(number)
        if known is None:
            known = LayerFacts()
            if len(self.layers) < MAX_LAYERS:
                self.layers[number] = known
        return known

    def _worker(self, address: str) -> WorkerFacts:
        known = self.workers.get(address)
        if known is None:
            known = self.workers[address] = WorkerFacts()
            if len(self.workers) > MAX_WORKERS:
                self.workers.popitem(last=False)
        return known


def _joined(
    intervals: list[tuple[float, float]], begin: float, end: float
) -> list[tuple[float, float]]:
    """Return intervals that do not overlap, in order, with one more.

    >>> _joined([(0.0, 1.0), (4.0, 5.0)], 0.5, 2.0)
    [(0.0, 2.0), (4.0, 5.0)]
    """
    apart = []
    for start, stop in intervals:
        if stop < begin or start > end:
            apart.append((start, stop))
        else:
            begin, end = min(begin, start), max(end, stop)
    return sorted([*apart, (begin, end)])
