"""Convolutions in model files with numbers that no network has are refused in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fcdcc.coding.errors import FcdccError
from fcdcc.pipeline import infer, open_model, plan
from support.pt2 import GRAPH, edited, pt2

NUMBERS = [0, -1, 2**31 - 1, 10**9, 2**31, 2**62, 2**63, 10**30]
NAMES = ["stride", "padding", "dilation"]
CASES = [
    (name, number, any_size)
    for name in NAMES
    for number in NUMBERS
    for any_size in (False, True)
    # A convolution without padding is one, and so is one that makes a single pixel.
    if (name, number) != ("padding", 0)
    and not (any_size and name == "stride" and 0 < number < 2**31)
]


def network(name: str, number: int, *, any_size: bool) -> bytes:
    """Return a model file with one convolution, one of whose arguments is replaced."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2, dilation=2), nn.ReLU()).eval()
    axes = {0: torch.export.Dim("n")}
    if any_size:
        axes |= {2: torch.export.Dim("h", min=8), 3: torch.export.Dim("w", min=8)}

    def replace(program: Any) -> None:
        changed = 0
        for node in program["graph_module"]["graph"]["nodes"]:
            for argument in node["inputs"]:
                if argument["name"] == name:
                    argument["arg"] = {"as_ints": [number, number]}
                    changed += 1
        assert changed == 1

    return edited(pt2(module, (2, 3, 16, 16), axes), GRAPH, replace)


@pytest.mark.parametrize(("name", "number", "any_size"), CASES)
def test_absurd_numbers_are_refused(name: str, number: int, any_size: bool) -> None:
    with pytest.raises(FcdccError) as caught:
        plan(open_model(network(name, number, any_size=any_size)), np.zeros((4, 3, 16, 16), "f4"))
    assert "\n" not in str(caught.value)
    assert "cannot be used" not in str(caught.value), "no check has refused it"


@pytest.mark.parametrize("number", [10**9, 2**31 - 1])
def test_a_stride_beyond_the_image_makes_one_pixel_as_in_pytorch(number: int) -> None:
    model = open_model(network("stride", number, any_size=True))
    images = np.random.default_rng(0).random((6, 3, 16, 16), dtype=np.float32)
    weight, bias = (model.network.tensors[name] for name in ("0.weight", "0.bias"))
    with torch.inference_mode():
        expected = functional.conv2d(
            torch.from_numpy(images), weight, bias, stride=number, padding=1, dilation=2
        ).relu()
    for options in ({"split": "images"}, {"split": "rows"}, {"code": "crme"}):
        made = infer(model, images, n=4, tolerate=1, batch=6, **options)
        np.testing.assert_allclose(made.compute(scheduler="synchronous"), expected, atol=1e-5)


@pytest.mark.parametrize("number", [0, -1, 2, 7, 10**9, 2**63])
def test_groups_that_do_not_divide_the_channels_are_refused(number: int) -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU()).eval()

    def replace(program: Any) -> None:
        for node in program["graph_module"]["graph"]["nodes"]:
            for argument in node["inputs"]:
                if argument["name"] == "groups":
                    argument["arg"] = {"as_int": number}

    data = edited(pt2(module, (2, 3, 8, 8)), GRAPH, replace)
    with pytest.raises(FcdccError):
        plan(open_model(data), np.zeros((4, 3, 8, 8), "f4"))
