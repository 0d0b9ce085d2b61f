"""The any-k state machine: lets a task run as soon as *enough* of its inputs are there.

A Dask task runs when all of its inputs are computed. An any-k *node* needs only some of them, for
example any four of six, and those that are slow or lost need not be waited for. Its inputs are
called *shares*. The shares of one layer of one block and the nodes that they feed are a *group*::

                     share 0 ──┐
                     share 1 ──┤
     inputs ──▶      share 2 ──┼──▶ node (any 4 of 6) ──▶ next layer
                     share 3 ──┤
       parity on     share 4 ──┤
       standby       share 5 ──┘

This module decides, and does nothing else. The scheduler plugin
(:mod:`fcdcc.pipeline.anyk.scheduler.anyk_plugin`) passes on what happens as events and carries out
the instructions that are returned (both in :mod:`.events`). There is no Dask here, no clock, and no
input or output. So the same events always give the same instructions, a run can be replayed from
its recorded events, and every state can be reached in a test without a cluster.

The states of a share::

                   ┌── StartShare ─────────┐
                 held                      ▼
     GroupsAdded ──┴──▶ waiting ──────▶ started ──────▶ done
                           ▲             │    │          │
                           │             │    └────┬─────┘
                           │     given   │         │ neither running nor in memory any more
                           │     up      ▼         ▼
                           │           erased    still needed?  ── no ──▶ released
                           │                       │ yes
                           └─────── Dask ◀──────  lost

A node waits until the shares that are done are enough for it; each node says itself what is enough
(:func:`.events.is_ready`). Then it is *disconnected* from all other shares, so that Dask runs it
with the *survivors*. A share that feeds no node any more is given up, and Dask forgets it. If it
had been started, that is an *erasure*. Its worker has a *ghost* then: a thread cannot be stopped
from outside, so the worker may still be busy with it.

A node keeps its connections to the survivors. If one of them is lost before the node ran, Dask
computes it again, and the node waits for it. A node that was ever sent to a worker is not
disconnected from anything more, because a worker that remembers the task would wait for the inputs
that the first message named.

When decisions are made
    Where a share runs has to be decided before Dask chooses a worker for it, so an event may be
    answered with :class:`.events.PlaceShare` or :class:`.events.HoldShare` at once. Everything else
    changes Dask's graph, which must not happen while Dask is in the middle of its own transitions.
    It is decided at the next :class:`.events.Settle`, which the plugin sends when Dask has
    finished. More shares may be done by then, and a node runs with all of them.

Seats
    The shares of one block that have the same seat go to the same worker, layer after layer;
    different seats go to different workers (:mod:`.seats`). When a worker leaves, its seats are
    given to others, and its shares that have not started move with them (:mod:`.workers`).

Lateness
    A worker is late when it has something to do and has returned nothing for much longer than such
    tasks usually take (:mod:`.lateness`). A worker with a long queue is not late. When a worker
    with a share of a group is late or quiet, or a share was lost, parity on standby is started in
    its place. A task that exists once (a read, glue, a gather, a write, a node) gets a backup task
    on another worker instead, and the first result is used (:mod:`.speculation`).

Silence
    A worker whose process is stopped keeps its connections open, and Dask believes that its results
    are still there. A worker that is needed and has been silent for longer than a rule allows
    is removed (:mod:`.workers`). Time in which the scheduler itself was blocked does not count, and
    if no worker at all is heard of, none is removed, because then the cause is not the workers. A
    worker that also runs or holds something of others is *bypassed* instead: what it runs and holds
    of graphs with any-k nodes is computed elsewhere, and what belongs to others stays.

Wrong shares
    A worker that returned wrong shares in several blocks gets no more tasks (:mod:`.distrust`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .distrust import Distrust
from .events import (
    BypassWorker,
    DisconnectNode,
    Event,
    Forgotten,
    GroupsAdded,
    HoldShare,
    Idle,
    Instruction,
    Key,
    PlaceShare,
    RemoveWorker,
    RunDropped,
    Settle,
    SharesReported,
    TaskChanged,
    TaskKind,
    TaskStatus,
    Tick,
    UseBackup,
    WorkerJoined,
    WorkerLeft,
    WorkerStatus,
)
from .history import GroupRecord, History, RunHistory, ShareRecord
from .lateness import (
    PARITY,
    SHARE,
    LateByHistory,
    Lateness,
    LatenessRule,
    TaskCategory,
    category_of,
)
from .registry import (
    BlockState,
    GroupState,
    NodeState,
    NodeStatus,
    Registry,
    ShareState,
    ShareStatus,
)
from .silence_rules import LearnedSilence, SilenceRule
from .speculation import BackupTasks, Speculation
from .workers import WorkerRecord, Workers


class AnyKState:
    """The state of all groups that a scheduler knows. The text of the module explains it.

    Parameters
    ----------
    silence_rule
        Says after how much silence a worker is removed.
    lateness_rule
        Says when a worker is late.
    record
        Whether to keep every event in ``events``, for replay.
    """

    def __init__(
        self,
        silence_rule: SilenceRule | None = None,
        lateness_rule: LatenessRule | None = None,
        record: bool = False,
    ) -> None:
        self.registry = Registry()
        self.history = History()
        self.workers = Workers(silence_rule or LearnedSilence())
        self.lateness = Lateness(lateness_rule or LateByHistory())
        self.distrust = Distrust(self.workers, self.history)
        self.backup_tasks = BackupTasks()
        self.speculation = Speculation(
            self.registry, self.workers, self.lateness, self.backup_tasks, self.history
        )
        self.events: list[Event] | None = [] if record else None
        self._shares = self.registry.shares
        self._nodes = self.registry.nodes
        self._changed_nodes: dict[Key, None] = {}
        self._groups_with_losses: dict[int, None] = {}
        # Looked up for every task, several times.
        self._task_handlers: dict[TaskKind, Callable[[TaskChanged], None]] = {
            "share": self._share_changed,
            "node": self._node_changed,
            "task": self._other_task_changed,
        }
        self._handlers: dict[type, Callable[[Any], Iterable[Instruction] | None]] = {
            Forgotten: self._forget,
            GroupsAdded: self._add,
            WorkerJoined: self._worker_joined,
            WorkerLeft: self._worker_left,
            WorkerStatus: self._worker_changed,
            RunDropped: self._drop_run,
            SharesReported: self.distrust.note_report,
            Settle: lambda _: self._settle(),
            Tick: self._tick,
            Idle: lambda idle: self.workers.observe_idle(idle),
        }

    @property
    def unsettled(self) -> bool:
        """Whether the answer to :class:`.events.Settle` may be an instruction."""
        return bool(
            self._changed_nodes
            or self._groups_with_losses
            or self.backup_tasks.unsettled
            or self.distrust.unsettled
        )

    def knows_share(self, key: Key) -> bool:
        """Return whether a task is one of the shares."""
        return key in self._shares

    def knows_node(self, key: Key) -> bool:
        """Return whether a task is one of the any-k nodes."""
        return key in self._nodes

    def tracks(self, key: Key) -> bool:
        """Return whether a task is assigned to a worker, or has, had or is a backup task."""
        return key in self.lateness.assigned or self.backup_tasks.remembers(key)

    def handle(self, event: Event) -> tuple[Instruction, ...]:
        """Take note of an event and return what to do.

        Only ``Settle`` and ``Tick`` are answered with more than ``PlaceShare`` and ``HoldShare``.
        Events about shares, nodes and workers that are not known change nothing.
        """
        if self.events is not None:
            self.events.append(event)
        if isinstance(event, TaskChanged):
            self._task_handlers[event.kind](event)
            return ()
        instructions = self._handlers[type(event)](event)
        return () if instructions is None else tuple(instructions)

    # ------------------------------------------------------------------ shares

    def _share_changed(self, event: TaskChanged) -> None:
        share, state = self._shares.get(event.key), event.state
        if state == "done":
            self._share_done(event, share)
        elif state in ("released", "erred"):
            self._note_stopped(event.key, state)
            if share is not None and state == "released":
                self._share_released(share, event.now)
            elif share is not None:
                self._share_erred(share, event.now)
        elif share is not None and state == "started":
            self._share_started(event, share)
        elif share is not None:
            self.backup_tasks.note(share.key, "waiting")
            if share.state is not ShareStatus.HELD:
                share.state, share.worker = ShareStatus.WAITING, None

    def _share_started(self, event: TaskChanged, share: ShareState) -> None:
        group = self.registry.group_of(share)
        group.held.pop(share.key, None)
        self._note_started(share.key, self._category(share.key), event.worker, event.now)
        if share.stage == PARITY and share.attempts == 0:
            self._run_of(group).counters.parity_started += 1
        share.state, share.worker, share.since = ShareStatus.STARTED, event.worker, event.now
        share.attempts += 1
        group.started = event.now if group.started is None else group.started

    def _share_done(self, event: TaskChanged, share: ShareState | None) -> None:
        seconds = event.stop - event.start
        # Parity takes longer where it is computed from whole blocks: that does not say that its
        # worker is slow.
        is_parity = share is not None and share.stage == PARITY
        if is_parity:
            category = self._category(event.key)._replace(stage=PARITY)
            self.lateness.add_compute_time(category, seconds)
        elif not self.backup_tasks.is_using_backup(event.key):
            worker = self.workers.by_address.get(event.worker)
            self.lateness.note_share_time(event.key, worker, seconds)
        self._note_result(event.key, event.worker, event.now, event.start, learn=not is_parity)
        if share is None:
            return
        self.registry.group_of(share).held.pop(share.key, None)
        share.state, share.worker = ShareStatus.DONE, event.worker
        self._expect_no_more(share)
        self._changed_nodes.update(share.nodes)
        self._record(share, "done", event.worker, event.start, event.stop)

    def _share_erred(self, share: ShareState, now: float) -> None:
        if share.state is ShareStatus.STARTED:
            self._record(share, "erred", share.worker, share.since, now)
        share.state, share.worker = ShareStatus.ERRED, None
        self._expect_no_more(share)

    def _share_released(self, share: ShareState, now: float) -> None:
        """Find out why a share is neither running nor in memory any more."""
        before, worker = share.state, share.worker
        if before in (ShareStatus.HELD, ShareStatus.ERASED):
            return
        group = self.registry.group_of(share)
        share.state, share.worker = ShareStatus.RELEASED, None
        if before is ShareStatus.STARTED:
            self.workers.add_ghost(worker, share.key, now)
        if self.registry.is_wanted(share):
            if self.backup_tasks.take_back(share.key):
                self._run_of(group).counters.erasures += 1
                self._record(share, "erased", worker, share.since, now)
            elif before in (ShareStatus.STARTED, ShareStatus.DONE):
                share.state = ShareStatus.LOST
                is_lost_with_worker = self.workers.is_gone(worker)
                if is_lost_with_worker or before is ShareStatus.DONE:
                    self._run_of(group).counters.shares_lost += 1
                share.was_lost = share.was_lost or is_lost_with_worker
                state = "lost" if is_lost_with_worker else "recalled"
                self._record(share, state, worker, share.since, now)
                if group.held:
                    self._groups_with_losses[group.number] = None
            return
        self._expect_no_more(share)
        if before is ShareStatus.STARTED and share.cut and not share.nodes:
            share.state = ShareStatus.ERASED
            if share.is_stand_in:
                self._record(share, "superfluous", worker, share.since, now)
                return
            self._run_of(group).counters.erasures += 1
            self._record(share, "erased", worker, share.since, now)

    def _expect_no_more(self, share: ShareState) -> None:
        """Count a share as work for the worker of its seat no longer."""
        block = self.registry.block_of(self.registry.group_of(share))
        self.workers.expect_no_more(block, share)

    # ------------------------------------------------------------------- nodes

    def _node_changed(self, event: TaskChanged) -> None:
        node, state = self._nodes.get(event.key), event.state
        if state == "done":
            if node is not None:
                node.state = NodeStatus.DONE
            if event.worker:
                self._note_result(event.key, event.worker, event.now)
            if node is not None:
                self._finish_node(node, event.now)
        elif state == "started":
            if node is not None:
                node.state, node.sent = NodeStatus.STARTED, True
            if not event.worker:
                self._note_stopped(event.key, "waiting")
            elif node is not None:
                self._note_started(event.key, category_of(event.key), event.worker, event.now)
        else:
            self._note_stopped(event.key, state)
            if node is None:
                return
            if state == "waiting":
                node.state = NodeStatus.WAITING
                self._changed_nodes[event.key] = None
            else:
                node.state = NodeStatus.IDLE if state == "released" else NodeStatus.ERRED

    def _finish_node(self, node: NodeState, now: float) -> None:
        """Note the first result of a node; the last node completes its group."""
        group = self.registry.group_of(node)
        if node.key not in group.unfinished:
            return
        del group.unfinished[node.key]
        group.solved |= node.solves(frozenset(node.edges))
        if not group.unfinished:
            history = self._run_of(group)
            history.counters.groups += 1
            history.counters.decodes += group.solved
            start = now if group.started is None else group.started
            history.groups.append(GroupRecord(group.layer, group.block, start, now, group.solved))

    # ------------------------------------------------- what workers have to do

    def _other_task_changed(self, event: TaskChanged) -> None:
        if event.state == "started":
            self._note_started(event.key, self._category(event.key), event.worker, event.now)
        elif event.state == "done":
            self._note_result(event.key, event.worker, event.now)
        else:
            self._note_stopped(event.key, event.state)

    def _note_started(self, key: Key, category: TaskCategory, worker: str, now: float) -> None:
        self.lateness.note_assigned(key, category, worker, now)
        self.backup_tasks.note(key, "started")

    def _note_result(
        self, key: Key, address: str, now: float, start: float | None = None, learn: bool = True
    ) -> None:
        """Note the result of a task of any kind."""
        worker = self.workers.by_address.get(address)
        learn = learn and not self.backup_tasks.is_using_backup(key)
        self.lateness.note_result(key, worker, now, learn)
        self.workers.note_result(address, now, start)
        self.backup_tasks.note(key, "done")

    def _note_stopped(self, key: Key, state: TaskStatus) -> None:
        self.lateness.take_back(key)
        self.backup_tasks.note(key, state)

    def _category(self, key: Key) -> TaskCategory:
        """Return with which tasks one is compared; a backup as the task that it belongs to."""
        task = self.backup_tasks.original(key)
        share = self._shares.get(task)
        if share is None:
            return category_of(task)
        group = self.registry.group_of(share)  # compared within itself if it has no run
        return TaskCategory(group.run, group.layer if group.run else group.block, SHARE)

    # ------------------------------------------------------- adding and forgetting

    def _add(self, event: GroupsAdded) -> Iterator[Instruction]:
        added = [self.registry.add(spec) for spec in event.groups]
        for block, shares in added:
            for share in shares:
                if block is not None and share.state is not ShareStatus.HELD:
                    self.workers.expect(block, share)
        for block, shares in added:
            if block is not None:
                self.workers.assign_seats(block)
            for share in shares:
                if share.state is ShareStatus.HELD:
                    yield HoldShare(share.key)
                yield from self._place(share)

    def _forget(self, event: Forgotten) -> None:
        share = self._shares.get(event.key)
        if share is not None:
            self._share_released(share, event.now)
            self._expect_no_more(share)
            self.registry.forget_share(share)
        node = self._nodes.get(event.key)
        if node is not None:
            self._changed_nodes.pop(node.key, None)
            self.registry.forget_node(node)
        self.lateness.take_back(event.key)
        self.backup_tasks.forget(event.key)

    def _drop_run(self, event: RunDropped) -> None:
        self.history.drop(event.run)
        self.lateness.forget(event.run)

    # ----------------------------------------------------------------- deciding

    def _settle(self) -> Iterator[Instruction]:
        nodes, self._changed_nodes = self._changed_nodes, {}
        for key in nodes:
            if self._nodes[key].state is NodeStatus.WAITING:
                yield from self._disconnect(self._nodes[key])
        groups, self._groups_with_losses = self._groups_with_losses, {}
        for number in groups:
            if number in self.registry.groups:
                yield from self.speculation.start_standby(self.registry.groups[number])
        yield from self.distrust.settle()
        for instruction in self.backup_tasks.settle():
            if isinstance(instruction, UseBackup):
                self._note_backup_used(instruction.task)
            yield instruction

    def _disconnect(self, node: NodeState) -> Iterator[Instruction]:
        """Disconnect a node that has enough shares from all others."""
        if node.sent:
            return
        survivors = node.survivors(self.registry.done_positions(node))
        if survivors is None or survivors >= node.edges.keys():
            return
        gone = tuple(key for position, key in node.edges.items() if position not in survivors)
        self.registry.disconnect(node, gone)
        for key in gone:
            if not self._shares[key].nodes:  # given up, and its backup task with it
                self.backup_tasks.note(key, "released")
        yield DisconnectNode(node.key, gone, tuple(sorted(survivors)))

    def _note_backup_used(self, task: Key) -> None:
        """Note that a task is taken from its worker, whose thread may stay busy with it."""
        had = self.lateness.take_back(task)
        if had is not None:
            self.workers.add_ghost(had.worker, task, had.since)
            self.history.run(had.category.run).counters.doubles_used += 1

    # ------------------------------------------------------------------ workers

    def _worker_joined(self, event: WorkerJoined) -> Iterable[Instruction]:
        self.workers.join(event)
        blocks = self.registry.blocks.values()
        return self._reseat([b for b in blocks if _is_crowded(b)], spread=True)

    def _worker_left(self, event: WorkerLeft) -> Iterable[Instruction]:
        worker = self.workers.leave(event.worker)
        self.distrust.forget(event.worker)
        if worker is None:
            return ()
        what = "removed" if worker.removing else "retired" if event.expected else "lost"
        for history in self._live_histories():
            if what != "retired":
                history.counters.workers_lost += 1
                history.workers_lost.append(worker.address)
            left = {"time": event.now, "event": what, "worker": worker.address}
            history.events.append({**left, "heard": worker.seen})
        blocks = self.registry.blocks.values()
        return self._reseat([b for b in blocks if worker.address in b.seats.values()])

    def _worker_changed(self, event: WorkerStatus) -> Iterable[Instruction]:
        """Note that a worker takes tasks from now on, or takes none for now."""
        self.workers.set_running(event)
        blocks = self.registry.blocks.values()
        if not event.running:  # what has not started there goes to others
            return self._reseat([b for b in blocks if event.worker in b.seats.values()])
        return self._reseat([b for b in blocks if _is_crowded(b)], spread=True)

    def _reseat(
        self, blocks: Iterable[BlockState], spread: bool = False, replace_unfit: bool = False
    ) -> Iterator[Instruction]:
        """Assign the seats of some blocks again, and place the shares that have not started."""
        for block in blocks:
            changed = self.workers.assign_seats(block, spread, replace_unfit)
            for number in block.groups:
                for share in self.registry.shares_of(self.registry.groups[number]):
                    if share.seat in changed:
                        yield from self._place(share)

    def _place(self, share: ShareState) -> Iterable[Instruction]:
        """Place a share that Dask has not assigned to a worker."""
        seats = self.registry.block_of(self.registry.group_of(share)).seats
        movable = (ShareStatus.WAITING, ShareStatus.LOST, ShareStatus.RELEASED)
        if share.state in movable and share.seat in seats:
            return (PlaceShare(share.key, seats[share.seat]),)
        return ()

    # --------------------------------------------------------------------- time

    def _tick(self, event: Tick) -> Iterator[Instruction]:
        gone = self.workers.observe(event)
        for worker in gone:
            silence = event.now - worker.seen
            reason = f"worker {worker.address} has not been heard of for {silence:.1f} seconds"
            if worker.shared:
                yield from self._bypass(worker, reason, event.now)
                continue
            worker.removing = True
            yield RemoveWorker(worker.address, reason)
            for history in self._live_histories():
                history.workers_removed.append(worker.address)
        yield from self.distrust.settle()
        if self.workers.clock_stalled:
            return
        late = self.lateness.late_workers(self.workers, idle=False, now=event.now)
        yield from self._replace_unfit(self.workers.mark_late(late, event.now))
        if all(worker.bypassed is None for worker in gone):  # else Dask starts tasks elsewhere now
            yield from self.speculation.replace_late(late, event.now)

    def _bypass(self, worker: WorkerRecord, reason: str, now: float) -> Iterator[Instruction]:
        """Have other workers compute what a worker has, if there are any that answer."""
        if not self.workers.others_answer(worker):
            return
        worker.bypassed = now
        for history in self._live_histories():
            bypassed = {"time": now, "event": "bypassed", "worker": worker.address}
            history.events.append({**bypassed, "heard": worker.seen})
        yield BypassWorker(worker.address, reason)

    def _replace_unfit(self, workers: list[WorkerRecord]) -> Iterator[Instruction]:
        """Give away the seats of workers that have become slow or quiet."""
        unfit = {worker.address for worker in workers}
        if unfit and len(unfit) < len(self.workers.by_address):
            blocks = [b for b in self.registry.blocks.values() if unfit & set(b.seats.values())]
            yield from self._reseat(blocks, replace_unfit=True)

    # ------------------------------------------------------------------ history

    def _run_of(self, group: GroupState) -> RunHistory:
        return self.history.run(group.run)

    def _live_histories(self) -> list[RunHistory]:
        runs = dict.fromkeys(group.run for group in self.registry.groups.values())
        return [self.history.run(run) for run in runs]

    def _record(
        self, share: ShareState, state: str, worker: str | None, start: float, stop: float
    ) -> None:
        group = self.registry.group_of(share)
        place = (group.layer, group.block, share.position, share.stage)
        self._run_of(group).shares.append(ShareRecord(*place, worker or "", start, stop, state))


def _is_crowded(block: BlockState) -> bool:
    """Return whether a worker has several seats of a block."""
    return len(set(block.seats.values())) < len(block.wanted_seats)
