"""Who is the slow one? A sentence for somebody who sees the page for the first time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SLOW = 2.0
"""A worker whose shares take so many times as long as others' is called slow."""

ENOUGH = 5
"""Shares of a worker before its pace is spoken of."""

STUCK = 1.0
"""Seconds after which a share that nobody waits for is spoken of."""

RECENTLY = 600.0
"""Seconds for which a worker that is gone is still spoken of."""

NAMED = 3


@dataclass(frozen=True)
class WorkerView:
    """What is known of one worker now.

    Parameters
    ----------
    address
        Its address.
    done, erased, lost
        Shares that it finished, that were given up on it, and that went away with it.
    late, worst
        Lateness of the erased ones in seconds, added up, and the largest.
    pace
        The time its shares take, by the median of its layers; None where it is not known.
    learned_pace
        The same over all runs, as the scheduler has learned it: by this it gives out shares.
    ghosts
        Shares that it may still be busy with though nobody waits for them.
    stuck
        For how many seconds the oldest of these has not been wanted.
    silent
        Seconds since it was last heard of; 0 as long as it answers in time.
    gone
        ``removed``, ``lost`` or ``retired`` if it is not there any more, else ``''``.
    gone_for
        Seconds since then; negative where that does not matter.
    """

    address: str
    done: int = 0
    erased: int = 0
    lost: int = 0
    late: float = 0.0
    worst: float = 0.0
    pace: float | None = None
    learned_pace: float | None = None
    ghosts: int = 0
    stuck: float = 0.0
    silent: float = 0.0
    gone: str = ""
    gone_for: float = 0.0

    @property
    def trouble(self) -> float:
        """How much of a straggler it is: what the workers are ranked by."""
        waits = 10.0 * max(self.silent, self.stuck)
        pace = self.pace if self.pace is not None and self.done + self.erased >= ENOUGH else 1.0
        mean = self.late / self.erased if self.erased else 0.0
        return waits + max(0.0, pace - 1.0) + mean


def ranked(workers: Sequence[WorkerView]) -> list[WorkerView]:
    """Return the workers, the slowest first; those that are gone last."""
    return sorted(workers, key=lambda worker: (bool(worker.gone), -worker.trouble, worker.address))


def verdict(workers: Sequence[WorkerView]) -> str:
    """Return the sentence that names the slow workers.

    >>> verdict([WorkerView("tcp://a:1", done=9, pace=1.0),
    ...          WorkerView("tcp://b:1", done=4, erased=5, late=10.0, worst=3.0, pace=2.5)])
    'tcp://b:1 is the slow one: its shares take 2.5 times as long as usual, and 5 of 9 were not \
waited for (2.0 s late on average).'
    >>> verdict([])
    'No worker has computed a share yet.'
    """
    here = [worker for worker in workers if not worker.gone]
    silent, slow = _stuck(here), _slow(here)
    if silent:
        return f"{_subject(silent)}: {_why_stuck(silent)}."
    known = [worker for worker in here if worker.pace is not None]
    gone = [w for w in workers if w.gone in ("removed", "lost") and w.gone_for < RECENTLY]
    said = []
    if slow:
        said.append(f"{_subject(slow)}: {_why_slow(slow)}.")
    if gone:
        said.append(_farewell(gone))
    if said:
        return " ".join(said)
    if not known:
        return "No worker has computed a share yet."
    last = max(known, key=_pace)
    pace = f"{_pace(last):.1f} times the usual time"
    return f"Nobody is slow: the slowest, {last.address}, takes {pace}."


def slow_ones(workers: Sequence[WorkerView]) -> str:
    """Return the workers that are late now, in a few words for one line.

    >>> slow_ones([WorkerView("tcp://a:1", done=9, pace=1.0)])
    ''
    >>> slow_ones([WorkerView("tcp://a:1", done=9, pace=1.0, silent=2.5)])
    'tcp://a:1 (silent for 2.5 s)'
    """
    here = [worker for worker in workers if not worker.gone]
    late = _stuck(here) or _slow(here)
    named = [f"{w.address} ({_briefly(w)})" for w in late[:2]]
    return ", ".join(named) + (f" and {len(late) - 2} more" if len(late) > 2 else "")


def _briefly(worker: WorkerView) -> str:
    if worker.silent > 0:
        return f"silent for {worker.silent:.1f} s"
    return f"{_pace(worker):.1f} ×" if _pace(worker) >= SLOW else f"stuck for {worker.stuck:.1f} s"


def _stuck(workers: Sequence[WorkerView]) -> list[WorkerView]:
    return ranked([w for w in workers if w.silent > 0 or (w.ghosts and w.stuck > STUCK)])


def _slow(workers: Sequence[WorkerView]) -> list[WorkerView]:
    return ranked([w for w in workers if _pace(w) >= SLOW and w.done + w.erased >= ENOUGH])


def _pace(worker: WorkerView) -> float:
    return 1.0 if worker.pace is None else worker.pace


def _subject(workers: Sequence[WorkerView]) -> str:
    names = [worker.address for worker in workers[:NAMED]]
    more = len(workers) - len(names)
    if len(workers) == 1:
        return f"{names[0]} is the slow one"
    return f"{_and([*names, f'{more} more'] if more else names)} are the slow ones"


def _why_stuck(workers: Sequence[WorkerView]) -> str:
    silent = max(worker.silent for worker in workers)
    it, has, holds = ("it", "has", "holds") if len(workers) == 1 else ("they", "have", "hold")
    ghosts = sum(worker.ghosts for worker in workers)
    shares = "a share" if ghosts == 1 else f"{ghosts} shares"
    held = f"{shares} that nobody waits for any more"
    if silent > 0:
        return f"{it} {has} not answered for {silent:.1f} s" + (
            f" and {holds} {held}" if ghosts else ""
        )
    stuck = max(worker.stuck for worker in workers)
    return f"{it} {has} been stuck for {stuck:.1f} s with {held}"


def _why_slow(workers: Sequence[WorkerView]) -> str:
    paces = _and([f"{_pace(worker):.1f}" for worker in workers[:NAMED]])
    why = f"{'its' if len(workers) == 1 else 'their'} shares take {paces} times as long as usual"
    erased = sum(worker.erased for worker in workers)
    if erased:
        mean = sum(worker.late for worker in workers) / erased
        why += f", and {erased} of {erased + sum(w.done for w in workers)} were not waited for"
        why += f" ({mean:.1f} s late on average)" if mean >= 0.05 else ""
    return why


def _farewell(gone: Sequence[WorkerView]) -> str:
    names = _and([worker.address for worker in gone[:NAMED]])
    more = f" and {len(gone) - NAMED} more" if len(gone) > NAMED else ""
    were = "was" if len(gone) == 1 else "were"
    removed = all(worker.gone == "removed" for worker in gone)
    how = f"{were} removed for not answering" if removed else f"{were} lost"
    ago = min(worker.gone_for for worker in gone)
    return f"{names}{more} {how}{f', {_ago(ago)}' if ago >= 0 else ''}."


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
