"""Transfers of results from workers that do not answer, or are gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

AGAIN_SECONDS = (0.25, 2.0, 10.0, 30.0)
"""Seconds after which workers are told again to close their connections to a worker."""


class Transfers:
    """Ends transfers from workers that do not answer: a worker that waits for one waits for ever.

    Dask tells all workers once that a worker was removed, and they close their connections to it.
    A worker that was told in the same message to compute a task with a result from there begins to
    connect only after that, and a process that is stopped accepts connections and never answers. So
    all workers are told again a little later.

    Parameters
    ----------
    scheduler
        Of the workers.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._due: list[tuple[float, str]] = []

    def abort(self, address: str, now: float) -> None:
        """Let all workers close their connections to a worker now, and again a little later.

        Transfers of results that are still there begin anew.
        """
        self._send(address, now)
        self.abort_later(address, now)

    def abort_later(self, address: str, now: float) -> None:
        """Do so only a little later: Dask has told the workers that this one was removed."""
        self._due += [(now + seconds, address) for seconds in AGAIN_SECONDS]

    def abort_due(self, now: float, answers: Callable[[str], bool]) -> None:
        """Do what is due by now, except for workers that answer again."""
        due = [address for moment, address in self._due if moment <= now]
        self._due = [(moment, address) for moment, address in self._due if moment > now]
        for address in dict.fromkeys(due):
            if not answers(address):
                self._send(address, now)

    def _send(self, address: str, now: float) -> None:
        stimulus_id = f"fcdcc-anyk-abort-{now}"
        message = {"op": "remove-worker", "worker": address, "stimulus_id": stimulus_id}
        for other in self._scheduler.workers:
            if other != address:
                self._scheduler.worker_send(other, message)
