"""Who is there, who answers, and who sits where: the workers, as the state machine sees them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from .entities import BlockState, ShareState, WorkerRecord
from .events import Key, Tick, WorkerJoined, WorkerNews, WorkerStatus
from .lateness import SilenceRule
from .seats import Seatable, assign, interleave

GHOST_DOUBT = 0.1
"""A heartbeat younger than a ghost by less than this many seconds says nothing about it."""

QUIET_AFTER = 2.5
"""After so many heartbeats missed, others are preferred to a worker."""

DEAF_AFTER = 2.0
"""A tick that is late by so many intervals says nothing about how late anybody else is."""

FORGIVEN_AFTER = 20.0
"""Seconds without a result after which a little of what is known of a worker's pace is forgotten,
so that a slow one is tried again."""

LOOKED_AT = 16
"""Where there are more workers than this, twice as many as a block has seats are looked at for it,
others for the next one: what is decided costs as much with ten thousand workers as with ten, and
is hardly worse (the power of two choices)."""

ALIKE = 1.6
"""Workers whose pace differs by less than this factor from that of half of all count as equal."""

FAST = 1.75
"""A worker that is so many times as fast as half of the others may have several seats."""


class Workers:
    """The workers of a cluster.

    Parameters
    ----------
    silence
        Says after which silence a worker counts as gone.
    """

    def __init__(self, silence: SilenceRule) -> None:
        self.silence = silence
        self.workers: dict[str, WorkerRecord] = {}
        self.clock_stalled = False
        self._last_tick: float | None = None
        self._ring: tuple[WorkerRecord, ...] | None = None
        self._turn = 0
        self._typical_pace = 1.0

    # ------------------------------------------------------------ who is there

    def join(self, event: WorkerJoined) -> None:
        """Add a worker."""
        self.workers[event.worker] = WorkerRecord(
            event.worker,
            event.host,
            event.nthreads,
            seen=event.now,
            last_result=event.now,
            running=event.running,
        )
        self._ring = None

    def leave(self, address: str) -> WorkerRecord | None:
        """Drop a worker and return it, or None if it was not there."""
        self._ring = None
        return self.workers.pop(address, None)

    def change(self, event: WorkerStatus) -> None:
        """Note that a worker takes tasks now, or none; either is a sign of life."""
        worker = self.workers.get(event.worker)
        if worker is not None:
            if worker.running != event.running:
                self._ring = None
            worker.running = event.running
            worker.seen = max(worker.seen, event.now)

    def note_abandoned(self, address: str | None, task: Key, now: float) -> None:
        """Note that a task was given up on a worker, whose thread may still be busy with it."""
        worker = self.workers.get(address or "")
        if worker is not None:
            worker.ghosts[task] = now

    def delivered(self, address: str, now: float, start: float | None = None) -> None:
        """Note that a worker returned a result, that it began at ``start`` if that is known."""
        worker = self.workers.get(address)
        if worker is None:
            return
        worker.delivered = True
        worker.last_result = max(worker.last_result, now)
        if (
            worker.ghosts and start is not None and worker.nthreads == 1
        ):  # its only thread was free by then
            worker.ghosts = {key: since for key, since in worker.ghosts.items() if since > start}

    # ------------------------------------------------------------------ choosing

    def seat(self, block: BlockState, spread: bool = False, anew: bool = False) -> set[int]:
        """Give every seat of a block a worker; return the seats that changed.

        Seats stay where they are unless their worker is gone. With ``spread``, a worker that
        has several seats keeps the first only, if there are others for the rest. With
        ``anew``, seats on workers that do not answer or are slow are given away, and those of
        the parity, so that they can change places.
        """
        before = block.seats
        kept: dict[int, str] = {}
        used: set[str] = set()
        for seat, address in sorted(before.items()):
            worker = self.workers.get(address)
            if worker is None or (spread and address in used):
                continue
            if block.allowed_workers and address not in block.allowed_workers:
                continue
            if not worker.running and any(other.running for other in self._in_turn()):
                continue
            if anew and (seat in block.parity_seats or _unfit(worker)):
                continue
            kept[seat] = address
            used.add(address)
        if len(kept) == len(block.wanted_seats):
            return set()
        self._count(block, -1)
        candidates = tuple(self._seatable(block, used))
        block.seats = assign(
            block.wanted_seats, kept, candidates, block.rotation, block.parity_seats, block.left
        )
        self._count(block, +1)
        return {seat for seat, address in block.seats.items() if before.get(seat) != address}

    def expect(self, block: BlockState, member: ShareState) -> None:
        """Note that a share is to be computed at its seat."""
        member.expected = True
        self._shift(block, member.seat, +1)

    def expect_no_more(self, block: BlockState, member: ShareState) -> None:
        """Note that a share is done with, if it was not before."""
        if member.expected:
            member.expected = False
            self._shift(block, member.seat, -1)

    def _shift(self, block: BlockState, seat: int, by: int) -> None:
        block.left[seat] = block.left.get(seat, 0) + by
        worker = self.workers.get(block.seats.get(seat, ""))
        if worker is not None:
            worker.load += by

    def _count(self, block: BlockState, sign: int) -> None:
        """Count what is left of a block to its workers, or take it from them."""
        for seat, address in block.seats.items():
            worker = self.workers.get(address)
            if worker is not None:
                worker.load += sign * block.left.get(seat, 0)

    def _seatable(self, block: BlockState, used: Collection[str]) -> Iterator[Seatable]:
        """Return the workers that a block may have: all, or those whose turn it is.

        Of those that were named for it, as far as there are any.
        """
        chosen = self._in_turn()
        if block.allowed_workers:
            named = tuple(worker for worker in chosen if worker.address in block.allowed_workers)
            chosen = named or chosen
        wanted = 2 * len(block.wanted_seats)
        if len(chosen) > max(LOOKED_AT, wanted):
            start = self._turn % len(chosen)
            self._turn = start + len(block.wanted_seats)
            chosen = chosen[start : start + wanted] + chosen[: max(0, start + wanted - len(chosen))]
            extra = set(used).difference(worker.address for worker in chosen)
            chosen += tuple(self.workers[address] for address in sorted(extra))
        most = max(1, len(block.parity_seats))
        for worker in chosen:
            pace = worker.pace / self._typical_pace
            if 1.0 / ALIKE < pace < ALIKE:  # equals take turns
                pace = 1.0
            room = min(most, 1 + int(1.0 / pace / FAST)) if worker.known else 1
            yield Seatable(worker.address, worker.host, worker.avoided, worker.load, pace, room)

    def _in_turn(self) -> tuple[WorkerRecord, ...]:
        """Return the workers that take tasks, neighbours on different hosts."""
        if self._ring is None:
            running = [worker for worker in self.workers.values() if worker.running]
            self._ring = interleave(running or self.workers.values())
        return self._ring

    def spare(
        self, but: Collection[str], given: dict[str, int], allowed_workers: Collection[str] = ()
    ) -> str | None:
        """Return the worker that has most room for something that is late elsewhere, or None.

        Parameters
        ----------
        but
            Workers that will not do.
        given
            How many tasks workers were given since the last tick; the choice is added.
        among
            The workers that will do; all, if none are named.
        """
        fit = [
            worker
            for worker in self.workers.values()
            if worker.running and not worker.avoided and worker.address not in but
            if not allowed_workers or worker.address in allowed_workers
        ]
        if not fit:
            return None
        chosen = min(
            fit, key=lambda w: ((w.busy + given.get(w.address, 0) + 1) * w.pace, w.address)
        )
        given[chosen.address] = given.get(chosen.address, 0) + 1
        return chosen.address

    def idle(self) -> list[str]:
        """Return the workers that had nothing to do at the last tick and can be relied on."""
        return [
            worker.address
            for worker in self.workers.values()
            if worker.running and worker.busy == 0 and not worker.avoided and not worker.slow
        ]

    # ----------------------------------------------------------------- listening

    def listen(self, tick: Tick) -> list[WorkerRecord]:
        """Take note of who was heard of; return the needed workers that count as gone.

        If the tick is late, the scheduler was not listening for so long, and that time does
        not count against anybody. When nobody at all is heard of, nobody counts as gone.
        """
        late = 0.0 if self._last_tick is None else tick.now - self._last_tick - tick.interval
        self.clock_stalled = late > DEAF_AFTER * tick.interval
        self._last_tick = tick.now
        for news in tick.workers:
            worker = self.workers.get(news.worker)
            if worker is not None:
                _hear(worker, news, tick, max(0.0, late), self.clock_stalled)
        if all(worker.quiet for worker in self.workers.values()):
            return []
        needed = [news.worker for news in tick.workers if news.needed]
        return self._gone(needed, tick)

    def mark_late(self, late: Collection[str], now: float) -> list[WorkerRecord]:
        """Note who is late, forgive who was slow long ago; return who became unfit by now."""
        worse = []
        for worker in self.workers.values():
            worker.late = worker.address in late
            if now - max(worker.judged_at, worker.last_result) > FORGIVEN_AFTER:
                worker.forgive(now)
            unfit = _unfit(worker)
            if unfit and not worker.unfit:
                worse.append(worker)
            worker.unfit = unfit
        paces = sorted(worker.pace for worker in self.workers.values())
        self._typical_pace = paces[len(paces) // 2] if paces else 1.0
        return worse

    def _gone(self, addresses: Iterable[str], tick: Tick) -> list[WorkerRecord]:
        worst = max((worker.longest_gap for worker in self.workers.values()), default=0.0)
        gone = []
        for worker in (self.workers[a] for a in addresses if a in self.workers):
            patience = self.silence.patience(
                worker.delivered, tick.heartbeat_interval, worker.gaps, worst
            )
            if tick.now - worker.seen > patience and not worker.removing:
                worker.removing = True
                gone.append(worker)
        return gone


def _unfit(worker: WorkerRecord) -> bool:
    """Return whether what a worker would do next had better be done elsewhere."""
    return worker.quiet or worker.slow or worker.removing or worker.distrusted


def _hear(
    worker: WorkerRecord, news: WorkerNews, tick: Tick, late: float, clock_stalled: bool
) -> None:
    if news.heartbeat > worker.heartbeat:
        if worker.heartbeat > 0.0 and not clock_stalled:
            worker.heard(news.heartbeat - worker.heartbeat)
        worker.heartbeat = news.heartbeat
    heard = max(worker.seen + late, news.heartbeat, news.result)
    worker.seen = min(tick.now, heard)
    worker.last_result = max(worker.last_result, news.result)
    worker.delivered = worker.delivered or news.result > 0.0
    worker.busy = news.busy
    worker.quiet = tick.now - worker.seen > QUIET_AFTER * tick.heartbeat_interval
    worker.has_cancelled_tasks = news.ghosts > 0
    if news.ghosts == 0:
        believed = news.heartbeat - GHOST_DOUBT
        worker.ghosts = {key: since for key, since in worker.ghosts.items() if since > believed}
