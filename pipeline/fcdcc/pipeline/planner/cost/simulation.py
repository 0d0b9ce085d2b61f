"""Simulates some blocks: the tasks of their graphs on workers that only have a speed.

The rules are those of a healthy cluster. A task starts when all that it needs is there, on
the worker of its seat, or else on one of those that have what it needs: the one that can begin
first by Dask's estimate. Earlier blocks come first. Workers share cores
(:attr:`~fcdcc.pipeline.plans.forecast.Speeds.parallel`): if more tasks and fetches run at once, all
of them are slower. Parity on standby does not start. A value is freed when the last task that needs
it is done.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dask._task_spec import GraphNode
from dask.typing import Key

from ...anyk import AnyK
from ...anyk.scheduler.groups import lane_seats
from ...plans.forecast import Speeds
from .task_costs import TaskCost

DASK_BANDWIDTH = 1e8
"""Bytes per second between workers that Dask assumes when it chooses a task's worker."""


@dataclass(frozen=True)
class _SimulatedTask:
    """A task of a block. Tasks have numbers in place of keys, in an order in which they can run."""

    seconds: float
    bytes: float
    workspace: float
    layer: int
    position: int
    seat: int | None
    needs: tuple[int, ...]
    alias: int | None
    """The task whose result is the same memory: a part is its own share."""


@dataclass(frozen=True)
class BlockTasks:
    """The tasks of a block, the numbers of those that read each, and the number of the last."""

    tasks: tuple[_SimulatedTask, ...]
    readers: tuple[tuple[int, ...], ...]
    last: int


@dataclass
class SimulatedRun:
    """Result of a simulated run.

    Parameters
    ----------
    ends
        Seconds after which each block was done, ascending.
    bytes_sent
        Bytes that went from one worker to another, by layer of the task that needed them.
    peak_bytes
        The most bytes that any worker had at once.
    """

    ends: list[float] = field(default_factory=list)
    bytes_sent: Counter[int] = field(default_factory=Counter)
    peak_bytes: float = 0.0


