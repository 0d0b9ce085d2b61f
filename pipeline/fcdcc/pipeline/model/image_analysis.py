"""Proves, before a network runs, that it treats images one by one and that its steps can run.

The rules of :mod:`~fcdcc.pipeline.model.image_rules` are applied to each step in order. Each
value gets its shape, its type and its image axis, or the step is refused with the reason. So
whatever :func:`analyse_images` returns without an error may be split by images, and a batch may
be padded: no prediction changes.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from ..errors import ModelError
from .image_rules import RULES
from .image_rules.element_types import check_kinds, check_types
from .image_rules.facts import (
    MAX_ELEMENTS,
    ArgumentsError,
    Facts,
    NotPerImageError,
    OperatorCall,
    Result,
    as_integer,
    constant_facts,
)
from .image_rules.windows import convolved_size, small
from .network import ConvStage, GlueStage, Network, Ref, Step
from .operators import argument_kinds, bound_arguments
from .output_bundle import BUNDLE
from .size_arithmetic import NUMBER_OPERATORS, number_of_batch

Lookup: TypeAlias = Callable[[str], Any]

ARRAY_TYPES = frozenset(
    {
        *(torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    }
)
"""Types of values that pass between workers: those that NumPy has too."""

ALONE = "expected a network that computes the prediction of each image from that image alone"


def step_facts(step: Step, lookup: Lookup, batch: int | None) -> tuple[Result, int]:
    """Return what is known about the result of a step, and its work.

    Parameters
    ----------
    step
        The step; none that changes its arguments.
    lookup
        Returns the facts of a value by its name.
    batch
        The number of images, if the model takes no other; else None.

    Returns
    -------
    The facts, and multiply-adds or comparisons beyond one for each element of the result.

    Raises
    ------
    ModelError
        If the step cannot run on such values or does not treat images one by one.
    """
    try:
        if step.op == "operator.getitem":
            return _member(_resolved(step.args, lookup)), 0
        if step.op == BUNDLE:
            return _bundled(_resolved(step.args, lookup)), 0
        if step.op in NUMBER_OPERATORS:
            return number_of_batch(step.op, tuple(_resolved(step.args, lookup))), 0
        _, packet, overload = step.op.split(".")
        bound = bound_arguments(step)
        for name, value in bound.items():
            if type(value) is Ref:
                bound[name] = lookup(value.name)
            elif isinstance(value, (list, tuple)):
                bound[name] = _resolved(value, lookup)
        call = OperatorCall(packet, overload, bound, batch)
        check_kinds(call, argument_kinds(step.op))
        check_types(call)
        return RULES[packet](call), call.work
    except NotPerImageError as error:
        raise ModelError(
            f"the step %{step.name} ({step.op}) does not treat the images of a batch one by one: "
            f"{error}; {ALONE}"
        ) from error
    except ArgumentsError as error:
        raise ModelError(
            f"the step {step!r:.200} cannot run: {error}; expected a network as torch.export "
            "writes it, and images of a size that it was exported for"
        ) from error


def _resolved(values: Sequence[Any], lookup: Lookup) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, Ref):
            found.append(lookup(value.name))
        elif isinstance(value, (list, tuple)):
            found.append(_resolved(value, lookup))
        else:
            found.append(value)
    return found


def _bundled(outputs: Sequence[Facts]) -> Facts:
    """Return the facts of several outputs as one value."""
    if not all(isinstance(output, Facts) and output.ndim for output in outputs):
        raise ArgumentsError("it brings together what are no tensors of images")
    first = outputs[0]
    if {(output.axis, output.sizes[0]) for output in outputs} != {(first.axis, first.sizes[0])}:
        raise NotPerImageError("it brings together tensors with the images along different axes")
    size = sum(math.prod(output.sizes[1:]) * output.dtype.itemsize for output in outputs)
    return Facts((first.sizes[0], size), torch.uint8, first.axis)


def _member(arguments: Sequence[Any]) -> Any:
    if len(arguments) != 2 or not isinstance(arguments[0], (list, tuple)):
        raise ArgumentsError("it takes a member of something that is no list")
    place = as_integer(arguments[1], "index")
    if not -len(arguments[0]) <= place < len(arguments[0]):
        raise ArgumentsError(f"it takes member {place} of {len(arguments[0])}")
    return arguments[0][place]


@dataclass(frozen=True)
class ImageAnalysis:
    """What is known about a network for images of one size.

    Parameters
    ----------
    values
        :class:`Facts` of tensors by their names, and numbers and lists of facts.
    work
        Multiply-adds or comparisons of steps for one image, where they are more than the
        elements that the step reads and makes.
    """

    values: Mapping[str, Any]
    work: Mapping[str, int]


_ANALYSED: weakref.WeakKeyDictionary[Network, dict[tuple[int, ...], ImageAnalysis]] = (
    weakref.WeakKeyDictionary()
)
_KEPT_SIZES = 8
_EXAMPLE_SIZES = (224, 256, 64, 512, 32, 1024, 16)


def analyse_images(network: Network, space: Sequence[int]) -> ImageAnalysis:
    r"""Return what is known about every value of a network.

    Parameters
    ----------
    network
        The network.
    space
        (C, \*space) of the images.

    Raises
    ------
    ModelError
        If the network does not take images of this shape, or if it is not proven that it
        treats images one by one.
    """
    known = _ANALYSED.setdefault(network, {})
    key = tuple(space)
    if key not in known:
        found = _ImageAxisAnalysis(network, key).run()
        while len(known) >= _KEPT_SIZES:
            known.pop(next(iter(known)))
        known[key] = found
    return known[key]


def example_space(network: Network) -> list[int] | None:
    r"""Return (C, \*space) of some images that a network takes; None if none is found."""
    _, *space = network.input_shape
    for size in _EXAMPLE_SIZES:
        found = [size if own is None else own for own in space]
        try:
            analyse_images(network, found)
        except ModelError:
            continue
        return found
    return None


def shapes_of(network: Network, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    r"""Return the shape of every value that passes between stages.

    Parameters
    ----------
    network
        The network.
    input_shape
        (batch, C, \*space) of the images.

    Raises
    ------
    ModelError
        See :func:`analyse_images`; also if the model takes batches of another size only.
    """
    images, *space = input_shape
    fixed = network.input_shape[0]
    if fixed is not None and images != fixed:
        raise ModelError(f"the model takes batches of {fixed} images only, not of {images}")
    found = analyse_images(network, space).values
    names = [network.input, *(name for stage in network.stages for name in stage.outputs)]
    return {name: shape_in_batch(found[name], images) for name in names}


def shape_in_batch(facts: Facts, images: int) -> tuple[int, ...]:
    """Return the shape of a value for a number of images."""
    return tuple(
        size * images if axis == facts.axis else size for axis, size in enumerate(facts.sizes)
    )


class _ImageAxisAnalysis:
    def __init__(self, network: Network, space: tuple[int, ...]) -> None:
        self.network = network
        loop = network.fixed_batch
        batch = network.input_shape[0] if loop is None else loop.images
        # A batch of one image cannot mix images, and has no axis of them.
        self.batch = batch
        axis = None if batch == 1 else 0
        self.values: dict[str, Any] = {network.input: Facts((1, *space), network.input_dtype, axis)}
        self.work: dict[str, int] = {}
        if not all(size > 0 for size in space):
            raise ModelError(f"images of shape {space}; expected one pixel or more")

    def run(self) -> ImageAnalysis:
        for stage in self.network.stages:
            if isinstance(stage, ConvStage):
                self.values[stage.output] = self._convolved(stage)
            else:
                self._glue(stage)
        self._check_outputs()
        if self.batch == 1 and self.network.fixed_batch is not None:
            # One image at a time: the predictions follow each other along the first axis.
            name = self.network.output
            self.values[name] = replace(self.values[name], axis=0)
        return ImageAnalysis(self.values, self.work)

    def _lookup(self, name: str) -> Any:
        found = self.values.get(name)
        if found is None:
            found = self.values[name] = constant_facts(self.network.tensors[name])
        return found

    def _glue(self, stage: GlueStage) -> None:
        for step in stage.steps:
            if step.op == BUNDLE:
                self._check_outputs()
            self.values[step.name], work = step_facts(step, self._lookup, self.batch)
            if work:
                self.work[step.name] = work
        for name in stage.outputs:
            found = self.values[name]
            if not isinstance(found, Facts):
                raise ModelError(f"%{name} is {found!r:.60}, and other steps need a tensor")
            if found.dtype not in ARRAY_TYPES:
                raise ModelError(
                    f"%{name} is of {found.dtype}, which does not pass between workers; expected "
                    "float32 or float64 at convolutions: cast it before them in the model"
                )

    def _convolved(self, stage: ConvStage) -> Facts:
        x = self._lookup(stage.input)
        weight = self.network.tensors[stage.weight]
        bias = None if stage.bias is None else self.network.tensors[stage.bias]
        try:
            return convolution_facts(stage, x, weight, bias)
        except ArgumentsError as error:
            raise ModelError(
                f"the convolution {stage.name} cannot take values of shape {x.sizes} for one "
                f"image: {error}; expected images of a size that the model was exported for"
            ) from error
        except NotPerImageError as error:
            raise ModelError(
                f"the convolution {stage.name} does not treat the images of a batch one by one: "
                f"{error}; {ALONE}"
            ) from error

    def _check_outputs(self) -> None:
        outputs = self.network.outputs
        for name, value in outputs.items():
            self._check_output(
                self._lookup(value), "the prediction" if len(outputs) == 1 else f"the output {name}"
            )

    def _check_output(self, found: Any, what: str) -> None:
        axis = 0 if self.batch != 1 else None
        is_tensor = isinstance(found, Facts)
        if not is_tensor or not found.sizes or found.axis != axis or found.sizes[0] != 1:
            raise ModelError(
                f"{what} has the shape {_in_words(found)}; expected one entry for each image along "
                "the first axis"
            )
        if found.dtype.is_complex:
            raise ModelError(
                f"{what} is of {found.dtype}; expected real numbers: return its parts or its "
                "absolute values"
            )
        if found.dtype not in ARRAY_TYPES:
            raise ModelError(
                f"{what} is of {found.dtype}, which NumPy does not have; expected another type: "
                "cast it in the model"
            )


def convolution_facts(
    stage: ConvStage, x: Facts, weight: torch.Tensor, bias: torch.Tensor | None
) -> Facts:
    """Return what is known about the output of a convolution.

    Parameters
    ----------
    stage
        The convolution.
    x
        What is known about its input.
    weight, bias
        Its tensors.

    Raises
    ------
    ArgumentsError
        If it does not take such an input.
    NotPerImageError
        If images are along another axis than the first.
    """
    ndim = len(stage.stride)
    if weight.ndim != ndim + 2 or x.ndim != ndim + 2:
        raise ArgumentsError(f"it has filters of shape {tuple(weight.shape)}")
    if x.axis not in (None, 0):
        raise NotPerImageError("its operand has the images along an axis of channels or space")
    if x.dtype != weight.dtype:
        raise ArgumentsError(f"it has filters of {weight.dtype} for values of {x.dtype}")
    if min(stage.stride) < 1 or min(stage.dilation) < 1 or stage.groups < 1:
        raise ArgumentsError(f"it has stride {stage.stride} and dilation {stage.dilation}")
    if min(min(pair) for pair in stage.padding) < 0:
        raise ArgumentsError(f"it has padding {stage.padding}")
    small(stage.stride, "stride")
    small(stage.dilation, "dilation")
    small([max(pair) for pair in stage.padding], "padding")
    filters, channels, *kernel = weight.shape
    if channels * stage.groups != x.sizes[1] or filters % stage.groups or min(weight.shape) < 1:
        raise ArgumentsError(
            f"it has filters of shape {tuple(weight.shape)} in {stage.groups} groups for "
            f"{x.sizes[1]} channels"
        )
    if bias is not None and (tuple(bias.shape) != (filters,) or bias.dtype != x.dtype):
        raise ArgumentsError(f"it has a bias of shape {tuple(bias.shape)} for {filters} filters")
    padding = [before + after for before, after in stage.padding]
    axes = zip(x.sizes[2:], kernel, stage.stride, padding, stage.dilation, strict=True)
    sizes = [convolved_size(*axis) for axis in axes]
    if min(sizes) < 1 or math.prod(sizes) * filters > MAX_ELEMENTS:
        raise ArgumentsError(f"its result would have the shape {(filters, *sizes)}")
    return Facts((x.sizes[0], filters, *sizes), x.dtype, x.axis, x.outer)


def _in_words(found: Any) -> str:
    if not isinstance(found, Facts):
        return "of a number"
    sizes = [str(size) for size in found.sizes]
    if found.axis is not None:
        sizes[found.axis] = f"{found.sizes[found.axis]} × images"
    return f"({', '.join(sizes)})"
