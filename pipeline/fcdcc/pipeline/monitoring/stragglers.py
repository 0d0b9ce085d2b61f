"""Which workers are slow: the sentence at the top of the page and of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import median

from ..anyk.state_machine.workers import STRAGGLER_PACE, Outlook
from ..formatting import and_list, counted

MIN_SHARES = 5
"""Least number of shares of a run that a worker must have had to be called slow, and that it must
have finished for a report to show its pace."""

UNKNOWN_PACE = (
    f"– as a pace: the worker finished fewer than {MIN_SHARES} shares in this run, too few to know "
    "its pace."
)
"""What a report says below its table of workers if a pace is left out."""

MAX_BEHIND_RATIO = 1 / 3
"""A worker is behind if shares were given up on it, and it finished at most this part of the
shares that the others finished."""

MIN_REPEATEDLY_LATE = 2
"""Least number of overdue shares of a worker that is not slow for it to be named."""

MIN_LATE_SECONDS = 0.0005
"""Least lateness that is shown: less is shown as 0."""

MIN_ALL_SLOWER_PACE = 1.5
"""Least pace of all workers from which on they are said to have become slower together."""

MIN_MENTIONED_PACE = 1.1
"""Least pace of the slowest worker that is mentioned if no worker is slow."""

STUCK_SECONDS = 1.0
"""Age in seconds from which on the ghost of a worker is mentioned."""

GONE_MENTIONED_SECONDS = 600.0
"""Seconds for which a worker that is gone is mentioned."""

MAX_NAMED_WORKERS = 3
MAX_WORKERS_IN_LINE = 2


@dataclass(frozen=True)
class WorkerView:
    """What is known of one worker now.

    Parameters
    ----------
    address
        Its address.
    done, erased, lost
        Shares of the run that it finished, that were given up on it, and that were lost with it.
    late, worst
        Lateness of the erased shares in seconds: the sum, and the largest.
    overdue
        Erased shares that were late by more than what such shares usually take.
    pace
        How long its shares take, as a multiple of what is usual, as the scheduler has learned
        it over all runs; None while it is not known.
    ghosts
        Shares that may keep it busy although they were given up, and tasks of other kinds that
        another worker has done in its place.
    taken_over
        Those of ``ghosts`` that are no shares.
    stuck
        Seconds since the oldest of these was given up.
    silent
        Seconds since it was last heard of; 0 as long as it answers in time.
    outlook
        What becomes of it if it stays silent; None if it answers or that is not known.
    gone
        ``removed``, ``lost`` or ``retired`` if it is not there any more, else ``''``.
    gone_for
        Seconds since then; negative where that is not to be mentioned.
    had_shares_for
        Seconds of the run from its first share on; 0 where that is not known.
    name, pid, host
        What Dask calls it, '' if that is its address; its process, 0 where it is not known; and the
        machine that has it, as its address says.
    replaced
        Whether another worker that is there now has its name.
    """

    address: str
    done: int = 0
    erased: int = 0
    lost: int = 0
    late: float = 0.0
    worst: float = 0.0
    overdue: int = 0
    pace: float | None = None
    ghosts: int = 0
    taken_over: int = 0
    stuck: float = 0.0
    silent: float = 0.0
    outlook: Outlook | None = None
    gone: str = ""
    gone_for: float = 0.0
    had_shares_for: float = 0.0
    name: str = ""
    pid: int = 0
    host: str = ""
    replaced: bool = False

    @property
    def shown_name(self) -> str:
        """Its name for people: Dask numbers the workers of a local cluster.

        >>> WorkerView("tcp://10.0.0.7:4411", name="3", replaced=True).shown_name
        'worker 3, replaced'
        """
        name = f"worker {self.name}" if self.name.isdecimal() else self.name
        return f"{name}, replaced" if self.replaced else name

    @property
    def details(self) -> str:
        """Its name and its process, by which it can be found; as far as they are known.

        The machine is that of the address, or is named, too.

        >>> WorkerView("tcp://10.0.0.7:4411", name="3", pid=5125, host="10.0.0.7").details
        'worker 3, pid 5125'
        >>> WorkerView("tls://proxy:4411", name="gpu", pid=5125, host="10.0.0.7").details
        'gpu, pid 5125 on 10.0.0.7'
        """
        on = f" on {self.host}" if self.host and self.host not in self.address else ""
        process = f"pid {self.pid}{on}" if self.pid else ""
        return ", ".join(filter(None, (self.shown_name, process)))

    @property
    def called(self) -> str:
        """Its address, with its name and the id of its process.

        >>> WorkerView("tcp://10.0.0.7:4411", name="3", pid=5125).called
        'tcp://10.0.0.7:4411 (worker 3, pid 5125)'
        """
        process = f"pid {self.pid}" if self.pid else ""
        known = ", ".join(filter(None, (self.shown_name, process)))
        return f"{self.address} ({known})" if known else self.address

    @property
    def late_mean(self) -> float:
        """Lateness of an erased share in seconds, on average."""
        return self.late / self.erased if self.erased else 0.0

    @property
    def is_paced_slow(self) -> bool:
        """Whether the shares that it finishes take much longer than usual."""
        enough = self.done + self.erased >= MIN_SHARES
        return enough and self.pace is not None and self.pace > STRAGGLER_PACE

    @property
    def is_slow(self) -> bool:
        """Whether it is slow by its pace, or because most of its shares are given up overdue.

        All shares of a very slow worker may be given up: then its pace is never known.
        """
        return self.is_paced_slow or (self.overdue >= MIN_SHARES and self.overdue > self.done)

    @property
    def is_stuck(self) -> bool:
        """Whether it does not answer, or has held a ghost for long."""
        return self.silent > 0 or (self.ghosts > 0 and self.stuck > STUCK_SECONDS)

    @property
    def was_seen_late(self) -> bool:
        """Whether it was seen to be busy with a share that had been given up."""
        return self.worst >= MIN_LATE_SECONDS


def ranked(workers: Sequence[WorkerView]) -> list[WorkerView]:
    """Return the workers in the order that :data:`..words.WORKER_ORDER` says.

    Equal paces are those that look equal; then the later worker is first, then the lower name. A
    worker all of whose shares are given up has no pace, and counts as the slowest.
    """
    present = [worker for worker in workers if not worker.gone]
    late = {worker.address for worker in present if worker.erased and _is_behind(worker, present)}

    def order(worker: WorkerView) -> tuple[bool, float, bool, float, float, float, str]:
        waiting = max(worker.silent, worker.stuck) if worker.is_stuck else 0.0
        unknown = inf if worker.is_slow else 0.0
        pace = unknown if worker.pace is None else round(worker.pace, 1)
        number = float(worker.name) if worker.name.isdecimal() else inf
        is_behind = not worker.gone and worker.address in late
        return (
            bool(worker.gone), -waiting, not is_behind, -pace, -worker.worst, number, worker.address
        )  # fmt: skip

    return sorted(workers, key=order)


def mark_replaced(workers: Sequence[WorkerView]) -> list[WorkerView]:
    """Return the workers, those marked that are gone and whose names others have now."""
    present = {worker.name for worker in workers if worker.name and not worker.gone}
    return [
        replace(worker, replaced=True) if worker.gone and worker.name in present else worker
        for worker in workers
    ]


def verdict(workers: Sequence[WorkerView], moment: str = "") -> str:
    """Return the sentence that names the slow workers and says why they are called slow.

    With a ``moment``, such as 'when the run ended', the silence of workers is told as of then.

    >>> verdict([WorkerView("tcp://a:1", done=9, pace=1.0),
    ...          WorkerView("tcp://b:1", done=4, erased=5, late=10.0, worst=3.0, pace=3.5)])
    'tcp://b:1 is the slow one: its shares take 3.5 times as long as usual, and 5 of 9 were not \
waited for (2.0 s late on average).'
    >>> verdict([])
    'No worker has computed a share yet.'
    """
    present = [worker for worker in workers if not worker.gone]
    stuck, slow = _stuck(present), _slow(present)
    gone = [
        worker
        for worker in workers
        if worker.gone in ("removed", "lost") and worker.gone_for < GONE_MENTIONED_SECONDS
    ]
    if stuck:
        farewell = [_farewell(gone)] if gone else []
        return " ".join([*_about_stuck(stuck, moment), *farewell])
    sentences = []
    if slow:
        sentences.append(f"{_subject(slow)}: {_why_slow(slow)}.")
    late = [worker for worker in behind(present) if not worker.is_slow]
    sentences += [_why_behind(worker, present) for worker in late[:MAX_NAMED_WORKERS]]
    others = [worker for worker in ranked(present) if not worker.is_slow and worker not in late]
    repeatedly = [worker for worker in others if worker.overdue >= MIN_REPEATEDLY_LATE]
    sentences += [_how_late(worker) for worker in repeatedly[:MAX_NAMED_WORKERS]]
    if gone:
        sentences.append(_farewell(gone))
    if sentences:
        return " ".join(sentences)
    known = [worker for worker in present if worker.pace is not None]
    if not known:
        if any(worker.done for worker in present):
            return "No worker has finished enough shares for its pace to be known."
        return "No worker has computed a share yet."
    last = max(known, key=_pace)
    if _pace(last) < MIN_MENTIONED_PACE:
        return "No worker is slow."
    if len(known) > 1 and (least := min(map(_pace, known))) >= MIN_ALL_SLOWER_PACE:
        return (
            f"No worker is slower than the others, but all take longer than before: at least "
            f"{least:.1f} times as long for a share. Other programs may use their cores."
        )
    if _pace(last) > STRAGGLER_PACE:
        return (
            f"{last.called} may be slow: the few shares that it has finished took "
            f"{_pace(last):.1f} times as long as is usual among all workers."
        )
    return (
        f"No worker is slow: the slowest, {last.called}, takes {_pace(last):.1f} times as long for "
        f"a share as is usual among all workers; above {STRAGGLER_PACE:.0f} times counts as slow."
    )


def behind(workers: Sequence[WorkerView]) -> list[WorkerView]:
    """Return the workers that finished far fewer shares than the others, the slowest first.

    The pace is learned only from shares that are finished: it says nothing of a worker most of
    whose shares are given up.
    """
    present = [worker for worker in workers if not worker.gone]
    return ranked([worker for worker in present if worker.erased and _is_behind(worker, present)])


def _is_behind(worker: WorkerView, present: Sequence[WorkerView]) -> bool:
    usual = _usual_shares(worker, present)
    return usual >= MIN_SHARES and worker.done <= MAX_BEHIND_RATIO * usual


def _usual_shares(worker: WorkerView, workers: Sequence[WorkerView]) -> float:
    """Return how many shares others finish in the time since a worker's first share."""
    usual = median([other.done for other in workers if other is not worker] or [0])
    longest = max(other.had_shares_for for other in workers)
    return usual * (worker.had_shares_for / longest if worker.had_shares_for else 1.0)


