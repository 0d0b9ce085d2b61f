"""Whom to trust: wrong shares by worker, and who gets no more work after too many of them.

A worker that gave a wrong share once may have met a stray particle; one that does it again
has bad memory or a bad processor. It keeps what it holds, which is checked like everything
else, and is given nothing new. Nobody is shut out where nobody would be left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .events import Noticed, StopUsingWorker

if TYPE_CHECKING:
    from .entities import WorkerRecord
    from .history import History
    from .workers import Workers


OFFENCES = 3
"""After wrong shares in so many blocks a worker is given no more work."""

REMEMBERED = 10_000
"""Wrong shares of a run that are named; all are counted."""


class Distrust:
    """Counts what was noticed, and decides who is to be relied on."""

    def __init__(self, roster: Workers, history: History) -> None:
        self._roster = roster
        self._history = history
        self.offences: dict[str, set[tuple[str, int]]] = {}
        """By worker, the run and number of the blocks in which it gave wrong shares."""
        self.unsettled = False
        self._distrusted: dict[str, None] = {}

    def notice(self, event: Noticed) -> None:
        """Take note of shares that are wrong, contradict each other or hold no numbers."""
        history = self._history.run(event.run)
        place = {"time": event.now, "layer": event.layer, "block": event.block}
        if event.what == "mismatch":
            workers = sorted({worker for _, worker in event.shares})
            history.events.append({**place, "event": event.what, "workers": workers})
            return
        for position, worker in event.shares:
            found = {"position": position, "worker": worker}
            history.events.append({**place, "event": event.what, **found})
            if event.what == "corrupt-share":
                history.counters.corrupt_shares += 1
                if len(history.corrupt) < REMEMBERED:
                    history.corrupt.append((event.layer, event.block, position, worker))
                self._offended(worker, (event.run, event.block))

    def forget(self, address: str) -> None:
        """Forget a worker that has left; one that comes to its address begins anew."""
        self.offences.pop(address, None)
        self._distrusted.pop(address, None)

    def settle(self) -> Iterator[StopUsingWorker]:
        """Yield whom no more work is to be given, as long as Dask would."""
        self.unsettled = False
        for address in self._distrusted:  # not all workers: this is asked after every event
            worker = self._roster.workers.get(address)
            shut_out = worker is None or not (worker.distrusted and worker.running)
            if worker is not None and not shut_out and self._others(worker):
                yield StopUsingWorker(address, len(self.offences.get(address, ())))

    def _offended(self, address: str, block: tuple[str, int]) -> None:
        worker = self._roster.workers.get(address)
        if worker is None:
            return
        blocks = self.offences.setdefault(address, set())
        blocks.add(block)
        if len(blocks) >= OFFENCES:
            worker.distrusted = self.unsettled = True
            self._distrusted[address] = None

    def _others(self, worker: WorkerRecord) -> bool:
        return any(
            other.running and not other.distrusted and other is not worker
            for other in self._roster.workers.values()
        )
