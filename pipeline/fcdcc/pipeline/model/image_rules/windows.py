"""Rules of operators with windows: convolutions, pooling, resampling, sampling on a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .facts import (
    ArgumentsError,
    Facts,
    NotPerImageError,
    OperatorCall,
    Result,
    Rule,
    align_images,
    as_integer,
    keeps_image_axis,
    kind,
    like,
    made,
    size_of,
)

MAX_WINDOW = 1 << 31
"""Largest kernel, stride, padding or size of one axis."""


def small(numbers: Sequence[int], name: str) -> Sequence[int]:
    """Refuse geometry that no network has and kernels compute with 32 bits."""
    if any(number >= MAX_WINDOW for number in numbers):
        raise ArgumentsError(f"its argument {name!r} is {list(numbers)}; expected less than 2^31")
    return numbers


def _images_first(x: Facts, ndim: int) -> None:
    """Check a tensor (batch, C, *space), or (C, *space) without a batch."""
    if x.ndim not in (ndim + 1, ndim + 2):
        raise ArgumentsError(f"it takes a tensor of shape {x.sizes}; expected {ndim} axes of space")
    batch_axis = 0 if x.ndim == ndim + 2 else None
    if x.axis is not None and x.axis != batch_axis:
        raise NotPerImageError("its operand has the images along an axis of channels or space")


def convolved_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return the size of one axis of a convolution's output; refuse windows that do not fit."""
    found = (size + padding - dilation * (kernel - 1) - 1) // stride + 1
    if size + padding < dilation * (kernel - 1) + 1:
        raise ArgumentsError(
            f"a window of {dilation * (kernel - 1) + 1} does not fit {size + padding} entries"
        )
    return found


def _convolution(call: OperatorCall) -> Result:
    x, weight = call.tensor("input"), call.tensor("weight")
    ndim = weight.ndim - 2
    if call.packet[-2:] in ("1d", "2d", "3d") and ndim != int(call.packet[-2]):
        raise ArgumentsError(f"it has filters of shape {weight.sizes}")
    if not 1 <= ndim <= 3:
        raise ArgumentsError(
            f"it has filters of shape {weight.sizes}; expected 1 to 3 axes of space"
        )
    _images_first(x, ndim)
    if "convolution" in call.packet and x.ndim != ndim + 2:
        raise ArgumentsError(f"it takes a tensor of shape {x.sizes}; expected a batch")
    transposed = "conv_transpose" in call.packet or bool(call.arguments.get("transposed"))
    stride = small(call.integers("stride", ndim, 1), "stride")
    dilation = small(call.integers("dilation", ndim, 1), "dilation")
    groups = call.integer("groups", 1)
    if weight.axis is not None:
        raise NotPerImageError("its filters depend on the images")
    if kind(x.dtype) != 2 or weight.dtype != x.dtype:
        raise ArgumentsError(f"it has filters of {weight.dtype} for values of {x.dtype}")
    if min(weight.sizes) < 1:
        raise ArgumentsError(f"it has filters of shape {weight.sizes}")
    kernel = weight.sizes[2:]
    channels = x.sizes[-ndim - 1]
    if transposed:
        made_channels = weight.sizes[1] * groups
        fits = weight.sizes[0] == channels and channels % groups == 0
    else:
        made_channels = weight.sizes[0]
        fits = weight.sizes[1] * groups == channels and made_channels % groups == 0
    if not fits:
        raise ArgumentsError(
            f"it has filters of shape {weight.sizes} in {groups} groups for {channels} channels"
        )
    bias = call.optional("bias")
    if bias is not None:
        if bias.axis is not None:
            raise NotPerImageError("its bias depends on the images")
        if bias.sizes != (made_channels,) or bias.dtype != x.dtype:
            raise ArgumentsError(f"it has a bias of shape {bias.sizes} for {made_channels} filters")
    space = x.sizes[-ndim:]
    padding = call["padding"]
    if transposed:
        before = small(call.integers("padding", ndim, 0), "padding")
        extra = small(call.integers("output_padding", ndim, 0), "output_padding")
        if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
            raise ArgumentsError(f"its argument 'output_padding' is {list(extra)}")
        sizes = [
            (n - 1) * s - 2 * p + d * (k - 1) + e + 1
            for n, k, s, p, d, e in zip(space, kernel, stride, before, dilation, extra, strict=True)
        ]
    else:
        if isinstance(padding, str):
            if padding not in ("same", "valid") or (padding == "same" and max(stride) > 1):
                raise ArgumentsError(f"its padding is {padding!r:.40} with stride {list(stride)}")
            both = [
                d * (k - 1) * (padding == "same") for d, k in zip(dilation, kernel, strict=True)
            ]
        else:
            both = [2 * p for p in small(call.integers("padding", ndim, 0), "padding")]
        if "output_padding" in call.arguments and any(call.exactly("output_padding", ndim, 0)):
            raise ArgumentsError("it has output padding without being transposed")
        axes = zip(space, kernel, stride, both, dilation, strict=True)
        sizes = [convolved_size(*axis) for axis in axes]
    if min(sizes) < 1 or not x.elements:
        raise ArgumentsError(f"its result would have the shape {tuple(sizes)}")
    found = like(x, [*x.sizes[: -ndim - 1], made_channels, *sizes])
    call.work = (x if transposed else found).elements * math.prod(weight.sizes[1:])
    return found


