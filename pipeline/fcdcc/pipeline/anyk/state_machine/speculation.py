"""What is started elsewhere because a worker is late: shares on standby and backup tasks.

A group whose shares are late gets its standby shares, one for every late share. A task that exists
once (a read, a gather, glue, a write, an any-k node) gets a *backup task*: the same task under
another key on another worker, as in MapReduce or Spark. The first run goes on, and the result that
arrives first is used. There is one backup of a task at a time::

    task     started ──────────────▶ done              the backup is cancelled
    backup        └─ started ─────  ─ ─ ▶

    task     started ──────── ─ ─ ▶ taken back ─▶ started where the backup is ─▶ done
    backup        └─ started ─────▶ done          the task takes its result

Whatever the late worker returns after that, Dask ignores as it does any stale result. The backup
needs the inputs that the task has, so nothing is computed again for it, and both see the same
values. Only tasks with keys of this package (:mod:`fcdcc.pipeline.anyk.keys`) get one: they are
pure, and a write stores the same bytes in the same place, or nothing if the block is recorded
already.

A share gets a backup task in two cases. The first is in place of parity, if parity is known to take
much longer than the share, as it does where a block is split by images, and the share's worker is
not silent. The second is beside parity, if so many shares of its group are late that the others and
all parity together are not enough; then only on a worker that has nothing to do, because running
work twice on busy workers delays everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fcdcc.pipeline.anyk.keys import parse_key

from .events import (
    CancelBackup,
    Instruction,
    Key,
    StartBackup,
    StartShare,
    TaskStatus,
    UseBackup,
    is_ready,
)
from .history import History
from .lateness import PARITY, Lateness
from .registry import BlockState, GroupState, NodeStatus, Registry, ShareState, ShareStatus
from .workers import WorkerRecord, Workers


@dataclass
class _Pair:
    task: Key
    backup: Key
    task_state: TaskStatus = "started"
    backup_state: TaskStatus = "waiting"
    used: bool = False
    """Whether the instruction to use the backup's result was given."""
    taken_back: bool = False
    """Whether the task was released for that."""


class BackupTasks:
    """The tasks that have a backup task."""

    def __init__(self) -> None:
        self._pairs: dict[Key, _Pair] = {}
        self._task_of: dict[Key, Key] = {}
        self._changed: dict[Key, None] = {}
        self._numbers: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def unsettled(self) -> bool:
        """Whether :meth:`settle` may have an instruction."""
        return bool(self._changed)

    def knows(self, key: Key) -> bool:
        """Return whether a key is that of a backup task or of a task that has one."""
        return key in self._pairs or key in self._task_of

    def remembers(self, key: Key) -> bool:
        """Return whether a task has or had a backup, or a key is that of a backup task."""
        return key in self._numbers or key in self._task_of

    def original(self, key: Key) -> Key:
        """Return the task that a backup task belongs to; any other key is returned as it is."""
        return self._task_of.get(key, key)

    def backup_of(self, key: Key) -> Key | None:
        """Return the backup task that a task has now, if any."""
        pair = self._pairs.get(key)
        return None if pair is None else pair.backup

    def is_using_backup(self, key: Key) -> bool:
        """Return whether a task runs only to take the result of its backup task."""
        pair = self._pairs.get(key)
        return pair is not None and pair.used

    def take_back(self, key: Key) -> bool:
        """Return whether a task was released only to take the result of its backup task.

        It is so once: later the task is on the worker of its backup, and may be lost with it.
        """
        pair = self._pairs.get(key)
        if pair is None or not pair.used or pair.taken_back:
            return False
        pair.taken_back = True
        return True

    @staticmethod
    def may_run_twice(key: Key) -> bool:
        """Return whether a task has a key of this package; such tasks are pure."""
        return parse_key(key) is not None

    def start(self, key: Key, worker: str) -> StartBackup:
        """Give a task that was started a backup task on this worker."""
        number = self._numbers[key] = self._numbers.get(key, 0) + 1
        backup: Key = (*key, number) if isinstance(key, tuple) else (key, number)
        self._pairs[key] = _Pair(key, backup)
        self._task_of[backup] = key
        return StartBackup(key, backup, worker)

    def note(self, key: Key, state: TaskStatus) -> None:
        """Note the state of a task or a backup task. Tasks without a backup are ignored."""
        pair = self._pairs.get(self._task_of.get(key, key))
        if pair is None:
            return
        if key == pair.task:
            pair.task_state = state
        else:
            pair.backup_state = state
        self._changed[pair.task] = None

    def forget(self, key: Key) -> None:
        """Note that the scheduler deleted a task."""
        self.note(key, "released")
        self._numbers.pop(key, None)

    def settle(self) -> Iterator[UseBackup | CancelBackup]:
        """Use or cancel the backups whose own state, or whose task's, has changed."""
        changed, self._changed = self._changed, {}
        for key in changed:
            pair = self._pairs.get(key)
            if pair is None:
                continue
            if pair.task_state not in ("waiting", "started"):
                yield from self._end(pair)
            elif pair.used:
                continue
            elif pair.backup_state in ("released", "erred"):
                yield from self._end(pair)
            elif pair.task_state == "started" and pair.backup_state == "done":
                pair.used = True
                yield UseBackup(pair.task, pair.backup)

    def _end(self, pair: _Pair) -> Iterator[CancelBackup]:
        del self._pairs[pair.task]
        del self._task_of[pair.backup]
        if not pair.used:
            yield CancelBackup(pair.backup)


