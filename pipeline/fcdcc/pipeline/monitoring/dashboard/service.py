"""The service on the scheduler that collects what happens in the runs, and answers for it."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from distributed.metrics import time

from ...anyk import AnyKPlugin
from ...anyk.state_machine.state import AnyKState
from ..stragglers import slow_ones
from .collector import RECORDS, RunCollector
from .snapshot import snapshot

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
"""Time between two looks at the runs; what is shown is at most so old."""

MAX_WORKERS = 500
MAX_LAYERS = 500

T = TypeVar("T")


class MonitoringService:
    """Collects the runs of a scheduler, and counts what that costs.

    What is collected comes from the any-k plugin that is registered when it is looked at; until
    there is one, nothing is known of any run.
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
        """Do something and count its CPU time."""
        before = clock.thread_time()
        try:
            return action()
        finally:
            self.cpu_seconds += clock.thread_time() - before

    def refreshed(self) -> RunCollector:
        """Return all that is known of the runs now."""
        plugin = self._scheduler.plugins.get(AnyKPlugin.name)
        if isinstance(plugin, AnyKPlugin):
            plugin.catch_up()
            if plugin.state is not self._collector.state:  # it was registered anew
                self._collector.follow(plugin.state)
        self._collector.refresh(time())
        return self._collector

    def look(self) -> None:
        """Take in what has happened; called every :data:`REFRESH_SECONDS`."""
        try:
            self.timed(self.refreshed)
        except Exception:
            logger.exception("looking at the runs failed; what is shown may be out of date")

    def shown(self) -> dict[str, Any]:
        """Return what there is to see; the same object for all requests within half a second."""
        now = time()
        if self._shown is None or now - self._shown["time"] > REFRESH_SECONDS / 2:
            self._shown = snapshot(self.refreshed(), now)
            spent = clock.process_time() - self._cpu_before
            part = self.cpu_seconds / spent if spent > 0 else 0.0
            self._shown["watching"] = {"cpu_seconds": self.cpu_seconds, "cpu_share": part}
        return self._shown

    def drawn(self, draw: Callable[[dict[str, Any]], str]) -> str:
        """Return what there is to see, drawn once for all requests within half a second."""
        shown = self.shown()
        if self._drawn[0] != shown["time"]:
            self._drawn = (shown["time"], draw(shown))
        return self._drawn[1]

    async def exchange(
        self, run: str, status: dict[str, Any], seen: dict[str, int], summary: bool = False
    ) -> dict[str, Any]:
        """Take what a run reports of itself, and answer with its records since the last time.

        Parameters
        ----------
        run
            Its id.
        status
            What the page and the metrics show of it.
        seen
            How many records of each kind it has.
        summary
            Whether it wants the sums over all records, which may be long.
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
            "totals": collector.state.history.look(run).totals(),
            "facts": self._facts(collector, run) if summary else None,
            "slow": self._slow[1],
        }

    @staticmethod
    def _facts(collector: RunCollector, run: str) -> dict[str, Any]:
        """Return the sums over a run's records, as they are kept in its journal."""
        known = collector.runs[run]
        statistics = known.statistics
        return {
            "workers": [
                {"address": address, **_fields(facts)}
                for address, facts in [*statistics.workers.items()][:MAX_WORKERS]
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
