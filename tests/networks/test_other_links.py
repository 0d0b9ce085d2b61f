"""Jobs while the link of the scheduler's or of the client's host is cut or slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.network import FOR_GOOD
from support.network_cluster import CLIENT, SCHEDULER, NetworkCluster, small_job
from support.small import Files

BLOCKS = 25

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("host", "seconds"),
    [
        pytest.param(CLIENT, 10, id="client-10", marks=pytest.mark.long),
        pytest.param(CLIENT, 40, id="client-40", marks=pytest.mark.long),
        pytest.param(CLIENT, 60, id="client-60", marks=pytest.mark.long),
        pytest.param(SCHEDULER, 10, id="scheduler-10", marks=pytest.mark.long),
        pytest.param(SCHEDULER, 40, id="scheduler-40", marks=pytest.mark.long),
        pytest.param(SCHEDULER, 60, id="scheduler-60", marks=pytest.mark.long),
    ],
)
def test_a_cut_that_is_mended(
    cluster: NetworkCluster, many_files: Files, tmp_path: Path, host: str, seconds: float
) -> None:
    job = small_job(cluster, many_files, tmp_path, BLOCKS)
    job.wait_for_blocks(3)
    cluster.network.set(host, cut=seconds)
    assert job.complete(seconds + 150)["blocks_done"] == BLOCKS
    job.check()


@pytest.mark.long
@pytest.mark.parametrize("host", [CLIENT, SCHEDULER])
def test_a_cut_for_good_ends_the_run_in_words_and_the_next_run_goes_on(
    cluster: NetworkCluster, many_files: Files, tmp_path: Path, host: str
) -> None:
    settings = {"fcdcc.scheduler-patience": "5s"}
    job = small_job(cluster, many_files, tmp_path, BLOCKS, settings=settings)
    job.wait_for_blocks(3)
    cluster.network.set(host, cut=FOR_GOOD)
    assert job.end(120) == 1, job.log
    *_, last = job.log.splitlines()
    assert "no Dask scheduler answers" in last
    assert "run again to continue when it is back" in last
    assert "Traceback" not in job.log
    recorded = job.blocks()
    assert 3 <= recorded < BLOCKS

    cluster.network.mend()
    summary = small_job(cluster, many_files, tmp_path, BLOCKS).complete(120)
    assert summary["blocks_skipped"] == recorded
    assert summary["blocks_done"] == BLOCKS - recorded
    job.check()


@pytest.mark.long
def test_a_slow_link_of_the_scheduler(
    cluster: NetworkCluster, many_files: Files, tmp_path: Path
) -> None:
    job = small_job(cluster, many_files, tmp_path, BLOCKS)
    job.wait_for_blocks(3)
    cluster.network.set(SCHEDULER, rate=5e6 / 8)
    summary = job.complete(120)
    assert summary["blocks_done"] == BLOCKS
    assert summary["workers_lost"] == []
    job.check()
