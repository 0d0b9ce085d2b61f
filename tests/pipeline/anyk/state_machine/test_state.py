"""The state machine against a small model of Dask, in every order that Hypothesis thinks of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine import workers as workers_module
from fcdcc.pipeline.anyk.state_machine.events import Instruction, Key
from fcdcc.pipeline.anyk.state_machine.invariants import check_state
from fcdcc.pipeline.anyk.state_machine.lateness import LateByHistory
from fcdcc.pipeline.anyk.state_machine.registry import ShareStatus
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.anyk.state_machine.workers import FixedSilence


class Share:
    def __init__(self, key: Key) -> None:
        self.key = key
        self.state = "waiting"
        self.worker: str | None = None
        self.place: str | None = None
        self.held = False
        self.dependents: set[Key] = set()
        self.cut = False
        self.since = 0.0


class NodeState:
    def __init__(self, key: Key, shares: Iterable[Key]) -> None:
        self.key = key
        self.shares = list(shares)
        self.state = "waiting"
        self.worker: str | None = None
        self.sent: set[Key] | None = None  # the shares that workers were told of


class ModelDask:
    """As much of Dask's scheduler as the state machine can notice."""

    def __init__(self, workers: Iterable[str], record: bool = True) -> None:
        self.machine = AnyKState(record=record)
        self.instructions: list[Instruction] = []
        self.now = 0.0
        self.shares: dict[Key, Share] = {}
        self.nodes: dict[Key, NodeState] = {}
        self.workers: list[str] = []
        self.twins: dict[Key, events.StartBackup] = {}
        self.erasures = 0
        self.started_parity = 0
        for name in workers:
            self.join(name)

    # ------------------------------------------------------------- what happens

    def tell(self, event: events.Event) -> tuple[Instruction, ...]:
        answer = self.machine.handle(event)
        self.instructions += answer
        for item in answer:
            if isinstance(item, events.PlaceShare):
                share = self.shares[item.share]
                assert share.state in ("waiting", "released")
                assert item.worker in self.workers
                share.place = item.worker
            elif isinstance(item, events.HoldShare):
                self.shares[item.share].held = True
        return answer

    def join(self, name: str) -> None:
        self.workers.append(name)
        self.tell(events.WorkerJoined(self.now, name, name.split(":")[0], 1))

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
            self.shares[key] = Share(key)
        if parts:
            owners = [p for p in range(n) if p not in set(standby)]
            specs = [
                events.NodeSpec(("part-r", layer, block, p), tuple(keys.items()), enough, own=p)
                for p in owners
            ]
        else:
            specs = [events.NodeSpec(("decode-r", layer, block, 0), tuple(keys.items()), enough)]
        for spec in specs:
            self.nodes[spec.key] = NodeState(spec.key, keys.values())
            for key in keys.values():
                self.shares[key].dependents.add(spec.key)
        shares = tuple(events.ShareSpec(key, p, p, p in set(standby)) for p, key in keys.items())
        group = events.GroupSpec("r", layer, block, block, shares, tuple(specs))
        self.tell(events.GroupsAdded(self.now, (group,)))
        for spec in specs:
            self.tell(events.TaskChanged(self.now, spec.key, "node", "waiting"))
        for key in keys.values():
            self.tell(events.TaskChanged(self.now, key, "share", "waiting"))
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
        self.tell(events.TaskChanged(self.now, key, "share", "started", share.worker))

    def finish(self, key: Key) -> None:
        share = self.shares[key]
        assert share.worker is not None
        share.state = "done"
        self.tell(
            events.TaskChanged(self.now, key, "share", "done", share.worker, share.since, self.now)
        )
        for name in share.dependents:
            self._maybe_run(self.nodes[name])
        self._free_if_unused(share)

    def settle(self) -> None:
        while self.machine.unsettled:
            self.obey(self.tell(events.Settle(self.now)))

    def obey(self, instructions: Iterable[Instruction]) -> None:
        for item in instructions:
            if isinstance(item, events.DisconnectNode):
                self._cut(self.nodes[item.node], item)
            elif isinstance(item, events.StartShare):
                assert self.shares[item.share].held
                self.shares[item.share].held = False
                self.shares[item.share].place = item.worker
            elif isinstance(item, events.RemoveWorker):
                self.leave(item.worker)
            elif isinstance(item, events.StartBackup):
                assert item.task in self.shares
                assert self.shares[item.task].state == "running"
                self.twins[item.backup] = item
                self.tell(events.TaskChanged(self.now, item.backup, "task", "started", item.worker))
            elif isinstance(item, events.UseBackup):
                self._adopt(self.shares[item.task], self.twins.pop(item.backup))
            elif isinstance(item, events.CancelBackup) and self.twins.pop(item.backup, None):
                self.tell(events.Forgotten(self.now, item.backup))

    def finish_twin(self, key: Key) -> None:
        self.tell(events.TaskChanged(self.now, key, "task", "done", self.twins[key].worker))

    def _adopt(self, share: Share, double: events.StartBackup) -> None:
        assert share.state == "running"
        assert share.key == double.task
        self.tell(events.TaskChanged(self.now, share.key, "share", "released"))
        self.tell(events.TaskChanged(self.now, share.key, "share", "waiting"))
        share.worker, share.since = double.worker, self.now
        self.tell(events.TaskChanged(self.now, share.key, "share", "started", share.worker))

    def finish_node(self, key: Key) -> None:
        node = self.nodes[key]
        node.state = "done"
        self.tell(events.TaskChanged(self.now, key, "node", "done"))
        for name in node.shares:
            self._free_if_unused(self.shares[name])

    def forget(self, key: Key) -> None:
        """The client does not want a node any more."""
        node = self.nodes.pop(key)
        self.tell(events.Forgotten(self.now, key))
        for name in node.shares:
            self.shares[name].dependents.discard(key)
            self._forget_if_alone(self.shares[name])

    def leave(self, name: str) -> None:
        self.workers.remove(name)
        for share in list(self.shares.values()):
            if share.worker == name and share.state in ("running", "done"):
                self._lose(share)
        for backup in [key for key, double in self.twins.items() if double.worker == name]:
            del self.twins[backup]
            self.tell(events.TaskChanged(self.now, backup, "task", "released"))
        for node in list(self.nodes.values()):
            if node.worker == name and node.state in ("running", "done"):
                self.tell(events.TaskChanged(self.now, node.key, "node", "released"))
                self._wait(node)
        self.tell(events.WorkerLeft(self.now, name))

    # ------------------------------------------------------------ what follows

    def _lose(self, share: Share) -> None:
        share.state, share.worker = "released", None
        self.tell(events.TaskChanged(self.now, share.key, "share", "released"))
        for name in sorted(share.dependents):
            if self.nodes[name].state == "running":
                self.tell(events.TaskChanged(self.now, name, "node", "released"))
                self._wait(self.nodes[name])
        if self._waiters(share):
            self._want(share)

    def _wait(self, node: NodeState) -> None:
        node.state, node.worker = "waiting", None
        self.tell(events.TaskChanged(self.now, node.key, "node", "waiting"))
        for name in node.shares:
            if self.shares[name].state == "released":
                self._want(self.shares[name])
        self._maybe_run(node)

    def _want(self, share: Share) -> None:
        share.state = "waiting"
        self.tell(events.TaskChanged(self.now, share.key, "share", "waiting"))

    def _waiters(self, share: Share) -> list[Key]:
        return [k for k in share.dependents if self.nodes[k].state in ("waiting", "running")]

    def _maybe_run(self, node: NodeState) -> None:
        there = all(self.shares[name].state == "done" for name in node.shares)
        if node.state == "waiting" and there and self.workers:
            assert node.sent in (None, set(node.shares))
            node.state, node.worker, node.sent = "running", self.workers[0], set(node.shares)
            self.tell(events.TaskChanged(self.now, node.key, "node", "started"))

    def _free_if_unused(self, share: Share) -> None:
        if share.state in ("running", "done") and not self._waiters(share):
            share.state, share.worker = "released", None
            self.tell(events.TaskChanged(self.now, share.key, "share", "released"))

    def _forget_if_alone(self, share: Share) -> None:
        if share.dependents:
            return self._free_if_unused(share)
        if share.state in ("running", "done"):
            self.erasures += share.state == "running" and share.cut
            self.tell(events.TaskChanged(self.now, share.key, "share", "released"))
        del self.shares[share.key]
        self.tell(events.Forgotten(self.now, share.key))
        return None

    def _cut(self, node: NodeState, item: events.DisconnectNode) -> None:
        assert node.state == "waiting"
        for name in item.shares:
            node.shares.remove(name)
            self.shares[name].dependents.discard(node.key)
            self.shares[name].cut = True
        assert all(self.shares[name].state == "done" for name in node.shares)
        assert len(item.survivors) == len(node.shares)
        for name in item.shares:
            self._forget_if_alone(self.shares[name])
        self._maybe_run(node)

    def run_to_the_end(self) -> None:
        """Let everything finish, and forget it."""
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
        machine, known = self.machine, self.machine.registry
        assert not self.shares
        assert not self.twins
        assert len(machine.backup_tasks) == 0
        assert [known.shares, known.nodes, known.groups, known.blocks] == [{}, {}, {}, {}]
        assert machine.history.totals().erasures == self.erasures
        again = AnyKState(lateness_rule=machine.lateness.rule, record=True)
        assert machine.events is not None
        replayed = [answer for event in machine.events for answer in again.handle(event)]
        assert replayed == self.instructions
        assert again.history.run("r").as_dict() == machine.history.run("r").as_dict()


