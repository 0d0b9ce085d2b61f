"""Shapes and types of results, without computing values.

PyTorch's meta device can do this for every operator, but for most of them it first imports
parts of its compiler, which takes seconds. So the shapes of the usual operators between
convolutions are computed here, as tensors on the meta device of which only shape and type are
used. Views, for which PyTorch is quick, and all other operators are left to PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from ..model.network import Step
from ..model.operators import bound_arguments, needs_device, resolve, schema
from ..model.rewriting import convert
from .operation import per_dimension

_Arguments: TypeAlias = Mapping[str, Any]
_META = torch.device("meta")


class _UseMetaDeviceError(Exception):
    """Signals that the shape is left to PyTorch's meta device."""


def result_on_meta(step: Step, leaf: Callable[[Any], Any]) -> Any:
    """Return the result of a step, on the meta device.

    Parameters
    ----------
    step
        The step.
    leaf
        Replaces each reference among its arguments by a tensor on the meta device, or by a
        number; returns literals unchanged.

    Raises
    ------
    Exception
        The error of PyTorch if the step cannot take operands of these shapes.
    """
    known = _SHAPES.get(step.op.split(".")[1]) if schema(step.op) else None
    if known is not None:
        try:
            return known(convert(bound_arguments(step), leaf))
        except _UseMetaDeviceError:
            pass
    args, kwargs = convert(step.args, leaf), convert(step.kwargs, leaf)
    if needs_device(step.op):
        kwargs["device"] = _META
    with torch.no_grad():
        return resolve(step.op)(*args, **kwargs)


def _empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    if min(shape, default=0) < 0:
        raise _UseMetaDeviceError
    return torch.empty(tuple(shape), dtype=dtype, device=_META)


def _input(arguments: _Arguments) -> torch.Tensor:
    x = arguments["input"] if "input" in arguments else arguments["self"]
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise _UseMetaDeviceError
    return x


def _same(arguments: _Arguments) -> torch.Tensor:
    x = _input(arguments)
    if arguments.get("dtype") is not None:
        raise _UseMetaDeviceError
    return _empty(x.shape, x.dtype)


