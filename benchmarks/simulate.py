"""Tail latency and extra work by simulation, and what the state machine costs on large clusters.

The real state machine on simulated workers (``tests/simulation``): n = 20 shares a layer on 60
workers, three layers at a time; a layer is 16 seconds of work. Shares take shifted exponential
times, heavy-tailed ones, or the racks of four fail together: each stops silently once in five
minutes, and is replaced a minute later.

    python benchmarks/simulate.py [--groups 400] [--figure docs/figures/gamma.svg]
    python benchmarks/simulate.py --scale [--workers 10,100,1000,10000] [--scale-groups 5000]
"""

from __future__ import annotations

import argparse
import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from statistics import quantiles
from time import thread_time
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from fcdcc.pipeline.anyk.state_machine.events import Event, GroupsAdded, Tick, WorkerJoined
from fcdcc.pipeline.anyk.state_machine.state import AnyKState

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from simulation import (
    HeavyTail,
    Nothing,
    Oracle,
    Outcome,
    Policy,
    ShiftedExponential,
    SimulatedBlock,
    SimulatedCluster,
    TaskSpeculation,
    Times,
    one_layer,
)

N, WORKERS, RACK, WORK, IN_FLIGHT = 20, 60, 4, 16.0, 3
GAMMAS = (1, 2, 3, 4, 6, 8)
BETWEEN, AWAY = 300.0, 60.0
TRACES: dict[str, tuple[Times, bool]] = {
    "shifted exponential": (ShiftedExponential(1), False),
    "heavy tail": (HeavyTail(1), False),
    "racks fail together": (ShiftedExponential(1, certain=0.9), True),
}
Make = Callable[[int], SimulatedBlock]


def racks_fail(cluster: SimulatedCluster, until: float) -> None:
    """Let racks stop silently, and others replace them."""
    random, fresh = Random(7), 0
    for rack in range(WORKERS // RACK):
        names = [f"w{RACK * rack + i}" for i in range(RACK)]
        when = random.expovariate(1.0 / BETWEEN)
        while when < until:
            for name in names:
                cluster.at(when, stop, cluster, name)
            names = [f"fresh{fresh + i}" for i in range(RACK)]
            fresh += RACK
            for name in names:
                cluster.at(when + AWAY, cluster.join, name, f"rack{rack}")
            when += AWAY + random.expovariate(1.0 / BETWEEN)


def stop(cluster: SimulatedCluster, name: str) -> None:
    """Stop a worker, unless it is gone."""
    if name in cluster.workers:
        cluster.stop(name)


def run(policy: Policy, make: Make, times: Times, racks: bool, groups: int) -> Outcome:
    """Run so many layers on a simulated cluster."""
    cluster = SimulatedCluster(policy, times)
    for number in range(WORKERS):
        cluster.join(f"w{number}", f"rack{number // RACK}")
    if racks:
        racks_fail(cluster, 20_000.0)
    return cluster.run((make(block) for block in range(groups)), IN_FLIGHT)


def coded(gamma: int, standby: bool) -> Make:
    """Return layers of n shares, of which γ may be lost."""
    delta = N - gamma
    return lambda block: one_layer(block, N, delta, WORK / delta, standby)


def twice(block: int) -> SimulatedBlock:
    """Return a layer of n parts, each computed twice at once."""
    return one_layer(block, 2 * N, N, WORK / N, enough=either)


def either(done: frozenset[int]) -> bool:
    """Return whether one of every two copies is there."""
    return all(part in done or part + N in done for part in range(N))


def uncoded(block: int) -> SimulatedBlock:
    """Return a layer of n parts, all of them needed."""
    return one_layer(block, N, N, WORK / N)


def rows(times: Times, racks: bool, groups: int) -> Iterator[tuple[str, int | None, Outcome]]:
    """Yield the name, γ (None if it has none) and outcome of every run."""
    yield "uncoded", None, run(Nothing(), uncoded, times, racks, groups)
    yield "every task twice", None, run(AnyKState(), twice, times, racks, groups)
    yield "copies after 3 × median", None, run(TaskSpeculation(), uncoded, times, racks, groups)
    for gamma in GAMMAS:
        yield "eager", gamma, run(AnyKState(), coded(gamma, False), times, racks, groups)
        yield "standby", gamma, run(AnyKState(), coded(gamma, True), times, racks, groups)
        if not racks:  # it cannot be known when a rack will fail
            policy = Oracle(times, N - gamma)
            yield "oracle", gamma, run(policy, coded(gamma, False), times, racks, groups)


COLOURS = {
    "uncoded": "#777777", "every task twice": "#9467bd", "copies after 3 × median": "#ff7f0e",
    "eager": "#1f77b4", "standby": "#2ca02c", "oracle": "#000000",
}  # fmt: skip
DASHES = {"uncoded": ":", "every task twice": "--", "copies after 3 × median": "-.", "oracle": ":"}


def figure(groups: int, path: Path) -> None:
    """Run everything, print a table and draw the figure."""
    mpl.rcParams["svg.hashsalt"] = "fcdcc"
    drawing, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True, layout="constrained")
    for column, (name, (times, racks)) in enumerate(TRACES.items()):
        print(name)
        found: dict[str, list[tuple[int | None, float, float]]] = {}
        for what, gamma, outcome in rows(times, racks, groups):
            cuts = quantiles(outcome.groups, n=100)
            found.setdefault(what, []).append((gamma, cuts[98], outcome.extra_work))
            print(
                f"  {what:<24} γ {'-' if gamma is None else gamma}  median {cuts[49]:6.2f} s  "
                f"99th {cuts[98]:7.2f} s  extra work {abs(outcome.extra_work):6.1%}",
                flush=True,
            )
        for what, points in found.items():
            _draw(axes[:, column], what, points)
        axes[0, column].set(title=name, yscale="log")
        axes[1, column].set(xlabel="γ, shares that may be lost of 20", xticks=GAMMAS)
    axes[0, 0].set_ylabel("99th percentile of a layer's time, s")
    axes[1, 0].set_ylabel("extra work, relative")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    drawing.savefig(path, metadata={"Date": None})


