"""What lost workers cost a run in seconds: an estimate from when its blocks were done.

How long a run would have taken without the loss was not measured. What is known is when each block
was done, when a lost worker was last heard of, and when it was given up. *The time of a loss* is
from the worker's last sign of life until the last block is done that was in flight when the worker
was given up: then all that it had was made by others. The blocks that are done in this time are
compared with those of the rest of the run, which says how long so many blocks usually take. What
the time of the loss exceeds that by is what the loss cost. A worker that was given up before the
first block began had nothing that others had to make: there is no time of its loss.

A worker that was last heard of before the first block was done has a time that begins with the work
of the run. The first blocks of a run take longer anyway, so the estimate is an upper limit then.

The estimate does not count that fewer workers compute afterwards, if no other takes the lost one's
place; and everything else that slows the run down at the same time is in it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...formatting import counted, duration
from .standstill import standstill

BYPASSED = "bypassed"
"""The event that a worker did not answer, and others do its work, while it stays."""

LOSSES = ("removed", "lost", BYPASSED)
"""Events that begin the time of a loss."""

UNANSWERED = ("removed", BYPASSED)
"""Those of them that end the silence of a worker that something was needed from."""

MIN_USUAL_BLOCKS = 4
"""Least number of blocks outside the times of losses from which their usual time is known."""

MAX_LOSSES = 1_000
"""Losses of a run that are taken into account, the first."""


class WorkerLoss(NamedTuple):
    """A worker, when it was last heard of, and when it was given up, in seconds of one clock.

    Time in which the scheduler did not listen to any worker does not count as silence.

    ``how`` is the event, one of :data:`LOSSES`, or ``silent`` for a worker that does not answer now
    and was not removed.
    """

    worker: str
    heard: float
    gone: float
    how: str = "lost"


@dataclass(frozen=True)
class LossCost:
    """What the lost workers of a run cost it.

    Parameters
    ----------
    workers
        How many were lost, or did not answer for a while.
    silent
        Those of them that do not answer any more but were not removed: no task needed that, or
        others use them, too. They may never have had a share.
    returned
        Those of them that were neither lost nor are silent: they did not answer, others did their
        work, and then they answered again.
    seconds
        The times of their losses on the clock: seconds that belong to several count once.
    blocks
        Blocks that were done in these times.
    usual_seconds
        How long so many blocks take in the rest of the run; None if that is not known.
    cost_seconds
        The difference, and what it cost the run by this estimate; None if that is not known, and 0
        if it is not larger than ``chance_seconds``.
    chance_seconds
        By how many seconds so many blocks take more or less time by chance, about; None if that is
        not known. ``cost_seconds`` is 0 if the difference is not larger.
    early
        Those of them that were given up before the first block began.
    from_start
        Whether a time of a loss begins with the work of the run: its first blocks take longer
        anyway, so the loss cost at most ``cost_seconds``.
    standstill_seconds
        The longest time in which no block was done because blocks waited for one of them that did
        not answer; 0 if there was none, or none longer than gaps between blocks are anyway.
    standstill_after_seconds
        The part of that time after the worker was given up.
    """

    workers: int
    silent: int
    seconds: float
    blocks: int
    usual_seconds: float | None
    cost_seconds: float | None
    returned: int = 0
    early: int = 0
    from_start: bool = False
    standstill_seconds: float = 0.0
    chance_seconds: float | None = None
    standstill_after_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


class BlockTimes:
    """When the blocks of a run began and ended, in seconds of one clock, and the losses of workers.

    >>> times = BlockTimes()
    >>> for block in range(20):  # each takes a second, and from the tenth on begins 5 s later
    ...     times.begin(block, block + 5.0 * (block > 10))
    ...     times.end(block, block + 1 + 5.0 * (block >= 10), is_done=True)
    >>> times.note_loss(WorkerLoss("tcp://a:1", heard=10.5, gone=14.5))
    >>> times.cost(now=30.0)
    LossCost(workers=1, silent=0, seconds=5.5, blocks=1, usual_seconds=0.515, cost_seconds=4.985, \
returned=0, early=0, from_start=False, standstill_seconds=0.0, chance_seconds=2.379, \
standstill_after_seconds=0.0)
    """

    def __init__(self) -> None:
        self._open: dict[int, float] = {}
        self._begun, self._ended, self._done = array("d"), array("d"), array("d")
        self._losses: list[WorkerLoss] = []

    def begin(self, block: int, now: float) -> None:
        """Note that a block is sent to the workers."""
        self._open[block] = now

    def end(self, block: int, now: float, *, is_done: bool) -> None:
        """Note that a block has ended."""
        begun = self._open.pop(block, None)
        if begun is None:
            return
        self._begun.append(begun)
        self._ended.append(now)
        if is_done:
            self._done.append(now)

    def forget_open(self) -> None:
        """Forget the blocks that have not ended: their scheduler is lost."""
        self._open.clear()

    def note_loss(self, loss: WorkerLoss) -> None:
        """Note that a worker was lost or bypassed."""
        if len(self._losses) < MAX_LOSSES:
            self._losses.append(_in_order(loss))

    def cost(self, now: float, silent: Iterable[WorkerLoss] = ()) -> LossCost | None:
        """Return what the losses cost until now; None if there was none while blocks were made.

        ``silent`` are workers that do not answer now, and were not removed.
        """
        lost = {loss.worker for loss in self._losses if loss.how != BYPASSED}
        quiet = [_in_order(loss) for loss in silent if loss.worker not in lost]
        returned = {loss.worker for loss in self._losses} - lost - {loss.worker for loss in quiet}
        losses = [*self._losses, *quiet]
        if not losses or not (self._done or self._open):
            return None
        first = min([*self._begun, *self._open.values()])
        early = [loss for loss in losses if loss.gone < first]
        begun, ended = np.array(self._begun), np.array(self._ended)
        done = np.sort(np.array(self._done))
        first_done = done[0] if len(done) else math.inf
        of_losses = [self._window(loss, now, begun, ended) for loss in losses if loss.gone >= first]
        windows = _joined((first if begin < first_done else begin, end) for begin, end in of_losses)
        inside = np.zeros(len(done), bool)
        for begin, end in windows:
            inside |= (done > begin) & (done <= end)
        stood, stood_after = standstill(done, _silences(losses), windows)
        found = LossCost(
            len(lost) + len(quiet) + len(returned), len(quiet),
            round(sum(end - begin for begin, end in windows), 3), int(inside.sum()), None, None,
            len(returned), len({loss.worker for loss in early}),
            bool(windows) and windows[0][0] == first,
            standstill_seconds=stood, standstill_after_seconds=stood_after,
        )  # fmt: skip
        if not windows:
            return found
        each = _usual_seconds(done, inside, windows, max([*self._begun, *self._open.values()]))
        if each is None:
            return found
        # A time of a loss ends when a block is done: half a block more than in another time.
        usual = each * max(0.0, found.blocks - 0.5 * len(windows))
        cost = found.seconds - usual
        chance = each * max(1.0, (found.seconds / each) ** 0.5)
        return replace(
            found,
            usual_seconds=round(usual, 3),
            cost_seconds=round(cost, 3) if cost > chance else 0.0,
            chance_seconds=round(chance, 3),
        )

    def _window(
        self,
        loss: WorkerLoss,
        now: float,
        begun: NDArray[np.float64],
        ended: NDArray[np.float64],
    ) -> tuple[float, float]:
        """Return the time of a loss; it goes on while a block of it is in flight.

        ``begun`` and ``ended`` are the times of the blocks that have ended.
        """
        heard, gone = loss.heard, loss.gone
        if any(start <= gone for start in self._open.values()):
            return heard, max(gone, now)
        return heard, float(max([gone, *ended[(begun <= gone) & (ended > gone)]]))


def _silences(losses: Iterable[WorkerLoss]) -> list[tuple[float, float]]:
    """Return when workers that did not answer were last heard of, and when they were given up."""
    return [(loss.heard, loss.gone) for loss in losses if loss.how in UNANSWERED]


def _in_order(loss: WorkerLoss) -> WorkerLoss:
    """Return a loss that does not end before it begins: the scheduler's clock may be set back."""
    return loss._replace(heard=min(loss.heard, loss.gone))


