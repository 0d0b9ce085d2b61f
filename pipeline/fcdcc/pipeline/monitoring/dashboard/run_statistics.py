"""Statistics of one run: sums over the records of its shares and groups.

Everything is bounded: what is kept grows with the numbers of workers and layers, not with the
length of a run.

*Lateness*: a share that is given up (an erasure) has no result, so how late it would have been is
not known. But its worker is busy with it for a while longer: until the worker begins its next
share, as long as it reports cancelled tasks or does not answer, or until it leaves. The time from
the moment at which the share was given up until then is its lateness: its group would have waited
for at least this long. The lateness is 0 if the worker was not seen busy with the share any more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from ...anyk.state_machine.history import GroupRecord, Log, ShareRecord

GROUP_SECONDS_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Upper bounds of the buckets in which groups are counted by their seconds; one more bucket has
none."""

MAX_WORKERS = 2_000
MAX_LAYERS = 2_000

MAX_OPEN_GROUPS = 4_000
"""Most groups kept that are not complete, or have an erasure whose lateness is not known yet."""

MAX_HELD_SHARES = 5_000
"""Most erasures kept whose lateness is not known yet."""

RECENT_GROUPS = 500
MAX_GHOSTS = 2_000

MAX_SAVED_INTERVALS = 64
"""Latest intervals of saved waiting that are kept, to be joined with later ones that overlap."""

RECENT_DURATIONS = 33
"""Latest shares of a layer of whose durations the median is the typical one."""


@dataclass(slots=True)
class WorkerFacts:
    """What one worker has done in a run.

    Parameters
    ----------
    done, erased, lost
        Its shares that were finished, given up, and lost with it.
    late, worst
        Lateness of its erased shares in seconds: the sum, and the largest.
    overdue
        Its erased shares whose lateness exceeds the typical duration of shares of their layer.
    since, seen
        When its first share began, 0 before, and the time of its last record, in seconds since the
        epoch.
    gone
        How it left: ``removed``, ``lost`` or ``retired``; '' while it is there.
    pace
        How long its shares take, as a multiple of what is usual, as the any-k plugin has learned
        it; None while it is not known.
    """

    done: int = 0
    erased: int = 0
    lost: int = 0
    late: float = 0.0
    worst: float = 0.0
    overdue: int = 0
    since: float = 0.0
    seen: float = 0.0
    gone: str = ""
    pace: float | None = None


@dataclass(slots=True)
class LayerFacts:
    """Sums over the groups of one layer.

    Parameters
    ----------
    groups, solved, erased
        Completed groups, those of them in which something was solved for, and erased shares.
    seconds
        From a group's first assigned share to its last result, summed over ``groups``.
    settled
        Groups of which the lateness of all shares is known.
    settled_seconds, slowest
        ``seconds`` of these groups, and the same up to the result of their slowest share, or to the
        earliest time at which it can have come.
    buckets
        Number of groups in each bucket of :data:`GROUP_SECONDS_BUCKETS`.
    durations, parity_durations
        Seconds that the latest shares, and the latest parity shares, took.
    """

    groups: int = 0
    solved: int = 0
    erased: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    settled: int = 0
    settled_seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(GROUP_SECONDS_BUCKETS) + 1))
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_DURATIONS))
    parity_durations: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_DURATIONS))

    def add(self, record: GroupRecord) -> None:
        """Count a completed group."""
        self.groups += 1
        self.solved += record.solved
        self.seconds += record.seconds
        self.buckets[bisect_left(GROUP_SECONDS_BUCKETS, record.seconds)] += 1

    def typical(self, stage: str) -> float:
        """Return the median duration of the latest shares of a stage, in seconds."""
        some = self.parity_durations if stage == "parity" else self.durations
        return median(some) if some else 0.0


@dataclass(slots=True)
class _Erasure:
    """An erased share, and until when its worker was busy with it; None while not known."""

    record: ShareRecord
    freed: float | None = None

    @property
    def place(self) -> tuple[int, int, int]:
        return self.record.layer, self.record.block, self.record.position

    @property
    def is_parity(self) -> bool:
        return self.record.stage == "parity"


