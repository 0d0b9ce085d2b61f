"""The runs of an output as their stories tell them, for the report."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Any

from fcdcc.storage import inspect_output
from fcdcc.storage.journals import last_journal, read_journals
from fcdcc.storage.locations import normalise, shown

from ...formatting import amount, duration, percent
from ..output_status import OutputStatus, read_status
from ..record.journal import SCHEMA, share_rows

logger = logging.getLogger(__name__)

ODD = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What comes of a story that does not hold what a run writes."""


EXPECTED_FIELDS: Sequence[tuple[str, str, Callable[[float], str]]] = (
    ("time", "seconds", duration),
    ("sent between workers", "bytes_sent", lambda size: amount(size, "B")),
    ("extra work", "extra_work", percent),
    ("most memory of a worker", "peak_memory", lambda size: amount(size, "B")),
)
"""What is compared: for people, by its name in the summary, and how it is written."""


@dataclass(frozen=True)
class Group:
    """A group that is over; seconds from its start."""

    layer: int
    block: int
    start: float
    seconds: float
    slowest: float
    solved: bool
    erased: int


@dataclass(frozen=True)
class Share:
    """A share on a worker; seconds since the run began."""

    worker: str
    layer: int
    block: int
    position: int
    start: float
    stop: float
    state: str
    stage: str


@dataclass(frozen=True)
class Ghost:
    """A share that kept its worker busy when nobody waited for it; seconds since the beginning."""

    worker: str
    layer: int
    block: int
    position: int
    start: float
    stop: float


@dataclass(frozen=True)
class RecordedRun:
    """What one run left: ``members`` is its story, as :mod:`.story` wrote it."""

    members: Mapping[str, Any]

    @property
    def run(self) -> str:
        """Its id."""
        return str(self.members["run"])

    @property
    def state(self) -> str:
        """How it ended; ``running`` if it is going on, ``cut off`` if it ended without a word."""
        said = str(self.members["state"])
        late = time.time() - float(self.members["updated"])
        return "cut off" if said == "running" and late > self.patience else said

    @property
    def patience(self) -> float:
        """Seconds after which a run that has written nothing is not going on any more."""
        return 20.0 + 3.0 * float(self.members["every"])

    @property
    def blocks_left(self) -> int:
        """Blocks that it has still to do."""
        names = ("blocks_done", "blocks_skipped", "blocks_failed")
        return int(self.told.get("blocks_total", 0)) - sum(int(self.told.get(n, 0)) for n in names)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it is over at its rate; None while there is no rate."""
        done = int(self.told.get("blocks_done", 0))
        return self.blocks_left * self.seconds / done if done else None

    def going_on(self) -> dict[str, Any] | None:
        """Return how far it is if it is going on now, else None."""
        if self.state != "running":
            return None
        return {
            "run": self.run,
            "since": self.started,
            "blocks_in_flight": int(self.told.get("blocks_in_flight", 0)),
            "images_per_second": self.images_per_second,
            "seconds_left": self.seconds_left,
            "erasures": self.number("erasures") or 0,
            "extra_work": self.number("extra_work") or 0.0,
        }

    @property
    def begin(self) -> float:
        """When it began, in seconds since the epoch."""
        return float(self.members["begin"])

    @property
    def started(self) -> str:
        """When it began, for people."""
        moment = dt.datetime.fromtimestamp(self.begin).astimezone()
        return moment.strftime("%Y-%m-%d %H:%M:%S %Z").strip()

    @property
    def about(self) -> Mapping[str, Any]:
        """What it was."""
        found: Mapping[str, Any] = self.members["about"]
        return found

    @property
    def told(self) -> Mapping[str, Any]:
        """What it last said of its blocks."""
        found: Mapping[str, Any] = self.members["told"]
        return found

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its shares and groups add up to."""
        found: Mapping[str, Any] = self.members["facts"]
        return found

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """Late groups, and workers that were gone."""
        found: Sequence[Mapping[str, Any]] = self.members["events"]
        return found

    def number(self, name: str) -> float | None:
        """Return a number of the summary, or what is known where the run did not get to one."""
        for known in (self.members["summary"], self.told, self.facts.get("counters", {})):
            value = known.get(name)
            if isinstance(value, int | float):
                return value
            if isinstance(value, list):
                return len(value)
        return None

    @property
    def seconds(self) -> float:
        """How long it took, as far as is known."""
        return float(self.number("seconds") or 0.0)

    @property
    def images_per_second(self) -> float:
        """Its rate."""
        return float(self.number("images_done") or 0) / self.seconds if self.seconds > 0 else 0.0

    @property
    def shares(self) -> list[Share]:
        """The shares that it kept, by their start."""
        workers = self.members["workers"]
        return [Share(workers[row[0]], *row[1:]) for row in share_rows(self.members)]

    @property
    def ghosts(self) -> list[Ghost]:
        """When workers were stuck with shares that nobody waited for."""
        workers = self.members["workers"]
        return [Ghost(workers[row[0]], *row[1:]) for row in self.members["ghosts"]]

    @property
    def shares_total(self) -> int:
        """How many shares there were."""
        return int(self.members["shares_total"]) + int(self.members["odd_shares_total"])

    @property
    def groups(self) -> list[Group]:
        """The groups that it kept."""
        return [Group(*row) for row in self.members["groups"]]

    @property
    def workers(self) -> list[dict[str, Any]]:
        """Facts about each worker, those with the latest shares first."""
        rows = [dict(row) for row in self.facts.get("workers", ())]
        for row in rows:
            row["late_mean"] = row["late"] / row["erased"] if row["erased"] else 0.0
        return sorted(rows, key=lambda r: (-(r["pace"] or 0.0) - r["late_mean"], r["address"]))

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The plan of each layer, with what was measured."""
        measured = {row["layer"]: row for row in self.facts.get("layers", ())}
        busy = sum(_work(row) for row in measured.values())
        return [
            {**plan, **_measured(plan, measured.get(plan["layer"]), busy, self.about)}
            for plan in self.members["layers"]
        ]

    @property
    def expected_of_run(self) -> list[tuple[str, str, str]]:
        """What the plan expected of the run and what was measured, for people; none in old runs."""
        summary = self.members["summary"]
        expected = summary.get("planned") if isinstance(summary, Mapping) else None
        if not isinstance(expected, Mapping):
            return []
        return [
            (what, form(float(expected[name])), form(float(found)))
            for what, name, form in EXPECTED_FIELDS
            if isinstance(found := summary.get(name), int | float) and name in expected
        ]

    @property
    def failures(self) -> list[tuple[int, str]]:
        """The first blocks that failed, each with its reason."""
        return [(int(block), str(reason)) for block, reason in self.members["failures"]]

    @property
    def saved(self) -> float:
        """Seconds on the clock for which some group would have waited, at least."""
        return float(self.facts.get("saved_at_once", 0.0))

    def tail(self, part: float) -> tuple[float, float] | None:
        """Return a quantile of groups' seconds, and of their slowest shares'."""
        groups = self.groups
        if len(groups) < 2:
            return None
        place = min(98, max(0, round(100 * part) - 1))
        cuts = [
            quantiles(times, n=100)[place]
            for times in ([g.seconds for g in groups], [g.slowest for g in groups])
        ]
        return cuts[0], cuts[1]


@dataclass(frozen=True)
class OutputReport:
    """An output and its runs, the latest first.

    ``plan`` is the plan that all runs of the output share, as JSON.
    """

    output: str
    status: OutputStatus
    runs: tuple[RecordedRun, ...]
    plan: str
    created: str

    @property
    def failures(self) -> tuple[tuple[int, str], ...]:
        """The blocks that have failed and have not been made since, by their records."""
        return tuple((failure.block, failure.reason) for failure in self.status.failures)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why blocks failed, the most frequent first."""
        return Counter(reason for _, reason in self.failures).most_common(20)


