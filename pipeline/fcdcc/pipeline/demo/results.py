"""What the demonstration showed, and whether that is as it should be."""

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
from .timeline import Timeline


@dataclass(frozen=True)
class Comparison:
    """How predictions compare with labels and with plain PyTorch.

    Parameters
    ----------
    images
        How many there are.
    accuracy
        The part of them whose largest logit is their label's.
    agreeing
        How many get the class that plain PyTorch gives them.
    largest_difference
        Of any logit from plain PyTorch's; NaN if one is missing.
    """

    images: int
    accuracy: float
    agreeing: int
    largest_difference: float

    @property
    def agrees(self) -> bool:
        """Whether every image gets the class that plain PyTorch gives it."""
        return self.agreeing == self.images and bool(np.isfinite(self.largest_difference))


def compare(
    predicted: NDArray[np.floating], plain: NDArray[np.floating], labels: NDArray[np.int64]
) -> Comparison:
    """Compare predictions with plain PyTorch's, both (n, classes), and with labels (n,)."""
    return Comparison(
        images=len(labels),
        accuracy=accuracy(predicted, labels),
        agreeing=int(np.sum(predicted.argmax(axis=1) == plain.argmax(axis=1))),
        largest_difference=float(np.abs(predicted - plain).max()),
    )


def read_predictions(path: str | os.PathLike[str], digits: Digits) -> NDArray[np.floating]:
    """Return the predictions of a run, (n, classes), one for each of the digits.

    Raises
    ------
    DemoError
        If they are those of other images.
    """
    with xr.open_zarr(path) as output:
        if not np.array_equal(output["image_id"].values, digits.ids):
            raise DemoError(f"{path} holds the predictions of other images")
        predictions: NDArray[np.floating] = output["prediction"].values
    return predictions


LEAST_ACCURACY = 0.97
"""A demonstration with less has failed."""


@dataclass(frozen=True)
class RunResult:
    """One of the demonstration's runs: what it says of itself, its answers, what happened."""

    summary: Summary
    comparison: Comparison
    timeline: Timeline

    @property
    def stopped(self) -> tuple[str, ...]:
        """Names of the workers that were stopped."""
        return tuple(sorted({f.worker for f in self.timeline.faults if f.kind == "stopped"}))

    @property
    def problems(self) -> tuple[str, ...]:
        """What is not as it should be, in words; none if all is well."""
        return tuple(self._complaints())

    def _complaints(self) -> Iterator[str]:
        answers = self.comparison
        if self.summary.blocks_failed:
            yield f"{self.summary.blocks_failed} of {self.summary.blocks_total} blocks failed"
        if answers.accuracy < LEAST_ACCURACY:
            yield f"{answers.accuracy:.1%} of the images right; expected {LEAST_ACCURACY:.0%}"
        if not answers.agrees:
            wrong = answers.images - answers.agreeing
            yield f"{wrong} of {answers.images} images in another class than in plain PyTorch"


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration showed.

    Parameters
    ----------
    folder
        Where its files are.
    healthy
        The run with all workers at work.
    stalled
        The run with some stopped in the middle; None if none were to be.
    """

    folder: Path
    healthy: RunResult
    stalled: RunResult | None

    @property
    def runs(self) -> dict[str, RunResult]:
        """The runs, by what tells them apart."""
        if self.stalled is None:
            return {"all at work": self.healthy}
        return {
            "all at work": self.healthy,
            f"{len(self.stalled.stopped)} workers stopped": self.stalled,
        }

    @property
    def problems(self) -> tuple[str, ...]:
        """What is not as it should be, in words; none if all is well."""
        return tuple(
            f"{name}: {problem}" for name, run in self.runs.items() for problem in run.problems
        )

    @property
    def passed(self) -> bool:
        """Whether all is as it should be."""
        return not self.problems
