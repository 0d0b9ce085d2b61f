"""The state machine against a small model of Dask, in every order that Hypothesis generates."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.invariants import check_state
from fcdcc.pipeline.anyk.state_machine.lateness import LateByHistory
from fcdcc.pipeline.anyk.state_machine.registry import ShareStatus
from fcdcc.pipeline.anyk.state_machine.silence_rules import LearnedSilence
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from simulation import ShiftedExponential, SimulatedCluster, chain, one_layer
from support.anyk_cluster import Running
from support.anyk_graphs import gathered, in_parts, network
from support.anyk_model import ModelDask

SOON = LateByHistory(factor=1.0, spread=0.0, idle_factor=1.0, floor=0.0, samples=1)
"""A rule by which workers are often late."""


class AnyOrder(RuleBasedStateMachine):
    """Groups of all kinds, faults at any moment; in the end all is decoded and forgotten."""

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

    @precondition(lambda self: self.dask.backups)
    @rule(data=st.data())
    def finish_backup(self, data: st.DataObject) -> None:
        self.dask.finish_backup(data.draw(st.sampled_from(list(self.dask.backups))))

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
        observed = []
        for name in dask.workers:
            seen = data.draw(st.sampled_from([dask.now, dask.now, 0.0]))
            cancelled, processing = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
            observed.append(events.WorkerObservation(name, seen, 0.0, cancelled, True, processing))
        dask.settle()
        expected = wait if on_time else 0.25
        dask.carry_out(dask.report(events.Tick(dask.now, expected, 0.5, tuple(observed))))

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
def test_a_node_runs_with_the_first_four_shares_and_the_others_are_given_up(
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


def test_a_predicate_says_what_is_enough() -> None:
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


def test_a_survivor_that_is_lost_before_the_node_ran_is_computed_again() -> None:
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


def test_a_part_is_ready_with_its_own_share_alone_or_with_any_four() -> None:
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


def test_a_graph_that_is_submitted_again_changes_nothing() -> None:
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


def test_a_share_that_raises_is_recorded_and_is_no_erasure() -> None:
    dask = ModelDask(["a", "b"])
    dask.add(block=0, n=2, enough=1)
    key = ("share-r", 0, 0, 0)
    dask.start(key)
    dask.report(events.TaskChanged(1.0, key, "share", "erred"))
    dask.report(events.TaskChanged(1.0, ("decode-r", 0, 0, 0), "node", "erred"))
    assert dask.machine.registry.shares[key].state is ShareStatus.ERRED
    assert [r.state for r in dask.machine.history.run("r").shares] == ["erred"]
    check_state(dask.machine)


def test_what_a_worker_lost_is_never_counted_at_a_worker_that_is_there() -> None:
    """Dask takes a share back from a worker that is there, if an input of it left with another."""
    machine = AnyKState()
    for worker in ("gone", "there"):
        machine.handle(events.WorkerJoined(0.0, worker, worker, 1))
    edges = tuple((p, ("share-r", 0, 0, p)) for p in range(3))
    node = events.NodeSpec(("decode-r", 0, 0, 0), edges, lambda done: len(done) >= 3)
    shares = tuple(events.ShareSpec(key, p, p) for p, key in edges)
    machine.handle(events.GroupsAdded(0.0, (events.GroupSpec("r", 0, 0, 0, shares, (node,)),)))
    machine.handle(events.TaskChanged(0.0, node.key, "node", "waiting"))
    for (_, key), worker in zip(edges, ("gone", "gone", "there"), strict=True):
        machine.handle(events.TaskChanged(0.0, key, "share", "started", worker))
    machine.handle(events.TaskChanged(1.0, edges[0][1], "share", "done", "gone", 0.0, 1.0))
    machine.handle(events.WorkerLeft(2.0, "gone"))
    for _, key in edges:
        machine.handle(events.TaskChanged(2.0, key, "share", "released"))
    history = machine.history.run("r")
    found = [(r.position, r.worker, r.state) for r in history.shares if r.state != "done"]
    assert found == [(0, "gone", "lost"), (1, "gone", "lost"), (2, "there", "recalled")]
    assert history.counters.shares_lost == 2


def test_a_recorded_run_is_replayed(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = AnyKState(LearnedSilence(), LateByHistory(), record=True)
    given: list[events.Instruction] = []

    def handle(event: events.Event) -> tuple[events.Instruction, ...]:
        instructions = AnyKState.handle(state, event)
        given.extend(instructions)
        return instructions

    scheduler = running.scheduler
    state.handle = handle  # type: ignore[method-assign]  # to record the instructions
    with monkeypatch.context() as patch:
        patch.setattr(running.plugin, "state", state)
        for address in scheduler.workers:
            running.plugin.add_worker(scheduler, address)
        gates = {position: str(tmp_path / f"{position}") for position in (1, 4)}
        graphs = [
            gathered(0, gates),
            in_parts(1, seconds=0.02),
            *(network(block, 3, "parts", lambda: False) for block in range(2, 6)),
        ]
        futures = [running.client.get(g.tasks, g.results, sync=False) for g in graphs]
        for parts in futures:
            for part in parts:
                part.result(timeout=120)
        del futures, parts, part
        running.wait_until_empty()
    assert state.events is not None
    again = AnyKState(LearnedSilence(), LateByHistory(), record=True)
    replayed = [item for event in state.events for item in again.handle(event)]
    assert replayed == given
    assert any(isinstance(item, events.DisconnectNode) for item in given)
    assert again.events == state.events
    assert again.history.run("r").as_dict() == state.history.run("r").as_dict()
    assert again.history.run("r").counters.groups == 2 + 4 * 3
    check_state(again)


T = TypeVar("T")

RARE = (events.Tick, events.WorkerJoined, events.WorkerLeft, events.WorkerStatus)
"""Events that may cost more on a larger cluster."""


class Watched(dict[Any, T]):
    """A dictionary that counts the loops over all of it."""

    def __init__(self, walks: Counter[str], name: str) -> None:
        self._walks, self._name = walks, name

    def values(self) -> Any:
        self._walks[self._name] += 1
        return super().values()

    def items(self) -> Any:
        self._walks[self._name] += 1
        return super().items()

    def __iter__(self) -> Any:
        self._walks[self._name] += 1
        return super().__iter__()


class WatchedState(AnyKState):
    """A state machine that counts the loops over all workers, groups or blocks, by event."""

    def __init__(self) -> None:
        super().__init__()
        self.walks: Counter[str] = Counter()
        self.walked: Counter[str] = Counter()
        self.handled: Counter[str] = Counter()
        self.workers.by_address = Watched(self.walks, "workers")
        for name in ("groups", "blocks", "shares", "nodes"):
            setattr(self.registry, name, Watched(self.walks, name))
        self._shares, self._nodes = self.registry.shares, self.registry.nodes

    def handle(self, event: events.Event) -> tuple[events.Instruction, ...]:
        before = self.walks.copy()
        instructions = super().handle(event)
        name = type(event).__name__
        if isinstance(event, events.TaskChanged):
            name = f"{event.kind} {event.state}"
        self.handled[name] += 1
        if not isinstance(event, RARE):
            self.walked.update(f"{name}: {n}" for n in self.walks - before)
        return instructions


def run(blocks: Iterable[Any]) -> WatchedState:
    """Return the state machine of a simulated run."""
    state = WatchedState()
    cluster = SimulatedCluster(state, ShiftedExponential(1))
    for number in range(60):
        cluster.join(f"w{number}", f"host{number // 4}")
    cluster.run(blocks, 10)
    return state


def test_no_event_goes_through_all_workers_or_groups() -> None:
    for state in (
        run(one_layer(block, 6, 4, standby=True) for block in range(40)),
        run(chain(block, 6, 4, 3) for block in range(20)),
    ):
        assert state.walks["workers"] > 0  # at ticks
        assert {"GroupsAdded", "share done", "Settle", "Forgotten"} <= state.handled.keys()
        assert state.walked == {"GroupsAdded: workers": 1}  # the first after workers joined
