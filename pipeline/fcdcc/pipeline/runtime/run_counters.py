"""What a run does, counted as it goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from fcdcc.coding import __version__
from fcdcc.storage import BlockLayout

from ..anyk.queries import RunTotals
from ..monitoring.progress import RunProgress
from ..monitoring.record.work_counter import WorkCounter
from ..monitoring.summary import BlockFailure, CorruptShare, Summary
from ..plans.forecast import Forecast, expected
from ..worker.executable_plugin import BYTES_SENT, PEAK_MEMORY
from .block_runner import BlockOutcome, reason

FAILURES_NAMED = 100
"""Failed blocks that a summary names; the output's records name all."""


class RunCounters:
    """Counts blocks, and takes over what the scheduler knows of shares and workers.

    Parameters
    ----------
    fingerprint
        Digest of the run's fingerprint.
    layout
        The blocks of the job.
    before
        (blocks,) bool: which were done before.
    in_flight
        Blocks that are worked on at a time.
    """

    def __init__(
        self,
        fingerprint: str,
        layout: BlockLayout,
        before: NDArray[np.bool_],
        in_flight: int = 1,
    ) -> None:
        self.failed: dict[int, str] = {}
        self.forecast: Forecast | None = None
        """What the plan costs on the workers of this run."""
        self._peak = 0
        self._fingerprint = fingerprint
        self._layout = layout
        self._skipped = int(before.sum())
        self._before = layout.images_in(before)
        self._is_done = before.copy()
        self._in_flight = in_flight
        self._done = 0
        self._counted: Counter[str] = Counter()
        self._gone: tuple[str, ...] = ()
        self._wrong: tuple[CorruptShare, ...] = ()
        self._images = 0
        self._started = self._stopped = time.monotonic()
        self._report: RunTotals | None = None
        self._replaced: set[str] = set()
        self._sent: dict[str, int] = {}

    def start(self) -> None:
        """Note that the first block is about to start."""
        self._started = self._stopped = time.monotonic()

    def resume(self, done: Iterable[int]) -> None:
        """Go on after the scheduler was lost, with a new one that counts from zero.

        What was counted stays counted; of shares and of bytes sent, only what comes now is
        known at the end.

        Parameters
        ----------
        done
            All blocks of this run that are recorded: the last ones were finished unseen.
        """
        finished = [*done]
        self._done = len(finished)
        self._is_done[finished] = True
        self._images = self._layout.images_in(self._is_done) - self._before
        self._counted.update(self._report["counters"] if self._report else {})
        self._gone = self._workers_lost
        self._wrong = self._corrupt
        self._report = None
        self._replaced.clear()

    def add(self, outcome: BlockOutcome) -> None:
        """Count a finished block."""
        self._stopped = time.monotonic()
        if outcome.error is not None:
            self.failed[outcome.block] = reason(outcome.error)
            return
        self._done += 1
        self._is_done[outcome.block] = True
        beside = self._layout.beside(outcome.block)
        if self._is_done[beside.start : beside.stop].all():  # else other bands are missing
            start, stop = self._layout.bounds(outcome.block)
            self._images += stop - start

    def observe(self, report: RunTotals) -> None:
        """Take over what the scheduler has counted in this run."""
        self._report = report

    @property
    def movement(self) -> Hashable:
        """What differs as soon as a block or a group is finished, or a share given up."""
        return (self._done, len(self.failed), *sorted(self._counters.items()))

    def take_removed(self) -> list[str]:
        """Return the addresses of workers that were removed since this was last asked."""
        removed = self._report["workers_removed"] if self._report else []
        fresh = [address for address in removed if address not in self._replaced]
        self._replaced.update(fresh)
        return fresh

    def finish(self, client: Client) -> None:
        """Take over what workers have sent to each other, and the most memory that one used."""
        for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
            self._sent[address] = worker["metrics"].get(BYTES_SENT, 0)
            self._peak = max(self._peak, worker["metrics"].get(PEAK_MEMORY, 0))

    def advance(self, extra_work: float = 0.0, slow: str = "") -> RunProgress:
        """Return how far the run is, with what others know of it."""
        counters = self._counters
        left = self._layout.blocks - self._done - self._skipped - len(self.failed)
        return RunProgress(
            blocks_total=self._layout.blocks,
            blocks_done=self._done,
            blocks_skipped=self._skipped,
            blocks_failed=len(self.failed),
            images_done=self._images,
            seconds=time.monotonic() - self._started,
            erasures=counters.get("erasures", 0),
            workers_lost=counters.get("workers_lost", 0),
            corrupt_shares=counters.get("corrupt_shares", 0),
            blocks_in_flight=min(self._in_flight, left),
            extra_work=extra_work,
            slow=slow,
        )

    def summary(self, ledger: WorkCounter | None = None) -> Summary:
        """Return what the run did; without a ledger it did nothing."""
        counters = self._counters
        seconds = self._stopped - self._started
        return Summary(
            status="complete"
            if self._done + self._skipped == self._layout.blocks
            else "incomplete",
            blocks_total=self._layout.blocks,
            blocks_done=self._done,
            blocks_skipped=self._skipped,
            blocks_failed=len(self.failed),
            images_done=self._images,
            seconds=round(seconds, 3),
            images_per_second=round(self._images / seconds, 3) if seconds > 0 else 0.0,
            groups=counters.get("groups", 0),
            erasures=counters.get("erasures", 0),
            decodes=counters.get("decodes", 0),
            parity_started=counters.get("parity_started", 0),
            extra_work=0.0 if ledger is None else ledger.extra_work,
            max_condition_number=None if ledger is None else ledger.largest,
            corrupt_shares=tuple(self._corrupt),
            workers_lost=self._workers_lost,
            bytes_sent=sum(self._sent.values()),
            fingerprint=self._fingerprint,
            version=__version__,
            failures=tuple(
                BlockFailure(block, reason)
                for block, reason in sorted(self.failed.items())[:FAILURES_NAMED]
            ),
            peak_memory=self._peak or None,
            planned=None if self.forecast is None else expected(self.forecast, self._done),
        )

    @property
    def _counters(self) -> Mapping[str, int]:
        return self._counted + Counter(self._report["counters"] if self._report else {})

    @property
    def _corrupt(self) -> tuple[CorruptShare, ...]:
        found = self._report["corrupt"] if self._report else ()
        return (
            *self._wrong,
            *(CorruptShare(block, layer, place, who) for layer, block, place, who in found),
        )

    @property
    def _workers_lost(self) -> tuple[str, ...]:
        return (*self._gone, *(self._report["workers_lost"] if self._report else ()))
