"""Models that take numbers beside the images, which ``--input NAME=VALUE`` fixes."""

from __future__ import annotations

from io import BytesIO

import dask
import numpy as np
import pytest
import torch
from dask._task_spec import Task
from torch import Tensor, nn

from fcdcc.pipeline import JobConfig, open_model
from fcdcc.pipeline.errors import ModelError, OptionError
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.model.interpreter import run_network
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.worker.executable import Executable
from support.erasing import erase, reading
from support.modules import conv, ready
from support.planned import usual_plans

BATCH = torch.export.Dim("batch")


class Weighted(nn.Module):
    """Takes a number of repetitions, a weight, a switch and a setting with a default."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 6, 3, padding=1), conv(6, 4, 3, padding=1)

    def forward(
        self, x: Tensor, weight: Tensor, sharp: Tensor, times: int, power: float = 2.0
    ) -> Tensor:
        x = self.first(x) * weight * times
        x = torch.where(sharp, x.abs(), x)
        return self.second(x) ** power


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return ready(Weighted())


@pytest.fixture(scope="module")
def data(module: nn.Module) -> bytes:
    example = (torch.zeros(2, 3, 9, 8), torch.tensor(1.0), torch.tensor([True]), 3)
    shapes = {"x": {0: BATCH}, "weight": None, "sharp": None, "times": torch.export.Dim.DYNAMIC}
    stored = BytesIO()
    torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), stored)
    return stored.getvalue()


IMAGES = torch.rand(5, 3, 9, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "values",
    [
        {"weight": 0.25, "sharp": True, "times": 2},
        {"weight": "0.25", "sharp": "true", "times": "2"},
        {"weight": -1, "sharp": "0", "times": 5},
    ],
)
def test_numbers_are_those_that_are_given(
    module: nn.Module, data: bytes, values: dict[str, str | float]
) -> None:
    network = open_model(data, inputs=values).network
    assert network.input == "x"
    sharp = torch.tensor([str(values["sharp"]).lower() == "true"])
    with torch.no_grad():
        weight = torch.tensor(float(values["weight"]))
        expected = module(IMAGES, weight, sharp, int(values["times"]))
    torch.testing.assert_close(run_network(network, IMAGES), expected)


def test_with_two_of_six_shares_erased(
    module: nn.Module, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_plans(monkeypatch)
    network = open_model(data, inputs={"weight": 0.5, "sharp": False, "times": 3}).network
    plan = choose_plan(network, (3, 9, 8), PlanOptions.of(split="rows", batch=5))
    assert len(plan.coded_layers) == 2
    block = Block(Executable(network, plan), "numbers", 0, 5, reading(IMAGES))
    graph = build_block(network, plan, block)
    last = Task("prediction", lambda values: values, graph.prediction)
    made = dask.get(erase({**graph.tasks, last.key: last}, 2, 3), last.key)
    with torch.no_grad():
        expected = module(IMAGES, torch.tensor(0.5), torch.tensor([False]), 3).numpy()
    assert np.linalg.norm(made - expected) <= 1e-5 * np.linalg.norm(expected)


def test_other_numbers_are_another_model(data: bytes) -> None:
    def fingerprint(**values: str | float) -> str:
        return open_model(data, inputs=values).fingerprint

    one = fingerprint(weight=0.5, sharp=True, times=3)
    assert one == fingerprint(weight="0.50", sharp="true", times="3")
    assert one != fingerprint(weight=0.75, sharp=True, times=3)
    assert one != fingerprint(weight=0.5, sharp=False, times=3)
    large = 2**60  # as a float it equals the next integer
    assert fingerprint(weight=0.5, sharp=True, times=large) != fingerprint(
        weight=0.5, sharp=True, times=large + 1
    )
    with pytest.raises(ModelError, match="expected one number"):
        fingerprint(weight=10**400, sharp=True, times=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {},
            r"x \(any × 3 × 9 × 8, float32\), weight \(one number, float32\).*--input weight=VALUE",
        ),
        ({"weight": 1, "sharp": 1}, "fix the number with --input times=VALUE"),
        ({"weight": 1, "sharp": 1, "times": 2, "power": 3}, "--input power: .*no such number"),
        ({"x": 1}, "--input x: .*no such number"),
        ({"weight": 1, "sharp": 1, "times": "2.5"}, r"times=2.5: expected one number, int64"),
        ({"weight": 1, "sharp": 2, "times": 2}, "sharp=2: expected one number, bool"),
        ({"weight": "much", "sharp": 1, "times": 2}, "weight=much: expected one number, float32"),
        ({"weight": "nan", "sharp": 1, "times": 2}, "weight=nan: expected"),
    ],
)
def test_what_cannot_be_fixed_is_refused_by_its_name(
    data: bytes, values: dict[str, str | float], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        open_model(data, inputs=values)
    assert len(str(caught.value).splitlines()) == 1


def test_the_option_is_a_name_and_a_value() -> None:
    places = {"model": "model.pt2", "input": "images.zarr", "output": "out.zarr"}
    job = JobConfig.model_validate({**places, "inputs": ["weight=0.5", "times=3"]})
    assert job.fixed_inputs == {"weight": "0.5", "times": "3"}
    for wrong in ("weight", "=3", "weight="):
        with pytest.raises(OptionError, match="NAME=VALUE"):
            JobConfig.of(**places, inputs=[wrong])
    with pytest.raises(OptionError, match=r"--input.*two values"):
        JobConfig.of(**places, inputs=["weight=1", "weight=2"])