SOON = LateByHistory(factor=1.0, spread=0.0, idle_factor=1.0, floor=0.0, samples=1)
"""A rule by which workers are often late."""


class AnyOrder(RuleBasedStateMachine):
    """Groups of all kinds, faults at any moment; in the end everything is decoded and gone."""

    def __init__(self) -> None:
        super().__init__()
        self.dask: ModelDask
        self.blocks = itertools.count()
        self.names = itertools.count()

    @initialize(count=st.integers(1, 7), rule=st.sampled_from([LateByHistory(), SOON]))
    def begin(self, count: int, rule: LateByHistory) -> None:
        self.dask = ModelDask([f"host{i % 3}:{i}" for i in range(count)])
        self.dask.machine.lateness.rule = rule

    @rule(
        n=st.integers(1, 6),
        missing=st.integers(0, 3),
        parts=st.booleans(),
        standby=st.booleans(),
        layers=st.integers(1, 2),
    )
    def add(self, n: int, missing: int, parts: bool, standby: bool, layers: int) -> None:
        enough = max(1, n - missing)
        held = range(enough, n) if standby else ()
        block = next(self.blocks)
        for layer in range(layers):
            self.dask.add(block, n, enough, layer, parts, held)

    @precondition(lambda self: self.dask.startable() and self.dask.workers)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.dask.start(data.draw(st.sampled_from(self.dask.startable())))

    @precondition(lambda self: self.dask.running())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.dask.finish(data.draw(st.sampled_from(self.dask.running())))

    @precondition(lambda self: self.dask.twins)
    @rule(data=st.data())
    def finish_twin(self, data: st.DataObject) -> None:
        self.dask.finish_twin(data.draw(st.sampled_from(list(self.dask.twins))))

    @rule()
    def settle(self) -> None:
        self.dask.settle()

    @precondition(lambda self: any(n.state == "running" for n in self.dask.nodes.values()))
    @rule(data=st.data())
    def finish_node(self, data: st.DataObject) -> None:
        running = [k for k, n in self.dask.nodes.items() if n.state == "running"]
        self.dask.finish_node(data.draw(st.sampled_from(running)))

    @precondition(lambda self: self.dask.nodes)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.dask.forget(data.draw(st.sampled_from(list(self.dask.nodes))))

    @precondition(lambda self: self.dask.workers)
    @rule(data=st.data())
    def lose_worker(self, data: st.DataObject) -> None:
        self.dask.leave(data.draw(st.sampled_from(self.dask.workers)))

    @rule(host=st.integers(0, 2))
    def join(self, host: int) -> None:
        self.dask.join(f"host{host}:new{next(self.names)}")

    @rule(wait=st.floats(0, 5), on_time=st.booleans(), data=st.data())
    def tick(self, wait: float, on_time: bool, data: st.DataObject) -> None:
        dask = self.dask
        dask.now += wait
        news = []
        for name in dask.workers:
            seen = data.draw(st.sampled_from([dask.now, dask.now, 0.0]))
            ghosts, busy = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
            news.append(events.WorkerObservation(name, seen, 0.0, ghosts, True, busy))
        dask.settle()
        expected = wait if on_time else 0.25
        dask.obey(dask.tell(events.Tick(dask.now, expected, 0.5, tuple(news))))

    @invariant()
    def valid(self) -> None:
        if hasattr(self, "dask"):
            check_state(self.dask.machine)

    def teardown(self) -> None:
        if hasattr(self, "dask"):
            self.dask.run_to_the_end()
            self.dask.check_end()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (5, 4, 3, 2), (0, 2, 3, 5), (1, 0, 5, 4)])
