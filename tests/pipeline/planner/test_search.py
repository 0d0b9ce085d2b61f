"""Which plan is chosen, what it is expected to cost, and what is refused in words."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dask
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from fcdcc.coding.conditioning import measure
from fcdcc.coding.cost import Partition, cheapest, coded_share_cost, crme_partitions
from fcdcc.coding.errors import CodeError, IllConditionedError
from fcdcc.coding.partitions import code_partitions, planned_parity
from fcdcc.coding.systematic import known_condition
from fcdcc.pipeline import Plan, open_model
from fcdcc.pipeline.cli.main import main
from fcdcc.pipeline.errors import PlanError
from fcdcc.pipeline.options import JobConfig, PlanOptions
from fcdcc.pipeline.planner import candidates
from fcdcc.pipeline.planner.candidates import (
    Candidate,
    PlanningProblem,
    build_plan,
    check_plan,
)
from fcdcc.pipeline.planner.cost import calibration
from fcdcc.pipeline.planner.cost.known_workers import workers_of_options
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.plans.forecast import Speeds, WorkerPool
from fcdcc.pipeline.runtime import job_plan
from fcdcc.pipeline.runtime.cluster import Cluster
from fcdcc.pipeline.runtime.job_plan import open_job
from fcdcc.storage import BlockLayout
from support.jobs import fcdcc
from support.small import SHAPE, Files


def test_memory_that_is_not_enough_is_refused_in_words(files: Files) -> None:
    network = open_model(files.model).network
    with pytest.raises(PlanError, match="a worker has"):
        choose_plan(network, SHAPE, PlanOptions.of(memory="1 MB"))


def test_the_command_says_what_would_run(files: Files, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    said = CliRunner().invoke(
        main, ["plan", str(files.model), str(files.images), "--workers", "6", "--json", str(saved)]
    )
    assert said.exit_code == 0, said.output
    for words in ("first", "second", "k_a × k_b", "2 may be lost", "Plain data-parallel"):
        assert words in said.output
    assert Plan.from_json(saved.read_text()).image_shape == SHAPE


@pytest.mark.parametrize(("batch", "images"), [(8, 24), (16, 0)])
def test_images_of_chunks_that_parts_share_are_forecast(
    files: Files, tmp_path: Path, batch: int, images: int
) -> None:
    """Chunks have 8 images: in blocks of 8, half of each goes to the worker of the other part."""
    saved = tmp_path / "plan.json"
    options = f"--split images --n 3 --tolerate 1 --workers 3 --batch {batch} --json {saved}"
    said = fcdcc("plan", files.model, files.images, *options.split())
    assert said.exit_code == 0, said.output
    found = Plan.from_json(saved.read_text()).forecast
    assert found is not None
    assert found.read_bytes == pytest.approx(images * 3 * 16 * 16 * batch / 50)
    assert found.bytes_sent == found.block_bytes + found.read_bytes
    text = "a worker that reads a stored chunk sends the others what they need of it"
    assert (text in " ".join(said.output.split())) == bool(images)


@pytest.mark.parametrize("redundancy", ["standby", "eager", "off"])
@pytest.mark.parametrize("form", [{"split": "rows"}, {"split": "images"}, {"code": "crme"}])
def test_every_form_has_a_forecast(files: Files, form: dict[str, str], redundancy: str) -> None:
    options = PlanOptions.of(**form, redundancy=redundancy)
    plan = choose_plan(open_model(files.model).network, SHAPE, options, 50)
    found = plan.forecast
    assert found is not None
    assert 0 < found.seconds(1) <= found.seconds(2)
    assert found.peak_memory > found.speeds.memory_at_rest
    assert len(found.layers) == 2
    assert (found.parity_memory > 0) == (form != {"code": "crme"} and redundancy == "standby")
    if form != {"code": "crme"} and redundancy == "standby":
        assert found.extra_work < 0.01


def test_more_workers_are_faster(files: Files) -> None:
    network = open_model(files.model).network
    seconds = []
    for count in (3, 12, 48):
        speeds = Speeds(parallel=float(count))
        options = PlanOptions.of(n=6, tolerate=2)
        plan = choose_plan(network, SHAPE, options, 10**6, WorkerPool(count), speeds)
        assert plan.forecast is not None
        seconds.append(plan.forecast.seconds(plan.forecast.blocks(10**6, plan.batch)))
    assert seconds == sorted(seconds, reverse=True)


def test_plain_inference_is_compared_for_the_same_images(files: Files) -> None:
    """One image more than whole blocks costs either of them about one image."""
    network = open_model(files.model).network
    options = PlanOptions.of(split="images", batch=16)
    one, other = (choose_plan(network, SHAPE, options, count).forecast for count in (16000, 16001))
    assert one is not None
    assert other is not None
    assert other.plain_seconds == pytest.approx(one.plain_seconds * 16001 / 16000)
    ours = other.seconds_of(16001, 16) - one.seconds_of(16000, 16)
    assert 0 < ours < one.block_seconds / 8


def test_where_parity_is_always_made_more_layers_are_coded() -> None:
    # A parity share does what stands in front of its convolution for all runs of images.
    channels = [3, 48, 48, 96, 96]
    pairs = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels)]
    module = nn.Sequential(*(layer for conv in pairs for layer in (conv, nn.ReLU()))).eval()
    batch = {0: torch.export.Dim("batch")}
    stored = io.BytesIO()
    torch.export.save(
        torch.export.export(module, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=(batch,)), stored
    )
    network = open_model(stored.getvalue()).network
    coded = {}
    for redundancy in ("standby", "eager"):
        options = PlanOptions.of(split="images", batch=48, redundancy=redundancy)
        coded[redundancy] = choose_plan(network, (3, 64, 64), options, speeds=Speeds()).coded_layers
    assert coded["standby"] < coded["eager"]


def test_the_objective_of_the_paper_gathers_every_layer(files: Files) -> None:
    network = open_model(files.model).network
    plan = choose_plan(network, SHAPE, PlanOptions.of(code="crme", objective="paper"))
    assert plan.form == "gathered"
    for layer in plan.layers:
        assert layer.code is not None
        best = cheapest(layer.geometry, crme_partitions(4), "paper")
        assert (layer.code.k_a, layer.code.k_b) == (best.k_a, best.k_b)
    with pytest.raises(PlanError, match="leave one out"):
        choose_plan(network, SHAPE, PlanOptions.of(split="images", objective="paper"))


def test_of_splits_that_take_the_same_time_the_best_conditioned_is_taken(files: Files) -> None:
    network = open_model(files.model).network
    no_transfers = Speeds(touched=1e15, copied=1e15, link=1e15)
    problem = PlanningProblem(network, SHAPE, PlanOptions.of(n=6, tolerate=2), no_transfers)
    for layer in build_plan(problem, Candidate("gathered", 16, 2)).layers:
        assert layer.code is not None
        work = {
            (p.k_a, p.k_b): coded_share_cost(layer.geometry, p, "rows", 16).multiply_adds
            for p in code_partitions("systematic", 6, 4)
        }
        fast = [split for split, needed in work.items() if needed <= min(work.values())]
        best = min(known_condition(6, *split, planned_parity(*split)) for split in fast)
        assert measure(layer.code.code).worst <= best * (1 + 1e-6)


def test_layers_split_on_both_sides_have_the_better_parity(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = open_model(files.model).network
    problem = PlanningProblem(network, SHAPE, PlanOptions.of(n=6, tolerate=2), Speeds())
    monkeypatch.setattr(candidates, "code_partitions", lambda *_: (Partition(4, 4, 2, 2),))
    plan = build_plan(problem, Candidate("gathered", 16, 2))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    check_plan(again, network)
    for layer in again.layers:
        assert layer.code is not None
        assert (layer.code.parity, layer.code.code.ell_a, layer.code.code.ell_b) == (
            "complex",
            2,
            2,
        )


def test_refusals_name_the_number(files: Files) -> None:
    network = open_model(files.model).network
    with pytest.raises(IllConditionedError, match=r"condition number of \d"):
        choose_plan(network, SHAPE, PlanOptions.of(n=28, tolerate=16, code="crme"))
    with pytest.raises(CodeError, match="expected n to be a multiple of 3"):
        choose_plan(network, SHAPE, PlanOptions.of(n=8, tolerate=2, code="replication"))


def test_more_shares_than_rows_are_gathered(files: Files) -> None:
    network = open_model(files.model).network
    plan = choose_plan(network, SHAPE, PlanOptions.of(n=44, tolerate=4, split="rows"))
    assert plan.form == "gathered"  # 40 strips of 16 rows there are none
    assert any("every layer is gathered" in warning for warning in plan.warnings)


def test_a_saved_plan_is_run_and_compared(files: Files, tmp_path: Path, scheduler: str) -> None:
    saved, output, summary = tmp_path / "plan.json", tmp_path / "out", tmp_path / "summary.json"
    runner, source = CliRunner(), [str(files.model), str(files.images)]
    made = runner.invoke(main, ["plan", *source, "--split", "rows", "--json", str(saved)])
    assert made.exit_code == 0, made.output
    doubled = runner.invoke(main, ["run", *source, str(output), "--plan", str(saved), "--n", "6"])
    assert doubled.exit_code == 2
    assert "--n given together with --plan" in doubled.output
    arguments = ["--plan", str(saved), "--scheduler", scheduler, "--json", str(summary)]
    ran = runner.invoke(main, ["run", *source, str(output), *arguments])
    assert ran.exit_code == 0, ran.output
    found = json.loads(summary.read_text())
    assert found["planned"].keys() == {
        "seconds", "plain_seconds", "is_rough", "bytes_sent", "extra_work", "peak_memory",
        "parity_memory",
    }  # fmt: skip
    assert found["planned"]["seconds"] > 0
    assert found["peak_memory"] is None or found["peak_memory"] > 0  # it comes with a heartbeat
    report = runner.invoke(main, ["report", str(output)])
    assert "planned" in report.output
    assert "bytes that workers sent to each other" in report.output


@pytest.mark.parametrize("used", [200e6, 900e6])
def test_a_run_expects_the_memory_of_its_plan_unless_workers_use_more_already(
    files: Files, monkeypatch: pytest.MonkeyPatch, used: float
) -> None:
    config = JobConfig(model=str(files.model), input=str(files.images), output="-", workers=6)
    opened, pool = open_job(config), workers_of_options(config)
    plan = job_plan.job_plan(opened.config, opened.network, opened.source, pool)
    workers = {"tcp://a:1": {"metrics": {"memory": used}}}
    monkeypatch.setattr(job_plan, "workers_of_client", lambda *_: pool)
    monkeypatch.setattr(job_plan, "cluster_workers", lambda _: workers)
    cluster = cast("Cluster", SimpleNamespace(client=None))
    layout = BlockLayout(opened.source.images, plan.batch)
    found = job_plan.forecast_of_run(
        opened.config, plan, opened.network, cluster, opened.source, layout, range(layout.blocks)
    ).forecast
    assert plan.forecast is not None
    more = max(0.0, used - plan.forecast.speeds.memory_at_rest)
    assert found.peak_memory == plan.forecast.peak_memory + more


def test_measured_speeds_are_kept_and_used(
    files: Files, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "SECONDS_PER_OPERATION", 0.005)
    monkeypatch.setattr(calibration, "REPETITIONS", 1)
    kept = tmp_path / "speeds" / "calibration.json"
    source = [str(files.model), str(files.images), "--scheduler", scheduler]
    with dask.config.set({"fcdcc.calibration-file": str(kept)}):
        first = CliRunner().invoke(main, ["plan", *source, "--calibrate"])
        assert first.exit_code == 0, first.output
        assert "(measured speeds; " in " ".join(first.stdout.split())
        assert f"the measured speeds are saved in {kept}" in first.stderr
        later = CliRunner().invoke(main, ["plan", *source])
        assert "(measured speeds; " in " ".join(later.stdout.split())
        kept.write_text("{")
        broken = CliRunner().invoke(main, ["plan", *source])
    assert broken.exit_code == 0
    assert "default speeds" in " ".join(broken.stdout.split())
    (line,) = broken.stderr.splitlines()
    assert "cannot be used" in line
    assert list(kept.parent.iterdir()) == [kept]
