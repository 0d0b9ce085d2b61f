"""A small model of Dask's scheduler, for tests of the any-k state machine without a cluster."""

from __future__ import annotations

from collections.abc import Iterable

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.events import Instruction, Key
from fcdcc.pipeline.anyk.state_machine.invariants import check_state
from fcdcc.pipeline.anyk.state_machine.lateness import LateByHistory
from fcdcc.pipeline.anyk.state_machine.state import AnyKState


class ModelShare:
    def __init__(self, key: Key) -> None:
        self.key = key
        self.state = "waiting"
        self.worker: str | None = None
        self.place: str | None = None
        self.held = False
        self.was_lost = False
        self.from_standby = False
        self.dependents: set[Key] = set()
        self.cut = False
        self.since = 0.0


class ModelNode:
    def __init__(self, key: Key, shares: Iterable[Key]) -> None:
        self.key = key
        self.shares = list(shares)
        self.state = "waiting"
        self.worker: str | None = None
        self.sent: set[Key] | None = None  # the inputs that workers know


class ModelDask:
    """The part of Dask's scheduler that the state machine can observe."""

    def __init__(self, workers: Iterable[str], record: bool = True) -> None:
        self.machine = AnyKState(record=record)
        self.instructions: list[Instruction] = []
        self.now = 0.0
        self.shares: dict[Key, ModelShare] = {}
        self.nodes: dict[Key, ModelNode] = {}
        self.workers: list[str] = []
        self.backups: dict[Key, events.StartBackup] = {}
        self.erasures = 0
        for name in workers:
            self.join(name)

    # ------------------------------------------------------------------- events

    def report(self, event: events.Event) -> tuple[Instruction, ...]:
        instructions = self.machine.handle(event)
        self.instructions += instructions
        for item in instructions:
            if isinstance(item, events.PlaceShare):
                share = self.shares[item.share]
                assert share.state in ("waiting", "released")
                assert item.worker in self.workers
                share.place = item.worker
            elif isinstance(item, events.HoldShare):
                self.shares[item.share].held = True
        return instructions

    def join(self, name: str) -> None:
        self.workers.append(name)
        self.report(events.WorkerJoined(self.now, name, name.split(":")[0], 1))

    def add(
        self,
        block: int,
        n: int,
        enough: int,
        layer: int = 0,
        parts: bool = False,
        standby: Iterable[int] = (),
    ) -> list[Key]:
        keys = {p: ("share-r", layer, block, p) for p in range(n)}
        for p in standby:
            keys[p] = ("parity-r", layer, block, p)
        for key in keys.values():
            self.shares[key] = ModelShare(key)
        if parts:
            owners = [p for p in range(n) if p not in set(standby)]
            specs = [
                events.NodeSpec(("part-r", layer, block, p), tuple(keys.items()), enough, own=p)
                for p in owners
            ]
        else:
            specs = [events.NodeSpec(("decode-r", layer, block, 0), tuple(keys.items()), enough)]
        for spec in specs:
            self.nodes[spec.key] = ModelNode(spec.key, keys.values())
            for key in keys.values():
                self.shares[key].dependents.add(spec.key)
        shares = tuple(events.ShareSpec(key, p, p, p in set(standby)) for p, key in keys.items())
        group = events.GroupSpec("r", layer, block, block, shares, tuple(specs))
        self.report(events.GroupsAdded(self.now, (group,)))
        for spec in specs:
            self.report(events.TaskChanged(self.now, spec.key, "node", "waiting"))
        for key in keys.values():
            self.report(events.TaskChanged(self.now, key, "share", "waiting"))
        return [spec.key for spec in specs]

    def startable(self) -> list[Key]:
        return [k for k, s in self.shares.items() if s.state == "waiting" and not s.held]

    def running(self) -> list[Key]:
        return [k for k, s in self.shares.items() if s.state == "running"]

    def start(self, key: Key) -> None:
        share = self.shares[key]
        assert self.workers
        share.worker = share.place if share.place in self.workers else self.workers[0]
        share.state, share.since = "running", self.now
        self.report(events.TaskChanged(self.now, key, "share", "started", share.worker))

    def finish(self, key: Key) -> None:
        share = self.shares[key]
        assert share.worker is not None
        share.state = "done"
        self.report(
            events.TaskChanged(self.now, key, "share", "done", share.worker, share.since, self.now)
        )
        for name in share.dependents:
            self._maybe_run(self.nodes[name])
        self._release_if_unused(share)

    def settle(self) -> None:
        while self.machine.unsettled:
            self.carry_out(self.report(events.Settle(self.now)))

    def carry_out(self, instructions: Iterable[Instruction]) -> None:
        for item in instructions:
            if isinstance(item, events.DisconnectNode):
                self._disconnect(self.nodes[item.node], item)
            elif isinstance(item, events.StartShare):
                assert self.shares[item.share].held
                self.shares[item.share].held = False
                self.shares[item.share].from_standby = True
                self.shares[item.share].place = item.worker
            elif isinstance(item, events.RemoveWorker):
                self.leave(item.worker)
            elif isinstance(item, events.StartBackup):
                assert item.task in self.shares
                assert self.shares[item.task].state == "running"
                self.backups[item.backup] = item
                self.report(
                    events.TaskChanged(self.now, item.backup, "task", "started", item.worker)
                )
            elif isinstance(item, events.UseBackup):
                self._use_backup(self.shares[item.task], self.backups.pop(item.backup))
            elif isinstance(item, events.CancelBackup) and self.backups.pop(item.backup, None):
                self.report(events.Forgotten(self.now, item.backup))

    def finish_backup(self, key: Key) -> None:
        self.report(events.TaskChanged(self.now, key, "task", "done", self.backups[key].worker))

    def _use_backup(self, share: ModelShare, backup: events.StartBackup) -> None:
        assert share.state == "running"
        assert share.key == backup.task
        self.erasures += 1
        self.report(events.TaskChanged(self.now, share.key, "share", "released"))
        self.report(events.TaskChanged(self.now, share.key, "share", "waiting"))
        share.worker, share.since = backup.worker, self.now
        self.report(events.TaskChanged(self.now, share.key, "share", "started", share.worker))

    def finish_node(self, key: Key) -> None:
        node = self.nodes[key]
        node.state = "done"
        self.report(events.TaskChanged(self.now, key, "node", "done"))
        for name in node.shares:
            self._release_if_unused(self.shares[name])

    def forget(self, key: Key) -> None:
        """Forget a node because no client wants it any more."""
        node = self.nodes.pop(key)
        self.report(events.Forgotten(self.now, key))
        for name in node.shares:
            self.shares[name].cut = False
            self.shares[name].dependents.discard(key)
            self._forget_if_unused(self.shares[name])

    def leave(self, name: str) -> None:
        self.workers.remove(name)
        for share in list(self.shares.values()):
            if share.worker == name and share.state in ("running", "done"):
                self._lose(share)
        for key in [key for key, backup in self.backups.items() if backup.worker == name]:
            del self.backups[key]
            self.report(events.TaskChanged(self.now, key, "task", "released"))
        for node in list(self.nodes.values()):
            if node.worker == name and node.state in ("running", "done"):
                self.report(events.TaskChanged(self.now, node.key, "node", "released"))
                self._wait(node)
        self.report(events.WorkerLeft(self.now, name))

    # ------------------------------------------------------------- consequences

    def _lose(self, share: ModelShare) -> None:
        share.state, share.worker = "released", None
        share.was_lost = share.was_lost or bool(self._waiters(share))
        self.report(events.TaskChanged(self.now, share.key, "share", "released"))
        for name in sorted(share.dependents):
            if self.nodes[name].state == "running":
                self.report(events.TaskChanged(self.now, name, "node", "released"))
                self._wait(self.nodes[name])
        if self._waiters(share):
            self._want(share)

    def _wait(self, node: ModelNode) -> None:
        node.state, node.worker = "waiting", None
        self.report(events.TaskChanged(self.now, node.key, "node", "waiting"))
        for name in node.shares:
            if self.shares[name].state == "released":
                self._want(self.shares[name])
        self._maybe_run(node)

    def _want(self, share: ModelShare) -> None:
        share.state = "waiting"
        self.report(events.TaskChanged(self.now, share.key, "share", "waiting"))

    def _waiters(self, share: ModelShare) -> list[Key]:
        return [k for k in share.dependents if self.nodes[k].state in ("waiting", "running")]

    def _maybe_run(self, node: ModelNode) -> None:
        there = all(self.shares[name].state == "done" for name in node.shares)
        if node.state == "waiting" and there and self.workers:
            assert node.sent in (None, set(node.shares))
            node.state, node.worker, node.sent = "running", self.workers[0], set(node.shares)
            self.report(events.TaskChanged(self.now, node.key, "node", "started"))

    def _release_if_unused(self, share: ModelShare) -> None:
        if share.state in ("running", "done") and not self._waiters(share):
            share.state, share.worker = "released", None
            self.report(events.TaskChanged(self.now, share.key, "share", "released"))

    def _forget_if_unused(self, share: ModelShare) -> None:
        if share.dependents:
            return self._release_if_unused(share)
        if share.state in ("running", "done"):
            was_late = not share.was_lost and not share.from_standby
            self.erasures += share.state == "running" and share.cut and was_late
            self.report(events.TaskChanged(self.now, share.key, "share", "released"))
        del self.shares[share.key]
        self.report(events.Forgotten(self.now, share.key))
        return None

    def _disconnect(self, node: ModelNode, item: events.DisconnectNode) -> None:
        assert node.state == "waiting"
        for name in item.shares:
            node.shares.remove(name)
            self.shares[name].dependents.discard(node.key)
            self.shares[name].cut = True
        assert all(self.shares[name].state == "done" for name in node.shares)
        assert len(item.survivors) == len(node.shares)
        for name in item.shares:
            self._forget_if_unused(self.shares[name])
        self._maybe_run(node)

    def run_to_the_end(self) -> None:
        """Finish all tasks and forget them."""
        if not self.workers:
            self.join("host9:9")
        while True:
            self.settle()
            for node in self.nodes.values():
                self._maybe_run(node)
            if all(node.state == "done" for node in self.nodes.values()):
                break
            running = [k for k, node in self.nodes.items() if node.state == "running"]
            if running:
                self.finish_node(running[0])
            elif self.running():
                self.finish(self.running()[0])
            else:
                self.start(self.startable()[0])
            check_state(self.machine)
        for key in list(self.nodes):
            self.forget(key)
            check_state(self.machine)
        self.settle()

    def check_end(self) -> None:
        """Check that nothing is left, and that a replay gives the same instructions."""
        machine, known = self.machine, self.machine.registry
        assert not self.shares
        assert not self.backups
        assert len(machine.backup_tasks) == 0
        assert [known.shares, known.nodes, known.groups, known.blocks] == [{}, {}, {}, {}]
        assert machine.history.totals().erasures == self.erasures
        again = AnyKState(lateness_rule=machine.lateness.rule, record=True)
        assert machine.events is not None
        replayed = [item for event in machine.events for item in again.handle(event)]
        assert replayed == self.instructions
        assert again.history.run("r").as_dict() == machine.history.run("r").as_dict()


