"""The any-k state machine: who waits for which share, and who need not wait any longer.

What Dask cannot do by itself is to run a task when *some* of its inputs are there. This
module decides when that is so. It has no Dask in it, no clock and no input or output: it is
told what happened (:mod:`.messages`) and answers with what to do, so that the same events
always give the same instructions, a run can be replayed from a recorded list, and every
state can be reached in a test without a cluster. :mod:`.scheduler_plugin` is the shell that
listens to Dask and carries the instructions out.

A share
::

                   ┌──────── Start ────────┐
                 held                      ▼
     GroupsAdded ──┴──▶ waiting ──────▶ started ──────▶ done
                           ▲             │    │          │
                           │             │    └────┬─────┘
                           │     given   │         │ no longer running, not in memory
                           │     up      ▼         ▼
                           │           erased    still wanted?  ── no ──▶ released
                           │                       │ yes
                           └─────── Dask ◀──────  lost

A node waits for the shares that it is connected to. It is *ready* when the shares that are
done are enough for it; each node says itself what is enough (:func:`.readiness.is_ready`).
Then it is cut off from all others, and runs. A share that nobody is connected to any more is
given up: Dask forgets it, and if it had been started that is an *erasure*, and the worker,
whose thread cannot be stopped, has a *ghost* until it says otherwise.

What was cut stays cut. The edges to the survivors remain, so that Dask makes a survivor
again when it is lost before the node ran; the node is then not ready, and waits. Nor is a
node cut any further once it has been sent to a worker: a worker that still remembers the
task would go on waiting for the inputs that it was told of first.

Two kinds of answers
    Placing a share must happen before Dask chooses a worker, so events are told at once and
    may be answered with :class:`.messages.Place`. Everything else waits for
    :class:`.messages.Settle`: Dask reports what it does in the middle of doing it, and only
    when it is done may anybody change its graph. More shares may have arrived by then; a
    node runs with all that are there.

Seats
    The shares of one block that have the same seat go to the same worker, layer after layer;
    different seats go to different workers (:mod:`.placement`). When a worker leaves, its
    seats are given away, and shares that have not started follow (:mod:`.roster`).

Single tasks
    Reads, glue, gathers, writes and the nodes themselves exist once. One that stays on a late
    worker gets a twin elsewhere, and the first answer wins (:mod:`.doubles`). So does a share
    where parity takes much longer than it, or when more of its group are late than others can
    stand in for.

Silence
    A stopped worker keeps its connections open, and what it holds seems to be there. A worker
    that is needed and has not been heard of for longer than a rule allows is removed
    (:mod:`.rules`). Time during which the scheduler itself was not listening does not count,
    and when nobody at all is heard of, nobody is removed: then it is not the workers.

Lateness
    A worker is late when it has something to do and returns nothing for much longer than
    such tasks took before (:mod:`.workload`). A worker with a queue is not late.

Standby
    A held share starts when a share of its group was lost, or when a worker that has one of
    its shares is late or stays silent, unless that share has a twin. Where another worker has
    nothing to do, one starts there a little earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import events as m
from .backup_tasks import BackupTasks, Phase
from .distrust import Distrust
from .entities import (
    BlockState,
    GroupState,
    NodeState,
    NodeStatus,
    ShareState,
    ShareStatus,
    WorkerRecord,
)
from .events import Event, Instruction, Key
from .history import GroupRecord, History, RunHistory, ShareRecord
from .invariants import check_state
from .lateness import (
    PARITY,
    SHARE,
    LateByHistory,
    LatenessRule,
    LearnedSilence,
    SilenceRule,
    TaskKind,
    Workload,
    kind_of,
)
from .registry import Registry
from .speculation import Speculation
from .workers import Workers


class AnyKState:
    """The state of all groups that a scheduler knows; see the module's text.

    Parameters
    ----------
    silence, lateness
        The rules that need time.
    record
        Keep every event in ``events``, to replay them.
    """

    def __init__(
        self,
        silence: SilenceRule | None = None,
        lateness: LatenessRule | None = None,
        record: bool = False,
    ) -> None:
        self.lateness = lateness or LateByHistory()
        self.registry = Registry()
        self.roster = Workers(silence or LearnedSilence())
        self.workload = Workload()
        self.doubles = BackupTasks()
        self.reserves = Speculation(self)
        self.history = History()
        self.trust = Distrust(self.roster, self.history)
        self.events: list[Event] | None = [] if record else None
        self._members = self.registry.members
        self._nodes = self.registry.nodes
        self._dirty: dict[Key, None] = {}
        self._woken: dict[int, None] = {}
        self._handlers = self._all_handlers()

    @property
    def unsettled(self) -> bool:
        """Whether :class:`.messages.Settle` may have an answer."""
        return bool(self._dirty or self._woken or self.doubles.unsettled or self.trust.unsettled)

    def knows_share(self, key: Key) -> bool:
        """Return whether a task is one of the shares."""
        return key in self._members

    def knows_node(self, key: Key) -> bool:
        """Return whether a task is one of the any-k nodes."""
        return key in self._nodes

    def tracks(self, key: Key) -> bool:
        """Return whether a single task is at a worker now, or had a twin, or is one."""
        return key in self.workload.assigned or self.doubles.remembers(key)

    def validate(self) -> None:
        """Check that everything fits together; for tests.

        Raises
        ------
        AssertionError
            Saying what does not.
        """
        check_state(self)

    def handle(self, event: Event) -> tuple[Instruction, ...]:
        """Take note of an event and return what to do.

        Only ``Settle`` and ``Tick`` are answered with more than places and holds. Events
        about shares, nodes and workers that are not known change nothing.
        """
        if self.events is not None:
            self.events.append(event)
        answer = self._handlers[type(event)](event)
        return () if answer is None else tuple(answer)

    def _all_handlers(self) -> dict[type, Callable[[Any], Iterable[Instruction] | None]]:
        """Return what takes note of which event: looked up for every task, several times."""
        return {
            m.ShareWaiting: self._share_proceeds,
            m.ShareStarted: self._share_proceeds,
            m.ShareDone: self._share_proceeds,
            m.ShareReleased: self._share_recedes,
            m.ShareErred: self._share_recedes,
            m.NodeWaiting: lambda e: self._set_node(e.node, NodeStatus.WAITING, Phase.WAITING),
            m.NodeStarted: self._node_started,
            m.NodeDone: self._node_done,
            m.NodeReleased: lambda e: self._set_node(e.node, NodeStatus.IDLE, Phase.GONE),
            m.NodeErred: lambda e: self._set_node(e.node, NodeStatus.ERRED, Phase.GONE),
            m.TaskWaiting: lambda e: self._stops(e.key, Phase.WAITING),
            m.TaskStarted: lambda e: self._begins(e.key, self._kind(e.key), e.worker, e.now),
            m.TaskDone: lambda e: self._ends(e.key, e.worker, e.now),
            m.TaskGone: lambda e: self._stops(e.key, Phase.GONE),
            m.Forgotten: self._forget,
            m.GroupsAdded: self._add,
            m.WorkerJoined: self._worker_joined,
            m.WorkerLeft: self._worker_left,
            m.WorkerStatus: self._worker_changed,
            m.RunDropped: self._drop_run,
            m.Noticed: self.trust.notice,
            m.Settle: lambda _: self._settle(),
            m.Tick: self._tick,
        }

    # ------------------------------------------------------------------ shares

    def _share_proceeds(self, event: m.ShareWaiting | m.ShareStarted | m.ShareDone) -> None:
        member = self._members.get(event.share)
        if isinstance(event, m.ShareDone):
            # Parity takes longer where it is made of whole blocks: that says nothing of a worker.
            plain = member is None or member.stage != PARITY
            taken = event.stop - event.start
            if not plain:
                self.workload.took(self._kind(event.share)._replace(stage=PARITY), taken)
            elif not self.doubles.is_adopting(event.share):
                self.workload.paced(event.share, self.roster.workers.get(event.worker), taken)
            self._ends(event.share, event.worker, event.now, event.start, plain)
        if member is None:
            return
        group = self.registry.group_of(member)
        if isinstance(event, m.ShareWaiting):
            self.doubles.note(member.key, Phase.WAITING)
            if member.state is not ShareStatus.HELD:
                member.state, member.worker = ShareStatus.WAITING, None
            return
        group.held.pop(member.key, None)
        member.worker = event.worker
        if isinstance(event, m.ShareStarted):
            self._begins(member.key, self._kind(member.key), event.worker, event.now)
            if member.stage == PARITY and member.attempts == 0:
                self._run(group).counters.parity_started += 1
            member.state, member.since = ShareStatus.STARTED, event.now
            member.attempts += 1
            group.started = event.now if group.started is None else group.started
        else:
            member.state = ShareStatus.DONE
            self._no_more(member)
            self._dirty.update(member.nodes)
            self._record(member, "done", event.worker, event.start, event.stop)

    def _share_recedes(self, event: m.ShareReleased | m.ShareErred) -> None:
        self._stops(event.share, Phase.GONE)
        member = self._members.get(event.share)
        if member is None:
            return
        if isinstance(event, m.ShareReleased):
            self._release(member, event.now)
            return
        if member.state is ShareStatus.STARTED:
            self._record(member, "erred", member.worker, member.since, event.now)
        member.state, member.worker = ShareStatus.ERRED, None
        self._no_more(member)

    def _release(self, member: ShareState, now: float) -> None:
        """Find out why a share is neither running nor in memory any more."""
        before, worker = member.state, member.worker
        if before in (ShareStatus.HELD, ShareStatus.ERASED):
            return
        group = self.registry.group_of(member)
        member.state, member.worker = ShareStatus.RELEASED, None
        if before is ShareStatus.STARTED:
            self.roster.note_abandoned(worker, member.key, now)
        if self.registry.is_wanted(member):
            if self.doubles.is_adopting(member.key):  # it takes over what its twin has made
                self._record(member, "erased", worker, member.since, now)
            elif before in (ShareStatus.STARTED, ShareStatus.DONE):
                member.state = ShareStatus.LOST
                self._run(group).counters.shares_lost += 1
                self._record(member, "lost", worker, member.since, now)
                if group.held:
                    self._woken[group.number] = None
            return
        self._no_more(member)
        if before is ShareStatus.STARTED and member.cut and not member.nodes:
            member.state = ShareStatus.ERASED
            self._run(group).counters.erasures += 1
            self._record(member, "erased", worker, member.since, now)

    def _no_more(self, member: ShareState) -> None:
        """Note that a share is no work any more for the worker of its seat."""
        block = self.registry.block_of(self.registry.group_of(member))
        self.roster.expect_no_more(block, member)

    # ------------------------------------------------------------------- nodes

    def _set_node(self, key: Key, state: NodeStatus, phase: Phase | None = None) -> None:
        if phase is not None:
            self._stops(key, phase)
        node = self._nodes.get(key)
        if node is not None:
            node.state = state
            if state is NodeStatus.WAITING:
                self._dirty[key] = None
            elif state is NodeStatus.STARTED:
                node.sent = True

    def _node_started(self, event: m.NodeStarted) -> None:
        self._set_node(event.node, NodeStatus.STARTED)
        if event.worker is None:
            self._stops(event.node, Phase.WAITING)
        elif event.node in self._nodes:
            self._begins(event.node, kind_of(event.node), event.worker, event.now)

    def _node_done(self, event: m.NodeDone) -> None:
        self._set_node(event.node, NodeStatus.DONE)
        if event.worker is not None:
            self._ends(event.node, event.worker, event.now)
        node = self._nodes.get(event.node)
        group = None if node is None else self.registry.group_of(node)
        if node is None or group is None or node.key not in group.unfinished:
            return
        del group.unfinished[node.key]
        group.solved |= node.solves(frozenset(node.edges))
        if not group.unfinished:
            history = self._run(group)
            history.counters.groups += 1
            history.counters.decodes += group.solved
            start = event.now if group.started is None else group.started
            record = GroupRecord(group.layer, group.block, start, event.now, group.solved)
            history.groups.append(record)

    # ----------------------------------------------------- what workers have to do

    def _begins(self, key: Key, kind: TaskKind, worker: str, now: float) -> None:
        self.workload.started(key, kind, worker, now)
        self.doubles.note(key, Phase.STARTED)

    def _ends(
        self, key: Key, address: str, now: float, start: float | None = None, learn: bool = True
    ) -> None:
        """Note a result, whoever's it is."""
        worker = self.roster.workers.get(address)
        learn = learn and not self.doubles.is_adopting(key)
        self.workload.done(key, worker, now, learn)
        self.roster.delivered(address, now, start)
        self.doubles.note(key, Phase.DONE)

    def _kind(self, key: Key) -> TaskKind:
        """Return with which tasks one is compared, twins as the task that they belong to."""
        task = self.doubles.original(key)
        member = self._members.get(task)
        if member is None:
            return kind_of(task)
        group = self.registry.group_of(member)  # with its own shares if the group has no name
        return TaskKind(group.run, group.layer if group.run else group.block, SHARE)

    def _stops(self, key: Key, phase: Phase) -> None:
        self.workload.gone(key)
        self.doubles.note(key, phase)

    # ------------------------------------------------------- adding and forgetting

    def _add(self, event: m.GroupsAdded) -> Iterator[Instruction]:
        added = [self.registry.add(spec) for spec in event.groups]
        for block, members in added:
            for member in members:
                if block is not None and member.state is not ShareStatus.HELD:
                    self.roster.expect(block, member)
        for block, members in added:
            if block is not None:
                self.roster.seat(block)
            for member in members:
                if member.state is ShareStatus.HELD:
                    yield m.Hold(member.key)
                yield from self._place(member)

    def _forget(self, event: m.Forgotten) -> None:
        member = self._members.get(event.key)
        if member is not None:
            self._release(member, event.now)
            self._no_more(member)
            self.registry.forget_share(member)
        node = self._nodes.get(event.key)
        if node is not None:
            self._dirty.pop(node.key, None)
            self.registry.forget_node(node)
        self.workload.gone(event.key)
        self.doubles.forget(event.key)

    # ----------------------------------------------------------------- deciding

    def _settle(self) -> Iterator[Instruction]:
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            if self._nodes[key].state is NodeStatus.WAITING:
                yield from self._cut(self._nodes[key])
        woken, self._woken = self._woken, {}
        for number in woken:
            if number in self.registry.groups:
                yield from self.reserves.start(self.registry.groups[number])
        yield from self.trust.settle()
        for instruction in self.doubles.settle():
            if isinstance(instruction, m.UseBackup):
                self._adopted(instruction)
            yield instruction

    def _cut(self, node: NodeState) -> Iterator[Instruction]:
        """Disconnect a node that has enough from everything else."""
        if node.sent:
            return
        survivors = node.survivors(self.registry.done(node))
        if survivors is None or survivors >= node.edges.keys():
            return
        gone = tuple(key for position, key in node.edges.items() if position not in survivors)
        self.registry.disconnect(node, gone)
        for key in gone:
            if not self._members[key].nodes:  # given up, and its twin with it
                self.doubles.note(key, Phase.GONE)
        yield m.Cut(node.key, gone, tuple(sorted(survivors)))

    def _adopted(self, instruction: m.UseBackup) -> None:
        """Note that a task is taken from its worker, which may be busy with it for long."""
        had = self.workload.gone(instruction.task)
        if had is not None:
            self.roster.note_abandoned(had.worker, instruction.task, had.since)
            self.history.run(had.kind.run).counters.doubles_used += 1

    # ------------------------------------------------------------------ workers

    def _worker_joined(self, event: m.WorkerJoined) -> Iterable[Instruction]:
        self.roster.join(event)
        blocks = self.registry.blocks.values()
        return self._seat_anew([b for b in blocks if _is_crowded(b)], spread=True)

    def _worker_left(self, event: m.WorkerLeft) -> Iterable[Instruction]:
        worker = self.roster.leave(event.worker)
        self.trust.forget(event.worker)
        if worker is None:
            return ()
        what = "removed" if worker.removing else "retired" if event.expected else "lost"
        for history in self._live_histories():
            if what != "retired":
                history.counters.workers_lost += 1
                history.workers_lost.append(worker.address)
            history.events.append({"time": event.now, "event": what, "worker": worker.address})
        blocks = self.registry.blocks.values()
        return self._seat_anew([b for b in blocks if worker.address in b.seats.values()])

    def _drop_run(self, event: m.RunDropped) -> None:
        self.history.drop(event.run)
        self.workload.forget(event.run)

    def _worker_changed(self, event: m.WorkerStatus) -> Iterable[Instruction]:
        """Note that a worker takes tasks now, or none for a while."""
        self.roster.change(event)
        blocks = self.registry.blocks.values()
        if not event.running:  # what has not started there goes to others
            return self._seat_anew([b for b in blocks if event.worker in b.seats.values()])
        return self._seat_anew([b for b in blocks if _is_crowded(b)], spread=True)

    def _seat_anew(
        self, blocks: Iterable[BlockState], spread: bool = False, anew: bool = False
    ) -> Iterator[Instruction]:
        """Fill the seats of some blocks again, and place what has not started."""
        for block in blocks:
            changed = self.roster.seat(block, spread, anew)
            for number in block.groups:
                for member in self.registry.members_of(self.registry.groups[number]):
                    if member.seat in changed:
                        yield from self._place(member)

    def _place(self, member: ShareState) -> Iterable[Instruction]:
        """Place a share that Dask may yet assign to a worker."""
        seats = self.registry.block_of(self.registry.group_of(member)).seats
        movable = (ShareStatus.WAITING, ShareStatus.LOST, ShareStatus.RELEASED)
        if member.state in movable and member.seat in seats:
            return (m.Place(member.key, seats[member.seat]),)
        return ()

    # --------------------------------------------------------------------- time

    def _tick(self, event: m.Tick) -> Iterator[Instruction]:
        for worker in self.roster.listen(event):
            silence = event.now - worker.seen
            reason = f"worker {worker.address} has not been heard of for {silence:.1f} seconds"
            yield m.RemoveWorker(worker.address, reason)
            for history in self._live_histories():
                history.workers_removed.append(worker.address)
        yield from self.trust.settle()
        if self.roster.clock_stalled:
            return
        late = self.workload.late(self.roster.workers, self.lateness, idle=False, now=event.now)
        yield from self._move_seats(self.roster.mark_late(late, event.now))
        yield from self.reserves.replace_late(late, event.now)

    def _move_seats(self, workers: list[WorkerRecord]) -> Iterator[Instruction]:
        """Give away the seats of workers that have become slow or silent."""
        gone = {worker.address for worker in workers}
        if gone and len(gone) < len(self.roster.workers):
            blocks = [b for b in self.registry.blocks.values() if gone & set(b.seats.values())]
            yield from self._seat_anew(blocks, anew=True)

    # ------------------------------------------------------------------ history

    def _run(self, group: GroupState) -> RunHistory:
        return self.history.run(group.run)

    def _live_histories(self) -> list[RunHistory]:
        runs = dict.fromkeys(group.run for group in self.registry.groups.values())
        return [self.history.run(run) for run in runs]

    def _record(
        self, member: ShareState, state: str, worker: str | None, start: float, stop: float
    ) -> None:
        group = self.registry.group_of(member)
        place = (group.layer, group.block, member.position, member.stage)
        self._run(group).shares.append(ShareRecord(*place, worker or "", start, stop, state))


def _is_crowded(block: BlockState) -> bool:
    """Return whether a worker has several seats of a block."""
    return len(set(block.seats.values())) < len(block.wanted_seats)
