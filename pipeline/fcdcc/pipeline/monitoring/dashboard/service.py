"""The service on the scheduler that collects what happens in the runs.

It exchanges reports and records with the clients of the runs (:meth:`MonitoringService.exchange`),
and makes the data of the page, the JSON and the metrics (:func:`snapshot`).
"""

from __future__ import annotations

import logging
import math
import time as clock
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from distributed.metrics import time

from fcdcc.coding import __version__

from ...anyk import AnyKPlugin
from ...anyk.keys import parse_key
from ...anyk.state_machine.history import Counters, ShareRecord
from ...anyk.state_machine.state import AnyKState
from ..stragglers import WorkerView, behind, ranked, slow_ones, verdict
from .collector import RECORDS, CollectedRun, RunCollector
from .run_statistics import WorkerFacts

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

logger = logging.getLogger(__name__)

SERVICE = "fcdcc-monitoring"
"""Name of the service among a scheduler's extensions, and of its periodic callback."""

EXCHANGE = "fcdcc_monitoring_exchange"
"""Name of the scheduler's handler for the reports of runs."""

TOPIC = "fcdcc"
"""Topic of the scheduler's event log: erasures, late groups, workers that are gone."""

REFRESH_SECONDS = 1.0
"""Time between two collections of records, and largest age of what is shown."""

MAX_WORKERS = 500
"""Most workers whose sums are sent to a run for its journal."""

MAX_LAYERS = 500
"""Most layers whose sums are sent to a run for its journal, and shown."""

MAX_SHOWN_WORKERS = 200
MAX_PACES = 2_000
MAX_GROUPS = 120

SHARE_STAGES = ("share", "parity")
"""Stages of tasks of which the any-k history has records."""

SILENT_RUN_SECONDS = {"running": 15.0, "starting": 90.0}
"""Seconds after which a run in these states that has not reported is called silent instead. It does
not report while workers get the model."""

T = TypeVar("T")