def tick(
    dask: ModelDask, now: float, results: dict[str, float] | None = None, processing: int = 1
) -> list[Instruction]:
    """Report a tick at which all workers answer; return the instructions.

    ``results`` says when workers returned another result, ``processing`` how many tasks each has.
    """
    dask.now = now
    observed = tuple(
        events.WorkerObservation(name, now, (results or {}).get(name, 0.0), 0, True, processing)
        for name in dask.workers
    )
    first = dask.report(events.Tick(now - 0.01, 0.25, 0.5, observed))  # so that the next is on time
    return [*first, *dask.report(events.Tick(now, 0.25, 0.5, observed))]


def six_workers(rule: LateByHistory) -> ModelDask:
    """Return a scheduler with six workers and a rule of lateness."""
    dask = ModelDask([f"w{i}" for i in range(6)])
    dask.machine.lateness.rule = rule
    return dask


EXACT = LateByHistory(factor=2.0, spread=0.0, idle_factor=1.5, floor=0.0)
"""Late after twice the median, or 1.5 times the 90th percentile if a worker is idle."""


def started_group(dask: ModelDask, block: int, at: float) -> dict[int, Key]:
    """Add a group of four shares and two parity shares on standby, and start the four."""
    dask.now = at
    dask.add(block=block, n=6, enough=4, parts=True, standby=(4, 5))
    shares = {p: ("share-r", 0, block, p) for p in range(4)}
    for key in shares.values():
        dask.start(key)
    return shares


def with_one_missing() -> tuple[ModelDask, dict[int, Key]]:
    """Return six workers, and a group of which the three first shares were done at second 1."""
    dask = six_workers(EXACT)
    shares = started_group(dask, 0, at=0.0)
    dask.now = 1.0
    for position in range(3):
        dask.finish(shares[position])
    dask.settle()
    return dask, shares


def all_late() -> tuple[ModelDask, dict[int, Key]]:
    """Return a scheduler on which shares took 3 s each, and the four shares of another group."""
    dask = six_workers(EXACT)
    for block in range(3):
        shares = started_group(dask, block, at=10.0 * block)
        dask.now += 3.0
        for key in shares.values():
            dask.finish(key)
        dask.settle()
    return dask, started_group(dask, 3, at=30.0)
