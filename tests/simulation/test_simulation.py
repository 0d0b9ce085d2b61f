"""The state machine on simulated clusters: every run ends, and nothing is left of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from statistics import median

import pytest
from dask._task_spec import Task
from dask.typing import Key
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdcc.pipeline import open_model
from fcdcc.pipeline.anyk.keys import parse_key, task_key
from fcdcc.pipeline.anyk.state_machine.invariants import check_state
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.worker.executable import Executable
from simulation import (
    HeavyTail,
    Nothing,
    Oracle,
    Outcome,
    Policy,
    ShiftedExponential,
    SimulatedBlock,
    SimulatedCluster,
    SlowShares,
    Steady,
    TaskSpeculation,
    Times,
    chain,
    one_layer,
    simulated,
)
from support.small import Files


def cluster(
    policy: Policy, workers: int, times: Times | None = None, hosts: int = 2
) -> SimulatedCluster:
    made = SimulatedCluster(policy, times)
    for number in range(workers):
        made.join(f"w{number}", f"host{number // hosts}")
    return made


def check_empty(simulation: SimulatedCluster, state: AnyKState) -> None:
    check_state(state)
    assert simulation.unfinished == 0
    assert simulation.tasks == {}
    known = state.registry
    assert (known.shares, known.nodes, known.groups, known.blocks) == ({}, {}, {}, {})
    assert len(state.backup_tasks) == 0
    assert {worker.load for worker in state.workers.by_address.values()} <= {0}


def expensive_parity(key: Key, worker: str) -> float:
    """Return how much longer a task takes: parity four times, and a tenth of all shares ten."""
    stage = key[0] if isinstance(key, tuple) else key
    return SlowShares(1)(key, worker) * (4.0 if str(stage).startswith("parity") else 1.0)


@settings(max_examples=60)
@given(st.data())
def test_every_block_ends_with_workers_that_are_slow_stop_or_leave(data: st.DataObject) -> None:
    state = AnyKState()
    times = data.draw(
        st.sampled_from([Steady(), ShiftedExponential(1), HeavyTail(1), expensive_parity])
    )
    simulation = cluster(state, data.draw(st.integers(3, 9)), times)
    moments = st.floats(0.0, 20.0)
    for number, fault in enumerate(
        data.draw(
            st.lists(st.sampled_from(["stop", "blink", "kill", "retire", "join"]), max_size=4)
        )
    ):
        when = data.draw(moments)
        if fault == "join":
            simulation.at(when, simulation.join, f"fresh{number}")
        elif number < len(simulation.workers) - 1:
            action, more = simulation.lose, [fault == "retire"]
            if fault in ("stop", "blink"):
                action, more = simulation.stop, []
            simulation.at(when, action, f"w{number}", *more)
            if fault == "blink":
                simulation.at(when + data.draw(moments), simulation.resume, f"w{number}")
    layers = data.draw(st.integers(0, 3))
    make = (lambda b: chain(b, 6, 4, layers)) if layers else (lambda b: one_layer(b, 6, 4))
    outcome = simulation.run((make(b) for b in range(12)), data.draw(st.integers(1, 4)), 5_000.0)
    assert len(outcome.blocks) == 12
    check_empty(simulation, state)


@pytest.mark.parametrize("make", [lambda b: one_layer(b, 6, 4), lambda b: chain(b, 6, 4, 3)])
def test_workers_that_all_stop_for_a_while_are_not_lost(
    make: Callable[[int], SimulatedBlock],
) -> None:
    """They continue one after the other; one that does not is removed."""
    state = AnyKState()
    simulation = cluster(state, 6)
    for number in range(6):
        simulation.at(10.0, simulation.stop, f"w{number}")
        if number != 3:
            simulation.at(50.0 + 0.3 * number, simulation.resume, f"w{number}")
    blocks = 100  # seconds of work after the others continue, so that the silent one is noticed
    outcome = simulation.run((make(block) for block in range(blocks)), 2, 1_000.0)
    assert len(outcome.blocks) == blocks
    assert state.history.run("simulated").workers_removed == ["w3"]
    check_empty(simulation, state)


def run(policy: Policy, times: Times, blocks: list[SimulatedBlock]) -> Outcome:
    return cluster(policy, 24, times).run(blocks, 1)


def test_slow_shares_are_not_waited_for() -> None:
    times = SlowShares(seed=1)
    coded = [one_layer(b, 8, 6) for b in range(150)]
    ours = run(AnyKState(), times, coded)
    oracle = run(Oracle(times, 6), times, coded)
    plain = run(Nothing(), times, [one_layer(b, 6, 6) for b in range(150)])
    copies = run(TaskSpeculation(), times, [one_layer(b, 6, 6) for b in range(150)])
    assert median(plain.groups) == pytest.approx(1.0)
    assert ours.seconds < copies.seconds < plain.seconds
    assert oracle.seconds < copies.seconds
    assert oracle.extra_work == pytest.approx(0.0)
    assert 0.0 < ours.extra_work <= 2 / 6 + 1e-6


def test_where_parity_is_expensive_late_shares_get_backup_tasks() -> None:
    state = AnyKState()
    simulation = cluster(state, 12, expensive_parity)
    simulation.run((chain(block, 6, 4, 1) for block in range(150)), 1)
    check_empty(simulation, state)
    counters = state.history.totals()
    # Until it is known what parity takes it is started, and if the backup is slow as well.
    assert counters.doubles_used > 30
    assert counters.parity_started < counters.doubles_used / 2
    shares = state.history.run("simulated").shares
    assert counters.erasures == sum(share.state == "erased" for share in shares)


def test_standby_costs_nothing_while_all_is_well() -> None:
    outcome = run(AnyKState(), Steady(), [one_layer(b, 8, 6, standby=True) for b in range(50)])
    assert outcome.extra_work == pytest.approx(0.0)


def test_faster_workers_get_more_shares() -> None:
    speeds = {"w0": 1.0, "w1": 1.0, "w2": 0.5, "w3": 0.5, "w4": 0.25, "w5": 0.25}
    state = AnyKState()
    simulation = cluster(state, 6, Steady(speeds), hosts=1)
    done: Counter[str] = Counter()
    blocks = [chain(b, 6, 4, 3) for b in range(150)]
    outcome = simulation.run(blocks, 8)
    for record in state.history.run("simulated").shares:
        done[record.worker] += record.state == "done"
    bound = outcome.useful / sum(speeds.values())
    assert outcome.seconds < 1.15 * bound
    assert done["w0"] > 1.5 * done["w2"] > 2.0 * done["w4"] > 0
    paces = {address: worker.pace for address, worker in state.workers.by_address.items()}
    assert paces["w4"] / paces["w0"] == pytest.approx(4.0, rel=0.3)


def test_the_graph_of_a_real_block_runs_as_well(files: Files) -> None:
    network = open_model(files.model).network
    options = PlanOptions.of(batch=16, split="images", redundancy="standby")
    plan = choose_plan(network, (3, 16, 16), options)
    executable = Executable(network, plan)

    def read(key: Key, start: int, stop: int, pad_to: int) -> Task:
        return Task(key, range, start, stop, pad_to)

    blocks = []
    for block in range(5):
        graph = build_block(network, plan, Block(executable.ref, "r", block, 16, read))
        last = Task(task_key("write", "r", 99, block), list, graph.prediction)
        tasks = {**graph.tasks, last.key: last}
        blocks.append(simulated(block, tasks, last.key, lambda _: 0.1, is_plain))
    state = AnyKState()
    simulation = cluster(state, 6)
    outcome = simulation.run(blocks, 2)
    assert len(outcome.blocks) == 5
    assert outcome.extra_work == pytest.approx(0.0)
    check_empty(simulation, state)


def is_plain(key: Key) -> bool:
    label = parse_key(key)
    return label is not None and label.stage != "parity"