def test_the_node_runs_with_the_first_four_and_the_others_are_given_up(
    order: tuple[int, ...],
) -> None:
    dask = ModelDask(f"w{i}" for i in range(6))
    (node,) = dask.add(block=0, n=6, enough=4)
    for key in dask.startable():
        dask.start(key)
    for position in order:
        assert dask.nodes[node].state == "waiting"
        dask.finish(("share-r", 0, 0, position))
        dask.settle()
    assert dask.nodes[node].state == "running"
    assert {key[3] for key in dask.shares} == set(order)
    assert dask.machine.history.run("r").counters.erasures == 2
    states = [(r.position, r.state) for r in dask.machine.history.run("r").shares]
    given_up = sorted(position for position, state in states if state == "erased")
    assert given_up == sorted(set(range(6)) - set(order))


@pytest.mark.parametrize("survivors", list(itertools.combinations(range(6), 4)))
def test_every_subset_of_survivors_is_enough(survivors: tuple[int, ...]) -> None:
    dask = ModelDask(f"w{i}" for i in range(6))
    (node,) = dask.add(block=0, n=6, enough=4)
    for position in survivors:
        key = ("share-r", 0, 0, position)
        dask.start(key)
        dask.finish(key)
    dask.settle()
    assert dask.nodes[node].shares == [("share-r", 0, 0, p) for p in survivors]
    dask.run_to_the_end()
    dask.check_end()
    # What never started is not an erasure.
    assert dask.machine.history.run("r").counters.erasures == 0
    assert dask.machine.history.run("r").counters.groups == 1


