"""The facts of a run: by worker, by layer, and of single groups and erasures.

They are added up by :class:`.account.Account`.

*Pace*: the time that a worker's shares take, divided by the median of the same layer's; the
median of its latest ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from ..anyk.history import GroupRecord

__all__ = ["BUCKETS", "Erasure", "GroupFacts", "LayerFacts", "WorkerFacts"]

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
