"""``--verify``: wrong shares are found, left out and named, and answers are right all the same."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from fcdcc.pipeline import JobConfig, infer, open_model, plan, run
from fcdcc.pipeline.anyk.keys import TaskKey
from fcdcc.pipeline.errors import WrongSharesError
from fcdcc.pipeline.plans.plan import Plan
from fcdcc.pipeline.worker import share_checks as checking
from fcdcc.pipeline.worker.kernels import gathered_kernels, image_kernels, row_kernels
from fcdcc.storage import verify
from fcdcc.storage.objects import open_folder
from fcdcc.storage.records import read_records
from support.jobs import fcdcc, predictions
from support.one_worker import FirstWorker
from support.planned import usual_plans
from support.small import IMAGES, SHAPE, Files
from support.spoiling import flipped, scaled, spoil

pytestmark = pytest.mark.cluster

FORMS: dict[str, dict[str, Any]] = {
    "images": {"split": "images", "batch": 16},
    "strips": {"split": "rows", "batch": 16},
    "gathered": {"code": "crme", "batch": 16},
    "eager": {"split": "images", "batch": 16, "redundancy": "eager"},
}
BLOCKS = 4


@pytest.fixture(autouse=True)
def every_layer_is_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    usual_plans(monkeypatch)


def all_shares_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the wrong share may always be the one that is held back, or that comes last."""
    monkeypatch.setattr(Plan, "shares_waited_for", lambda plan, _: plan.n)


def job(files: Files, scheduler: str, output: Path, **options: Any) -> JobConfig:
    return JobConfig(
        model=str(files.model), input=str(files.images), output=str(output),
        scheduler=scheduler, progress=False, **options,
    )  # fmt: skip


def warnings_of(output: Path) -> dict[int, tuple[str, ...]]:
    records = [found for _, found in read_records(open_folder(str(output)))]
    return {record.block: record.warnings for record in records if hasattr(record, "warnings")}


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_found_where_nothing_is_wrong(
    files: Files, scheduler: str, tmp_path: Path, form: str
) -> None:
    output = tmp_path / "out.zarr"
    summary = run(job(files, scheduler, output, verify="all", **FORMS[form]))
    assert (summary.status, summary.corrupt_shares) == ("complete", ())
    assert summary.groups == 2 * BLOCKS
    assert summary.parity_started >= 2 * BLOCKS or form == "gathered"
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert set(warnings_of(output).values()) == {()}


