"""What the demo's runs returned, and whether it is correct."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..monitoring.summary import Summary
from .digits import Digits
from .files import DemoError
from .lenet import accuracy
from .picture import Timeline, listed

SECONDS = "seconds, first to last block"
"""What the table and the picture call the time of a run."""

LONGEST_GAP = "longest time without a block"
"""What they call the longest time in which no block was done."""

MIN_ACCURACY = 0.97
"""Part of the images that must get the right class."""


def read_predictions(path: str | os.PathLike[str], digits: Digits) -> NDArray[np.floating]:
    """Return the predictions of a run, (n, classes), one for each of the digits.

    Raises
    ------
    DemoError
        If they are the predictions of other images.
    """
    with xr.open_zarr(path) as output:
        if not np.array_equal(output["image_id"].values, digits.ids):
            raise DemoError(f"{path} holds predictions of other images than the demo's")
        predictions: NDArray[np.floating] = output["prediction"].values
    return predictions


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run of the demo.

    ``predicted`` and ``plain`` are logits (n, classes) of the run, NaN where one is missing, and
    of plain PyTorch; ``labels`` (n,) are the right classes.
    """

    summary: Summary
    timeline: Timeline
    predicted: NDArray[np.floating]
    plain: NDArray[np.floating]
    labels: NDArray[np.int64]

    @property
    def stopped(self) -> list[str]:
        """Names of the workers that the demo stopped."""
        return sorted({f.worker for f in self.timeline.faults if f.kind == "stopped"})

    @property
    def not_removed(self) -> list[str]:
        """Names of the workers that the demo stopped and that the run did not have to remove."""
        gone = {f.worker for f in self.timeline.faults if f.kind in ("removed", "lost")}
        return [name for name in self.stopped if name not in gone]

    @property
    def accuracy(self) -> float:
        """Part of the images whose largest logit is their label's."""
        return accuracy(self.predicted, self.labels)

    @property
    def agreeing(self) -> int:
        """Number of images with all logits, and the same class as in plain PyTorch."""
        same = self.predicted.argmax(axis=1) == self.plain.argmax(axis=1)
        return int(np.sum(same & np.isfinite(self.predicted).all(axis=1)))

    @property
    def facts(self) -> dict[str, str]:
        """What the table and the picture say of the run, in words."""
        difference = np.abs(self.predicted - self.plain).max()
        removed = str(len(self.summary.workers_lost))
        if self.not_removed:
            removed += f" of {len(self.stopped)} stopped"
        return {
            "images correct": f"{self.accuracy:.1%}",
            "same class as plain PyTorch": f"{self.agreeing} of {len(self.labels)}",
            "largest difference of scores": f"{difference:.1e}",
            "shares not waited for": str(self.summary.erasures),
            "results made up from others": str(self.summary.decodes),
            "silent workers removed": removed,
            "shares and tasks started again": str(
                self.summary.shares_lost + self.summary.tasks_doubled
            ),
            SECONDS: f"{self.timeline.seconds:.1f}",
            LONGEST_GAP: f"{self.timeline.longest_gap:.1f} s",
        }

    @property
    def not_removed_in_words(self) -> str:
        """Why workers that were stopped were not removed, as a phrase; empty if all were."""
        if not self.not_removed:
            return ""
        who = listed(self.not_removed)
        was, which = ("was", "it") if len(self.not_removed) == 1 else ("were", "they")
        return f"{who} {was} not removed: nothing was needed that only {which} had"

    def problems(self) -> Iterator[str]:
        """Yield a phrase for each thing that is wrong."""
        wrong = len(self.labels) - self.agreeing
        if self.summary.blocks_failed:
            yield f"{self.summary.blocks_failed} of {self.summary.blocks_total} blocks failed"
        if self.accuracy < MIN_ACCURACY:
            yield f"{self.accuracy:.1%} of the images correct; expected {MIN_ACCURACY:.0%}"
        if wrong:
            yield f"{wrong} of {len(self.labels)} images not in the same class as plain PyTorch"


@dataclass(frozen=True)
class DemoResult:
    """The runs of the demo; ``stalled`` is None if no worker was to be stopped.

    ``plain`` is the job on plain Dask with the same workers stopped, if it was run.
    """

    folder: Path
    healthy: RunResult
    stalled: RunResult | None
    plain: Timeline | None = None

    @property
    def plain_in_words(self) -> str:
        """What became of the job on plain Dask; empty if it was not run."""
        if self.plain is None:
            return ""
        done, total = len(self.plain.blocks), self.healthy.summary.blocks_total
        if done == total:
            return f"{done} of {total} blocks in {self.plain.seconds:.1f} s"
        waited = self.plain.stop - max([self.plain.start, *self.plain.blocks])
        return f"{done} of {total} blocks, then none for {waited:.0f} s"

    @property
    def runs(self) -> dict[str, RunResult]:
        """The runs by a heading for each."""
        runs = {"all workers at work": self.healthy}
        if self.stalled is not None:
            runs[f"{len(self.stalled.stopped)} workers stopped"] = self.stalled
        return runs

    @property
    def problems(self) -> list[str]:
        """A phrase for each thing that is wrong; none if the demo passed."""
        return [f"{name}: {text}" for name, run in self.runs.items() for text in run.problems()]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems
