"""The workers of the cluster: which of them answer, how fast they are, and which seats they have.

Three things are decided here from what the scheduler reports at every tick of its clock:

Silence
    A worker whose heartbeats do not arrive is *quiet*, and others are preferred to it. One that is
    silent for longer than a :class:`.silence_rules.SilenceRule` allows counts as gone. It is
    removed, unless it is *shared*: a task of somebody else may be what keeps it from answering, and
    would be lost. Time in which no worker at all was heard of does not count: a network, or a
    laptop, was down.

Pace
    How many times as long as usual a worker's shares take: the median of its latest
    :data:`PACE_SHARES` shares. A worker of pace above :data:`STRAGGLER_PACE` is a straggler
    (:attr:`WorkerRecord.is_straggler`).

Seats
    Which worker computes which shares of a block (:mod:`.seats` has the algorithm).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .events import Idle, Key, Tick, WorkerJoined, WorkerObservation, WorkerStatus
from .registry import BlockState, ShareState
from .seats import Seatable, assign, interleave
from .silence_rules import SilenceRule

STRAGGLER_PACE = 3.0
"""A worker is a straggler if its tasks take more than this many times as long as usual."""

PACE_SHARES = 15
"""Number of a worker's latest shares that its pace is the median of."""

MIN_PACE_SHARES = 2
"""Number of shares from which on a worker's pace is known."""

SLOWNESS_WEIGHT = 0.3
"""Weight of the latest task in a worker's slowness, an exponentially weighted mean."""

MAX_TASK_SLOWNESS = 6.0
"""A task that took longer than this many times the usual time counts as this many times."""

FORGIVE_SECONDS = 20.0
"""Seconds without a result after which one of the shares that a worker's pace was learned from is
forgotten, so that a worker which was slow once is tried again."""

HEARTBEAT_GAPS = 32
"""Number of a worker's latest times between two heartbeats that are kept."""

QUIET_HEARTBEATS = 2.5
"""Number of missed heartbeats after which other workers are preferred to a worker."""

IDLE_SILENT_SECONDS = 3.0
"""While nothing is waited for, a worker is quiet that was heard of so much earlier than another."""

IDLE_SILENT_HEARTBEATS = 4.0
"""Number of heartbeats that it must have missed then at least."""

STALLED_TICKS = 2.0
"""Number of tick intervals that a tick may be late. If it is later than that, the scheduler itself
was blocked, and how late workers are cannot be concluded from it."""

GHOST_DOUBT_SECONDS = 0.1
"""Seconds by which a heartbeat must be younger than a ghost to say that the ghost is gone."""

ALL_CANDIDATES = 16
"""Number of workers up to which all are candidates for the seats of a block. In larger clusters
twice as many as the block has seats are, others for every block, so that seating costs as much
with ten thousand workers as with ten and the seats are hardly worse (Mitzenmacher, "The power of
two choices in randomized load balancing", 2001)."""

EQUAL_PACE_RATIO = 1.6
"""Workers whose pace differs from the median worker's by less than this factor count as equal."""

FAST_PACE_RATIO = 1.75
"""A worker that is this many times as fast as the median worker may have two seats of a block."""


