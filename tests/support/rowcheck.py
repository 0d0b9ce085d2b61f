"""Checks of the row arithmetic that several test modules share."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

from fcdcc.pipeline.halo import (
    Layout,
    RowLocal,
    Rows,
    StageRows,
    analyse,
    barrier_stage,
    needed,
    plan_rows,
    run_rows,
)
from fcdcc.pipeline.model.interpreter import run_steps
from fcdcc.pipeline.model.network import GlueStage, Ref, Step

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
X = Ref("x")
# What `st.data().draw` and the argument of a composite strategy have in common.
Draw: TypeAlias = Callable[..., Any]


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def stage_of(*steps: Step, inputs: tuple[str, ...] = ("x",)) -> GlueStage:
    return GlueStage(0, inputs, (steps[-1].name,), steps)


def one(op: str, *args: Any, **kwargs: Any) -> GlueStage:
    return stage_of(Step("y", op, args, kwargs))


def layouts_of(
    values: Mapping[str, torch.Tensor], axes: Mapping[str, int | None]
) -> dict[str, Layout]:
    return {
        name: Layout(tuple(value.shape), axes.get(name, 2), value.dtype)
        for name, value in values.items()
    }


def whole_result(
    stage: GlueStage, values: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """The stage's result, or a rejected example where PyTorch refuses it."""
    try:
        return run_steps(stage, values, tensors)[stage.outputs[0]]
    except ValueError:
        assume(False)
        raise


def from_claimed_rows(
    found: StageRows,
    values: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    rows: Rows,
) -> torch.Tensor:
    """Compute rows of the output with nothing at hand but what is claimed."""
    (output,) = found.stage.outputs
    plan = pickle.loads(pickle.dumps(plan_rows(found, {output: rows})))
    barriers = barrier_stage(found)
    behind = {} if barriers is None else run_steps(barriers, values, tensors)
    inputs = {}
    for name, claimed in plan.needs.items():
        value = values[name] if name in values else behind[name]
        if claimed is not None:
            axis = found.layouts[name].axis
            assert axis is not None
            value = value.narrow(axis, claimed.start, claimed.size).clone()
        inputs[name] = value
    kept = {name: value.clone() for name, value in inputs.items()}
    result = run_rows(plan, inputs, tensors)[output]
    for name, value in inputs.items():
        assert torch.equal(value, kept[name]), f"{name} was changed"
    return result


def check_rows(
    stage: GlueStage,
    values: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    data: st.DataObject,
    axes: Mapping[str, int | None] | None = None,
    *,
    exact: bool = False,
) -> StageRows:
    """Compare some rows computed from their claimed inputs with the same rows of the whole."""
    whole = whole_result(stage, values, tensors)
    found = analyse(stage, layouts_of(values, axes or {}), tensors)
    output = found.outputs[stage.outputs[0]]
    assert isinstance(output, RowLocal), output
    layout = found.layouts[stage.outputs[0]]
    assert (layout.shape, layout.dtype) == (tuple(whole.shape), whole.dtype)
    size = whole.shape[output.axis]
    start = data.draw(st.integers(0, size - 1), label="start")
    rows = Rows(start, data.draw(st.integers(start + 1, size), label="stop"))
    expected = whole.narrow(output.axis, rows.start, rows.size)
    got = from_claimed_rows(found, values, tensors, rows)
    if exact:
        assert torch.equal(got, expected)
    else:
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    return found


def check_ends_are_needed(
    found: StageRows, value: torch.Tensor, tensors: Mapping[str, torch.Tensor], data: st.DataObject
) -> None:
    """The first and the last claimed row change the result."""
    (output,) = found.stage.outputs
    size = found.layouts[output].rows
    start = data.draw(st.integers(0, size - 1), label="start")
    rows = Rows(start, data.draw(st.integers(start + 1, size), label="stop"))
    claimed = needed(found, {output: rows})["x"]
    axis, out_axis = found.layouts["x"].axis, found.layouts[output].axis
    assert claimed is not None
    assert axis is not None
    assert out_axis is not None
    plain = run_steps(found.stage, {"x": value}, tensors)[output]
    for row in (claimed.start, claimed.stop - 1):
        changed = value.clone()
        changed.select(axis, row).add_(100.0)
        other = run_steps(found.stage, {"x": changed}, tensors)[output]
        slices = [t.narrow(out_axis, rows.start, rows.size) for t in (plain, other)]
        assert not torch.equal(*slices), f"row {row} of {claimed} is not needed"


def per_axis(draw: Draw, ndim: int, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(ndim)]


@st.composite
def spaces(draw: Draw, ndim: int, low: int = 3, high: int = 11) -> list[int]:
    return [draw(st.integers(low, high)), *(draw(st.integers(4, 6)) for _ in range(ndim - 1))]
