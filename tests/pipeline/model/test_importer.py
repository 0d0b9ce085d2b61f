"""Model import: the network computes what the module does, and is cut where it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError, UnsafeModelError
from fcdcc.pipeline.model.importer import fold_batch_norms, import_network
from fcdcc.pipeline.model.interpreter import network_shapes, run_network, run_stages
from fcdcc.pipeline.model.network import ConvStage, GlueStage, Network
from fcdcc.pipeline.model.pt2.archive import read_archive
from support.modules import Lambda, Residual, conv, ready
from support.pt2 import GRAPH, edited, pt2
from zoo import NAMES, ZOO, build, images, save


def imported(data: bytes, *, fold: bool = True) -> Network:
    return import_network(read_archive(data, "test.pt2"), "test.pt2", fold=fold)


def operators(network: Network) -> list[str]:
    return [s.op for stage in network.stages if isinstance(stage, GlueStage) for s in stage.steps]


@dataclass(frozen=True)
class Case:
    """A module, the shape of its images, and what its network should be made of."""

    module: Callable[[], nn.Module]
    shape: tuple[int, ...]
    convolutions: int
    # Convolutions, transposed or not, that are left in the glue.
    in_glue: int = 0


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = conv(4, 8, 3)
        self.down = conv(8, 2, 1)
        self.up = conv(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.body(x), inplace=True)
        scale = functional.adaptive_avg_pool2d(x, 1)
        scale = functional.relu(self.down(scale), inplace=True)
        return x * functional.hardsigmoid(self.up(scale), inplace=True)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv(4, 4, 1), conv(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.ReLU(True)
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        y = torch.cat((kept, self.branch(changed)), dim=1)
        batch, channels, height, width = y.shape
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return y.view(batch, -1, height, width)


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(True), conv(n, 3, 3, padding=1))
            for n in (4, 7, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class Window(nn.Module):
    """Attention over windows, with a mask that is made by writing into slices."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = conv(3, 8, 2, stride=2)
        self.qkv = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x).permute(0, 2, 3, 1))
        batch, height, width, channels = x.shape
        mask = x.new_zeros((height, width))
        for index, rows in enumerate((slice(0, -2), slice(-2, None))):
            mask[rows, :] = index
        mask = mask.view(1, height * width)
        mask = mask.unsqueeze(1) - mask.unsqueeze(2)
        mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
        query, key, value = self.qkv(x.reshape(batch, height * width, channels)).chunk(3, -1)
        scores = torch.softmax(query @ key.transpose(1, 2) + mask, -1)
        return (scores @ value).mean(1)


def shift(x: Tensor, c: nn.Module) -> Tensor:
    """Move some channels by writing into slices of a new tensor."""
    out = torch.zeros_like(x)
    out[:, :-1, :2] = x[:, 1:, :2]
    out[:, 1:, 2:] = x[:, :-1, 2:]
    batch, time = out.shape[:2]
    return c(out.flatten(0, 1)).view(batch, time, 4, 8, 8).mean(1)


def through_views(x: Tensor, c: nn.Module) -> Tensor:
    """Change memory through several views of it, and read it through others."""
    y = c(x)
    left, whole = y[:, :2], y.transpose(2, 3)
    left.mul_(2)
    y[:, 1:3] += 1
    whole.relu_()
    picked = y.select(1, 1)
    picked.unsqueeze(1).squeeze(1).add_(3)
    y.view(y.shape[0], -1)[:, ::5] = 7
    y.permute(1, 0, 2, 3)[3].clamp_(max=0.5)
    y.diagonal(0, 2, 3).fill_(2)
    return torch.cat([y, left, whole.transpose(2, 3), picked.unsqueeze(1)], 1)


def in_place_types(x: Tensor, c: nn.Module) -> Tensor:
    y = c(x)
    y += x.double().mean((1, 2, 3), keepdim=True)
    return y * 2


def without_gradient(x: Tensor, c: nn.Module, d: nn.Module) -> Tensor:
    with torch.no_grad():
        y = c(x)
        unused = y + 1  # noqa: F841 - a graph inside the graph with something nobody reads
    with torch.no_grad():
        z = d(torch.relu_(y))
    return z + y