def read_going_on(output: str) -> dict[str, Any] | None:
    """Return how far the run is that is writing an output now; None where there is none.

    Raises
    ------
    OutputError
        If that cannot be read.
    """
    members = last_journal(output)
    if members is None or members.get("schema") != SCHEMA:
        return None
    try:
        return RecordedRun(members).going_on()
    except ODD:
        return None


def read_past(output: str) -> OutputReport:
    """Return what is known of an output's runs.

    Raises
    ------
    OutputError
        If there is no output, or it cannot be read.
    """
    status = read_status(output)
    stored = inspect_output(output)
    runs = [
        RecordedRun(members)
        for members in read_journals(output)
        if isinstance(members.get("schema"), int) and members["schema"] == SCHEMA
    ]
    return OutputReport(
        shown(normalise(output)),
        status,
        tuple(sorted(filter(_is_dated, runs), key=lambda run: -run.begin)),
        "" if stored is None else str(stored.plan),
        "" if stored is None else stored.created,
    )


def showable(past: OutputReport, show: Callable[[OutputReport], object]) -> OutputReport:
    """Return an output with the runs of which ``show`` can make something.

    A checksum says that a story is as it was written, not by whom: others may write there.
    """
    runs = tuple(run for run in past.runs if _can(show, replace(past, runs=(run,))))
    if len(runs) < len(past.runs):
        left_out = len(past.runs) - len(runs)
        logger.warning("%d runs are left out: their stories hold nothing that fits", left_out)
    return replace(past, runs=runs)


def _can(show: Callable[[OutputReport], object], past: OutputReport) -> bool:
    try:
        show(past)
    except ODD:
        return False
    return True


def _is_dated(run: RecordedRun) -> bool:
    """Return whether a story says when its run began."""
    try:
        return bool(run.started)
    except ODD:
        return False


def _work(row: Mapping[str, Any]) -> float:
    return float(row["share"]) * int(row["groups"])


def _measured(
    plan: Mapping[str, Any],
    row: Mapping[str, Any] | None,
    busy: float,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what was measured of a layer, beside its plan."""
    if row is None or not row["groups"]:
        return {"groups": 0}
    share = float(row["share"])
    work = plan["multiply_adds"] * about["batch"] / max(1, about["delta"])
    return {
        "groups": row["groups"],
        "decodes": row["solved"],
        "erasures": row["erased"],
        "seconds": row["settled_seconds"] / row["settled"] if row["settled"] else None,
        "slowest": row["slowest"] / row["settled"] if row["settled"] else None,
        "share": share,
        "rate": work / share if share > 0 else None,
        "part_measured": _work(row) / busy if busy > 0 else None,
    }
