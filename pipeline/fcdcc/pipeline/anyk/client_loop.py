"""Any-k without the plugin: a loop in the client, for schedulers that do not take it.

The graph is sent piece by piece. First goes what needs no any-k node; whenever the shares of a
node that are there are enough for it, the node follows with these alone, and what needs it, as far
as the next one. A share that is late then is let go of: its future is released, the scheduler
forgets it, and its worker sees that it is not wanted. It is never cancelled: that would cancel
whatever depends on it.

::

    client      shares 0 … n−1 ────▶ any δ done: the node with these ────▶ shares 0 … n−1 …
    scheduler          runs                    runs

What is lost against :class:`.scheduler_plugin.AnyKPlugin` is said in :data:`LOST`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from dask._task_spec import GraphNode
from dask.typing import Key
from distributed import Client, Future

from .state_machine.readiness import used
from .tasks import AnyK

LOST = (
    "a loop in the client waits for any k instead, with a round trip per layer; parity always "
    "runs, late reads, glue and writes are not started again elsewhere, a worker that has stopped "
    "is noticed by Dask alone (distributed.scheduler.worker-ttl, 5 minutes), and nothing is "
    "counted or shown"
)
"""What a user is to be told."""


class ClientRun:
    """A graph on its way through a cluster, and its result; to its user it is like a future.

    Parameters
    ----------
    client
        A synchronous client.
    tasks
        The graph.
    key
        The task whose result is asked for.
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
        self._workers: list[str] = list(client.scheduler_info(n_workers=-1)["workers"])
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
            What the task, or one that it needs, raised.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.key!r} is not there after {timeout} s")
        if self._error is not None:
            raise self._error
        return self._futures[self.key].result()

    def exception(self) -> BaseException | None:
        """Return what went wrong, if anything did; only when it has ended."""
        return self._error

    def add_done_callback(self, callback: Callable[[ClientRun], Any]) -> None:
        """Call a function when the result is there, or will not be."""
        with self._lock:
            if not self._ended.is_set():
                self._callbacks.append(callback)
                return
        callback(self)

    def cancel(self) -> None:
        """Want nothing of it any more."""
        with self._lock:
            self._unsent.clear()
            self._release(list(self._futures))
            self._ended.set()

    # ------------------------------------------------------------------- sending

    def _send(self) -> None:
        """Send all that need not wait for a node which has not enough."""
        ready: dict[Key, GraphNode] = {}
        for key in self._unsent:
            task = self._tasks[key]
            if isinstance(task, AnyK) and not self._decide(task):
                continue
            task = self._tasks[key]
            if all(i in ready or i not in self._unsent for i in task.dependencies):
                ready[key] = task
        for key in ready:
            del self._unsent[key]
        for lane in self._lanes(ready):
            self._send_lane(lane, ready)

    def _lanes(self, ready: Mapping[Key, GraphNode]) -> Iterable[tuple[list[Key], list[str]]]:
        """Divide tasks into those that may run anywhere and those of each seat."""
        seats: dict[Key, int] = {}
        allowed_workers: set[str] = set()
        for node in self._tasks.values():
            if isinstance(node, AnyK):
                seat_of = dict(zip(node.positions, node.seats, strict=True))
                seats |= {key: seat_of[p] for p, key in node.shares.items() if key in ready}
                allowed_workers |= node.allowed_workers
        workers = [worker for worker in self._workers if worker in allowed_workers] or self._workers
        lanes: dict[int | None, list[Key]] = {}
        for key in ready:
            lanes.setdefault(seats.get(key), []).append(key)
        for seat, keys in sorted(lanes.items(), key=lambda lane: (lane[0] is not None, lane[0])):
            if seat is None or not workers:
                yield keys, []
            else:
                yield keys, [workers[(seat - self._priority) % len(workers)]]

    def _send_lane(self, lane: tuple[list[Key], list[str]], ready: Mapping[Key, GraphNode]) -> None:
        keys, near = lane
        wanted = [key for key in keys if key == self.key or self._users[key] - set(keys)]
        where = {"workers": near, "allow_other_workers": True} if near else {}
        futures = self._client.get(
            {key: ready[key] for key in keys}, wanted, sync=False, priority=self._priority, **where
        )
        for key, future in zip(wanted, cast("list[Future[Any]]", futures), strict=True):
            self._futures[key] = future
        for key in wanted:
            if key in self._futures:
                self._futures[key].add_done_callback(
                    lambda future, key=key: self._arrived(key, future)
                )

    # ------------------------------------------------------------------ arriving

    def _arrived(self, key: Key, future: Future[Any]) -> None:
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
            self._let_go()

    def _decide(self, node: AnyK) -> bool:
        """Cut a node off from what is late, if it has enough; return whether it may run."""
        positions = {p for p, key in node.shares.items() if key in self._done}
        if not node.is_ready(positions):
            return False
        kept = used(node.own, positions)
        late = {key for p, key in node.shares.items() if p not in kept}
        if late:
            self._tasks[node.key] = node.without(late)
            for key in late:
                self._users[key].discard(node.key)
        return True

    def _let_go(self) -> None:
        """Release what nobody needs any more: shares that are late, and results that were used."""
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
    """Return who needs each task."""
    users: dict[Key, set[Key]] = {key: set() for key in tasks}
    for key, task in tasks.items():
        for other in task.dependencies:
            if other in users:
                users[other].add(key)
    return users


def _in_order(tasks: Mapping[Key, GraphNode]) -> list[Key]:
    """Return the keys so that everybody comes after what it needs."""
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