def slow_ones(workers: Sequence[WorkerView]) -> str:
    """Return the workers that are slow now, in a few words for one line; '' if none is.

    >>> slow_ones([WorkerView("tcp://a:1", done=9, pace=1.0)])
    ''
    >>> slow_ones([WorkerView("tcp://a:1", done=9, pace=1.0, silent=2.5)])
    'tcp://a:1 (silent for 2.5 s)'
    """
    present = [worker for worker in workers if not worker.gone]
    found = _stuck(present) or _slow(present)
    named = [f"{w.address} ({_in_brief(w)})" for w in found[:MAX_WORKERS_IN_LINE]]
    more = len(found) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _in_brief(worker: WorkerView) -> str:
    if worker.silent > 0:
        return f"silent for {worker.silent:.1f} s"
    if worker.is_paced_slow:
        return f"{_pace(worker):.1f} ×"
    if worker.is_stuck:
        return f"stuck for {worker.stuck:.1f} s"
    return f"{worker.late_mean:.1f} s late"


def _stuck(workers: Sequence[WorkerView]) -> list[WorkerView]:
    return ranked([worker for worker in workers if worker.is_stuck])


def _slow(workers: Sequence[WorkerView]) -> list[WorkerView]:
    return ranked([worker for worker in workers if worker.is_slow])


