"""Blocks on a cluster: how many are sent at a time, and that a run of them ends."""

from __future__ import annotations

import pytest
from dask._task_spec import Task
from distributed import Client, LocalCluster

from fcdcc.pipeline.runtime.block_runner import BlockJob, run_blocks


def double(block: int) -> int:
    return 2 * block


@pytest.mark.cluster
def test_more_blocks_in_flight_than_there_are_end_a_run_as_usual() -> None:
    keys = {block: f"block-{block}" for block in range(3)}
    jobs = [BlockJob(b, {key: Task(key, double, b)}, key) for b, key in keys.items()]
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        outcomes = [o for o in run_blocks(client, jobs, 10**18, 0.1, with_plugin=True) if o]
    assert sorted((o.block, o.error) for o in outcomes) == [(0, None), (1, None), (2, None)]
