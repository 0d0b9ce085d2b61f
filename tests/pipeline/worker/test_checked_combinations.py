"""``--verify checksum``: what is encoded and decoded is checked where this is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster

from fcdcc.pipeline import JobConfig, infer, open_model, run
from fcdcc.pipeline.errors import FailedCheckError
from fcdcc.pipeline.planner import candidates
from support.bad_combinations import Combined, spoil_combinations
from support.bad_convolutions import FirstWorker
from support.erasing import erased_runs
from support.jobs import assert_bad_worker_is_named, predictions
from support.planned import usual_plans
from support.small import Files

IMAGES, STRIPS = {"split": "images"}, {"split": "rows"}
GATHERED, EAGER = {"code": "crme"}, {"redundancy": "eager"}

CASES: dict[str, tuple[Combined, dict[str, Any]]] = {
    "input, images": ("input", IMAGES | EAGER),
    "input, strips": ("input", STRIPS | EAGER),
    "input, gathered": ("input", GATHERED),
    "decoded, images": ("decoded", IMAGES),
    "decoded, strips": ("decoded", STRIPS),
    "decoded, gathered": ("decoded", GATHERED),
}
"""What goes wrong, and options. The plans that they make are for six shares of which two may be
lost."""


@pytest.fixture(autouse=True)
def every_layer_is_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    usual_plans(monkeypatch)


@pytest.fixture
def filters_are_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the planner take partitions that split the filters, which it rarely does by itself."""
    every = candidates.code_partitions
    monkeypatch.setattr(
        candidates, "code_partitions", lambda *given: [p for p in every(*given) if p.k_b > 2]
    )


def job(files: Files, scheduler: str, output: Path, **options: Any) -> JobConfig:
    return JobConfig(
        model=str(files.model), input=str(files.images), output=str(output), verify="checksum",
        scheduler=scheduler, progress=False, batch=16, n=6, tolerate=2, **options,
    )  # fmt: skip


@pytest.mark.cluster
@pytest.mark.parametrize("case", CASES)
def test_a_worker_that_combines_wrongly_is_named_and_the_predictions_are_right(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    what, options = CASES[case]
    output = tmp_path / "out.zarr"
    with (
        LocalCluster(
            n_workers=3, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        erased_runs(2 if what == "decoded" else 0, seed=1),
    ):
        bad = FirstWorker()
        hit = spoil_combinations(monkeypatch, what, bad)
        summary = run(job(files, cluster.scheduler_address, output, **options))
        status = cluster.scheduler.workers[bad.address].status.name
    assert hit
    assert_bad_worker_is_named(summary, output, files.expected, 1e-5, bad.address, status)


@pytest.mark.cluster
@pytest.mark.usefixtures("filters_are_coded")
def test_filters_that_are_encoded_wrongly_are_encoded_again(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hit: list[str] = []
    output = tmp_path / "out.zarr"
    with LocalCluster(
        n_workers=3, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        hit = spoil_combinations(monkeypatch, "filters", lambda _: len(hit) == 0)
        summary = run(job(files, cluster.scheduler_address, output, **GATHERED))
    assert len(hit) == len(summary.corrupt_shares) == 1
    assert {found.worker for found in summary.corrupt_shares} == set(hit)
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)


@pytest.mark.usefixtures("filters_are_coded")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("input", r"layer \d \(first\): the coded input of share \d is wrong"),
        ("filters", r"layer \d \(first\): a coded filter of share \d is wrong"),
        ("decoded", r"layer \d \(first\): the decoded output is wrong"),
    ],
)
def test_infer_raises_rather_than_answers_wrongly(
    files: Files, monkeypatch: pytest.MonkeyPatch, what: Combined, said: str
) -> None:
    spoil_combinations(monkeypatch, what, lambda _: True)
    lazy = infer(
        open_model(str(files.model)), str(files.images), n=6, tolerate=2, code="crme",
        verify="checksum",
    )  # fmt: skip
    with pytest.raises(FailedCheckError, match=said):
        lazy[:4].compute(scheduler="synchronous")


def test_nothing_is_accused_where_shares_are_missing(files: Files, tmp_path: Path) -> None:
    """Every layer of every block is decoded, from other shares in each form."""
    with LocalCluster(
        n_workers=3, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        for seed, options in enumerate((IMAGES, STRIPS, GATHERED)):
            output = tmp_path / f"{seed}.zarr"
            with erased_runs(2, seed) as groups:
                summary = run(job(files, cluster.scheduler_address, output, **options))
            assert min(groups) >= 2
            assert (summary.status, summary.corrupt_shares) == ("complete", ())
            np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
