from __future__ import annotations

import gc
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fcdcc.coding import Abandoned
from fcdcc.pipeline import open_model
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.worker import engines, packed_convolutions
from fcdcc.pipeline.worker.engines import StageProgram
from fcdcc.pipeline.worker.packed_convolutions import fused_is_available
from zoo import ZOO, build, images, save


def program(network: Network, engine: engines.EngineName) -> StageProgram:
    return StageProgram(network, range(len(network.stages)), (network.output,), engine)


def network_of(module: nn.Module, shape: tuple[int, ...], folder: object) -> Network:
    path = f"{folder}/model.pt2"
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    example = torch.zeros(2, *shape)
    torch.export.save(torch.export.export(module.eval(), (example,), dynamic_shapes=(batch,)), path)
    return open_model(path).network


def test_the_fused_operators_are_there_and_right() -> None:
    assert fused_is_available()


@pytest.mark.parametrize("name", sorted(ZOO))
@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_every_network_gives_what_pytorch_gives(
    name: str, engine: engines.EngineName, tmp_path_factory: pytest.TempPathFactory
) -> None:
    entry = ZOO[name]
    network = open_model(str(save(entry, tmp_path_factory.getbasetemp() / f"{name}.pt2"))).network
    run = program(network, engine)
    assert run.is_fused == (engine == "fused")
    with torch.inference_mode():
        for count in (4, 1, 3):
            batch = images(entry, count)
            expected = build(entry)(batch)
            found = run({network.input: batch})[network.output]
            difference = (found - expected).abs().max() / expected.abs().max()
            assert difference <= 1e-5
            if not entry.dense:
                assert torch.equal(found.argmax(1), expected.argmax(1))


class Sums(nn.Module):
    """Residual sums of equal and of repeated operands, and values that are read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.third = nn.Conv2d(8, 8, 3, stride=2, padding="valid", groups=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.first(x))
        both = torch.relu(self.second(first) + first)
        pooled = both.mean((2, 3), keepdim=True)
        gated = torch.relu(self.second(both) + self.gate(pooled))
        twice = self.second(gated)
        doubled = twice + twice
        late = self.second(doubled) + self.gate(gated)
        return torch.cat([self.third(late).flatten(1), self.gate(twice).flatten(1)], 1)


def test_sums_are_fused_only_where_both_operands_have_one_shape(tmp_path: object) -> None:
    module = Sums()
    network = network_of(module, (3, 9, 11), tmp_path)
    run = program(network, "fused")
    assert any(operation.residual for operation in run.operations)
    batch = torch.randn(5, 3, 9, 11)
    with torch.inference_mode():
        found = run({network.input: batch})[network.output]
        torch.testing.assert_close(found, module(batch), atol=1e-5, rtol=1e-5)


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.Sigmoid(), nn.Tanh(), nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(),
    nn.LeakyReLU(0.2), nn.GELU(), nn.GELU("tanh"), nn.Hardtanh(-2.0, 0.5), nn.ELU(), nn.Softplus(),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations_after_a_convolution(activation: nn.Module, tmp_path: object) -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3, padding=(0, 2)), activation, nn.Conv2d(6, 4, 1))
    network = network_of(module, (3, 8, 7), tmp_path)
    batch = 3 * torch.randn(2, 3, 8, 7)
    with torch.inference_mode():
        found = program(network, "fused")({network.input: batch})[network.output]
        torch.testing.assert_close(found, module(batch), atol=1e-5, rtol=1e-5)


@given(
    channels=st.sampled_from([(3, 8, 1), (8, 8, 8), (8, 16, 4), (1, 5, 1)]),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(8, 13), st.integers(8, 13)),
    batches=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_packed_convolutions_of_any_geometry(
    channels: tuple[int, int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    batches: list[int],
) -> None:
    inputs, outputs, groups = channels
    tensors = {"w": torch.randn(outputs, inputs // groups, *kernel), "b": torch.randn(outputs)}
    uneven = ((padding[0], padding[0]), (padding[1], padding[1] + 1))
    for pads in (uneven, ((padding[0], padding[0]), (padding[1], padding[1]))):
        stage = engines.ConvStage(0, "c", "x", "y", "w", "b", stride, pads, dilation, groups)
        packed = packed_convolutions.PackedConvolution(
            stage, tensors, packed_convolutions.NO_ACTIVATION, packed_convolutions.PackedWeights()
        )
        for count in batches:
            value = torch.randn(count, inputs, *size)
            expected = packed_convolutions.convolve(stage, value, tensors)
            torch.testing.assert_close(packed(value), expected, atol=2e-4, rtol=1e-4)


def packed_copies() -> set[int]:
    """Return where in memory the packed weights of this process are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # modules that warn when they are looked at
        found = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    return {torch.ops.mkldnn.data_ptr(tensor) for tensor in found if tensor.is_mkldnn}


