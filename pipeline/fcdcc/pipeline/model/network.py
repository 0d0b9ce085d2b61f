"""A convolutional network as a value: coded convolutions, and glue between them.

A :class:`Network` is a list of stages in an order in which they can run. A
:class:`ConvStage` is one convolution, which can be coded; a :class:`GlueStage` holds the
operations between convolutions (activation, normalisation, pooling, sums, concatenations,
linear layers). Values have names; a stage lists the values that it reads and makes, so
branches and joins need no special case.

This module only describes networks; :mod:`fcdcc.pipeline.model.interpreter` runs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from .output_bundle import BUNDLE, SINGLE_OUTPUT
from .tensor_pickle import PackedTensors, hash_tensors, pack_tensors, unpack_tensors


@dataclass(frozen=True)
class Ref:
    """A value by its name: an intermediate result, the input, or a tensor of the model."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


def references(value: object) -> Iterator[str]:
    """Yield the names that an argument refers to, in order, at any depth of nesting.

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

    @cached_property
    def references(self) -> tuple[str, ...]:
        """The names that its arguments refer to, in order; a name may occur twice."""
        if not self.kwargs and all(type(argument) is Ref for argument in self.args):
            return tuple(argument.name for argument in self.args)
        return (*references(self.args), *references(self.kwargs))

    def __getstate__(self) -> tuple[Any, ...]:
        return self.name, self.op, self.args, self.kwargs

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        names = ("name", "op", "args", "kwargs")
        self.__dict__.update(zip(names, state, strict=True))

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
        The module's name in the model if the export recorded it; only shown to users.
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


@dataclass(frozen=True)
class FixedBatch:
    """The number of images that a network takes at a time, and no other.

    Parameters
    ----------
    images
        The number.
    reason
        Which step depends on it, in words.
    """

    images: int
    reason: str


@dataclass(frozen=True)
class ExportedInput:
    r"""What a model took when it was exported.

    Parameters
    ----------
    dtype
        The type of its images; ``torch.uint8`` for bytes that it scales itself.
    precision
        The type in which it computed.
    channels_last
        Whether its images were (n, \*space, c).
    """

    dtype: torch.dtype = torch.float32
    precision: torch.dtype = torch.float32
    channels_last: bool = False


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is ready to be planned and run.

    Parameters
    ----------
    stages
        In an order in which they can run; ``stages[i].index == i``.
    input, output
        The names of the network's input and of its prediction. The prediction of a network with
        several outputs is a bundle of them (:mod:`.output_bundle`).
    input_shape
        (batch, C, *space); None where the model accepts any size.
    input_dtype
        What the model expects, float32 or float64.
    tensors
        Weights, buffers and constants by name.
    fingerprint
        A hash of stages and tensors: equal networks compute the same.
    sizes
        The shapes of values that pass between stages, as far as the export recorded them:
        numbers, and expressions as text where a size is not fixed. Equal texts are equal
        sizes.
    fixed_batch
        None for a network that takes any number of images at a time. Else the network is one
        glue stage, which runs in a loop over so many images; see
        :func:`fcdcc.pipeline.model.interpreter.in_fixed_batches`.
    exported
        What the model took when it was exported. The network takes (n, C, *space) in
        ``input_dtype`` and begins with the steps from there, and the values of bytes as floats.
    output_name
        What the program calls the output, if it has one.
    left_out
        Why other outputs of the program are no outputs of the network, by name.

    Printed, it is a line for each convolution and the steps of the glue. Pickled, its tensors
    travel as plain buffers.
    """

    stages: tuple[Stage, ...]
    input: str
    output: str
    input_shape: tuple[int | None, ...]
    input_dtype: torch.dtype
    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    fingerprint: str
    sizes: Mapping[str, tuple[int | str, ...]] = field(repr=False, default_factory=dict)
    fixed_batch: FixedBatch | None = None
    exported: ExportedInput = ExportedInput()
    output_name: str = SINGLE_OUTPUT
    left_out: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def convolutions(self) -> tuple[ConvStage, ...]:
        """The convolution stages, in order."""
        return tuple(stage for stage in self.stages if isinstance(stage, ConvStage))

    @property
    def outputs(self) -> dict[str, str]:
        """The values that are the outputs, by the names of the outputs, in order."""
        last = self.stages[-1] if self.stages else None
        if isinstance(last, GlueStage) and last.steps and last.steps[-1].op == BUNDLE:
            step = last.steps[-1]
            return dict(zip(step.kwargs["names"], step.references, strict=True))
        return {self.output_name: self.output}

    def __str__(self) -> str:
        return format_network(self)

    def __reduce__(self) -> tuple[Any, ...]:
        described = (self.input, self.output, self.input_shape, self.input_dtype)
        packed = pack_tensors(self.tensors)
        kept = (self.fingerprint, dict(self.sizes), self.fixed_batch, self.exported)
        about_outputs = (self.output_name, dict(self.left_out))
        return _rebuilt, (self.stages, *described, packed, *kept, *about_outputs)