@dataclass(slots=True)
class _OpenGroup:
    """A group whose record, or the lateness of one of its shares, is still to come.

    ``last_result`` is when the latest of its shares, other than parity, was done.
    """

    last_result: float = 0.0
    erasures: list[_Erasure] = field(default_factory=list)
    record: GroupRecord | None = None

    def settled(self) -> GroupRecord | None:
        """Return its record with all fields, or None if these are not known yet."""
        if self.record is None or any(erasure.freed is None for erasure in self.erasures):
            return None
        freed = [e.freed for e in self.erasures if not e.is_parity and e.freed is not None]
        slowest = max([self.record.stop, self.last_result, *freed])
        return replace(self.record, erased=len(self.erasures), slowest=slowest)


class RunStatistics:
    """Sums over the records of one run.

    Parameters
    ----------
    seen_stuck
        For each worker the last moment at which it was seen to be busy with an erased share; the
        caller keeps it up to date.
    """

    def __init__(self, seen_stuck: Mapping[str, float] | None = None) -> None:
        self.workers: OrderedDict[str, WorkerFacts] = OrderedDict()
        self.layers: dict[int, LayerFacts] = {}
        self.settled: Log[GroupRecord] = Log(RECENT_GROUPS)
        """Groups of which the lateness of all shares is known."""
        self.ghosts: Log[ShareRecord] = Log(MAX_GHOSTS)
        """Erased shares whose lateness is known and is not zero, in the state ``ghost``."""
        self.saved = 0.0
        """Seconds that groups would have waited for erased shares, at least; summed over groups."""
        self._seen_stuck: Mapping[str, float] = {} if seen_stuck is None else seen_stuck
        self._saved_intervals: list[tuple[float, float]] = []
        self._saved_before = 0.0
        self._open: OrderedDict[tuple[int, int], _OpenGroup] = OrderedDict()
        self._held: dict[str, list[_Erasure]] = {}
        self._held_count = 0

    # ------------------------------------------------------------------ records

    def add_share(self, record: ShareRecord) -> None:
        """Add a share's record."""
        worker, layer = self._worker(record.worker), self._layer(record.layer)
        worker.since = min(worker.since, record.start) if worker.since else record.start
        worker.seen = max(worker.seen, record.stop)
        if record.state == "done":
            self._end_earlier(record)
            worker.done += 1
            is_parity = record.stage == "parity"
            durations = layer.parity_durations if is_parity else layer.durations
            durations.append(max(0.0, record.stop - record.start))
            group = self._group(record.layer, record.block)
            if not is_parity:
                group.last_result = max(group.last_result, record.stop)
        elif record.state == "erased":
            worker.erased += 1
            layer.erased += 1
            self._hold(record)
        elif record.state == "lost":
            worker.lost += 1

    def add_group(self, record: GroupRecord) -> None:
        """Add a group's record, after those of its shares."""
        self._layer(record.layer).add(record)
        key = (record.layer, record.block)
        group = self._open.setdefault(key, _OpenGroup())
        group.record = record
        self._settle(key, group)

    def leave(self, address: str, how: str, now: float) -> None:
        """Note that a worker is gone, which ends the lateness of its erased shares."""
        self._worker(address).gone = how
        for erasure in self._held.pop(address, []):
            self._end(erasure, max(now, erasure.record.stop))

    def free(self, address: str, ghosts: Iterable[tuple[int, int, int]] = ()) -> None:
        """Note that a worker is busy with no erased shares but these: (layer, block, position)."""
        places = set(ghosts)
        kept = []
        for erasure in self._held.pop(address, []):
            if erasure.place in places:
                kept.append(erasure)
            else:
                self._end(erasure, self._last_seen(erasure))
        if kept:
            self._held[address] = kept

    def close(self) -> None:
        """Take the lateness of all shares as known, because the run is over."""
        for address in self.holders:
            self.free(address)

    # --------------------------------------------------------------------- sums

    @property
    def holders(self) -> list[str]:
        """The workers that may be busy with erased shares."""
        return [*self._held]

    def pending(self, address: str) -> tuple[float, float]:
        """Return the lateness so far of a worker's erased shares: the sum, and the largest."""
        late = [self._last_seen(e) - e.record.stop for e in self._held.get(address, ())]
        return sum(late), max(late, default=0.0)

    @property
    def saved_at_once(self) -> float:
        """``saved`` as time on the clock: seconds that several groups save together count once.

        It never falls: a share counts once its lateness is known. Until then that may turn out to
        be less than it seems, for example if the worker had begun its next share.
        """
        return self._saved_before + _length(self._saved_intervals)

    # ----------------------------------------------------------------- lateness

    def _hold(self, record: ShareRecord) -> None:
        """Note that a worker may be busy with a share that was given up."""
        erasure = _Erasure(record)
        self._group(record.layer, record.block).erasures.append(erasure)
        self._held.setdefault(record.worker, []).append(erasure)
        self._held_count += 1
        if self._held_count > MAX_HELD_SHARES:  # treat the lateness of all as known
            for address in self.holders:
                self.free(address)

    def _end_earlier(self, record: ShareRecord) -> None:
        """End the lateness of a worker's shares that were given up before this one was done."""
        held = self._held.get(record.worker)
        if not held:
            return
        later = []
        for erasure in held:
            given_up = erasure.record.stop
            if given_up < record.stop:
                self._end(erasure, min(self._last_seen(erasure), max(record.start, given_up)))
            else:
                later.append(erasure)
        if later:
            self._held[record.worker] = later
        else:
            del self._held[record.worker]

    def _last_seen(self, erasure: _Erasure) -> float:
        """Return the last moment at which a worker was seen to be busy with an erased share."""
        record = erasure.record
        return max(record.stop, self._seen_stuck.get(record.worker, 0.0))

    def _end(self, erasure: _Erasure, freed: float) -> None:
        """Record when a worker stopped being busy with an erased share, and its lateness."""
        record = erasure.record
        erasure.freed = freed
        self._held_count -= 1
        lateness = max(0.0, freed - record.stop)
        worker = self._worker(record.worker)
        worker.late += lateness
        worker.worst = max(worker.worst, lateness)
        typical = self._layer(record.layer).typical(record.stage)
        worker.overdue += typical > 0.0 and lateness > typical
        if lateness > 0.0:
            self.ghosts.append(replace(record, start=record.stop, stop=freed, state="ghost"))
            if not erasure.is_parity:
                self._save(record.stop, freed)
        key = (record.layer, record.block)
        group = self._open.get(key)
        if group is not None:
            self._settle(key, group)

    def _save(self, begin: float, end: float) -> None:
        """Add an interval in which a group would have waited for an erased share."""
        self._saved_intervals = _joined(self._saved_intervals, begin, end)
        if len(self._saved_intervals) > MAX_SAVED_INTERVALS:
            self._saved_before += _length([self._saved_intervals.pop(0)])

    def _settle(self, key: tuple[int, int], group: _OpenGroup) -> None:
        """Add a group to the sums, if its record and the lateness of all its shares are known."""
        record = group.settled()
        if record is None:
            return
        del self._open[key]
        layer = self._layer(record.layer)
        layer.slowest += record.slowest_seconds
        layer.settled += 1
        layer.settled_seconds += record.seconds
        self.saved += record.slowest_seconds - record.seconds
        self.settled.append(record)

    # ------------------------------------------------------------------- places

    def _group(self, layer: int, block: int) -> _OpenGroup:
        key = (layer, block)
        group = self._open.get(key)
        if group is None:
            group = self._open[key] = _OpenGroup()
            if len(self._open) > MAX_OPEN_GROUPS:
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


def _length(intervals: Iterable[tuple[float, float]]) -> float:
    return sum(end - begin for begin, end in intervals)


def _joined(
    intervals: list[tuple[float, float]], begin: float, end: float
) -> list[tuple[float, float]]:
    """Return the union of sorted disjoint intervals and one more, sorted and disjoint.

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