def _pool(call: OperatorCall) -> Result:
    ndim = int(next(c for c in call.packet if c in "123"))
    x = call.tensor()
    _images_first(x, ndim)
    kernel = small(call.integers("kernel_size", ndim, 1), "kernel_size")
    stride = call.arguments.get("stride")
    steps = kernel if stride in (None, []) else small(call.integers("stride", ndim, 1), "stride")
    padding = call.integers("padding", ndim, 0)
    dilation = (
        small(call.integers("dilation", ndim, 1), "dilation")
        if "dilation" in call.arguments
        else [1] * ndim
    )
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ArgumentsError(f"it pads by {padding}, more than half of its window {list(kernel)}")
    if call.arguments.get("divisor_override") == 0:
        raise ArgumentsError("it divides by 0")
    if kind(x.dtype) not in (1, 2) or not x.elements:
        raise ArgumentsError(f"it takes windows of a tensor of shape {x.sizes}, {x.dtype}")
    ceil = call.flag("ceil_mode")
    sizes = []
    axes = zip(x.sizes[-ndim:], kernel, steps, padding, dilation, strict=True)
    for n, k, s, p, d in axes:
        last = n + 2 * p - d * (k - 1) - 1
        count = (last + (s - 1 if ceil else 0)) // s + 1
        # The last window must begin inside the input or the padding before it.
        sizes.append(count - (ceil and (count - 1) * s >= n + p))
        if sizes[-1] < 1:
            raise ArgumentsError(f"a window of {d * (k - 1) + 1} does not fit {n + 2 * p} entries")
    if call.packet == "avg_pool3d" and any(
        k > n for k, n in zip(kernel, x.sizes[-3:], strict=True)
    ):
        raise ArgumentsError(f"its window {list(kernel)} is larger than {x.sizes[-3:]}")
    found = like(x, [*x.sizes[:-ndim], *sizes])
    call.work = found.elements * math.prod(kernel)
    if "with_indices" in call.packet:
        return [found, made(found.sizes, torch.int64, found.axis, found.outer)]
    return found


def _adaptive_pool(call: OperatorCall) -> Result:
    ndim = int(next(c for c in call.packet if c in "123"))
    x = call.tensor()
    _images_first(x, ndim)
    sizes = call["output_size"]
    wanted = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    if len(wanted) != ndim:
        raise ArgumentsError(f"it makes {len(wanted)} axes of {ndim}")
    space = small(call.integers("output_size", ndim, 1), "output_size")
    if kind(x.dtype) != 2 or not x.elements:
        raise ArgumentsError(f"it pools a tensor of shape {x.sizes}, {x.dtype}")
    found = like(x, [*x.sizes[:-ndim], *space])
    call.work = max(found.elements, x.elements) * 2**ndim
    if "max" in call.packet:
        return [found, made(found.sizes, torch.int64, found.axis, found.outer)]
    return found