def pyramid(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
    fine = a(x)
    coarse = b(functional.max_pool2d(fine, 2, ceil_mode=True))
    up = functional.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
    return c(torch.cat([fine, up], 1))


def sizes(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    """Numbers that several stages need."""
    batch, _, height, width = x.shape
    y = a(x).reshape(batch, -1, height * width) / (height * width)
    y = b(y.view(batch, 4, height, width))
    return y.view(batch * 4, height, -1).sum(1).reshape(batch, -1)


def ranges(x: Tensor, a: nn.Module) -> Tensor:
    """Tensors that are made of sizes alone."""
    y = a(x)
    ones = torch.ones(y.shape[0], 4, 1, 1)
    return torch.relu(y) + y.new_full((y.shape[0], 1, 1, 1), 0.5) * ones


def infinities(x: Tensor, a: nn.Module) -> Tensor:
    y = a(x)
    y = y.masked_fill(y < 0, float("-inf")).clamp(min=-1e4, max=float("inf"))
    return torch.nan_to_num(y, posinf=float("inf")).logsumexp(1)


def strided(x: Tensor, a: nn.Module) -> Tensor:
    y = torch.relu(a(x))
    return y.as_strided((y.shape[0], 4, 4, 3, 3), (144, 36, 6, 6, 1)).mean((3, 4))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 5)
        self.lstm = nn.LSTM(4, 3, num_layers=2, batch_first=True, bidirectional=True, dropout=0.5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.conv(x).transpose(1, 2))
        return y[:, -1]


CASES = {
    "input straight into a convolution": Case(lambda: conv(3, 4, 3), (2, 3, 8, 8), 1),
    "convolution after convolution": Case(
        lambda: nn.Sequential(conv(3, 4, 3), conv(4, 5, 3)), (2, 3, 8, 8), 2
    ),
    "no convolution": Case(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU()), (2, 3, 4, 4), 0
    ),
    "one and the same convolution twice": Case(
        lambda: Lambda(lambda x, c: c(torch.relu(c(x))), c=conv(3, 3, 3, padding=1)),
        (2, 3, 8, 8),
        2,
    ),
    "no bias": Case(lambda: conv(3, 4, 3, bias=False), (2, 3, 8, 8), 1),
    "stride and uneven kernel": Case(
        lambda: conv(3, 4, (5, 2), stride=(3, 2), padding=(2, 0)), (2, 3, 17, 9), 1
    ),
    "dilation": Case(lambda: conv(3, 4, 3, dilation=(2, 3), padding=2), (2, 3, 12, 12), 1),
    "grouped": Case(lambda: conv(6, 8, 3, groups=2), (2, 6, 8, 8), 1),
    "depthwise": Case(lambda: conv(6, 12, 3, groups=6, padding=1), (2, 6, 8, 8), 1),
    "same padding": Case(lambda: conv(3, 4, 3, padding="same"), (2, 3, 8, 8), 1),
    "uneven same padding": Case(
        lambda: conv(3, 4, (4, 2), padding="same", dilation=(1, 3)), (2, 3, 8, 8), 1
    ),
    "valid padding": Case(lambda: conv(3, 4, 3, padding="valid"), (2, 3, 8, 8), 1),
    "reflected padding": Case(
        lambda: conv(3, 4, 3, padding=2, padding_mode="reflect"), (2, 3, 8, 8), 1
    ),
    "one dimension": Case(
        lambda: nn.Sequential(nn.Conv1d(2, 4, 5, stride=2, padding="valid"), nn.GELU()),
        (2, 2, 30),
        1,
    ),
    "three dimensions": Case(
        lambda: nn.Sequential(nn.Conv3d(2, 4, 3, padding="same"), nn.BatchNorm3d(4), nn.ELU()),
        (2, 2, 5, 6, 7),
        1,
    ),
    "transposed": Case(
        lambda: nn.Sequential(conv(3, 4, 3), nn.ConvTranspose2d(4, 3, 2, stride=2), conv(3, 2, 1)),
        (2, 3, 8, 8),
        2,
        in_glue=1,
    ),
    "weight of another precision": Case(
        lambda: Lambda(
            lambda x, c: c(x) + functional.conv2d(x.double(), c.weight.double()).float(),
            c=conv(3, 4, 3),
        ),
        (2, 3, 8, 8),
        1,
        in_glue=1,
    ),
    "weight norm": Case(
        lambda: nn.utils.parametrizations.weight_norm(conv(3, 4, 3)), (2, 3, 8, 8), 1
    ),
    "batch norm": Case(
        lambda: nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(True)), (2, 3, 8, 8), 1
    ),
    "residual": Case(Residual, (2, 4, 8, 8), 2),
    "squeeze and excitation": Case(SqueezeExcitation, (2, 4, 8, 8), 3),
    "channel shuffle": Case(Shuffle, (2, 8, 8, 8), 2),
    "dense connections": Case(Dense, (2, 4, 8, 8), 3),
    "window attention": Case(Window, (2, 3, 8, 8), 1),
    "pyramid": Case(
        lambda: Lambda(pyramid, a=conv(3, 4, 3), b=conv(4, 4, 3, padding=1), c=conv(8, 2, 1)),
        (2, 3, 11, 9),
        3,
    ),
    "numbers for several stages": Case(
        lambda: Lambda(sizes, a=conv(3, 4, 3, padding=1), b=conv(4, 4, 3, padding=1)),
        (2, 3, 6, 5),
        2,
    ),
    "shift": Case(lambda: Lambda(shift, c=conv(4, 4, 3, padding=1)), (2, 3, 4, 8, 8), 1),
    "changes through views": Case(lambda: Lambda(through_views, c=conv(3, 4, 3)), (2, 3, 8, 8), 1),
    "change of a narrow type": Case(
        lambda: Lambda(in_place_types, c=conv(3, 4, 3)), (2, 3, 8, 8), 1
    ),
    "tensors made of sizes": Case(lambda: Lambda(ranges, a=conv(3, 4, 3)), (2, 3, 8, 8), 1),
    "infinities": Case(lambda: Lambda(infinities, a=conv(3, 4, 3)), (2, 3, 8, 8), 1),
    "by position in memory": Case(lambda: Lambda(strided, a=conv(3, 4, 3)), (2, 3, 8, 8), 1),
    "recurrent": Case(Recurrent, (2, 2, 20), 1),
    "without gradient": Case(
        lambda: Lambda(without_gradient, c=conv(3, 4, 3), d=conv(4, 4, 3, padding=1)),
        (2, 3, 8, 8),
        2,
    ),
    "dropout": Case(
        lambda: nn.Sequential(
            nn.Dropout2d(), conv(3, 4, 3), nn.Dropout(inplace=True), nn.AlphaDropout()
        ),
        (2, 3, 8, 8),
        1,
    ),
    "instance and group norm": Case(
        lambda: nn.Sequential(conv(3, 4, 3), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)),
        (2, 3, 8, 8),
        1,
    ),
}