def _pace(worker: WorkerView) -> float:
    return 1.0 if worker.pace is None else worker.pace


def _named(names: Sequence[str]) -> str:
    named = list(names[:MAX_NAMED_WORKERS])
    more = len(names) - len(named)
    return and_list([*named, f"{more:,} more"] if more else named)


def _subject(workers: Sequence[WorkerView]) -> str:
    are = "is the slow one" if len(workers) == 1 else "are the slow ones"
    return f"{_named([worker.called for worker in workers])} {are}"


def _about_stuck(stuck: Sequence[WorkerView], moment: str) -> Iterator[str]:
    """Yield sentences about workers that do not answer, then about those that are stuck."""
    silent = [worker for worker in stuck if worker.silent > 0]
    busy = [worker for worker in stuck if worker not in silent]
    if silent:
        seconds = max(worker.silent for worker in silent)
        if moment:
            named = _named([worker.called for worker in silent])
            yield f"{named} had not answered for {seconds:.1f} s {moment}."
        else:
            they_have = "it has" if len(silent) == 1 else "they have"
            yield f"{_subject(silent)}: {they_have} not answered for {seconds:.1f} s."
        yield from _done_without(silent)
        yield from _what_next(silent)
    if busy:
        have = "has" if len(busy) == 1 else "have"
        if silent:
            begin = f"{_named([worker.called for worker in busy])} {have}"
        else:
            begin = f"{_subject(busy)}: {'it' if len(busy) == 1 else 'they'} {have}"
        stuck_for = max(worker.stuck for worker in busy)
        yield f"{begin} been stuck for {stuck_for:.1f} s with {_held_in_vain(busy)}."


