"""Blocks of networks with several outputs, with two of six shares of every group missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from dask import local
from dask._task_spec import Task
from torch import nn

from fcdcc.pipeline import infer
from fcdcc.pipeline.graph import Block, build_block, build_retry
from fcdcc.pipeline.model import open_model
from fcdcc.pipeline.model.interpreter import run_outputs
from fcdcc.pipeline.model.output_bundle import bundle
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.worker.executable import Executable
from support.erasing import erase, reading
from support.modules import ready
from support.planned import usual_plans
from support.pt2 import pt2
from support.several_outputs import Segmenter, segmenter, two_heads

SHAPE = (3, 16, 16)
IMAGES = 5

FORMS: Mapping[str, dict[str, Any]] = {
    "strips": {"split": "rows", "redundancy": "standby"},
    "gathered": {"code": "crme", "redundancy": "eager"},
    "images": {"split": "images", "batch": 8, "redundancy": "standby"},
}


@pytest.mark.parametrize("erased", [0, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [segmenter, two_heads])
def test_all_outputs_agree_with_pytorch(
    make: Callable[[], nn.Module], form: str, erased: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make()
    network = open_model(pt2(module, (2, *SHAPE))).network
    images = torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        returned = module(images)
    expected = list(returned.values() if isinstance(returned, dict) else returned)
    usual_plans(monkeypatch)
    plan = choose_plan(network, SHAPE, PlanOptions.of(n=6, tolerate=2, **FORMS[form]))
    assert plan.coded_layers
    block = Block(Executable(network, plan), "t", 0, IMAGES, reading(images))
    graphs = [build_block(network, plan, block)]
    if erased == 0:
        graphs.append(build_retry(network, plan, block, None, "uncoded", 1))
    for graph in graphs:
        last = Task("prediction", lambda values: values, graph.prediction)
        made: Any = local.get_sync(erase({**graph.tasks, last.key: last}, erased, 7), last.key)
        assert made.shape == bundle(*expected).shape
        found = split_up(made, expected)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    whole = run_outputs(network, images)
    for one, other in zip(whole.values(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class ByItsLargest(Segmenter):
    """Two outputs that depend on the largest value of a batch, so that it must be of one image."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().forward(x / x.max())


def test_in_a_loop_over_the_batch_of_the_export() -> None:
    module = ready(ByItsLargest())
    model = open_model(pt2(module, (1, *SHAPE), False))
    assert model.network.fixed_batch is not None
    images = torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(4))
    with pytest.warns(UserWarning, match="none of its 6 convolutions is coded"):
        made = infer(model, images.numpy(), batch=3)
    assert list(made) == ["out", "aux"]
    with torch.inference_mode():
        expected = [module(image[None]) for image in images]
    for name in made:
        whole = torch.cat([one[name] for one in expected])
        found = torch.from_numpy(made[name].values)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)


def test_in_bfloat16() -> None:
    module = segmenter()
    images = torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(4))
    made = infer(open_model(pt2(module, (2, *SHAPE))), images.numpy(), dtype="bfloat16", batch=3)
    with torch.inference_mode():
        exact = module(images)
        expected = module.bfloat16()(images.bfloat16())
    for name in made:
        found = torch.from_numpy(made[name].values)
        assert found.dtype == torch.float32
        assert 0 < (found - exact[name]).norm() <= 0.02 * exact[name].norm()
        assert (found - expected[name].float()).norm() <= 0.01 * exact[name].norm()


def split_up(made: Any, like: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the parts of a bundle, by what PyTorch says of bytes."""
    rest = torch.as_tensor(made)
    parts = []
    for one in like:
        size = one[0].numel() * one.element_size()
        parts.append(rest[:, :size].contiguous().view(one.dtype).reshape(one.shape))
        rest = rest[:, size:]
    assert rest.shape[1] == 0
    return parts