def _usual_seconds(
    done: NDArray[np.float64],
    inside: NDArray[np.bool_],
    windows: Sequence[tuple[float, float]],
    last_begun: float,
) -> float | None:
    """Return the seconds from one block to the next outside of windows; None if not known.

    Only the time is taken in which all workers have blocks: from the first block that is done, or
    the end of a window that begins earlier, until the last block begins.
    """
    if len(done) < 2:
        return None
    start = float(max([done[0], *(stop for begin, stop in windows if begin < done[0])]))
    end = max(last_begun, done[min(len(done) - 1, MIN_USUAL_BLOCKS)])
    seconds = float(end - start)
    for begin, stop in windows:
        seconds -= max(0.0, min(stop, end) - max(begin, start))
    blocks = int((~inside[1:] & (done[1:] > start) & (done[1:] <= end)).sum())
    return seconds / blocks if blocks >= MIN_USUAL_BLOCKS and seconds > 0 else None


def _joined(windows: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the union of intervals, sorted and disjoint.

    >>> _joined([(4.0, 5.0), (0.0, 2.0), (1.0, 3.0)])
    [(0.0, 3.0), (4.0, 5.0)]
    """
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(windows):
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return joined


def lossy_workers(loss: Mapping[str, Any]) -> str:
    """Return the workers of a :class:`LossCost` in words.

    >>> lossy_workers({"workers": 1, "silent": 0, "returned": 1})
    'the worker that did not answer for a while'
    >>> lossy_workers({"workers": 3, "silent": 1})
    'the 3 workers that were lost or did not answer at the end'
    """
    workers, silent = int(loss["workers"]), int(loss["silent"])
    returned = int(loss.get("returned", 0))  # records of earlier versions do not have it
    lost = workers - silent - returned
    which = "worker" if workers == 1 else f"{workers:,} workers"
    if lost == workers:
        return "the lost worker" if workers == 1 else f"the {workers:,} lost workers"
    what = {"were lost": lost, "did not answer for a while": returned,
            "did not answer at the end": silent}  # fmt: skip
    return f"the {which} that {' or '.join(words for words, number in what.items() if number)}"


def loss_sentence(loss: Mapping[str, Any]) -> str:
    """Return what lost workers cost in a sentence, without its full stop.

    >>> loss = LossCost(1, 0, 9.2, 4, usual_seconds=4.1, cost_seconds=5.1, chance_seconds=3.0)
    >>> loss_sentence(loss.to_dict()).partition(": ")[0]
    'the lost worker cost about 5.1 s ± 3.0 s (an estimate)'
    >>> loss_sentence(loss.to_dict()).partition(": ")[2].partition(", ")[0]
    'from its last sign of life until the last block that it could hold up was done'
    >>> loss_sentence(loss.to_dict()).partition(", ")[2]
    '4 blocks took 9.2 s instead of the usual 4.1 s'
    """
    early = int(loss.get("early", 0))  # records of earlier versions do not have it
    if early == loss["workers"]:
        return (
            f"{counted(early, 'worker')} gave no sign of life when the first block began: others "
            "computed everything from the start, and what that cost is not known"
        )
    if early:
        were = counted(early, "worker was", "workers were")
        others = {**loss, "early": 0}
        return f"{loss_sentence(others)}; {were} given up before the first block began"
    who, blocks = lossy_workers(loss), int(loss["blocks"])
    whose, they = ("its", "it") if loss["workers"] == 1 else ("their", "they")
    before = " before that" if loss.get("returned") else ""
    begin = f"{whose} last sign of life{before}"
    if loss.get("from_start"):
        begin = "the start of the work"
        if loss["workers"] > 1:
            begin += f", or from {whose} last sign of life{before} where that was later"
            if blocks:
                begin += ","
    if loss["cost_seconds"] is None:
        return (
            f"what {who} cost is not known: fewer than {MIN_USUAL_BLOCKS} blocks to compare with "
            "were done at other times while blocks were still to begin"
        )
    compared = (
        f"from {begin} until the last block that {they} could hold up was done, "
        f"{counted(blocks, 'block')} took {duration(loss['seconds'])} instead of the usual "
        f"{duration(loss['usual_seconds'])}"
    )
    if not blocks:
        compared = f"no block was done in the {duration(loss['seconds'])} from {begin}"
    chance = loss.get("chance_seconds")  # records of earlier versions do not have it
    margin = f" ± {duration(chance)}" if chance else ""
    if not loss["cost_seconds"]:
        within = f" ({margin.strip()})" if margin else ""
        return f"{who} cost no time that can be told from chance{within}: {compared}"
    if loss.get("from_start"):
        compared += "; the first blocks of a run take longer anyway"
    return f"{who} cost {about(loss)}{margin} (an estimate): {compared}"


def about(loss: Mapping[str, Any], most: float = math.inf) -> str:
    """Return the seconds that a loss cost in words, at most ``most``.

    >>> about({"cost_seconds": 5.1}), about({"cost_seconds": 5.1, "from_start": True})
    ('about 5.1 s', 'at most about 5.1 s')
    """
    cost = duration(min(loss["cost_seconds"], most))
    return f"at most about {cost}" if loss.get("from_start") else f"about {cost}"
