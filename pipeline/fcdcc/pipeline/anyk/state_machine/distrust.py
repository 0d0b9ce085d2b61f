"""Which workers returned wrong shares, and which of them get no more tasks.

A worker that returned a wrong share once may have had a random bit flip. One that does it again
has bad memory or a bad processor. Shares are wrong if they contradict others, or fail their own
checksum. What such a worker holds is kept, because it is checked like
everything else, but no more tasks are assigned to it. The last worker that is left is always used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .events import SharesReported, StopUsingWorker
from .history import History
from .workers import WorkerRecord, Workers

MAX_WRONG_BLOCKS = 3
"""Number of blocks with wrong shares from which on a worker gets no more tasks."""

MAX_FAILED_CHECKS = 2
"""Number of results that fail their checksum from which on a worker gets no more tasks. A checksum
says which worker's result it was, and without a parity share nothing else corrects it."""

MAX_NAMED_WORKERS = 1000
"""Workers with wrong shares that are counted by their addresses; others have none."""

MAX_NAMED_SHARES = 10_000
"""Number of wrong shares of a run that its history names; all are counted."""


class Distrust:
    """Counts the wrong shares of each worker, and decides which workers are not used any more."""

    def __init__(self, workers: Workers, history: History) -> None:
        self._workers = workers
        self._history = history
        self.offences: dict[str, set[tuple[str, int]]] = {}
        """By worker, run and number of the blocks in which it returned wrong shares."""
        self.failed_checks: Counter[str] = Counter()
        """By worker, results that failed their checksum."""
        self.wrong_shares: dict[str, int] = {}
        """By worker, wrong shares and results of all runs, also of workers that have left."""
        self.unsettled = False
        """Whether :meth:`settle` may have an instruction."""
        self._distrusted: dict[str, None] = {}

    def note_report(self, event: SharesReported) -> None:
        """Note shares that are wrong, contradict each other, or are not finite."""
        history = self._history.run(event.run)
        place = {"time": event.now, "layer": event.layer, "block": event.block}
        if event.problem == "mismatch":
            workers = sorted({worker for _, worker in event.shares})
            history.events.append({**place, "event": event.problem, "workers": workers})
            return
        for position, worker in event.shares:
            found = {"position": position, "worker": worker}
            history.events.append({**place, "event": event.problem, **found})
            if event.problem in ("corrupt-share", "failed-check"):
                history.counters.corrupt_shares += 1
                if len(history.corrupt) < MAX_NAMED_SHARES:
                    history.corrupt.append((event.layer, event.block, position, worker))
                self._count(worker)
                self.failed_checks[worker] += event.problem == "failed-check"
                self._add_offence(worker, (event.run, event.block))

    def _count(self, worker: str) -> None:
        if worker in self.wrong_shares or len(self.wrong_shares) < MAX_NAMED_WORKERS:
            self.wrong_shares[worker] = self.wrong_shares.get(worker, 0) + 1

    def forget(self, address: str) -> None:
        """Forget a worker that left; another one at the same address starts without offences."""
        self.offences.pop(address, None)
        self.failed_checks.pop(address, None)
        self._distrusted.pop(address, None)

    def settle(self) -> Iterator[StopUsingWorker]:
        """Yield the distrusted workers that Dask would still assign tasks to."""
        self.unsettled = False
        for address in self._distrusted:  # not all workers: this is called after every event
            worker = self._workers.by_address.get(address)
            if worker is None or not (worker.distrusted and worker.running):
                continue
            if self._has_others(worker):
                times = max(len(self.offences.get(address, ())), self.failed_checks[address])
                yield StopUsingWorker(address, times)

    def _add_offence(self, address: str, block: tuple[str, int]) -> None:
        worker = self._workers.by_address.get(address)
        if worker is None:
            return
        blocks = self.offences.setdefault(address, set())
        blocks.add(block)
        if len(blocks) >= MAX_WRONG_BLOCKS or self.failed_checks[address] >= MAX_FAILED_CHECKS:
            worker.distrusted = self.unsettled = True
            self._distrusted[address] = None

    def _has_others(self, worker: WorkerRecord) -> bool:
        return any(
            other.running and not other.distrusted and other is not worker
            for other in self._workers.by_address.values()
        )
