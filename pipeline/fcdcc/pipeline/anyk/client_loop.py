"""Any-k without the scheduler plugin: a loop in the client, for schedulers that refuse the plugin.

The graph is submitted piece by piece. First all tasks are submitted that need no any-k node. When
enough shares of a node are computed, the node is submitted with these alone, together with the
tasks that need it, as far as the next node. The future of a share that is late then is released:
the scheduler forgets the share, and its worker sees that it is not needed. It is never cancelled,
because that would cancel its dependents as well.

::

    client      shares 0 … n−1 ────▶ any δ done: the node with these ────▶ shares 0 … n−1 …
    scheduler          runs                    runs

:data:`LOST` says what the plugin (:class:`.scheduler.anyk_plugin.AnyKPlugin`) does and this loop
does not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from dask._task_spec import GraphNode
from dask.typing import Key
from distributed import Client, Future

from .queries import cluster_workers
from .state_machine.events import used_positions
from .tasks import AnyK

LOST = (
    "a loop in the client waits for any k instead, with a round trip per layer; parity always "
    "runs, late reads, glue and writes are not started again elsewhere, a worker that has stopped "
    "is noticed by Dask alone (distributed.scheduler.worker-ttl, 5 minutes), and nothing is "
    "counted or shown"
)
"""What a user loses without the plugin, for a warning."""


class ClientRun:
    """A graph that is being submitted piece by piece. Its user treats it like a future.

    Parameters
    ----------
    client
        A synchronous client.
    tasks
        The graph.
    key
        The task whose result is wanted.
    priority
        As for :meth:`distributed.Client.get`.
    """

    def __init__(
        self, client: Client, tasks: Mapping[Key, GraphNode], key: Key, priority: int = 0
    ) -> None:
        self.key = key
        self._client, self._priority = client, priority
        self._tasks = dict(tasks)
        self._rank = {other: number for number, other in enumerate(tasks)}
        self._users = _users(self._tasks)
        self._unsent = dict.fromkeys(_in_order(self._tasks))
        self._futures: dict[Key, Future[Any]] = {}
        self._done: set[Key] = set()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[ClientRun], Any]] = []
        self._workers: list[str] = list(cluster_workers(client))
        with self._lock:
            self._send()

    # ------------------------------------------------------------- like a future

    @property
    def status(self) -> str:
        """``pending``, ``finished``, ``error`` or ``cancelled``, as of a future."""
        if not self._ended.is_set():
            return "pending"
        if self._error is not None:
            return "error"
        last = self._futures.get(self.key)
        return "cancelled" if last is None else str(last.status)

    def result(self, timeout: float | None = None) -> Any:
        """Wait, and return the result of ``key``.

        Raises
        ------
        TimeoutError
            If it takes longer than ``timeout`` seconds.
        Exception
            The exception of the task or of one that it needs.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.key!r} has no result after {timeout} s")
        if self._error is not None:
            raise self._error
        return self._futures[self.key].result()

    def exception(self) -> BaseException | None:
        """Return the exception, or None if there is none or the run has not ended."""
        return self._error

    def add_done_callback(self, callback: Callable[[ClientRun], Any]) -> None:
        """Call a function when the run has ended, with a result, an exception or a cancellation."""
        with self._lock:
            if not self._ended.is_set():
                self._callbacks.append(callback)
                return
        callback(self)

    def cancel(self) -> None:
        """Release all futures and submit nothing more."""
        with self._lock:
            self._unsent.clear()
            self._release(list(self._futures))
            self._ended.set()

    # ---------------------------------------------------------------- submitting

    def _send(self) -> None:
        """Submit all tasks but those that need a node which has not enough shares."""
        ready: dict[Key, GraphNode] = {}
        for key in self._unsent:
            task = self._tasks[key]
            if isinstance(task, AnyK) and not self._disconnect(task):
                continue
            task = self._tasks[key]
            if all(i in ready or i not in self._unsent for i in task.dependencies):
                ready[key] = task
        for key in ready:
            del self._unsent[key]
        for keys, workers in self._by_seat(ready):
            self._submit(keys, workers, ready)

    def _by_seat(self, ready: Mapping[Key, GraphNode]) -> Iterable[tuple[list[Key], list[str]]]:
        """Yield the tasks that may run anywhere and those of each seat, with its worker."""
        seats: dict[Key, int] = {}
        allowed_workers: set[str] = set()
        for node in self._tasks.values():
            if isinstance(node, AnyK):
                seat_of = dict(zip(node.positions, node.seats, strict=True))
                seats |= {key: seat_of[p] for p, key in node.shares.items() if key in ready}
                allowed_workers |= node.allowed_workers
        workers = [worker for worker in self._workers if worker in allowed_workers] or self._workers
        by_seat: dict[int | None, list[Key]] = {}
        for key in ready:
            by_seat.setdefault(seats.get(key), []).append(key)
        for seat, keys in sorted(by_seat.items(), key=lambda item: (item[0] is not None, item[0])):
            if seat is None or not workers:
                yield keys, []
            else:
                yield keys, [workers[(seat - self._priority) % len(workers)]]

    def _submit(self, keys: list[Key], workers: list[str], ready: Mapping[Key, GraphNode]) -> None:
        """Submit tasks, preferably to these workers, and keep futures of those needed later."""
        wanted = [key for key in keys if key == self.key or self._users[key] - set(keys)]
        where = {"workers": workers, "allow_other_workers": True} if workers else {}
        futures = self._client.get(
            {key: ready[key] for key in keys}, wanted, sync=False, priority=self._priority, **where
        )
        for key, future in zip(wanted, cast("list[Future[Any]]", futures), strict=True):
            self._futures[key] = future
        for key in wanted:
            if key in self._futures:
                self._futures[key].add_done_callback(
                    lambda future, key=key: self._take_result(key, future)
                )

    # ------------------------------------------------------------------- results

    def _take_result(self, key: Key, future: Future[Any]) -> None:
        """Take note of a result; this runs in a thread of the client's."""
        with self._lock:
            if self._ended.is_set() or self._futures.get(key) is not future:
                return
            if future.status != "finished":
                self._end(future)
                return
            self._done.add(key)
            if key == self.key:
                self._end(None)
                return
            if any(user in self._unsent for user in self._users[key]):
                self._send()
            self._release_unneeded()

    def _disconnect(self, node: AnyK) -> bool:
        """Disconnect a node from late shares if it has enough; return whether it has."""
        positions = {p for p, key in node.shares.items() if key in self._done}
        if not node.is_ready(positions):
            return False
        kept = used_positions(node.own, positions)
        late = {key for p, key in node.shares.items() if p not in kept}
        if late:
            self._tasks[node.key] = node.without(late)
            for key in late:
                self._users[key].discard(node.key)
        return True

    def _release_unneeded(self) -> None:
        """Release the futures of shares that are late, and of results that were used."""
        self._release(
            key for key in list(self._futures) if key != self.key and self._users[key] <= self._done
        )

    def _release(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._futures.pop(key).release()  # Dask's callback holds the future, too

    def _end(self, failed: Future[Any] | None) -> None:
        if failed is not None:
            error = cast("Any", failed.exception()) if failed.status == "error" else None
            self._error = error or RuntimeError(f"{failed.key!r} was {failed.status}")
        self._release([key for key in self._futures if key != self.key])
        self._unsent.clear()
        self._ended.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


def submit(
    client: Client, tasks: Mapping[Key, GraphNode], key: Key, priority: int = 0
) -> ClientRun:
    """Send a graph with any-k nodes to a scheduler that does not have the plugin."""
    return ClientRun(client, tasks, key, priority)


def _users(tasks: Mapping[Key, GraphNode]) -> dict[Key, set[Key]]:
    """Return the tasks that need each task."""
    users: dict[Key, set[Key]] = {key: set() for key in tasks}
    for key, task in tasks.items():
        for other in task.dependencies:
            if other in users:
                users[other].add(key)
    return users


def _in_order(tasks: Mapping[Key, GraphNode]) -> list[Key]:
    """Return the keys in an order in which every task comes after those that it needs."""
    ordered: dict[Key, None] = {}
    for start in tasks:
        stack = [(start, False)]
        while stack:
            key, entered = stack.pop()
            if entered:
                ordered[key] = None
            elif key not in ordered:
                stack.append((key, True))
                needed = (i for i in tasks[key].dependencies if i in tasks and i not in ordered)
                stack.extend((other, False) for other in needed)
    return list(ordered)