def test_a_predicate_decides_what_is_enough() -> None:
    machine = AnyKState()
    machine.handle(events.WorkerJoined(0.0, "w", "w", 1))
    edges = tuple((p, f"s{p}") for p in range(4))
    node = events.NodeSpec("node", edges, lambda done: done >= {0, 3})
    shares = tuple(events.ShareSpec(key, p, p) for p, key in edges)
    machine.handle(events.GroupsAdded(0.0, (events.GroupSpec("", 0, 0, 0, shares, (node,)),)))
    machine.handle(events.TaskChanged(0.0, "node", "node", "waiting"))
    for key in ("s0", "s1", "s3"):
        machine.handle(events.TaskChanged(0.0, key, "share", "started", "w"))
    for key in ("s0", "s1"):
        machine.handle(events.TaskChanged(1.0, key, "share", "done", "w", 0.0, 1.0))
        assert machine.handle(events.Settle(1.0)) == ()
    machine.handle(events.TaskChanged(2.0, "s3", "share", "done", "w", 0.0, 2.0))
    assert machine.handle(events.Settle(2.0)) == (
        events.DisconnectNode("node", ("s2",), (0, 1, 3)),
    )


def test_a_survivor_lost_before_the_node_ran_is_waited_for_again() -> None:
    dask = ModelDask(["a", "b", "c"])
    (node,) = dask.add(block=0, n=3, enough=2)
    for key in dask.startable():
        dask.start(key)
    first, second = [k for k, s in dask.shares.items() if s.worker in ("a", "b")]
    dask.finish(first)
    dask.finish(second)
    dask.settle()
    assert dask.nodes[node].state == "running"
    dask.leave("b")
    assert dask.nodes[node].state == "waiting"
    lost = [k for k, share in dask.machine.registry.shares.items() if share.state == "waiting"]
    assert len(lost) == 1
    dask.start(lost[0])
    assert dask.nodes[node].state == "waiting"
    dask.finish(lost[0])
    assert dask.nodes[node].state == "running"
    assert dask.machine.history.run("r").counters.shares_lost == 1
    dask.run_to_the_end()
    dask.check_end()


def test_a_node_that_was_sent_to_a_worker_keeps_its_shares() -> None:
    dask = ModelDask(["a", "b", "c"])
    (node,) = dask.add(block=0, n=3, enough=2)
    for key in dask.startable():
        dask.start(key)
    for key in dask.running():
        dask.finish(key)
    assert dask.nodes[node].state == "running"
    dask.leave("c")
    dask.settle()
    assert dask.nodes[node].state == "waiting"
    assert len(dask.nodes[node].shares) == 3
    dask.run_to_the_end()
    dask.check_end()


def test_a_part_is_ready_with_its_own_share_alone_or_with_any_enough() -> None:
    dask = ModelDask(f"w{i}" for i in range(6))
    dask.add(block=0, n=6, enough=4, parts=True, standby=(4, 5))
    part = {p: ("part-r", 0, 0, p) for p in range(4)}
    share = {p: ("share-r", 0, 0, p) for p in range(4)}
    for key in dask.startable():
        dask.start(key)
    dask.finish(share[2])
    dask.settle()
    assert [dask.nodes[part[p]].state for p in range(4)] == ["waiting"] * 2 + ["running", "waiting"]
    assert dask.nodes[part[2]].shares == [share[2]]
    # Share 2 stays for the parts that may be decoded from it.
    assert dask.shares[share[2]].dependents == set(part.values())


def test_parity_on_standby_starts_when_a_share_is_lost_and_else_never() -> None:
    dask = ModelDask(f"w{i}" for i in range(6))
    dask.add(block=0, n=6, enough=4, parts=True, standby=(4, 5))
    dask.add(block=1, n=6, enough=4, parts=True, standby=(4, 5))
    for key in dask.startable():
        dask.start(key)
    assert not any(s.state == "running" for k, s in dask.shares.items() if k[0] == "parity-r")
    lost = dask.machine.registry.shares["share-r", 0, 0, 0].worker
    assert lost is not None
    seats = {k: share.worker for k, share in dask.machine.registry.shares.items()}
    dask.leave(lost)
    dask.settle()
    waiting = {k for k, s in dask.shares.items() if k[0] == "parity-r" and not s.held}
    blocks = {k[2] for k, worker in seats.items() if worker == lost}
    assert waiting == {("parity-r", 0, b, p) for b in blocks for p in (4, 5)}
    dask.run_to_the_end()
    dask.check_end()


def tick(
    dask: ModelDask, now: float, results: dict[str, float] | None = None, busy: int = 1
) -> list[Instruction]:
    """Tell that time has passed, and who returned something else in the meantime."""
    dask.now = now
    news = tuple(
        events.WorkerObservation(name, now, (results or {}).get(name, 0.0), 0, True, busy)
        for name in dask.workers
    )
    first = dask.tell(events.Tick(now - 0.01, 0.25, 0.5, news))  # so that the second is on time
    return [*first, *dask.tell(events.Tick(now, 0.25, 0.5, news))]


def with_late(rule: LateByHistory) -> ModelDask:
    dask = ModelDask([f"w{i}" for i in range(6)])
    dask.machine.lateness.rule = rule
    return dask


EXACT = LateByHistory(factor=2.0, spread=0.0, idle_factor=1.5, floor=0.0)


