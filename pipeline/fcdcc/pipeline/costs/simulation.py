"""Some blocks on paper: the tasks of their graphs on workers that have nothing but a speed.

The rules are those of a healthy cluster. A task starts when all that it needs is there, on
the worker of its seat, or else where most of what it needs lies; earlier blocks come first.
Workers share cores (:attr:`.speeds.Speeds.parallel`): where more tasks run at once, all of
them are slower. Parity on standby does not start. A value is let go when the last task that
needs it is done.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dask._task_spec import GraphNode
from dask.typing import Key

from ..anyk import AnyK
from .speeds import Speeds
from .tasks import TaskCost

__all__ = ["BlockTasks", "Outcome", "block_tasks", "simulate"]


@dataclass(frozen=True)
class _Task:
    """A task of every block. Numbers in place of keys: the order in which they can run."""

    seconds: float
    bytes: float
    workspace: float
    layer: int
    position: int
    seat: int | None
    needs: tuple[int, ...]
    alias: int | None
    """The task whose memory its result is: a part is its own share."""


@dataclass(frozen=True)
class BlockTasks:
    """The tasks of a block, and who needs them."""

    tasks: tuple[_Task, ...]
    readers: tuple[tuple[int, ...], ...]
    last: int


@dataclass
class Outcome:
    """What came of it.

    Parameters
    ----------
    ends
        Seconds after which each block was done, ascending.
    sent
        Bytes that went from one worker to another, by the layer of the task that needed them.
    peak
        The most bytes that a worker had at a time.
    """

    ends: list[float] = field(default_factory=list)
    sent: Counter[int] = field(default_factory=Counter)
    peak: float = 0.0


def block_tasks(
    tasks: Mapping[Key, GraphNode],
    costs: Mapping[Key, TaskCost],
    last: Key,
    speeds: Speeds,
    itemsize: int,
) -> BlockTasks:
    """Return the tasks of a block that run where nothing is lost."""
    standby, seats, alias = set[Key](), dict[Key, int](), dict[Key, Key]()
    wants: dict[Key, tuple[Key, ...]] = {}
    for key in costs:
        node = tasks[key]
        wants[key] = tuple(need for need in node.dependencies if need in costs)
        if isinstance(node, AnyK):
            seats |= {node.shares[p]: s for p, s in zip(node.positions, node.seats, strict=True)}
            standby |= {node.shares[position] for position in node.standby}
            first = _first(node)
            if node.own is not None:
                alias[key] = node.shares[node.own]
            others = set(node.shares.values()) - {node.shares[position] for position in first}
            wants[key] = tuple(need for need in wants[key] if need not in others)
    keys = [key for key in costs if key not in standby]
    number = {key: index for index, key in enumerate(keys)}
    readers: list[list[int]] = [[] for _ in keys]
    made = []
    for key in keys:
        cost, needs = costs[key], tuple(number[need] for need in wants[key] if need in number)
        for need in needs:
            readers[need].append(number[key])
        layer, position = _place(key)
        work = cost.work
        seconds = speeds.seconds(work.multiply_adds, work.touched + work.fixed, itemsize)
        made.append(
            _Task(
                seconds + speeds.task,
                cost.bytes,
                cost.workspace,
                layer,
                position,
                seats.get(key, seats.get(alias[key]) if key in alias else None),
                needs,
                number[alias[key]] if key in alias else None,
            )
        )
    return BlockTasks(tuple(made), tuple(map(tuple, readers)), number[last])


def _place(key: Key) -> tuple[int, int]:
    """Return the layer and the position that stand in a key."""
    match key:
        case (_, int(layer), _, int(position)):
            return layer, position
    return 0, 0


def _first(node: AnyK) -> Collection[int]:
    """Return the positions that a node waits for where nothing is lost."""
    if node.own is not None:
        return (node.own,)
    there = [position for position in node.positions if position not in node.standby]
    return next(
        (there[:count] for count in range(1, len(there)) if node.is_ready(there[:count])), there
    )


def simulate(
    blocks: Sequence[BlockTasks], in_flight: int, workers: int, slots: int, speeds: Speeds
) -> Outcome:
    """Take blocks through a cluster, so many at a time.

    Parameters
    ----------
    blocks
        The tasks of each.
    in_flight
        Blocks that are worked on at a time.
    workers, slots
        Workers, and tasks at a time of each.
    speeds
        The constants.
    """
    run = _Run(blocks, workers, slots, speeds)
    run.go(in_flight)
    return run.outcome


_Id = tuple[int, int]
"""A task: its block, and its number there."""


class _Run:
    def __init__(
        self, blocks: Sequence[BlockTasks], workers: int, slots: int, speeds: Speeds
    ) -> None:
        self.outcome = Outcome()
        self._blocks = blocks
        self._speeds = speeds
        self._slots = [slots] * workers
        self._running = 0
        self._ready: list[list[_Id]] = [[] for _ in range(workers)]
        self._coming: list[tuple[float, _Id, int]] = []
        self._computing: list[tuple[float, _Id, int]] = []
        self._missing: dict[_Id, int] = {}
        self._unread: dict[_Id, int] = {}
        self._holders: dict[_Id, list[int]] = {}
        self._memory = [0.0] * workers
        # With p tasks computing at once the clock of their work goes at min(1, parallel / p).
        self._now = self._worked = 0.0

    def go(self, in_flight: int) -> None:
        begun = 0
        while len(self.outcome.ends) < len(self._blocks):
            while begun < len(self._blocks) and begun - len(self.outcome.ends) < in_flight:
                self._begin(begun)
                begun += 1
            self._step()

    def _begin(self, block: int) -> None:
        for index, task in enumerate(self._blocks[block].tasks):
            self._missing[block, index] = len(task.needs)
            if not task.needs:
                self._send((block, index))

    def _step(self) -> None:
        """Go to the next moment at which something happens."""
        pace = min(1.0, self._speeds.parallel / self._running) if self._running else 1.0
        done = (
            self._now + (self._computing[0][0] - self._worked) / pace if self._computing else None
        )
        if self._coming and (done is None or self._coming[0][0] <= done):
            moment, task, worker = heapq.heappop(self._coming)
            self._advance(moment, pace)
            heapq.heappush(self._ready[worker], task)
            self._start(worker)
        elif done is not None:
            _, task, worker = heapq.heappop(self._computing)
            self._advance(done, pace)
            self._finish(task, worker)

    def _advance(self, moment: float, pace: float) -> None:
        self._worked += (moment - self._now) * pace
        self._now = moment

    def _task(self, task: _Id) -> _Task:
        return self._blocks[task[0]].tasks[task[1]]

    def _root(self, task: _Id) -> _Id:
        """Return the task whose memory a result is."""
        alias = self._task(task).alias
        return task if alias is None else (task[0], alias)

    def _send(self, task: _Id) -> None:
        """Give a task to a worker, and what it needs, too."""
        block, _ = task
        plan = self._task(task)
        needs = {self._root((block, need)) for need in plan.needs}
        worker = self._chosen(task, plan, needs)
        delay = 0.0
        for need in needs:
            if worker not in self._holders[need]:
                size = self._task(need).bytes
                delay = max(delay, self._speeds.hop + size / self._speeds.link)
                self.outcome.sent[plan.layer] += int(size)
                self._holders[need].append(worker)
                self._hold(worker, size)
        heapq.heappush(self._coming, (self._now + delay, task, worker))

    def _chosen(self, task: _Id, plan: _Task, needs: set[_Id]) -> int:
        workers = len(self._slots)
        if plan.seat is not None:
            return (plan.seat + task[0]) % workers
        if not needs:
            return (plan.position + task[0]) % workers
        there: Counter[int] = Counter()
        for need in needs:
            for holder in self._holders[need]:
                there[holder] += int(self._task(need).bytes) + 1
        return max(there, key=lambda worker: (there[worker], -worker))

    def _start(self, worker: int) -> None:
        while self._slots[worker] and self._ready[worker]:
            task = heapq.heappop(self._ready[worker])
            plan = self._task(task)
            self._slots[worker] -= 1
            self._running += 1
            self._hold(worker, plan.workspace)
            heapq.heappush(self._computing, (self._worked + plan.seconds, task, worker))

    def _finish(self, task: _Id, worker: int) -> None:
        block, index = task
        plan, tasks = self._task(task), self._blocks[block]
        self._slots[worker] += 1
        self._running -= 1
        self._memory[worker] -= plan.workspace
        readers = len(tasks.readers[index]) + (index == tasks.last)
        if plan.alias is None:
            self._holders[task] = [worker]
            self._unread[task] = readers + 1
            self._hold(worker, plan.bytes)
            self._let_go(task)  # nobody may need it
        else:  # its readers keep the memory of the other
            self._unread[block, plan.alias] += readers
        for need in plan.needs:
            self._let_go(self._root((block, need)))
        for reader in tasks.readers[index]:
            self._missing[block, reader] -= 1
            if not self._missing[block, reader]:
                self._send((block, reader))
        if index == tasks.last:
            self._let_go(self._root(task))
            self.outcome.ends.append(self._now)
        self._start(worker)

    def _hold(self, worker: int, size: float) -> None:
        self._memory[worker] += size
        self.outcome.peak = max(self.outcome.peak, self._memory[worker])

    def _let_go(self, value: _Id) -> None:
        self._unread[value] -= 1
        if not self._unread[value]:
            for worker in self._holders.pop(value):
                self._memory[worker] -= self._task(value).bytes
