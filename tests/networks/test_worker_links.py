"""Jobs while the link of one worker's host is bad: right answers, and an end by themselves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from support.bystander import Bystander
from support.network import FOR_GOOD
from support.network_cluster import HOSTS, NetworkCluster, small_job
from support.small import Files

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

STRUCK = "a"
"""The host whose link is bad."""

PACE_SECONDS = 0.01
"""By which every link is late where the fault must end before the job does: a block then takes
0.6 seconds, on however fast a machine."""


@pytest.mark.parametrize(
    ("bad", "blocks"),
    [
        pytest.param({"cut": FOR_GOOD}, 25, id="cut", marks=pytest.mark.long),
        pytest.param({"loss": 0.3}, 25, id="loss", marks=pytest.mark.long),
        pytest.param({"delay": 0.3}, 25, id="delay", marks=pytest.mark.long),
        pytest.param({"rate": 5e6 / 8}, 50, id="rate", marks=pytest.mark.long),
    ],
)
def test_a_link_that_stays_bad(
    cluster: NetworkCluster, many_files: Files, tmp_path: Path, bad: dict[str, Any], blocks: int
) -> None:
    job = small_job(cluster, many_files, tmp_path, blocks)
    job.wait_for_blocks(3)
    cluster.network.set(STRUCK, **bad)
    before = cluster.network.carried_bytes()[STRUCK]
    summary = job.complete(120)
    heard = cluster.network.carried_bytes()[STRUCK] - before
    assert (heard == 0) == ("cut" in bad)  # nobody waited for a host that is cut
    assert summary["blocks_done"] == blocks
    job.check()


@pytest.mark.parametrize(
    ("bad", "blocks"),
    [
        pytest.param({"cut": 5}, 14, id="cut-5", marks=pytest.mark.long),
        pytest.param({"cut": 15}, 40, id="cut-15", marks=pytest.mark.long),
        pytest.param({"flap": (1.5, 1.5)}, 12, id="flap", marks=pytest.mark.long),
        pytest.param({"flap": (4, 4)}, 45, id="flap-slowly", marks=pytest.mark.long),
    ],
)
def test_a_link_that_comes_back(
    cluster: NetworkCluster, many_files: Files, tmp_path: Path, bad: dict[str, Any], blocks: int
) -> None:
    for host in HOSTS:
        cluster.network.set(host, delay=PACE_SECONDS)
    job = small_job(cluster, many_files, tmp_path, blocks, in_flight=1)
    job.wait_for_blocks(3)
    cluster.network.set(STRUCK, **bad)
    before = cluster.network.carried_bytes()[STRUCK]
    summary = job.complete(180)
    assert cluster.network.carried_bytes()[STRUCK] > before, "the job ended before the fault did"
    assert summary["blocks_done"] == blocks
    job.check()


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"cut": 5}, id="cut-5", marks=pytest.mark.long),
        pytest.param({"cut": 15}, id="cut-15", marks=pytest.mark.long),
        pytest.param({"flap": (1.5, 1.5)}, id="flap", marks=pytest.mark.long),
    ],
)
def test_what_somebody_else_runs_there_runs_once(
    cluster: NetworkCluster, many_files: Files, tmp_path: Path, bad: dict[str, Any]
) -> None:
    notes, job_over = tmp_path / "ran.txt", tmp_path / "over"
    notes.touch()
    other = cluster.start_on_client_host(
        be_bystander, cluster.address, notes, job_over, log="other"
    )
    job = small_job(cluster, many_files, tmp_path, 25)
    job.wait_for_blocks(3)
    assert notes.read_text()
    cluster.network.set(STRUCK, **bad)
    summary = job.complete(120)
    job_over.touch()
    assert summary["workers_lost"] == []
    job.check()
    other.join(120)
    assert other.exitcode == 0, cluster.logs()


def be_bystander(scheduler: str, notes: Path, job_over: Path) -> None:
    """Keep results on all workers until the job beside it is over, and fetch them then."""
    with Client(scheduler, set_as_default=False) as client:
        theirs = Bystander(client, notes, tasks=200)
        until = time.monotonic() + 300
        while not job_over.exists():
            assert time.monotonic() < until, "the job is not over"
            time.sleep(0.01)
        theirs.check(100)
