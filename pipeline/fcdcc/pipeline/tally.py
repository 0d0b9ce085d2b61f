"""What a run does, counted as it goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Hashable, Mapping

import torch
from distributed import Client

from fcdcc.coding import __version__
from fcdcc.coding.cost import share_cost
from fcdcc.storage import BlockLayout

from .anyk import anyk_report
from .anyk.history import ShareRecord
from .anyk.report import Report
from .blocks import Outcome
from .errors import full_line
from .executable_plugin import BYTES_SENT
from .kernels import survivors_used
from .plans import Plan
from .progress import Advance
from .summary import BlockFailure, Summary

__all__ = ["Tally"]

FAILURES_NAMED = 100
"""Failed blocks that a summary names; the output's records name all."""


class Tally:
    """Counts blocks, and takes over what the scheduler knows of shares and workers.

    Parameters
    ----------
    fingerprint
        Digest of the run's fingerprint.
    layout
        The blocks of the job.
    skipped
        Blocks that were done before.
    """

    def __init__(self, fingerprint: str, layout: BlockLayout, skipped: int) -> None:
        self.timeline: list[ShareRecord] = []
        self.failed: dict[int, str] = {}
        self._fingerprint = fingerprint
        self._layout = layout
        self._skipped = skipped
        self._done = 0
        self._images = 0
        self._started = self._stopped = time.monotonic()
        self._report: Report | None = None
        self._replaced: set[str] = set()
        self._sent: dict[str, int] = {}

    def start(self) -> None:
        """Note that the first block is about to start."""
        self._started = self._stopped = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Count a finished block."""
        self._stopped = time.monotonic()
        if outcome.error is not None:
            self.failed[outcome.block] = full_line(outcome.error)
            return
        start, stop = self._layout.bounds(outcome.block)
        self._done += 1
        self._images += stop - start

    def observe(self, client: Client, run: str) -> None:
        """Ask the scheduler for the counters of this run."""
        self._report = anyk_report(client, run, timeline=False)

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

    def finish(self, client: Client, run: str) -> None:
        """Take the last report, with all shares, and what workers have sent to each other."""
        self._report = anyk_report(client, run)
        self.timeline = [ShareRecord(**record) for record in self._report["timeline"]]
        for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
            self._sent[address] = worker["metrics"].get(BYTES_SENT, 0)

    def advance(self) -> Advance:
        """Return how far the run is."""
        counters = self._counters
        return Advance(
            blocks_total=self._layout.blocks,
            blocks_done=self._done,
            blocks_skipped=self._skipped,
            blocks_failed=len(self.failed),
            images_done=self._images,
            seconds=time.monotonic() - self._started,
            erasures=counters.get("erasures", 0),
            workers_lost=counters.get("workers_lost", 0),
        )

    def summary(self, plan: Plan) -> Summary:
        """Return what the run did."""
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
            extra_work=self._extra_work(plan),
            max_condition_number=self._condition(plan),
            corrupt_shares=(),
            workers_lost=tuple(self._report["workers_lost"]) if self._report else (),
            bytes_sent=sum(self._sent.values()),
            fingerprint=self._fingerprint,
            version=__version__,
            failures=tuple(
                BlockFailure(block, reason)
                for block, reason in sorted(self.failed.items())[:FAILURES_NAMED]
            ),
        )

    @property
    def _counters(self) -> Mapping[str, int]:
        return self._report["counters"] if self._report else {}

    def _extra_work(self, plan: Plan) -> float:
        """Return (multiply-adds executed − uncoded) / uncoded, over the shares remembered.

        A share that was abandoned counts whole: when it stopped is not known.
        """
        executed = uncoded = 0
        groups = set()
        for record in self.timeline:
            layer, images = plan.layer(record.layer), self._images_of(record.block)
            executed += share_cost(layer.coded_conv, record.position, images).multiply_adds
            if (record.layer, record.block) not in groups:
                groups.add((record.layer, record.block))
                uncoded += layer.geometry.multiply_adds * images
        if not uncoded:
            return 0.0
        coded = sum(layer.geometry.multiply_adds for layer in plan.layers if layer.code)
        return round((executed - uncoded) / uncoded * coded / plan.multiply_adds, 6)

    def _condition(self, plan: Plan) -> float | None:
        """Return the largest condition number of the groups remembered, None without any."""
        done: dict[tuple[int, int], set[int]] = defaultdict(set)
        for record in self.timeline:
            if record.state == "done":
                done[record.layer, record.block].add(record.position)
        survivors = {(layer, tuple(sorted(positions))) for (layer, _), positions in done.items()}
        numbers = []
        for number, positions in survivors:
            code = plan.layer(number).coded_conv.code
            used = survivors_used(code, positions, getattr(torch, plan.dtype))
            if code.is_decodable(used):
                numbers.append(code.condition_number(used))
        return max(numbers, default=None)

    def _images_of(self, block: int) -> int:
        start, stop = self._layout.bounds(block)
        return stop - start