def _draw(axes: Any, what: str, points: list[tuple[int | None, float, float]]) -> None:
    style = {"color": COLOURS[what], "label": what, "linestyle": DASHES.get(what, "-")}
    gammas = [gamma for gamma, *_ in points if gamma is not None]
    for axis, values in zip(axes, zip(*(rest for _, *rest in points), strict=True), strict=True):
        if gammas:
            axis.plot(gammas, values, marker="o", markersize=3, **style)
        else:
            axis.axhline(values[0], **style)


def scale(workers: list[int], groups: int) -> None:
    """Print what an event costs on clusters of these sizes, and what a group needs in memory.

    Once between the simulator's own work, which displaces the state machine from the processor's
    caches, and once alone: the same events are handed to another one, the shortest of three times.
    Also, what it costs to find a worker by its address and read one number of it.
    """
    print("workers  groups   events  µs an event  alone  ns a find  µs a tick each  bytes a group")
    for count in workers:
        state = AnyKState(record=True)
        cluster = SimulatedCluster(state, ShiftedExponential(1))
        for number in range(count):
            cluster.join(f"w{number}", f"rack{number // RACK}")
        outcome = cluster.outcome
        outcome.events, outcome.event_seconds = 0, 0.0
        state.events = []
        gc.collect()
        gc.freeze()
        cluster.run((one_layer(b, 6, 4, standby=True) for b in range(groups)), max(1, count // 5))
        each = 1e6 * outcome.event_seconds / outcome.events
        tick = 1e6 * outcome.tick_seconds / max(1, outcome.ticks) / count
        print(f"{count:7} {groups:7} {outcome.events:8} {each:12.2f}", end="", flush=True)
        alone = 1e6 * min(replayed(count, state.events) for _ in range(3))
        find = 1e9 * min(finding(state) for _ in range(3))
        print(f" {alone:6.2f} {find:10.0f} {tick:15.2f} {memory():14.0f}", flush=True)
        gc.unfreeze()


def finding(state: AnyKState, times: int = 200_000) -> float:
    """Return the CPU seconds that it takes to find a worker and read its load, in any order."""
    workers = state.workers.by_address
    addresses = Random(1).choices(list(workers), k=times)
    start = thread_time()
    for address in addresses:
        workers[address].load  # noqa: B018 - this is what is measured
    return (thread_time() - start) / times


def replayed(workers: int, events: list[Event]) -> float:
    """Return the CPU seconds that one event costs a state machine that does nothing else."""
    state = AnyKState()
    for number in range(workers):
        state.handle(WorkerJoined(0.0, f"w{number}", f"rack{number // RACK}", 1))
    gc.collect()
    gc.freeze()
    taken, before = 0.0, 0
    ticks = [number for number, event in enumerate(events) if isinstance(event, Tick)]
    for tick in (*ticks, len(events)):
        start = thread_time()
        for event in events[before:tick]:
            state.handle(event)
        taken += thread_time() - start
        for event in events[tick : tick + 1]:
            state.handle(event)
        before = tick + 1
    return taken / (len(events) - len(ticks))


def memory(groups: int = 500) -> float:
    """Return the bytes that the state machine holds for a group of six shares in flight."""
    state = AnyKState()
    cluster = SimulatedCluster(state)
    for number in range(10):
        cluster.join(f"w{number}")
    blocks = [one_layer(block, 6, 4, standby=True) for block in range(groups)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for block in blocks:
        state_only(state, block)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held / groups


def state_only(state: AnyKState, block: SimulatedBlock) -> None:
    """Add a block to a state machine, without a cluster."""
    list(state.handle(GroupsAdded(0.0, block.groups)))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=400)
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/gamma.svg"))
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--workers", default="10,100,1000,10000")
    parser.add_argument("--scale-groups", type=int, default=5_000)
    options = parser.parse_args()
    if options.scale:
        scale([int(count) for count in options.workers.split(",")], options.scale_groups)
    else:
        figure(options.groups, options.figure)


if __name__ == "__main__":
    main()