def _upsample(call: OperatorCall) -> Result:
    ndim = int(next(c for c in call.packet if c in "123"))
    x = call.tensor("input" if "input" in call.arguments else "self")
    if x.ndim != ndim + 2:
        raise ArgumentsError(f"it resamples a tensor of shape {x.sizes}")
    _images_first(x, ndim)
    if kind(x.dtype) != 2 or not x.elements:
        raise ArgumentsError(f"it resamples a tensor of shape {x.sizes}, {x.dtype}")
    factors = call.arguments.get("scale_factors")
    if call["output_size"] is not None:
        if factors is not None:
            raise ArgumentsError("it is given both a size and a factor")
        sizes = small(call.exactly("output_size", ndim, 1), "output_size")
    else:
        if not isinstance(factors, (list, tuple)) or len(factors) != ndim:
            raise ArgumentsError(f"it resamples by the factors {factors!r:.60}")
        sizes = small([_scaled(n, f) for n, f in zip(x.sizes[2:], factors, strict=True)], "scale")
        if min(sizes) < 1:
            raise ArgumentsError(f"it resamples by the factors {factors}")
    for name in ("scales", "scales_d", "scales_h", "scales_w"):
        scale = call.arguments.get(name)
        if scale is not None and not (isinstance(scale, float) and 0 < scale < MAX_WINDOW):
            raise ArgumentsError(f"its argument {name!r} is {scale!r:.40}")
    found = like(x, [*x.sizes[:2], *sizes])
    # With antialiasing a window covers as many entries as are shrunk to one.
    call.work = 16 * max(found.elements, x.elements) * 2**ndim
    return found


def _scaled(size: int, factor: object) -> int:
    if not isinstance(factor, (int, float)) or not 0 < factor < MAX_WINDOW:
        raise ArgumentsError(f"it resamples by the factor {factor!r:.40}")
    return int(size * factor)


def _grid_sample(call: OperatorCall) -> Result:
    x, grid = call.tensor("input"), call.tensor("grid")
    ndim = x.ndim - 2
    fits = ndim in (2, 3) and grid.ndim == x.ndim and grid.sizes[-1] == ndim
    packet = call.packet
    if not fits or (packet.endswith("d") and ndim != int(packet[-2])) or grid.dtype != x.dtype:
        raise ArgumentsError(f"it samples {x.sizes} at {grid.sizes}")
    if kind(x.dtype) != 2 or min(x.sizes) < 1 or grid.sizes[0] != x.sizes[0]:
        raise ArgumentsError(f"it samples {x.sizes} of {x.dtype} at {grid.sizes}")
    mode, padding = call.integer("interpolation_mode", 0), call.integer("padding_mode", 0)
    call.flag("align_corners")
    if mode > 2 or padding > 2 or (mode == 2 and ndim == 3):
        raise ArgumentsError(f"it samples with the modes {mode} and {padding}")
    if x.axis is None and grid.axis is not None:
        raise NotPerImageError("it samples one constant for all images")
    if grid.axis is None and x.axis is not None:
        raise NotPerImageError("it samples all images at one grid")
    axis, outer, _ = align_images([x, grid], [x.axis, grid.axis])
    if axis not in (None, 0):
        raise NotPerImageError("its operand has the images along an axis of channels or space")
    found = made([*x.sizes[:2], *grid.sizes[1:-1]], x.dtype, axis, outer)
    call.work = 16 * found.elements
    return found


def _affine_grid(call: OperatorCall) -> Result:
    theta = call.tensor("theta")
    sizes = list(call["size"])
    ndim = len(sizes) - 2
    if ndim not in (2, 3) or theta.ndim != 3 or theta.sizes[1:] != (ndim, ndim + 1):
        raise ArgumentsError(f"it makes a grid for {tuple(sizes)} of {theta.sizes}")
    if kind(theta.dtype) != 2:
        raise ArgumentsError(f"it makes a grid of {theta.dtype}")
    if sizes[0] != size_of(theta, 0, call.batch) or theta.axis not in (None, 0):
        raise NotPerImageError("it makes grids for another number of images")
    space = [as_integer(n, "size", 1) for n in sizes[2:]]
    small(space, "size")
    return made([theta.sizes[0], *space, ndim], theta.dtype, theta.axis, theta.outer)