def started_group(dask: ModelDask, block: int, at: float) -> dict[int, Key]:
    dask.now = at
    dask.add(block=block, n=6, enough=4, parts=True, standby=(4, 5))
    shares = {p: ("share-r", 0, block, p) for p in range(4)}
    for key in shares.values():
        dask.start(key)
    return shares


def test_parity_on_standby_starts_when_the_group_is_late() -> None:
    dask = with_late(EXACT)
    shares = started_group(dask, 0, at=0.0)
    dask.now = 1.0
    for position in range(3):
        dask.finish(shares[position])
    dask.settle()
    late = dask.shares[shares[3]].worker
    assert late is not None
    # It has returned something else in the meantime: a worker with a queue is not late.
    assert tick(dask, 4.0, {late: 3.0}) == []
    assert {type(i) for i in tick(dask, 5.05, {late: 3.0})} == {events.StartShare}
    assert tick(dask, 5.3, {late: 3.0}) == []


def test_what_is_late_is_learned_from_the_groups_before() -> None:
    dask = with_late(EXACT)
    for block in range(3):
        shares = started_group(dask, block, at=10.0 * block)
        dask.now += 3.0
        for key in shares.values():
            dask.finish(key)
        dask.settle()
    shares = started_group(dask, 3, at=30.0)
    dask.now = 30.1
    dask.finish(shares[0])
    dask.settle()
    # Only one of this group is done, and still it is known that shares of this layer take 3 s.
    late = {dask.shares[shares[1]].worker: 31.0}
    assert tick(dask, 35.9, late) == []
    started = tick(dask, 36.1, late)
    # One in reserve for each of the two that are late.
    assert [type(item) for item in started] == [events.StartShare, events.StartShare]


def all_late() -> tuple[ModelDask, dict[int, Key]]:
    """Return groups of which four shares each took 3 s, and one of which all will be late."""
    dask = with_late(EXACT)
    for block in range(3):
        shares = started_group(dask, block, at=10.0 * block)
        dask.now += 3.0
        for key in shares.values():
            dask.finish(key)
        dask.settle()
    return dask, started_group(dask, 3, at=30.0)


def test_when_most_workers_are_late_it_is_not_the_workers() -> None:
    dask, shares = all_late()
    assert tick(dask, 99.0) == []
    dask.now = 99.0
    dask.finish(shares[0])
    dask.settle()
    assert [type(item) for item in tick(dask, 99.1)] == [events.StartShare, events.StartShare]


@pytest.mark.parametrize("first", ["backup", "share", "others", "nobody is free"])
def test_a_share_that_nothing_stands_in_for_runs_twice_and_the_first_wins(first: str) -> None:
    dask, shares = all_late()
    assert tick(dask, 99.0) == []
    dask.finish(shares[0])
    dask.settle()
    given = tick(dask, 99.1, busy=first == "nobody is free")
    # Two in reserve for three that are late: the third is run again where there is room.
    assert [type(item) for item in given[:2]] == [events.StartShare, events.StartShare]
    dask.obey(given)
    if first == "nobody is free":
        assert given[2:] == []
        return
    (double,) = (item for item in given if isinstance(item, events.StartBackup))
    slow = dask.shares[double.task].worker
    assert double.worker != slow
    assert [type(item) for item in tick(dask, 99.2)] == []  # one twin is enough
    for key in dask.startable():
        dask.start(key)
        if first != "others":
            dask.finish(key)
    if first == "backup":
        dask.finish_twin(double.backup)
        dask.settle()
        assert dask.shares[double.task].worker == double.worker
    for key in [double.task] if first != "others" else list(shares.values())[1:]:
        dask.finish(key)
    dask.settle()
    assert not dask.twins
    dask.run_to_the_end()
    dask.check_end()


@pytest.mark.parametrize("then", ["the twin is first", "the twin is late", "silence"])
def test_where_parity_is_dear_a_late_share_runs_again_in_its_place(then: str) -> None:
    dask = with_late(EXACT)
    for block in range(3):  # shares take 3 s, and parity 9
        shares = started_group(dask, block, at=20.0 * block)
        dask.obey([events.StartShare(("parity-r", 0, block, 4), None)])
        dask.start(("parity-r", 0, block, 4))
        dask.now += 3.0
        for position in (0, 1, 2):
            dask.finish(shares[position])
        dask.now += 6.0
        dask.finish(("parity-r", 0, block, 4))
        dask.settle()
    shares = started_group(dask, 3, at=60.0)
    dask.now = 63.0
    for position in (0, 1, 2):
        dask.finish(shares[position])
    dask.settle()
    slow = dask.shares[shares[3]].worker
    assert slow is not None
    (double,) = tick(dask, 66.1)
    assert isinstance(double, events.StartBackup)
    assert (double.task, double.worker == slow) == (shares[3], False)
    dask.obey([double])
    assert tick(dask, 66.3) == []
    if then == "the twin is first":
        dask.finish_twin(double.backup)
        dask.settle()
        assert dask.shares[shares[3]].worker == double.worker
        assert dask.machine.history.run("r").counters.doubles_used == 1
    elif then == "the twin is late":
        assert tick(dask, 69.0) == []
        assert [type(item) for item in tick(dask, 72.2)] == [events.StartShare]
    else:
        answers: list[Instruction] = []
        for _ in range(8):
            dask.now += 0.25
            heard = {name: 66.3 if name == slow else dask.now for name in dask.workers}
            news = tuple(
                events.WorkerObservation(name, at, 0.0, 0, True, 1) for name, at in heard.items()
            )
            answers += dask.tell(events.Tick(dask.now, 0.25, 0.5, news))
        assert events.StartShare in {type(item) for item in answers}
    dask.run_to_the_end()
    dask.check_end()