class MonitoringService:
    """Collects the records of the runs of a scheduler, and counts the CPU time of that.

    The records come from the any-k plugin that is registered at the time; without one there are
    none.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.cpu_seconds = 0.0
        """CPU seconds spent in callbacks of this package."""
        self._scheduler = scheduler
        self._collector = RunCollector(AnyKState(), lambda event: scheduler.log_event(TOPIC, event))
        self._cpu_before = clock.process_time()
        self._shown: dict[str, Any] | None = None
        self._drawn = (0.0, "")
        self._slow = (0.0, "")

    def timed(self, action: Callable[[], T]) -> T:
        """Call a function and count its CPU time."""
        before = clock.thread_time()
        try:
            return action()
        finally:
            self.cpu_seconds += clock.thread_time() - before

    def refreshed(self) -> RunCollector:
        """Return the collector with all records up to now."""
        plugin = self._scheduler.plugins.get(AnyKPlugin.name)
        if isinstance(plugin, AnyKPlugin):
            plugin.catch_up()
            if plugin.state is not self._collector.state:  # the plugin was registered again
                self._collector.follow(plugin.state)
        for address, worker in self._scheduler.workers.items():
            self._collector.note_worker(address, worker.name, worker.pid, worker.host)
        self._collector.refresh(time())
        return self._collector

    def take_task(
        self, key: object, worker: str | None, startstops: Iterable[Mapping[str, Any]]
    ) -> None:
        """Take note of a task that is done; shares are known from the any-k history."""
        known = parse_key(key)
        if known is None or not worker or known.stage in SHARE_STAGES:
            return
        for part in startstops:
            if part.get("action") == "compute":
                times = float(part["start"]), float(part["stop"])
                place = known.layer, known.block, known.position, known.stage
                self._collector.add_task(known.run, ShareRecord(*place, worker, *times, "done"))

    def look(self) -> None:
        """Collect new records; called every :data:`REFRESH_SECONDS`."""
        try:
            self.timed(self.refreshed)
        except Exception:
            logger.exception("collecting records of runs failed; the page may be out of date")

    def shown(self) -> dict[str, Any]:
        """Return the snapshot to show; the same object for all requests within half a second."""
        now = time()
        if self._shown is None or now - self._shown["time"] > REFRESH_SECONDS / 2:
            self._shown = snapshot(self.refreshed(), now)
            spent = clock.process_time() - self._cpu_before
            part = self.cpu_seconds / spent if spent > 0 else 0.0
            self._shown["watching"] = {"cpu_seconds": self.cpu_seconds, "cpu_share": part}
        return self._shown

    def drawn(self, draw: Callable[[dict[str, Any]], str]) -> str:
        """Return the snapshot as HTML, drawn once for all requests within half a second."""
        shown = self.shown()
        if self._drawn[0] != shown["time"]:
            self._drawn = (shown["time"], draw(shown))
        return self._drawn[1]

    async def exchange(
        self, run: str, status: dict[str, Any], seen: dict[str, int], summary: bool = False
    ) -> dict[str, Any]:
        """Store the status that a run reports, and return its records since the last time.

        Parameters
        ----------
        run
            Its id.
        status
            Numbers and names of the run that the page and the metrics show.
        seen
            How many records of each kind the run has received.
        summary
            Whether to return the sums over all records, too, which may be long.
        """
        return self.timed(lambda: self._exchange(run, status, seen, summary))

    def _exchange(
        self, run: str, status: dict[str, Any], seen: dict[str, int], summary: bool
    ) -> dict[str, Any]:
        now = time()
        collector = self.refreshed()
        collector.report_status(run, status, now)
        self._shown = None
        answer = collector.records_since(run, seen)
        for name in RECORDS:
            if name != "events":
                answer[name] = [list(_fields(record).values()) for record in answer[name]]
        if now - self._slow[0] > REFRESH_SECONDS:
            self._slow = (now, slow_ones(collector.workers(collector.runs[run], now)))
        return {
            **answer,
            "now": now,
            "silent": [[*loss] for loss in collector.silent_workers(now)],
            "totals": collector.state.history.look(run).totals(),
            "facts": self._facts(collector, run, now) if summary else None,
            "slow": self._slow[1],
        }

    @staticmethod
    def _facts(collector: RunCollector, run: str, now: float) -> dict[str, Any]:
        """Return the sums over a run's records, as they are kept in its journal."""
        known = collector.runs[run]
        silent = {loss.worker: now - loss.heard for loss in collector.silent_workers(now)}
        statistics = known.statistics
        # A worker that does not answer is listed, too, if it never had a share.
        without_shares = {a: WorkerFacts() for a in silent if a not in statistics.workers}
        workers = [*without_shares.items(), *statistics.workers.items()]
        return {
            "workers": [
                {
                    "address": address,
                    **collector.process(address),
                    **_fields(facts),
                    "silent": silent.get(address, 0.0),
                }
                for address, facts in workers[:MAX_WORKERS]
            ],
            "layers": [
                {"layer": number, **_fields(facts), "share": facts.typical("share")}
                for number, facts in sorted(statistics.layers.items())[:MAX_LAYERS]
            ],
            "saved": statistics.saved,
            "saved_at_once": statistics.saved_at_once,
            "counters": asdict(known.counters),
        }


def _fields(record: Any) -> dict[str, Any]:
    """Return the fields of a record that are plain values."""
    return {
        name: getattr(record, name)
        for name in record.__slots__
        if name not in ("durations", "parity_durations")
    }


def snapshot(collector: RunCollector, now: float) -> dict[str, Any]:
    """Return the present state to show, as dictionaries, lists, strings and finite numbers.

    It has the same members with and without a run; its size is bounded.
    """
    known = collector.current()
    workers = ranked(collector.workers(known, now))
    late = {worker.address for worker in behind(workers)}
    counters = Counters() if known is None else known.counters
    status = {} if known is None else known.status
    present = collector.state.workers.by_address
    run = _run_row(known, now)
    given_up = run["state"] in ("interrupted", "failed")  # so are all shares, for a moment
    return {
        "version": __version__,
        "time": now,
        "sentence": verdict(
            [replace(w, ghosts=0, taken_over=0) for w in workers] if given_up else workers
        ),
        "run": run,
        "counters": asdict(counters),
        "totals": asdict(collector.state.history.totals()),
        "blocks_done_total": collector.blocks_done,
        "layers": [] if known is None else _layer_rows(known),
        "groups": [] if known is None else _group_rows(known),
        "saved": _saved(known),
        "conditions": _conditions(status),
        "ghosts": sum(worker.ghosts for worker in workers),
        "wrong": _wrong_rows(collector, known),
        "workers_total": len(present),
        "workers_answering": sum(worker.takes_tasks for worker in present.values()),
        "workers": [
            {**_worker_row(worker), "behind": worker.address in late}
            for worker in workers[:MAX_SHOWN_WORKERS]
        ],
        "paces": [_pace_row(w, w.address in late) for w in workers if not w.gone][:MAX_PACES],
    }


