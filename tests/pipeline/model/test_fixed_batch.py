"""Models that were exported for a fixed number of images run with any number, image by image."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import dask
import numpy as np
import pytest
import torch
from dask._task_spec import Task
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import zoo
from fcdcc.pipeline import infer, open_model
from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.model.interpreter import run_network
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.worker.executable import Executable
from support.erasing import erase, reading
from support.modules import Lambda, Residual, conv, ready
from support.planned import usual_plans
from support.pt2 import pt2


class Patches(nn.Module):
    """A small vision transformer: patches, a class token, attention, windows of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = conv(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        n, c, rows, columns = x.shape
        windows = x.view(n, c, rows // 2, 2, columns // 2, 2).permute(0, 2, 4, 3, 5, 1)
        windows = windows.reshape(-1, 4, c).softmax(1).view(n, rows // 2, columns // 2, 2, 2, c)
        x = windows.permute(0, 5, 1, 3, 2, 4).reshape(n, c, rows * columns).transpose(1, 2)
        x = torch.cat([self.token.expand(n, -1, -1), x], 1)
        return self.head(self.layer(x)[:, 0])


def recurrent(x: Tensor, first: nn.Module, rows: nn.Module, head: nn.Module) -> Tensor:
    x = first(x).mean(3).transpose(1, 2)
    return head(rows(x)[0][:, -1])


def squeezed(x: Tensor, first: nn.Module, head: nn.Module) -> Tensor:
    """Drops the axis of the batch, which only a batch of one has."""
    return head(functional.relu(first(x)).squeeze(0).mean((1, 2))).unsqueeze(0)


def by_its_largest(x: Tensor, first: nn.Module, head: nn.Module) -> Tensor:
    x = first(x)
    return head((x / x.max()).mean((2, 3)))


def shuffled(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    n, _, rows, columns = x.shape
    x = first(x).view(n, 2, 2, rows, columns).transpose(1, 2).reshape(n, 4, rows, columns)
    return second(x)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: nn.Sequential(conv(3, 4, 1), Residual()),
    "patches": Patches,
    "recurrent": lambda: Lambda(
        recurrent, first=conv(3, 6, 3), rows=nn.LSTM(6, 7, batch_first=True), head=nn.Linear(7, 5)
    ),
    "channel shuffle": lambda: Lambda(
        shuffled, first=conv(3, 4, 3, padding=1), second=conv(4, 2, 3, padding="same")
    ),
}
ONE_AT_A_TIME: dict[str, Callable[[], nn.Module]] = {
    "squeezed": lambda: Lambda(squeezed, first=conv(3, 4, 3), head=nn.Linear(4, 5)),
    "by its largest": lambda: Lambda(by_its_largest, first=conv(3, 4, 3), head=nn.Linear(4, 5)),
}


@dataclass(frozen=True)
class Case:
    module: nn.Module
    network: Network
    images: Tensor
    expected: NDArray[np.float32]


def case(make: Callable[[], nn.Module], batch: int, images: int = 7) -> Case:
    torch.manual_seed(batch)
    module = ready(make())
    x = torch.rand(images, 3, 16, 16)
    with torch.no_grad():
        expected = torch.cat([module(image[None]) for image in x]).numpy()
    return Case(module, open_model(pt2(module, (batch, 3, 16, 16), False)).network, x, expected)


def assert_close(made: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert made.shape == expected.shape
    assert np.linalg.norm(made - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("name", MODULES)
def test_any_number_of_images_is_computed_image_by_image(name: str, batch: int) -> None:
    found = case(MODULES[name], batch)
    assert found.network.input_shape[0] is None
    for count in (7, 1):
        made = run_network(found.network, found.images[:count])
        assert_close(made.numpy(), found.expected[:count])


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", ["residual", "patches", "channel shuffle"])
def test_convolutions_stay_coded(name: str, batch: int) -> None:
    network = case(MODULES[name], batch).network
    assert network.fixed_batch is None
    assert network.convolutions


@pytest.mark.parametrize("name", ["lenet", "resnet", "shuffl"])
def test_networks_of_the_zoo_are_those_of_a_free_batch(name: str) -> None:
    entry = next(entry for key, entry in zoo.ZOO.items() if key.startswith(name))
    module = zoo.build(entry)
    free, fixed = (
        open_model(pt2(module, (4, *entry.input_shape), dynamic)).network
        for dynamic in (True, False)
    )
    assert len(fixed.convolutions) == len(free.convolutions)
    x = zoo.images(entry, 3)
    torch.testing.assert_close(run_network(fixed, x), run_network(free, x))


@pytest.mark.parametrize("split", ["rows", "images"])
@pytest.mark.parametrize(
    ("name", "batch"), [("residual", 4), ("patches", 1), ("recurrent", 4), ("squeezed", 1)]
)
def test_with_two_of_six_shares_erased(
    name: str, batch: int, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_plans(monkeypatch)
    found = case((MODULES | ONE_AT_A_TIME)[name], batch)
    options = PlanOptions.of(split=split, batch=7)
    plan = choose_plan(found.network, (3, 16, 16), options)
    assert plan.batch == 7
    block = Block(Executable(found.network, plan), "fixed", 0, 7, reading(found.images))
    graph = build_block(found.network, plan, block)
    last = Task("prediction", lambda values: values, graph.prediction)
    for erased in (0, 2):
        made = dask.get(erase({**graph.tasks, last.key: last}, erased, 3), last.key)
        assert_close(made, found.expected)


@pytest.mark.parametrize("name", ONE_AT_A_TIME)
def test_a_batch_of_one_may_do_as_it_likes_and_the_plan_says_what_that_costs(name: str) -> None:
    found = case(ONE_AT_A_TIME[name], 1)
    plan = choose_plan(found.network, (3, 16, 16), PlanOptions())
    assert plan.batch > 1
    assert_close(run_network(found.network, found.images).numpy(), found.expected)
    (warning,) = plan.warnings
    assert "exported for batches of 1" in warning
    assert "none of its 1 convolutions is coded" in warning
    assert "dynamic_shapes={'x': {0: torch.export.Dim(\"batch\")}}" in warning
    assert "fcdcc export" in warning
    assert "\n" not in warning
    assert plan.forecast is not None
    assert plan.forecast.block_multiply_adds == plan.batch * (14 * 14) * 4 * (3 * 3 * 3)


def test_a_fixed_batch_of_more_that_mixes_images_is_refused() -> None:
    with pytest.raises(ModelError, match="one by one"):
        case(ONE_AT_A_TIME["by its largest"], 2)


def test_the_line_that_the_warning_gives_exports_a_free_batch() -> None:
    module = ready(MODULES["patches"]())
    shapes = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(module, (torch.zeros(4, 3, 16, 16),), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    assert open_model(buffer.getvalue()).network.fixed_batch is None


def test_answers_do_not_depend_on_the_blocks() -> None:
    found = case(ONE_AT_A_TIME["squeezed"], 1)
    model = open_model(pt2(found.module, (1, 3, 16, 16), False))
    for batch in (1, 3, 7):
        with pytest.warns(UserWarning, match="exported for batches of 1"):
            made = infer(model, found.images.numpy(), batch=batch)
        assert made.chunks[0][0] == batch
        assert_close(made.compute().values, found.expected)


def test_a_fixed_batch_of_images_of_any_size() -> None:
    module = ready(nn.Sequential(conv(3, 4, 3, padding=1), nn.ReLU(), conv(4, 2, 1)))
    free = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    network = open_model(pt2(module, (1, 3, 32, 32), free)).network
    x = torch.rand(3, 3, 20, 24)
    assert network.fixed_batch is None
    with torch.no_grad():
        torch.testing.assert_close(run_network(network, x), module(x))
