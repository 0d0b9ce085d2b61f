"""What decides in a simulated cluster: the any-k state machine, or an alternative to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Protocol

from dask.typing import Key

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.events import Event, Instruction
from fcdcc.pipeline.anyk.state_machine.speculation import BackupTasks


class Policy(Protocol):
    """Takes events and returns instructions, as the any-k state machine does."""

    @property
    def unsettled(self) -> bool:
        """Whether the answer to ``Settle`` may be an instruction."""
        ...

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Take note of an event and return what to do."""
        ...

    def tracks(self, key: Key) -> bool:
        """Return whether changes of a task that is no share or node are to be reported."""
        ...


class Nothing:
    """Plain Dask: all results are waited for, and a silent worker is removed after 5 minutes."""

    unsettled = False

    def __init__(self, lifetime: float = 300.0) -> None:
        self._lifetime = lifetime

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Remove workers that have been silent for too long, and do nothing else."""
        if isinstance(event, events.Tick):
            return self._removed(event)
        return ()

    def _removed(self, tick: events.Tick) -> Iterator[Instruction]:
        for worker in tick.workers:
            if tick.now - worker.heartbeat > self._lifetime:
                yield events.RemoveWorker(worker.worker, "worker-ttl")

    def tracks(self, key: Key) -> bool:
        """Return false."""
        return False


class TaskSpeculation(Nothing):
    """Backup tasks of what takes longer than ``factor`` times the median, as in MapReduce."""

    def __init__(self, factor: float = 3.0, known: int = 5, lifetime: float = 300.0) -> None:
        super().__init__(lifetime)
        self._factor, self._known = factor, known
        self._running: dict[Key, tuple[str, float]] = {}
        self._taken: deque[float] = deque(maxlen=200)
        self._backup_tasks = BackupTasks()

    @property
    def unsettled(self) -> bool:  # type: ignore[override] # a constant there
        """Whether a backup task is done, or not needed any more."""
        return self._backup_tasks.unsettled

    def tracks(self, key: Key) -> bool:
        """Return true."""
        return True

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Note how long tasks run, and start backups of late ones."""
        if isinstance(event, events.Tick):
            return [*self._removed(event), *self._start_backups(event)]
        if isinstance(event, events.Settle):
            return list(self._backup_tasks.settle())
        self._note(event)
        return ()

    def _note(self, event: Event) -> None:
        state: events.TaskStatus = "released"
        if isinstance(event, events.TaskChanged) and event.kind != "node":
            state = event.state
        elif not isinstance(event, events.Forgotten):
            return
        if isinstance(event, events.TaskChanged) and state == "started":
            self._running[event.key] = event.worker, event.now
        else:
            _, since = self._running.pop(event.key, ("", None))
            if state == "done" and since is not None and not self._backup_tasks.knows(event.key):
                self._taken.append(event.now - since)
        self._backup_tasks.note(event.key, state)

    def _start_backups(self, tick: events.Tick) -> Iterator[Instruction]:
        if len(self._taken) < self._known:
            return
        limit = self._factor * median(self._taken)
        busy = {worker.worker: worker.processing for worker in tick.workers}
        for key, (worker, since) in list(self._running.items()):
            if tick.now - since > limit and not self._backup_tasks.knows(key):
                other = min((w for w in busy if w != worker), key=busy.__getitem__, default=None)
                if other is not None:
                    busy[other] += 1
                    yield self._backup_tasks.start(key, other)


class Oracle:
    """Knows beforehand which shares of a group will be the fastest, and starts no others.

    Parameters
    ----------
    seconds
        Says how many seconds a share will take a worker.
    delta
        How many shares of a group are started.
    """

    def __init__(self, seconds: Callable[[Key, str], float], delta: int) -> None:
        self._seconds, self._delta = seconds, delta
        self._workers: list[str] = []
        self._disconnections: list[Instruction] = []
        self._given = 0

    @property
    def unsettled(self) -> bool:
        """Whether nodes are to be disconnected from shares."""
        return bool(self._disconnections)

    def tracks(self, key: Key) -> bool:
        """Return false."""
        return False

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Place the fastest shares, and hold the others."""
        if isinstance(event, events.WorkerJoined):
            self._workers.append(event.worker)
        elif isinstance(event, events.WorkerLeft):
            self._workers.remove(event.worker)
        elif isinstance(event, events.GroupsAdded):
            return [item for group in event.groups for item in self._place(group)]
        elif isinstance(event, events.Settle):
            disconnections, self._disconnections = self._disconnections, []
            return disconnections
        return ()

    def _place(self, group: events.GroupSpec) -> Iterator[Instruction]:
        places = {}
        for share in group.shares:
            places[share.key] = self._workers[self._given % len(self._workers)]
            self._given += 1
        ordered = sorted(places, key=lambda key: self._seconds(key, places[key]))
        for key in ordered[: self._delta]:
            yield events.PlaceShare(key, places[key])
        for key in ordered[self._delta :]:
            yield events.HoldShare(key)
        for node in group.nodes:
            kept = {key for _, key in node.edges} & set(ordered[: self._delta])
            survivors = tuple(p for p, key in node.edges if key in kept)
            self._disconnections.append(
                events.DisconnectNode(node.key, tuple(ordered[self._delta :]), survivors)
            )