def _run_row(known: CollectedRun | None, now: float) -> dict[str, Any]:
    """Return what is known of a run's blocks."""
    status = {} if known is None else known.status
    names = ("blocks_total", "blocks_done", "blocks_skipped", "blocks_failed", "blocks_in_flight")
    blocks = {name: int(status.get(name, 0)) for name in names}
    images = int(status.get("images_done", 0))
    seconds = float(status.get("seconds", 0.0))
    work_seconds = float(status.get("work_seconds") or 0.0)
    state = str(status.get("state", "" if known is None else "unknown"))
    if known is not None and now - known.status_at > SILENT_RUN_SECONDS.get(state, math.inf):
        state = "silent"
    return {
        "id": "" if known is None else known.run,
        "state": state,
        **{name: str(status.get(name, "")) for name in ("output", "model", "redundancy", "code")},
        **{
            name: status.get(name)
            for name in (
                "n",
                "delta",
                "workers",
                "may_be_lost",
                "extra_work",
                "corrupt_shares",
                "seconds_planned",
                "is_plan_rough",
            )
        },
        **blocks,
        "images_done": images,
        "seconds": seconds,
        "work_seconds": work_seconds,
        "blocks_per_second": blocks["blocks_done"] / work_seconds if work_seconds > 0 else 0.0,
        "images_per_second": images / work_seconds if work_seconds > 0 else 0.0,
        "seconds_left": status.get("seconds_left") if state == "running" else None,
    }


def _layer_rows(known: CollectedRun) -> list[dict[str, Any]]:
    """Return a row per layer: its groups, and their times in seconds on average."""
    names = known.status.get("layers", {})
    return [
        {
            "layer": number,
            "name": str(names.get(str(number), "")),
            "groups": facts.groups,
            "decodes": facts.solved,
            "erasures": facts.erased,
            "seconds": facts.settled_seconds / facts.settled if facts.settled else 0.0,
            "slowest": facts.slowest / facts.settled if facts.settled else 0.0,
            "share": facts.typical("share"),
        }
        for number, facts in sorted(known.statistics.layers.items())[:MAX_LAYERS]
    ]


def _group_rows(known: CollectedRun) -> list[list[Any]]:
    """Return the latest groups: layer, block, seconds, slowest, solved, erased."""
    latest = list(known.statistics.settled)[-MAX_GROUPS:]
    return [
        [g.layer, g.block, round(g.seconds, 4), round(g.slowest_seconds, 4), g.solved, g.erased]
        for g in latest
    ]


def _wrong_rows(collector: RunCollector, known: CollectedRun | None) -> list[dict[str, Any]]:
    """Return the workers of which shares or other results were wrong, and whether they are used."""
    if known is None:
        return []
    found = Counter(worker for *_, worker in collector.state.history.look(known.run).corrupt)
    workers = collector.state.workers.by_address
    return [
        {
            "address": address,
            "called": WorkerView(address, **collector.process(address)).called,
            "wrong": number,
            "excluded": address in workers and workers[address].distrusted,
        }
        for address, number in found.most_common(MAX_SHOWN_WORKERS)
    ]


def _saved(known: CollectedRun | None) -> dict[str, float]:
    """Return the seconds of waiting that were saved: summed over groups, and on the clock."""
    if known is None:
        return {"group_seconds": 0.0, "seconds": 0.0}
    return {"group_seconds": known.statistics.saved, "seconds": known.saved_seconds}


def _conditions(status: dict[str, Any]) -> dict[str, Any]:
    """Return the condition numbers of decodes: the limit, the largest and the latest."""
    return {
        "limit": status.get("condition_limit"),
        "max": status.get("max_condition_number"),
        "last": list(status.get("conditions", ()))[-MAX_GROUPS:],
    }


def _worker_row(worker: WorkerView) -> dict[str, Any]:
    """Return all about a worker; its pace is also under the name ``learned_pace``."""
    return {
        **vars(worker),
        "learned_pace": worker.pace,
        "details": worker.details,
        "called": worker.called,
        "late_mean": worker.late_mean,
        "was_seen_late": worker.was_seen_late,
        "slow": worker.is_slow,
    }


def _pace_row(worker: WorkerView, is_behind: bool) -> list[Any]:
    """Return what the map of workers needs of one: address, pace, ghosts, silence, slow."""
    pace = None if worker.pace is None else round(worker.pace, 3)
    is_slow = worker.is_slow or is_behind
    return [worker.address, pace, worker.ghosts, round(worker.silent, 1), is_slow]
