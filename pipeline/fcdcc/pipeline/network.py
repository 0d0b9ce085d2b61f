"""A convolutional network as a value: coded convolutions, and glue between them.

A :class:`Network` is a list of stages in an order in which they can run. A
:class:`ConvStage` is one convolution, which the system codes; a :class:`GlueStage` is
everything that stands between two convolutions (activation, normalisation, pooling, sums,
concatenations, linear layers). Values have names; a stage says which it reads and which it
makes, so branches and joins need nothing special.

Nothing here runs anything: :mod:`fcdcc.pipeline.interpreter` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["ConvStage", "GlueStage", "Network", "Ref", "Stage", "Step", "references"]


@dataclass(frozen=True)
class Ref:
    """A value by its name: an intermediate result, the input, or a tensor of the model."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


def references(value: object) -> Iterator[str]:
    """Yield the names that an argument refers to, in order, however deep they stand.

    >>> list(references([Ref("x"), 3, (Ref("y"), None)]))
    ['x', 'y']
    """
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)


@dataclass(frozen=True)
class Step:
    """One operation of glue.

    Parameters
    ----------
    name
        The value that it makes.
    op
        The operator's name, such as ``aten.relu.default`` or ``operator.getitem``.
    args, kwargs
        Its arguments: literals, :class:`Ref`, and lists, tuples and dicts of these.
    """

    name: str
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def references(self) -> tuple[str, ...]:
        """The names that its arguments refer to, in order; one may stand there twice."""
        return (*references(self.args), *references(self.kwargs))

    def __repr__(self) -> str:
        arguments = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"%{self.name} = {self.op}({', '.join(arguments)})"


@dataclass(frozen=True)
class ConvStage:
    """One convolution, coded where the plan says so.

    Parameters
    ----------
    index
        Its place in ``Network.stages``; the layer number in task keys.
    name
        The module's name in the model where it is known, for people.
    input, output
        The values that it reads and makes. ``output`` includes the bias.
    weight, bias
        Names in ``Network.tensors``; weight is (N, C / groups, *kernel).
    stride, dilation
        One number per spatial dimension.
    padding
        (before, after) per spatial dimension: 'same' may pad unevenly.
    """

    index: int
    name: str
    input: str
    output: str
    weight: str
    bias: str | None
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The values that it reads."""
        return (self.input,)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The values that it makes."""
        return (self.output,)


@dataclass(frozen=True)
class GlueStage:
    """A run of operations between convolutions, with any number of inputs and outputs."""

    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]


Stage = ConvStage | GlueStage


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is ready to be planned and run.

    Parameters
    ----------
    stages
        In an order in which they can run; ``stages[i].index == i``.
    input, output
        The names of the network's input and of its prediction.
    input_shape
        (batch, C, *space); None where the model accepts any size.
    input_dtype
        What the model expects, float32 or float64.
    tensors
        Weights, buffers and constants by name.
    fingerprint
        A hash of stages and tensors: equal networks compute the same.
    """

    stages: tuple[Stage, ...]
    input: str
    output: str
    input_shape: tuple[int | None, ...]
    input_dtype: torch.dtype
    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    fingerprint: str

    @property
    def convolutions(self) -> tuple[ConvStage, ...]:
        """The convolution stages, in order."""
        return tuple(stage for stage in self.stages if isinstance(stage, ConvStage))

    def to(self, dtype: torch.dtype) -> Network:
        """Return the network in another precision, float32 or float64."""
        from .precision import in_precision

        return in_precision(self, dtype)
