"""A simulated scheduler and its workers: Dask, as far as the any-k state machine can tell.

The events of a run are those that :mod:`..scheduler_plugin` would tell, in the same order, and
the instructions are carried out as :mod:`..edits` would. What takes time is a task on its
worker, the *hop* before it (messages, inputs that come from elsewhere) and the way back. A
worker's thread does one task at a time, earlier blocks first. A share that was given up keeps
its thread until it asks the next time whether it is wanted. A stopped worker keeps what it
holds: who needs that waits until the worker is removed; then it is made again.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from dask.typing import Key

from fcdcc.pipeline.anyk.state_machine import events
from simulation.graphs import SimulatedBlock
from simulation.outcome import Outcome
from simulation.policies import Policy
from simulation.tasks import Open, State, Task, Worker
from simulation.traces import Steady, Times

__all__ = ["SimulatedCluster"]


class SimulatedCluster:
    """Workers, and a scheduler that asks ``policy`` what to do.

    Parameters
    ----------
    policy
        Usually an :class:`fcdcc.pipeline.anyk.state.AnyKState`.
    times
        How much longer than nominal a task takes on a worker.
    hop
        Seconds between the assignment of a task and its start, when its worker is free.
    answer
        Seconds between the end of a task and when the scheduler knows.
    ask
        Seconds between two times that a share asks whether it is still wanted.
    tick, heartbeat
        Seconds between two looks at the clock, and two heartbeats of a worker.
    solving
        How many seconds more a node takes a worker when it has to solve for what is not there.
    """

    def __init__(
        self,
        policy: Policy,
        times: Times | None = None,
        hop: float = 0.0,
        answer: float = 0.0,
        ask: float = 0.05,
        tick: float = 0.25,
        heartbeat: float = 0.5,
        solving: Times | None = None,
    ) -> None:
        self.policy = policy
        self.now = 0.0
        self.workers: dict[str, Worker] = {}
        self.tasks: dict[Key, Task] = {}
        self.outcome = Outcome()
        self.on_block: Callable[[int], None] | None = None
        self._times = times or Steady()
        self._solving = solving
        self._hop, self._answer, self._ask = hop, answer, ask
        self._tick, self._heartbeat = tick, heartbeat
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._groups: dict[Key, Open] = {}
        self._begun: dict[Key, tuple[SimulatedBlock, float]] = {}
        self._upcoming: Iterator[SimulatedBlock] = iter(())
        self._orphans: dict[Key, None] = {}
        self._coming = 0

    # ----------------------------------------------------------------- running

    def join(self, address: str, host: str | None = None) -> None:
        """Let a worker join now."""
        self.workers[address] = Worker(address, host or address)
        self._tell(events.WorkerJoined(self.now, address, host or address, 1))
        for key in list(self._orphans):
            del self._orphans[key]
            if key in self.tasks:
                self._assign(self.tasks[key])

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        """Do something at a time."""
        heapq.heappush(self._agenda, (when, next(self._numbers), action, args))

    def run(
        self,
        blocks: Iterable[SimulatedBlock],
        in_flight: int,
        limit: float = float("inf"),
        between: float = 0.0,
    ) -> Outcome:
        """Run so many at a time, the first ``between`` seconds apart, to the end or ``limit``."""
        self._upcoming = iter(blocks)
        begin = self.now
        for number, block in enumerate(itertools.islice(self._upcoming, in_flight)):
            self._coming += 1
            if between:
                self.at(begin + number * between, self._submit, block)
            else:
                self._submit(block)
        self._flush()
        self.at(self.now + self._tick, self._look)
        while (self._begun or self._coming) and self._agenda and self._agenda[0][0] <= limit:
            self.now, _, action, args = heapq.heappop(self._agenda)
            action(*args)
            self._flush()
        self._agenda = [entry for entry in self._agenda if entry[2] != self._look]
        heapq.heapify(self._agenda)
        self.outcome.seconds = self.now - begin
        return self.outcome

    @property
    def unfinished(self) -> int:
        """Number of blocks that were begun and are not finished."""
        return len(self._begun)

    # ---------------------------------------------------------- telling, deciding

    def _tell(self, event: events.Event) -> None:
        """Tell what happened; only places and holds may be answered in the middle of it."""
        for instruction in self._handle(event):
            self._follow(instruction)

    def _handle(self, event: events.Event) -> Iterable[events.Instruction]:
        start = perf_counter()
        answer = self.policy.handle(event)
        taken = perf_counter() - start
        if isinstance(event, events.Tick):
            self.outcome.ticks += 1
            self.outcome.tick_seconds += taken
        else:
            self.outcome.events += 1
            self.outcome.event_seconds += taken
        return answer

    def _flush(self) -> None:
        """Let the state machine settle, as often as that has consequences."""
        while self.policy.unsettled:
            for instruction in list(self._handle(events.Settle(self.now))):
                self._follow(instruction)

    def _look(self) -> None:
        news = tuple(self._news(worker) for worker in self.workers.values())
        for instruction in list(
            self._handle(events.Tick(self.now, self._tick, self._heartbeat, news))
        ):
            self._follow(instruction)
        self.at(self.now + self._tick, self._look)

    def _news(self, worker: Worker) -> events.WorkerObservation:
        alive = self.now if worker.stopped is None else worker.stopped
        heartbeat = alive - alive % self._heartbeat
        needed = bool(worker.processing or worker.holds)
        busy = len(worker.processing)
        return events.WorkerObservation(
            worker.address, heartbeat, 0.0, int(worker.ghost), needed, busy
        )

    def _follow(self, instruction: events.Instruction) -> None:
        if isinstance(instruction, events.PlaceShare):
            task = self.tasks.get(instruction.share)
            while task is not None and task.state in (State.RELEASED, State.WAITING):
                task.place = instruction.worker
                task = next((t for t in self._inputs(task) if self._serves(t)), None)
        elif isinstance(instruction, events.HoldShare):
            self.tasks[instruction.share].held = True
        elif isinstance(instruction, events.StartShare):
            task = self.tasks[instruction.share]
            task.held, task.place = False, instruction.worker
            if task.state is State.WAITING and not task.missing:
                self._assign(task)
        elif isinstance(instruction, events.DisconnectNode):
            self._cut(self.tasks[instruction.node], instruction)
        elif isinstance(instruction, events.RemoveWorker):
            self.lose(instruction.worker)
        elif isinstance(instruction, events.StartBackup):
            self._double(self.tasks[instruction.task], instruction.backup, instruction.worker)
        elif isinstance(instruction, events.UseBackup):
            self._adopt(self.tasks[instruction.task], self.tasks[instruction.backup])
        elif isinstance(instruction, events.CancelBackup) and instruction.backup in self.tasks:
            self._forget(self.tasks[instruction.backup])

    def _inputs(self, task: Task) -> Iterator[Task]:
        return (self.tasks[key] for key in task.inputs)

    def _serves(self, task: Task) -> bool:
        """Return whether a task only prepares the images of one share, and goes along with it."""
        users = [key for key in task.dependents if not str(key[0]).startswith("parity")]  # type: ignore[index] # a tuple: a real block's key
        return task.kind == "task" and not task.inputs and len(users) == 1

    # -------------------------------------------------------------------- graphs

    def _submit(self, block: SimulatedBlock) -> None:
        self._coming -= 1
        self._begun[block.last] = block, self.now
        self.outcome.useful += block.useful
        nodes = {node.key for group in block.groups for node in group.nodes}
        shares = {share.key for group in block.groups for share in group.shares}
        fresh = []
        for number, (key, given) in enumerate(block.tasks.items()):
            kind: events.TaskKind = "task"
            if key in nodes:
                kind = "node"
            elif key in shares:
                kind = "share"
            last = 2 * len(block.tasks) if kind == "share" else 0  # shares come last
            task = Task(
                key, kind, block.number, given.seconds, (block.number, last + number),
                dict.fromkeys(given.inputs),
            )  # fmt: skip
            self.tasks[key] = task
            fresh.append(task)
        for task in fresh:
            for key in task.inputs:
                self.tasks[key].dependents[task.key] = None
        for node in (node for group in block.groups for node in group.nodes):
            plain = node.plain if node.own is None else frozenset((node.own,))
            self.tasks[node.key].plain = plain
        for group in block.groups:
            record = Open({node.key for node in group.nodes})
            for key in itertools.chain(
                (share.key for share in group.shares), (node.key for node in group.nodes)
            ):
                self._groups[key] = record
        self._tell(events.GroupsAdded(self.now, block.groups))
        self.tasks[block.last].wanted = True
        for task in fresh:
            self._wait(task)
        for task in fresh:
            if task.state is State.WAITING and not task.missing and not task.held:
                self._assign(task)

    def _wait(self, task: Task) -> None:
        """Let a task wait for its inputs."""
        task.state, task.worker = State.WAITING, None
        task.missing = {
            key: None for key in task.inputs if self.tasks[key].state is not State.MEMORY
        }
        self._notify(task, "waiting")

    def _notify(
        self, task: Task, state: events.TaskStatus, worker: str = "", start: float = 0.0
    ) -> None:
        """Report what became of a task, if the policy wants to know it."""
        if task.kind != "task" or state == "started" or self.policy.tracks(task.key):
            stop = self.now if state == "done" else 0.0
            self._tell(
                events.TaskChanged(self.now, task.key, task.kind, state, worker, start, stop)
            )

    # ------------------------------------------------------------------- working

    def _assign(self, task: Task) -> None:
        """Choose a worker for a task whose inputs are there, and send it."""
        worker = self._choose(task)
        if worker is None:
            self._orphans[task.key] = None
            return
        task.state, task.worker = State.PROCESSING, worker.address
        task.attempt += 1
        worker.processing[task.key] = None
        group = self._groups.get(task.key)
        if group is not None and group.start is None:
            group.start = self.now
        self._notify(task, "started", worker.address)
        self.at(self.now + self._hop, self._arrive, task, task.attempt)

    def _choose(self, task: Task) -> Worker | None:
        placed = self.workers.get(task.place or "")
        if placed is not None and not placed.leaving:
            return placed
        holders = {other.worker for other in self._inputs(task)}
        near = [self.workers[address] for address in holders if address in self.workers]
        fit = [worker for worker in near if not worker.leaving] or [
            worker for worker in self.workers.values() if not worker.leaving
        ]
        return min(fit, key=lambda worker: len(worker.processing), default=None)

    def _arrive(self, task: Task, attempt: int) -> None:
        """Put a task into its worker's queue, if its inputs can be had."""
        if task.attempt != attempt or task.state is not State.PROCESSING:
            return
        worker = self.workers[task.worker or ""]
        for other in self._inputs(task):
            if other.worker != worker.address:
                holder = self.workers.get(other.worker or "")
                if holder is not None and holder.stopped is not None:
                    return  # it hangs, until that worker is removed
        heapq.heappush(worker.queue, (task.priority, attempt, task.key))
        self._work(worker)

    def _work(self, worker: Worker) -> None:
        """Begin the next task, if the worker has nothing to do."""
        while worker.queue and worker.running is None and worker.stopped is None:
            _, attempt, key = heapq.heappop(worker.queue)
            task = self.tasks.get(key)
            if task is None or task.attempt != attempt or task.worker != worker.address:
                continue
            worker.running = task, attempt, self.now
            taken = self._taken(task, worker)
            self.at(self.now + taken, self._end, worker, task, attempt, taken)

    def _taken(self, task: Task, worker: Worker) -> float:
        """Return how many seconds a task takes a worker."""
        more = 0.0
        if task.solves and self._solving is not None:
            more = self._solving(task.key, worker.address)
        return task.seconds * self._times(task.key, worker.address) + more

    def _end(self, worker: Worker, task: Task, attempt: int, taken: float) -> None:
        """End what a thread does: with a result, unless it was given up or the worker stands."""
        if worker.running is None or worker.running[:2] != (task, attempt):
            return
        if worker.stopped is not None:
            return
        start = worker.running[2]
        worker.running, worker.ghost = None, False
        spent = min(1.0, (self.now - start) / taken) if taken else 1.0
        self.outcome.done += spent * task.seconds
        if task.attempt == attempt and task.state is State.PROCESSING:
            if self._answer:
                self.at(self.now + self._answer, self._finish, task, attempt, start)
            else:
                self._finish(task, attempt, start)
        self._work(worker)

    def _finish(self, task: Task, attempt: int, start: float) -> None:
        """Take note of a result."""
        if task.attempt != attempt or task.state is not State.PROCESSING:
            return
        worker = self.workers[task.worker or ""]
        del worker.processing[task.key]
        worker.holds[task.key] = None
        task.state = State.MEMORY
        self._notify(task, "done", worker.address, start)
        if task.kind == "node":
            self._end_group(task.key)
        for key in list(task.dependents):
            other = self.tasks[key]
            if other.state is State.WAITING:
                other.missing.pop(task.key, None)
                if not other.missing and not other.held:
                    self._assign(other)
        for other in list(self._inputs(task)):
            self._let_go(other)
        if task.key in self._begun:
            self._end_block(task.key)

    def _end_group(self, node: Key) -> None:
        group = self._groups[node]
        if node in group.nodes:
            group.nodes.discard(node)
            if not group.nodes and group.start is not None:
                self.outcome.groups.append(self.now - group.start)

    def _end_block(self, last: Key) -> None:
        block, begun = self._begun.pop(last)
        self.outcome.blocks.append(self.now - begun)
        for key in reversed(list(block.tasks)):
            if key in self.tasks:
                self._forget(self.tasks[key])
            self._groups.pop(key, None)
        if self.on_block is not None:
            self.on_block(block.number)
        following = next(self._upcoming, None)
        if following is not None:
            self._coming += 1
            self._submit(following)

    # ----------------------------------------------------- letting go, starting again

    def _let_go(self, task: Task) -> None:
        """Release a result that nobody waits for any more."""
        waits = (State.WAITING, State.PROCESSING)
        if task.state is not State.MEMORY or task.wanted:
            return
        if any(self.tasks[key].state in waits for key in task.dependents):
            return
        if task.is_twin:
            self._forget(task)
            return
        self._leave(task)
        task.state = State.RELEASED
        self._notify(task, "released")

    def _leave(self, task: Task) -> None:
        """Take a task, or its result, from its worker; a thread that is busy stays so a while."""
        worker = self.workers.get(task.worker or "")
        task.attempt += 1
        if worker is not None:
            worker.processing.pop(task.key, None)
            worker.holds.pop(task.key, None)
            if worker.running is not None and worker.running[0] is task:
                attempt, start = worker.running[1:]
                taken = self._taken(task, worker)
                worker.ghost = True
                end = min(self.now + self._ask, start + taken)
                self.at(end, self._end, worker, task, attempt, taken)
        task.worker = None

    def _forget(self, task: Task) -> None:
        """Delete a task."""
        if task.state is not State.FORGOTTEN:
            self._leave(task)
            task.state = State.FORGOTTEN
            for key in task.inputs:
                if key in self.tasks:
                    self.tasks[key].dependents.pop(task.key, None)
                    self._let_go(self.tasks[key])
            del self.tasks[task.key]
            for key in task.dependents:
                self.tasks[key].inputs.pop(task.key, None)
            if task.kind != "task" or self.policy.tracks(task.key):
                self._tell(events.Forgotten(self.now, task.key))

    def _cut(self, node: Task, cut: events.DisconnectNode) -> None:
        node.solves = not node.plain or not node.plain <= set(cut.survivors)
        for key in cut.shares:
            share = self.tasks[key]
            node.inputs.pop(key, None)
            node.missing.pop(key, None)
            share.dependents.pop(node.key, None)
            if not share.dependents:
                self._leave(share)
                share.state = State.RELEASED
                self._tell(events.TaskChanged(self.now, key, "share", "released"))
                self._forget(share)
        if node.state is State.WAITING and not node.missing:
            self._assign(node)

    def _again(self, task: Task) -> None:
        """Compute something again, with all that it needs and that is not there any more."""
        self._leave(task)
        self.outcome.recomputed += 1
        self._notify(task, "released")
        for other in list(self._inputs(task)):
            if other.state is State.RELEASED:
                self._again(other)
        self._wait(task)
        if not task.missing and not task.held:
            self._assign(task)

    def _double(self, task: Task, backup: Key, worker: str) -> None:
        copy = Task(
            backup, "task", task.block, task.seconds, task.priority, dict(task.inputs),
            place=worker, wanted=True, is_twin=True,
        )  # fmt: skip
        self.tasks[backup] = copy
        for key in copy.inputs:
            self.tasks[key].dependents[backup] = None
        self._wait(copy)
        if not copy.missing:
            self._assign(copy)

    def _adopt(self, task: Task, backup: Task) -> None:
        if task.state is not State.PROCESSING or backup.state is not State.MEMORY:
            return
        place = backup.worker
        self._leave(task)
        task.inputs[backup.key] = None
        backup.dependents[task.key] = None
        backup.wanted = False
        self._wait(task)
        task.place, task.seconds = place, 0.0
        self._assign(task)

    # -------------------------------------------------------------------- faults

    def stop(self, address: str) -> None:
        """Stop a worker: it does nothing and answers nobody, and nobody is told."""
        self.workers[address].stopped = self.now

    def lose(self, address: str, expected: bool = False) -> None:
        """Let a worker be gone, with all that it holds."""
        worker = self.workers.pop(address, None)
        if worker is None:
            return
        if worker.running is not None and worker.stopped is None:
            task, _, start = worker.running
            taken = self._taken(task, worker)
            self.outcome.done += min(1.0, (self.now - start) / taken) * task.seconds
        self._tell(events.WorkerLeft(self.now, address, expected))
        lost = [self.tasks[key] for key in worker.holds]
        for task in lost:
            task.state, task.worker = State.RELEASED, None
        for task in lost:
            wants = any(
                self.tasks[key].state in (State.WAITING, State.PROCESSING)
                for key in task.dependents
            )
            if task.state is State.RELEASED and (wants or task.wanted):
                self._again(task)
            elif task.state is State.RELEASED:
                self._notify(task, "released")
        for key in list(worker.processing):
            if key in self.tasks and self.tasks[key].worker == address:
                self._again(self.tasks[key])
        self._unhang()

    def _unhang(self) -> None:
        """Send again what waited for inputs on a worker that is gone."""
        for worker in self.workers.values():
            for key in list(worker.processing):
                task = self.tasks[key]
                if any(other.state is not State.MEMORY for other in self._inputs(task)):
                    running = worker.running is not None and worker.running[0] is task
                    queued = any(entry[2] == key for entry in worker.queue)
                    if not running and not queued:
                        self._leave(task)
                        self._wait(task)
