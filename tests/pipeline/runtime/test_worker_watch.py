"""A run without a worker that takes tasks: it says so, takes workers that come, and ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import LocalCluster

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.errors import NoWorkersError
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from fcdcc.pipeline.runtime.worker_watch import WorkerState, WorkerWatch
from support.jobs import fcdcc, predictions
from support.small import Files

GIB = 2**30
RUNNING = WorkerState("tcp://a", "running")
FULL = WorkerState("tcp://b", "paused", 0, 3 * GIB, 4 * GIB)


def looked_at(
    watch: WorkerWatch, until: int, workers: Callable[[int], list[WorkerState]]
) -> list[tuple[int, str]]:
    """Return what a watch says in each second."""
    said = []
    for now in range(1, until):
        if watch.wants_workers("counts", now):
            message = watch.check(workers(now), now)
            if message is not None:
                said.append((now, message))
    return said


def test_a_run_without_workers_waits_as_long_as_it_says() -> None:
    watch = WorkerWatch(patience=60, now=0)
    with pytest.raises(NoWorkersError, match=r"no workers, and nothing has changed for 6[0-9] s"):
        looked_at(watch, 200, lambda _: [])
    watch = WorkerWatch(patience=60, now=0)
    [(when, message)] = looked_at(watch, 60, lambda _: [])
    assert when < 10
    assert "no workers: waiting up to 60 s" in message


def test_workers_that_come_in_time_end_the_wait() -> None:
    watch = WorkerWatch(patience=60, now=0)
    said = looked_at(watch, 300, lambda now: [RUNNING] if now % 60 >= 50 else [])
    assert [message.split(":")[0] for _, message in said] == [
        "the scheduler has no workers", "going on",
    ] * 5  # fmt: skip


def test_paused_workers_are_waited_for_as_long_as_they_finish_something() -> None:
    busy = WorkerState("tcp://c", "paused", 1, 3 * GIB, 4 * GIB)
    assert looked_at(WorkerWatch(60, 0), 300, lambda _: [FULL, busy]) == []
    watch = WorkerWatch(patience=60, now=0)
    with pytest.raises(NoWorkersError) as caught:
        looked_at(watch, 200, lambda _: [FULL, FULL])
    assert "none of the 2 workers takes tasks: 2 paused (tcp://b: 3.00 GiB of 4.00 GiB" in str(
        caught.value
    )
    assert "smaller --batch or --in-flight" in str(caught.value)


def test_nobody_looks_while_blocks_are_finished() -> None:
    watch = WorkerWatch(patience=60, now=0)
    assert not any(watch.wants_workers(now // 3, now) for now in range(1, 300))


def config(files: Files, output: Path, scheduler: str, **options: object) -> JobConfig:
    return JobConfig(
        model=str(files.model), input=str(files.images), output=str(output), scheduler=scheduler,
        n=2, tolerate=0, batch=10, **options,
    )  # type: ignore[arg-type] # fmt: skip


@pytest.mark.cluster
def test_a_run_without_workers_ends_with_code_1(files: Files, tmp_path: Path) -> None:
    with (
        dask.config.set({"fcdcc.worker-patience": "1s"}),
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
    ):
        output, address = tmp_path / "out.zarr", cluster.scheduler_address
        result = fcdcc("run", files.model, files.images, output, "--scheduler", address)
    assert result.exit_code == 1
    assert "the cluster has no workers yet: this is planned for 6 workers" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert "the scheduler has no workers" in last
    assert "start workers" in last
    assert "run again to continue" in last


@pytest.mark.cluster
@pytest.mark.long
def test_a_run_takes_the_workers_that_come(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class ScaleWhenWarned(Quiet):
        def advance(self, advance: RunProgress) -> None:
            if "waiting up to 60 s for a worker" in caplog.text:
                cluster.scale(2)

    output = tmp_path / "out.zarr"
    with (
        dask.config.set({"fcdcc.worker-patience": "60s"}),
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
    ):
        summary = run(config(files, output, cluster.scheduler_address), ScaleWhenWarned())
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)


@pytest.mark.cluster
@pytest.mark.long
def test_a_run_whose_workers_are_all_paused_ends_in_words(files: Files, tmp_path: Path) -> None:
    with (
        dask.config.set({"fcdcc.worker-patience": "1s"}),
        LocalCluster(
            n_workers=2, processes=False, dashboard_address=":0", memory_limit="1 MiB"
        ) as cluster,
    ):
        job = config(files, tmp_path / "out.zarr", cluster.scheduler_address, memory="8 GiB")
        with pytest.raises(NoWorkersError, match=r"none of the 2 workers.*2 paused.*memory"):
            run(job)