def _broadcast(arguments: _Arguments) -> torch.Tensor:
    """Broadcast floating-point tensors; a tensor without axes does not widen the type."""
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    if not tensors or not all(tensor.is_floating_point() for tensor in tensors):
        raise _UseMetaDeviceError
    if any(isinstance(value, complex) for value in arguments.values()):
        raise _UseMetaDeviceError
    deciding = [tensor for tensor in tensors if tensor.ndim] or tensors
    dtype = deciding[0].dtype
    for tensor in deciding[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return _empty(np.broadcast_shapes(*(tuple(tensor.shape) for tensor in tensors)), dtype)


def _reduced(arguments: _Arguments) -> torch.Tensor:
    x, dims = _input(arguments), arguments.get("dim")
    if not isinstance(dims, (int, list)) or dims == [] or arguments.get("dtype") is not None:
        raise _UseMetaDeviceError
    gone = {d % x.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    sizes = [1 if axis in gone else size for axis, size in enumerate(x.shape)]
    if not arguments.get("keepdim"):
        sizes = [size for axis, size in enumerate(sizes) if axis not in gone]
    return _empty(sizes, x.dtype)


def _concatenated(arguments: _Arguments) -> torch.Tensor:
    tensors: list[torch.Tensor] = list(arguments["tensors"])
    first = tensors[0]
    dim = int(arguments["dim"]) % first.ndim
    rests = {(*t.shape[:dim], *t.shape[dim + 1 :], t.dtype) for t in tensors if t.ndim}
    if len(rests) != 1 or any(tensor.ndim != first.ndim for tensor in tensors):
        raise _UseMetaDeviceError
    size = sum(int(tensor.shape[dim]) for tensor in tensors)
    return _empty((*first.shape[:dim], size, *first.shape[dim + 1 :]), first.dtype)


def _linear(arguments: _Arguments) -> torch.Tensor:
    x, weight = _input(arguments), arguments["weight"]
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise _UseMetaDeviceError
    return _empty((*x.shape[:-1], weight.shape[0]), x.dtype)


def _matmul(arguments: _Arguments) -> torch.Tensor:
    x, other = _input(arguments), arguments["other"]
    if other.ndim != 2 or x.ndim < 2 or x.shape[-1] != other.shape[0]:
        raise _UseMetaDeviceError
    return _empty((*x.shape[:-1], other.shape[1]), x.dtype)


def _padded(arguments: _Arguments) -> torch.Tensor:
    x = _input(arguments)
    amounts = list(arguments["pad"] if "pad" in arguments else arguments["padding"])
    sizes = list(x.shape)
    for place, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        sizes[-1 - place] += before + after
    return _empty(sizes, x.dtype)


def _pixel_shuffled(arguments: _Arguments) -> torch.Tensor:
    x, factor = _input(arguments), int(arguments["upscale_factor"])
    *batch, channels, rows, columns = x.shape
    return _empty((*batch, channels // factor**2, rows * factor, columns * factor), x.dtype)


def _space(
    arguments: _Arguments, ndim: int, sizes: Callable[[list[int]], list[int]]
) -> torch.Tensor:
    """Return a result whose last axes have other sizes than those of the input."""
    x = _input(arguments)
    if x.ndim not in (ndim + 1, ndim + 2):
        raise _UseMetaDeviceError
    return _empty((*x.shape[:-ndim], *sizes(list(x.shape[-ndim:]))), x.dtype)


def _pool(ndim: int) -> Callable[[_Arguments], torch.Tensor]:
    def shape(arguments: _Arguments) -> torch.Tensor:
        kernel = per_dimension(arguments["kernel_size"], ndim)
        stride = per_dimension(arguments["stride"] or kernel, ndim)
        padding = per_dimension(arguments["padding"], ndim)
        dilation = per_dimension(arguments.get("dilation", 1), ndim)
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise _UseMetaDeviceError
        ceil = bool(arguments["ceil_mode"])

        def sizes(space: list[int]) -> list[int]:
            axes = zip(space, kernel, stride, padding, dilation, strict=True)
            return [_pooled(*axis, ceil) for axis in axes]

        return _space(arguments, ndim, sizes)

    return shape


def _pooled(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    last = size + 2 * padding - dilation * (kernel - 1) - 1
    if last < 0:
        raise _UseMetaDeviceError
    windows = (last + (stride - 1 if ceil else 0)) // stride + 1
    # The last window must begin inside the input or the padding above it.
    return windows - (ceil and (windows - 1) * stride >= size + padding)


def _adaptive(ndim: int) -> Callable[[_Arguments], torch.Tensor]:
    def shape(arguments: _Arguments) -> torch.Tensor:
        sizes = per_dimension(arguments["output_size"], ndim)
        return _space(arguments, ndim, lambda space: sizes)  # noqa: ARG005  # input sizes do not matter

    return shape


def _upsampled(ndim: int) -> Callable[[_Arguments], torch.Tensor]:
    def shape(arguments: _Arguments) -> torch.Tensor:
        sizes, factors = arguments["output_size"], arguments.get("scale_factors")
        if sizes is None and factors is None:
            raise _UseMetaDeviceError

        def scaled(space: list[int]) -> list[int]:
            if sizes is not None:
                return list(sizes)
            return [math.floor(s * f) for s, f in zip(space, factors or (), strict=True)]

        return _space(arguments, ndim, scaled)

    return shape


def _convolution(arguments: _Arguments) -> torch.Tensor:
    x, weight = _input(arguments), arguments["weight"]
    ndim = weight.ndim - 2
    stride = per_dimension(arguments["stride"], ndim)
    dilation = per_dimension(arguments["dilation"], ndim)
    kernel = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    padding = arguments["padding"]
    if x.ndim != ndim + 2 or x.shape[1] != weight.shape[1] * arguments["groups"]:
        raise _UseMetaDeviceError
    if isinstance(padding, str):
        both = [k - 1 if padding == "same" else 0 for k in kernel]
    else:
        both = [2 * p for p in per_dimension(padding, ndim)]
    axes = zip(x.shape[2:], both, kernel, stride, strict=True)
    space = [(size + pad - k) // s + 1 for size, pad, k, s in axes]
    if min(space) < 1:
        raise _UseMetaDeviceError
    return _empty((x.shape[0], weight.shape[0], *space), x.dtype)


def _transposed(arguments: _Arguments) -> torch.Tensor:
    x, weight = _input(arguments), arguments["weight"]
    ndim = weight.ndim - 2
    names = ("stride", "padding", "output_padding", "dilation")
    numbers = (per_dimension(arguments[name], ndim) for name in names)
    if x.ndim != ndim + 2 or x.shape[1] != weight.shape[0]:
        raise _UseMetaDeviceError
    axes = zip(x.shape[2:], weight.shape[2:], *numbers, strict=True)
    space = [
        (size - 1) * s - 2 * p + d * (kernel - 1) + extra + 1
        for size, kernel, s, p, extra, d in axes
    ]
    if min(space) < 1:
        raise _UseMetaDeviceError
    return _empty((x.shape[0], weight.shape[1] * arguments["groups"], *space), x.dtype)


def _any_convolution(arguments: _Arguments) -> torch.Tensor:
    return _transposed(arguments) if arguments["transposed"] else _convolution(arguments)


_BROADCAST = """
    abs add addcdiv addcmul clamp clamp_max clamp_min celu cos div elu erf exp gelu hardshrink
    hardsigmoid hardswish hardtanh leaky_relu lerp log log_sigmoid maximum minimum mish mul neg
    pow reciprocal relu relu6 rsqrt rsub selu sigmoid silu sin softplus softshrink sqrt square
    sub tanh threshold
"""
_SHAPES: dict[str, Callable[[_Arguments], Any]] = {
    **dict.fromkeys(_BROADCAST.split(), _broadcast),
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm"), _same),
    **dict.fromkeys(("prelu", "softmax", "log_softmax", "channel_shuffle"), _same),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var"), _reduced),
    "linalg_vector_norm": _reduced,
    "cat": _concatenated,
    "linear": _linear,
    "matmul": _matmul,
    **dict.fromkeys((f"reflection_pad{n}d" for n in (1, 2, 3)), _padded),
    **dict.fromkeys((f"replication_pad{n}d" for n in (1, 2, 3)), _padded),
    "pad": _padded,
    "pixel_shuffle": _pixel_shuffled,
    **{f"max_pool{n}d": _pool(n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": _pool(n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _adaptive(n) for n in (1, 2, 3)},
    **{f"upsample_nearest{n}d": _upsampled(n) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": _upsampled(n) for n in (1, 2, 3)},
    "upsample_linear1d": _upsampled(1),
    "upsample_bilinear2d": _upsampled(2),
    "upsample_bicubic2d": _upsampled(2),
    "upsample_trilinear3d": _upsampled(3),
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _transposed for n in (1, 2, 3)},
    "convolution": _any_convolution,
}
