"""``--verify checksum``: every layer is checked where it is computed; who is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from torch import nn

from fcdcc.coding import CodedConv, ConvGeometry, make_code
from fcdcc.pipeline import JobConfig, infer, open_model, plan, run
from fcdcc.pipeline.errors import FailedCheckError
from fcdcc.pipeline.model.network import ConvStage, Network
from fcdcc.pipeline.planner.check_coverage import check_coverage
from fcdcc.pipeline.worker import packed_convolutions
from fcdcc.pipeline.worker.engines import EngineName, StageProgram
from fcdcc.pipeline.worker.layer_checks import LayerChecks
from support.bad_convolutions import FirstWorker, one_wrong_element, spoil_convolutions
from support.jobs import assert_bad_worker_is_named, predictions
from support.planned import usual_plans
from support.small import SHAPE, Files
from zoo import NAMES, ZOO, build, images, save

FORMS: dict[str, dict[str, Any]] = {
    "images": {"split": "images", "batch": 16},
    "strips": {"split": "rows", "batch": 16},
    "gathered": {"code": "crme", "batch": 16},
    "eager parity": {"split": "images", "batch": 16, "redundancy": "eager"},
    "no redundancy": {"split": "images", "batch": 16, "redundancy": "off"},
}


# ---------------------------------------------------------------- one process


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", [pytest.param("eager", marks=pytest.mark.long), "fused"])
def test_no_network_is_accused_and_all_give_what_pytorch_gives(
    name: str, engine: EngineName, tmp_path_factory: pytest.TempPathFactory
) -> None:
    entry = ZOO[name]
    network = open_model(str(save(entry, tmp_path_factory.getbasetemp() / f"{name}.pt2"))).network
    stages = range(len(network.stages))
    checked = StageProgram(network, stages, (network.output,), engine, checks=LayerChecks(network))
    batch = images(entry, 3)
    with torch.inference_mode():
        found = checked({network.input: batch})[network.output]
        expected = build(entry)(batch)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def small_program(files: Files, engine: EngineName) -> tuple[StageProgram, dict[str, torch.Tensor]]:
    network = open_model(str(files.model)).network
    program = StageProgram(
        network, range(len(network.stages)), (network.output,), engine, checks=LayerChecks(network)
    )
    return program, {network.input: torch.rand(4, *SHAPE)}


@pytest.mark.parametrize("engine", ["eager", "fused"])
@pytest.mark.parametrize("linear", [False, True])
def test_a_wrong_layer_is_refused_and_named(
    files: Files, monkeypatch: pytest.MonkeyPatch, engine: EngineName, linear: bool
) -> None:
    hit = spoil_convolutions(monkeypatch, lambda _: True, linear=linear)
    program, given = small_program(files, engine)
    said = "linear layer linear" if linear else r"layer 0 \(first\)"
    with pytest.raises(FailedCheckError, match=said), torch.inference_mode():
        program(given)
    assert hit


@pytest.mark.parametrize("engine", ["eager", "fused"])
@pytest.mark.parametrize("name", ["first.weight", "second.weight", "head.weight"])
def test_weights_that_are_damaged_after_they_were_loaded_are_found(
    files: Files, engine: EngineName, name: str
) -> None:
    program, given = small_program(files, engine)
    weight = program._tensors[name]
    weight.view(-1)[5] += 10 * weight.abs().max()
    with pytest.raises(FailedCheckError), torch.inference_mode():
        program(given)


def test_packed_weights_that_are_damaged_are_found(files: Files) -> None:
    program, given = small_program(files, "fused")
    with torch.inference_mode():
        program(given)
        convolution = next(iter(program._packed.values()))
        for copies in convolution._packed._by_weight.values():
            for weight in copies.values():
                packed_convolutions._bytes_of(weight)[3] = 200  # the exponent of the first weight
        with pytest.raises(FailedCheckError):
            program(given)


def test_a_value_that_changes_between_two_layers_is_found(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first layer's output is added to the second's: its sums are from when it was made."""
    program, given = small_program(files, "fused")
    first, second = (name for name in program._packed)
    original = packed_convolutions.PackedConvolution.__call__

    def damaged(
        self: packed_convolutions.PackedConvolution,
        value: torch.Tensor,
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if residual is not None:
            residual = one_wrong_element(residual)
        return original(self, value, residual)

    monkeypatch.setattr(packed_convolutions.PackedConvolution, "__call__", damaged)
    assert first in program._residuals
    assert second not in program._residuals
    with pytest.raises(FailedCheckError, match="second"), torch.inference_mode():
        program(given)


CODED = CodedConv(
    ConvGeometry.of((4, 3, 12, 12), (16, 3, 3, 3), padding=1),
    make_code("systematic", n=6, k_a=2, k_b=8),
)


def coded_share(share: int, damage: float, *, is_wrong: bool = False) -> None:
    """Compute a share with coded filters that are damaged after they were summed."""
    torch.manual_seed(share)
    weight, x = torch.randn(CODED.geometry.weight_shape), torch.randn(4, 3, 12, 12)
    stage = ConvStage(0, "conv", "x", "y", "w", None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    checks = LayerChecks(
        Network((stage,), "x", "y", (4, 3, 12, 12), torch.float32, {"w": weight}, "")
    )
    weight.view(-1)[7] += damage
    check = checks.of_share(CODED, 0, "conv", share)

    def spoiled(x: torch.Tensor, padding: Any, y: torch.Tensor) -> None:
        check(x, padding, one_wrong_element(y) if is_wrong else y)

    CODED.convolve(
        CODED.encode_input(x, share), CODED.encode_filters(weight, share), share, check=spoiled
    )


@pytest.mark.parametrize("share", range(6))
def test_shares_with_coded_filters_are_checked(share: int) -> None:
    coded_share(share, 0.0)
    with pytest.raises(FailedCheckError, match="checksum differs"):
        coded_share(share, 0.0, is_wrong=True)
    with pytest.raises(FailedCheckError, match="changed in memory"):
        coded_share(share, 0.001)


def test_images_without_numbers_accuse_nobody(files: Files) -> None:
    program, given = small_program(files, "fused")
    (name,) = given
    given[name][1, 0, 3, 3] = torch.nan
    given[name][2] = 1e38
    with torch.inference_mode():
        found = program(given)
    assert torch.isfinite(next(iter(found.values()))[[0, 3]]).all()


class HalfPrecision(nn.Module):
    """A network with one convolution in float16, which overflows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1).half(), nn.Linear(4, 5)
        with torch.no_grad():
            self.conv.weight.abs_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.conv(x.half() * 60000).float().clamp(-1, 1).mean((2, 3)))


def test_a_convolution_in_float16_is_not_checked_and_said_to_be_left_out(tmp_path: Path) -> None:
    batch = {0: torch.export.Dim("batch")}
    module = HalfPrecision().eval()
    program = torch.export.export(module, (torch.rand(2, 3, 16, 16),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "model.pt2")
    model = open_model(str(tmp_path / "model.pt2"))
    given = torch.rand(4, 3, 16, 16)
    found = infer(model, given.numpy(), verify="checksum", batch=4).compute(scheduler="synchronous")
    with torch.inference_mode():
        np.testing.assert_allclose(found.values, module(given).numpy(), rtol=1e-3, atol=1e-3)
    assert "not: conv2d" in check_coverage(model.network, (3, 16, 16))


def test_a_convolution_among_other_operations_is_not_covered_in_rows(tmp_path: Path) -> None:
    batch = {0: torch.export.Dim("batch")}
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    program = torch.export.export(module, (torch.rand(2, 3, 16, 16),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "model.pt2")
    network = open_model(str(tmp_path / "model.pt2")).to(torch.bfloat16).network
    assert check_coverage(network, (3, 16, 16)).startswith("100.0 %")
    assert "not: convolution (100.0 %)" in check_coverage(network, (3, 16, 16), in_rows=True)


def test_a_plan_says_what_is_covered(files: Files) -> None:
    network = open_model(str(files.model)).network
    assert check_coverage(network, SHAPE).startswith(
        "100.0 % of the multiply-adds; also encoding and decoding; not: operations"
    )
    made = plan(open_model(str(files.model)), str(files.images), verify="checksum", n=1, tolerate=0)
    assert "checksums cover 100.0 % of the multiply-adds" in str(made)
    made = plan(open_model(str(files.model)), str(files.images))
    assert "checksum" not in str(made)


class Attention(nn.Module):
    """A convolution, and a product of two computed values with twice its multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.conv(x).flatten(2)  # 16 · 64 products to get (4, 64)
        return torch.matmul(flat, flat.transpose(1, 2)) @ flat


def test_products_of_computed_values_are_said_to_be_left_out(tmp_path: Path) -> None:
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(
        Attention().eval(), (torch.zeros(2, 4, 8, 8),), dynamic_shapes=(batch,)
    )
    torch.export.save(program, tmp_path / "model.pt2")
    network = open_model(str(tmp_path / "model.pt2")).network
    said = check_coverage(network, (4, 8, 8))
    assert said.startswith("33.3 % of the multiply-adds; ")
    assert "; not: matmul (66.7 %), " in said


# ---------------------------------------------------------------------- jobs


@pytest.fixture
def every_layer_is_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    usual_plans(monkeypatch)


def job(files: Files, scheduler: str, output: Path, **options: Any) -> JobConfig:
    return JobConfig(
        model=str(files.model), input=str(files.images), output=str(output), verify="checksum",
        scheduler=scheduler, progress=False, **options,
    )  # fmt: skip


@pytest.mark.cluster
@pytest.mark.usefixtures("every_layer_is_coded")
@pytest.mark.parametrize("engine", [pytest.param("eager", marks=pytest.mark.long), "fused"])
@pytest.mark.parametrize("form", FORMS)
def test_a_bad_worker_is_named_and_shut_out_and_the_predictions_are_right(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, engine: str
) -> None:
    output = tmp_path / "out.zarr"
    with LocalCluster(
        n_workers=4, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        bad = FirstWorker()
        hit = spoil_convolutions(monkeypatch, bad)
        config = job(
            files, cluster.scheduler_address, output, n=6, tolerate=2, engine=engine, **FORMS[form]
        )
        summary = run(config)
        status = cluster.scheduler.workers[bad.address].status.name
    assert hit
    assert_bad_worker_is_named(summary, output, files.expected, 1e-5, bad.address, status)
    assert bad.address in str(summary)


@pytest.mark.cluster
def test_now_and_then_wrong_is_named_everywhere(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def now_and_then(worker: str) -> bool:
        nonlocal calls
        calls += worker == bad
        return worker == bad and calls % 7 == 0

    output = tmp_path / "out.zarr"
    with (
        LocalCluster(
            n_workers=3, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        bad = sorted(cluster.scheduler.workers)[1]
        hit = spoil_convolutions(monkeypatch, now_and_then)
        summary = run(job(files, cluster.scheduler_address, output, batch=3))
        address = f"http://localhost:{cluster.scheduler.http_server.port}"
        metrics = urlopen(f"{address}/metrics").read().decode()
        page = urlopen(f"{address}/fcdcc").read().decode()
        status = cluster.scheduler.workers[bad].status.name
    assert len(hit) >= 2
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert {found.worker for found in summary.corrupt_shares} == {bad}
    assert f'fcdcc_worker_wrong_shares_total{{worker="{bad}"}}' in metrics
    called = re.escape(bad) + r" \(worker 1, pid \d+\)"
    named = re.search(called + r": (\d+), gets no more tasks", " ".join(page.split()))
    assert named is not None
    assert int(named[1]) >= 2
    assert status == "paused"


@pytest.mark.cluster
def test_one_worker_that_is_always_wrong_fails_in_words(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.zarr"
    with LocalCluster(
        n_workers=1, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        spoil_convolutions(monkeypatch, lambda _: True)
        summary = run(job(files, cluster.scheduler_address, output, batch=25))
    assert (summary.status, summary.blocks_done, summary.blocks_failed) == ("incomplete", 0, 2)
    assert all("checksum differs" in failure.reason for failure in summary.failures)
    assert np.isnan(predictions(output)).all()


def test_infer_raises_rather_than_answers_wrongly(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_convolutions(monkeypatch, lambda _: True)
    lazy = infer(
        open_model(str(files.model)), str(files.images), n=2, tolerate=1, verify="checksum"
    )
    with pytest.raises(FailedCheckError, match=r"layer 0 \(first\): a result is wrong"):
        lazy[:4].compute(scheduler="synchronous")