def test_a_worker_that_would_idle_tries_a_parity_share_earlier() -> None:
    dask = with_late(EXACT)
    for block in range(2):
        shares = started_group(dask, block, at=10.0 * block)
        dask.now += 1.0
        for key in shares.values():
            dask.finish(key)
        dask.settle()
    shares = started_group(dask, 2, at=30.0)
    dask.now = 31.0
    for position in range(3):
        dask.finish(shares[position])
    dask.settle()
    assert tick(dask, 31.6, busy=1) == []  # nobody has nothing to do
    assert {type(item) for item in tick(dask, 31.7, busy=0)} == {events.StartShare}


def test_nobody_is_late_when_the_scheduler_did_not_listen() -> None:
    dask = with_late(EXACT)
    shares = started_group(dask, 0, at=0.0)
    dask.now = 1.0
    for position in range(3):
        dask.finish(shares[position])
    dask.settle()
    news = tuple(events.WorkerObservation(name, 1.0, 0.0, 0, True) for name in dask.workers)
    dask.tell(events.Tick(1.0, 0.25, 0.5, news))
    news = tuple(events.WorkerObservation(name, 9.0, 0.0, 0, True) for name in dask.workers)
    assert dask.tell(events.Tick(9.0, 0.25, 0.5, news)) == ()
    assert dask.tell(events.Tick(9.25, 0.25, 0.5, news)) != ()


def test_parity_does_not_start_on_a_slow_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "FORGIVE_SECONDS", 1e9)
    dask = with_late(EXACT)
    slow = {"w0", "w1"}
    workers = dask.machine.workers.by_address
    for block in itertools.count():
        shares = started_group(dask, block, at=100.0 * block)
        for key in sorted(shares.values(), key=lambda key: dask.shares[key].worker in slow):
            dask.now = 100.0 * block + (20.0 if dask.shares[key].worker in slow else 2.0)
            dask.finish(key)
        dask.settle()
        if {address for address, worker in workers.items() if worker.pace > 3.0} == slow:
            break
    # From now on they get the parity, which rests, ...
    begun = dask.now
    shares = started_group(dask, 99, at=begun)
    assert not slow & {dask.shares[key].worker for key in shares.values()}
    # ... and when it is needed it runs elsewhere.
    dask.now = begun + 2.0
    for position in range(3):
        dask.finish(shares[position])
    dask.settle()
    started = [i for i in tick(dask, begun + 5.0) if isinstance(i, events.StartShare)]
    assert len(started) == 1
    assert not slow & {item.worker for item in started}


def test_shares_of_a_group_are_placed_apart_and_follow_when_a_worker_leaves() -> None:
    dask = ModelDask(f"w{i}" for i in range(8))
    for layer in range(3):
        dask.add(block=5, n=6, enough=4, layer=layer)
    places = {key: share.place for key, share in dask.shares.items()}
    by_layer = [{p: places["share-r", layer, 5, p] for p in range(6)} for layer in range(3)]
    assert by_layer[0] == by_layer[1] == by_layer[2]
    assert len(set(by_layer[0].values())) == 6
    lost = by_layer[0][3]
    assert lost is not None
    dask.leave(lost)
    moved = {key[3]: share.place for key, share in dask.shares.items()}
    assert {p for p in range(6) if moved[p] != by_layer[0][p]} == {3}
    assert len(set(moved.values())) == 6


def test_new_groups_avoid_workers_with_ghosts() -> None:
    dask = ModelDask(f"w{i}" for i in range(5))
    dask.add(block=0, n=4, enough=3)
    for key in dask.startable():
        dask.start(key)
    slow = dask.shares["share-r", 0, 0, 3].worker
    for position in range(3):
        dask.finish(("share-r", 0, 0, position))
    dask.settle()
    for block in range(1, 6):
        dask.add(block=block, n=4, enough=3)
        assert slow not in {s.place for k, s in dask.shares.items() if k[2] == block}
    assert slow is not None
    news = tuple(events.WorkerObservation(w, 2.0, 2.0, 0, True) for w in dask.workers)
    dask.tell(events.Tick(2.0, 0.25, 0.5, news))
    places = set()
    for block in range(6, 11):
        dask.add(block=block, n=4, enough=3)
        places |= {s.place for k, s in dask.shares.items() if k[2] == block}
    assert slow in places


