"""Which graph replaces that of a block whose shares were wrong or not finite.

- What a worker computed fails its checksum (``--verify checksum``): the block is computed again as
  before, by other workers, as long as there are others.
- The shares contradict each other: all n shares of every layer are computed again, and those
  that are wrong are located and left out. Locating needs γ ≥ 2, not too many wrong shares, and a
  block without bands. Otherwise the block is computed without the workers in doubt; if all
  workers are in doubt, by one subset of them after another, until the shares of one subset agree
  (:func:`worker_subsets_to_try`).
- A share has another shape or type, and shares are not compared (``--verify off``): the block is
  computed without a code.
- The shares hold NaN or infinity: the block is computed without a code, so that decoding does not
  spread them from one image to others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol, TypeAlias

from ..errors import FailedCheckError, NotFiniteError, WrongSharesError, one_line
from ..graph import RetryMode
from .block_runner import BlockJob

logger = logging.getLogger(__name__)

MAX_ATTEMPTS_WITH_CHECKS = 8
"""How often results of a block may fail their checksum, or once for each worker if there are
more, until it has failed for good."""

WorkerSubset: TypeAlias = "tuple[str, ...]"
"""Addresses of the workers that may compute the shares of a block; () allows all workers."""


@dataclass(frozen=True)
class Attempt:
    """How a block is computed.

    Parameters
    ----------
    mode
        How the graph is made: as for :func:`fcdcc.pipeline.graph.build_retry`; None at first.
    number
        How often the block was attempted before.
    notes
        What the record of the block says about that.
    allowed_workers
        Addresses of the workers that may compute its shares; () allows all workers.
    """

    mode: RetryMode | None = None
    number: int = 0
    notes: tuple[str, ...] = ()
    allowed_workers: WorkerSubset = ()


FIRST_ATTEMPT = Attempt()


class JobBuilder(Protocol):
    """Builds the graph of a block."""

    def __call__(self, block: int, attempt: Attempt, /) -> BlockJob:
        """Return the graph of a block for one attempt."""
        ...


@dataclass(frozen=True)
class _BlockHistory:
    """Attempts at a block so far, and the worker subsets that further attempts may use.

    ``subsets_left`` is None until the shares of the block have contradicted each other.
    """

    attempts: int = 0
    notes: tuple[str, ...] = ()
    subsets_left: tuple[WorkerSubset, ...] | None = None


class RetryPolicy:
    """Decides whether and how a block that failed is computed again.

    Parameters
    ----------
    build
        Builds the graph of a block.
    can_locate
        Whether wrong shares can be located: γ is 2 or more, and blocks are not bands.
    workers
        Returns the addresses of the workers that are running now.
    can_compare
        Whether shares travel with what is needed to compare them: ``--verify`` is spare or all.
    """

    def __init__(
        self,
        build: JobBuilder,
        can_locate: bool,
        workers: Callable[[], Iterable[str]],
        can_compare: bool = True,
    ) -> None:
        self._build = build
        self._can_locate = can_locate
        self._workers = workers
        self._can_compare = can_compare
        self._histories: dict[int, _BlockHistory] = {}
        self._wrong_workers: set[str] = set()
        """Addresses of the workers of which a result failed its checksum."""

    def __call__(self, job: BlockJob, error: BaseException) -> BlockJob | None:
        """Return the job that replaces a failed one; None if there is nothing left to try."""
        before = self._histories.get(job.block, _BlockHistory())
        after = replace(before, attempts=before.attempts + 1)
        if isinstance(error, FailedCheckError):
            return self._retry_elsewhere(job.block, after, error)
        malformed = isinstance(error, WrongSharesError) and not self._can_compare
        if isinstance(error, NotFiniteError) or malformed:
            note = f"computed again without a code: {one_line(error)}"
            after = replace(after, notes=(*after.notes, note))
            return self._retry(job.block, after, "uncoded", ())
        if not isinstance(error, WrongSharesError):
            return None
        running = frozenset(self._workers())
        subsets = before.subsets_left
        if subsets is None:
            in_doubt = error.workers
            subsets = (*[()] * self._can_locate, *worker_subsets_to_try(running, in_doubt))
            after = replace(after, notes=(f"all shares were computed again: {one_line(error)}",))
        still_running = [tuple(w for w in subset if w in running) for subset in subsets]
        usable = [
            now
            for subset, now in zip(subsets, still_running, strict=True)
            if not subset or len(now) > 1
        ]
        if not usable:
            return None
        after = replace(after, subsets_left=tuple(usable[1:]))
        return self._retry(job.block, after, "recheck", usable[0])

    def _retry_elsewhere(
        self, block: int, history: _BlockHistory, error: FailedCheckError
    ) -> BlockJob | None:
        """Return the job by workers of which no result failed; by all, if there is no other."""
        running = sorted(self._workers())
        if history.attempts >= max(MAX_ATTEMPTS_WITH_CHECKS, len(running)):
            return None
        self._wrong_workers |= error.workers
        others = tuple(worker for worker in running if worker not in self._wrong_workers)
        allowed = others if len(others) < len(running) else ()
        history = replace(history, notes=(*history.notes, f"computed again: {one_line(error)}"))
        return self._retry(block, history, "elsewhere", allowed)

    def _retry(
        self, block: int, history: _BlockHistory, mode: RetryMode, allowed: WorkerSubset
    ) -> BlockJob:
        self._histories[block] = history
        logger.warning("block %d is computed again: %s", block, history.notes[-1])
        return self._build(block, Attempt(mode, history.attempts, history.notes, allowed))


def worker_subsets_to_try(
    running: Collection[str], in_doubt: Collection[str]
) -> list[WorkerSubset]:
    """Return the subsets of workers that compute a block again while the wrong one is unknown.

    If exactly one worker is wrong, at least one subset excludes it. No subset is a single
    worker, because its shares would agree with each other even if all were wrong. So with
    two workers, one of which is always wrong, no subset excludes it, and the block fails.

    Parameters
    ----------
    running
        Addresses of the workers that are running.
    in_doubt
        Addresses of the workers whose shares contradicted each other.

    >>> worker_subsets_to_try("abcd", "abcd")
    [('a', 'c'), ('b', 'd')]
    >>> worker_subsets_to_try("abc", "abc")
    [('b', 'c'), ('a', 'c'), ('a', 'b')]
    >>> worker_subsets_to_try("abcde", "abc")[0]
    ('d', 'e')
    >>> worker_subsets_to_try("ab", "ab")
    [()]
    """
    workers = sorted(running)
    trusted = tuple(worker for worker in workers if worker not in in_doubt)
    first = [trusted] if 1 < len(trusted) < len(workers) else []
    if len(workers) < 3:
        return [()]
    if len(workers) == 3:
        pairs = combinations(reversed(workers), 2)
        return sorted((tuple(sorted(pair)) for pair in pairs), key=lambda p: p != trusted)
    return [*first, tuple(workers[0::2]), tuple(workers[1::2])]
