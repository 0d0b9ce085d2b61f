"""What a run leaves beside its output for the report: a bounded record of what happened.

It is one JSON object of a few hundred kilobytes at most, however long the run. Shares and
groups are kept as columns, the first and the latest of them, and more of those that were not
simply done.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fcdcc.storage import Json

if TYPE_CHECKING:  # at run time this would load Dask, which reading a story can do without
    from ...anyk.state_machine.history import ShareRecord
    from ..dashboard.run_statistics import Erasure, GroupFacts


SCHEMA = 1

FIRST_SHARES = 2_000
LAST_SHARES = 4_000
ODD_SHARES = 2_000
FIRST_GROUPS = 500
LAST_GROUPS = 2_500
MAX_EVENTS = 500
MAX_FAILURES = 500


class Sample:
    """The first and the latest rows of many, in the order in which they came.

    >>> sample = Sample(first=1, last=2)
    >>> for number in range(5):
    ...     sample.add([number])
    >>> sample.rows(), sample.total
    ([[0], [3], [4]], 5)
    """

    def __init__(self, first: int, last: int) -> None:
        self.total = 0
        self._first: list[list[Json]] = []
        self._room = first
        self._last: deque[list[Json]] = deque(maxlen=last)

    def add(self, row: list[Json]) -> None:
        """Add a row."""
        self.total += 1
        (self._first if len(self._first) < self._room else self._last).append(row)

    def rows(self) -> list[list[Json]]:
        """Return the rows that are kept."""
        return [*self._first, *self._last]


@dataclass
class RunJournal:
    """What is known of one run, as it goes.

    Parameters
    ----------
    run
        Its id.
    begin
        When it began, in seconds since the epoch; all times of shares and groups count from
        then.
    about
        What the run was: names, options, versions; plain values without credentials.
    layers
        A row per layer of the plan.
    state
        ``running``, ``complete``, ``incomplete`` (blocks failed), ``interrupted`` or ``failed``.
    updated, every
        When it was written, in seconds since the epoch, and in how many seconds it should be
        written again.
    """

    run: str
    begin: float
    about: Mapping[str, Json]
    layers: list[Json]
    state: str = "running"
    error: str = ""
    updated: float = 0.0
    every: float = 5.0
    summary: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    shares: Sample = field(default_factory=lambda: Sample(FIRST_SHARES, LAST_SHARES))
    odd: Sample = field(default_factory=lambda: Sample(ODD_SHARES // 2, ODD_SHARES // 2))
    ghosts: Sample = field(default_factory=lambda: Sample(ODD_SHARES // 2, ODD_SHARES // 2))
    groups: Sample = field(default_factory=lambda: Sample(FIRST_GROUPS, LAST_GROUPS))
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    workers: dict[str, int] = field(default_factory=dict)

    def add_shares(self, records: Iterable[ShareRecord]) -> None:
        """Add shares: those that are simply done, and the odd ones, which are kept longer."""
        for record in records:
            row: list[Json] = [
                self._worker(record.worker),
                record.layer,
                record.block,
                record.position,
                round(record.start - self.begin, 4),
                round(record.stop - self.begin, 4),
                record.state,
                record.stage,
            ]
            (self.shares if record.state == "done" else self.odd).add(row)

    def add_groups(self, records: Iterable[GroupFacts]) -> None:
        """Add groups of which everything is known."""
        for record in records:
            times = (record.start - self.begin, record.seconds, record.slowest)
            numbers: list[Json] = [round(value, 4) for value in times]
            self.groups.add([record.layer, record.block, *numbers, record.solved, record.erased])

    def add_ghosts(self, erasures: Iterable[Erasure]) -> None:
        """Add shares that were given up, and from when to when their workers were stuck."""
        for ghost in erasures:
            if ghost.freed is not None:
                times: list[Json] = [
                    round(moment - self.begin, 4) for moment in (ghost.since, ghost.freed)
                ]
                place: list[Json] = [ghost.layer, ghost.block, ghost.position]
                self.ghosts.add([self._worker(ghost.worker), *place, *times])

    def _worker(self, address: str) -> int:
        return self.workers.setdefault(address, len(self.workers))

    @property
    def name(self) -> str:
        """A name that sorts by when the run began."""
        moment = datetime.fromtimestamp(self.begin, UTC)
        return f"{moment:%Y%m%dT%H%M%S}-{self.run}"

    def members(self) -> dict[str, Json]:
        """Return the run as JSON, all numbers finite."""
        failed = sorted(self.failures.items())[:MAX_FAILURES]
        plain = {
            "schema": SCHEMA,
            "run": self.run,
            "begin": self.begin,
            "updated": self.updated,
            "every": self.every,
            "state": self.state,
            "error": self.error,
            "about": dict(self.about),
            "layers": self.layers,
            "summary": self.summary,
            "told": self.told,
            "facts": self.facts,
            "failures": [[block, reason] for block, reason in failed],
            "failures_total": len(self.failures),
            "workers": [*self.workers],
            "shares": self.shares.rows(),
            "shares_total": self.shares.total,
            "odd_shares": self.odd.rows(),
            "odd_shares_total": self.odd.total,
            "ghosts": self.ghosts.rows(),
            "groups": self.groups.rows(),
            "groups_total": self.groups.total,
            "events": [*self.events],
        }
        found = finite(plain)
        return found if isinstance(found, dict) else {}


def finite(value: Any) -> Json:
    """Return plain values as JSON: tuples as lists, and None for numbers that are not finite.

    >>> finite({"a": (1, float("inf")), 2: "b"})
    {'a': [1, None], '2': 'b'}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def share_rows(members: Mapping[str, Any]) -> list[list[Any]]:
    """Return the rows of all shares that a record holds, by their start."""
    return sorted([*members["shares"], *members["odd_shares"]], key=lambda row: row[4])
