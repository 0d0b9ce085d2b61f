"""How watching comes to a scheduler: with the any-k plugin, on any cluster, without a preload."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from distributed.metrics import time

from ...anyk.state_machine.state import AnyKState
from ..stragglers import slow_ones
from .collector import RunCollector
from .snapshot import snapshot

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler


logger = logging.getLogger(__name__)

TOPIC = "fcdcc"
"""Of the scheduler's event log: erasures, late groups, workers that are gone."""

EVERY = 1.0
"""Seconds between two looks when nobody is watching; what is shown is at most so old."""

T = TypeVar("T")


class MonitoringService:
    """The board of a scheduler, and what keeping it has cost.

    Before every look ``catch_up`` tells the state machine of all that has happened.
    """

    def __init__(
        self, scheduler: Scheduler, state: AnyKState, catch_up: Callable[[], None]
    ) -> None:
        self.scheduler = scheduler
        self._catch_up = catch_up
        self.board = RunCollector(state, self._log)
        self.cost = 0.0
        """CPU seconds spent in callbacks of this package."""
        self._since = clock.process_time()
        self._shown: dict[str, Any] | None = None
        self._drawn = (0.0, "")
        self._slow = (0.0, "")

    def measured(self, what: Callable[[], T]) -> T:
        """Do something, and count the time."""
        before = clock.thread_time()
        try:
            return what()
        finally:
            self.cost += clock.thread_time() - before

    def refreshed(self) -> RunCollector:
        """Return the board as of now."""
        self._catch_up()
        self.board.refresh(time())
        return self.board

    def look(self) -> None:
        """Take in what has happened; called once a second."""
        try:
            self.measured(self.refreshed)
        except Exception:
            logger.exception("looking at the runs failed; what is shown may be old")

    def shown(self) -> dict[str, Any]:
        """Return what there is to see; the same object for all who ask within a second."""
        now = time()
        if self._shown is None or now - self._shown["time"] > EVERY / 2:
            self._shown = snapshot(self.refreshed(), now)
            spent = clock.process_time() - self._since
            share = self.cost / spent if spent > 0 else 0.0
            self._shown["watching"] = {"cpu_seconds": self.cost, "cpu_share": share}
        return self._shown

    def drawn(self, draw: Callable[[dict[str, Any]], str]) -> str:
        """Return what there is to see, drawn once for all who ask within a second."""
        shown = self.shown()
        if self._drawn[0] != shown["time"]:
            self._drawn = (shown["time"], draw(shown))
        return self._drawn[1]

    async def exchange(
        self, run: str, told: dict[str, Any], seen: dict[str, int], summary: bool = False
    ) -> dict[str, Any]:
        """Take what a run says, and answer with its records since it last asked."""
        return self.measured(lambda: self._exchange(run, told, seen, summary))

    def _exchange(
        self, run: str, told: dict[str, Any], seen: dict[str, int], summary: bool
    ) -> dict[str, Any]:
        now = time()
        if told:
            self.board.tell(run, told, now)
            self._shown = None
        self.refreshed()
        answer = self.board.news(run, **seen)
        rows = {
            name: [list(_values(record)) for record in answer[name]]
            for name in ("shares", "groups", "settled", "freed")
        }
        known = self.board.runs.get(run)
        facts = None if known is None or not summary else self._facts(run)
        if now - self._slow[0] > EVERY:
            self._slow = (now, slow_ones(self.board.workers(known, now)))
        totals = self.board.state.history.look(run).totals()
        return {**answer, **rows, "totals": totals, "facts": facts, "slow": self._slow[1]}

    def _facts(self, run: str) -> dict[str, Any]:
        known = self.board.runs[run]
        account = known.account
        return {
            "workers": [
                {"address": address, "pace": facts.pace, **_fields(facts)}
                for address, facts in [*account.workers.items()][:500]
            ],
            "layers": [
                {"layer": n, **_fields(facts), "share": facts.typical("share")}
                for n, facts in sorted(account.layers.items())[:500]
            ],
            "saved": account.saved,
            "saved_at_once": account.saved_at_once,
            "counters": asdict(known.counters),
        }

    def _log(self, event: dict[str, Any]) -> None:
        self.scheduler.log_event(TOPIC, event)


def _values(record: Any) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in record.__slots__)


def _fields(record: Any) -> dict[str, Any]:
    return {
        name: getattr(record, name)
        for name in record.__slots__
        if name not in ("durations", "parity_durations", "ratios")
    }
