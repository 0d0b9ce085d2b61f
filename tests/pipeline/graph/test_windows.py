"""Convolutions over windows of images, which a network puts beside each other in the batch."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import torch
from dask._task_spec import Task
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fcdcc.pipeline import Plan
from fcdcc.pipeline.graph import Block, build_block, build_retry
from fcdcc.pipeline.model import open_model
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.worker.executable import Executable
from support.erasing import erase, reading
from support.modules import conv, ready
from support.planned import usual_plans
from support.pt2 import pt2

SHAPE = (3, 16, 8)
IMAGES = 5


class Windows(nn.Module):
    """Convolutions over the four quarters of each image, and over groups of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 4, 3, padding=1), conv(4, 6, 3, padding=1)
        self.third, self.last = conv(3, 3, 3, padding=1), conv(6, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        n, c, rows, columns = x.shape
        x = x.reshape(n, c, 2, rows // 2, 2, columns // 2).permute(0, 2, 4, 1, 3, 5)
        x = torch.relu(self.second(x.reshape(n * 4, c, rows // 2, columns // 2)))
        x = x.reshape(n, 2, 2, 6, rows // 2, columns // 2).permute(0, 3, 1, 4, 2, 5)
        x = self.third(x.reshape(n * 2, 3, rows, columns)).reshape(n, 6, rows, columns)
        return self.last(torch.relu(x)).mean((2, 3))


FORMS: dict[str, dict[str, Any]] = {
    "runs of images": {"split": "images", "redundancy": "standby"},
    "checked runs of images": {"split": "images", "verify": "all"},
    "strips": {"split": "rows", "redundancy": "standby"},
    "gathered": {"code": "crme", "redundancy": "eager"},
}


@pytest.mark.parametrize("form", FORMS)
def test_windows_are_coded_and_decoded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual_plans(monkeypatch)
    module = ready(Windows())
    images = torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = module(images).numpy()
    network = open_model(pt2(module, (2, *SHAPE))).network
    plan = choose_plan(network, SHAPE, PlanOptions.of(n=6, batch=IMAGES, **FORMS[form]))
    assert Plan.from_json(plan.to_json()) == plan
    assert len(plan.coded_layers) >= (2 if form == "strips" else 4)
    block = Block(Executable(network, plan), "w", 0, IMAGES, reading(images))
    graph = build_block(network, plan, block)
    careful = build_retry(network, plan, block, None, "recheck", 1)
    for made, erased in ((graph, 0), (graph, 2), (careful, 0)):
        last = Task("prediction", lambda values: values, made.prediction)
        found = dask.get(erase({**made.tasks, last.key: last}, erased, 7), last.key)
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_the_work_of_all_windows_counts() -> None:
    module = ready(Windows())
    with FlopCounterMode(display=False) as counted:
        module(torch.zeros(1, *SHAPE))
    network = open_model(pt2(module, (2, *SHAPE))).network
    plan = choose_plan(network, SHAPE, PlanOptions.of(n=6, tolerate=2))
    assert plan.multiply_adds == counted.get_total_flops() // 2
