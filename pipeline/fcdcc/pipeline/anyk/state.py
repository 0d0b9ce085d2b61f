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
again when it is lost before the node ran; the node is then not ready, and waits.

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

Silence
    A stopped worker keeps its connections open, and what it holds seems to be there. A worker
    that is needed and has not been heard of for longer than a rule allows is removed
    (:mod:`.rules`). Time during which the scheduler itself was not listening does not count,
    and when nobody at all is heard of, nobody is removed: then it is not the workers.

Standby
    A held share starts when a share of its group was lost, when a worker of its group stays
    silent, or when the group is late by a rule: when a worker that has one of its shares
    returns nothing for much longer than the others took. A worker with a queue is not late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import singledispatchmethod

from fcdcc.pipeline.keys import parse_key

from . import messages as m
from .entities import Block, Group, Member, MemberState, Node, NodeState
from .history import GroupRecord, History, RunHistory, ShareRecord
from .messages import Event, Instruction, Key
from .roster import Roster
from .rules import FixedSilence, LateByMedian, LatenessRule, SilenceRule
from .validation import check_state

__all__ = ["AnyKState"]


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
        self.lateness = lateness or LateByMedian()
        self.roster = Roster(silence or FixedSilence())
        self.members: dict[Key, Member] = {}
        self.nodes: dict[Key, Node] = {}
        self.groups: dict[int, Group] = {}
        self.blocks: dict[tuple[str, int], Block] = {}
        self.history = History()
        self.events: list[Event] | None = [] if record else None
        self._dirty: dict[Key, None] = {}
        self._woken: dict[int, None] = {}
        self._next_group = 0

    @property
    def unsettled(self) -> bool:
        """Whether :class:`.messages.Settle` may have an answer."""
        return bool(self._dirty or self._woken)

    def handle(self, event: Event) -> tuple[Instruction, ...]:
        """Take note of an event and return what to do.

        Only ``Settle`` and ``Tick`` are answered with more than places and holds. Events
        about shares, nodes and workers that are not known change nothing.
        """
        if self.events is not None:
            self.events.append(event)
        return tuple(self._handle(event))

    def validate(self) -> None:
        """Check that everything fits together; for tests.

        Raises
        ------
        AssertionError
            Saying what does not.
        """
        check_state(self)

    @singledispatchmethod
    def _handle(self, event: Event) -> Iterable[Instruction]:
        raise TypeError(f"{event!r} is not an event of the any-k state machine")

    # ------------------------------------------------------------------ groups

    @_handle.register
    def _(self, event: m.GroupsAdded) -> Iterator[Instruction]:
        for spec in event.groups:
            yield from self._add_group(spec)

    def _add_group(self, spec: m.GroupSpec) -> Iterator[Instruction]:
        """Add what is new of a group; a graph may name tasks that are known already."""
        nodes = [node for node in spec.nodes if node.key not in self.nodes]
        inputs = dict.fromkeys(key for node in nodes for _, key in node.edges)
        if not inputs:
            return
        group = self._group_of(inputs, spec)
        block = self.blocks[group.run, group.block]
        shares = [share for share in spec.shares if share.key in inputs]
        added = [self._add_share(share, group) for share in shares if share.key not in self.members]
        for item in nodes:
            self._add_node(item, group)
        block.wanted_seats.update(member.seat for member in added)
        self.roster.seat(block)
        for member in added:
            if member.state is MemberState.HELD:
                yield m.Hold(member.key)
            yield from self._place(member)

    def _group_of(self, shares: Iterable[Key], spec: m.GroupSpec) -> Group:
        """Return the group that one of the shares is in already, or a new one."""
        for key in shares:
            known = self.members.get(key)
            if known is not None:
                return self.groups[known.group]
        group = Group(self._next_group, spec.run, spec.layer, spec.block)
        self._next_group += 1
        self.groups[group.number] = group
        new_block = Block(spec.run, spec.block, spec.rotation)
        block = self.blocks.setdefault((spec.run, spec.block), new_block)
        block.groups[group.number] = None
        return group

    def _add_share(self, spec: m.ShareSpec, group: Group) -> Member:
        parsed = parse_key(spec.key)
        stage = "share" if parsed is None else parsed.stage
        member = Member(spec.key, group.number, spec.position, spec.seat, stage)
        if spec.held:
            member.state = MemberState.HELD
            group.held[spec.key] = None
        self.members[spec.key] = member
        group.shares[spec.key] = None
        return member

    def _add_node(self, spec: m.NodeSpec, group: Group) -> None:
        edges = dict(spec.edges)
        node = Node(spec.key, group.number, edges, spec.enough, spec.own, spec.plain)
        self.nodes[node.key] = node
        group.nodes[node.key] = group.unfinished[node.key] = None
        for key in edges.values():
            self.members[key].nodes[node.key] = None

    # ------------------------------------------------------------------ shares

    @_handle.register
    def _(self, event: m.ShareWaiting) -> Iterable[Instruction]:
        member = self.members.get(event.share)
        if member is not None and member.state is not MemberState.HELD:
            member.state, member.worker = MemberState.WAITING, None
        return ()

    @_handle.register
    def _(self, event: m.ShareStarted) -> Iterable[Instruction]:
        member = self.members.get(event.share)
        if member is None:
            return ()
        group = self.groups[member.group]
        group.held.pop(member.key, None)
        if group.started is None:
            group.started = event.now
        if member.stage == "parity" and member.attempts == 0:
            self._run(group).counters.parity_started += 1
        member.state, member.worker = MemberState.STARTED, event.worker
        member.since = event.now
        member.attempts += 1
        return ()

    @_handle.register
    def _(self, event: m.ShareDone) -> Iterable[Instruction]:
        self.roster.delivered(event.worker, event.start, event.now)
        member = self.members.get(event.share)
        if member is None:
            return ()
        group = self.groups[member.group]
        group.held.pop(member.key, None)
        member.state, member.worker = MemberState.DONE, event.worker
        group.durations[member.key] = event.stop - event.start
        self._record(member, "done", event.worker, event.start, event.stop)
        self._dirty.update(member.nodes)
        return ()

    @_handle.register
    def _(self, event: m.ShareReleased) -> Iterable[Instruction]:
        member = self.members.get(event.share)
        if member is not None:
            self._release(member, event.now)
        return ()

    @_handle.register
    def _(self, event: m.ShareErred) -> Iterable[Instruction]:
        member = self.members.get(event.share)
        if member is not None:
            if member.state is MemberState.STARTED:
                self._record(member, "erred", member.worker, member.since, event.now)
            member.state, member.worker = MemberState.ERRED, None
        return ()

    def _release(self, member: Member, now: float) -> None:
        """Find out why a share is neither running nor in memory any more."""
        before, worker = member.state, member.worker
        if before in (MemberState.HELD, MemberState.ERASED):
            return
        group = self.groups[member.group]
        group.durations.pop(member.key, None)
        member.state, member.worker = MemberState.RELEASED, None
        if before is MemberState.STARTED:
            self.roster.haunt(worker, member.key, now)
        if self._wanted(member):
            if before in (MemberState.STARTED, MemberState.DONE):
                member.state = MemberState.LOST
                self._run(group).counters.shares_lost += 1
                self._record(member, "lost", worker, member.since, now)
                if group.held:
                    self._woken[group.number] = None
        elif before is MemberState.STARTED and member.cut and not member.nodes:
            member.state = MemberState.ERASED
            self._run(group).counters.erasures += 1
            self._record(member, "erased", worker, member.since, now)

    def _wanted(self, member: Member) -> bool:
        """Return whether a node that is connected to a share waits for it or runs with it."""
        wanting = (NodeState.WAITING, NodeState.STARTED)
        return any(self.nodes[key].state in wanting for key in member.nodes)

    # ------------------------------------------------------------------- nodes

    @_handle.register
    def _(self, event: m.NodeWaiting) -> Iterable[Instruction]:
        self._set_node(event.node, NodeState.WAITING)
        return ()

    @_handle.register
    def _(self, event: m.NodeStarted) -> Iterable[Instruction]:
        self._set_node(event.node, NodeState.STARTED)
        return ()

    @_handle.register
    def _(self, event: m.NodeReleased) -> Iterable[Instruction]:
        self._set_node(event.node, NodeState.IDLE)
        return ()

    @_handle.register
    def _(self, event: m.NodeErred) -> Iterable[Instruction]:
        self._set_node(event.node, NodeState.ERRED)
        return ()

    @_handle.register
    def _(self, event: m.NodeDone) -> Iterable[Instruction]:
        self._set_node(event.node, NodeState.DONE)
        node = self.nodes.get(event.node)
        if node is None:
            return ()
        group = self.groups[node.group]
        if node.key in group.unfinished:
            del group.unfinished[node.key]
            group.solved |= node.solves(frozenset(node.edges))
            if not group.unfinished:
                self._complete(group, event.now)
        return ()

    def _set_node(self, key: Key, state: NodeState) -> None:
        node = self.nodes.get(key)
        if node is not None:
            node.state = state
            if state is NodeState.WAITING:
                self._dirty[key] = None

    def _complete(self, group: Group, now: float) -> None:
        history = self._run(group)
        history.counters.groups += 1
        history.counters.decodes += group.solved
        start = now if group.started is None else group.started
        history.groups.append(GroupRecord(group.layer, group.block, start, now, group.solved))

    # --------------------------------------------------------------- forgetting

    @_handle.register
    def _(self, event: m.Forgotten) -> Iterable[Instruction]:
        if event.key in self.members:
            self._forget_share(self.members[event.key], event.now)
        if event.key in self.nodes:
            self._forget_node(self.nodes[event.key])
        return ()

    @_handle.register
    def _(self, event: m.RunDropped) -> Iterable[Instruction]:
        self.history.drop(event.run)
        return ()

    def _forget_share(self, member: Member, now: float) -> None:
        self._release(member, now)
        del self.members[member.key]
        for key in member.nodes:
            edges = self.nodes[key].edges
            self.nodes[key].edges = {p: k for p, k in edges.items() if k != member.key}
        group = self.groups[member.group]
        del group.shares[member.key]
        group.held.pop(member.key, None)
        self._tidy(group)

    def _forget_node(self, node: Node) -> None:
        del self.nodes[node.key]
        self._dirty.pop(node.key, None)
        for key in node.edges.values():
            del self.members[key].nodes[node.key]
        group = self.groups[node.group]
        del group.nodes[node.key]
        group.unfinished.pop(node.key, None)
        self._tidy(group)

    def _tidy(self, group: Group) -> None:
        """Forget a group, and its block, when nothing is left of it."""
        if group.shares or group.nodes:
            return
        del self.groups[group.number]
        self._woken.pop(group.number, None)
        block = self.blocks[group.run, group.block]
        del block.groups[group.number]
        if not block.groups:
            del self.blocks[group.run, group.block]

    # ----------------------------------------------------------------- deciding

    @_handle.register
    def _(self, _event: m.Settle) -> Iterator[Instruction]:
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            if self.nodes[key].state is NodeState.WAITING:
                yield from self._cut(self.nodes[key])
        woken, self._woken = self._woken, {}
        for number in woken:
            yield from self._start_held(self.groups[number])

    def _cut(self, node: Node) -> Iterator[Instruction]:
        """Disconnect a node that has enough from everything else."""
        done = {p for p, key in node.edges.items() if self.members[key].state is MemberState.DONE}
        survivors = node.survivors(frozenset(done))
        if survivors is None or survivors >= node.edges.keys():
            return
        gone = [key for position, key in node.edges.items() if position not in survivors]
        node.edges = {position: node.edges[position] for position in survivors}
        for key in gone:
            member = self.members[key]
            del member.nodes[node.key]
            member.cut = True
        yield m.Cut(node.key, tuple(gone), tuple(sorted(survivors)))

    def _start_held(self, group: Group) -> Iterator[Instruction]:
        """Start everything that a group has in reserve and that somebody waits for."""
        seats = self.blocks[group.run, group.block].seats
        for key in list(group.held):
            member = self.members[key]
            if self._wanted(member):
                del group.held[key]
                member.state = MemberState.WAITING
                yield m.Start(key, seats.get(member.seat))

    # ------------------------------------------------------------------ workers

    @_handle.register
    def _(self, event: m.WorkerJoined) -> Iterable[Instruction]:
        self.roster.join(event)
        crowded = (b for b in self.blocks.values() if len(set(b.seats.values())) < len(b.seats))
        unseated = (b for b in self.blocks.values() if not b.seats)
        return self._seat_anew([*crowded, *unseated], spread=True)

    @_handle.register
    def _(self, event: m.WorkerLeft) -> Iterable[Instruction]:
        worker = self.roster.leave(event.worker)
        if worker is None:
            return ()
        what = "removed" if worker.removing else "retired" if event.expected else "lost"
        for history in self._live_histories():
            if what != "retired":
                history.counters.workers_lost += 1
                history.workers_lost.append(worker.address)
            history.events.append({"time": event.now, "event": what, "worker": worker.address})
        bereft = [b for b in self.blocks.values() if worker.address in b.seats.values()]
        return self._seat_anew(bereft)

    def _seat_anew(self, blocks: Iterable[Block], spread: bool = False) -> Iterator[Instruction]:
        """Fill the seats of some blocks again, and place what has not started."""
        for block in blocks:
            changed = self.roster.seat(block, spread)
            for number in block.groups:
                for key in self.groups[number].shares:
                    if self.members[key].seat in changed:
                        yield from self._place(self.members[key])

    def _place(self, member: Member) -> Iterable[Instruction]:
        """Place a share that Dask may yet assign to a worker."""
        group = self.groups[member.group]
        seats = self.blocks[group.run, group.block].seats
        movable = (MemberState.WAITING, MemberState.LOST, MemberState.RELEASED)
        if member.state in movable and member.seat in seats:
            return (m.Place(member.key, seats[member.seat]),)
        return ()

    @_handle.register
    def _(self, event: m.Tick) -> Iterator[Instruction]:
        for worker in self.roster.listen(event):
            silence = event.now - worker.seen
            reason = f"worker {worker.address} has not been heard of for {silence:.1f} seconds"
            yield m.RemoveWorker(worker.address, reason)
            for history in self._live_histories():
                history.workers_removed.append(worker.address)
        for group in [group for group in self.groups.values() if group.held]:
            if self._is_late(group, event.now):
                yield from self._start_held(group)

    def _is_late(self, group: Group, now: float) -> bool:
        """Return whether a group waits for a silent worker, or too long by the rule."""
        if group.started is None:
            return False
        members = (self.members[key] for key in group.shares)
        started = [member for member in members if member.state is MemberState.STARTED]
        if any(self.roster.is_quiet(member.worker) for member in started):
            return True
        stalled = [self.roster.stalled(item.worker, item.since, now) for item in started]
        durations = list(group.durations.values())
        return self.lateness.is_late(max(stalled, default=0.0), durations, len(started))

    # ------------------------------------------------------------------ history

    def _run(self, group: Group) -> RunHistory:
        return self.history.run(group.run)

    def _live_histories(self) -> list[RunHistory]:
        return [self.history.run(run) for run in {g.run: None for g in self.groups.values()}]

    def _record(
        self, member: Member, state: str, worker: str | None, start: float, stop: float
    ) -> None:
        group = self.groups[member.group]
        self._run(group).shares.append(
            ShareRecord(
                group.layer,
                group.block,
                member.position,
                member.stage,
                worker or "",
                start,
                stop,
                state,
            )
        )