def _held_in_vain(workers: Sequence[WorkerView]) -> str:
    """Return what keeps workers busy although nobody needs it."""
    shares, tasks = _ghosts_of(workers)
    held = []
    if shares:
        what = "a share" if shares == 1 else f"{shares:,} shares"
        held.append(f"{what} that no task needs any more")
    if tasks:
        what = "a task" if tasks == 1 else f"{tasks:,} tasks"
        held.append(f"{what} that others have done")
    return and_list(held)


def _ghosts_of(workers: Sequence[WorkerView]) -> tuple[int, int]:
    """Return how many shares were given up on workers, and how many other tasks others did."""
    tasks = sum(worker.taken_over for worker in workers)
    return sum(worker.ghosts for worker in workers) - tasks, tasks


def _done_without(silent: Sequence[WorkerView]) -> Iterator[str]:
    """Yield a sentence on what runs do without these workers, if that is anything."""
    shares, tasks = _ghosts_of(silent)
    their = "its" if len(silent) == 1 else "their"
    facts = []
    if shares:
        are = "is" if shares == 1 else "are"
        facts.append(f"{shares:,} of {their} shares {are} not waited for")
    if tasks:
        facts.append(f"{'others' if facts else 'Others'} have done {tasks:,} of {their} tasks")
    if facts:
        yield f"{', and '.join(facts)}."


def _what_next(silent: Sequence[WorkerView]) -> Iterator[str]:
    """Yield a sentence on what happens if these workers stay silent, as far as that is known."""
    known = [worker.outlook for worker in silent if worker.outlook is not None]
    needed = [outlook for outlook in known if outlook.kind != "unneeded"]
    if not needed:
        if known and len(known) == len(silent):
            yield f"No block needs anything of {'it' if len(silent) == 1 else 'them'}."
        return
    those = [w.called for w in silent if w.outlook is None or w.outlook.kind != "unneeded"]
    one = len(those) == 1
    they, have, are = ("it", "has", "is") if one else ("they", "have", "are")
    only = they if len(those) == len(silent) else _named(those)
    answer = f"{they} {'answers' if one else 'answer'}"
    seconds = max(outlook.seconds for outlook in needed)
    when = "within a second" if seconds < 1.0 else f"in about {seconds:.0f} s"
    kinds = {outlook.kind for outlook in needed}
    until = f"{answer} or others compute that"
    if kinds == {"waits"}:
        until = answer
    elif kinds == {"removed"}:
        until = f"{answer}, others compute that or {they} {are} removed, {when}"
    elif kinds == {"bypassed"}:
        until += f", {when}"
    yield f"Blocks that need what only {only} {have} wait until {until}."


def _why_slow(workers: Sequence[WorkerView]) -> str:
    erased = sum(worker.erased for worker in workers)
    mean = sum(worker.late for worker in workers) / erased if erased else 0.0
    waited = f"{erased:,} of {erased + sum(worker.done for worker in workers):,}"
    late = f" ({mean:.1f} s late on average)" if mean >= 0.05 else ""
    if not all(worker.is_paced_slow for worker in workers):
        return f"{waited} shares were not waited for{late}"
    paces = and_list([f"{_pace(worker):.1f}" for worker in workers[:MAX_NAMED_WORKERS]])
    why = f"{'its' if len(workers) == 1 else 'their'} shares take {paces} times as long as usual"
    return f"{why}, and {waited} were not waited for{late}" if erased else why


def _why_behind(worker: WorkerView, workers: Sequence[WorkerView]) -> str:
    usual = _usual_shares(worker, workers)
    were = "was" if worker.erased == 1 else "were"
    late = f" ({worker.late_mean:.1f} s late on average)" if worker.late_mean >= 0.05 else ""
    return (
        f"{worker.called} finished {counted(worker.done, 'share')} where others finish about "
        f"{usual:,.0f} in that time; {worker.erased:,} of its shares {were} not waited for{late}."
    )


def _how_late(worker: WorkerView) -> str:
    longest = f"the longest time by {worker.worst:.1f} s"
    return f"{worker.called} was late {worker.overdue:,} times, {longest}."


def _farewell(gone: Sequence[WorkerView]) -> str:
    ago = min(worker.gone_for for worker in gone)
    left = departure([w.called for w in gone], all(worker.gone == "removed" for worker in gone))
    return f"{left}{f', {_ago(ago)}' if ago >= 0 else ''}."


def departure(names: Sequence[str], removed: bool) -> str:
    """Return that workers, at least one, were removed, or were lost in some way.

    >>> departure(["tcp://10.0.0.7:4411 (worker 3, pid 5125)"], removed=True)
    'tcp://10.0.0.7:4411 (worker 3, pid 5125) was removed for not answering'
    >>> departure(["a", "b", "c", "d", "e"], removed=False)
    'a, b, c and 2 more were lost'
    """
    were = "was" if len(names) == 1 else "were"
    return f"{_named(names)} {were} {'removed for not answering' if removed else 'lost'}"


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"
