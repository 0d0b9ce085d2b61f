"""Which steps of a stage work on ranges of rows, and which need all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import RowsError
from ..model.network import GlueStage, Ref, Step
from ..model.operators import bound_arguments, schema
from ..model.rewriting import substitute
from .meta_shapes import result_on_meta
from .operation import Call, NotLocalError, Operand, RowOperation, Rule, numbered_arguments
from .rules import axes, convolutions, pointwise, resampling
from .rules import padding as edges
from .rules import pooling as windows
from .stage_rows import Barrier, Layout, OutputRows, RowLocal, StageRows, Whole

_RULES: dict[str, Rule] = {
    **pointwise.RULES,
    **axes.RULES,
    **windows.RULES,
    **convolutions.RULES,
    **resampling.RULES,
    **edges.RULES,
}


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
        given = self._given()
        return StageRows(
            stage=self.stage,
            layouts=self._layouts(),
            outputs={name: self._output(name, given) for name in self.stage.outputs},
            barriers=tuple(self.barriers.values()),
            operations=self.operations,
            given=given,
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
        try:
            return result_on_meta(step, leaf)
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
        try:
            operation = rule(Call(step.op, substitute(bound, self._operand), result))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise NotLocalError("its arguments are not of a known kind") from error
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

    def _given(self) -> frozenset[str]:
        found = {barrier.step for barrier in self.barriers.values()}
        for step in self.stage.steps:
            if step.name in self.behind:
                sources = {name for name in step.references if name in self.behind}
                if sum(self._size(name) for name in sources) >= self._size(step.name):
                    found.add(step.name)
        return frozenset(found)

    def _size(self, name: str) -> int:
        value = self.values[name]
        if isinstance(value, (list, tuple)):
            return sum(part.numel() for part in value)
        return value.numel() if isinstance(value, torch.Tensor) else 0

    def _output(self, name: str, given: frozenset[str]) -> OutputRows:
        axis = self.axes[name]
        if axis is not None:
            return RowLocal(axis, self._requires(name, given) if given else ())
        return self.behind.get(name, Whole())

    def _requires(self, output: str, given: frozenset[str]) -> tuple[str, ...]:
        """Return the values behind barriers that a local output is made from."""
        steps = {step.name: step for step in self.stage.steps}
        found: dict[str, None] = {}
        pending, seen = [output], {output}
        while pending:
            name = pending.pop()
            if name in given:
                found[name] = None
                continue
            for source in steps[name].references if name in steps else ():
                if source not in seen:
                    seen.add(source)
                    pending.append(source)
        return tuple(sorted(found, key=list(steps).index))
