"""A scheduler of a cluster that is not ours is killed and started again: the run goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.errors import ClusterLostError
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from fcdcc.pipeline.runtime import cluster
from fcdcc.storage import verify
from support.jobs import fcdcc, predictions, recorded_chunks
from support.schedulers import WORKERS, own_cluster
from support.small import IMAGES, Files

BATCH = 2
BLOCKS = IMAGES // BATCH

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


class AtBlocks(Quiet):
    """Does something whenever so many blocks are done."""

    def __init__(self, blocks: list[int], action: Callable[[], None]) -> None:
        self._blocks, self._action = blocks, action

    def advance(self, advance: RunProgress) -> None:
        if self._blocks and advance.blocks_done >= self._blocks[0]:
            del self._blocks[0]
            self._action()


def config(files: Files, output: Path, scheduler: str) -> JobConfig:
    return JobConfig(
        model=str(files.model),
        input=str(files.images),
        output=str(output),
        scheduler=scheduler,
        batch=BATCH,
        in_flight=2,
        n=2,
        tolerate=1,
        code="replication",
    )


def test_a_run_goes_on_when_the_scheduler_is_back(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out.zarr"
    kept: dict[int, bytes] = {}
    with own_cluster(tmp_path, supervised=True) as own:
        own.wait_for_workers()

        def strike() -> None:
            kept.update(recorded_chunks(output))
            own.restart_scheduler()

        strikes = AtBlocks([3, 8], strike)
        summary = run(config(files, output, own.address), strikes)
    assert caplog.text.count("waiting up to 120 s for the scheduler") == 2
    assert caplog.text.count(f"going on with {WORKERS} workers") == 2
    assert (summary.status, summary.blocks_done, summary.images_done) == (
        "complete",
        BLOCKS,
        IMAGES,
    )
    stored = recorded_chunks(output)
    assert len(kept) >= 8
    assert {block: stored[block] for block in kept} == kept
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []


@pytest.mark.long
def test_a_scheduler_that_stays_away_ends_the_run_and_the_next_one_goes_on(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    with (
        dask.config.set({"fcdcc.scheduler-patience": "1s"}),
        own_cluster(tmp_path, supervised=True) as own,
    ):
        job = config(files, output, own.address)
        with pytest.raises(ClusterLostError, match=r"no Dask scheduler answers.*run again"):
            run(job, AtBlocks([3], own.kill_scheduler))
    kept = recorded_chunks(output)
    assert 3 <= len(kept) < BLOCKS
    summary = run(job.model_copy(update={"scheduler": scheduler}))
    assert (summary.status, summary.blocks_skipped) == ("complete", len(kept))


@pytest.mark.long
def test_a_scheduler_that_stops_answering_ends_the_run(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays open, so that no request to it fails."""
    monkeypatch.setattr(cluster, "MIN_REQUEST_SECONDS", 10.0)
    with (
        dask.config.set({"fcdcc.scheduler-patience": "3s"}),
        own_cluster(tmp_path, supervised=True) as own,
    ):
        monkeypatch.setitem(cluster.DASK_SETTINGS, "distributed.comm.timeouts.connect", "3s")
        job = config(files, tmp_path / "out.zarr", own.address)
        pid = own.scheduler.pid
        assert pid is not None
        try:
            with pytest.raises(ClusterLostError, match=r"no Dask scheduler answers.*run again"):
                run(job, AtBlocks([3], lambda: os.kill(pid, signal.SIGSTOP)))
        finally:
            os.kill(pid, signal.SIGCONT)


def test_an_address_that_is_none_is_said_at_once(files: Files, tmp_path: Path) -> None:
    for address in ("nonsense", "foo://x"):
        command = ["run", files.model, files.images, tmp_path / "out.zarr", "--scheduler", address]
        result = fcdcc(*command)
        assert result.exit_code == 2
        assert f"no Dask scheduler answers at {address}" in result.stderr
    assert not (tmp_path / "out.zarr").exists()
