"""The recorded runs of an output, read from their journals for the report."""

from __future__ import annotations

import datetime as dt
import logging
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from fcdcc.storage import inspect_output
from fcdcc.storage.journals import last_journal, read_journals
from fcdcc.storage.locations import normalise, shown
from fcdcc.storage.locking import holder_state

from ...formatting import amount, counted, duration, memory_in_words, percent
from ..late_workers import LateWorker, LateWorkers
from ..output_status import OutputStatus, read_status
from ..record.journal import SCHEMA, recorded_groups, recorded_shares
from ..stragglers import MIN_SHARES, WorkerView, mark_replaced, ranked

if TYPE_CHECKING:
    from ...anyk.state_machine.history import GroupRecord, ShareRecord

logger = logging.getLogger(__name__)

UNFIT_JOURNAL_ERRORS = (
    ArithmeticError, AttributeError, LookupError, OSError, TemplateError, TypeError, ValueError,
)  # fmt: skip
"""Errors that may arise from showing a journal that no run wrote, with other fields or types."""

MIN_SILENT_SECONDS = 20.0
MAX_MISSED_WRITES = 3.0
"""A run counts as cut off if its last write is older than ``MIN_SILENT_SECONDS`` plus
``MAX_MISSED_WRITES`` times its interval of writing."""

TIME_LABEL = "time of the work"
SENT_LABEL = "bytes that workers sent to each other"
MEMORY_LABEL = "most memory of a worker's process"

MIN_SENT_SECONDS = 2.0
"""Least time of work of which the bytes that were sent are shown: workers tell them with their
heartbeats, and what came after the last one is missing."""

TOO_SHORT = "not known (short run)"
"""What is said of the bytes of shorter work."""

MIN_MENTIONED_SILENCE = 5.0
"""Seconds by which a run must be late with writing what happened for that to be mentioned."""

EXPECTED_FIELDS: Sequence[tuple[str, str, Callable[[float], str]]] = (
    (TIME_LABEL, "seconds", duration),
    (SENT_LABEL, "bytes_sent", lambda size: amount(size, "B")),
    ("extra work", "extra_work", percent),
    (MEMORY_LABEL, "peak_memory", lambda size: amount(size, "B")),
)
"""What a plan forecasts of a run: label, name in the summary, and function that formats it."""

MAX_PLANNED_RATIO = 1.3
"""A run that takes longer than planned by more than this factor says what is known of why."""

WITH_THE_NEXT = "part of the share of the next"
"""How the reason begins why a convolution has no code of its own, if shares compute it."""

DEFAULT_CODE = "systematic"

_STATES = {
    "complete": "complete",
    "incomplete": "some blocks failed",
    "interrupted": "interrupted",
    "failed": "with an error",
    "running": "is running",
    "cut off": "cut off",
}


