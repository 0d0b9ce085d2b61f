"""Who decides in a simulated cluster: the any-k state machine, or what a user has instead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Protocol

from dask.typing import Key

from fcdcc.pipeline.anyk.state_machine import events as m
from fcdcc.pipeline.anyk.state_machine.backup_tasks import BackupTasks, Phase
from fcdcc.pipeline.anyk.state_machine.events import Event, Instruction

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
        if isinstance(event, m.Tick):
            return self._removed(event)
        return ()

    def _removed(self, tick: m.Tick) -> Iterator[Instruction]:
        for news in tick.workers:
            if tick.now - news.heartbeat > self._lifetime:
                yield m.RemoveWorker(news.worker, "worker-ttl")

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
        self._doubles = BackupTasks()

    @property
    def unsettled(self) -> bool:  # type: ignore[override] # there a constant, here not
        """Whether a copy is done, or not needed any more."""
        return self._doubles.unsettled

    def tracks(self, key: Key) -> bool:
        """Return that everything is of interest."""
        return True

    def handle(self, event: Event) -> Iterable[Instruction]:
        """Note what runs how long, and copy what is late."""
        if isinstance(event, m.Tick):
            return [*self._removed(event), *self._copies(event)]
        if isinstance(event, m.Settle):
            return list(self._doubles.settle())
        self._note(event)
        return ()

    def _note(self, event: Event) -> None:
        key = _subject(event)
        if key is None:
            return
        if isinstance(event, m.ShareStarted | m.TaskStarted):
            self._running[key] = event.worker, event.now
            self._doubles.note(key, Phase.STARTED)
            return
        _, since = self._running.pop(key, ("", None))
        done = isinstance(event, m.ShareDone | m.TaskDone)
        if done and since is not None and not self._doubles.knows(key):
            self._taken.append(event.now - since)
        waits = isinstance(event, m.ShareWaiting | m.TaskWaiting)
        phase = Phase.DONE if done else Phase.WAITING if waits else Phase.GONE
        self._doubles.note(key, phase)

    def _copies(self, tick: m.Tick) -> Iterator[Instruction]:
        if len(self._taken) < self._known:
            return
        limit = self._factor * median(self._taken)
        busy = {news.worker: news.busy for news in tick.workers}
        for key, (worker, since) in list(self._running.items()):
            if tick.now - since > limit and not self._doubles.knows(key):
                other = min((w for w in busy if w != worker), key=busy.__getitem__, default=None)
                if other is not None:
                    busy[other] += 1
                    yield self._doubles.begin(key, other)


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
        if isinstance(event, m.WorkerJoined):
            self._workers.append(event.worker)
        elif isinstance(event, m.WorkerLeft):
            self._workers.remove(event.worker)
        elif isinstance(event, m.GroupsAdded):
            return [answer for group in event.groups for answer in self._chosen(group)]
        elif isinstance(event, m.Settle):
            cuts, self._cuts = self._cuts, []
            return cuts
        return ()

    def _chosen(self, group: m.GroupSpec) -> Iterator[Instruction]:
        places = {}
        for share in group.shares:
            places[share.key] = self._workers[self._given % len(self._workers)]
            self._given += 1
        ordered = sorted(places, key=lambda key: self._seconds(key, places[key]))
        for key in ordered[: self._delta]:
            yield m.Place(key, places[key])
        for key in ordered[self._delta :]:
            yield m.Hold(key)
        for node in group.nodes:
            kept = {key for _, key in node.edges} & set(ordered[: self._delta])
            survivors = tuple(p for p, key in node.edges if key in kept)
            self._cuts.append(m.Cut(node.key, tuple(ordered[self._delta :]), survivors))


def _subject(event: Event) -> Key | None:
    """Return which share or single task an event is about."""
    shares = (m.ShareStarted, m.ShareDone, m.ShareWaiting, m.ShareReleased, m.ShareErred)
    if isinstance(event, shares):
        return event.share
    tasks = (m.TaskStarted, m.TaskDone, m.TaskWaiting, m.TaskGone, m.Forgotten)
    return event.key if isinstance(event, tasks) else None
