"""How long a run stood still because a worker did not answer, from when its blocks were done.

A worker that does not answer is given up only when something is needed that only this worker has.
If no block is done meanwhile, those in flight wait for that: other workers are idle though they
are well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formatting import duration

MIN_GAPS = 4
"""Least number of gaps between blocks at other times from which the usual gaps are known."""

MIN_RATIO = 2.0
"""How many times as long as the longest gap at other times a standstill is at least."""

MIN_SECONDS = 1.0
"""Least length of a standstill."""


def standstill(
    done: NDArray[np.float64],
    silences: Iterable[tuple[float, float]],
    losses: Sequence[tuple[float, float]],
) -> tuple[float, float]:
    """Return the longest time without a done block in which a worker did not answer; 0 if none.

    The second number is the part of it after the worker was given up.

    Parameters
    ----------
    done
        When blocks were done, in seconds, sorted, (blocks,).
    silences
        When workers that did not answer were last heard of, and when they were given up.
    losses
        The times of all losses: gaps between blocks outside of these are usual ones.

    Examples
    --------
    >>> done = np.array([0.0, 1, 2, 3, 4, 5, 10, 11])
    >>> standstill(done, [(5.5, 9.0)], [(5.5, 10.0)])
    (4.5, 1.0)
    >>> standstill(done, [(3.5, 4.5)], [(3.5, 10.0)])
    (0.0, 0.0)
    """
    is_usual = np.ones(max(0, len(done) - 1), bool)
    for start, stop in losses:
        is_usual &= (done[1:] <= start) | (done[:-1] >= stop)
    if is_usual.sum() < MIN_GAPS:
        return 0.0, 0.0
    longest, found = float(np.diff(done)[is_usual].max()), (0.0, 0.0)
    for heard, gone in silences:
        after = int(np.searchsorted(done, gone))
        if not 0 < after < len(done):
            continue
        before = float(done[after - 1])
        if heard - before <= longest:  # else it stood still before, for another reason
            then = float(done[after])
            found = max(found, (round(then - max(before, heard), 3), round(then - gone, 3)))
    return found if found[0] >= max(MIN_SECONDS, MIN_RATIO * longest) else (0.0, 0.0)


def standstill_sentence(loss: Mapping[str, Any], workers: str) -> str:
    """Return that a run stood still as a sentence without its full stop; '' if it did not.

    Parameters
    ----------
    loss
        A :class:`.loss_cost.LossCost` as plain values; records of earlier versions do not say
        whether the run stood still, or for how long of it the worker was given up already.
    workers
        Its workers in words.

    Examples
    --------
    >>> loss = {"workers": 1, "standstill_seconds": 2.4, "standstill_after_seconds": 0.4}
    >>> standstill_sentence(loss, "the lost worker")
    'for 2.4 s no block was done: 2.0 s until the lost worker was given up, which had what blocks \
waited for, and 400 ms more until the next block'
    """
    seconds = float(loss.get("standstill_seconds") or 0.0)
    if not seconds:
        return ""
    who = workers if loss["workers"] == 1 else "a silent worker"
    if "standstill_after_seconds" not in loss:
        return (
            f"for {duration(seconds)} no block was done: blocks waited for what only {who} had, "
            "and then for the others to compute it"
        )
    after = float(loss["standstill_after_seconds"])
    more = f", and {duration(after)} more until the next block" if after else ""
    return (
        f"for {duration(seconds)} no block was done: {duration(seconds - after)} until {who} was "
        f"given up, which had what blocks waited for{more}"
    )