def median_pace(ratios: Sequence[float]) -> float | None:
    """Return the pace of a worker whose latest shares took these multiples of the usual time.

    The lower median, so that one slow share of two does not make a worker slow; None for fewer than
    :data:`MIN_PACE_SHARES`. Callers keep the latest :data:`PACE_SHARES` ratios.

    >>> median_pace([1.0, 9.0]), median_pace([4.0, 1.0, 9.0]), median_pace([4.0])
    (1.0, 4.0, None)
    """
    if len(ratios) < MIN_PACE_SHARES:
        return None
    return sorted(ratios)[(len(ratios) - 1) // 2]


@dataclass(slots=True)
class WorkerRecord:
    """What is known of one worker. Times are seconds on the scheduler's clock."""

    address: str
    host: str
    nthreads: int
    seen: float
    """When it was last heard of, by a heartbeat or a result."""
    last_result: float
    """When it last returned the result of any task, or joined."""
    delivered: bool = False
    """Whether it has returned any result, or said that it has loaded what tasks need."""
    ghosts: dict[Key, float] = field(default_factory=dict)
    """Tasks that were given up while they ran here, and when: its thread may still be busy."""
    has_cancelled_tasks: bool = False
    """Whether its last heartbeat reported cancelled tasks."""
    quiet: bool = False
    """Whether it has missed more than :data:`QUIET_HEARTBEATS` heartbeats."""
    late: bool = False
    """Whether it has returned nothing for longer than its tasks usually take."""
    slowness: float = 1.0
    """How many times longer than usual its tasks of any kind took lately: a weighted mean."""
    judged_at: float = 0.0
    """When ``slowness`` changed last."""
    pace: float = 1.0
    """How many times longer than usual its shares take; 1 while too few of them are known."""
    load: int = 0
    """How many shares it has yet to compute at its seats."""
    running: bool = True
    """Whether it takes tasks: not paused, and not closing."""
    processing: int = 0
    """How many tasks it had been assigned at the last tick."""
    heartbeat: float = 0.0
    """When its last heartbeat arrived."""
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=HEARTBEAT_GAPS))
    """Seconds between its latest heartbeats."""
    longest_gap: float = 0.0
    """The largest of ``gaps``."""
    removing: bool = False
    """Whether the instruction to remove it was given."""
    shared: bool = False
    """Whether it ran or held something at the last tick that is not of a graph with any-k nodes."""
    needed: bool = False
    """Whether it ran or held something of a graph with any-k nodes at the last tick; known of a
    quiet worker only."""
    bypassed: float | None = None
    """When the last instruction to bypass it was given; None if it was heard of since."""
    distrusted: bool = False
    """Whether it returned wrong shares in too many blocks (:mod:`.distrust`)."""
    unfit: bool = False
    """Whether its seats were given away because it is quiet, slow or distrusted."""
    _ratios: array[float] = field(default_factory=lambda: array("d"))  # near each other in memory

    @property
    def takes_tasks(self) -> bool:
        """Whether it answers and is given tasks."""
        return self.running and not (self.quiet or self.removing or self.distrusted)

    @property
    def last_sign(self) -> float:
        """When it last sent a heartbeat or a result, or joined.

        ``seen`` is later where the scheduler did not listen, or had nothing to wait for.
        """
        return max(self.heartbeat, self.last_result)

    @property
    def avoid_rank(self) -> int:
        """How much other workers are preferred: 0 not at all, 1 if they are free, 2 always.

        1 for a worker that is late or busy with a ghost, 2 for one that does not answer or returned
        wrong shares.
        """
        if self.quiet or self.removing or self.distrusted:
            return 2
        return 1 if self.ghosts or self.has_cancelled_tasks or self.late else 0

    @property
    def is_straggler(self) -> bool:
        """Whether its tasks take more than :data:`STRAGGLER_PACE` times as long as usual."""
        return self.slowness > STRAGGLER_PACE or self.pace > STRAGGLER_PACE

    @property
    def known_pace(self) -> float | None:
        """Its pace, or None while fewer than :data:`MIN_PACE_SHARES` of its shares are known."""
        return self.pace if len(self._ratios) >= MIN_PACE_SHARES else None

    @property
    def has_reliable_pace(self) -> bool:
        """Whether more than half of the shares that a pace can be learned from are known."""
        return 2 * len(self._ratios) > PACE_SHARES

    def add_heartbeat_gap(self, seconds: float) -> None:
        """Note the seconds between two heartbeats."""
        self.gaps.append(seconds)
        self.longest_gap = max(self.gaps)

    def note_cancelled(self, observation: WorkerObservation) -> None:
        """Note whether it runs tasks that were taken back: without any, it holds no ghosts."""
        self.has_cancelled_tasks = observation.cancelled > 0
        if observation.cancelled == 0:
            believed = observation.heartbeat - GHOST_DOUBT_SECONDS
            self.ghosts = {key: since for key, since in self.ghosts.items() if since > believed}

    def add_task_ratio(self, ratio: float, now: float) -> None:
        """Note that a task of any kind took ``ratio`` times as long as usual."""
        self.slowness += SLOWNESS_WEIGHT * (min(ratio, MAX_TASK_SLOWNESS) - self.slowness)
        self.judged_at = now

    def add_share_ratio(self, ratio: float) -> None:
        """Note that a share took ``ratio`` times as long as usual."""
        self._ratios.append(ratio)
        del self._ratios[:-PACE_SHARES]
        self._learn_pace()

    def forgive(self, now: float) -> None:
        """Forget the slowness and the oldest share that the pace was learned from."""
        self.slowness, self.judged_at = 1.0, now
        if self._ratios:
            self._ratios.pop(0)
            self._learn_pace()

    def _learn_pace(self) -> None:
        pace = median_pace(self._ratios)
        self.pace = 1.0 if pace is None else pace


