"""Brings models to one form of input: float images (n, c, *space), computed in float32 or float64.

People export networks that take bytes and scale them themselves, networks that take channels
last, and networks in half precision. Each becomes a program that begins with the steps between
our images and its own, so that the rest of the pipeline knows one form only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..errors import ModelError
from .fixed_batch import in_one_stage
from .image_analysis import analyse_images, example_space
from .network import ExportedInput, GlueStage, Network, Ref, Step, network_fingerprint
from .passes.simplification import PERMUTATIONS, permutation
from .pt2.program import Program, TensorMeta
from .rewriting import NameSource, convert, redirect_step

FEW_CHANNELS = (1, 3, 4)
"""Channels by which an axis is recognised, where no step says which axis has them."""

_COMPUTED = (torch.float32, torch.float64)
_HALF = (torch.float16, torch.bfloat16)
_SAME_AXES = frozenset(
    [
        "to",
        "_to_copy",
        "clone",
        "contiguous",
        "alias",
        "detach",
        "float",
        "add",
        "sub",
        "mul",
        "div",
        "rsub",
        "neg",
        "clamp",
        "expand_as",
    ]
)
_CHANNELS_FIRST = frozenset(
    [
        "conv1d",
        "conv2d",
        "conv3d",
        "convolution",
        "_convolution",
        "batch_norm",
        "max_pool2d",
        "avg_pool2d",
    ]
)


def with_plain_input(program: Program) -> tuple[Program, ExportedInput]:
    """Return a program that takes float32 or float64 images (n, c, *space), and what it took.

    Raises
    ------
    ModelError
        If the program takes numbers of another type, or no images.
    """
    images = program.metas[program.input]
    if len(images.sizes) < 2:
        raise ModelError(
            f"the model takes an input of shape {images.sizes}; expected (batch, C, *space)"
        )
    if images.dtype not in (*_COMPUTED, *_HALF, torch.uint8):
        raise ModelError(
            f"the model takes images of the type {images.dtype}; expected floats, or bytes "
            "(torch.uint8) that it scales itself: convert them in the model's forward"
        )
    precision = images.dtype if images.dtype.is_floating_point else _precision(program)
    if precision in _HALF:
        program = _in_float32(program, precision)
    computed = torch.float32 if precision in _HALF else precision
    channels_last = _takes_channels_last(program)
    exported = ExportedInput(images.dtype, precision, channels_last)
    names = NameSource((program.input, *program.tensors, *(s.name for s in program.steps)))
    first: list[Step] = []
    metas = dict(program.metas)
    last = program.input
    sizes = images.sizes
    if channels_last:
        sizes = (sizes[0], sizes[-1], *sizes[1:-1])
        order = [0, *range(2, len(sizes)), 1]
        step = Step(names.fresh("channels_last"), "aten.permute.default", (Ref(last), order), {})
        strides = tuple(_strides(sizes)[axis] for axis in order)
        metas[step.name] = TensorMeta(images.sizes, computed, strides)
        first.append(step)
        last = step.name
    if images.dtype == torch.uint8:
        kwargs = {"dtype": torch.uint8}
        step = Step(names.fresh("bytes"), "aten._to_copy.default", (Ref(last),), kwargs)
        metas[step.name] = replace(images, strides=metas[last].strides)
        first.append(step)
        last = step.name
    if not first:
        return program, exported
    metas[program.input] = TensorMeta(sizes, computed, _strides(sizes))
    steps = [redirect_step(step, {program.input: Ref(last)}) for step in program.steps]
    return replace(program, steps=(*first, *steps), metas=metas), exported


def _strides(sizes: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return the strides of a tensor in order; ``unknown`` ones if not all sizes are numbers."""
    found: list[int | str] = []
    step = 1
    for size in reversed(sizes[1:]):
        found.append(step)
        if not isinstance(size, int):
            return tuple("unknown" for _ in sizes)
        step *= size
    return (step, *reversed(found))