@dataclass(frozen=True)
class RecordedRun:
    """One run of an output.

    Parameters
    ----------
    members
        Its journal, as :class:`..record.journal.RunJournal` writes it.
    completed_later
        Blocks that it completed after it last wrote its journal: a run that is interrupted or cut
        off does not see all of them end.
    """

    members: Mapping[str, Any]
    completed_later: int = 0

    @property
    def run(self) -> str:
        """Its id."""
        return str(self.members["run"])

    @property
    def state(self) -> str:
        """How it ended; ``running`` if it has not, ``cut off`` if it stopped writing."""
        state = str(self.members["state"])
        patience = MIN_SILENT_SECONDS + MAX_MISSED_WRITES * float(self.members["every"])
        return "cut off" if state == "running" and self.silent_seconds > patience else state

    @property
    def ending(self) -> str:
        """How it ended, for people."""
        return _STATES.get(self.state, self.state)

    @property
    def error(self) -> str:
        """The error with which it ended; '' if it did not."""
        return str(self.members["error"])

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it ends, as it told last; None if it did not know.

        It is :attr:`...progress.RunProgress.seconds_left`, which the page and terminals show, too.
        """
        found = self.status.get("seconds_left")
        return float(found) if isinstance(found, int | float) else None

    @property
    def silent_seconds(self) -> float:
        """Seconds since it last wrote what happened."""
        return max(0.0, time.time() - float(self.members["updated"]))

    def running(
        self, process: Literal["there", "ended", "unknown"] = "unknown"
    ) -> dict[str, Any] | None:
        """Return its progress; None if its end is recorded.

        ``process`` is what is known of its process. ``state`` is then ``ended`` if that has ended,
        ``silent`` if nothing is known and the run has not written for longer than usual, or
        ``running``.
        """
        if self.members["state"] != "running":
            return None
        is_silent = self.silent_seconds > float(self.members["every"]) + MIN_MENTIONED_SILENCE
        state = "silent" if is_silent and process == "unknown" else "running"
        views = self.worker_views
        silent_workers = [w for w in views if w.silent and not w.gone]
        return {
            "state": "ended" if process == "ended" else state,
            "silent_seconds": round(self.silent_seconds, 1),
            "silent_workers": [worker.called for worker in silent_workers],
            "removed_workers": [worker.called for worker in views if worker.gone == "removed"],
            "lost_workers": [worker.called for worker in views if worker.gone == "lost"],
            "run": self.run,
            "since": self.started,
            "blocks_in_flight": int(self.status.get("blocks_in_flight", 0)),
            "images_per_second": self.shown_images_per_second,
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
        """Names, options and versions."""
        found: Mapping[str, Any] = self.members["about"]
        return found

    @property
    def shares_needed(self) -> str:
        """How many of how many shares it needed: δ of n, and the code if it is not the default."""
        about = self.about
        code = "" if about["code"] == DEFAULT_CODE else f", {about['code']}"
        return f"{about['delta']} of {about['n']}{code}"

    @property
    def workers_in_words(self) -> tuple[str, ...]:
        """How many workers it began with, and how many of them it lost or heard no more of."""
        lost = int(self.number("workers_lost") or 0)
        silent = int((self.worker_loss or {}).get("silent", 0))
        gone = {"lost": lost, "silent": silent}
        told = (f"{number:,} {how}" for how, number in gone.items() if number)
        return (str(self.about["workers"]), *told)

    @property
    def has_redundancy(self) -> bool:
        """Whether shares may be lost: there are more than suffice, and parity may start."""
        about = self.about
        return int(about["n"]) > int(about["delta"]) and about.get("redundancy") != "off"

    @property
    def status(self) -> Mapping[str, Any]:
        """The numbers of its blocks and images when it last wrote."""
        found: Mapping[str, Any] = self.members["told"]
        return found

    @property
    def facts(self) -> Mapping[str, Any]:
        """Sums over its shares and groups."""
        found: Mapping[str, Any] = self.members["facts"]
        return found

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """Events of late groups and of workers that left or were lost."""
        found: Sequence[Mapping[str, Any]] = self.members["events"]
        return found

    def number(self, name: str) -> float | None:
        """Return a number of the summary, or the latest known if the run has no summary."""
        for known in (self.members["summary"], self.status, self.facts.get("counters", {})):
            value = known.get(name)
            if isinstance(value, int | float):
                return value + self._later(name)
            if isinstance(value, list):
                return len(value)
        return None

    @property
    def files_repaired(self) -> tuple[str, ...]:
        """Files of the output beside its predictions that were damaged and made again."""
        return tuple(map(str, self.members["summary"].get("files_repaired", ())))

    @property
    def worker_loss(self) -> Mapping[str, Any] | None:
        """What lost workers cost; None if none was lost, or an older version did not record it."""
        found = self.members["summary"].get("worker_loss") or self.members.get("worker_loss")
        return found if isinstance(found, Mapping) else None

    @cached_property
    def late_workers(self) -> tuple[LateWorker, ...]:
        """The workers whose tasks were started again elsewhere, those with the most first.

        Of a run without a summary, or of an older version, as far as its events are kept.
        """
        found = self.members["summary"].get("late_workers")
        if found is None:
            return LateWorkers(self.events).found(self.facts.get("workers", ()))
        names = ("worker", "tasks", "bypassed", "name", "pid")
        return tuple(LateWorker(*(row[name] for name in names)) for row in found)

    @property
    def unit(self) -> str:
        """What ``images_done`` counts: images, or of a run of tiles without a summary, tiles."""
        return "image" if self.members["summary"] or not self._has_tiles else "tile"

    @property
    def _has_tiles(self) -> bool:
        return self.about.get("unit") == "tile"

    def _later(self, name: str) -> int:
        """Return by how much a number is larger than the journal says."""
        if name == "blocks_done":
            return self.completed_later
        if name == "images_done" and self.about.get("band") is None:
            return self.completed_later * int(self.about["batch"])
        return 0

    def with_records(self, done_after: int) -> RecordedRun:
        """Return the run with the blocks that it completed after it last wrote its journal.

        Of a run of tiles that is not known: its blocks are not those of the output.

        Parameters
        ----------
        done_after
            Blocks of the output that were done when the run was over, by their records.
        """
        if self.members["summary"] or self.state == "running" or self._has_tiles:
            return self
        told = sum(int(self.status.get(name, 0)) for name in ("blocks_done", "blocks_skipped"))
        return replace(self, completed_later=max(0, done_after - told))

    @property
    def seconds(self) -> float:
        """How long it took with sending the model to the workers, as far as is known."""
        seconds = float(self.number("seconds") or 0.0)
        if self.completed_later:  # what it counted last was before its end
            return max(seconds, float(self.members["updated"]) - self.begin)
        return seconds

    @property
    def work_seconds(self) -> float | None:
        """Seconds from its first block to its last; None if it did not record them.

        Of a run without a summary, those until it last wrote its journal.
        """
        summary = self.members["summary"]
        phases = summary.get("phases") if isinstance(summary, Mapping) else None
        found = phases.get("work") if isinstance(phases, Mapping) else None
        if not summary and not self.completed_later:
            found = self.status.get("work_seconds")
        return float(found) if isinstance(found, int | float) and found > 0 else None

    @property
    def shown_seconds(self) -> float:
        """How long its work took: what the report shows, and its rate is of."""
        return self.seconds if self.work_seconds is None else self.work_seconds

    @property
    def images_per_second(self) -> float:
        """Its rate, by :attr:`seconds`."""
        return self._rate(self.seconds)

    @property
    def shown_images_per_second(self) -> float:
        """Its rate, by :attr:`shown_seconds`."""
        return self._rate(self.shown_seconds)

    def _rate(self, seconds: float) -> float:
        return float(self.number("images_done") or 0) / seconds if seconds > 0 else 0.0

    @cached_property
    def done_shares(self) -> list[ShareRecord]:
        """The recorded shares that have a result: the first and the latest of the run."""
        return recorded_shares(self.members, "shares")

    @cached_property
    def shares(self) -> list[ShareRecord]:
        """The shares that are recorded, by their start."""
        odd = recorded_shares(self.members, "odd_shares")
        return sorted([*self.done_shares, *odd], key=lambda share: share.start)

    @property
    def all_done_recorded(self) -> bool:
        """Whether all shares that were done are recorded, not only the first and the latest."""
        return int(self.members["shares_total"]) <= len(self.members["shares"])

    @cached_property
    def ghosts(self) -> list[ShareRecord]:
        """When workers were busy with shares that had been given up."""
        return recorded_shares(self.members, "ghosts")

    @cached_property
    def tasks(self) -> list[ShareRecord]:
        """The recorded tasks that are no shares; none in journals of older versions."""
        return recorded_shares(self.members, "tasks")

    @cached_property
    def groups(self) -> list[GroupRecord]:
        """The groups that are recorded."""
        return recorded_groups(self.members)

    @cached_property
    def worker_views(self) -> list[WorkerView]:
        """What is known of each worker, in the order of :data:`...words.WORKER_ORDER`."""
        rows = self.facts.get("workers", ())
        end = max((float(row.get("seen", 0.0)) for row in rows), default=0.0)
        return ranked(mark_replaced([_worker_view(row, end) for row in rows]))

    @property
    def workers(self) -> list[dict[str, Any]]:
        """Sums over the shares of each worker, in the order of :attr:`worker_views`."""
        rows = {row["address"]: dict(row) for row in self.facts.get("workers", ())}
        return [
            {**rows[worker.address], "late_mean": worker.late_mean} for worker in self.worker_views
        ]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The plan of each layer, with what was measured.

        ``part`` is its part of the work of all layers, and ``part_of_share`` that of all layers
        which its shares compute; None if the shares of a later layer compute it.
        """
        measured = {row["layer"]: row for row in self.facts.get("layers", ())}
        busy = sum(_share_seconds(row) for row in measured.values())
        rows, inside = [], 0.0
        for plan in self.members["layers"]:
            part_of_share: float | None = plan["part"] + inside
            inside = 0.0
            if str(plan["reason"]).startswith(WITH_THE_NEXT):
                part_of_share, inside = None, float(part_of_share or 0.0)
            measurement = _measured(measured.get(plan["layer"]), busy)
            rows.append({**plan, "part_of_share": part_of_share, **measurement})
        return rows

    @property
    def groups_note(self) -> str:
        """A sentence if the layers' groups are fewer than the blocks done; '' else."""
        groups = [row["groups"] for row in self.layers if row["groups"]]
        is_over = self.state in ("complete", "incomplete")
        if is_over or self._has_tiles or not groups:
            return ""
        if min(groups) >= int(self.number("blocks_done") or 0):
            return ""
        return (
            "Groups are counted up to when the run last wrote what happened: those of blocks that "
            "were done after that are missing."
        )

    def parts_in_words(self, row: Mapping[str, Any]) -> str:
        """Return how a layer of :attr:`layers` was cut into parts, or why it was not.

        The same for the report on a terminal and as HTML.
        """
        if row["code"] is not None:
            return f"{row['k_a']} × {row['k_b']}, by {row['split']}"
        if not str(row["reason"]).startswith(WITH_THE_NEXT):
            return "not protected"
        later = [each["layer"] for each in self.members["layers"] if each["code"] is not None]
        point = min((layer for layer in later if layer > row["layer"]), default=None)
        return "in a later share" if point is None else f"in the share of {point}"

    @property
    def expected(self) -> list[tuple[str, str, str]]:
        """Label, forecast and measurement of each expected field; empty for old journals."""
        planned = self.planned
        found = {**self.members["summary"], "seconds": self.shown_seconds} if planned else {}
        rows = [
            (what, form(float(planned[name])), form(float(found[name])))
            for what, name, form in EXPECTED_FIELDS
            if isinstance(found.get(name), int | float) and name in planned
        ]
        if self.shown_seconds < MIN_SENT_SECONDS:
            rows = [(w, p, TOO_SHORT if w == SENT_LABEL else m) for w, p, m in rows]
        if parity := float(planned.get("parity_memory", 0.0)):
            memory = memory_in_words(float(planned["peak_memory"]), parity)
            rows = [(w, memory if w == MEMORY_LABEL else p, m) for w, p, m in rows]
        if self.is_plan_rough:
            rows = [(w, f"roughly {p}" if w == TIME_LABEL else p, m) for w, p, m in rows]
        return rows

    @property
    def is_plan_rough(self) -> bool:
        """Whether it had too few blocks for the plan to know its time well."""
        return bool(self.planned.get("is_rough"))

    @property
    def times_planned(self) -> float | None:
        """How many times the planned time its work took; None if that is not known."""
        planned = float(self.planned.get("seconds", 0.0))
        return self.shown_seconds / planned if planned > 0 and self.shown_seconds > 0 else None

    @property
    def planned(self) -> Mapping[str, Any]:
        """What its plan forecast, by the names of the summary; empty for old journals."""
        summary = self.members["summary"]
        planned = summary.get("planned") if isinstance(summary, Mapping) else None
        return planned if isinstance(planned, Mapping) else {}

    @property
    def saved(self) -> float:
        """Seconds of the run in which at least one group would have waited for a given-up share."""
        final = self.members["summary"].get("waiting_saved")
        return float(self.facts.get("saved_at_once", 0.0) if final is None else final)

    def tail(self, part: float) -> tuple[float, float] | None:
        """Return quantile ``part`` of the groups' seconds, and of those with the slowest shares.

        The second is how long groups would take that wait for all their shares. None if fewer
        than two groups are recorded.
        """
        groups = self.groups
        if len(groups) < 2:
            return None
        place = min(98, max(0, round(100 * part) - 1))
        without, slowest = (
            quantiles(seconds, n=100)[place]
            for seconds in ([g.seconds for g in groups], [g.slowest_seconds for g in groups])
        )
        return without, slowest