class Outlook(NamedTuple):
    """What becomes of a worker that does not answer, if it stays silent.

    Parameters
    ----------
    kind
        ``unneeded`` if it runs and holds nothing of a graph with any-k nodes, so that nothing
        happens; ``removed`` or ``bypassed`` if that happens next; ``waits`` if what needs the
        worker waits until it answers, because no other worker does.
    seconds
        Time until that, by what is known now: it grows if other workers become silent, too. 0 for
        ``unneeded`` and ``waits``.
    """

    kind: Literal["unneeded", "removed", "bypassed", "waits"]
    seconds: float = 0.0


class Workers:
    """The workers of a cluster.

    Parameters
    ----------
    silence_rule
        Says after how much silence a worker counts as gone.

    Attributes
    ----------
    by_address
        The records of the workers that are there.
    clock_stalled
        Whether the last tick was so late that the scheduler itself must have been blocked.
    """

    def __init__(self, silence_rule: SilenceRule) -> None:
        self.silence_rule = silence_rule
        self.by_address: dict[str, WorkerRecord] = {}
        self.clock_stalled = False
        self._last_tick: float | None = None
        self._was_idle = False
        """Whether nothing was waited for when the workers were last looked at."""
        self._heartbeat_interval = 0.0
        self._longest_gap = 0.0
        self._all_quiet_since: float | None = None
        self._ring: tuple[WorkerRecord, ...] | None = None
        self._turn = 0
        self._typical_pace = 1.0

    # ------------------------------------------------------- joining and leaving

    def join(self, event: WorkerJoined) -> None:
        """Add a worker."""
        self.by_address[event.worker] = WorkerRecord(
            event.worker,
            event.host,
            event.nthreads,
            seen=event.now,
            last_result=event.now,
            running=event.running,
        )
        self._ring = None

    def leave(self, address: str) -> WorkerRecord | None:
        """Drop a worker and return its record, or None if there was no such worker."""
        self._ring = None
        return self.by_address.pop(address, None)

    def is_gone(self, address: str | None) -> bool:
        """Return whether a worker has left, is being removed, or was bypassed."""
        worker = self.by_address.get(address or "")
        return worker is None or worker.removing or worker.bypassed is not None

    def set_running(self, event: WorkerStatus) -> None:
        """Note whether a worker takes tasks now. That it said so shows that it is alive."""
        worker = self.by_address.get(event.worker)
        if worker is not None:
            if worker.running != event.running:
                self._ring = None
            worker.running = event.running
            worker.seen = max(worker.seen, event.now)

    # ------------------------------------------------------- results and ghosts

    def add_ghost(self, address: str | None, task: Key, now: float) -> None:
        """Note that a task was given up on a worker, whose thread may still be busy with it."""
        worker = self.by_address.get(address or "")
        if worker is not None:
            worker.ghosts[task] = now

    def note_result(self, address: str, now: float, start: float | None = None) -> None:
        """Note that a worker returned a result; ``start`` is when it began to compute it."""
        worker = self.by_address.get(address)
        if worker is None:
            return
        worker.delivered = True
        worker.last_result = max(worker.last_result, now)
        if worker.ghosts and start is not None and worker.nthreads == 1:
            # Its only thread was free when it began.
            worker.ghosts = {key: since for key, since in worker.ghosts.items() if since > start}

    # ------------------------------------------------------------------ seats

    def assign_seats(
        self, block: BlockState, spread: bool = False, replace_unfit: bool = False
    ) -> set[int]:
        """Give every seat of a block a worker; return the seats that changed.

        A seat keeps its worker unless that is gone, takes no tasks or is not allowed.

        Parameters
        ----------
        spread
            Let a worker that has several seats keep only the first, if others are there.
        replace_unfit
            Give away the seats of workers that do not answer, are slow or are distrusted, and all
            parity seats, so that these workers can get them.
        """
        before = block.seats
        kept: dict[int, str] = {}
        used: set[str] = set()
        for seat, address in sorted(before.items()):
            worker = self.by_address.get(address)
            if worker is None or (spread and address in used):
                continue
            if block.allowed_workers and address not in block.allowed_workers:
                continue
            if not worker.running and any(other.running for other in self._in_turn()):
                continue
            if replace_unfit and (seat in block.parity_seats or _is_unfit(worker)):
                continue
            kept[seat] = address
            used.add(address)
        if len(kept) == len(block.wanted_seats):
            return set()
        self._add_loads(block, -1)
        candidates = tuple(self._seatable(block, used))
        block.seats = assign(
            block.wanted_seats, kept, candidates, block.rotation, block.parity_seats, block.left
        )
        self._add_loads(block, +1)
        return {seat for seat, address in block.seats.items() if before.get(seat) != address}

    def expect(self, block: BlockState, share: ShareState) -> None:
        """Count a share as work that the worker of its seat has yet to do."""
        share.expected = True
        self._add_load(block, share.seat, +1)

    def expect_no_more(self, block: BlockState, share: ShareState) -> None:
        """Count a share as work no longer, if it was counted."""
        if share.expected:
            share.expected = False
            self._add_load(block, share.seat, -1)

    def _add_load(self, block: BlockState, seat: int, shares: int) -> None:
        block.left[seat] = block.left.get(seat, 0) + shares
        worker = self.by_address.get(block.seats.get(seat, ""))
        if worker is not None:
            worker.load += shares

    def _add_loads(self, block: BlockState, sign: int) -> None:
        """Add what is left of a block to the loads of its workers, or subtract it."""
        for seat, address in block.seats.items():
            worker = self.by_address.get(address)
            if worker is not None:
                worker.load += sign * block.left.get(seat, 0)

    def _seatable(self, block: BlockState, used: Collection[str]) -> Iterator[Seatable]:
        """Yield the candidates for the seats of a block.

        All workers, or the next ones in turn (:data:`ALL_CANDIDATES`) and those in ``used``; if the
        block names allowed workers, those that are there.
        """
        chosen = self._in_turn()
        if block.allowed_workers:
            allowed = tuple(worker for worker in chosen if worker.address in block.allowed_workers)
            chosen = allowed or chosen
        wanted = 2 * len(block.wanted_seats)
        if len(chosen) > max(ALL_CANDIDATES, wanted):
            start = self._turn % len(chosen)
            self._turn = start + len(block.wanted_seats)
            chosen = chosen[start : start + wanted] + chosen[: max(0, start + wanted - len(chosen))]
            extra = set(used).difference(worker.address for worker in chosen)
            chosen += tuple(self.by_address[address] for address in sorted(extra))
        most = max(1, len(block.parity_seats))
        for worker in chosen:
            pace = worker.pace / self._typical_pace
            if 1.0 / EQUAL_PACE_RATIO < pace < EQUAL_PACE_RATIO:  # so that they take turns
                pace = 1.0
            fast = 1 + int(1.0 / pace / FAST_PACE_RATIO)
            room = min(most, fast) if worker.has_reliable_pace else 1
            yield Seatable(worker.address, worker.host, worker.avoid_rank, worker.load, pace, room)

    def _in_turn(self) -> tuple[WorkerRecord, ...]:
        """Return the workers that take tasks, ordered so that neighbours are on other hosts."""
        if self._ring is None:
            running = [worker for worker in self.by_address.values() if worker.running]
            self._ring = interleave(running or self.by_address.values())
        return self._ring

    def choose_spare(
        self,
        excluded: Collection[str],
        given: dict[str, int],
        allowed_workers: Collection[str] = (),
    ) -> str | None:
        """Return the worker that would finish one more task first; None if none is fit.

        Parameters
        ----------
        excluded
            Workers that must not be chosen.
        given
            How many tasks each worker was given since the last tick; the choice is added.
        allowed_workers
            The workers that may be chosen; all, if none are named.
        """
        fit = [
            worker
            for worker in self.by_address.values()
            if worker.running and not worker.avoid_rank and worker.address not in excluded
            if not allowed_workers or worker.address in allowed_workers
        ]
        if not fit:
            return None
        chosen = min(
            fit, key=lambda w: ((w.processing + given.get(w.address, 0) + 1) * w.pace, w.address)
        )
        given[chosen.address] = given.get(chosen.address, 0) + 1
        return chosen.address

    def idle(self) -> list[str]:
        """Return the workers that had no task at the last tick, answer and are not slow."""
        return [
            worker.address
            for worker in self.by_address.values()
            if worker.running
            and worker.processing == 0
            and not worker.avoid_rank
            and not worker.is_straggler
        ]

    # ------------------------------------------------------------------- ticks

    def observe(self, tick: Tick) -> list[WorkerRecord]:
        """Note which workers were heard of; return those that now count as gone.

        Only workers that run or hold tasks of graphs with any-k nodes are returned, and none that
        is marked as removed already. One that was bypassed is returned again after the same time
        if it runs or holds such a task once more: Dask still gives it tasks.

        If the tick is late, the scheduler was not listening for so long, and that time does
        not count as silence. While all workers are quiet, none counts as gone, and when one is
        heard of again, the time since any of them was does not count as silence of the others.
        """
        late = self._lateness(tick)
        self.clock_stalled = late > STALLED_TICKS * tick.interval
        if self._was_idle:
            self._limit_silence()
        self._last_tick, self._heartbeat_interval = tick.now, tick.heartbeat_interval
        for observation in tick.workers:
            worker = self.by_address.get(observation.worker)
            if worker is not None:
                _observe(worker, observation, tick, late, self.clock_stalled)
        if self._all_are_quiet(tick, late):
            return []
        gaps = (worker.longest_gap for worker in self.by_address.values())
        self._longest_gap = max(gaps, default=0.0)
        needed = [observation.worker for observation in tick.workers if observation.needed]
        return self._gone(needed, tick.now)

    def observe_idle(self, idle: Idle) -> None:
        """Note which workers were heard of while nothing is waited for.

        One that was heard of much earlier than another is quiet, so that it gets no work at first
        when there is some. Before it counts as gone, it has nearly the usual time from then on. As
        in :meth:`observe`, time in which the scheduler was not listening is not silence.
        """
        late = self._lateness(idle)
        for observation in idle.workers:
            worker = self.by_address.get(observation.worker)
            if worker is None:
                continue
            heard = max(observation.heartbeat, observation.result)
            if heard > max(worker.heartbeat, worker.last_result):
                worker.quiet = False
            worker.heartbeat = max(worker.heartbeat, observation.heartbeat)
            worker.last_result = max(worker.last_result, observation.result)
            worker.seen = min(idle.now, max(worker.seen + late, heard))
            worker.processing = observation.processing
            worker.shared, worker.needed = observation.shared, observation.needed
            worker.note_cancelled(observation)
        latest = max((worker.seen for worker in self.by_address.values()), default=0.0)
        allowed = max(IDLE_SILENT_SECONDS, IDLE_SILENT_HEARTBEATS * idle.heartbeat_interval)
        for worker in self.by_address.values():
            worker.quiet = worker.quiet or worker.seen < latest - allowed
            worker.bypassed = worker.bypassed if worker.quiet else None
        self._last_tick, self._heartbeat_interval = idle.now, idle.heartbeat_interval
        self._all_quiet_since, self._was_idle = None, True

    def _lateness(self, event: Tick | Idle) -> float:
        """Return how many seconds later than intended the workers are looked at."""
        if self._last_tick is None:
            return 0.0
        return max(0.0, event.now - self._last_tick - event.interval)

    def _limit_silence(self) -> None:
        """Count little of the silence from the time when nothing was waited for."""
        self._was_idle = False
        since = (self._last_tick or 0.0) - QUIET_HEARTBEATS * self._heartbeat_interval
        for worker in self.by_address.values():
            worker.seen = max(worker.seen, since)

    def answers(self, address: str) -> bool:
        """Return whether a worker is there, and others do not compute again what it has."""
        worker = self.by_address.get(address)
        return worker is not None and worker.bypassed is None

    def others_answer(self, worker: WorkerRecord) -> bool:
        """Return whether any other worker takes tasks and answers."""
        others = (other for other in self.by_address.values() if other is not worker)
        return any(other.running and not other.quiet for other in others)

    def outlook(self, address: str, now: float) -> Outlook | None:
        """Return what becomes of a worker that does not answer, if it stays silent.

        None if it answers or is not there, or if nobody has looked at the workers for a while.
        """
        worker = self.by_address.get(address)
        if worker is None or not (worker.quiet or worker.removing):
            return None
        last = self._last_tick
        if last is None or now - last > QUIET_HEARTBEATS * self._heartbeat_interval:
            return None
        if worker.removing:
            return Outlook("removed")
        if not worker.needed:
            return Outlook("unneeded")
        if self._all_quiet_since is not None:
            return Outlook("waits")
        if worker.shared and not self.others_answer(worker):
            return Outlook("waits")
        seconds = max(0.0, self._patience_left(worker, now))
        return Outlook("bypassed" if worker.shared else "removed", seconds)

    def mark_late(self, late: Collection[str], now: float) -> list[WorkerRecord]:
        """Note which workers are late, forgive old slowness; return those that became unfit."""
        newly_unfit = []
        for worker in self.by_address.values():
            worker.late = worker.address in late
            if now - max(worker.judged_at, worker.last_result) > FORGIVE_SECONDS:
                worker.forgive(now)
            unfit = _is_unfit(worker)
            if unfit and not worker.unfit:
                newly_unfit.append(worker)
            worker.unfit = unfit
        paces = sorted(worker.pace for worker in self.by_address.values())
        self._typical_pace = paces[len(paces) // 2] if paces else 1.0
        return newly_unfit

    def _all_are_quiet(self, tick: Tick, late: float) -> bool:
        """Return whether no worker answers; if that is over, forgive the time that it lasted."""
        workers = self.by_address.values()
        if all(worker.quiet for worker in workers):
            self._all_quiet_since = max((worker.seen for worker in workers), default=tick.now)
            return True
        if self._all_quiet_since is not None:
            unheard = tick.now - late - self._all_quiet_since
            for worker in workers:
                if worker.quiet:
                    worker.seen = min(tick.now, worker.seen + unheard)
                    worker.quiet = _is_quiet(worker, tick)
            self._all_quiet_since = None
        return False

    def _gone(self, addresses: Iterable[str], now: float) -> list[WorkerRecord]:
        found = (self.by_address[a] for a in addresses if a in self.by_address)
        return [w for w in found if not w.removing and self._patience_left(w, now) < 0.0]

    def _patience_left(self, worker: WorkerRecord, now: float) -> float:
        """Return after how many seconds a worker that stays silent counts as gone, if needed."""
        patience = self.silence_rule.patience(
            worker.delivered, self._heartbeat_interval, worker.gaps, self._longest_gap
        )
        since = worker.seen
        if worker.bypassed is not None and worker.shared:
            since = max(since, worker.bypassed)
        return patience - (now - since)


def _is_quiet(worker: WorkerRecord, tick: Tick) -> bool:
    """Return whether a worker has missed more than :data:`QUIET_HEARTBEATS` heartbeats."""
    return tick.now - worker.seen > QUIET_HEARTBEATS * tick.heartbeat_interval


def _is_unfit(worker: WorkerRecord) -> bool:
    """Return whether other workers should have the seats of this one."""
    return worker.quiet or worker.is_straggler or worker.removing or worker.distrusted


def _observe(
    worker: WorkerRecord,
    observation: WorkerObservation,
    tick: Tick,
    late: float,
    clock_stalled: bool,
) -> None:
    if observation.heartbeat > worker.heartbeat:
        if worker.heartbeat > 0.0 and not clock_stalled:
            worker.add_heartbeat_gap(observation.heartbeat - worker.heartbeat)
        worker.heartbeat = observation.heartbeat
    heard = max(worker.seen + late, observation.heartbeat, observation.result)
    worker.seen = min(tick.now, heard)
    worker.last_result = max(worker.last_result, observation.result)
    worker.delivered = worker.delivered or observation.result > 0.0 or observation.ready
    worker.processing = observation.processing
    worker.shared, worker.needed = observation.shared, observation.needed
    worker.quiet = _is_quiet(worker, tick)
    worker.bypassed = worker.bypassed if worker.quiet else None
    worker.note_cancelled(observation)
