"""Who is there, who answers, and who sits where: the workers, as the state machine sees them."""

from __future__ import annotations

from collections.abc import Collection

from .entities import Block, Worker
from .messages import Key, Tick, WorkerJoined, WorkerNews
from .placement import Seatable, assign, interleave
from .rules import SilenceRule

__all__ = ["Roster"]

GHOST_DOUBT = 0.1
"""A heartbeat younger than a ghost by less than this many seconds says nothing about it."""

QUIET_AFTER = 2.5
"""After so many heartbeats missed, others are preferred to a worker."""


class Roster:
    """The workers of a cluster.

    Parameters
    ----------
    silence
        Says after which silence a worker counts as gone.
    """

    def __init__(self, silence: SilenceRule) -> None:
        self.silence = silence
        self.workers: dict[str, Worker] = {}
        self._last_tick: float | None = None

    def join(self, event: WorkerJoined) -> None:
        """Add a worker."""
        self.workers[event.worker] = Worker(
            event.worker, event.host, event.nthreads, seen=event.now, last_result=event.now
        )

    def leave(self, address: str) -> Worker | None:
        """Drop a worker and return it, or None if it was not there."""
        return self.workers.pop(address, None)

    def haunt(self, address: str | None, share: Key, now: float) -> None:
        """Note that a share was given up on a worker, whose thread may still be busy with it."""
        worker = self.workers.get(address or "")
        if worker is not None:
            worker.ghosts[share] = now

    def delivered(self, address: str, start: float, now: float) -> None:
        """Note that a worker returned a result that it began at ``start``."""
        worker = self.workers.get(address)
        if worker is None:
            return
        worker.delivered = True
        worker.last_result = max(worker.last_result, now)
        if worker.nthreads == 1:  # its only thread was free by then
            worker.ghosts = {key: since for key, since in worker.ghosts.items() if since > start}

    def is_quiet(self, address: str | None) -> bool:
        """Return whether a worker has missed heartbeats."""
        worker = self.workers.get(address or "")
        return worker is not None and worker.quiet

    def stalled(self, address: str | None, since: float, now: float) -> float:
        """Return how long a worker that was given a share at ``since`` has returned nothing."""
        worker = self.workers.get(address or "")
        return 0.0 if worker is None else now - max(since, worker.last_result)

    def seat(self, block: Block, spread: bool = False) -> set[int]:
        """Give every seat of a block a worker; return the seats that changed.

        Seats stay where they are unless their worker is gone; with ``spread``, a worker that
        has several seats keeps the first only, if there are others for the rest.
        """
        before = block.seats
        kept: dict[int, str] = {}
        for seat, address in sorted(before.items()):
            if address in self.workers and not (spread and address in kept.values()):
                kept[seat] = address
        block.seats = assign(block.wanted_seats, kept, self._seatable(), block.rotation)
        return {seat for seat, address in block.seats.items() if before.get(seat) != address}

    def _seatable(self) -> tuple[Seatable, ...]:
        return interleave(
            Seatable(worker.address, worker.host, worker.avoided)
            for worker in self.workers.values()
        )

    def listen(self, tick: Tick) -> list[Worker]:
        """Take note of who was heard of; return the needed workers that count as gone.

        If the tick is late, the scheduler was not listening for so long, and that time does
        not count against anybody. When nobody at all is heard of, nobody counts as gone.
        """
        late = 0.0 if self._last_tick is None else tick.now - self._last_tick - tick.interval
        self._last_tick = tick.now
        for news in tick.workers:
            worker = self.workers.get(news.worker)
            if worker is not None:
                _hear(worker, news, tick, max(0.0, late))
        if all(worker.quiet for worker in self.workers.values()):
            return []
        needed = [news.worker for news in tick.workers if news.needed]
        return self._gone(needed, tick)

    def _gone(self, addresses: Collection[str], tick: Tick) -> list[Worker]:
        gone = []
        for worker in (self.workers[a] for a in addresses if a in self.workers):
            patience = self.silence.patience(worker.delivered, tick.heartbeat_interval)
            if tick.now - worker.seen > patience and not worker.removing:
                worker.removing = True
                gone.append(worker)
        return gone


def _hear(worker: Worker, news: WorkerNews, tick: Tick, late: float) -> None:
    heard = max(worker.seen + late, news.heartbeat, news.result)
    worker.seen = min(tick.now, heard)
    worker.last_result = max(worker.last_result, news.result)
    worker.delivered = worker.delivered or news.result > 0.0
    worker.quiet = tick.now - worker.seen > QUIET_AFTER * tick.heartbeat_interval
    worker.haunted = news.ghosts > 0
    if news.ghosts == 0:
        believed = news.heartbeat - GHOST_DOUBT
        worker.ghosts = {key: since for key, since in worker.ghosts.items() if since > believed}
