"""Plans the rows of each value that some output rows of a stage need, and computes them.

Planning goes backwards: every step requests the rows of its sources that it needs. If several
steps request rows of the same value, all rows from the first to the last of them are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..errors import RowsError
from ..model.interpreter import StepCheck
from ..model.network import GlueStage, Ref, Step
from ..model.operators import bound_arguments, needs_device, resolve, schema
from ..model.rewriting import convert
from .operation import RowOperation, numbered_arguments
from .ranges import Rows, hull
from .stage_rows import Barrier, RowLocal, StageRows


@dataclass(frozen=True)
class PlannedStep:
    """A step, and the rows of its result that are computed.

    Parameters
    ----------
    step
        The step.
    operation
        Its row operation, if it works on rows.
    rows
        The rows to compute; None for a value without rows.
    needs
        For each source its row axis and the rows that it reads; None if any rows will do.
    dead
        Values that no later step reads.
    """

    step: Step
    operation: RowOperation | None
    rows: Rows | None
    needs: Mapping[str, tuple[int, Rows | None]]
    dead: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowPlan:
    """How to compute some rows of some outputs: a value that is sent to a worker.

    Parameters
    ----------
    needs
        The rows of each input that are needed; None for a value that is needed whole (an input
        without rows, or the result of a barrier).
    wanted
        The rows of each output that are computed.
    axes
        The row axis of each input that has one, and of each wanted output.
    steps
        The steps, in the order in which they run.
    """

    needs: Mapping[str, Rows | None]
    wanted: Mapping[str, Rows]
    axes: Mapping[str, int] = field(repr=False)
    steps: tuple[PlannedStep, ...] = field(repr=False)


def plan_rows(found: StageRows, wanted: Mapping[str, tuple[int, int]]) -> RowPlan:
    """Return how to compute some rows of some outputs.

    Parameters
    ----------
    found
        The stage, analysed.
    wanted
        (start, stop) of each output that is wanted, one row or more.

    Raises
    ------
    RowsError
        If an output is not local to rows, or does not have these rows.
    """
    rows = {name: _checked(found, name, Rows(*asked)) for name, asked in wanted.items()}
    return _Planner(found).plan(rows)


def needed(found: StageRows, wanted: Mapping[str, tuple[int, int]]) -> dict[str, Rows | None]:
    """Return the rows of each input that some rows of some outputs need.

    Parameters
    ----------
    found, wanted
        See :func:`plan_rows`, which also raises what this raises.

    Returns
    -------
    (start, stop) for inputs with rows, within the input: padding is not counted. None for
    values that are needed whole: inputs without rows, and results of barriers. Inputs that are
    not needed are left out.

    The first and the last row of a range are needed, with these exceptions: one row is
    claimed if a range is computed from padding alone, or if only its batch size is read; a
    window of dilation d at a border may claim d − 1 rows too many there; and if several steps
    read ranges of one value that do not touch, all rows between them are claimed.
    """
    return dict(plan_rows(found, wanted).needs)


def barrier_stage(found: StageRows, names: Iterable[str] | None = None) -> GlueStage | None:
    """Return the part of a stage that computes what local outputs need whole.

    Parameters
    ----------
    found
        The stage, analysed.
    names
        Values to compute; all that local outputs require (:attr:`RowLocal.requires`) by default.

    Returns
    -------
    A stage with these values as outputs, to be run on gathered inputs. None if there are no
    such values.
    """
    if names is None:
        outputs = found.outputs.values()
        names = [name for o in outputs if isinstance(o, RowLocal) for name in o.requires]
    targets = tuple(dict.fromkeys(names))
    if not targets:
        return None
    live = set(targets)
    kept = []
    for step in reversed(found.stage.steps):
        if step.name in live:
            live.update(step.references)
            kept.append(step)
    inputs = tuple(name for name in found.stage.inputs if name in live)
    return replace(found.stage, inputs=inputs, outputs=targets, steps=tuple(kept[::-1]))


def _checked(found: StageRows, name: str, rows: Rows) -> Rows:
    output = found.outputs.get(name)
    if not isinstance(output, RowLocal):
        why = f": {output}" if isinstance(output, Barrier) else ""
        local = [n for n, o in found.outputs.items() if isinstance(o, RowLocal)]
        raise RowsError(
            f"rows of {name!r} were asked for, which is not local to rows{why}; expected one of "
            f"{local}: gather the inputs and run the stage whole"
        )
    size = found.layouts[name].rows
    if not 0 <= rows.start < rows.stop <= size:
        raise RowsError(
            f"rows {rows.start} to {rows.stop} of {name!r}, which has {size}; expected "
            f"0 <= start < stop <= {size}"
        )
    return rows


class _Planner:
    def __init__(self, found: StageRows) -> None:
        self.found = found
        self.values = {*found.stage.inputs, *(step.name for step in found.stage.steps)}
        # The requested rows of each value; None if it is read whole or any rows will do.
        self.requested: dict[str, Rows | None] = {}

    def plan(self, wanted: dict[str, Rows]) -> RowPlan:
        self.requested = dict(wanted)
        planned = [
            self._step(step)
            for step in reversed(self.found.stage.steps)
            if step.name in self.requested and step.name not in self.found.given
        ][::-1]
        made = {step.step.name for step in planned}
        axes: dict[str, int] = {}
        needs: dict[str, Rows | None] = {}
        for name, rows in self.requested.items():
            layout = self.found.layouts.get(name)
            axis = None if layout is None else layout.axis
            if axis is not None and (name in wanted or name not in made):
                axes[name] = axis
            if name not in made:
                needs[name] = None if axis is None else rows or Rows(0, 1)
        return RowPlan(needs, wanted, axes, _with_dead(planned, wanted))

    def _step(self, step: Step) -> PlannedStep:
        """Return the step with the rows requested of it, and request the rows that it needs."""
        operation = self.found.operations.get(step.name)
        rows = self.requested[step.name]
        needs: dict[str, tuple[int, Rows | None]] = {}
        if operation is not None:
            wanted = rows or Rows(0, 1)
            rows = None if operation.makes_number else wanted
            for source, needed_rows in zip(operation.sources, operation.needs(wanted), strict=True):
                needs[source.name] = (source.axis, needed_rows)
                if not source.whole:
                    self._request(source.name, needed_rows)
        for name in step.references:
            if name in self.values:
                self.requested.setdefault(name, None)
        return PlannedStep(step, operation, rows, needs)

    def _request(self, name: str, rows: Rows | None) -> None:
        before = self.requested.get(name)
        self.requested[name] = hull(before, rows) if before and rows else rows or before


def _with_dead(steps: list[PlannedStep], wanted: Mapping[str, Rows]) -> tuple[PlannedStep, ...]:
    last = {n: i for i, step in enumerate(steps) for n in (step.step.name, *step.step.references)}
    dead: list[list[str]] = [[] for _ in steps]
    for name, index in last.items():
        if name not in wanted:
            dead[index].append(name)
    return tuple(replace(step, dead=tuple(names)) for step, names in zip(steps, dead, strict=True))


def run_rows(
    plan: RowPlan,
    inputs: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    held: Mapping[str, tuple[int, int]] | None = None,
    checks: StepCheck | None = None,
) -> dict[str, torch.Tensor]:
    """Compute the rows that a plan describes.

    They equal the same rows of the whole result: bit for bit after pooling, rectifiers, sums,
    normalisation and operators that only move numbers; within rounding after convolutions,
    matrix products, resampling and exponentials, where the order of operations and the
    instructions that PyTorch chooses depend on the position of a number in memory.

    Parameters
    ----------
    plan
        See :func:`plan_rows`.
    inputs
        For each name in ``plan.needs`` these rows, or the whole value. They are not changed,
        but outputs may share their memory.
    tensors
        The network's tensors by name, on the same device.
    held
        (start, stop) of the inputs that have more rows than the plan needs.
    checks
        Looks at every result.

    Returns
    -------
    For each output in ``plan.wanted`` exactly these rows.

    Raises
    ------
    RowsError
        If an input is missing or does not have the planned rows.
    """
    run = _StageRun(plan, tensors, checks)
    for name, rows in plan.needs.items():
        if name not in inputs:
            what = "all of it" if rows is None else f"its rows {rows.start} to {rows.stop}"
            raise RowsError(f"{name!r} is missing; expected {what}")
        run.take(name, inputs[name], rows, (held or {}).get(name))
    return run.run()


class _StageRun:
    """The values computed so far, and the first row of each."""

    def __init__(
        self, plan: RowPlan, tensors: Mapping[str, torch.Tensor], checks: StepCheck | None
    ) -> None:
        self.plan = plan
        self.tensors = tensors
        self.checks = checks
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
            # Values are on the device of this run, not on that of the export.
            return self.device if isinstance(value, torch.device) else value

        if operation is None:
            args, kwargs = convert(step.args, leaf), convert(step.kwargs, leaf)
            if needs_device(step.op):
                kwargs["device"] = self.device
            made = resolve(step.op)(*args, **kwargs)
        else:
            arguments = convert(_arguments(step), leaf)
            made = operation.run(arguments, planned.rows or Rows(0, 1))
        if self.checks is not None:
            first = leaf(step.args[0]) if step.args else None
            self.checks.step(step, first, made, is_part=operation is not None)
        return made

    def _rows(self, name: str, axis: int, rows: Rows | None) -> Any:
        """Return some rows of a value, or all its rows that are present."""
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
