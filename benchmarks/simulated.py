"""Simulated runs compared with real ones: whether the simulator predicts what a cluster does.

A cluster as in ``stragglers.py`` runs healthy blocks. They give the seconds of tasks by stage and
layer, how long after its inputs a task began on an idle worker, and how long after the task before
it in a queue. Parity and decoding, which a healthy run does not need, are measured separately. A
slow task takes ten times what it takes when nothing else runs: it sleeps most of that, so other
tasks do not delay it. The simulator draws from these times, and gets which workers are slow,
stopped or killed, and when killed ones were replaced. Then both run the traces and are compared by
the seconds of the whole run and the mean and 90th percentile of the time of a coded group. If other
processes keep more than 0.2 cores busy during a real run, it is repeated, at most twice.

    python benchmarks/simulated.py [--traces healthy,random,…] [--forms "ours, standby;ours, eager"]
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from dask._task_spec import DataNode
from dask.typing import Key
from distributed import wait
from pacing import FACTOR, SLOW_WORKERS
from stragglers import PARTS, WORKERS, Bench, cluster_of, process_id

from fcdcc.pipeline.anyk import ERASED, AnyK
from fcdcc.pipeline.anyk.keys import parse_key
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.worker.executable_plugin import ExecutablePlugin, install, uninstall

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from simulation import Outcome, SimulatedBlock, SimulatedCluster, simulated
from simulation.traces import draw

TRACES = ("healthy", "random", "latency", "workers", "stopped", "killed")
PACED = ("share", "parity", "part", "glue")
TRIES, DISTURBED = 3, 0.2
Place = tuple[str, int]
"""Stage and layer."""
Seconds = Mapping[Place, Sequence[float]]
"""The seconds that tasks took, by stage and layer."""


def place_of(key: Any) -> Place:
    """Return the stage and layer of a task."""
    known = parse_key(key[:4])
    return ("", 0) if known is None else (known.stage, known.layer)


@dataclass(frozen=True)
class Known:
    """Times of a healthy run: of tasks, before one begins, and between two of a queue.

    ``undisturbed`` are the seconds with one block at a time. What it does not say: the seconds of
    parity and of decoding, with what they fetch.
    """

    seconds: Seconds
    undisturbed: Seconds
    decoding: Seconds
    before: float
    between: float


@dataclass(frozen=True)
class Recorded:
    """Draws the times of tasks from recorded ones, and which are slow as ``pacing.py`` does."""

    known: Known
    names: Mapping[str, Any]
    seed: int
    share: float = 0.0
    workers: bool = False

    def __call__(self, key: Key, worker: str) -> float:
        """Return the seconds of a task on a worker."""
        known = self.known
        return known.between + self._drawn(known.seconds, known.undisturbed, key, worker)

    def solving(self, key: Key, worker: str) -> float:
        """Return how many seconds longer a node takes when it has to decode."""
        return self._drawn(self.known.decoding, self.known.decoding, key, worker)

    def _drawn(self, usual: Seconds, undisturbed: Seconds, key: Key, worker: str) -> float:
        place = place_of(key)
        stage = place[0]
        label = tuple(key)[1:4] if isinstance(key, tuple) else key
        name = self.names.get(worker)
        lot = random.Random(f"{self.seed} {label} {name}").random()
        slow = stage in ("share", "parity") and lot < self.share
        slow = slow or (self.workers and stage in PACED and name in SLOW_WORKERS)
        pool = (undisturbed if slow else usual).get(place) or (0.0,)
        return pool[int(draw(self.seed, key, worker) * len(pool))] * (FACTOR if slow else 1.0)


def recorded(
    bench: Bench,
    form: str,
    blocks: int,
    in_flight: int,
    parity: Seconds,
    decoding: Seconds,
) -> Known:
    """Run healthy blocks and return their times."""
    bench.trace()
    bench.client.get_task_stream()  # from now on it is recorded
    begin = time.time()
    undisturbed(bench, form, blocks, in_flight=in_flight)
    run = f"run{bench.runs}"
    tasks, _ = bench.graphs("images", form, run)[1](0)
    inputs = {key: node.dependencies for key, node in tasks.items()}
    spans: dict[Any, tuple[float, float]] = {}
    order: dict[str, list[tuple[float, float, Any]]] = defaultdict(list)
    for entry in bench.client.get_task_stream(start=begin):
        key = entry["key"]
        computed = [s for s in entry["startstops"] if s["action"] == "compute"]
        label = parse_key(key)
        latest = label is not None and label.run == run and label.block  # the first warms up
        if computed and latest:
            spans[key] = start, stop = computed[-1]["start"], computed[-1]["stop"]
            order[entry["worker"]].append((start, stop, key))
    seconds: dict[Place, list[float]] = defaultdict(list)
    before, between = [], []
    for done in order.values():
        free = 0.0
        for start, stop, key in sorted(done, key=lambda one: one[:2]):
            seconds[place_of(key)].append(stop - start)
            needed = [
                spans[other][1]
                for pattern in inputs.get((*key[:2], 0, *key[3:]), ())
                if (other := (pattern[0], pattern[1], key[2], *pattern[3:])) in spans
            ]
            if needed and free:
                ready = max(needed)
                (between if ready < free else before).append(start - max(ready, free))
            free = stop
    pauses = (max(0.0, median(some)) if some else 0.0 for some in (before, between))
    taken = {**seconds, **parity}
    return Known(taken, taken, decoding, *pauses)


def seconds_alone(
    bench: Bench, form: str, select: Callable[[dict[Any, Any]], dict[Any, Any]], blocks: int = 4
) -> dict[Place, list[float]]:
    """Return the seconds of tasks, including the transfer of inputs, when nothing else runs.

    ``select`` takes or makes them from the graph of a block.
    """
    executable, build = bench.graphs("images", form, "alone")
    plugin = ExecutablePlugin(executable, "alone", 1)
    install(bench.client, plugin)
    bench.client.get_task_stream()  # from now on it is recorded
    begin = time.time()
    wanted: set[Any] = set()
    for block in range(blocks):
        tasks, _ = build(block)
        fresh = select(tasks)
        tasks |= fresh
        wait(bench.client.get(culled(tasks, fresh), list(fresh), sync=False))
        wanted |= fresh.keys() if block else set()  # the first block warms up
    uninstall(bench.client, plugin)
    seconds: dict[Place, list[float]] = defaultdict(list)
    for entry in bench.client.get_task_stream(start=begin):
        if entry["key"] in wanted:
            spans = entry["startstops"]
            taken = max(s["stop"] for s in spans) - min(s["start"] for s in spans)
            seconds[place_of(entry["key"])].append(taken)
    return seconds


def culled(tasks: Mapping[Any, Any], wanted: Iterable[Any]) -> dict[Any, Any]:
    """Return some tasks and those that they need."""
    left, found = list(wanted), {}
    while left:
        key = left.pop()
        if key in tasks and key not in found:
            found[key] = tasks[key]
            left += tasks[key].dependencies
    return found


def parity_tasks(tasks: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the parity tasks of a block."""
    return {key: task for key, task in tasks.items() if place_of(key)[0] == "parity"}


