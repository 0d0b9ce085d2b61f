"""The plugin on a cluster of processes, two of which are killed or stopped in the middle."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.anyk.keys import task_key
from support.anyk_cluster import VALIDATION, Errors, Running, local_cluster
from support.anyk_graphs import (
    ENOUGH,
    GraphOf,
    N,
    append,
    do_nothing,
    gathered,
    in_parts,
    process_id,
)

pytestmark = pytest.mark.cluster

BLOCKS = 24


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[LocalCluster, Client]]:
    with (
        dask.config.set(VALIDATION),
        local_cluster(6, processes=True) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(AnyKPlugin())
        yield cluster, client


@pytest.fixture
def six(processes: tuple[LocalCluster, Client], errors: Errors) -> Iterator[Running]:
    """Six worker processes that have returned results; killed ones have been replaced."""
    six = Running(*processes, errors)
    for run in list(six.plugin.state.history.runs):
        six.plugin.state.history.drop(run)
    six.client.wait_for_workers(6, timeout=120)
    warm = gathered(0, run="warm", enough=6)
    assert six.client.get(warm.tasks, warm.results)[0][0] == 0.0
    yield six
    six.wait_until_empty()
    six.check(losses=True)


@pytest.mark.parametrize(
    ("build", "how"),
    [
        pytest.param(gathered, signal.SIGSTOP, id="gathered-stopped"),
        pytest.param(in_parts, signal.SIGKILL, id="in_parts-killed"),
        pytest.param(gathered, signal.SIGKILL, id="gathered-killed", marks=pytest.mark.long),
        pytest.param(in_parts, signal.SIGSTOP, id="in_parts-stopped", marks=pytest.mark.long),
    ],
)
def test_two_of_six_workers(six: Running, build: Any, how: signal.Signals) -> None:
    pids = six.client.run(process_id)
    graphs = [build(block, seconds=0.1) for block in range(BLOCKS)]
    futures = [six.client.get(g.tasks, g.results, sync=False) for g in graphs]
    six.wait_until(lambda: six.report()["counters"]["groups"] > 1, "the first blocks are done")
    victims = list(pids)[:2]
    try:
        for address in victims:
            os.kill(pids[address], how)
        for block, parts in enumerate(futures):
            for part in parts:
                number, there = part.result(timeout=120)
                assert number == block
                assert len(there) >= ENOUGH or build is in_parts
        del futures, parts, part
        six.wait_until_empty()
        assert six.report()["counters"]["groups"] == BLOCKS
        if how == signal.SIGKILL:
            six.wait_until(
                lambda: set(victims) <= set(six.report()["workers_lost"]), "both are known as lost"
            )
        # A stopped worker that was not needed is not removed.
    finally:
        for address in victims:
            with suppress(ProcessLookupError):
                os.kill(pids[address], signal.SIGKILL)  # its nanny starts another


def theirs(path: str, seconds: float) -> str:
    """Hold the interpreter lock for some seconds; the file gets a line for every run."""
    append("run", path)
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return "theirs"


@pytest.mark.long
def test_a_worker_that_somebody_elses_task_keeps_busy_stays(six: Running, tmp_path: Path) -> None:
    """The task holds the interpreter lock for longer than a worker may be silent."""
    runs = tmp_path / "runs"
    victim = next(iter(six.client.run(process_id)))
    before = set(six.scheduler.workers)
    graphs = [gathered(block, seconds=0.1) for block in range(BLOCKS)]
    futures = [six.client.get(g.tasks, g.results, sync=False) for g in graphs]
    six.wait_until(lambda: six.report()["counters"]["groups"] > 1, "the first blocks are done")
    other = six.client.submit(theirs, str(runs), 7.0, workers=[victim], pure=False)
    assert [part.result(timeout=120)[0] for [part] in futures] == [*range(BLOCKS)]
    assert other.result(timeout=120) == "theirs"
    assert runs.read_text().splitlines() == ["run"]
    assert set(six.scheduler.workers) == before
    assert six.report()["workers_removed"] == []
    del futures


@pytest.mark.long
@pytest.mark.parametrize("what", ["finished", "running"])
def test_work_goes_around_a_stopped_worker_that_others_use(
    six: Running, tmp_path: Path, what: str
) -> None:
    """A node needs all shares; that of the stopped worker is finished, or still runs."""
    runs = tmp_path / "runs"
    other = six.client.submit(theirs, str(runs), 0.0, pure=False)
    assert other.result(timeout=60) == "theirs"
    [victim] = six.client.who_has(other)[other.key]
    pid = six.client.run(process_id, workers=[victim])[victim]
    gates = {position: tmp_path / f"gate-{position}" for position in range(N)}
    graph = gathered(0, {position: str(gate) for position, gate in gates.items()}, enough=N)
    [future] = six.client.get(graph.tasks, graph.results, sync=False)

    def position_at_victim() -> int | None:
        tasks = [(p, six.scheduler.tasks.get(key)) for p, key in graph.shares.items()]
        found = [p for p, task in tasks if task is not None and task.processing_on is not None
                 and task.processing_on.address == victim]  # fmt: skip
        return found[0] if found else None

    six.wait_until(lambda: position_at_victim() is not None, "the worker has a share")
    position = position_at_victim()
    assert position is not None
    if what == "finished":
        gates[position].touch()
        share = six.scheduler.tasks[graph.shares[position]]
        six.wait_until(lambda: share.state == "memory", "its share is there")
    os.kill(pid, signal.SIGSTOP)
    try:
        for gate in gates.values():
            gate.touch()
        assert future.result(timeout=60)[0] == 0.0
        assert victim in six.scheduler.workers
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "bypassed" in [event["event"] for event in six.report()["events"]]
    del future
    assert six.client.gather(other) == "theirs"
    assert runs.read_text().splitlines() == ["run"]
    assert six.client.submit(process_id, workers=[victim], pure=False).result(timeout=60) == pid


@pytest.mark.parametrize("connection", [pytest.param("used", marks=pytest.mark.long), "new"])
@pytest.mark.long
def test_nobody_waits_for_a_stopped_worker_that_others_use(
    six: Running, tmp_path: Path, connection: str
) -> None:
    """Neither for a result that it holds and a client fetches, nor for work that Dask gives it."""
    graph = gathered(0)
    [future] = six.client.get(graph.tasks, graph.results, sync=False)
    six.wait_until(future.done, "the result is there")
    [victim] = six.client.who_has(future)[future.key]
    runs = tmp_path / "runs"
    other = six.client.submit(theirs, str(runs), 0.0, workers=[victim], pure=False)
    assert other.result(timeout=60) == "theirs"
    pid = six.client.run(process_id, workers=[victim])[victim]
    if connection == "new":
        six.cluster.loop.add_callback(six.scheduler.rpc.remove, victim)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert future.result(timeout=60)[0] == 0.0
        graphs = [with_source(gathered(block)) for block in range(1, BLOCKS)]
        futures = [six.client.get(g.tasks, g.results, sync=False) for g in graphs]
        assert [part.result(timeout=60)[0] for [part] in futures] == [*range(1, BLOCKS)]
        assert victim in six.scheduler.workers
    finally:
        os.kill(pid, signal.SIGCONT)
    del future, futures
    assert six.client.gather(other) == "theirs"
    assert runs.read_text().splitlines() == ["run"]


def with_source(graph: GraphOf) -> GraphOf:
    """Return a graph with its input under a key that is not ours, as of a user's array."""
    read, key = task_key("read", graph.run, 0, graph.block), f"image-{graph.block}"
    tasks = {other: task.substitute({read: key}) for other, task in graph.tasks.items()}
    tasks[key] = tasks.pop(read).substitute({}, key=key)
    return replace(graph, tasks=tasks)


@pytest.mark.long
def test_a_worker_that_wakes_up_shuts_down(six: Running) -> None:
    """The last test of this file, because its nanny ends with it."""
    pids = six.client.run(process_id)
    graph = gathered(0, seconds=0.5, enough=6)
    [future] = six.client.get(graph.tasks, graph.results, sync=False)
    address = next(iter(pids))
    os.kill(pids[address], signal.SIGSTOP)
    try:
        assert future.result(timeout=120)[0] == 0.0
        assert address not in six.scheduler.workers
        assert address in six.report()["workers_removed"]
    finally:
        os.kill(pids[address], signal.SIGCONT)
    six.wait_until(lambda: not _runs(pids[address]), "it has ended")
    del future
    assert six.client.submit(do_nothing, pure=False).result(timeout=60) is None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
