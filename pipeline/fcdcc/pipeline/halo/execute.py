"""Computes some rows of a stage's outputs from the rows that they need, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import RowsError
from ..model.network import Ref, Step
from ..model.operators import bound_arguments, needs_device, resolve, schema
from ..model.rewriting import convert
from .operation import numbered_arguments
from .ranges import Rows
from .row_plan import PlannedStep, RowPlan


def run_rows(
    plan: RowPlan,
    inputs: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    held: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, torch.Tensor]:
    """Compute the rows that a plan is for.

    They equal the same rows of the whole result: bit for bit after pooling, rectifiers, sums,
    normalisation and whatever moves numbers about; within rounding after convolutions, matrix
    products, resampling and exponentials, which PyTorch computes in an order and with
    instructions that depend on where in memory a number lies.

    Parameters
    ----------
    plan
        See :func:`~fcdcc.pipeline.rows.plan_rows`.
    inputs
        For each name in ``plan.needs`` the rows that it says, or the whole value. They are
        not changed, but outputs may share their memory.
    tensors
        The network's tensors by name, on the same device.
    held
        (start, stop) of those inputs that are more rows than the plan needs.

    Returns
    -------
    For each output in ``plan.wanted`` exactly these rows.

    Raises
    ------
    RowsError
        If an input is missing or does not have the rows that it should have.
    """
    run = _StageRun(plan, tensors)
    for name, rows in plan.needs.items():
        if name not in inputs:
            what = "all of it" if rows is None else f"its rows {rows.start} to {rows.stop}"
            raise RowsError(f"{name!r} is missing; expected {what}")
        run.take(name, inputs[name], rows, (held or {}).get(name))
    return run.run()


class _StageRun:
    """The values at hand, and which of their rows they are."""

    def __init__(self, plan: RowPlan, tensors: Mapping[str, torch.Tensor]) -> None:
        self.plan = plan
        self.tensors = tensors
        self.values: dict[str, Any] = {}
        self.starts: dict[str, int] = {}
        self.device = torch.device("cpu")

    def take(
        self, name: str, value: torch.Tensor, rows: Rows | None, held: tuple[int, int] | None
    ) -> None:
        """Accept an input."""
        self.values[name], self.device = value, value.device
        if rows is None:
            return
        has, axis = Rows(*(held or rows)), self.plan.axes[name]
        if axis >= value.ndim or value.shape[axis] != has.size or not rows.within(has):
            raise RowsError(
                f"{name!r} has shape {tuple(value.shape)}, said to be the rows {has.start} to "
                f"{has.stop} along axis {axis}; expected the rows {rows.start} to {rows.stop}"
            )
        self.starts[name] = has.start

    def run(self) -> dict[str, torch.Tensor]:
        """Run all steps and return the wanted rows of the outputs."""
        with torch.no_grad():
            for planned in self.plan.steps:
                name = planned.step.name
                self.values[name] = self._result(planned)
                if planned.rows is not None:
                    self.starts[name] = planned.rows.start
                for dead in planned.dead:
                    self.values.pop(dead, None)
        return {
            name: self._rows(name, self.plan.axes[name], rows)
            for name, rows in self.plan.wanted.items()
        }

    def _result(self, planned: PlannedStep) -> Any:
        step, operation = planned.step, planned.operation

        def leaf(value: Any) -> Any:
            if isinstance(value, Ref):
                axis, rows = planned.needs.get(value.name, (0, None))
                return self._rows(value.name, axis, rows)
            # The device of this run stands in the place of the one of the export.
            return self.device if isinstance(value, torch.device) else value

        if operation is None:
            args, kwargs = convert(step.args, leaf), convert(step.kwargs, leaf)
            if needs_device(step.op):
                kwargs["device"] = self.device
            return resolve(step.op)(*args, **kwargs)
        arguments = convert(_arguments(step), leaf)
        return operation.run(arguments, planned.rows or Rows(0, 1))

    def _rows(self, name: str, axis: int, rows: Rows | None) -> Any:
        """Return some rows of a value, or all that is there of it."""
        value = self.values[name] if name in self.values else self.tensors[name]
        if rows is None:
            return value
        return _narrowed(value, axis, rows.start - self.starts.get(name, 0), rows.size)


def _arguments(step: Step) -> dict[str, Any]:
    return bound_arguments(step) if schema(step.op) else numbered_arguments(step)


def _narrowed(value: Any, axis: int, start: int, size: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value if value.shape[axis] == size else value.narrow(axis, start, size)
    return tuple(_narrowed(item, axis, start, size) for item in value)
