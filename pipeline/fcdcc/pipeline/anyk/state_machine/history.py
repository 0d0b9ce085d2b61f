"""What happened in a run: counters, and a bounded record of shares, groups and events.

A run is forgotten when somebody asks for that, or when :data:`MAX_RUNS` others have been
active since; of a long run the oldest records go first, and of a run less is kept as soon as
another has begun. The counters never lose anything.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

MAX_RUNS = 16
MAX_SHARES = 10_000
MAX_GROUPS = 5_000
MAX_EVENTS = 1_000

KEPT_SHARES = 2_000
KEPT_GROUPS = 500
"""What is kept of a run once another has begun."""

T = TypeVar("T")


class Log(Generic[T]):
    """The latest of many things, and how many there were.

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
        """Add one; the oldest goes if there are too many."""
        self._kept.append(item)
        self.total += 1

    def since(self, seen: int) -> list[T]:
        """Return those after the first ``seen`` ever added, as far as they are kept."""
        first = len(self._kept) - (self.total - seen)
        return list(islice(self._kept, max(0, first), None))

    def shorten(self, limit: int) -> None:
        """Keep no more than so many from now on, the latest."""
        if self._kept.maxlen is None or self._kept.maxlen > limit:
            self._kept = deque(self._kept, maxlen=limit)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._kept)

    def __iter__(self) -> Iterator[T]:
        """Go through those that are kept, oldest first."""
        return iter(self._kept)


@dataclass
class Counters:
    """What is counted, per run.

    ``groups`` that were completed; ``erasures``, shares that were assigned to a worker and
    given up without a result; ``decodes``, completed groups in which something was solved
    for; ``parity_started``; ``shares_lost``, shares that had to be made again because their
    worker left; ``workers_lost`` during the run, not counting those that were asked to leave;
    ``tasks_doubled``, single tasks that were late and were started again elsewhere, and
    ``doubles_used``, those whose second run was first; ``corrupt_shares`` that were found
    wrong.
    """

    groups: int = 0
    erasures: int = 0
    decodes: int = 0
    parity_started: int = 0
    shares_lost: int = 0
    workers_lost: int = 0
    tasks_doubled: int = 0
    doubles_used: int = 0
    corrupt_shares: int = 0


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """One attempt at a share.

    ``state`` is ``done``, ``erased``, ``lost`` or ``erred``. ``start`` and ``stop`` are
    seconds since the epoch; for a share without a result ``start`` is when it was assigned.
    """

    layer: int
    block: int
    position: int
    stage: str
    worker: str
    start: float
    stop: float
    state: str


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """A completed group, from the first assigned share to the last node's result."""

    layer: int
    block: int
    start: float
    stop: float
    solved: bool


@dataclass
class RunHistory:
    """What is kept of one run."""

    counters: Counters = field(default_factory=Counters)
    shares: Log[ShareRecord] = field(default_factory=lambda: Log(MAX_SHARES))
    groups: Log[GroupRecord] = field(default_factory=lambda: Log(MAX_GROUPS))
    events: Log[dict[str, Any]] = field(default_factory=lambda: Log(MAX_EVENTS))
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
            "timeline": [_plain(record) for record in self.shares] if timeline else [],
            "groups": [_plain(record) for record in self.groups] if timeline else [],
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
        self._before = Counters()

    def run(self, name: str) -> RunHistory:
        """Return the history of a run, a new one if there is none."""
        known = self.runs.get(name)
        if known is None:
            known = self.runs[name] = RunHistory()
            while len(self.runs) > MAX_RUNS:
                self.drop(next(iter(self.runs)))
            for older in self.runs.values():
                if older is not known:
                    older.shares.shorten(KEPT_SHARES)
                    older.groups.shorten(KEPT_GROUPS)
        self.runs.move_to_end(name)
        return known

    def look(self, name: str) -> RunHistory:
        """Return the history of a run, an empty one that is not kept if there is none."""
        return self.runs.get(name) or RunHistory()

    def drop(self, name: str) -> None:
        """Forget a run; what it counted stays in the totals."""
        gone = self.runs.pop(name, None)
        if gone is not None:
            self._before = _sum(self._before, gone.counters)

    def totals(self) -> Counters:
        """Return the counters over all runs, forgotten ones included."""
        total = self._before
        for known in self.runs.values():
            total = _sum(total, known.counters)
        return total


def _plain(record: ShareRecord | GroupRecord) -> dict[str, Any]:
    """Return a record as a dictionary; ``asdict`` takes ten times as long."""
    return {name: getattr(record, name) for name in record.__slots__}


def _sum(a: Counters, b: Counters) -> Counters:
    right = asdict(b)
    return Counters(**{name: value + right[name] for name, value in asdict(a).items()})
