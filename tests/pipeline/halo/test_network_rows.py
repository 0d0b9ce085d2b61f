"""The row arithmetic on whole networks: what is local to rows, and what is not and why."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fcdcc.coding.apcp import partition_rows, rows_inside
from fcdcc.coding.geometry import ConvGeometry
from fcdcc.pipeline.halo import (
    Barrier,
    NetworkRows,
    RowLocal,
    Rows,
    Whole,
    analyse_network,
    barrier_stage,
    conv_rows,
    needed_between,
    plan_rows,
    run_rows,
)
from fcdcc.pipeline.model import open_model
from fcdcc.pipeline.model.interpreter import run_network, run_steps
from fcdcc.pipeline.model.network import ConvStage, GlueStage, Network
from support.rowcheck import SLOW
from zoo import NAMES, ZOO, images, save

# Why rows end at the end of a network; None where they do not.
END: dict[str, str | None] = {
    "lenet5": "it joins the rows with other axes",
    "alexnet": "it joins the rows with other axes",
    "vgg16": "it joins the rows with other axes",
    "googlenet": "global pooling",
    "inception_v3": "global pooling",
    "squeezenet": "global pooling",
    "resnet18": "global pooling",
    "resnet50": "global pooling",
    "densenet": "global pooling",
    "regnet": "global pooling",
    "convnext": "a mean over all rows",
    "shufflenet_v2": "a mean over all rows",
    "mobilenet_v2": "global pooling",
    "mobilenet_v3": "global pooling",
    "efficientnet": "global pooling",
    "unet": None,
    "unet_bilinear": None,
    "fcn": None,
    "deeplab_v3": None,
    "audio": "it drops the row axis",
    "volume": None,
    "feature_pyramid": None,
    "video": "global pooling",
}
# Barriers before that: squeeze-excitation takes the mean of an image, and so does the pyramid
# pooling of DeepLab. All other stages of all networks are local to rows.
INSIDE = {
    "regnet": ["global pooling"] * 6,
    "mobilenet_v3": ["a mean over all rows"] * 3,
    "efficientnet": ["global pooling"] * 7,
    "deeplab_v3": ["global pooling"],
}
# Networks with attention are not local to rows between their convolutions.
GLOBAL = {"vision_transformer", "swin", "hybrid", "mixer"}
LOCAL_NAMES = [name for name in NAMES if getattr(name, "values", (name,))[0] not in GLOBAL]
EVERY = pytest.mark.parametrize("name", LOCAL_NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@cache
def network_of(name: str, folder: Path) -> Network:
    return open_model(save(ZOO[name], folder / f"{name}.pt2")).network


@cache
def found_of(name: str, folder: Path) -> NetworkRows:
    return analyse_network(network_of(name, folder), (2, *ZOO[name].input_shape))


@cache
def values_of(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """Every value that passes between the stages of a network, for 3 images."""
    network = network_of(name, folder)
    values = {network.input: images(ZOO[name], 3)}
    for stage in network.stages:
        if isinstance(stage, GlueStage):
            values.update(run_steps(stage, values, network.tensors))
        else:
            alone = replace(network, stages=(stage,), input=stage.input, output=stage.output)
            values[stage.output] = run_network(alone, values[stage.input])
    return values


@EVERY
def test_stages_are_local_to_rows_but_for_these(name: str, folder: Path) -> None:
    found = found_of(name, folder)
    glue = [index for index, stage in enumerate(found.network.stages) if index in found.stages]
    end = END[name]
    inside = [
        barrier.reason
        for index in glue
        for barrier in found.stages[index].barriers
        if end is None or index != glue[-1]
    ]
    assert inside == INSIDE.get(name, [])
    last = found.stages[glue[-1]]
    if end is None:
        assert all(isinstance(o, RowLocal) for o in last.outputs.values())
    else:
        assert [barrier.reason for barrier in last.barriers] == [end]
        assert isinstance(last.outputs[found.network.output], Barrier)


@EVERY
def test_what_comes_of_a_barrier_is_small(name: str, folder: Path) -> None:
    """Nothing but weights for each channel has to travel to the strips."""
    found = found_of(name, folder)
    for stage in found.stages.values():
        for output in stage.outputs.values():
            if isinstance(output, RowLocal):
                for value in output.requires:
                    assert stage.layouts[value].shape[2:] == (1, 1)
            elif isinstance(output, Whole):
                assert name in INSIDE


@EVERY
def test_strips_of_every_stage_equal_the_whole(name: str, folder: Path) -> None:
    found, values = found_of(name, folder), values_of(name, folder)
    tensors = found.network.tensors
    for stage in found.stages.values():
        barriers = barrier_stage(stage)
        behind = {} if barriers is None else run_steps(barriers, values, tensors)
        local = {n: o for n, o in stage.outputs.items() if isinstance(o, RowLocal)}
        for strip in range(3):
            wanted = {}
            for output in local:
                size = stage.layouts[output].rows
                rows = Rows(strip * size // 3, (strip + 1) * size // 3)
                if rows.size:
                    wanted[output] = rows
            if not wanted:
                continue
            plan = plan_rows(stage, wanted)
            inputs = {}
            for source, rows in plan.needs.items():
                value = values[source] if source in values else behind[source]
                if rows is not None:
                    value = value.narrow(plan.axes[source], rows.start, rows.size).clone()
                inputs[source] = value
            for output, got in run_rows(plan, inputs, tensors).items():
                rows = wanted[output]
                expected = values[output].narrow(local[output].axis, rows.start, rows.size)
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["alexnet", "resnet50", "googlenet", "unet_bilinear", "audio"])
def test_rows_outside_what_is_claimed_do_not_matter(name: str, folder: Path) -> None:
    """Through all stages of a network at once."""
    found, values = found_of(name, folder), values_of(name, folder)
    network = found.network
    last = network.stages[-1]
    target = network.output if isinstance(last, ConvStage) or END[name] is None else last.inputs[0]
    size = found.layouts[target].rows
    rows = Rows(size // 2, size // 2 + 1)
    (claimed,) = needed_between(found, {target: rows}, ()).values()
    assert claimed is not None
    changed = torch.full_like(values[network.input], 7.0)
    inside = slice(claimed.start, claimed.stop)
    changed[:, :, inside] = values[network.input][:, :, inside]
    got = run_network(replace(network, output=target), changed)
    torch.testing.assert_close(
        got[:, :, rows.start : rows.stop],
        values[target][:, :, rows.start : rows.stop],
        rtol=1e-5,
        atol=2e-6,
    )


def test_ranges_stop_at_given_values(folder: Path) -> None:
    found = found_of("vgg16", folder)
    first, second = (stage for stage in found.network.stages[:4] if isinstance(stage, ConvStage))
    assert needed_between(found, {second.output: (4, 8)}, {first.output}) == {
        first.output: Rows(3, 9)
    }
    assert needed_between(found, {second.output: (4, 8)}, ()) == {found.network.input: Rows(2, 10)}


def test_a_barrier_on_the_way_needs_everything(folder: Path) -> None:
    found = found_of("efficientnet", folder)
    later = [stage for stage in found.network.stages if isinstance(stage, ConvStage)][8]
    assert needed_between(found, {later.output: (0, 1)}, ()) == {found.network.input: (0, 64)}
    gate = next(v for v, layout in found.layouts.items() if layout.axis is None)
    assert needed_between(found, {later.output: (0, 1)}, {gate}) == {
        found.network.input: (0, 64),
        gate: None,
    }


class ChannelAttention(nn.Module):
    """Weights for channels from a convolution over them (efficient channel attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.over_channels = nn.Conv1d(1, 1, 3, padding=1)
        self.leave = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        means = x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
        weights = self.over_channels(means).transpose(-1, -2).unsqueeze(-1).sigmoid()
        return self.leave(x * weights.expand_as(x))


def test_convolutions_over_channels_have_no_rows(tmp_path: Path) -> None:
    x = torch.zeros(2, 3, 6, 6)
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(ChannelAttention().eval(), (x,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "model.pt2")
    found = analyse_network(open_model(tmp_path / "model.pt2").network, (2, 3, 6, 6))
    assert [b.reason for bs in found.barriers.values() for b in bs] == ["a mean over all rows"]
    whole = [layout.shape for layout in found.layouts.values() if layout.axis is None]
    assert sorted(whole) == [(2, 1, 8), (2, 1, 8)]


@SLOW
@given(
    rows=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
    k_a=st.integers(1, 8),
)
def test_convolutions_need_the_rows_of_apcp(
    rows: int, kernel: int, stride: int, padding: int, dilation: int, k_a: int
) -> None:
    if rows + 2 * padding < (kernel - 1) * dilation + 1:
        return
    geometry = ConvGeometry.of(
        (1, 1, rows, 9), (1, 1, kernel, 3), (stride, 1), (padding, 0), (dilation, 1)
    )
    stage = ConvStage(
        index=0,
        name="",
        input="x",
        output="y",
        weight="w",
        bias=None,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=1,
    )
    partition = partition_rows(geometry, k_a)
    for a, start in enumerate(partition.starts):
        out = partition.output_run(a)
        if out.stop - out.start != partition.rows:
            continue  # its last rows come from the adaptive padding
        found = conv_rows(stage, geometry.weight_shape, rows, (out.start, out.stop))
        inside, above, below = rows_inside(geometry, start, partition.input_rows)
        assert found.rows.size == inside.stop - inside.start
        assert (found.above, found.below) == (above, below)
        if found.rows.size:
            assert found.rows == (inside.start, inside.stop)