def test_a_graph_that_comes_again_changes_nothing() -> None:
    dask = ModelDask(["a", "b"])
    machine = dask.machine
    spec = events.GroupSpec(
        "r",
        0,
        0,
        0,
        (events.ShareSpec("s0", 0, 0), events.ShareSpec("s1", 1, 1)),
        (events.NodeSpec("node", ((0, "s0"), (1, "s1")), 1),),
    )
    assert len(machine.handle(events.GroupsAdded(0.0, (spec,)))) == 2
    machine.handle(events.TaskChanged(0.0, "node", "node", "waiting"))
    machine.handle(events.TaskChanged(0.0, "s0", "share", "started", "a"))
    machine.handle(events.TaskChanged(0.0, "s0", "share", "done", "a", 0.0, 0.0))
    machine.handle(events.Settle(0.0))
    machine.handle(events.Forgotten(0.0, "s1"))
    assert machine.handle(events.GroupsAdded(1.0, (spec,))) == ()
    assert set(machine.registry.shares) == {"s0"}
    check_state(machine)


def test_unknown_tasks_and_workers_change_nothing() -> None:
    machine = AnyKState()
    for event in (
        events.TaskChanged(0.0, "x", "share", "waiting"),
        events.TaskChanged(0.0, "x", "share", "started", "w"),
        events.TaskChanged(0.0, "x", "share", "done", "w", 0.0, 0.0),
        events.TaskChanged(0.0, "x", "share", "released"),
        events.TaskChanged(0.0, "x", "share", "erred"),
        events.TaskChanged(0.0, "x", "node", "waiting"),
        events.TaskChanged(0.0, "x", "node", "started"),
        events.TaskChanged(0.0, "x", "node", "done"),
        events.TaskChanged(0.0, "x", "node", "released"),
        events.TaskChanged(0.0, "x", "node", "erred"),
        events.TaskChanged(0.0, "x", "task", "waiting"),
        events.TaskChanged(0.0, "x", "task", "done", "w"),
        events.TaskChanged(0.0, "x", "task", "released"),
        events.WorkerStatus(0.0, "w", True),
        events.Forgotten(0.0, "x"),
        events.WorkerLeft(0.0, "w"),
        events.Settle(0.0),
    ):
        assert machine.handle(event) == ()
        check_state(machine)
    assert not machine.unsettled


def test_a_share_that_raises_is_reported_and_not_an_erasure() -> None:
    dask = ModelDask(["a", "b"])
    dask.add(block=0, n=2, enough=1)
    key = ("share-r", 0, 0, 0)
    dask.start(key)
    dask.tell(events.TaskChanged(1.0, key, "share", "erred"))
    dask.tell(events.TaskChanged(1.0, ("decode-r", 0, 0, 0), "node", "erred"))
    assert dask.machine.registry.shares[key].state is ShareStatus.ERRED
    assert [r.state for r in dask.machine.history.run("r").shares] == ["erred"]
    check_state(dask.machine)


def silent(machine: AnyKState, now: float, seen: dict[str, float], needed: bool = True) -> set[str]:
    news = tuple(events.WorkerObservation(name, at, at, 0, needed) for name, at in seen.items())
    answer = machine.handle(events.Tick(now, 0.25, 0.5, news))
    return {item.worker for item in answer if isinstance(item, events.RemoveWorker)}


def with_workers(*names: str, delivered: bool = True) -> AnyKState:
    machine = AnyKState(FixedSilence(silent_after=3.0, grace=15.0))
    for name in names:
        machine.handle(events.WorkerJoined(0.0, name, name, 1))
        if delivered:
            machine.handle(events.TaskChanged(0.0, "other", "share", "done", name, 0.0, 0.0))
    return machine


def ticks(machine: AnyKState, until: float, seen: dict[str, float], **kw: bool) -> set[str]:
    """Tick regularly from 0; workers whose time is infinite are heard of at every tick."""
    gone: set[str] = set()
    for step in range(1, int(until / 0.25) + 1):
        now = step * 0.25
        gone |= silent(machine, now, {w: min(at, now) for w, at in seen.items()}, **kw)
    return gone


FOREVER = float("inf")


def test_a_needed_worker_that_stays_silent_is_removed() -> None:
    machine = with_workers("a", "b")
    assert ticks(machine, 3.0, {"a": 0.0, "b": FOREVER}) == set()
    assert silent(machine, 3.25, {"a": 0.0, "b": 3.25}) == {"a"}
    assert silent(machine, 3.5, {"a": 0.0, "b": 3.5}) == set()  # once


def test_a_worker_that_nothing_is_wanted_from_may_be_silent() -> None:
    assert ticks(with_workers("a", "b"), 60.0, {"a": 0.0, "b": FOREVER}, needed=False) == set()


def test_a_worker_that_has_not_delivered_yet_has_longer() -> None:
    machine = with_workers("a", "b", delivered=False)
    assert ticks(machine, 15.0, {"a": 0.0, "b": FOREVER}) == set()
    assert silent(machine, 15.25, {"a": 0.0, "b": 15.25}) == {"a"}


