"""Which outputs of a stage can be computed row by row, and which steps need all rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from ..errors import ModelError, RowsError
from ..model.image_analysis import step_facts
from ..model.image_rules.facts import Facts, constant_facts
from ..model.network import GlueStage, Ref, Step
from ..model.operators import bound_arguments, schema
from ..model.rewriting import substitute
from .operation import Call, NotLocalError, Operand, RowOperation, Rule, numbered_arguments
from .rules import axes, convolutions, padding, pointwise, pooling, resampling

_RULES: dict[str, Rule] = {
    **pointwise.RULES,
    **axes.RULES,
    **pooling.RULES,
    **convolutions.RULES,
    **resampling.RULES,
    **padding.RULES,
}


@dataclass(frozen=True)
class Layout:
    r"""A value as the row arithmetic sees it.

    Parameters
    ----------
    shape
        Of the whole value, for some batch size. With a batch of 1 a reshape may seem to keep
        the rows when it does not; running it then raises an error. Use a batch of 2.
    axis
        The row axis: 2 for (N, C, \*space). None for a value that every worker holds whole,
        such as the weights of a squeeze-excitation block.
    dtype
        The type of its numbers: resampling rounds positions in this type.
    """

    shape: tuple[int, ...]
    axis: int | None = 2
    dtype: torch.dtype = torch.float32

    @property
    def rows(self) -> int:
        """Number of rows; 0 for a value without a row axis."""
        return 0 if self.axis is None else self.shape[self.axis]


@dataclass(frozen=True)
class RowLocal:
    """An output whose rows can be computed from some rows of the inputs.

    Parameters
    ----------
    axis
        Its row axis.
    requires
        Results of barriers that it needs whole, computed by
        :func:`~fcdcc.pipeline.halo.barrier_stage`.
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
        Why, as text for users.
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
    """The result of :func:`analyse` for a stage.

    Parameters
    ----------
    stage
        The stage.
    layouts
        Of the inputs and of all values that the stage makes, where they are tensors of known
        shape. The axis is None for what is held whole.
    outputs
        The kind of each output.
    barriers
        The steps at which rows end, in order; empty if all outputs are local to rows.
    operations
        How each step that is local to rows works.
    given
        The values that are computed once, before any range of rows: results of barriers, and
        values computed from them that are not larger. Larger ones, such as a mean that is
        expanded over an image, are computed again with every range.
    """

    stage: GlueStage
    layouts: Mapping[str, Layout]
    outputs: Mapping[str, OutputRows]
    barriers: tuple[Barrier, ...]
    operations: Mapping[str, RowOperation] = field(repr=False)
    given: frozenset[str] = field(repr=False)

    @property
    def local(self) -> bool:
        """Whether all outputs are local to rows, with no barrier anywhere."""
        return not self.barriers


def analyse(
    stage: GlueStage, inputs: Mapping[str, Layout], tensors: Mapping[str, torch.Tensor]
) -> StageRows:
    """Find which outputs of a stage can be computed row by row.

    No values are computed, only shapes. A step without a rule needs all rows of its operands.

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


def _on_meta(found: Any) -> Any:
    """Return tensors on the meta device instead of the facts about them."""
    if isinstance(found, Facts):
        return torch.empty(found.sizes, dtype=found.dtype, device="meta")
    return [_on_meta(item) for item in found] if isinstance(found, list) else found


def _as_facts(value: Any) -> Any:
    """Return the facts about tensors on the meta device: the inverse of :func:`_on_meta`."""
    if isinstance(value, torch.Tensor):
        return Facts(tuple(value.shape), value.dtype)
    return [_as_facts(item) for item in value] if isinstance(value, list) else value


class _Unknown:
    """A value whose shape is unknown."""


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
        """Return the step's result for whole values, on the meta device."""
        if any(self._value(name) is _UNKNOWN for name in step.references):
            return _UNKNOWN
        try:
            found, _ = step_facts(step, self._facts, None)
        except ModelError:
            return _UNKNOWN
        return _on_meta(found)

    def _facts(self, name: str) -> Any:
        """Return what is known about a value, which is the same for every batch here."""
        if name in self.tensors:
            return constant_facts(self.tensors[name])
        return _as_facts(self._value(name))

    def _axis(self, step: Step) -> int | None:
        """Return the row axis of the step's result; record its row operation or its barrier."""
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
        """Return the values behind barriers that a local output is computed from."""
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
        order = {name: place for place, name in enumerate(steps)}
        return tuple(sorted(found, key=order.__getitem__))
