"""What becomes of a block whose shares were not to be relied on: it is done again, otherwise.

- Shares contradict each other: all n shares of every layer are made again, those that are wrong
  are located and left out. With γ = 1 nothing can be located, nor where too many are wrong, nor
  in bands: then the block is done without the workers that are in doubt, and if all are, by some
  of them after others, until those that do it agree (:func:`worker_subsets_to_try`).
- Shares hold NaN or infinity: the block is done without a code, in which no image meets another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol, TypeAlias

from ..errors import NotFiniteError, WrongSharesError, one_line
from ..graph import RetryMode
from .block_runner import BlockJob

logger = logging.getLogger(__name__)

Jury: TypeAlias = "tuple[str, ...]"
"""Addresses of the workers that make the shares of a block; any, if none are named."""


@dataclass(frozen=True)
class Attempt:
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

    manner: RetryMode | None = None
    attempt: int = 0
    notes: tuple[str, ...] = ()
    allowed_workers: Jury = ()


class Maker(Protocol):
    """Makes the graph of a block."""

    def __call__(self, block: int, trial: Attempt, /) -> BlockJob:
        """Return the graph."""
        ...


@dataclass(frozen=True)
class _Tried:
    """What was tried with a block so far, and by whom it is to be done next, one after the other.

    ``ahead`` is None until its shares have contradicted each other.
    """

    attempt: int = 0
    notes: tuple[str, ...] = ()
    ahead: tuple[Jury, ...] | None = None


class RetryPolicy:
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

    def __init__(self, make: Maker, locates: bool, workers: Callable[[], Iterable[str]]) -> None:
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
            return self._again(job.block, after, "uncoded", ())
        if not isinstance(error, WrongSharesError):
            return None
        there = frozenset(self._workers())
        ahead = before.ahead
        if ahead is None:
            ahead = (*[()] * self._locates, *worker_subsets_to_try(there, error.workers))
            after = replace(after, notes=(f"all shares were made again: {one_line(error)}",))
        present = [tuple(worker for worker in jury if worker in there) for jury in ahead]
        left = [now for jury, now in zip(ahead, present, strict=True) if not jury or len(now) > 1]
        if not left:
            return None
        after = replace(after, ahead=tuple(left[1:]))
        return self._again(job.block, after, "recheck", left[0])

    def _again(self, block: int, tried: _Tried, manner: RetryMode, jury: Jury) -> BlockJob:
        self._tried[block] = tried
        logger.warning("block %d is done again: %s", block, tried.notes[-1])
        return self._make(block, Attempt(manner, tried.attempt, tried.notes, jury))


def worker_subsets_to_try(there: Collection[str], doubted: Collection[str]) -> list[Jury]:
    """Return by whom a block is done again where nobody knows whose share was wrong.

    At least one of them is without the worker that was wrong, and none is a single worker while
    there are others: one alone agrees with itself, whatever it says. So with two workers, of
    whom one is wrong every time, nobody can say which, and the block fails.

    Parameters
    ----------
    there
        Addresses of the workers.
    doubted
        Those whose shares contradicted each other.

    >>> worker_subsets_to_try("abcd", "abcd")
    [('a', 'c'), ('b', 'd')]
    >>> worker_subsets_to_try("abc", "abc")
    [('b', 'c'), ('a', 'c'), ('a', 'b')]
    >>> worker_subsets_to_try("abcde", "abc")[0]
    ('d', 'e')
    >>> worker_subsets_to_try("ab", "ab")
    [()]
    """
    workers = sorted(there)
    beside = tuple(worker for worker in workers if worker not in doubted)
    first = [beside] if 1 < len(beside) < len(workers) else []
    if len(workers) < 3:
        return [()]
    if len(workers) == 3:
        pairs = combinations(reversed(workers), 2)
        return sorted((tuple(sorted(pair)) for pair in pairs), key=lambda p: p != beside)
    return [*first, tuple(workers[0::2]), tuple(workers[1::2])]
