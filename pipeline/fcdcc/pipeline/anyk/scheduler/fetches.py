"""The results that a scheduler is fetching from workers for clients.

A request to a worker that does not answer has no time limit in Dask. If the results that were
requested are computed elsewhere meanwhile, the scheduler must ask again where they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler

HANDLER = "gather"
"""Name of Dask's handler of a client's request for results."""


class Fetches:
    """Answers the requests of clients for results, as the scheduler does.

    Parameters
    ----------
    scheduler
        It calls this from now on.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._usual = scheduler.gather
        self._running: dict[asyncio.Task[Any], frozenset[Key]] = {}
        self._ended: set[asyncio.Task[Any]] = set()
        scheduler.handlers[HANDLER] = self.gather

    async def gather(self, keys: Collection[Key], serializers: Any = None) -> Any:
        """Return the results of tasks, as :meth:`distributed.scheduler.Scheduler.gather` does."""
        while True:
            task = asyncio.ensure_future(self._usual(keys=keys, serializers=serializers))
            self._running[task] = frozenset(keys)
            try:
                return await task
            except asyncio.CancelledError:
                if task not in self._ended:  # the request itself was cancelled
                    raise
            finally:
                del self._running[task]
                self._ended.discard(task)

    def begin_anew(self, keys: Collection[Key]) -> None:
        """Begin anew with requests for any of these results."""
        for task, wanted in self._running.items():
            if not wanted.isdisjoint(keys):
                self._ended.add(task)
                task.cancel()
