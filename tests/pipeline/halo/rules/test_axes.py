"""Operators that move, join, split and reduce axes: any rows of the result, and why there are none.

The input is (2, 3, 6, 5), its rows along axis 2.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fcdcc.pipeline.halo import RowLocal, Rows, analyse
from fcdcc.pipeline.model.interpreter import run_steps
from fcdcc.pipeline.model.network import GlueStage, Ref, Step
from support.rowcheck import X, from_claimed_rows, layouts_of, one, random_tensor, stage_of

SHAPE = (2, 3, 6, 5)

LOCAL: dict[str, tuple[Any, ...]] = {
    "permute": ("aten.permute.default", X, [0, 2, 3, 1]),
    "transpose": ("aten.transpose.int", X, 1, 2),
    "swapaxes": ("aten.swapaxes.default", X, 1, -1),
    "movedim of one": ("aten.movedim.int", X, 2, 0),
    "movedim of two": ("aten.movedim.intlist", X, [1, 2], [3, 1]),
    "unsqueeze before": ("aten.unsqueeze.default", X, 1),
    "unsqueeze behind": ("aten.unsqueeze.default", X, -1),
    "expand": ("aten.expand.default", X, [4, 2, 3, 6, 5]),
    "repeat": ("aten.repeat.default", X, [2, 1, 1, 2]),
    "flatten": ("aten.flatten.using_ints", X, 0, 1),
    "unflatten": ("aten.unflatten.int", X, 3, [5, 1]),
    "mean": ("aten.mean.dim", X, [1, 3], True),
    "sum": ("aten.sum.dim_IntList", X, [1]),
    "flip": ("aten.flip.default", X, [1, 3]),
    "select": ("aten.select.int", X, 1, -1),
    "index_select": ("aten.index_select.default", X, 3, Ref("order")),
    "index": ("aten.index.Tensor", X, [None, Ref("channels")]),
    "softmax": ("aten.softmax.int", X, 1),
    "channel shuffle": ("aten.channel_shuffle.default", X, 3),
    "linear": ("aten.linear.default", X, Ref("weight")),
    "matmul": ("aten.matmul.default", X, Ref("matrix")),
    "prelu": ("aten.prelu.default", X, Ref("slopes")),
    "layer norm": ("aten.layer_norm.default", X, [5]),
}

NOT_LOCAL: dict[str, tuple[str, tuple[Any, ...]]] = {
    "squeeze of all": ("drops whatever axis has one entry", ("aten.squeeze.default", X)),
    "squeeze of the rows": ("drops the row axis", ("aten.squeeze.dim", X, 2)),
    "repeated rows": ("repeats the rows", ("aten.repeat.default", X, [1, 1, 2, 1])),
    "rows that are joined": (
        "joins the rows with other axes", ("aten.flatten.using_ints", X, 1, 2),
    ),
    "rows that are split": ("splits the row axis", ("aten.unflatten.int", X, 2, [2, 3])),
    "mean over all": ("reduces over all axes", ("aten.mean.default", X)),
    "mean over rows": ("a mean over all rows", ("aten.mean.dim", X, [2, 3])),
    "flipped rows": ("works along the rows", ("aten.flip.default", X, [2])),
    "one row": ("takes single rows", ("aten.select.int", X, 2, 0)),
    "picked rows": ("picks rows", ("aten.index.Tensor", X, [None, None, Ref("channels")])),
    "softmax": ("works along the rows", ("aten.softmax.int", X, 2)),
    "layer norm": ("normalises over the rows", ("aten.layer_norm.default", X, [6, 5])),
}  # fmt: skip


def tensors() -> dict[str, torch.Tensor]:
    return {
        "order": torch.tensor([4, 0, 2]),
        "channels": torch.tensor([2, 0]),
        "weight": random_tensor(4, 5),
        "matrix": random_tensor(5, 2),
        "slopes": random_tensor(3),
    }


def check_all_rows(stage: GlueStage) -> None:
    """Compare every range of rows with the same rows of the whole result."""
    x, known = random_tensor(*SHAPE), tensors()
    whole = run_steps(stage, {"x": x}, known)[stage.outputs[0]]
    found = analyse(stage, layouts_of({"x": x}, {"x": 2}), known)
    output = found.outputs[stage.outputs[0]]
    assert isinstance(output, RowLocal), output
    size = whole.shape[output.axis]
    for start in range(size):
        for stop in range(start + 1, size + 1):
            made = from_claimed_rows(found, {"x": x}, known, Rows(start, stop))
            expected = whole.narrow(output.axis, start, stop - start)
            torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LOCAL)
def test_any_rows_are_computed_from_the_claimed_ones(name: str) -> None:
    op, *arguments = LOCAL[name]
    check_all_rows(one(op, *arguments))


def test_several_results_and_what_is_made_of_them() -> None:
    halves = Step("halves", "aten.split.Tensor", (X, 3, 3), {})
    first, second = (
        Step(name, "operator.getitem", (Ref("halves"), index), {})
        for index, name in enumerate(["first", "second"])
    )
    joined = Step("joined", "aten.cat.default", ([Ref("second"), Ref("first")], 3), {})
    check_all_rows(stage_of(halves, first, second, joined))
    stacked = Step("stacked", "aten.stack.default", ([X, X], 1), {})
    check_all_rows(stage_of(stacked))


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_what_needs_more_than_its_rows_says_why(name: str) -> None:
    reason, (op, *arguments) = NOT_LOCAL[name]
    x = random_tensor(*SHAPE)
    stage = one(op, *arguments)
    found = analyse(stage, layouts_of({"x": x}, {"x": 2}), tensors())
    output = found.outputs[stage.outputs[0]]
    assert not isinstance(output, RowLocal)
    assert reason in output.reason
