"""Files that record other shapes or types of values than they have are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from support.pt2 import GRAPH, edited, pt2


@pytest.fixture(scope="module")
def plain() -> bytes:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    return pt2(module.eval(), (2, 3, 8, 8))


def other_size(meta: Any) -> None:
    meta["sizes"][1] = {"as_int": 5}


def other_batch(meta: Any) -> None:
    text = meta["sizes"][0]["as_expr"]["expr_str"]
    meta["sizes"][0]["as_expr"]["expr_str"] = f"2*{text}"


def fixed_batch(meta: Any) -> None:
    meta["sizes"][0] = {"as_int": 2}


def more_axes(meta: Any) -> None:
    meta["sizes"].append({"as_int": 1})


def other_type(meta: Any) -> None:
    meta["dtype"] = 8


@pytest.mark.parametrize("change", [other_size, other_batch, fixed_batch, more_axes, other_type])
@pytest.mark.parametrize("name", ["relu", "linear"])
def test_what_a_file_records_is_compared(plain: bytes, change: Any, name: str) -> None:
    def edit(program: Any) -> None:
        change(program["graph_module"]["graph"]["tensor_values"][name])

    with pytest.raises(ModelError, match=f"records the shape .* for %{name}"):
        open_model(edited(plain, GRAPH, edit))
