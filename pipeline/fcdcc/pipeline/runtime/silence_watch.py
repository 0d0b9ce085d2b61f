"""Notice workers that fall silent during a run and are not removed, so that it can warn of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..monitoring.record.loss_cost import WorkerLoss

WARN_AFTER_SECONDS = 5.0
"""Silence after which a run warns. A worker that is needed is usually removed before."""


class SilenceWatch:
    """Decides of which silent workers a run warns: of each once, while others answer.

    Parameters
    ----------
    warned
        Addresses of workers of which the run has warned already.

    Examples
    --------
    >>> watch = SilenceWatch(["tcp://a:1"])
    >>> silent = [WorkerLoss(f"tcp://{host}:1", heard=10.0, gone=12.0) for host in "ab"]
    >>> watch.fresh(silent, ["tcp://a:1", "tcp://b:1", "tcp://c:1"], now=16.0)
    {'tcp://b:1': 6.0}
    >>> watch.fresh(silent, ["tcp://a:1", "tcp://b:1", "tcp://c:1"], now=17.0)
    {}
    """

    def __init__(self, warned: Iterable[str] = ()) -> None:
        self._warned = set(warned)

    def is_due(self, silent: Iterable[WorkerLoss], now: float) -> bool:
        """Return whether one of them has been silent long enough, and was not warned of."""
        return any(self._is_due(loss, now) for loss in silent)

    def fresh(
        self, silent: Iterable[WorkerLoss], workers: Collection[str], now: float
    ) -> dict[str, float]:
        """Return of which workers to warn now: for how many seconds they are silent, by address.

        Parameters
        ----------
        silent
            Workers that do not answer and were not removed.
        workers
            All workers of the cluster. While all are silent, a run waits for them, so none is
            returned.
        now
            The time in seconds, on the clock of ``silent``.
        """
        known = {loss.worker: loss for loss in silent if loss.worker in workers}
        if len(known) == len(workers):
            return {}
        due = [loss for loss in known.values() if self._is_due(loss, now)]
        self._warned |= {loss.worker for loss in due}
        return {loss.worker: now - loss.heard for loss in due}

    def _is_due(self, loss: WorkerLoss, now: float) -> bool:
        return loss.worker not in self._warned and now - loss.heard >= WARN_AFTER_SECONDS
