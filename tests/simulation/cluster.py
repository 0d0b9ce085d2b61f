"""A simulated scheduler and its workers: Dask, as far as the any-k state machine can observe.

The events of a run are those that the scheduler plugin would pass on, in the same order, and the
instructions are carried out as :mod:`fcdcc.pipeline.anyk.scheduler.graph_edits` does. Time passes
while a worker runs a task, before it (messages, inputs from other workers) and after it (the way of
the result). A worker has one thread and runs earlier blocks first. A share that was given up keeps
the thread until it checks the next time whether it is still needed. A stopped worker keeps what it
holds: tasks that need it wait until the worker is removed, and then it is computed again.
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


class SimulatedCluster:
    """Workers, and a scheduler that does what ``policy`` decides.

    Parameters
    ----------
    policy
        Usually an :class:`fcdcc.pipeline.anyk.state_machine.state.AnyKState`.
    times
        How many times longer than nominal a task takes on a worker.
    start_delay
        Seconds between the assignment of a task and its start, if its worker is free.
    result_delay
        Seconds between the end of a task and the moment at which the scheduler knows.
    check_interval
        Seconds between two times that a share checks whether it is still needed.
    tick, heartbeat
        Seconds between two ticks of the scheduler's clock, and between two heartbeats of a worker.
    solve_times
        How many seconds longer a node takes on a worker if it has to solve for missing shares.
    """

    def __init__(
        self,
        policy: Policy,
        times: Times | None = None,
        start_delay: float = 0.0,
        result_delay: float = 0.0,
        check_interval: float = 0.05,
        tick: float = 0.25,
        heartbeat: float = 0.5,
        solve_times: Times | None = None,
    ) -> None:
        self.policy = policy
        self.now = 0.0
        self.workers: dict[str, Worker] = {}
        self.tasks: dict[Key, Task] = {}
        self.outcome = Outcome()
        self.on_block: Callable[[int], None] | None = None
        self._times = times or Steady()
        self._solve_times = solve_times
        self._start_delay, self._result_delay = start_delay, result_delay
        self._check_interval = check_interval
        self._tick_interval, self._heartbeat = tick, heartbeat
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._groups: dict[Key, Open] = {}
        self._begun: dict[Key, tuple[SimulatedBlock, float]] = {}
        self._upcoming: Iterator[SimulatedBlock] = iter(())
        self._orphans: dict[Key, None] = {}
        self._coming = 0

    # ----------------------------------------------------------------- running

    def join(self, address: str, host: str | None = None) -> None:
        """Add a worker now."""
        self.workers[address] = Worker(address, host or address)
        self._report(events.WorkerJoined(self.now, address, host or address, 1))
        for key in list(self._orphans):
            del self._orphans[key]
            if key in self.tasks:
                self._assign(self.tasks[key])

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        """Call a function at a simulated time."""
        heapq.heappush(self._agenda, (when, next(self._numbers), action, args))

    def run(
        self,
        blocks: Iterable[SimulatedBlock],
        in_flight: int,
        limit: float = float("inf"),
        between: float = 0.0,
    ) -> Outcome:
        """Run blocks until all are finished or the time is ``limit``.

        ``in_flight`` blocks run at a time; the first of them begin ``between`` seconds apart.
        """
        self._upcoming = iter(blocks)
        begin = self.now
        for number, block in enumerate(itertools.islice(self._upcoming, in_flight)):
            self._coming += 1
            if between:
                self.at(begin + number * between, self._submit, block)
            else:
                self._submit(block)
        self._flush()
        self.at(self.now + self._tick_interval, self._tick)
        while (self._begun or self._coming) and self._agenda and self._agenda[0][0] <= limit:
            self.now, _, action, args = heapq.heappop(self._agenda)
            action(*args)
            self._flush()
        self._agenda = [entry for entry in self._agenda if entry[2] != self._tick]
        heapq.heapify(self._agenda)
        self.outcome.seconds = self.now - begin
        return self.outcome

    @property
    def unfinished(self) -> int:
        """Number of blocks that have begun and are not finished."""
        return len(self._begun)

    # ------------------------------------------------------ events and instructions

    def _report(self, event: events.Event) -> None:
        """Hand an event to the policy; its answer may only place or hold shares."""
        for instruction in self._handle(event):
            self._follow(instruction)

    def _handle(self, event: events.Event) -> Iterable[events.Instruction]:
        start = perf_counter()
        instructions = self.policy.handle(event)
        taken = perf_counter() - start
        if isinstance(event, events.Tick):
            self.outcome.ticks += 1
            self.outcome.tick_seconds += taken
        else:
            self.outcome.events += 1
            self.outcome.event_seconds += taken
        return instructions

    def _flush(self) -> None:
        """Let the policy decide until it has nothing to decide."""
        while self.policy.unsettled:
            for instruction in list(self._handle(events.Settle(self.now))):
                self._follow(instruction)

    def _tick(self) -> None:
        observations = tuple(self._observation(worker) for worker in self.workers.values())
        for instruction in list(
            self._handle(events.Tick(self.now, self._tick_interval, self._heartbeat, observations))
        ):
            self._follow(instruction)
        self.at(self.now + self._tick_interval, self._tick)

    def _observation(self, worker: Worker) -> events.WorkerObservation:
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
            self._disconnect(self.tasks[instruction.node], instruction)
        elif isinstance(instruction, events.RemoveWorker):
            self.lose(instruction.worker)
        elif isinstance(instruction, events.StartBackup):
            self._start_backup(self.tasks[instruction.task], instruction.backup, instruction.worker)
        elif isinstance(instruction, events.UseBackup):
            self._use_backup(self.tasks[instruction.task], self.tasks[instruction.backup])
        elif isinstance(instruction, events.CancelBackup) and instruction.backup in self.tasks:
            self._forget(self.tasks[instruction.backup])

    def _inputs(self, task: Task) -> Iterator[Task]:
        return (self.tasks[key] for key in task.inputs)

    def _serves(self, task: Task) -> bool:
        """Return whether a task only prepares the images of one share, and runs where that does."""
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
        self._report(events.GroupsAdded(self.now, block.groups))
        self.tasks[block.last].wanted = True
        for task in fresh:
            self._wait(task)
        for task in fresh:
            if task.state is State.WAITING and not task.missing and not task.held:
                self._assign(task)

    def _wait(self, task: Task) -> None:
        """Put a task into the state WAITING."""
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
            self._report(
                events.TaskChanged(self.now, task.key, task.kind, state, worker, start, stop)
            )

    # ------------------------------------------------------------------- working

    def _assign(self, task: Task) -> None:
        """Choose a worker for a task whose inputs are computed, and send it."""
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
        self.at(self.now + self._start_delay, self._arrive, task, task.attempt)

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
        """Put a task into its worker's queue, unless an input is on a stopped worker."""
        if task.attempt != attempt or task.state is not State.PROCESSING:
            return
        worker = self.workers[task.worker or ""]
        for other in self._inputs(task):
            if other.worker != worker.address:
                holder = self.workers.get(other.worker or "")
                if holder is not None and holder.stopped is not None:
                    return  # it waits until that worker is removed or continues
        if _has_arrived(worker, task):
            return
        heapq.heappush(worker.queue, (task.priority, attempt, task.key))
        self._run_next(worker)

    def _run_next(self, worker: Worker) -> None:
        """Begin the next task of a worker that runs none."""
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
        if task.solves and self._solve_times is not None:
            more = self._solve_times(task.key, worker.address)
        return task.seconds * self._times(task.key, worker.address) + more

    def _end(self, worker: Worker, task: Task, attempt: int, taken: float) -> None:
        """End the task of a thread, with a result unless it was given up or the worker stopped."""
        if worker.running is None or worker.running[:2] != (task, attempt):
            return
        start = worker.running[2]
        if worker.stopped is not None or (not worker.ghost and self.now < start + taken - 1e-9):
            return
        worker.running, worker.ghost = None, False
        spent = min(1.0, (self.now - start) / taken) if taken else 1.0
        self.outcome.done += spent * task.seconds
        if task.attempt == attempt and task.state is State.PROCESSING:
            if self._result_delay:
                self.at(self.now + self._result_delay, self._finish, task, attempt, start)
            else:
                self._finish(task, attempt, start)
        self._run_next(worker)

    def _finish(self, task: Task, attempt: int, start: float) -> None:
        """Note a result at the scheduler."""
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
            self._release_if_unneeded(other)
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

    # ------------------------------------------------------ releasing, computing again

    def _release_if_unneeded(self, task: Task) -> None:
        """Release a result that no task waits for any more."""
        waits = (State.WAITING, State.PROCESSING)
        if task.state is not State.MEMORY or task.wanted:
            return
        if any(self.tasks[key].state in waits for key in task.dependents):
            return
        if task.is_backup:
            self._forget(task)
            return
        self._take_back(task)
        task.state = State.RELEASED
        self._notify(task, "released")

    def _take_back(self, task: Task) -> None:
        """Take a task, or its result, from its worker; a busy thread stays busy for a while."""
        worker = self.workers.get(task.worker or "")
        task.attempt += 1
        if worker is not None:
            worker.processing.pop(task.key, None)
            worker.holds.pop(task.key, None)
            if worker.running is not None and worker.running[0] is task:
                attempt, start = worker.running[1:]
                taken = self._taken(task, worker)
                worker.ghost = True
                end = min(self.now + self._check_interval, start + taken)
                self.at(end, self._end, worker, task, attempt, taken)
        task.worker = None

    def _forget(self, task: Task) -> None:
        """Delete a task."""
        if task.state is not State.FORGOTTEN:
            self._take_back(task)
            task.state = State.FORGOTTEN
            for key in task.inputs:
                if key in self.tasks:
                    self.tasks[key].dependents.pop(task.key, None)
                    self._release_if_unneeded(self.tasks[key])
            del self.tasks[task.key]
            for key in task.dependents:
                self.tasks[key].inputs.pop(task.key, None)
            if task.kind != "task" or self.policy.tracks(task.key):
                self._report(events.Forgotten(self.now, task.key))

    def _disconnect(self, node: Task, instruction: events.DisconnectNode) -> None:
        node.solves = not node.plain or not node.plain <= set(instruction.survivors)
        for key in instruction.shares:
            share = self.tasks[key]
            node.inputs.pop(key, None)
            node.missing.pop(key, None)
            share.dependents.pop(node.key, None)
            if not share.dependents:
                self._take_back(share)
                share.state = State.RELEASED
                self._report(events.TaskChanged(self.now, key, "share", "released"))
                self._forget(share)
        if node.state is State.WAITING and not node.missing:
            self._assign(node)

    def _compute_again(self, task: Task) -> None:
        """Compute a task again, with those of its inputs that have been released."""
        self._take_back(task)
        self.outcome.recomputed += 1
        self._notify(task, "released")
        for other in list(self._inputs(task)):
            if other.state is State.RELEASED:
                self._compute_again(other)
        self._wait(task)
        if not task.missing and not task.held:
            self._assign(task)

    def _start_backup(self, task: Task, backup: Key, worker: str) -> None:
        copy = Task(
            backup, "task", task.block, task.seconds, task.priority, dict(task.inputs),
            place=worker, wanted=True, is_backup=True,
        )  # fmt: skip
        self.tasks[backup] = copy
        for key in copy.inputs:
            self.tasks[key].dependents[backup] = None
        self._wait(copy)
        if not copy.missing:
            self._assign(copy)

    def _use_backup(self, task: Task, backup: Task) -> None:
        if task.state is not State.PROCESSING or backup.state is not State.MEMORY:
            return
        place = backup.worker
        self._take_back(task)
        task.inputs[backup.key] = None
        backup.dependents[task.key] = None
        backup.wanted = False
        self._wait(task)
        task.place, task.seconds = place, 0.0
        self._assign(task)

    # -------------------------------------------------------------------- faults

    def stop(self, address: str) -> None:
        """Stop a worker: it runs nothing and sends nothing, and the scheduler does not know."""
        self.workers[address].stopped = self.now

    def resume(self, address: str) -> None:
        """Let a stopped worker go on where it was, unless it was removed."""
        worker = self.workers.get(address)
        if worker is None or worker.stopped is None:
            return
        stopped, worker.stopped = worker.stopped, None
        if worker.running is not None:
            task, attempt, start = worker.running
            start += self.now - stopped
            worker.running = task, attempt, start
            taken = self._taken(task, worker)
            end = start + taken
            if worker.ghost:
                end = min(end, self.now + self._check_interval)
            self.at(end, self._end, worker, task, attempt, taken)
        for other in self.workers.values():
            for key in list(other.processing):
                self._arrive(self.tasks[key], self.tasks[key].attempt)
        self._run_next(worker)

    def lose(self, address: str, expected: bool = False) -> None:
        """Remove a worker with all that it holds."""
        worker = self.workers.pop(address, None)
        if worker is None:
            return
        if worker.running is not None and worker.stopped is None:
            task, _, start = worker.running
            taken = self._taken(task, worker)
            self.outcome.done += min(1.0, (self.now - start) / taken) * task.seconds
        self._report(events.WorkerLeft(self.now, address, expected))
        lost = [self.tasks[key] for key in worker.holds]
        for task in lost:
            task.state, task.worker = State.RELEASED, None
        for task in lost:
            wants = any(
                self.tasks[key].state in (State.WAITING, State.PROCESSING)
                for key in task.dependents
            )
            if task.state is State.RELEASED and (wants or task.wanted):
                self._compute_again(task)
            elif task.state is State.RELEASED:
                self._notify(task, "released")
        for key in list(worker.processing):
            if key in self.tasks and self.tasks[key].worker == address:
                self._compute_again(self.tasks[key])
        self._send_waiting_again()

    def _send_waiting_again(self) -> None:
        """Assign tasks again that waited for inputs on a worker that is gone."""
        for worker in self.workers.values():
            for key in list(worker.processing):
                task = self.tasks[key]
                ready = all(other.state is State.MEMORY for other in self._inputs(task))
                if not ready and not _has_arrived(worker, task):
                    self._take_back(task)
                    self._wait(task)


def _has_arrived(worker: Worker, task: Task) -> bool:
    """Return whether a worker runs a task, or has all that it needs to run it."""
    if worker.running is not None and worker.running[:2] == (task, task.attempt):
        return True
    return any(entry[1:] == (task.attempt, task.key) for entry in worker.queue)
