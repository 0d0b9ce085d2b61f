"""The journal of a run: a file in its output, which ``fcdcc report`` reads.

A journal is one JSON object of a few hundred kilobytes at most, however long the run. Shares and
groups are the records of the any-k history (:mod:`...anyk.state_machine.history`), as rows of
values: the first and the latest of them, and more of the shares that were not simply done. The
times in the rows are seconds since the run began. A new version must read the journals of older
ones.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fcdcc.storage import Json

if TYPE_CHECKING:
    from ...anyk.state_machine.history import GroupRecord, ShareRecord

SCHEMA = 1

FIRST_SHARES = 2_000
LAST_SHARES = 4_000
"""Most records of done shares that are kept."""

FIRST_ODD_SHARES = 1_000
LAST_ODD_SHARES = 1_000
"""Most records of other shares, and of ghosts, that are kept."""

FIRST_TASKS = 1_000
LAST_TASKS = 2_000
"""Most records of tasks that are no shares."""

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
        self._max_first = first
        self._last: deque[list[Json]] = deque(maxlen=last)

    def add(self, row: list[Json]) -> None:
        """Add a row."""
        self.total += 1
        (self._first if len(self._first) < self._max_first else self._last).append(row)

    def rows(self) -> list[list[Json]]:
        """Return the rows that are kept."""
        return [*self._first, *self._last]


def _odd_shares() -> Sample:
    return Sample(FIRST_ODD_SHARES, LAST_ODD_SHARES)


@dataclass
class RunJournal:
    """The record of one run while it runs.

    Parameters
    ----------
    run
        Its id.
    begin
        When it began, in seconds since the epoch.
    about
        Names, options and versions of the run: plain values without credentials.
    layers
        A row per layer of the plan.
    state
        ``running``, ``complete``, ``incomplete`` (blocks failed), ``interrupted`` or ``failed``.
    error
        Why it failed; '' if it did not.
    updated
        When it was last written, in seconds since the epoch.
    every
        Seconds until it should be written again.
    summary
        The summary of the run, once it is over.
    status
        What the run last reported of its blocks.
    facts
        Sums over all shares and groups so far.
    failures
        Blocks that failed, each with the reason.
    worker_loss
        What workers that were lost or did not answer cost so far (:class:`.loss_cost.LossCost`);
        None if there were none.
    shares, odd_shares, ghosts, tasks, groups
        Rows of records: of shares that are done, of all others, of ghosts, of tasks that are no
        shares (reads, parts, glue, writes), and of groups.
    events
        The latest events: late groups, workers that are gone.
    workers
        Addresses of workers, each with its number in the rows.
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
    status: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    worker_loss: dict[str, Any] | None = None
    shares: Sample = field(default_factory=lambda: Sample(FIRST_SHARES, LAST_SHARES))
    odd_shares: Sample = field(default_factory=_odd_shares)
    ghosts: Sample = field(default_factory=_odd_shares)
    tasks: Sample = field(default_factory=lambda: Sample(FIRST_TASKS, LAST_TASKS))
    groups: Sample = field(default_factory=lambda: Sample(FIRST_GROUPS, LAST_GROUPS))
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    workers: dict[str, int] = field(default_factory=dict)

    def add_shares(self, records: Iterable[ShareRecord]) -> None:
        """Add records of shares."""
        for record in records:
            row = [*self._share_row(record), record.state, record.stage]
            (self.shares if record.state == "done" else self.odd_shares).add(row)

    def add_ghosts(self, records: Iterable[ShareRecord]) -> None:
        """Add ghosts: records of shares that were given up and kept their workers busy."""
        for record in records:
            self.ghosts.add(self._share_row(record))

    def add_tasks(self, records: Iterable[ShareRecord]) -> None:
        """Add records of tasks that are no shares."""
        for record in records:
            self.tasks.add([*self._share_row(record), record.state, record.stage])

    def add_groups(self, records: Iterable[GroupRecord]) -> None:
        """Add records of groups of which the slowest share is known."""
        for record in records:
            times = (record.start - self.begin, record.seconds, record.slowest_seconds)
            numbers: list[Json] = [round(value, 4) for value in times]
            self.groups.add([record.layer, record.block, *numbers, record.solved, record.erased])

    def _share_row(self, record: ShareRecord) -> list[Json]:
        worker = self.workers.setdefault(record.worker, len(self.workers))
        times: list[Json] = [round(time - self.begin, 4) for time in (record.start, record.stop)]
        return [worker, record.layer, record.block, record.position, *times]

    @property
    def name(self) -> str:
        """The name of its file, which sorts by when the run began."""
        moment = datetime.fromtimestamp(self.begin, UTC)
        return f"{moment:%Y%m%dT%H%M%S}-{self.run}"

    def members(self) -> dict[str, Json]:
        """Return the journal as JSON, all numbers finite."""
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
            "told": self.status,
            "facts": self.facts,
            "failures": [[block, reason] for block, reason in failed],
            "failures_total": len(self.failures),
            "worker_loss": self.worker_loss,
            "workers": [*self.workers],
            "shares": self.shares.rows(),
            "shares_total": self.shares.total,
            "odd_shares": self.odd_shares.rows(),
            "odd_shares_total": self.odd_shares.total,
            "ghosts": self.ghosts.rows(),
            "tasks": self.tasks.rows(),
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


def recorded_shares(members: Mapping[str, Any], name: str) -> list[ShareRecord]:
    """Return the records of shares in a journal.

    Parameters
    ----------
    members
        The journal.
    name
        ``shares``, ``odd_shares``, ``ghosts`` or ``tasks``, which journals of older versions do not
        have. A journal does not have the stage of ghosts: it is '' for these.
    """
    from ...anyk.state_machine.history import ShareRecord  # it loads Dask; `status` works without

    begin, workers = float(members["begin"]), members["workers"]

    def record(row: Sequence[Any]) -> ShareRecord:
        worker, layer, block, position, start, stop, *rest = row
        state, stage = rest or ("ghost", "")
        times = begin + start, begin + stop
        return ShareRecord(layer, block, position, stage, workers[worker], *times, state)

    return [record(row) for row in members.get(name, ())]


def recorded_groups(members: Mapping[str, Any]) -> list[GroupRecord]:
    """Return the records of groups in a journal."""
    from ...anyk.state_machine.history import GroupRecord

    begin = float(members["begin"])

    def record(row: Sequence[Any]) -> GroupRecord:
        layer, block, start, seconds, slowest, solved, erased = row
        start += begin
        return GroupRecord(layer, block, start, start + seconds, solved, erased, start + slowest)

    return [record(row) for row in members["groups"]]
