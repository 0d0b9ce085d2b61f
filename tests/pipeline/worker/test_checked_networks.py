"""``--verify checksum`` in jobs of other networks, and in worker processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster, Worker, WorkerPlugin
from torch import nn

from fcdcc.pipeline import JobConfig, run
from fcdcc.storage import verify
from fcdcc.storage.objects import open_folder
from fcdcc.storage.records import read_records
from support import fork_server
from support.bad_convolutions import FirstWorker, one_wrong_element, spoil_convolutions
from support.jobs import assert_bad_worker_is_named, predictions
from support.planned import usual_plans
from support.small import Files, SmallNet, make_files

FORMS: dict[str, dict[str, Any]] = {
    "images": {"split": "images"},
    "strips": {"split": "rows"},
    "gathered": {"code": "crme"},
}


class GroupedNet(nn.Module):
    """A dense, a depthwise, a pointwise and a grouped convolution, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.head = nn.Linear(16 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.first(x))))
        return self.head(torch.relu(self.grouped(self.pointwise(x))).flatten(1))


def job(files: Files, scheduler: str, output: Path, **options: Any) -> JobConfig:
    return JobConfig(
        model=str(files.model), input=str(files.images), output=str(output), verify="checksum",
        scheduler=scheduler, progress=False, **{"batch": 16} | options,
    )  # fmt: skip


def assert_the_bad_worker_is_named(
    files: Files,
    folder: Path,
    patch: pytest.MonkeyPatch,
    tolerance: float,
    how: Callable[[torch.Tensor], torch.Tensor] = one_wrong_element,
    **options: Any,
) -> None:
    """Run a job on four workers, of which one is always wrong."""
    output = folder / "out.zarr"
    with LocalCluster(
        n_workers=4, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        bad = FirstWorker()
        hit = spoil_convolutions(patch, bad, how)
        summary = run(job(files, cluster.scheduler_address, output, **options))
        status = cluster.scheduler.workers[bad.address].status.name
    assert hit
    allowed = tolerance * np.abs(files.expected).max()
    assert_bad_worker_is_named(summary, output, files.expected, allowed, bad.address, status)


@pytest.mark.cluster
@pytest.mark.parametrize("form", FORMS)
def test_grouped_and_depthwise_convolutions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    usual_plans(monkeypatch)
    files = make_files(tmp_path, make=GroupedNet)
    options = {"n": 6, "tolerate": 2, **FORMS[form]}
    assert_the_bad_worker_is_named(files, tmp_path, monkeypatch, 1e-5, **options)


@pytest.mark.cluster
def test_networks_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One element would not be enough: bfloat16 rounds so coarsely."""
    files = make_files(tmp_path)
    assert_the_bad_worker_is_named(files, tmp_path, monkeypatch, 0.05, torch.neg, dtype="bfloat16")


@pytest.mark.cluster
def test_networks_of_a_fixed_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_files(tmp_path, make=SmallNet, fixed_batch=1)
    assert_the_bad_worker_is_named(files, tmp_path, monkeypatch, 1e-5, batch=8)


# ------------------------------------------------------------ worker processes


class WrongNowAndThen(WorkerPlugin):
    """Makes every third convolution wrong in the process of one worker.

    Parameters
    ----------
    name
        Of that worker.
    """

    name = "wrong-now-and-then"

    def __init__(self, worker_name: object) -> None:
        self._worker_name = worker_name

    def setup(self, worker: Worker) -> None:
        if worker.name != self._worker_name:
            return
        calls: list[str] = []

        def is_third(address: str) -> bool:
            calls.append(address)
            return len(calls) % 3 == 0

        self._patch = pytest.MonkeyPatch()
        spoil_convolutions(self._patch, is_third)


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_a_worker_process_that_is_wrong_now_and_then_is_named_and_excluded(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    usual_plans(monkeypatch)
    output = tmp_path / "out.zarr"
    with (
        dask.config.set(fork_server.settings()),
        LocalCluster(
            n_workers=3, processes=True, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        bad = cluster.workers[1].worker_address
        client.register_plugin(WrongNowAndThen(1))
        options = {"n": 3, "tolerate": 1, "batch": 4, **FORMS[form]}
        summary = run(job(files, cluster.scheduler_address, output, **options))
        port = cluster.scheduler.http_server.port
        metrics = urlopen(f"http://localhost:{port}/metrics").read().decode()
        status = cluster.scheduler.workers[bad].status.name
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []
    assert len(summary.corrupt_shares) >= 2
    assert {found.worker for found in summary.corrupt_shares} == {bad}
    assert bad in str(summary)
    assert f'fcdcc_worker_wrong_shares_total{{worker="{bad}"}}' in metrics
    assert status == "paused"
    records = [record for _, record in read_records(open_folder(str(output)))]
    said = [warning for record in records for warning in getattr(record, "warnings", ())]
    assert any(bad in warning for warning in said)