def _precision(program: Program) -> torch.dtype:
    """Return the type of most of a model's numbers."""
    count: Counter[torch.dtype] = Counter()
    for tensor in program.tensors.values():
        if tensor.dtype in (*_COMPUTED, *_HALF):
            count[tensor.dtype] += tensor.numel()
    return max(count, key=lambda dtype: count[dtype], default=torch.float32)


def _in_float32(program: Program, own: torch.dtype) -> Program:
    """Return a program in half precision with its numbers, and casts to its type, in float32."""

    def converted(value: Any) -> Any:
        return torch.float32 if value is own else value

    return replace(
        program,
        steps=tuple(_converted(step, converted) for step in program.steps),
        tensors={
            name: tensor.float() if tensor.dtype == own else tensor
            for name, tensor in program.tensors.items()
        },
        metas={
            name: replace(meta, dtype=converted(meta.dtype)) for name, meta in program.metas.items()
        },
    )


def _converted(step: Step, converted: Callable[[Any], Any]) -> Step:
    return Step(step.name, step.op, convert(step.args, converted), convert(step.kwargs, converted))


def _takes_channels_last(program: Program) -> bool:
    """Return whether the channels are the last axis of what a program takes.

    The first step that has another order of axes than the images says so, and where it says
    nothing, their sizes.
    """
    sizes = program.metas[program.input].sizes
    rank = len(sizes)
    if rank < 3:
        return False
    same = {program.input}
    for step in program.steps:
        if same.isdisjoint(step.references):
            continue
        packet = step.op.split(".")[1]
        if packet in PERMUTATIONS:
            return permutation(step, rank) == [0, rank - 1, *range(1, rank - 1)]
        if packet in _CHANNELS_FIRST:
            return False
        if packet in _SAME_AXES:
            same.add(step.name)
        elif packet not in ("_assert_tensor_metadata", "sym_size"):
            break
    return sizes[-1] in FEW_CHANNELS and isinstance(sizes[1], int) and sizes[1] > max(FEW_CHANNELS)


# --------------------------------------------------------------------- bfloat16


def in_bfloat16(network: Network) -> Network:
    """Return a network that computes in bfloat16, of one in float32 or float64.

    It is one stage of glue, with images and prediction in float32: nothing is coded, because
    decoding would lose more digits than bfloat16 has.
    """
    own = network.input_dtype

    def converted(value: Any) -> Any:
        return torch.bfloat16 if value is own else value

    stage = in_one_stage(network)
    names = NameSource((network.input, *network.tensors, *(step.name for step in stage.steps)))
    entering = names.fresh("in_bfloat16")
    redirected = [redirect_step(step, {network.input: Ref(entering)}) for step in stage.steps]
    steps = [
        _cast(entering, network.input, torch.bfloat16),
        *(_converted(step, converted) for step in redirected),
    ]
    output, last = network.output, steps.pop() if len(network.outputs) > 1 else None
    cast = {value: names.fresh(f"{value}_in_float32") for value in _float_outputs(network)}
    steps += [_cast(name, value, torch.float32) for value, name in cast.items()]
    if last is not None:
        steps.append(redirect_step(last, {value: Ref(name) for value, name in cast.items()}))
    output = cast.get(output, output)
    stages = (GlueStage(0, (network.input,), (output,), tuple(steps)),)
    tensors = {
        name: tensor.bfloat16() if tensor.dtype == own else tensor
        for name, tensor in network.tensors.items()
    }
    return replace(
        network,
        stages=stages,
        output=output,
        input_dtype=torch.float32,
        tensors=tensors,
        fingerprint=network_fingerprint(stages, network.input, output, tensors),
        sizes={},
    )


def _float_outputs(network: Network) -> list[str]:
    """Return the outputs that are floats, as far as that is known; else it is likely."""
    values = list(dict.fromkeys(network.outputs.values()))
    space = example_space(network)
    if space is None:
        return values
    found = analyse_images(network, space).values
    return [value for value in values if found[value].dtype.is_floating_point]


def _cast(name: str, value: str, dtype: torch.dtype) -> Step:
    return Step(name, "aten._to_copy.default", (Ref(value),), {"dtype": dtype})