@dataclass(frozen=True)
class OutputReport:
    """An output and its runs, the latest first.

    ``plan`` is the plan of the first run, as JSON; later runs may have others.
    """

    output: str
    status: OutputStatus
    runs: tuple[RecordedRun, ...]
    plan: str
    created: str

    @property
    def next_step(self) -> str:
        """The command that says whether the output is whole, in a sentence."""
        place = shlex.quote(self.output)
        return f"fcdcc verify {place} reads all predictions again and says whether any is damaged."

    @property
    def failures(self) -> tuple[tuple[int, str], ...]:
        """The blocks that have failed and have not been computed since, by their records."""
        return tuple((failure.block, failure.reason) for failure in self.status.failures)


def read_running(output: str) -> dict[str, Any] | None:
    """Return the progress of the run that is writing an output; None if the last one has ended.

    Of a run that was killed no end is recorded: see :meth:`RecordedRun.running` for its state.

    Raises
    ------
    OutputError
        If the journals cannot be read.
    """
    members = last_journal(output)
    if members is None or members.get("schema") != SCHEMA:
        return None
    try:
        return RecordedRun(members).running(holder_state(output))
    except UNFIT_JOURNAL_ERRORS:
        return None


def read_report(output: str) -> OutputReport:
    """Return what is known of an output and its runs.

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
    latest_first = sorted(filter(_is_dated, runs), key=lambda run: -run.begin)
    return OutputReport(
        shown(normalise(output)),
        status,
        tuple(_with_records(latest_first, status.blocks_done)),
        "" if stored is None else str(stored.plan),
        "" if stored is None else stored.created,
    )


def showable(report: OutputReport, show: Callable[[OutputReport], object]) -> OutputReport:
    """Return a report with the runs that ``show`` can show.

    The checksum of a journal says that it is as it was written, not that a run wrote it: others
    may have access to the output.
    """
    runs = tuple(run for run in report.runs if _can_show(show, replace(report, runs=(run,))))
    if len(runs) < len(report.runs):
        logger.warning(
            "%s left out: what their journals hold is not what a run writes",
            counted(len(report.runs) - len(runs), "run is", "runs are"),
        )
    return replace(report, runs=runs)


def _can_show(show: Callable[[OutputReport], object], report: OutputReport) -> bool:
    try:
        show(report)
    except UNFIT_JOURNAL_ERRORS:
        return False
    return True


def _with_records(latest_first: Sequence[RecordedRun], done: int) -> Iterator[RecordedRun]:
    """Yield runs with the blocks that they completed after they last wrote their journals.

    ``done`` are the blocks of the output that are done now.
    """
    for run in latest_first:
        try:
            yield run.with_records(done)
            done = int(run.status.get("blocks_skipped", 0))
        except UNFIT_JOURNAL_ERRORS:  # it is left out where it is shown
            yield run


def _is_dated(run: RecordedRun) -> bool:
    """Return whether a journal says when its run began."""
    try:
        return bool(run.started)
    except UNFIT_JOURNAL_ERRORS:
        return False


def _worker_view(row: Mapping[str, Any], end: float) -> WorkerView:
    """Return a worker of a journal; ``end`` is when the run was last heard of.

    The first shares of a run are slower than all others: a pace that was learned from fewer than
    :data:`..stragglers.MIN_SHARES` shares says little, and is left out.
    """
    names = ("address", "done", "erased", "lost", "late", "worst")
    return WorkerView(
        **{name: row[name] for name in names},
        pace=row["pace"] if row["done"] >= MIN_SHARES else None,
        overdue=row.get("overdue", 0),
        gone=str(row["gone"] or ""),
        gone_for=-1.0,
        had_shares_for=max(0.0, end - row["since"]) if row.get("since") else 0.0,
        silent=float(row.get("silent") or 0.0),
        name=str(row.get("name", "")),
        pid=int(row.get("pid", 0)),
        host=str(row.get("host", "")),
    )


def _share_seconds(row: Mapping[str, Any]) -> float:
    """Return the seconds of a usual share of a layer times the layer's groups."""
    return float(row["share"]) * int(row["groups"])


def _measured(row: Mapping[str, Any] | None, busy: float) -> dict[str, Any]:
    """Return the measurements of a layer, with None for what was not measured."""
    if row is None or not row["groups"]:
        names = ("decodes", "seconds", "slowest", "share", "part_measured")
        return {"groups": 0, **dict.fromkeys(names)}
    settled = row["settled"]
    return {
        "groups": row["groups"],
        "decodes": row["solved"],
        "seconds": row["settled_seconds"] / settled if settled else None,
        "slowest": row["slowest"] / settled if settled else None,
        "share": float(row["share"]),
        "part_measured": _share_seconds(row) / busy if busy > 0 else None,
    }
