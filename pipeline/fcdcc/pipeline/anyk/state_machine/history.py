"""What happened in a run: counters, and a bounded record of its shares, groups and events.

:class:`ShareRecord` and :class:`GroupRecord` are the records of a share and of a group everywhere:
in the scheduler, on the dashboard, in the record of a run and in its report. They are flat, and
their fields are numbers and strings.

A run is forgotten when a client drops it, or when :data:`MAX_RUNS` others have been active
since. Of a long run the oldest records are dropped first, and of a run fewer are kept as soon as
another has begun. The counters are exact in any case.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

MAX_RUNS = 16
"""Number of runs that are remembered."""

MAX_SHARES = 10_000
"""Number of share records that are kept of the latest run."""

MAX_GROUPS = 5_000
"""Number of group records that are kept of the latest run."""

MAX_EVENTS = 1_000
"""Number of events that are kept of a run."""

EARLIER_RUN_SHARES = 2_000
"""Number of share records that are kept of a run once another has begun."""

EARLIER_RUN_GROUPS = 500
"""Number of group records that are kept of a run once another has begun."""

T = TypeVar("T")


class Log(Generic[T]):
    """The latest items of a sequence, and how many items there were.

    >>> log = Log(2)
    >>> for word in ("a", "b", "c"):
    ...     log.append(word)
    >>> list(log), log.total, log.since(2)
    (['b', 'c'], 3, ['c'])
    """

    __slots__ = ("_kept", "total")

    def __init__(self, limit: int) -> None:
        self._kept: deque[T] = deque(maxlen=limit)
        self.total = 0

    def append(self, item: T) -> None:
        """Add an item; the oldest is dropped if there are too many."""
        self._kept.append(item)
        self.total += 1

    def since(self, seen: int) -> list[T]:
        """Return the kept items after the first ``seen`` that were ever added."""
        first = len(self._kept) - (self.total - seen)
        return list(islice(self._kept, max(0, first), None))

    def shorten(self, limit: int) -> None:
        """Keep at most ``limit`` items from now on, the latest."""
        if self._kept.maxlen is None or self._kept.maxlen > limit:
            self._kept = deque(self._kept, maxlen=limit)

    def __len__(self) -> int:
        """Return how many items are kept."""
        return len(self._kept)

    def __iter__(self) -> Iterator[T]:
        """Iterate over the kept items, oldest first."""
        return iter(self._kept)


@dataclass
class Counters:
    """What is counted, per run."""

    groups: int = 0
    """Groups that were completed."""
    erasures: int = 0
    """Shares that were assigned to a worker and given up there without a result, because others
    sufficed or because a backup task had the result first; without superfluous ones."""
    decodes: int = 0
    """Completed groups in which something was solved for."""
    parity_started: int = 0
    """Parity shares that were assigned to a worker."""
    shares_lost: int = 0
    """Shares that had to be computed again, because their worker left or did not answer, or because
    their result was gone."""
    workers_lost: int = 0
    """Workers that left unexpectedly."""
    tasks_doubled: int = 0
    """Late tasks that got a backup task."""
    doubles_used: int = 0
    """Backup tasks that finished before the task."""
    corrupt_shares: int = 0
    """Shares that were found wrong."""


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """One attempt to compute a share. Times are seconds since the epoch."""

    layer: int
    block: int
    position: int
    stage: str
    """``share`` or ``parity``."""
    worker: str
    """Address of the worker."""
    start: float
    """When the computation began; for a share without a result, when it was assigned."""
    stop: float
    """When the computation ended, or the share was given up or lost."""
    state: str
    """``done``, ``erased``, ``superfluous`` (it was started in place of late or lost shares, and
    others came first: its worker was not late), ``lost`` (the worker left or was bypassed),
    ``recalled`` (the worker is there, but the share must be computed again, for example because an
    input of it was lost with another worker) or ``erred``. Monitoring also has records of the state
    ``ghost``: the share was given up at ``start``, and kept its worker busy until ``stop``."""

    @property
    def waited_for_lost_input(self) -> bool:
        """Whether its worker was well and gave it back, because input was lost elsewhere.

        The worker did not compute it: pictures do not draw such a share as work that the worker
        left unfinished.
        """
        return self.state == "recalled"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return _fields(self)


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """A completed group. Times are seconds since the epoch."""

    layer: int
    block: int
    start: float
    """When its first share was assigned."""
    stop: float
    """When the result of its last node arrived."""
    solved: bool
    """Whether something was solved for: a share that was not there was decoded from others."""
    erased: int = 0
    """Number of its shares that were given up; filled in by monitoring once it is known."""
    slowest: float | None = None
    """When the last share that is no parity had its result, or would have had it at the earliest;
    filled in by monitoring once it is known."""

    @property
    def seconds(self) -> float:
        """Seconds from ``start`` to ``stop``."""
        return max(0.0, self.stop - self.start)

    @property
    def slowest_seconds(self) -> float:
        """Seconds from ``start`` to ``slowest``; ``seconds`` while that is not known."""
        slowest = self.stop if self.slowest is None else self.slowest
        return max(self.seconds, slowest - self.start)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return _fields(self)


@dataclass
class RunHistory:
    """What is kept of one run."""

    counters: Counters = field(default_factory=Counters)
    shares: Log[ShareRecord] = field(default_factory=lambda: Log(MAX_SHARES))
    groups: Log[GroupRecord] = field(default_factory=lambda: Log(MAX_GROUPS))
    events: Log[dict[str, Any]] = field(default_factory=lambda: Log(MAX_EVENTS))
    """Dictionaries with ``time``, ``event`` and what else belongs to the event."""
    workers_removed: list[str] = field(default_factory=list)
    workers_lost: list[str] = field(default_factory=list)
    corrupt: list[tuple[int, int, int, str]] = field(default_factory=list)
    """Layer, block, position and worker of wrong shares."""

    def as_dict(self, timeline: bool = True) -> dict[str, Any]:
        """Return it as dictionaries, lists, strings and numbers.

        Without ``timeline`` the records of shares and groups, which may be many, are left out.
        """
        return {
            **self.totals(),
            "timeline": [record.as_dict() for record in self.shares] if timeline else [],
            "groups": [record.as_dict() for record in self.groups] if timeline else [],
            "events": list(self.events),
        }

    def totals(self) -> dict[str, Any]:
        """Return the counters, and the workers and wrong shares, as plain values."""
        return {
            "counters": asdict(self.counters),
            "workers_removed": list(self.workers_removed),
            "workers_lost": list(self.workers_lost),
            "corrupt": [list(found) for found in self.corrupt],
        }


class History:
    """The histories of the latest runs, and counters over all of them."""

    def __init__(self) -> None:
        self.runs: OrderedDict[str, RunHistory] = OrderedDict()
        self._dropped = Counters()

    def run(self, name: str) -> RunHistory:
        """Return the history of a run, a new one if there is none."""
        known = self.runs.get(name)
        if known is None:
            known = self.runs[name] = RunHistory()
            while len(self.runs) > MAX_RUNS:
                self.drop(next(iter(self.runs)))
            for earlier in self.runs.values():
                if earlier is not known:
                    earlier.shares.shorten(EARLIER_RUN_SHARES)
                    earlier.groups.shorten(EARLIER_RUN_GROUPS)
        self.runs.move_to_end(name)
        return known

    def look(self, name: str) -> RunHistory:
        """Return the history of a run; if there is none, an empty one that is not kept."""
        return self.runs.get(name) or RunHistory()

    def drop(self, name: str) -> None:
        """Forget a run; its counters stay in the totals."""
        dropped = self.runs.pop(name, None)
        if dropped is not None:
            self._dropped = _sum(self._dropped, dropped.counters)

    def totals(self) -> Counters:
        """Return the counters over all runs, forgotten ones included."""
        total = self._dropped
        for known in self.runs.values():
            total = _sum(total, known.counters)
        return total


def _fields(record: ShareRecord | GroupRecord) -> dict[str, Any]:
    """Return a record as a dictionary; ``dataclasses.asdict`` takes ten times as long."""
    return {name: getattr(record, name) for name in record.__slots__}


def _sum(a: Counters, b: Counters) -> Counters:
    right = asdict(b)
    return Counters(**{name: value + right[name] for name, value in asdict(a).items()})
