"""Running glue and networks, and sending networks to other processes."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.model.interpreter import network_shapes, run_network, run_steps
from fcdcc.pipeline.model.network import GlueStage, Ref, Step
from support.pt2 import pt2

X = Ref("x")


def glue(*steps: Step, outputs: tuple[str, ...] | None = None) -> GlueStage:
    return GlueStage(0, ("x",), outputs or (steps[-1].name,), steps)


def step(op: str, *args: Any, name: str = "y", **kwargs: Any) -> Step:
    return Step(name, op, args, kwargs)


def run(stage: GlueStage, x: Tensor, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
    (result,) = run_steps(stage, {"x": x, "other": x}, tensors or {}).values()
    return result


def test_steps_read_values_tensors_and_literals_wherever_they_stand() -> None:
    stage = glue(
        step("aten.cat.default", [X, Ref("w"), X], 1, name="a"),
        step("aten.mul.Tensor", Ref("a"), 2.0, name="b"),
        step("aten.sum.dim_IntList", Ref("b"), [1], True, dtype=torch.float64),
    )
    x, w = torch.randn(2, 3), torch.randn(2, 4)
    found = run(stage, x, {"w": w})
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, (torch.cat([x, w, x], 1) * 2).double().sum(1, keepdim=True))


def test_numbers_pass_from_step_to_step() -> None:
    stage = glue(
        step("aten.sym_size.int", X, 0, name="n"),
        step("operator.mul", Ref("n"), 3, name="m"),
        step("aten.reshape.default", X, [Ref("m"), -1]),
    )
    assert run(stage, torch.zeros(2, 6)).shape == (6, 2)


def test_members_of_lists_can_be_outputs() -> None:
    stage = glue(
        step("aten.split.Tensor", X, 2, 1, name="parts"),
        step("operator.getitem", Ref("parts"), 0, name="left"),
        step("operator.getitem", Ref("parts"), 1, name="right"),
        outputs=("right", "left"),
    )
    x = torch.arange(8.0).reshape(2, 4)
    found = run_steps(stage, {"x": x}, {})
    assert list(found) == ["right", "left"]
    assert torch.equal(found["left"], x[:, :2])


def test_devices_of_the_export_do_not_matter() -> None:
    stage = glue(
        step("aten.full.default", [3], 1.5, name="a", device=torch.device("cuda:3")),
        step("aten.arange.default", 3, name="b"),
        step("aten.add.Tensor", Ref("a"), Ref("b"), name="c"),
        step("aten.add.Tensor", Ref("c"), X),
    )
    assert torch.equal(run(stage, torch.zeros(3)), torch.tensor([1.5, 2.5, 3.5]))
    assert run(stage, torch.zeros(3, device="meta")).device.type == "meta"


class Living(TorchDispatchMode):
    """Counts, at each operation, the results of earlier ones that are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[weakref.ref[Tensor]] = []
        self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Tensor:
        result: Tensor = func(*args, **(kwargs or {}))
        self.results.append(weakref.ref(result))
        self.most = max(self.most, sum(ref() is not None for ref in self.results))
        return result


def test_values_are_freed_once_nobody_reads_them() -> None:
    names = ["x", *(f"v{i}" for i in range(20))]
    steps = [
        step("aten.relu.default", Ref(before), name=after) for before, after in pairwise(names)
    ]
    x = torch.zeros(3)
    with Living() as living:
        run(glue(*steps), x)
    assert len(living.results) == 20
    assert living.most <= 2


def test_networks_free_values_too_and_leave_the_images_alone() -> None:
    module = nn.Sequential(*(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(True)) for _ in range(9)))
    network = open_model(pt2(module.eval(), (2, 2, 4, 4))).network
    x = torch.randn(2, 2, 4, 4)
    kept = x.clone()
    with Living() as living:
        run_network(network, x)
    assert living.most <= 3
    assert torch.equal(x, kept)


def test_a_step_that_cannot_run_says_so_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"aten\.matmul\.default.*\(2, 3\)") as caught:
        run(glue(step("aten.matmul.default", X, X)), torch.zeros(2, 3))
    assert len(str(caught.value).splitlines()) == 1


def test_images_of_the_wrong_shape_are_refused_in_words() -> None:
    network = open_model(pt2(nn.Conv2d(3, 4, 3), (2, 3, 8, 8))).network
    for shape in ((2, 4, 8, 8), (2, 3, 2, 2), (2, 3)):
        with pytest.raises(ModelError, match="convolution"):
            run_network(network, torch.zeros(shape))
        with pytest.raises(ModelError, match="convolution"):
            network_shapes(network, shape)
