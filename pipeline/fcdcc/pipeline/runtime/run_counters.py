"""Count what a run does: its blocks, and what the scheduler reports of shares and workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from fcdcc.coding import __version__
from fcdcc.storage import BlockLayout, Json
from fcdcc.storage.chunk_listing import AbsentChunks

from ..anyk.queries import RunTotals, cluster_workers
from ..monitoring.output_status import is_damage
from ..monitoring.progress import BlockPace, RunProgress
from ..monitoring.record.loss_cost import BlockTimes
from ..monitoring.record.work_counter import WorkCounter
from ..monitoring.summary import BlockFailure, CorruptShare, Summary
from ..plans.forecast import RunForecast
from ..worker.executable_plugin import BYTES_SENT, PEAK_MEMORY
from .absence import total_of
from .block_runner import BlockOutcome, failure_reason
from .image_sample import ImageSample

MAX_NAMED_FAILURES = 100
"""Failed blocks that a summary lists; the records of the output list all of them."""


class RunCounters:
    """Counts the blocks of a run, and adds what its schedulers report.

    A run that loses its scheduler has several of them, one after the other; each counts from 0.

    Parameters
    ----------
    fingerprint
        Digest of the run's fingerprint.
    layout
        The blocks of the job.
    done_before
        (blocks,) bool: which blocks earlier runs have recorded.
    in_flight
        Blocks that are computed at a time.
    unit
        What an image is called.
    """

    def __init__(
        self,
        fingerprint: str,
        layout: BlockLayout,
        done_before: NDArray[np.bool_],
        in_flight: int = 1,
        unit: str = "image",
    ) -> None:
        self.failed: dict[int, str] = {}
        """Why blocks of this run failed, by block."""
        self.forecast: RunForecast | None = None
        """What the plan's cost model expects of this run on its workers."""
        self.sample: ImageSample | None = None
        """What a few images become."""
        self.absent: dict[int, AbsentChunks] = {}
        """For blocks that need chunks of the images that are not stored: these chunks."""
        self.redone: dict[str, int] = {}
        """How many blocks that were done are made again, by the reason."""
        self.images_before: Mapping[int, int] = {}
        """For blocks that are done in part or made again: their images with a prediction before."""
        self.not_full: Collection[int] = ()
        """Blocks that were done with fewer images than they have now."""
        self.failed_before: Mapping[int, str] = {}
        """Why blocks failed in earlier runs, or were found damaged, by block."""
        self.images_removed = 0
        """Images of the output that the input no longer has."""
        self.times = BlockTimes()
        """When blocks began and ended, in seconds since the epoch."""
        self.files_repaired: list[str] = []
        """Files of the output beside its predictions that were damaged or missing."""
        self._fingerprint = fingerprint
        self._layout = layout
        self._in_flight = in_flight
        self._unit = unit
        self._started = self._stopped = time.monotonic()
        self._work_began: float | None = None
        self._pace = BlockPace(in_flight)
        self._skipped = int(done_before.sum())
        self._images_before = layout.images_in(done_before)
        self._is_done = done_before.copy()
        self._done = 0
        self._repeated = 0
        self._images = 0
        self._totals: RunTotals | None = None
        self._earlier_counters: Counter[str] = Counter()
        self._earlier_workers_lost: tuple[str, ...] = ()
        self._earlier_corrupt: tuple[CorruptShare, ...] = ()
        self._removed_seen: set[str] = set()
        self._bytes_sent: dict[str, int] = {}
        self._peak_memory = 0

    def note_absent(self, provisional: Mapping[int, Json]) -> None:
        """Note what the records of blocks say of chunks that were not stored."""
        self.absent |= {b: AbsentChunks.from_json(noted) for b, noted in provisional.items()}

    def start(self) -> None:
        """Start the clock: the model is about to be sent to the workers."""
        self._started = self._stopped = time.monotonic()

    def begin_work(self) -> None:
        """Take note that the first block is about to begin; later calls change nothing."""
        if self._work_began is None:
            self._work_began = time.monotonic()

    def resume(self, done: Iterable[int]) -> None:
        """Keep the counts of a lost scheduler; the next one counts from zero.

        What the lost scheduler counted after the last :meth:`observe` is missing. Bytes sent and
        the peak of memory are those that the last scheduler knows at the end.

        Parameters
        ----------
        done
            All blocks of this run that have a record, including those whose end was not seen
            because the scheduler was lost.
        """
        finished = [*done]
        self._done = len(finished)
        self._is_done[finished] = True
        self._images = self._layout.images_in(self._is_done) - self._images_before
        self._earlier_counters.update(self._totals["counters"] if self._totals else {})
        self._earlier_workers_lost = self._workers_lost
        self._earlier_corrupt = self._corrupt
        self._totals = None
        self._removed_seen.clear()
        self.times.forget_open()

    def add(self, outcome: BlockOutcome, *, was_begun: bool = True) -> None:
        """Count a block that has ended; one that was not begun says nothing of the pace."""
        self._stopped = time.monotonic()
        if was_begun:
            self._pace.end(self._stopped)
        self._repeated += outcome.attempts > 1
        self.times.end(outcome.block, time.time(), is_done=outcome.error is None)
        if outcome.error is not None:
            self.failed[outcome.block] = failure_reason(outcome.error)
            return
        self._done += 1
        self._is_done[outcome.block] = True
        bands = self._layout.beside(outcome.block)
        if self._is_done[bands.start : bands.stop].all():  # all bands of these images are done
            start, stop = self._layout.bounds(outcome.block)
            self._images += stop - start

    def observe(self, totals: RunTotals) -> None:
        """Take over what the scheduler has counted in this run."""
        self._totals = totals

    @property
    def movement(self) -> Hashable:
        """A value that changes whenever a block or group ends, or a share is given up."""
        return (self._done, len(self.failed), *sorted(self._counters.items()))

    def take_removed(self) -> list[str]:
        """Return the addresses of workers that were removed since the last call."""
        removed = self._totals["workers_removed"] if self._totals else []
        fresh = [address for address in removed if address not in self._removed_seen]
        self._removed_seen.update(fresh)
        return fresh

    def finish(self, client: Client) -> None:
        """Fetch the bytes that workers have sent to each other, and their peaks of memory."""
        for address, worker in cluster_workers(client).items():
            self._bytes_sent[address] = worker["metrics"].get(BYTES_SENT, 0)
            self._peak_memory = max(self._peak_memory, worker["metrics"].get(PEAK_MEMORY, 0))

    def progress(self, extra_work: float = 0.0, slow: str = "") -> RunProgress:
        """Return the progress of the run.

        Parameters
        ----------
        extra_work
            As in the summary, so far; the recorder of the run has it.
        slow
            The slow workers, in words; the recorder has these, too.
        """
        counters, now = self._counters, time.monotonic()
        left = self._layout.blocks - self._done - self._skipped - len(self.failed)
        return RunProgress(
            blocks_total=self._layout.blocks,
            blocks_done=self._done,
            blocks_skipped=self._skipped,
            blocks_failed=len(self.failed),
            images_done=self._images,
            seconds=now - self._started,
            erasures=counters.get("erasures", 0),
            workers_lost=counters.get("workers_lost", 0),
            corrupt_shares=counters.get("corrupt_shares", 0),
            blocks_in_flight=min(self._in_flight, left),
            extra_work=extra_work,
            slow=slow,
            unit=self._unit,
            seconds_planned=None if self.forecast is None else self.forecast.seconds,
            work_seconds=0.0 if self._work_began is None else now - self._work_began,
            block_seconds=self._pace.seconds_per_block(now),
            is_plan_rough=(
                self.forecast is not None and self.forecast.is_rough(self.forecast.blocks)
            ),
        )

    def summary(self, work: WorkCounter | None = None) -> Summary:
        """Return what the run did; ``work`` is None if no block had to be computed."""
        counters = self._counters
        seconds = self._stopped - self._started
        mended = [why for block, why in self.failed_before.items() if self._is_done[block]]
        repaired = sum(map(is_damage, mended))
        provisional = {b: chunks for b, chunks in self.absent.items() if self._is_done[b]}
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
            extra_work=0.0 if work is None else work.extra_work,
            max_condition_number=None if work is None else work.max_condition_number,
            corrupt_shares=tuple(self._corrupt),
            workers_lost=self._workers_lost,
            bytes_sent=sum(self._bytes_sent.values()),
            fingerprint=self._fingerprint,
            version=__version__,
            failures=tuple(
                BlockFailure(block, reason)
                for block, reason in sorted(self.failed.items())[:MAX_NAMED_FAILURES]
            ),
            peak_memory=self._peak_memory or None,
            blocks_provisional=len(provisional),
            chunks_absent=total_of(self.absent),
            sample=None if self.sample is None else self.sample.to_dict(),
            blocks_redone=sum(self.redone.values()),
            redone=self.redone,
            images_removed=self.images_removed,
            planned=self._planned,
            blocks_repeated=self._repeated,
            shares_lost=counters.get("shares_lost", 0),
            tasks_doubled=counters.get("tasks_doubled", 0),
            blocks_repaired=repaired,
            blocks_retried=len(mended) - repaired,
            blocks_not_full=sum(bool(self._is_done[block]) for block in self.not_full),
            images_again=self._images_again,
            files_repaired=tuple(self.files_repaired),
        )

    @property
    def _images_again(self) -> int:
        """Images of blocks made again that had a prediction; bands of one image count once."""
        by_images: dict[int, int] = {}
        for block, images in self.images_before.items():
            if self._is_done[block]:
                first = self._layout.beside(block).start
                by_images[first] = max(images, by_images.get(first, 0))
        return sum(by_images.values())

    @property
    def _planned(self) -> dict[str, float] | None:
        if self.forecast is None:
            return None
        return self.forecast.expected(self._done)

    @property
    def _counters(self) -> Mapping[str, int]:
        return self._earlier_counters + Counter(self._totals["counters"] if self._totals else {})

    @property
    def _corrupt(self) -> tuple[CorruptShare, ...]:
        found = self._totals["corrupt"] if self._totals else ()
        return (
            *self._earlier_corrupt,
            *(
                CorruptShare(block, layer, position, worker)
                for layer, block, position, worker in found
            ),
        )

    @property
    def _workers_lost(self) -> tuple[str, ...]:
        return (
            *self._earlier_workers_lost,
            *(self._totals["workers_lost"] if self._totals else ()),
        )