def block_tasks(
    tasks: Mapping[Key, GraphNode],
    costs: Mapping[Key, TaskCost],
    last: Key,
    speeds: Speeds,
    itemsize: int,
) -> BlockTasks:
    """Return the tasks of a block that run where nothing is lost."""
    standby, seats, alias = set[Key](), dict[Key, int](), dict[Key, Key]()
    needed: dict[Key, tuple[Key, ...]] = {}
    for key in costs:
        node = tasks[key]
        needed[key] = tuple(need for need in node.dependencies if need in costs)
        if isinstance(node, AnyK):
            seats |= {node.shares[p]: s for p, s in zip(node.positions, node.seats, strict=True)}
            standby |= {node.shares[position] for position in node.standby}
            awaited = _positions_awaited(node)
            if node.own is not None:
                alias[key] = node.shares[node.own]
            others = set(node.shares.values()) - {node.shares[position] for position in awaited}
            needed[key] = tuple(need for need in needed[key] if need not in others)
    keys = [key for key in costs if key not in standby]
    seats |= lane_seats(tasks)
    number = {key: index for index, key in enumerate(keys)}
    readers: list[list[int]] = [[] for _ in keys]
    made = []
    for key in keys:
        cost, needs = costs[key], tuple(number[need] for need in needed[key] if need in number)
        for need in needs:
            readers[need].append(number[key])
        layer, position = _layer_and_position(key)
        seconds = speeds.seconds(cost.work, itemsize)
        made.append(
            _SimulatedTask(
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


def _layer_and_position(key: Key) -> tuple[int, int]:
    """Return the layer and the position that stand in a key."""
    match key:
        case (_, int(layer), _, int(position)):
            return layer, position
    return 0, 0


def _positions_awaited(node: AnyK) -> Collection[int]:
    """Return the positions that a node waits for if nothing is lost."""
    if node.own is not None:
        return (node.own,)
    there = [position for position in node.positions if position not in node.standby]
    return next(
        (there[:count] for count in range(1, len(there)) if node.is_ready(there[:count])), there
    )


def simulate(
    blocks: Sequence[BlockTasks], in_flight: int, workers: int, slots: int, speeds: Speeds
) -> SimulatedRun:
    """Return the result of simulating blocks on a cluster.

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
    run = _SimulatedCluster(blocks, workers, slots, speeds)
    run.go(in_flight)
    return run.result


class _SimulatedCluster:
    """Simulated workers. Tasks are numbered block by block, in the order that each block has."""

    def __init__(
        self, blocks: Sequence[BlockTasks], workers: int, slots: int, speeds: Speeds
    ) -> None:
        self.result = SimulatedRun()
        self._blocks = blocks
        self._speeds = speeds
        self._slots = [slots] * workers
        self._all_slots = slots
        self._running = 0
        self._ready: list[list[int]] = [[] for _ in range(workers)]
        self._arriving: list[tuple[float, int, int, float]] = []
        self._computing: list[tuple[float, int, int, bool]] = []
        # By the number of a task: what it is, its block and that block's first task, how many
        # of its needs are missing, how many tasks must still read its result, and which workers
        # have that.
        self._tasks: list[_SimulatedTask] = []
        self._block: list[int] = []
        self._first: list[int] = []
        self._missing: list[int] = []
        self._unread: list[int] = []
        self._workers_of: list[list[int]] = []
        self._memory = [0.0] * workers
        self._load = [0.0] * workers
        # While p tasks compute at once, each does min(1, parallel / p) seconds of work per second.
        self._now = self._worked = 0.0

    def go(self, in_flight: int) -> None:
        """Run all blocks."""
        begun = 0
        while len(self.result.ends) < len(self._blocks):
            while begun < len(self._blocks) and begun - len(self.result.ends) < in_flight:
                self._begin(begun)
                begun += 1
            self._step()

    def _begin(self, block: int) -> None:
        first, tasks = len(self._tasks), self._blocks[block].tasks
        self._tasks += tasks
        self._block += [block] * len(tasks)
        self._first += [first] * len(tasks)
        self._missing += [len(task.needs) for task in tasks]
        self._unread += [0] * len(tasks)
        self._workers_of += [[] for _ in tasks]
        for number, task in enumerate(tasks, first):
            if not task.needs:
                self._send(number)

    def _step(self) -> None:
        """Advance to the time of the next event: the end of a computation, a fetch or a hop."""
        pace = min(1.0, self._speeds.parallel / self._running) if self._running else 1.0
        done = (
            self._now + (self._computing[0][0] - self._worked) / pace if self._computing else None
        )
        if self._arriving and (done is None or self._arriving[0][0] <= done):
            moment, number, worker, fetching = heapq.heappop(self._arriving)
            self._advance(moment, pace)
            if fetching:
                self._compute(number, worker, fetching, fetches=True)
            else:
                self._arrive(number, worker)
        elif done is not None:
            _, number, worker, fetches = heapq.heappop(self._computing)
            self._advance(done, pace)
            self._running -= 1
            if fetches:
                self._arrive(number, worker)
            else:
                self._finish(number, worker)

    def _advance(self, moment: float, pace: float) -> None:
        self._worked += (moment - self._now) * pace
        self._now = moment

    def _root(self, number: int) -> int:
        """Return the task whose memory a result is."""
        alias = self._tasks[number].alias
        return number if alias is None else self._first[number] + alias

    def _send(self, number: int) -> None:
        """Assign a task to a worker, and fetch what it needs."""
        task, first = self._tasks[number], self._first[number]
        needs = {self._root(first + need) for need in task.needs}
        worker = self._worker_for(number, task, needs)
        self._load[worker] += task.seconds
        missing = [need for need in needs if worker not in self._workers_of[need]]
        if not missing:
            heapq.heappush(self._arriving, (self._now, number, worker, 0.0))
            return
        total = 0.0
        for need in missing:
            size = self._tasks[need].bytes
            total += size
            self._workers_of[need].append(worker)
            self._add_memory(worker, size)
        self.result.bytes_sent[task.layer] += int(total)
        there = self._now + self._speeds.travelling(total)
        fetching = self._speeds.fetching(len(missing), total)
        heapq.heappush(self._arriving, (there, number, worker, fetching))

    def _worker_for(self, number: int, task: _SimulatedTask, needs: set[int]) -> int:
        workers, block = len(self._slots), self._block[number]
        if task.seat is not None:
            return (task.seat + block) % workers
        if not needs:
            return (task.position + block) % workers
        there: dict[int, float] = {}
        total = 0.0
        for need in needs:
            size = self._tasks[need].bytes
            total += size
            for worker in self._workers_of[need]:
                there[worker] = there.get(worker, 0.0) + size
        if len(there) == 1:
            return next(iter(there))

        def begins(worker: int) -> tuple[float, float, int]:
            missing = (total - there[worker]) / DASK_BANDWIDTH
            return self._load[worker] / self._all_slots + missing, -there[worker], worker

        return min(there, key=begins)

    def _arrive(self, number: int, worker: int) -> None:
        heapq.heappush(self._ready[worker], number)
        self._start(worker)

    def _start(self, worker: int) -> None:
        while self._slots[worker] and self._ready[worker]:
            number = heapq.heappop(self._ready[worker])
            task = self._tasks[number]
            self._slots[worker] -= 1
            self._add_memory(worker, task.workspace)
            self._compute(number, worker, task.seconds, fetches=False)

    def _compute(self, number: int, worker: int, seconds: float, *, fetches: bool) -> None:
        """Occupy a core for ``seconds``, or for longer if more tasks run than there are cores."""
        self._running += 1
        heapq.heappush(self._computing, (self._worked + seconds, number, worker, fetches))

    def _finish(self, number: int, worker: int) -> None:
        task, first = self._tasks[number], self._first[number]
        tasks = self._blocks[self._block[number]]
        index = number - first
        self._slots[worker] += 1
        self._load[worker] -= task.seconds
        self._memory[worker] -= task.workspace
        readers = len(tasks.readers[index]) + (index == tasks.last)
        if task.alias is None:
            self._workers_of[number] = [worker]
            self._unread[number] = readers + 1
            self._add_memory(worker, task.bytes)
            self._release(number)  # freed at once if no task needs it
        else:  # its readers keep the other task's memory
            self._unread[first + task.alias] += readers
        for need in task.needs:
            self._release(self._root(first + need))
        for reader in tasks.readers[index]:
            self._missing[first + reader] -= 1
            if not self._missing[first + reader]:
                self._send(first + reader)
        if index == tasks.last:
            self._release(self._root(number))
            self.result.ends.append(self._now)
        self._start(worker)

    def _add_memory(self, worker: int, size: float) -> None:
        self._memory[worker] += size
        self.result.peak_bytes = max(self.result.peak_bytes, self._memory[worker])

    def _release(self, number: int) -> None:
        self._unread[number] -= 1
        if not self._unread[number]:
            for worker in self._workers_of[number]:
                self._memory[worker] -= self._tasks[number].bytes
            self._workers_of[number] = []