def test_a_weight_is_packed_once_for_all_programs_and_batches(tmp_path: object) -> None:
    network = network_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), (3, 9, 9), tmp_path)
    before, packed = packed_copies(), packed_convolutions.PackedWeights()
    stages = range(len(network.stages))
    programs = [
        StageProgram(network, stages, outputs, "fused", packed)
        for outputs in [(network.output,), (network.convolutions[0].output, network.output)]
    ]
    with torch.inference_mode():
        for run in programs:
            for count in (4, 2, 1, 3):
                run({network.input: torch.randn(count, 3, 9, 9)})
    assert len(packed_copies() - before) == 2


def test_without_the_operators_everything_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> object:
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed_convolutions.PackedConvolution, "__call__", missing)
    fused_is_available.cache_clear()
    try:
        assert not fused_is_available()
    finally:
        fused_is_available.cache_clear()


def test_a_wrong_answer_of_the_operators_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = packed_convolutions.PackedConvolution.__call__
    monkeypatch.setattr(
        packed_convolutions.PackedConvolution,
        "__call__",
        lambda self, *given: right(self, *given) * 1.001,
    )
    fused_is_available.cache_clear()
    try:
        assert not fused_is_available()
    finally:
        fused_is_available.cache_clear()


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_a_program_stops_when_its_result_is_not_wanted(
    engine: engines.EngineName, tmp_path: object
) -> None:
    network = network_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), (3, 8, 8), tmp_path)
    asked = []

    def is_wanted() -> bool:
        asked.append(1)
        return len(asked) < 2

    with pytest.raises(Abandoned):
        program(network, engine)({network.input: torch.zeros(2, 3, 8, 8)}, is_wanted)


def test_no_input_is_changed(tmp_path: object) -> None:
    network = network_of(Sums(), (3, 9, 11), tmp_path)
    batch = torch.randn(3, 3, 9, 11)
    before = batch.clone()
    program(network, "fused")({network.input: batch})
    assert torch.equal(batch, before)


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_large_batches_are_computed_in_runs_of_images(
    engine: engines.EngineName, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(Sums(), (3, 9, 11), tmp_path)
    batch = torch.randn(7, 3, 9, 11)
    run = program(network, engine)
    with torch.inference_mode():
        whole = run({network.input: batch})[network.output]
        sizes = []
        convolve = StageProgram._convolve

        def counted(
            self: StageProgram, operation: object, stage: object, known: dict, sums: object
        ) -> torch.Tensor:
            sizes.append(len(known[stage.input]))
            return convolve(self, operation, stage, known, sums)

        monkeypatch.setattr(StageProgram, "_convolve", counted)
        monkeypatch.setattr(engines, "MICRO_BATCH_BYTES", 3 * 8 * 9 * 11 * 4)
        in_runs = run({network.input: batch})[network.output]
    assert set(sizes) == {2, 3}
    torch.testing.assert_close(in_runs, whole, atol=1e-5, rtol=1e-5)
