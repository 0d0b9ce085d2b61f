"""What becomes of a block whose shares were not to be relied on: it is done again, otherwise.

- Shares contradict each other: all n shares of every layer are made again, those that are wrong
  are located and left out. With γ = 1 nothing can be located, nor where too many are wrong, nor
  in bands: then the block is done by one half of the workers, and if that contradicts itself,
  too, by the other half. One wrong worker is not in both.
- Shares hold NaN or infinity: the block is done without a code, in which no image meets another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .blocks import BlockJob
from .errors import NotFiniteError, WrongSharesError, one_line
from .graph import Manner

__all__ = ["SecondTries", "Trial"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """How a block is done.

    Parameters
    ----------
    manner
        In which form; None as planned.
    attempt
        How often it was tried before.
    notes
        What its record is to say of that.
    among
        The workers that make its shares; any, if none are named.
    """

    manner: Manner | None = None
    attempt: int = 0
    notes: tuple[str, ...] = ()
    among: tuple[str, ...] = ()


class Maker(Protocol):
    """Makes the graph of a block."""

    def __call__(self, block: int, trial: Trial, /) -> BlockJob:
        """Return the graph."""
        ...


@dataclass(frozen=True)
class _Tried:
    """What was tried with a block so far."""

    attempt: int = 0
    careful: int = 0
    notes: tuple[str, ...] = ()


class SecondTries:
    """Says how a block that failed is done again, if it is.

    Parameters
    ----------
    make
        Makes the graph of a block.
    locates
        Whether wrong shares can be located: γ is 2 or more.
    workers
        Returns the addresses of the workers that are there.
    """

    def __init__(self, make: Maker, locates: bool, workers: Callable[[], Sequence[str]]) -> None:
        self._make = make
        self._locates = locates
        self._workers = workers
        self._tried: dict[int, _Tried] = {}

    def __call__(self, job: BlockJob, error: BaseException) -> BlockJob | None:
        """Return what is to be done in place of a job that failed; None if that was all."""
        before = self._tried.get(job.block, _Tried())
        after = replace(before, attempt=before.attempt + 1)
        if isinstance(error, NotFiniteError):
            after = replace(after, notes=(*after.notes, f"done without a code: {one_line(error)}"))
            return self._again(job.block, after, "whole", ())
        if not isinstance(error, WrongSharesError):
            return None
        who = self._choices()
        if before.careful == len(who):
            return None
        workers = who[before.careful]
        after = replace(after, careful=before.careful + 1)
        if not before.notes:
            after = replace(after, notes=(f"all shares were made again: {one_line(error)}",))
        return self._again(job.block, after, "careful", workers)

    def _again(
        self, block: int, tried: _Tried, manner: Manner, workers: tuple[str, ...]
    ) -> BlockJob:
        self._tried[block] = tried
        logger.warning("block %d is done again: %s", block, tried.notes[-1])
        return self._make(block, Trial(manner, tried.attempt, tried.notes, workers))

    def _choices(self) -> list[tuple[str, ...]]:
        """Return on which workers a block is tried, one after the other; none means any."""
        workers = sorted(self._workers())
        first, second = tuple(workers[0::2]), tuple(workers[1::2])
        halves: list[tuple[str, ...]] = [first, second] if second else [()]
        return [(), *halves] if self._locates else halves
