"""What happened in a run: counters, and a bounded record of shares, groups and events.

A run is forgotten when somebody asks for that, or when :data:`MAX_RUNS` others have been
active since; of a long run the oldest records go first. The counters never lose anything.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Counters", "GroupRecord", "History", "RunHistory", "ShareRecord"]

MAX_RUNS = 16
MAX_SHARES = 50_000
MAX_GROUPS = 10_000
MAX_EVENTS = 1_000


@dataclass
class Counters:
    """What is counted, per run.

    ``groups`` that were completed; ``erasures``, shares that were assigned to a worker and
    given up without a result; ``decodes``, completed groups in which something was solved
    for; ``parity_started``; ``shares_lost``, shares that had to be made again because their
    worker left; ``workers_lost`` during the run, not counting those that were asked to leave.
    """

    groups: int = 0
    erasures: int = 0
    decodes: int = 0
    parity_started: int = 0
    shares_lost: int = 0
    workers_lost: int = 0


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
    shares: deque[ShareRecord] = field(default_factory=lambda: deque(maxlen=MAX_SHARES))
    groups: deque[GroupRecord] = field(default_factory=lambda: deque(maxlen=MAX_GROUPS))
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    workers_removed: list[str] = field(default_factory=list)
    workers_lost: list[str] = field(default_factory=list)

    def as_dict(self, timeline: bool = True) -> dict[str, Any]:
        """Return it as dictionaries, lists, strings and numbers.

        Without ``timeline`` the records of shares and groups, which may be many, are left out.
        """
        return {
            "counters": asdict(self.counters),
            "timeline": [vars(record) for record in self.shares] if timeline else [],
            "groups": [vars(record) for record in self.groups] if timeline else [],
            "events": list(self.events),
            "workers_removed": list(self.workers_removed),
            "workers_lost": list(self.workers_lost),
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


def _sum(a: Counters, b: Counters) -> Counters:
    right = asdict(b)
    return Counters(**{name: value + right[name] for name, value in asdict(a).items()})