@pytest.mark.parametrize("form", FORMS)
def test_the_shares_of_a_bad_worker_are_left_out_and_it_is_named(
    files: Files,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    bad = FirstWorker()
    spoil(monkeypatch, lambda key, position, worker: bad.is_it(worker))
    all_shares_are_waited_for(monkeypatch)
    monkeypatch.setattr(
        "fcdcc.pipeline.anyk.state_machine.distrust.MAX_WRONG_BLOCKS", 100
    )  # others need it, too
    output = tmp_path / "out.zarr"
    summary = run(job(files, scheduler, output, verify="all", **FORMS[form]))
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []
    assert {found.worker for found in summary.corrupt_shares} == {bad.address}
    blocks = {found.block for found in summary.corrupt_shares}
    warnings = warnings_of(output)
    # When a block was done again the bad worker may have had no part in it.
    assert {block for block, said in warnings.items() if said} >= blocks
    assert summary.blocks_repeated == sum(map(bool, warnings.values()))
    for block in blocks:
        assert "contradict each other" in warnings[block][0]
        assert f"from {bad.address} left out as wrong" in warnings[block][1]


@pytest.mark.parametrize("form", ["images", "gathered"])
def test_one_flipped_bit_costs_one_more_try(
    files: Files,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    def once(key: TaskKey, position: int, worker: str) -> bool:
        return (key.block, position) == (2, 3) and key.position < 1000  # not when done again

    hit = spoil(monkeypatch, once, flipped)
    if form == "gathered":
        all_shares_are_waited_for(monkeypatch)
    output = tmp_path / "out.zarr"
    command = ["run", files.model, files.images, output, "--verify", "all", "--batch", 16]
    options = ["--split", "images"] if form == "images" else ["--code", "crme"]
    result = fcdcc(*command, *options, "--scheduler", scheduler, "--json", "-")
    assert result.exit_code == 0, result.output
    assert hit
    assert json.loads(result.stdout)["corrupt_shares"] == []  # it was right the second time
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert [block for block, said in warnings_of(output).items() if said] == [2]


def test_with_one_share_to_spare_the_block_is_done_elsewhere(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = FirstWorker()
    hit = spoil(monkeypatch, lambda key, position, worker: bad.is_it(worker))
    output = tmp_path / "out.zarr"
    config = job(files, scheduler, output, verify="all", n=5, tolerate=1, split="images", batch=16)
    summary = run(config)
    assert hit
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    again = {block: said[0] for block, said in warnings_of(output).items() if said}
    assert again.keys() == {key.block for key in hit}
    assert all("contradict each other" in said for said in again.values())


def test_what_is_there_anyway_is_compared(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all shares of a layer started at once, more than needed are often there: here all."""
    hit = spoil(monkeypatch, lambda key, position, worker: position == 1 and key.position < 1000)
    all_shares_are_waited_for(monkeypatch)
    output = tmp_path / "out.zarr"
    summary = run(job(files, scheduler, output, verify="spare", code="crme", batch=16))
    assert {key.block for key in hit} == {*range(BLOCKS)}
    assert (summary.status, summary.corrupt_shares) == ("complete", ())  # right the second time
    assert all("contradict each other" in said[0] for said in warnings_of(output).values())
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)


def test_images_without_numbers_spoil_no_others(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    pixels = zarr.open_group(files.images, mode="r")["image"][:].astype("float32") / 255
    pixels[17, 1, 4, 4] = np.nan
    pixels[40, 0, 0, 0] = np.inf
    group = zarr.create_group(tmp_path / "odd.zarr")
    group.create_array("image", data=pixels, chunks=(8, *SHAPE), dimension_names=list("ncyx"))
    others = np.setdiff1d(np.arange(IMAGES), [17, 40])
    for form, options in FORMS.items():
        output = tmp_path / f"{form}.zarr"
        config = job(files, scheduler, output, verify="all", **options)
        summary = run(config.model_copy(update={"input": str(tmp_path / "odd.zarr")}))
        assert (summary.status, summary.corrupt_shares) == ("complete", ())
        found = predictions(output)
        np.testing.assert_allclose(found[others], files.expected[others], atol=1e-5)
        assert not np.isfinite(found[[17, 40]]).any()
        warnings = warnings_of(output)
        assert [block for block, said in sorted(warnings.items()) if said] == [1, 2]
        assert "computed again without a code" in warnings[1][0]


def test_a_worker_that_does_it_again_gets_no_more_work(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=6, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        bad = sorted(cluster.scheduler.workers)[3]
        spoil(monkeypatch, lambda key, position, worker: worker == bad, scaled)
        all_shares_are_waited_for(monkeypatch)
        # How often is the state machine's test; here it may have a part in few blocks.
        monkeypatch.setattr("fcdcc.pipeline.anyk.state_machine.distrust.MAX_WRONG_BLOCKS", 1)
        output = tmp_path / "out.zarr"
        options = FORMS["strips"] | {"batch": 3, "in_flight": 1}
        config = job(files, cluster.scheduler_address, output, verify="all", **options)
        summary = run(config)
        assert cluster.scheduler.workers[bad].status.name == "paused"
        events = [event for _, event in cluster.scheduler.get_events("fcdcc")]
    assert summary.status == "complete"
    assert {found.worker for found in summary.corrupt_shares} == {bad}
    named = [event for event in events if event["event"] == "corrupt-share"]
    assert {event["worker"] for event in named} == {bad}
    assert len(named) == len(summary.corrupt_shares)
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["spare", "all"])
@pytest.mark.parametrize(
    "options", [{"redundancy": "off"}, {"tolerate": 0}, {"code": "uncoded"}], ids=str
)
def test_what_cannot_be_compared_is_said(mode: str, options: dict[str, Any]) -> None:
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    result = fcdcc("run", "m.pt2", "in.zarr", "out.zarr", "--verify", mode, *arguments)
    assert result.exit_code == 2
    assert f"--verify {mode} compares more shares than are needed" in result.stderr


def test_filters_without_numbers_are_named_in_the_plan() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    with torch.no_grad():
        module[0].weight[1, 2, 0, 0] = float("nan")
        module[0].bias[3] = float("inf")
    buffer = BytesIO()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 8, 8),)), buffer)
    made = plan(open_model(buffer.getvalue()), np.zeros((4, 3, 8, 8), "float32"))
    assert any("(0): 2 of its filters' values are not finite" in said for said in made.warnings)


def test_filters_without_numbers_are_not_called_damaged(tmp_path: Path) -> None:
    """Their layers cannot be decoded, so the job computes them without a code."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    with torch.no_grad():
        network[0].weight[1, 2, 0, 0] = float("inf")
    example = torch.zeros(2, 3, 8, 8)
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(
        torch.export.export(network, (example,), dynamic_shapes=(batch,)), tmp_path / "n.pt2"
    )
    pixels = np.random.default_rng(1).standard_normal((6, 3, 8, 8), "float32")
    images = zarr.open_group(tmp_path / "images.zarr", mode="w")
    images.create_array(
        "image", data=pixels, chunks=(6, 3, 8, 8), dimension_names=["image", "channel", "y", "x"]
    )
    summary = run(
        JobConfig(
            model=str(tmp_path / "n.pt2"), input=str(tmp_path / "images.zarr"),
            output=str(tmp_path / "out.zarr"), code="crme", n=3, tolerate=1, workers=3,
            processes=False, verify="checksum", dashboard_address=":0",
        )
    )  # fmt: skip
    assert summary.status == "complete"
    assert not summary.corrupt_shares
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(predictions(tmp_path / "out.zarr"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["images", "strips", "gathered"])
def test_infer_checks_too(files: Files, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    pixels = zarr.open_group(files.images, mode="r")["image"][:]
    model = open_model(files.model)
    made = infer(model, pixels, verify="all", n=6, tolerate=2, **FORMS[form])
    answers = made.compute(scheduler="threads")
    np.testing.assert_allclose(answers, files.expected, atol=1e-5)
    original = checking.as_message

    def wrong(held: Any, layer: int, position: int, values: Any, entering: Any) -> Any:
        values = scaled(values) if position == 4 else values
        return original(held, layer, position, values, entering)

    for module in (gathered_kernels, image_kernels, row_kernels):
        monkeypatch.setattr(module, "as_message", wrong)
    with pytest.raises(WrongSharesError, match="contradict each other"):
        made.compute(scheduler="threads")
