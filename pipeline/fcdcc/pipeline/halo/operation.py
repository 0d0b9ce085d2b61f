"""The interface of rules: a step with its operands, and the row operation that a rule returns.

A rule takes a :class:`Call` and returns a :class:`RowOperation`, which knows the rows of its
sources that a range of its result needs, and computes the range. If there is none, the rule
raises :class:`NotLocalError` with the reason. A step without a rule is not local.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from ..model.network import Step
from ..model.operators import resolve, schema
from .ranges import Rows

Arguments: TypeAlias = Mapping[str, Any]


class NotLocalError(Exception):
    """A step that needs all rows of an operand; the message is the reason."""


@dataclass(frozen=True)
class Operand:
    """A value that a step reads.

    Parameters
    ----------
    name
        Its name in the stage or among the model's tensors.
    value
        A tensor on the meta device, or a list of tensors: their shapes and types are known.
    axis
        The row axis. None for a value that is held whole.
    first_only
        Whether only the first of several results may be used.
    """

    name: str
    value: Any
    axis: int | None
    first_only: bool = False

    @property
    def rows_at(self) -> int:
        """The row axis of an operand that has one."""
        if self.axis is None:
            raise NotLocalError("it needs the rows of a value that has none")
        return self.axis

    @property
    def tensor(self) -> torch.Tensor:
        """The operand as one tensor."""
        if not isinstance(self.value, torch.Tensor):
            raise NotLocalError("it reads a list of tensors as one")
        return self.value

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.tensor.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        return tuple(self.tensor.shape)


@dataclass(frozen=True)
class Call:
    """A step whose references are resolved to operands.

    Parameters
    ----------
    op
        The operator's full name.
    arguments
        By their name in the operator's schema, defaults included. Tensors are
        :class:`Operand`; numbers that the stage computes are numbers.
    result
        The step's result for whole operands, on the meta device.
    """

    op: str
    arguments: Arguments
    result: Any

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    @property
    def operands(self) -> tuple[Operand, ...]:
        """All operands, in order."""
        return tuple(_operands(self.arguments.values()))

    def main(self, argument: str = "self") -> Operand:
        """Return the operand if no other operand has rows; else raise NotLocalError."""
        found = self.arguments[argument]
        others = [o for o in self.operands if o.axis is not None and o is not found]
        if not isinstance(found, Operand) or found.axis is None or others:
            raise NotLocalError("it reads rows where fixed values are expected")
        return found


def _operands(values: Any) -> Iterator[Operand]:
    for value in values:
        if isinstance(value, Operand):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _operands(value)


@dataclass(frozen=True)
class Source:
    """An operand of which a row operation reads only some rows.

    Parameters
    ----------
    name, axis, rows
        The operand, its row axis, and the number of rows of the whole operand.
    whole
        Whether the operand is held whole, so that its rows need not be requested.
    """

    name: str
    axis: int
    rows: int
    whole: bool = False


@dataclass(frozen=True)
class RowOperation:
    """Computes a range of rows of the result of one step.

    Parameters
    ----------
    op
        The operator's full name.
    axis
        The row axis of the result.
    rows
        Rows of the whole result.
    sources
        The operands of which it reads only some rows; it reads all others whole.
    """

    op: str
    axis: int
    rows: int
    sources: tuple[Source, ...]

    @property
    def first_only(self) -> bool:
        """Whether only the first of several results may be used."""
        return False

    @property
    def makes_number(self) -> bool:
        """Whether the result is a number, which has no rows."""
        return False

    @property
    def source(self) -> Source:
        """The only source."""
        (source,) = self.sources
        return source

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        """Return, for each source, the rows that the rows ``out`` of the result need.

        None if any rows will do.
        """
        raise NotImplementedError(type(self).__name__)

    def run(self, arguments: Arguments, out: Rows) -> Any:
        """Compute the rows ``out`` of the result.

        Parameters
        ----------
        arguments
            By their names in the schema; of each source exactly the rows that it needs.
        """
        raise NotImplementedError(type(self).__name__)


@dataclass(frozen=True)
class Aligned(RowOperation):
    """Row o of the result depends on row o of the sources, or on their only row.

    A range is computed by the operator itself.

    Parameters
    ----------
    sized
        The argument that is a shape, and the position of the number of rows in it.
    """

    sized: tuple[str, int] | None = None

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        """See :meth:`RowOperation.needs`."""
        return tuple(out if s.rows == self.rows else Rows(0, s.rows) for s in self.sources)

    def run(self, arguments: Arguments, out: Rows) -> Any:
        """Run the step on the given rows; see :meth:`RowOperation.run`."""
        if self.sized is not None:
            argument, position = self.sized
            sizes = list(arguments[argument])
            sizes[position] = out.size
            arguments = {**arguments, argument: sizes}
        return invoke(self.op, arguments)


Rule: TypeAlias = Callable[[Call], RowOperation]


def source_of(operand: Operand) -> Source:
    """Return an operand with rows as the source of a row operation."""
    tensor = operand.value if isinstance(operand.value, torch.Tensor) else operand.value[0]
    return Source(operand.name, operand.rows_at, int(tensor.shape[operand.rows_at]))


def aligned(
    call: Call, operand: Operand, axis: int, sized: tuple[str, int] | None = None
) -> Aligned:
    """Return the operation of a step that keeps the rows of an operand, on a given axis."""
    source = source_of(operand)
    return Aligned(call.op, axis, source.rows, (source,), sized)


def invoke(op: str, arguments: Arguments) -> Any:
    """Call an operator with arguments by their names in its schema."""
    found = schema(op)
    if found is None:
        return resolve(op)(*arguments.values())
    positional = [arguments[a.name] for a in found.arguments if not a.kwarg_only]
    keywords = {a.name: arguments[a.name] for a in found.arguments if a.kwarg_only}
    return resolve(op)(*positional, **keywords)


def numbered_arguments(step: Step) -> dict[str, Any]:
    """Return the arguments of a plain function by their positions."""
    return {str(position): argument for position, argument in enumerate(step.args)}


def per_dimension(value: int | Sequence[int], ndim: int) -> list[int]:
    """Return one number for each dimension; a single number is used for all, as in PyTorch."""
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * ndim if len(numbers) == 1 else numbers