def _rebuilt(
    stages: tuple[Stage, ...],
    input_name: str,
    output: str,
    input_shape: tuple[int | None, ...],
    input_dtype: torch.dtype,
    packed: PackedTensors,
    fingerprint: str,
    sizes: Mapping[str, tuple[int | str, ...]],
    fixed_batch: FixedBatch | None,
    exported: ExportedInput,
    output_name: str,
    left_out: Mapping[str, str],
) -> Network:
    tensors = unpack_tensors(packed)
    described = (stages, input_name, output, input_shape, input_dtype)
    kept = (tensors, fingerprint, sizes, fixed_batch, exported)
    return Network(*described, *kept, output_name, left_out)


def network_fingerprint(
    stages: Iterable[Stage], input_name: str, output: str, tensors: Mapping[str, torch.Tensor]
) -> str:
    """Return the SHA-256, in hexadecimal, of a network's stages and tensors.

    The names of modules, which are shown to users only, are left out.
    """
    digest = hashlib.sha256(f"{input_name} {output}\n".encode())
    for stage in stages:
        if isinstance(stage, ConvStage):
            stage = replace(stage, name="")
        digest.update(f"{stage!r}\n".encode())
    hash_tensors(digest, tensors)
    return digest.hexdigest()


def format_network(network: Network) -> str:
    """Return a network as text: a line for each convolution, and the steps of the glue.

    >>> step = Step("y", "aten.relu.default", (Ref("x"),), {})
    >>> glue = GlueStage(0, ("x",), ("y",), (step,))
    >>> print(format_network(Network((glue,), "x", "y", (None, 3), torch.float32, {}, "f00d")))
    network f00d: x (any, 3) float32 -> y; 0 convolutions, 0 parameters
      0 glue x -> y
            %y = aten.relu.default(%x)
    """
    shape = ", ".join("any" if size is None else str(size) for size in network.input_shape)
    count = sum(tensor.numel() for tensor in network.tensors.values())
    dtype = str(network.input_dtype).removeprefix("torch.")
    last = ", channels last" if network.exported.channels_last else ""
    title = (
        f"network {network.fingerprint[:12]}: {network.input} ({shape}) {dtype}{last} -> "
        f"{network.output}; {len(network.convolutions)} convolutions, {count:,} parameters"
    )
    lines = [title]
    width = len(str(len(network.stages)))
    for stage in network.stages:
        if isinstance(stage, ConvStage):
            lines.append(f"  {stage.index:{width}} {_format_convolution(stage, network)}")
        else:
            ways = f"{', '.join(stage.inputs)} -> {', '.join(stage.outputs)}"
            lines.append(f"  {stage.index:{width}} glue {ways}")
            lines.extend(f"  {'':{width}}     {step!r}" for step in stage.steps)
    return "\n".join(lines)


def _format_convolution(stage: ConvStage, network: Network) -> str:
    weight = network.tensors[stage.weight]
    shape = "x".join(map(str, weight.shape))
    words = [f"conv {stage.name}: {stage.input} -> {stage.output}, filters {shape}"]
    if any(number != 1 for number in stage.stride):
        words.append(f"stride {stage.stride}")
    if any(pair != (0, 0) for pair in stage.padding):
        words.append(f"padding {stage.padding}")
    if any(number != 1 for number in stage.dilation):
        words.append(f"dilation {stage.dilation}")
    if stage.groups != 1:
        words.append(f"groups {stage.groups}")
    if stage.bias is None:
        words.append("no bias")
    return ", ".join(words)
