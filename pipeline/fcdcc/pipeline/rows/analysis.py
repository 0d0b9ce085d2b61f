"""Which steps of a stage work on ranges of rows, and which need all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from ..errors import RowsError
from ..network import GlueStage, Ref, Step
from ..operators import bound_arguments, needs_device, resolve, schema
from ..rewriting import convert, substitute
from . import axes, convolutions, edges, pointwise, resampling, windows
from .operations import Call, NotLocalError, Operand, RowOperation, Rule, numbered_arguments

__all__ = ["Barrier", "Layout", "OutputRows", "RowLocal", "StageRows", "Whole", "analyse"]

_RULES: dict[str, Rule] = {
    **pointwise.RULES,
    **axes.RULES,
    **windows.RULES,
    **convolutions.RULES,
    **resampling.RULES,
    **edges.RULES,
}


@dataclass(frozen=True)
class Layout:
    r"""A value as the row arithmetic sees it.

    Parameters
    ----------
    shape
        Of the whole value, for some batch size. With a batch of 1 a reshape may look as if
        it kept the rows when it does not; then running it says so. A batch of 2 is surer.
    axis
        Which axis is the rows: 2 for (N, C, \*space). None for a value that every worker
        holds whole, such as the weights of a squeeze-excitation block.
    dtype
        Of its numbers: resampling rounds places in it.
    """

    shape: tuple[int, ...]
    axis: int | None = 2
    dtype: torch.dtype = torch.float32

    @property
    def rows(self) -> int:
        """How many rows it has; a value without rows has none."""
        return 0 if self.axis is None else self.shape[self.axis]


@dataclass(frozen=True)
class RowLocal:
    """An output of which any rows can be computed from some rows of the inputs.

    Parameters
    ----------
    axis
        Its row axis.
    requires
        Results of barriers that go into it whole, computed by
        :func:`~fcdcc.pipeline.rows.barrier_stage`.
    """

    axis: int
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Barrier:
    """An output that needs all rows of an input.

    Parameters
    ----------
    step
        The value at which the rows end.
    op
        The operator that makes it.
    reason
        Why, in words.
    """

    step: str
    op: str
    reason: str

    def __str__(self) -> str:
        return f"%{self.step} ({self.op}): {self.reason}"


@dataclass(frozen=True)
class Whole:
    """An output that is computed from values without rows alone."""


OutputRows: TypeAlias = RowLocal | Barrier | Whole


@dataclass(frozen=True)
class StageRows:
    """What :func:`analyse` found out about a stage.

    Parameters
    ----------
    stage
        The stage.
    layouts
        Of the inputs and of all values that the stage makes, where they are tensors of known
        shape. The axis is None for what is held whole.
    outputs
        What each output is.
    barriers
        The steps at which rows end, in order; empty if all outputs are local to rows.
    operations
        How each step that is local to rows works.
    behind
        The values that come after a barrier and have no rows themselves.
    """

    stage: GlueStage
    layouts: Mapping[str, Layout]
    outputs: Mapping[str, OutputRows]
    barriers: tuple[Barrier, ...]
    operations: Mapping[str, RowOperation] = field(repr=False)
    behind: frozenset[str] = field(repr=False)

    @property
    def local(self) -> bool:
        """Whether all outputs are local to rows, with no barrier anywhere."""
        return not self.barriers


def analyse(
    stage: GlueStage, inputs: Mapping[str, Layout], tensors: Mapping[str, torch.Tensor]
) -> StageRows:
    """Find out which outputs of a stage can be computed row by row.

    Nothing is computed: shapes are those of PyTorch's own meta device. A step that is not
    known here needs all rows of what it reads.

    Parameters
    ----------
    stage
        Glue between convolutions.
    inputs
        The layout of each of the stage's inputs.
    tensors
        The network's tensors; only their shapes matter.

    Raises
    ------
    RowsError
        If an input has no layout, or one whose row axis does not exist.
    """
    return _Analysis(stage, inputs, tensors).run()


class _Unknown:
    """A value whose shape could not be found out."""


_UNKNOWN = _Unknown()


class _Analysis:
    def __init__(
        self, stage: GlueStage, inputs: Mapping[str, Layout], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        self.stage = stage
        self.tensors = tensors
        self.values: dict[str, Any] = {}
        self.axes: dict[str, int | None] = {}
        self.operations: dict[str, RowOperation] = {}
        self.barriers: dict[str, Barrier] = {}
        # For each value behind a barrier, the first barrier on the way.
        self.behind: dict[str, Barrier] = {}
        for name in stage.inputs:
            self._take(name, inputs.get(name))

    def _take(self, name: str, layout: Layout | None) -> None:
        if layout is None:
            raise RowsError(f"no layout of {name!r}; expected one of each input of the stage")
        if layout.axis is not None and not 0 <= layout.axis < len(layout.shape):
            raise RowsError(
                f"{name!r} has shape {layout.shape} and row axis {layout.axis}; expected an axis "
                "that exists"
            )
        self.values[name] = torch.empty(layout.shape, dtype=layout.dtype, device="meta")
        self.axes[name] = layout.axis

    def run(self) -> StageRows:
        for step in self.stage.steps:
            self.values[step.name] = self._result(step)
            self.axes[step.name] = self._axis(step)
        return StageRows(
            stage=self.stage,
            layouts=self._layouts(),
            outputs={name: self._output(name) for name in self.stage.outputs},
            barriers=tuple(self.barriers.values()),
            operations=self.operations,
            behind=frozenset(self.behind),
        )

    def _value(self, name: str) -> Any:
        if name not in self.values:
            tensor = self.tensors.get(name)
            if tensor is None:
                raise RowsError(f"{name!r} is neither an input, nor made before, nor a tensor")
            self.values[name] = torch.empty_like(tensor, device="meta")
        return self.values[name]

    def _result(self, step: Step) -> Any:
        """Return what the step makes of whole values, on the meta device."""

        def leaf(value: Any) -> Any:
            if isinstance(value, Ref):
                return self._value(value.name)
            return torch.device("meta") if isinstance(value, torch.device) else value

        if any(self._value(name) is _UNKNOWN for name in step.references):
            return _UNKNOWN
        args, kwargs = convert(step.args, leaf), convert(step.kwargs, leaf)
        if needs_device(step.op):
            kwargs["device"] = torch.device("meta")
        try:
            with torch.no_grad():
                return resolve(step.op)(*args, **kwargs)
        except Exception:  # noqa: BLE001  # whatever stops PyTorch: the shape is not known
            return _UNKNOWN

    def _axis(self, step: Step) -> int | None:
        """Return the row axis of the step's result, and note how it works, or why not."""
        if all(self.axes.get(name) is None for name in step.references):
            found = next((self.behind[n] for n in step.references if n in self.behind), None)
            if found is not None:
                self.behind[step.name] = found
            return None
        try:
            operation = self._operation(step)
        except NotLocalError as error:
            barrier = Barrier(step.name, step.op, str(error))
            self.barriers[step.name] = self.behind[step.name] = barrier
            return None
        self.operations[step.name] = operation
        return None if operation.makes_number else operation.axis

    def _operation(self, step: Step) -> RowOperation:
        packet = step.op.split(".")[1]
        rule = _RULES.get(packet)
        if rule is None:
            raise NotLocalError("not known to work on rows")
        result = self.values[step.name]
        if result is _UNKNOWN:
            raise NotLocalError("its shape is not known")
        bound = bound_arguments(step) if schema(step.op) else numbered_arguments(step)
        operation = rule(Call(step.op, substitute(bound, self._operand), result))
        if not operation.makes_number:
            first = result if isinstance(result, torch.Tensor) else result[0]
            if first.shape[operation.axis] != operation.rows:
                raise NotLocalError("its rows are not those that were expected")
        return operation

    def _operand(self, ref: Ref) -> Any:
        value = self._value(ref.name)
        if value is _UNKNOWN:
            raise NotLocalError(f"the shape of {ref!r} is not known")
        if not isinstance(value, (torch.Tensor, list, tuple)):
            return value
        operation = self.operations.get(ref.name)
        first_only = operation is not None and operation.first_only
        return Operand(ref.name, value, self.axes.get(ref.name), first_only)

    def _layouts(self) -> dict[str, Layout]:
        return {
            name: Layout(tuple(value.shape), self.axes[name], value.dtype)
            for name, value in self.values.items()
            if isinstance(value, torch.Tensor) and name in self.axes
        }

    def _output(self, name: str) -> OutputRows:
        axis = self.axes[name]
        if axis is not None:
            return RowLocal(axis, self._requires(name))
        return self.behind.get(name, Whole())

    def _requires(self, output: str) -> tuple[str, ...]:
        """Return the values behind barriers that a local output is made from."""
        steps = {step.name: step for step in self.stage.steps}
        found: dict[str, None] = {}
        pending, seen = [output], {output}
        while pending:
            name = pending.pop()
            if name in self.behind:
                found[name] = None
                continue
            for source in steps[name].references if name in steps else ():
                if source not in seen:
                    seen.add(source)
                    pending.append(source)
        return tuple(sorted(found, key=list(steps).index))