def test_time_in_which_the_scheduler_did_not_listen_does_not_count() -> None:
    machine = with_workers("a", "b")
    assert ticks(machine, 2.0, {"a": FOREVER, "b": FOREVER}) == set()
    # The event loop was blocked for ten seconds; nobody's heartbeat was read meanwhile.
    assert silent(machine, 12.0, {"a": 2.0, "b": 12.0}) == set()
    assert silent(machine, 12.25, {"a": 2.0, "b": 12.25}) == set()
    for step in range(1, 12):
        gone = silent(machine, 12.25 + step * 0.25, {"a": 2.0, "b": 12.25 + step * 0.25})
    assert gone == {"a"}


def test_when_nobody_is_heard_of_nobody_is_removed() -> None:
    machine = with_workers("a", "b")
    assert ticks(machine, 60.0, {"a": 0.0, "b": 0.0}) == set()


def test_a_large_cluster_has_longer_because_it_is_heard_of_less_often() -> None:
    machine = with_workers("a", "b")
    for step in range(1, 28):
        now = step * 0.25
        news = (
            events.WorkerObservation("a", 0.0, 0.0, 0, True),
            events.WorkerObservation("b", now, now, 0, True),
        )
        assert machine.handle(events.Tick(now, 0.25, 2.0, news)) == ()


def test_a_worker_that_is_not_running_yet_gets_no_seats() -> None:
    machine = AnyKState()
    for name in ("a", "b"):
        machine.handle(events.WorkerJoined(0.0, name, name, 1))
    machine.handle(events.WorkerJoined(0.0, "c", "c", 1, running=False))
    shares = tuple(events.ShareSpec(f"s{p}", p, p) for p in range(3))
    edges = tuple((p, f"s{p}") for p in range(3))
    group = events.GroupSpec("r", 0, 0, 0, shares, (events.NodeSpec("node", edges, 2),))
    placed = machine.handle(events.GroupsAdded(0.0, (group,)))
    assert {item.worker for item in placed if isinstance(item, events.PlaceShare)} == {"a", "b"}
    check_state(machine)
    # When it is running, the shares that have not started spread.
    placed = machine.handle(events.WorkerStatus(9.0, "c", True))
    assert {item.worker for item in placed if isinstance(item, events.PlaceShare)} == {"c"}
    check_state(machine)


def test_becoming_running_is_a_sign_of_life() -> None:
    machine = with_workers("a", "b", delivered=False)
    assert ticks(machine, 14.0, {"a": 0.0, "b": FOREVER}) == set()
    machine.handle(events.WorkerStatus(14.0, "a", True))
    for step in range(1, 60):
        assert silent(machine, 14.0 + step * 0.25, {"a": 0.0, "b": 14.0 + step * 0.25}) == set()


def heard(machine: AnyKState, gap: float, until: float) -> float:
    """Let "a" and "b" be heard of every ``gap`` seconds; return when for the last time."""
    now = last = 0.0
    while now < until:
        now += 0.251  # no clock ticks exactly
        last = now if now - last >= gap else last
        assert silent(machine, now, {"a": last, "b": last}) == set()
    return last


@pytest.mark.parametrize(("gap", "least", "most"), [(0.5, 3.0, 3.5), (1.5, 6.0, 6.5)])
def test_how_long_silence_lasts_is_learned_from_how_regular_a_worker_was(
    gap: float, least: float, most: float
) -> None:
    machine = AnyKState()
    for name in ("a", "b"):
        machine.handle(events.WorkerJoined(0.0, name, name, 1))
        machine.handle(events.TaskChanged(0.0, "other", "task", "done", name))
    now = last = heard(machine, gap, 20.0)
    gone: set[str] = set()
    while not gone:
        now += 0.25
        gone = silent(machine, now, {"a": last, "b": now})
    assert gone == {"a"}
    assert least <= now - last <= most


def test_on_a_busy_machine_others_say_how_irregular_it_is() -> None:
    machine = AnyKState()
    for name in ("a", "b"):
        machine.handle(events.WorkerJoined(0.0, name, name, 1))
        machine.handle(events.TaskChanged(0.0, "other", "task", "done", name))
    last = heard(machine, 0.5, 10.0)
    # Everybody is busy now; "b" is heard of after two seconds.
    for step in range(1, 9):
        assert silent(machine, last + step * 0.25, {"a": last, "b": last}) == set()
    for step in range(9, 24):  # up to 5.75 seconds, where 3 would be the limit else
        assert silent(machine, last + step * 0.25, {"a": last, "b": last + step * 0.25}) == set()


def test_the_history_of_many_runs_is_bounded_and_the_totals_stay() -> None:
    dask = ModelDask(["a"])
    history = dask.machine.history
    for number in range(40):
        history.run(f"run{number}").counters.erasures += 1
    assert len(history.runs) == 16
    assert history.totals().erasures == 40
    dask.tell(events.RunDropped(0.0, "run39"))
    assert "run39" not in history.runs
    assert history.totals().erasures == 40
