"""What the plugins cost the scheduler for each transition of a task.

A worker process computes trivial tasks whose keys are those of a run's reads. The CPU time of the
thread of the scheduler's event loop, in which the client sends and receives, too, is measured
without plugins, with the any-k plugin, and with the dashboard plugin beside it, in turn and several
times; then the hooks alone, called with what Dask gives them.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from statistics import median
from typing import Any

from dask.typing import Key
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import SchedulerPlugin

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.monitoring.dashboard.dashboard_plugin import DashboardPlugin

SPANS = ({"action": "compute", "start": 1.0, "stop": 2.0},)
"""What a worker says of a task that it computed."""

STATES = ("released", "waiting", "processing", "memory", "released", "forgotten")
"""The states of a task of a run, one after the other."""

PLUGINS: dict[str, tuple[type[SchedulerPlugin], ...]] = {
    "without plugins": (),
    "any-k": (AnyKPlugin,),
    "any-k and dashboard": (AnyKPlugin, DashboardPlugin),
}


def loop_state(dask_scheduler: Any) -> tuple[float, int]:
    """Return the CPU seconds of the scheduler's thread, and its transitions; on the scheduler."""
    return time.thread_time(), dask_scheduler.transition_counter


def increased(number: int) -> int:
    """Do next to nothing."""
    return number + 1


def loop_cost(client: Client, plugins: tuple[type[SchedulerPlugin], ...], tasks: int) -> float:
    """Return the microseconds of CPU time for each transition."""
    for plugin in plugins:
        client.register_plugin(plugin())
    graph = {("read-00000000", 0, number, 0): (increased, number) for number in range(tasks)}
    before, first = client.run_on_scheduler(loop_state)
    client.get(graph, list(graph))
    after, last = client.run_on_scheduler(loop_state)
    for plugin in plugins:
        client.unregister_scheduler_plugin(plugin.name)
    return 1e6 * (after - before) / (last - first)


def call_cost(tasks: int, key: Key) -> float:
    """Return the microseconds of CPU time for each call of the dashboard plugin's hook."""
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(DashboardPlugin())
        hook = cluster.scheduler.plugins[DashboardPlugin.name].transition
        start = time.thread_time()
        for _ in range(tasks):
            for before, after in pairwise(STATES):
                hook(key, before, after, worker="tcp://a:1", startstops=SPANS)
        return 1e6 * (time.thread_time() - start) / (tasks * (len(STATES) - 1))


def main() -> None:
    """Print what a transition costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    for what, key in (("a read", ("read-00000000", 0, 0, 0)), ("of others", "sum-0123")):
        print(f"hook of the dashboard plugin, {what}: {call_cost(chosen.tasks, key):.2f} µs")
    found: dict[str, list[float]] = {name: [] for name in PLUGINS}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        loop_cost(client, (), chosen.tasks)
        for _ in range(chosen.rounds):
            for name, plugins in PLUGINS.items():
                found[name].append(loop_cost(client, plugins, chosen.tasks))
    for name, costs in found.items():
        print(f"{name}: {median(costs):.1f} µs a transition ({min(costs):.1f} to {max(costs):.1f})")


if __name__ == "__main__":
    main()
