"""A cluster that scales itself: workers come when there is work, and go when there is none."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from fcdcc.pipeline import JobConfig, run
from fcdcc.storage import verify
from support.jobs import predictions
from support.small import Files

pytestmark = pytest.mark.cluster


def test_a_cluster_without_workers_grows_for_a_run_and_shrinks_again(
    files: Files, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    with LocalCluster(
        n_workers=0, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        cluster.adapt(minimum=0, maximum=3, interval="100ms", wait_count=2)
        config = JobConfig(
            model=str(files.model),
            input=str(files.images),
            output=str(output),
            scheduler=cluster.scheduler_address,
            batch=4,
        )
        first = run(config.model_copy(update={"limit": 20}))
        while cluster.scheduler.workers:  # until all have gone
            time.sleep(0.05)
        second = run(config)
    assert (first.status, second.status) == ("complete", "complete")
    assert second.blocks_skipped == 5
    assert first.workers_lost == second.workers_lost == ()
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []
