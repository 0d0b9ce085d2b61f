"""What is started elsewhere because a worker is late: shares in reserve, and twins of tasks.

A share gets a twin in place of parity where parity is known to take much longer, as it does when
a block is split by images, and its worker is heard of. Else only when nothing else helps, because
so many of its group are late that the others, with all that was in reserve, are not enough; and
then only on a worker that has nothing to do: where all are busy, doing work twice makes everything
later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import events as m
from .entities import (
    BlockState,
    GroupState,
    NodeStatus,
    ShareState,
    ShareStatus,
    WorkerRecord,
)
from .events import Instruction, Key
from .lateness import PARITY
from .readiness import is_ready

if TYPE_CHECKING:
    from .state import AnyKState


class Speculation:
    """What a state machine has to put in the place of what is late."""

    def __init__(self, state: AnyKState) -> None:
        self._state = state
        self._known = state.registry
        self._roster = state.roster

    def start(
        self, group: GroupState, given: dict[str, int] | None = None, most: int | None = None
    ) -> Iterator[Instruction]:
        """Start what a group has in reserve and somebody waits for, at most so many shares.

        A share whose seat is with a worker that is not to be relied on goes to another.
        """
        given = {} if given is None else given
        block = self._known.block_of(group)
        members = self._known.members_of(group)
        started = (item for item in members if item.state is ShareStatus.STARTED)
        taken = {item.worker for item in started if item.worker}
        for key in list(group.held)[:most]:
            member = self._known.members[key]
            if self._known.is_wanted(member):
                del group.held[key]
                member.state, member.reserve = ShareStatus.WAITING, True
                worker = self._reserve_worker(block, member.seat, taken, given)
                taken |= {worker} if worker else set()
                yield m.Start(key, worker)

    def _reserve_worker(
        self, block: BlockState, number: int, taken: set[str], given: dict[str, int]
    ) -> str | None:
        """Return where a share in reserve runs: at its seat, if that is as good as any."""
        seat, spare = block.seats.get(number), self._roster.spare
        worker = self._roster.workers.get(seat or "")
        if worker is not None and not (worker.avoided or worker.slow or seat in taken):
            return seat
        return (
            spare(taken, given, block.allowed_workers)
            or spare((), given, block.allowed_workers)
            or seat
        )

    def replace_late(self, late: set[str], now: float) -> Iterator[Instruction]:
        """Start elsewhere what others wait for at workers that are late or silent."""
        roster, workload = self._roster, self._state.workload
        quiet = {address for address, worker in roster.workers.items() if worker.quiet}
        stuck = late | {address for address in quiet if workload.has(address)}
        given: dict[str, int] = {}
        yield from self._start_reserves(stuck, given, now)
        idle = [address for address in roster.idle() if not workload.has(address)]
        if idle:
            soon = workload.late(roster.workers, self._state.lateness, idle=True, now=now)
            yield from self._start_reserves(soon - stuck, given, now, room=len(idle))
        free = [address for address in idle if address not in given]
        for address in sorted(stuck):
            yield from self._double(address, stuck, given, free, now)

    def _start_reserves(
        self, stuck: set[str], given: dict[str, int], now: float, room: int | None = None
    ) -> Iterator[Instruction]:
        """Start one share in reserve for every one that a worker which is stuck has."""
        for group in [g for g in self._known.groups.values() if g.held] if stuck else ():
            missing = self._missing(group, stuck)
            if missing > 0:
                most = missing if room is None else min(missing, room)
                started = list(self._repeat(group, stuck, given, most, now))
                started += self.start(group, given, most - len(started))
                if started:
                    late = {"event": "late", "layer": group.layer, "block": group.block}
                    self._state.history.run(group.run).events.append({"time": now} | late)
                room = None if room is None else room - len(started)
                yield from started
            if room == 0:
                return

    def _missing(self, group: GroupState, stuck: set[str]) -> int:
        """Return how many of a group's shares are stuck, less those that were started for them."""
        count = 0
        for member in self._known.members_of(group):
            if self._stuck_at(member, stuck):
                count += 1
            elif member.reserve and member.state in (ShareStatus.WAITING, ShareStatus.STARTED):
                count -= 1
        return count

    def _stuck_at(self, member: ShareState, stuck: set[str]) -> WorkerRecord | None:
        """Return the worker that a share is stuck at, unless its twin stands in for it.

        What a silent worker has may be all that the twin could be made from.
        """
        worker = self._roster.workers.get(member.worker or "")
        if member.state is not ShareStatus.STARTED or worker is None or member.worker not in stuck:
            return None
        backup = self._state.doubles.backup_of(member.key)
        if backup is None or worker.quiet:
            return worker
        elsewhere = self._state.workload.assigned.get(backup)
        return worker if elsewhere is not None and elsewhere.worker in stuck else None

    def _repeat(
        self, group: GroupState, stuck: set[str], given: dict[str, int], most: int, now: float
    ) -> Iterator[Instruction]:
        """Start shares that are stuck again elsewhere, if parity takes much longer than they."""
        allowed_workers, taken = self._known.block_of(group).allowed_workers, set(stuck)
        for member in list(self._known.members_of(group)):
            worker = self._stuck_at(member, stuck) if most else None
            if worker is not None and not worker.quiet and self._is_cheaper(member):
                elsewhere = self._roster.spare(taken, given, allowed_workers)
                if elsewhere is None:
                    return
                most -= 1
                taken.add(elsewhere)
                yield self._start_backup(member.key, elsewhere, now)

    def _is_cheaper(self, member: ShareState) -> bool:
        """Return whether a share may have a twin, and that takes much less time than parity."""
        workload, doubles = self._state.workload, self._state.doubles
        entry = workload.assigned.get(member.key)
        if entry is None or member.stage == PARITY or doubles.knows(member.key):
            return False
        parity = entry.kind._replace(stage=PARITY)
        return doubles.may_double(member.key) and workload.is_dearer(parity, entry.kind)

    def _double(
        self, address: str, stuck: set[str], given: dict[str, int], free: list[str], now: float
    ) -> Iterator[Instruction]:
        """Start again elsewhere what exists once, and shares that nothing can stand in for."""
        state = self._state
        for key, _ in list(state.workload.tasks_of(address)):
            if state.doubles.knows(key) or not state.doubles.may_double(key):
                continue
            member = self._known.members.get(key)
            if member is None:
                worker = self._roster.spare(stuck, given)
            else:
                worker = free[-1] if free and self._is_missed(member, stuck) else None
            if worker is None:
                continue
            if worker in free:
                free.remove(worker)
            yield self._start_backup(key, worker, now)

    def _start_backup(self, key: Key, elsewhere: str, now: float) -> Instruction:
        """Give a task that a worker has a twin elsewhere."""
        entry = self._state.workload.assigned[key]
        history = self._state.history.run(entry.kind.run)
        history.counters.tasks_doubled += 1
        history.events.append(
            {"time": now, "event": "doubled", "worker": entry.worker, "elsewhere": elsewhere}
            | {"stage": entry.kind.stage.partition("-")[0], "layer": entry.kind.layer}
        )
        return self._state.doubles.begin(key, elsewhere)

    def _is_missed(self, member: ShareState, stuck: set[str]) -> bool:
        """Return whether a node waits for a late share because too many others are late as well.

        A node without redundancy waits for all of its shares, late or not.
        """
        for node in (self._known.nodes[key] for key in member.nodes):
            others = node.edges.keys() - {member.position}
            if node.state is NodeStatus.WAITING and is_ready(node.enough, node.own, others):
                coming = {
                    p for p in others if self._comes(self._known.members[node.edges[p]], stuck)
                }
                if not is_ready(node.enough, node.own, coming):
                    return True
        return False

    def _comes(self, member: ShareState, stuck: set[str]) -> bool:
        """Return whether a share is there or may be soon."""
        if member.state is ShareStatus.STARTED:
            return member.worker not in stuck or self._state.doubles.knows(member.key)
        return member.state in (ShareStatus.WAITING, ShareStatus.DONE, ShareStatus.LOST)
