"""Any-k without the plugin: the same results, and late shares are not waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline import JobConfig
from fcdcc.pipeline import run as jobs_run
from fcdcc.pipeline.anyk import Share, client_loop
from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.anyk.scheduler import dask_contract
from fcdcc.pipeline.runtime import job_run
from fcdcc.storage import verify
from support.anyk_cluster import VALIDATION, Errors, Running, threaded_cluster
from support.anyk_graphs import ENOUGH, GraphOf, N, fail, gathered, in_parts, network
from support.jobs import predictions
from support.small import Files


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[LocalCluster, Client]]:
    with (
        dask.config.set(VALIDATION),
        threaded_cluster(6) as cluster,
        Client(cluster) as client,
    ):
        yield cluster, client


@pytest.fixture
def running(cluster: tuple[LocalCluster, Client]) -> Iterator[Running]:
    running = Running(*cluster, Errors())
    yield running
    running.wait_until(lambda: not running.scheduler.tasks, "the scheduler has no tasks")


def run(running: Running, graph: GraphOf) -> client_loop.ClientRun:
    return client_loop.submit(running.client, graph.tasks, graph.results[-1], -graph.block)


def test_shares_that_are_late_are_not_waited_for_and_stop(running: Running, tmp_path: Path) -> None:
    never = {position: str(tmp_path / "never") for position in (1, 4)}
    for block in range(3):
        assert run(running, gathered(block, never)).result(timeout=60) == (
            float(block),
            tuple(p for p in range(N) if p not in never),
        )
    running.wait_until(
        lambda: (
            not any(worker.state.executing_count for worker in running.cluster.workers.values())
        ),
        "the late shares have stopped",
    )


@pytest.mark.parametrize("kind", ["gathered", "parts"])
def test_layers_run_one_after_the_other(running: Running, kind: str) -> None:
    slow = iter(range(1_000))
    graphs = [network(b, 3, kind, lambda: next(slow) % 9 == 0) for b in range(6)]  # type: ignore[arg-type] # one of the kinds
    runs = [run(running, graph) for graph in graphs]
    assert [r.result(timeout=60) for r in runs] == [float(block) for block in range(6)]


def test_a_part_is_solved_for_where_its_share_is_late(running: Running, tmp_path: Path) -> None:
    made = run(running, in_parts(1, {ENOUGH - 1: str(tmp_path / "never")}))
    block, there = made.result(timeout=60)
    assert block == 1.0
    assert ENOUGH - 1 not in there


def test_shares_of_a_lost_worker_are_computed_again(running: Running, tmp_path: Path) -> None:
    gates = {position: str(tmp_path / "gate") for position in range(N)}
    made = run(running, gathered(7, gates))
    images = task_key("read", "r", 0, 7, 0)
    running.wait_until(
        lambda: len(getattr(running.scheduler.tasks.get(images), "who_has", None) or ()) > 1,
        "several workers have the images",
    )
    victim = next(a for a, w in running.scheduler.workers.items() if w.processing)
    running.client.retire_workers([victim])
    (tmp_path / "gate").touch()
    assert made.result(timeout=60)[0] == 7.0


def test_an_error_is_raised(running: Running) -> None:
    graph = gathered(0)
    key = task_key("share", "r", 0, 0, 0)
    graph.tasks[key] = Share(key, fail, None, 0)
    ended = []
    made = run(running, graph)
    made.add_done_callback(ended.append)
    with pytest.raises(ArithmeticError, match="share 0 cannot be computed"):
        made.result(timeout=60)
    assert made.status == "error"
    assert isinstance(made.exception(), ArithmeticError)
    assert ended == [made]


def test_a_cancelled_run_is_forgotten(running: Running, tmp_path: Path) -> None:
    never = {position: str(tmp_path / "never") for position in range(N)}
    made = run(running, gathered(0, never))
    made.cancel()
    assert made.status == "cancelled"


def test_a_job_runs_where_the_scheduler_refuses_the_plugin(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(dask_contract, "breaches", lambda: ["it is another"])
    monkeypatch.setattr(job_run.logger, "warning", lambda text, *args: warnings.append(text % args))
    summary = jobs_run(
        JobConfig(
            model=str(files.model),
            input=str(files.images),
            output=str(tmp_path / "out.zarr"),
            processes=False,
            batch=8,
        )
    )
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(tmp_path / "out.zarr"), files.expected, atol=1e-5)
    assert verify(tmp_path / "out.zarr") == []
    assert any("cannot be registered" in line and "parity always" in line for line in warnings)