@cache
def made(case: Case) -> tuple[nn.Module, bytes]:
    """Return a case's module and its file."""
    module = ready(case.module())
    return module, pt2(module, case.shape)


BY_NAME = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@BY_NAME
def test_networks_compute_what_their_modules_do(case: Case) -> None:
    module, data = made(case)
    network, folded = imported(data, fold=False), imported(data)
    for count in (2, 5, 1):
        x = torch.randn(count, *case.shape[1:], generator=torch.Generator().manual_seed(count))
        kept = x.clone()
        with torch.no_grad():
            expected = module(x.clone())
        torch.testing.assert_close(run_network(network, x), expected, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(run_network(folded, x), expected)
        assert torch.equal(x, kept)


@BY_NAME
def test_networks_are_cut_at_their_convolutions(case: Case) -> None:
    network = imported(made(case)[1])
    assert len(network.convolutions) == case.convolutions
    assert sum("conv" in op for op in operators(network)) == case.in_glue
    check_stages(network)


@BY_NAME
def test_shapes_are_found_without_computing(case: Case) -> None:
    module, data = made(case)
    network = imported(data)
    shape = (3, *case.shape[1:])
    shapes = network_shapes(network, shape)
    values = run_stages(network, network.tensors, torch.zeros(shape), keep=True)
    assert {name: tuple(value.shape) for name, value in values.items()} == shapes
    assert shapes[network.input] == shape
    with torch.no_grad():
        assert shapes[network.output] == module(torch.zeros(shape)).shape
    for stage in network.stages:
        assert {*stage.inputs, *stage.outputs} <= shapes.keys()


def check_stages(network: Network) -> None:
    """Check what everybody who reads a network relies on."""
    made = {network.input}
    read = {network.output}.union(*(stage.inputs for stage in network.stages))
    names: list[str] = []
    for index, stage in enumerate(network.stages):
        assert stage.index == index
        assert made.issuperset(stage.inputs)
        assert len(set(stage.inputs)) == len(stage.inputs)
        assert stage.outputs
        assert read.issuperset(stage.outputs)
        if isinstance(stage, ConvStage):
            assert network.tensors[stage.weight].ndim == 2 + len(stage.stride)
            names.append(stage.output)
        else:
            local = {*stage.inputs, *network.tensors}
            for step in stage.steps:
                assert local.issuperset(step.references)
                local.add(step.name)
                names.append(step.name)
            assert {ref for s in stage.steps for ref in s.references}.issuperset(stage.inputs)
        made.update(stage.outputs)
    assert network.output in made
    assert len(set(names)) == len(names)
    assert not {*names, network.input} & network.tensors.keys()
    used = {ref for stage in network.stages for ref in _tensors_of(stage)}
    assert network.tensors.keys() == used & network.tensors.keys()


def _tensors_of(stage: ConvStage | GlueStage) -> set[str]:
    if isinstance(stage, ConvStage):
        return {stage.weight} | ({stage.bias} if stage.bias else set())
    return {ref for step in stage.steps for ref in step.references}


@pytest.mark.parametrize("name", NAMES)
def test_well_known_networks_are_imported_exactly(name: str, tmp_path: Any) -> None:
    entry = ZOO[name]
    path = save(entry, tmp_path / "model.pt2")
    module, x = build(entry), images(entry, 3)
    with torch.no_grad():
        expected = module(x)
    network = import_network(read_archive(path, entry.name), entry.name, fold=False)
    assert (run_network(network, x) - expected).norm() < 1e-6 * expected.norm()
    folded = open_model(path).network
    assert (run_network(folded, x) - expected).norm() < 5e-6 * expected.norm()
    check_stages(folded)
    shapes = network_shapes(folded, x.shape)
    assert shapes[folded.output] == expected.shape
    values = run_stages(folded, folded.tensors, x, keep=True)
    assert {name: tuple(value.shape) for name, value in values.items()} == shapes
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    assert len(folded.convolutions) == sum(isinstance(m, convolutions) for m in module.modules())


def test_stages_are_joined_as_far_as_they_can_be() -> None:
    module = nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    network = imported(pt2(ready(module), (2, 3, 8, 8)))
    assert [type(stage) for stage in network.stages] == [ConvStage, GlueStage]
    network = imported(pt2(ready(Residual()), (2, 4, 8, 8)))
    kinds = [type(stage) for stage in network.stages]
    assert kinds == [GlueStage, ConvStage, GlueStage, ConvStage, GlueStage]


def test_glue_that_needs_no_later_convolution_does_not_wait_for_one() -> None:
    def branches(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        one, two = a(x), b(x)
        return torch.relu(one).mean((2, 3)) + torch.sigmoid(two).mean((2, 3))

    network = imported(pt2(Lambda(branches, a=conv(3, 4, 3), b=conv(3, 4, 3)), (2, 3, 8, 8)))
    first, early, second, late = network.stages
    assert early.inputs == first.outputs
    assert set(late.inputs) == {*early.outputs, *second.outputs}


def test_only_tensors_pass_between_stages() -> None:
    module = ready(CASES["numbers for several stages"].module())
    network = imported(pt2(module, (2, 3, 6, 5), {0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC}))
    assert network.input_shape == (None, 3, None, None)
    numbers = {"aten.sym_size.int", "operator.mul"}
    for stage in network.stages:
        if isinstance(stage, GlueStage):
            made = {step.name: step.op for step in stage.steps}
            assert not any(made[name] in numbers for name in stage.outputs)
            # A size is asked of what the stage has anyway.
            assert network.input not in stage.inputs
    for shape in ((3, 3, 4, 7), (1, 3, 9, 2)):
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(run_network(network, x), module(x))


DYNAMIC = torch.export.Dim.AUTO


def test_fixed_and_free_sizes_are_told_apart() -> None:
    module = nn.Sequential(conv(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    assert imported(pt2(module, (2, 3, 8, 8))).input_shape == (None, 3, 8, 8)
    assert imported(pt2(module, (2, 3, 8, 8), False)).input_shape == (None, 3, 8, 8)
    free = imported(pt2(module, (2, 3, 8, 8), {0: DYNAMIC, 2: DYNAMIC}))
    assert free.input_shape == (None, 3, None, 8)
    x = torch.randn(4, 3, 13, 8)
    with torch.no_grad():
        torch.testing.assert_close(run_network(free, x), module(x))


def test_sizes_that_are_free_are_computed() -> None:
    module = nn.Sequential(conv(3, 4, 3, stride=2), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    network = imported(pt2(module, (2, 3, 20, 20), {0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC}))
    for shape in ((3, 3, 17, 24), (1, 3, 30, 11)):
        with torch.no_grad():
            expected = module(torch.zeros(shape)).shape
        assert network_shapes(network, shape)[network.output] == expected


# PyTorch says it of itself while it takes operators apart.
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
def test_decomposed_exports_are_imported_too() -> None:
    module = ready(nn.Sequential(Residual(), conv(4, 3, 3), nn.Flatten(), nn.Linear(108, 5)))
    x = torch.randn(3, 4, 8, 8)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for decomposed in (program.run_decompositions({}), program.run_decompositions()):
        network = imported(saved(decomposed))
        assert len(network.convolutions) == 3
        assert not any("batch_norm" in op for op in operators(network))
        with torch.no_grad():
            torch.testing.assert_close(run_network(network, x), module(x))


def saved(program: torch.export.ExportedProgram) -> bytes:
    file = BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def test_constants_are_computed_once() -> None:
    def constants(x: Tensor, c: nn.Module) -> Tensor:
        table = torch.arange(6.0).reshape(2, 3).softmax(1)
        table[0] *= 2
        before = table + 0
        table[:, 1] = 5
        return c(x).mean((2, 3)) + table.sum() + before.mean() + torch.tensor([1.0, 2.0])[1]

    module = ready(Lambda(constants, c=nn.utils.parametrizations.weight_norm(conv(3, 4, 3))))
    network = imported(pt2(module, (2, 3, 8, 8)))
    assert operators(network) == ["aten.mean.dim"] + ["aten.add.Tensor"] * 3
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(run_network(network, x), module(x))


def test_memory_that_is_not_filled_is_zero() -> None:
    def fill(x: Tensor, c: nn.Module) -> Tensor:
        y = c(x)
        room = torch.empty(2, 3)
        room[:, 1:] = 4
        other = y.new_empty(y.shape)
        other[:, :2] = y[:, :2]
        return other[:, :2] * room[0, 1]

    data = pt2(Lambda(fill, c=conv(3, 4, 3)), (2, 3, 8, 8))
    assert imported(data).fingerprint == imported(data).fingerprint


def test_batch_norm_is_folded_where_it_alone_reads_a_convolution() -> None:
    def norms(x: Tensor, a: nn.Module, b: nn.Module, n: nn.Module, m: nn.Module) -> Tensor:
        alone, shared = a(x), b(x)
        return n(alone) + m(shared) + shared

    layers = {"a": conv(3, 4, 3), "b": conv(3, 4, 3, bias=False)}
    layers |= {"n": nn.BatchNorm2d(4, affine=False), "m": nn.BatchNorm2d(4)}
    module = ready(Lambda(norms, **layers))
    network = imported(pt2(module, (2, 3, 8, 8)))
    assert operators(network).count("aten.batch_norm.default") == 1
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(run_network(network, x), module(x))


@pytest.mark.parametrize("name", ["residual", "batch norm", "three dimensions", "channel shuffle"])
def test_folding_a_network_is_the_same_as_importing_it_folded(name: str) -> None:
    data = made(CASES[name])[1]
    plain, direct = imported(data, fold=False), imported(data)
    folded = fold_batch_norms(plain)
    assert "aten.batch_norm.default" in operators(plain)
    assert "aten.batch_norm.default" not in operators(folded)
    check_stages(folded)
    x = torch.randn(2, *CASES[name].shape[1:])
    assert torch.equal(run_network(folded, x), run_network(direct, x))
    assert fold_batch_norms(direct).fingerprint == direct.fingerprint


def test_folding_is_as_exact_as_rounding_once() -> None:
    module = ready(nn.Sequential(conv(8, 16, 3), nn.BatchNorm2d(16))).double()
    single = imported(pt2(module.float(), (2, 8, 8, 8)))
    weight = single.tensors[single.convolutions[0].weight]
    norm = module[1].double()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    exact = module[0].weight.double() * scale.reshape(-1, 1, 1, 1)
    assert torch.equal(weight, exact.float().detach())


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, 4, 3)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.conv(x)


class ChangingView(Counting):
    def forward(self, x: Tensor) -> Tensor:
        self.count.view(1, 1)[0] += x.mean()
        return self.conv(x) + self.count


def doubtful(x: Tensor, c: nn.Module) -> Tensor:
    y = c(x)
    copied_perhaps = y.transpose(1, 2).reshape(y.shape[0], -1)
    copied_perhaps.relu_()
    return y


def control(x: Tensor, c: nn.Module) -> Tensor:
    return torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (c(x),))


def lower_precision(x: Tensor, c: nn.Module) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return c(x)


REFUSED = {
    "training": (
        lambda: nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4)).train(),
        r"model\.eval\(\)",
    ),
    "dropout": (lambda: nn.Sequential(conv(3, 4, 3), nn.Dropout()).train(), r"model\.eval\(\)"),
    "batch statistics": (
        lambda: nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval(),
        r"track_running_stats=True",
    ),
    "random": (lambda: Lambda(lambda x, c: c(x) + torch.rand(1), c=conv(3, 4, 3)), "random"),
    "counting": (Counting, "changes its own tensor 'count'|its own buffer 'count'"),
    "changing a view": (ChangingView, "changes its own"),
    "no output of an image": (
        lambda: Lambda(lambda x, c: (c(x).sum(), c(x).mean((0, 2, 3))), c=conv(3, 4, 3)),
        "no output has one entry for each image",
    ),
    "no tensor": (lambda: Lambda(lambda x, c: c(x).shape[0], c=conv(3, 4, 3)), "number|returns"),
    "constant": (lambda: Lambda(lambda x, c: c.bias + 1, c=conv(3, 4, 3)), "does not depend"),
    "doubtful view": (lambda: Lambda(doubtful, c=conv(3, 4, 3)), "run_decompositions"),
    "control flow": (lambda: Lambda(control, c=conv(3, 4, 3)), "control flow"),
    "autocast": (lambda: Lambda(lower_precision, c=conv(3, 4, 3)), "autocast"),
}


# Said by PyTorch while it traces torch.cond.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize(("module", "words"), REFUSED.values(), ids=REFUSED)
def test_models_that_cannot_be_run_are_refused_in_words(
    module: Callable[[], nn.Module], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        open_model(pt2(module(), (2, 3, 8, 8)))
    assert len(str(caught.value).splitlines()) == 1
    assert not isinstance(caught.value, UnsafeModelError)


def test_models_of_several_inputs_are_refused_in_words() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    x = torch.zeros(2, 3)
    with pytest.raises(ModelError, match=r"takes 2 inputs: x \(2 × 3, float32\), y \(2 × 3"):
        open_model(saved(torch.export.export(Two(), (x, x))))


def test_settings_beside_the_images_are_allowed() -> None:
    class Optioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(3, 4, 3)

        def forward(self, x: Tensor, double: bool = False, mask: Tensor | None = None) -> Any:
            y = self.conv(x) * (2 if double else 1)
            return {"out": y if mask is None else y * mask}

    module, x = Optioned(), torch.randn(2, 3, 8, 8)
    model = open_model(saved(torch.export.export(module, (x, True), {"mask": None})))
    with torch.no_grad():
        torch.testing.assert_close(run_network(model.network, x), module(x, True)["out"])


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64])
def test_models_of_other_types_are_refused_in_words(dtype: torch.dtype) -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    program = torch.export.export(Same(), (torch.zeros(2, 3, dtype=dtype),))
    with pytest.raises(ModelError, match=str(dtype)):
        open_model(saved(program))


def test_a_name_that_torch_no_longer_has_is_said() -> None:
    data = pt2(nn.Sequential(conv(3, 4, 3), nn.ReLU()), (2, 3, 8, 8))

    def edit(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][-1]["target"] = "torch.ops.aten.relu99.default"

    with pytest.raises(ModelError, match=r"no operator 'aten\.relu99\.default'"):
        open_model(edited(data, GRAPH, edit))
