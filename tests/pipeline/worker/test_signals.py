"""Workers that leave gracefully lose nothing; adaptive scaling closes none that is needed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, KilledWorker, LocalCluster, wait

from fcdcc.pipeline import open_model
from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.runtime.cluster import PRELOAD
from fcdcc.pipeline.worker.executable import Executable
from fcdcc.pipeline.worker.executable_plugin import ExecutablePlugin, install, uninstall
from support.anyk_cluster import VALIDATION, Errors, Running, local_cluster, threaded_cluster
from support.anyk_graphs import ENOUGH, in_parts, process_id
from support.small import Files


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[LocalCluster, Client]]:
    with (
        dask.config.set(VALIDATION),
        threaded_cluster(6) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(AnyKPlugin())
        yield cluster, client


def test_adaptive_scaling_takes_only_workers_that_no_run_needs(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    running = Running(*cluster, Errors())
    gates = {position: str(tmp_path / str(position)) for position in range(ENOUGH)}
    graph = in_parts(0, gates)
    futures = running.client.get(graph.tasks, graph.results, sync=False)
    running.wait_until(
        lambda: sum(len(w.processing) for w in running.scheduler.workers.values()) == ENOUGH,
        "the shares run",
    )
    needed = {a for a, w in running.scheduler.workers.items() if w.processing or w.has_what}
    asked = running.client.sync(workers_to_close, running)
    assert ENOUGH <= len(needed) < 6
    assert asked == set(running.scheduler.workers) - needed
    for gate in gates.values():
        Path(gate).touch()
    assert [future.result(timeout=60)[0] for future in futures] == [0.0] * ENOUGH
    del futures
    running.wait_until_empty()


async def workers_to_close(running: Running) -> set[str]:
    chosen = running.scheduler.workers_to_close(n=6, minimum=0)
    return {getattr(worker, "address", worker) for worker in chosen}


def test_a_worker_that_retires_loses_nothing(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    running = Running(*cluster, Errors())
    gate = tmp_path / "gate"
    gates = {0: str(gate)}
    graphs = [in_parts(block, gates if block == 3 else {}, "leave") for block in range(4)]
    futures = [running.client.get(graph.tasks, graph.results, sync=False) for graph in graphs]
    for parts in futures[:3]:
        wait(parts, timeout=60)
    for part in futures[3][1:]:
        part.result(timeout=60)
    results = [a for a, w in running.scheduler.workers.items() if w.has_what and not w.processing]
    running.client.retire_workers([results[0]], close_workers=True)
    gate.touch()
    for block, parts in enumerate(futures):
        assert [part.result(timeout=60)[0] for part in parts] == [float(block)] * ENOUGH
    report = running.report("leave")
    computed = [
        (record["block"], record["position"])
        for record in report["timeline"]
        if record["state"] == "done"
    ]
    assert len(computed) == len(set(computed))
    assert report["counters"]["shares_lost"] == report["counters"]["workers_lost"] == 0
    del futures, parts, part
    running.wait_until_empty()


@pytest.mark.cluster
def test_a_worker_process_that_is_told_to_end_hands_over_what_it_holds(files: Files) -> None:
    network = open_model(files.model).network
    plan = choose_plan(network, (3, 16, 16), PlanOptions.of(batch=4), 8)
    plugin = ExecutablePlugin(Executable(network, plan), "r", 1)
    with (
        dask.config.set(VALIDATION),
        local_cluster(3, processes=True) as cluster,
        Client(cluster) as client,
    ):
        install(client, plugin)
        victim, *_ = client.scheduler_info(n_workers=-1)["workers"]
        held = client.submit(process_id, workers=[victim], pure=False)
        pid = held.result(timeout=60)
        os.kill(pid, signal.SIGTERM)
        running = Running(cluster, client, Errors())
        running.wait_until(lambda: victim not in running.scheduler.workers, "it has left")
        assert held.result(timeout=60) == pid  # not computed again
        uninstall(client, plugin)


def fill_memory(size: int) -> int:
    """Hold so many bytes until the process ends."""
    held = np.ones(size, np.uint8)
    time.sleep(600)
    return int(held[-1])


@pytest.mark.cluster
def test_a_worker_that_used_too_much_memory_is_replaced_by_its_nanny(files: Files) -> None:
    network = open_model(files.model).network
    plan = choose_plan(network, (3, 16, 16), PlanOptions.of(batch=4), 8)
    plugin = ExecutablePlugin(Executable(network, plan), "r", 1)
    limit = 900 * 2**20
    settings = {
        **VALIDATION,
        "distributed.scheduler.allowed-failures": 0,
        # Long, so that the worker has handled SIGTERM before its nanny sends SIGKILL.
        "distributed.worker.memory.monitor-interval": "3s",
        "distributed.worker.memory.pause": False,
    }
    with (
        dask.config.set(settings),
        local_cluster(1, processes=True, memory_limit=limit) as cluster,
        Client(cluster) as client,
    ):
        install(client, plugin)
        before = client.submit(process_id, pure=False).result(timeout=60)
        with pytest.raises(KilledWorker):
            client.submit(fill_memory, limit, pure=False).result(timeout=60)
        assert client.submit(process_id, pure=False).result(timeout=60) != before


@pytest.mark.cluster
def test_ctrl_c_is_left_to_the_client() -> None:
    # A program that a shell starts in the background ignores SIGINT: not so this test.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            LocalCluster(n_workers=1, preload=PRELOAD, dashboard_address=":0") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            ignored = client.run(lambda: signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
        assert list(ignored.values()) == [True]
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
