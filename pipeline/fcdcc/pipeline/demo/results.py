"""What the demonstration showed, and whether that is as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..summary import Summary
from .answers import Comparison
from .timeline import Timeline

__all__ = ["LEAST_ACCURACY", "DemoResult", "RunResult"]

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