def decoding_tasks(tasks: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the first part of every layer, without its own share and with one parity share."""
    found = {}
    for key, node in tasks.items():
        if isinstance(node, AnyK) and node.own == 0:
            erased = [node.shares[0], *(node.shares[p] for p in range(PARTS + 1, WORKERS))]
            found[key] = node.substitute({share: DataNode(share, ERASED) for share in erased})
    return found


def simulate(
    bench: Bench,
    form: str,
    known: Known,
    names: Mapping[str, Any],
    blocks: int,
    in_flight: int,
    seed: int,
    then: Callable[[SimulatedCluster], None] | None = None,
    **slow: Any,
) -> Outcome:
    """Run the same blocks on a simulated cluster with workers of the same addresses and names."""
    build = bench.graphs("images", form, "simulated")[1]
    times = Recorded(known, names, seed, **slow)
    cluster = SimulatedCluster(
        AnyKState(), times, start_delay=known.before / 2, result_delay=known.before / 2,
        check_interval=0.02, solve_times=times.solving,
    )  # fmt: skip
    for address in names:
        cluster.join(address, "here")

    def make(block: int) -> SimulatedBlock:
        tasks, last = build(block)
        return simulated(block, tasks, last, lambda _: 1.0, lambda _: True)

    finished: list[int] = []

    def end(block: int) -> None:
        finished.append(block)
        if then is not None and len(finished) == blocks // 3:
            cluster.at(cluster.now, then, cluster)

    cluster.on_block = end
    cluster.run([make(blocks)], 1, 600.0)  # as in reality, to warm up
    finished.clear()
    cluster.outcome = Outcome()
    made = (make(block) for block in range(blocks))
    return cluster.run(made, in_flight, 600.0, bench.submitting)


def cpu_of_others() -> float:
    """Return the CPU seconds so far of all processes on this machine but ours."""
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - times.iowait
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            busy -= used.user + used.system
            busy -= used.children_user + used.children_system if process is me else 0.0
    return busy


def undisturbed(bench: Bench, form: str, blocks: int, **how: Any) -> tuple[float, float]:
    """Run blocks, again if the machine was busy; return seconds and cores of other processes."""
    for _ in range(1 if "then" in how else TRIES):
        before = cpu_of_others()
        seconds = bench.ours("images", form, blocks, **how)
        others = (cpu_of_others() - before) / seconds
        if others < DISTURBED:
            break
    return seconds, others


class Real(NamedTuple):
    """The seconds of real runs and of their groups; cores that other processes kept busy."""

    seconds: list[float]
    groups: list[float]
    others: list[float]

    def add(self, bench: Bench, form: str, blocks: int, **how: Any) -> None:
        """Run blocks, after one to warm up, and add their times."""
        seconds, others = undisturbed(bench, form, blocks, warm=True, **how)
        self.others.append(others)
        self.seconds.append(seconds)
        records = (record for record in bench.report["groups"] if record["block"] < blocks)
        self.groups.extend(record["stop"] - record["start"] for record in records)


def show(trace: str, form: str, real: Real, simulations: Sequence[Outcome]) -> None:
    """Print real, simulated and their ratio, of seconds and of times of groups."""
    one = [fmean(o.seconds for o in simulations)]
    one += [fmean(fmean(o.groups) for o in simulations)]
    one += [fmean(float(np.quantile(o.groups, 0.9)) for o in simulations)]
    two = [fmean(real.seconds), fmean(real.groups), float(np.quantile(real.groups, 0.9))]
    cells = (f"{r:6.2f} {s:6.2f} {s / r:5.2f}" for r, s in zip(two, one, strict=True))
    print(f"{trace:<8} {form:<16} " + "   ".join(cells) + f"  {max(real.others):6.2f}", flush=True)


def compare(bench: Bench, trace: str, form: str, known: Known, options: argparse.Namespace) -> None:
    """Run one trace on the real and on a simulated cluster."""
    slow = {"share": 0.1 if trace in ("random", "latency") else 0.0, "workers": trace == "workers"}
    blocks, in_flight = options.blocks, 8
    if trace == "latency":
        blocks, in_flight = options.latency_blocks, 1
    then = None
    real = Real([], [], [])
    workers = bench.client.scheduler_info(n_workers=-1)["workers"]
    names = {address: worker["name"] for address, worker in workers.items()}
    victims = list(bench.client.run(process_id))[:2]
    if trace in ("stopped", "killed"):
        bench.trace()
        blocks = options.long_blocks
        back = Back(bench)
        with bench.losing(signal.SIGSTOP if trace == "stopped" else signal.SIGKILL) as lose:
            real.add(bench, form, blocks, then=back.watching(lose))
        returns = back.after if trace == "killed" else []

        def then(cluster: SimulatedCluster) -> None:
            for address in victims:
                (cluster.stop if trace == "stopped" else cluster.lose)(address)
            for number, after in enumerate(returns):
                cluster.at(cluster.now + after, cluster.join, f"fresh{number}", "here")
    else:
        for seed in options.seeds:
            bench.trace(seed=seed, **slow)
            real.add(bench, form, blocks, in_flight=in_flight)
    outcomes = [
        simulate(bench, form, known, names, blocks, in_flight, seed, then, **slow)
        for seed in options.seeds
    ]
    show(trace, form, real, outcomes)


class Back:
    """Records after how many seconds killed workers were replaced."""

    def __init__(self, bench: Bench) -> None:
        self._workers = bench.cluster.scheduler.workers
        self._before = set(self._workers)
        self.after: list[float] = []

    def watching(self, lose: Callable[[], None]) -> Callable[[], None]:
        """Return a function that calls ``lose`` and records the new workers in a thread."""

        def act() -> None:
            lose()
            threading.Thread(target=self._watch, args=(time.perf_counter(),), daemon=True).start()

        return act

    def _watch(self, begin: float) -> None:
        seen = set(self._before)
        while len(self.after) < len(SLOW_WORKERS) and time.perf_counter() < begin + 60.0:
            for address in set(self._workers) - seen:
                seen.add(address)
                self.after.append(time.perf_counter() - begin)
            time.sleep(0.05)


def main() -> None:
    """Measure, simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", default=",".join(TRACES))
    parser.add_argument("--forms", default="ours, standby;ours, eager;uncoded strips")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--long-blocks", type=int, default=24, help="for stopped and killed")
    parser.add_argument("--latency-blocks", type=int, default=20)
    parser.add_argument("--give-up", type=float, default=60.0, help="without a block, in seconds")
    parser.add_argument("--pace", type=float, default=4.0)
    parser.add_argument("--seeds", default="1,2,3,4,5", help="one run for each")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    torch.set_num_threads(1)
    print("trace    form             seconds: real, simulated, ratio; mean of groups; 90th; others")
    with cluster_of(WORKERS, options) as bench:
        for form in options.forms.split(";"):
            parity = seconds_alone(bench, form, parity_tasks)
            decoding = seconds_alone(bench, form, decoding_tasks)
            idle = recorded(bench, form, options.blocks, 1, parity, decoding)
            busy = recorded(bench, form, options.blocks, 8, parity, decoding)
            busy = replace(busy, undisturbed=idle.seconds, before=idle.before)
            print(f"  ({1e3 * bench.submitting:.1f} ms to submit a block)")
            print(f"  ({form}: {1e3 * idle.before:.1f} ms before a task begins, "
                  f"{1e3 * busy.between:.1f} ms between two)")  # fmt: skip
            for trace in options.traces.split(","):
                coded = form != "uncoded strips"
                if coded or trace not in ("stopped", "killed"):
                    compare(bench, trace, form, idle if trace == "latency" else busy, options)


if __name__ == "__main__":
    main()