class Speculation:
    """Chooses the shares and backup tasks that start in place of late tasks, and their workers."""

    def __init__(
        self,
        registry: Registry,
        workers: Workers,
        lateness: Lateness,
        backup_tasks: BackupTasks,
        history: History,
    ) -> None:
        self._registry = registry
        self._workers = workers
        self._lateness = lateness
        self._backup_tasks = backup_tasks
        self._history = history

    def start_standby(
        self, group: GroupState, given: dict[str, int] | None = None, most: int | None = None
    ) -> Iterator[Instruction]:
        """Start the standby shares of a group that a node waits for, at most ``most`` of them.

        ``given`` counts the tasks that each worker was given since the last tick.
        """
        given = {} if given is None else given
        block = self._registry.block_of(group)
        shares = self._registry.shares_of(group)
        started = (share for share in shares if share.state is ShareStatus.STARTED)
        taken = {share.worker for share in started if share.worker}
        for key in list(group.held)[:most]:
            share = self._registry.shares[key]
            if self._registry.is_wanted(share):
                del group.held[key]
                share.state, share.from_standby = ShareStatus.WAITING, True
                worker = self._standby_worker(block, share.seat, taken, given)
                taken |= {worker} if worker else set()
                yield StartShare(key, worker)

    def _standby_worker(
        self, block: BlockState, seat: int, taken: set[str], given: dict[str, int]
    ) -> str | None:
        """Return where a standby share runs: at its seat, unless another worker is better."""
        address = block.seats.get(seat)
        worker = self._workers.by_address.get(address or "")
        if worker is not None and not (
            worker.avoid_rank or worker.is_straggler or address in taken
        ):
            return address
        choose = self._workers.choose_spare
        return (
            choose(taken, given, block.allowed_workers)
            or choose((), given, block.allowed_workers)
            or address
        )

    def replace_late(self, late: set[str], now: float) -> Iterator[Instruction]:
        """Start replacements on other workers for needed tasks at late or quiet workers."""
        workers, lateness = self._workers, self._lateness
        quiet = {address for address, worker in workers.by_address.items() if worker.quiet}
        stuck = late | {address for address in quiet if lateness.has_tasks(address)}
        given: dict[str, int] = {}
        yield from self._replace_shares(stuck, given, now)
        idle = [address for address in workers.idle() if not lateness.has_tasks(address)]
        if idle:
            soon_late = lateness.late_workers(workers, idle=True, now=now)
            yield from self._replace_shares(soon_late - stuck, given, now, room=len(idle))
        free = [address for address in idle if address not in given]
        for address in sorted(stuck):
            yield from self._back_up_tasks(address, stuck, given, free, now)

    def _replace_shares(
        self, stuck: set[str], given: dict[str, int], now: float, room: int | None = None
    ) -> Iterator[Instruction]:
        """Start one backup task or standby share for every share at a stuck worker.

        At most ``room`` of them.
        """
        for group in [g for g in self._registry.groups.values() if g.held] if stuck else ():
            missing = self._missing(group, stuck)
            if missing > 0:
                most = missing if room is None else min(missing, room)
                started = list(self._back_up_cheap_shares(group, stuck, given, most, now))
                started += self.start_standby(group, given, most - len(started))
                if started:
                    late = {"event": "late", "layer": group.layer, "block": group.block}
                    self._history.run(group.run).events.append({"time": now} | late)
                room = None if room is None else room - len(started)
                yield from started
            if room == 0:
                return

    def _missing(self, group: GroupState, stuck: set[str]) -> int:
        """Return how many shares of a group are stuck, less those that were started for them."""
        count = 0
        for share in self._registry.shares_of(group):
            if self._stuck_at(share, stuck):
                count += 1
            elif share.from_standby and share.state in (ShareStatus.WAITING, ShareStatus.STARTED):
                count -= 1
        return count

    def _stuck_at(self, share: ShareState, stuck: set[str]) -> WorkerRecord | None:
        """Return the worker that a share is stuck at, unless its backup task replaces it.

        A backup does not replace a share at a quiet worker: that worker may be the only one that
        holds the inputs.
        """
        worker = self._workers.by_address.get(share.worker or "")
        if share.state is not ShareStatus.STARTED or worker is None or share.worker not in stuck:
            return None
        backup = self._backup_tasks.backup_of(share.key)
        if backup is None or worker.quiet:
            return worker
        assignment = self._lateness.assigned.get(backup)
        return worker if assignment is not None and assignment.worker in stuck else None

    def _back_up_cheap_shares(
        self, group: GroupState, stuck: set[str], given: dict[str, int], most: int, now: float
    ) -> Iterator[Instruction]:
        """Start backups of stuck shares for which parity takes much longer."""
        allowed_workers = self._registry.block_of(group).allowed_workers
        taken = set(stuck)
        for share in list(self._registry.shares_of(group)):
            worker = self._stuck_at(share, stuck) if most else None
            if worker is not None and not worker.quiet and self._is_cheaper_than_parity(share):
                other = self._workers.choose_spare(taken, given, allowed_workers)
                if other is None:
                    return
                most -= 1
                taken.add(other)
                yield self._start_backup(share.key, other, now)

    def _is_cheaper_than_parity(self, share: ShareState) -> bool:
        """Return whether a share may get a backup task that takes much less time than parity."""
        assignment = self._lateness.assigned.get(share.key)
        if assignment is None or share.stage == PARITY or self._backup_tasks.knows(share.key):
            return False
        parity = assignment.category._replace(stage=PARITY)
        return self._backup_tasks.may_run_twice(share.key) and (
            self._lateness.is_more_expensive(parity, assignment.category)
        )

    def _back_up_tasks(
        self, address: str, stuck: set[str], given: dict[str, int], free: list[str], now: float
    ) -> Iterator[Instruction]:
        """Start backups of tasks other than shares, and of shares that nothing else can replace."""
        for key, _ in list(self._lateness.tasks_of(address)):
            if self._backup_tasks.knows(key) or not self._backup_tasks.may_run_twice(key):
                continue
            share = self._registry.shares.get(key)
            if share is None:
                worker = self._workers.choose_spare(stuck, given)
            else:
                worker = free[-1] if free and self._is_irreplaceable(share, stuck) else None
            if worker is None:
                continue
            if worker in free:
                free.remove(worker)
            yield self._start_backup(key, worker, now)

    def _start_backup(self, key: Key, worker: str, now: float) -> Instruction:
        assignment = self._lateness.assigned[key]
        category = assignment.category
        history = self._history.run(category.run)
        history.counters.tasks_doubled += 1
        history.events.append(
            {"time": now, "event": "doubled", "worker": assignment.worker, "elsewhere": worker}
            | {"stage": category.stage.partition("-")[0], "layer": category.layer}
        )
        return self._backup_tasks.start(key, worker)

    def _is_irreplaceable(self, share: ShareState, stuck: set[str]) -> bool:
        """Return whether a node waits for a late share because too many others are late as well.

        False for a node without redundancy: it waits for all of its shares, late or not.
        """
        shares = self._registry.shares
        for node in (self._registry.nodes[key] for key in share.nodes):
            others = node.edges.keys() - {share.position}
            if node.state is NodeStatus.WAITING and is_ready(node.enough, node.own, others):
                coming = {p for p in others if self._is_coming(shares[node.edges[p]], stuck)}
                if not is_ready(node.enough, node.own, coming):
                    return True
        return False

    def _is_coming(self, share: ShareState, stuck: set[str]) -> bool:
        """Return whether a share is done or may be soon."""
        if share.state is ShareStatus.STARTED:
            return share.worker not in stuck or self._backup_tasks.knows(share.key)
        return share.state in (ShareStatus.WAITING, ShareStatus.DONE, ShareStatus.LOST)
