"""Who decides in a simulated cluster: the any-k state machine, or what a user has instead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Protocol

from dask.typing import Key

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.events import Event, Instruction
from fcdcc.pipeline.anyk.state_machine.speculation import BackupTasks

__all__ = ["Nothing", "Oracle", "Policy", "TaskSpeculation"]


class Policy(Protocol):
    """Decides: events in, instructions out, as the any-k state machine does."""

    @property
    def unsettled(self) -> bool:
        """Whether :class:`.messages.Settle` may have an answer."""
        ...

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Take note of an event and return what to do."""
        ...

    def tracks(self, key: Key) -> bool:
        """Return whether it wants to know what becomes of a task that is no share or node."""
        ...


class Nothing:
    """Dask as it is: whoever needs a result waits for it; a silent worker goes after 5 minutes."""

    unsettled = False

    def __init__(self, lifetime: float = 300.0) -> None:
        self._lifetime = lifetime

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Remove who has been silent for too long, and nothing else."""
        if isinstance(event, events.Tick):
            return self._removed(event)
        return ()

    def _removed(self, tick: events.Tick) -> Iterator[Instruction]:
        for news in tick.workers:
            if tick.now - news.heartbeat > self._lifetime:
                yield events.RemoveWorker(news.worker, "worker-ttl")

    def tracks(self, key: Key) -> bool:
        """Return that nothing is of interest."""
        return False


class TaskSpeculation(Nothing):
    """Copies of what takes longer than ``factor`` times the median, as map-reduce does it."""

    def __init__(self, factor: float = 3.0, known: int = 5, lifetime: float = 300.0) -> None:
        super().__init__(lifetime)
        self._factor, self._known = factor, known
        self._running: dict[Key, tuple[str, float]] = {}
        self._taken: deque[float] = deque(maxlen=200)
        self._backup_tasks = BackupTasks()

    @property
    def unsettled(self) -> bool:  # type: ignore[override] # there a constant, here not
        """Whether a copy is done, or not needed any more."""
        return self._backup_tasks.unsettled

    def tracks(self, key: Key) -> bool:
        """Return that everything is of interest."""
        return True

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Note what runs how long, and copy what is late."""
        if isinstance(event, events.Tick):
            return [*self._removed(event), *self._copies(event)]
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

    def _copies(self, tick: events.Tick) -> Iterator[Instruction]:
        if len(self._taken) < self._known:
            return
        limit = self._factor * median(self._taken)
        busy = {news.worker: news.processing for news in tick.workers}
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
        Says how long a share will take a worker, from now.
    """

    def __init__(self, seconds: Callable[[Key, str], float], delta: int) -> None:
        self._seconds, self._delta = seconds, delta
        self._workers: list[str] = []
        self._cuts: list[Instruction] = []
        self._given = 0

    @property
    def unsettled(self) -> bool:
        """Whether shares are to be given up."""
        return bool(self._cuts)

    def tracks(self, key: Key) -> bool:
        """Return that nothing is of interest."""
        return False

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Place the shares, and hold all but the fastest."""
        if isinstance(event, events.WorkerJoined):
            self._workers.append(event.worker)
        elif isinstance(event, events.WorkerLeft):
            self._workers.remove(event.worker)
        elif isinstance(event, events.GroupsAdded):
            return [answer for group in event.groups for answer in self._chosen(group)]
        elif isinstance(event, events.Settle):
            cuts, self._cuts = self._cuts, []
            return cuts
        return ()

    def _chosen(self, group: events.GroupSpec) -> Iterator[Instruction]:
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
            self._cuts.append(
                events.DisconnectNode(node.key, tuple(ordered[self._delta :]), survivors)
            )