def _windows_as_columns(call: OperatorCall) -> Result:
    """``im2col`` and ``col2im``: windows as columns of a matrix, and their sums."""
    x = call.tensor()
    kernel = small(call.exactly("kernel_size", 2, 1), "kernel_size")
    dilation = small(call.exactly("dilation", 2, 1), "dilation")
    padding = small(call.exactly("padding", 2, 0), "padding")
    stride = small(call.exactly("stride", 2, 1), "stride")
    if kind(x.dtype) != 2 or not x.elements:
        raise ArgumentsError(f"it takes windows of a tensor of shape {x.sizes}, {x.dtype}")
    opened = call.packet == "im2col"
    _images_first(x, 2 if opened else 1)
    space = x.sizes[-2:] if opened else small(call.exactly("output_size", 2, 1), "output_size")
    axes = zip(space, kernel, stride, [2 * p for p in padding], dilation, strict=True)
    windows = math.prod(convolved_size(*axis) for axis in axes)
    if opened:
        found = like(x, [*x.sizes[:-3], x.sizes[-3] * math.prod(kernel), windows])
    else:
        columns, count = x.sizes[-2:]
        if columns % math.prod(kernel) or count != windows:
            raise ArgumentsError(f"it makes {tuple(space)} pixels of columns of shape {x.sizes}")
        found = like(x, [*x.sizes[:-2], columns // math.prod(kernel), *space])
    call.work = max(found.elements, x.elements)
    return found


def _weight_norm(call: OperatorCall) -> Result:
    v, g = call.tensor("v"), call.tensor("g")
    axis = call.integer("dim", 0)
    if v.axis is not None or g.axis is not None:
        raise NotPerImageError("its weights depend on the images")
    if axis not in (0, v.ndim - 1) or not v.elements:
        raise ArgumentsError(f"it normalises axis {call['dim']} of a tensor of shape {v.sizes}")
    expected = tuple(size if place == axis else 1 for place, size in enumerate(v.sizes))
    if g.sizes != expected or g.dtype != v.dtype or kind(v.dtype) != 2:
        raise ArgumentsError(f"it has norms of shape {g.sizes} for weights of shape {v.sizes}")
    keeps_image_axis(v, range(v.ndim), "normalises")
    weight = like(v, v.sizes)
    return weight if call.packet == "_weight_norm" else [weight, made(g.sizes, v.dtype)]


RULES: dict[str, Rule] = {
    **dict.fromkeys((f"conv{n}d" for n in "123"), _convolution),
    **dict.fromkeys((f"conv_transpose{n}d" for n in "123"), _convolution),
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys((f"max_pool{n}d" for n in "123"), _pool),
    **dict.fromkeys((f"avg_pool{n}d" for n in "123"), _pool),
    **dict.fromkeys((f"max_pool{n}d_with_indices" for n in "123"), _pool),
    **dict.fromkeys((f"adaptive_avg_pool{n}d" for n in "123"), _adaptive_pool),
    **dict.fromkeys((f"adaptive_max_pool{n}d" for n in "123"), _adaptive_pool),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), _adaptive_pool),
    **dict.fromkeys((f"upsample_nearest{n}d" for n in "123"), _upsample),
    **dict.fromkeys((f"_upsample_nearest_exact{n}d" for n in "123"), _upsample),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d"), _upsample),
    **dict.fromkeys(("upsample_trilinear3d", "upsample_bicubic2d"), _upsample),
    **dict.fromkeys(("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), _upsample),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), _grid_sample),
    "affine_grid_generator": _affine_grid,
    **dict.fromkeys(("im2col", "col2im"), _windows_as_columns),
    **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), _weight_norm),
}
