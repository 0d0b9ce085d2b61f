"""Rules of operators that move, resize and repeat axes, and that read sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .facts import (
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    OperatorCall,
    Result,
    Rule,
    as_axis,
    as_integer,
    keeps_image_axis,
    like,
    made,
    size_of,
)


def reshaped(x: Facts, wanted: Sequence[Any], batch: int | None) -> Facts:
    """Return the facts of x in another shape; -1 stands for what is left.

    Elements keep their order. The image axis of x is a digit of an element's position, of the
    value (entries after it) and of the size N; it has to be a digit of one axis of the result.
    """
    sizes = [s if isinstance(s, BatchSize) else as_integer(s, "size", -1) for s in wanted]
    if x.axis is None:
        return made(_filled_in(sizes, x.elements), x.dtype)
    axis, found = _image_axis(x, sizes) if batch is None else _image_axis_of_fixed(x, sizes, batch)
    below = x.inner * math.prod(x.sizes[x.axis + 1 :])
    after = math.prod(found[axis + 1 :])
    inner, rest = divmod(below, max(after, 1))
    if rest or not inner or found[axis] % inner or not x.elements:
        raise NotPerImageError("it joins entries of different images along an axis")
    return made(found, x.dtype, axis, found[axis] // inner)


def _filled_in(sizes: Sequence[Any], elements: int) -> list[int]:
    """Return sizes with the one that is -1 computed."""
    if any(isinstance(size, BatchSize) for size in sizes):
        raise NotPerImageError("it spreads a constant over the images of a batch")
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known and elements % known == 0:
        sizes = [elements // known if size == -1 else size for size in sizes]
    if -1 in sizes or math.prod(sizes) != elements:
        raise ArgumentsError(f"it gives {elements} elements the shape {tuple(sizes)}")
    return list(sizes)


def _image_axis(x: Facts, sizes: Sequence[Any]) -> tuple[int, list[int]]:
    """Return the axis that has a multiple of N entries, and the sizes for one image."""
    counted = [i for i, size in enumerate(sizes) if isinstance(size, BatchSize)]
    if len(counted) > 1:
        raise NotPerImageError("it gives two axes a size that depends on the number of images")
    if counted:
        (axis,) = counted
        factor = sizes[axis].factor
        if factor is None:
            raise NotPerImageError("it gives an axis a size that is no multiple of the images")
        plain = [factor if i == axis else size for i, size in enumerate(sizes)]
        return axis, _filled_in(plain, x.elements)
    if sizes.count(-1) != 1:
        raise NotPerImageError(f"it gives a batch of any size the shape {tuple(sizes)}")
    return sizes.index(-1), _filled_in(sizes, x.elements)


def _image_axis_of_fixed(x: Facts, sizes: Sequence[Any], batch: int) -> tuple[int, list[int]]:
    """Return the axis that has the digit of the images, and the sizes for one image."""
    whole = _filled_in(list(sizes), x.elements * batch)
    below = x.inner * math.prod(x.sizes[(x.axis or 0) + 1 :])
    after = 1
    for axis in reversed(range(len(whole))):
        if after <= below and after * whole[axis] >= below * batch and whole[axis] % batch == 0:
            return axis, [s // batch if i == axis else s for i, s in enumerate(whole)]
        after *= whole[axis]
    raise NotPerImageError("it joins entries of different images along an axis")


def _reshape(call: OperatorCall) -> Result:
    name = "size" if "size" in call.arguments else "shape"
    return reshaped(call.tensor(), call[name], call.batch)


def _as_other(call: OperatorCall) -> Result:
    """``reshape_as`` and ``view_as``."""
    other = call.tensor("other")
    wanted = [size_of(other, axis, call.batch) for axis in range(other.ndim)]
    return reshaped(call.tensor(), wanted, call.batch)


def _flatten(call: OperatorCall) -> Result:
    x = call.tensor()
    start, end = call.axis_of("start_dim", x.ndim), call.axis_of("end_dim", x.ndim)
    if start > end:
        raise ArgumentsError(f"it joins the axes {start} to {end}")
    sizes = [size_of(x, axis, call.batch) for axis in range(x.ndim)]
    if x.axis is None or not start <= x.axis <= end:
        joined: Any = math.prod(x.sizes[start : end + 1])
    elif call.batch is None:
        joined = BatchSize(math.prod(x.sizes[start : end + 1]))
    else:
        joined = math.prod(x.sizes[start : end + 1]) * call.batch
    return reshaped(x, [*sizes[:start], joined, *sizes[end + 1 :]], call.batch)


def _ravel(call: OperatorCall) -> Result:
    return reshaped(call.tensor(), [-1], call.batch)


def _unflatten(call: OperatorCall) -> Result:
    x = call.tensor()
    axis = call.axis_of("dim", x.ndim)
    sizes = [size_of(x, place, call.batch) for place in range(x.ndim)]
    parts = list(call["sizes"])
    if axis != x.axis:
        parts = _filled_in([as_integer(p, "sizes", -1) for p in parts], x.sizes[axis])
    return reshaped(x, [*sizes[:axis], *parts, *sizes[axis + 1 :]], call.batch)


def permuted(x: Facts, order: Sequence[int]) -> Facts:
    """Return the facts of x with its axes in another order."""
    if sorted(order) != list(range(x.ndim)):
        raise ArgumentsError(f"it orders {x.ndim} axes as {tuple(order)}")
    axis = None if x.axis is None else list(order).index(x.axis)
    return like(x, [x.sizes[place] for place in order], axis)


def _permute(call: OperatorCall) -> Result:
    x = call.tensor()
    return permuted(x, call.axes_of("dims", x.ndim))


def _transpose(call: OperatorCall) -> Result:
    x = call.tensor()
    names = ("dim0", "dim1") if "dim0" in call.arguments else ("axis0", "axis1")
    one, other = (call.axis_of(name, x.ndim) for name in names)
    return _swapped(x, one, other)


def _swapped(x: Facts, one: int, other: int) -> Facts:
    order = list(range(x.ndim))
    if order:
        order[one], order[other] = other, one
    return permuted(x, order)


def _transpose_matrix(call: OperatorCall) -> Result:
    x = call.tensor()
    if (call.packet in ("t", "numpy_T") and x.ndim > 2) or (call.packet == "mT" and x.ndim < 2):
        raise ArgumentsError(f"it transposes a tensor with {x.ndim} axes; expected a matrix")
    return x if x.ndim < 2 else _swapped(x, x.ndim - 2, x.ndim - 1)


def _movedim(call: OperatorCall) -> Result:
    x = call.tensor()
    source, destination = call.axes_of("source", x.ndim), call.axes_of("destination", x.ndim)
    if len(source) != len(destination):
        raise ArgumentsError(f"it moves the axes {source} to {destination}")
    order = dict(zip(destination, source, strict=True))
    others = iter(axis for axis in range(x.ndim) if axis not in source)
    return permuted(x, [order[a] if a in order else next(others) for a in range(x.ndim)])


def _unsqueeze(call: OperatorCall) -> Result:
    x = call.tensor()
    axis = as_axis(call["dim"], x.ndim + 1)
    moved = None if x.axis is None else x.axis + (axis <= x.axis)
    return like(x, [*x.sizes[:axis], 1, *x.sizes[axis:]], moved)


def without_axes(x: Facts, gone: Sequence[int]) -> Facts:
    """Return the facts of x without some axes, none of them the image axis."""
    moved = None if x.axis is None else x.axis - sum(axis < x.axis for axis in gone)
    return like(x, [size for axis, size in enumerate(x.sizes) if axis not in gone], moved)


def _squeeze(call: OperatorCall) -> Result:
    x = call.tensor()
    if "dim" in call.arguments:
        axes = call.axes_of("dim", x.ndim)
    else:
        axes = list(range(x.ndim))
        if x.axis is not None and x.sizes[x.axis] == 1 and call.batch is None:
            raise NotPerImageError("it drops the batch axis where there is one image")
    gone = [a for a in axes if x.sizes and x.sizes[a] == 1 and a != x.axis]
    if x.axis in axes and call.batch is None and x.axis is not None and x.sizes[x.axis] == 1:
        raise NotPerImageError("it drops the batch axis where there is one image")
    return without_axes(x, gone)


def _expand(call: OperatorCall) -> Result:
    if call.packet == "expand_as":
        other = call.tensor("other")
        return _expanded(call, [size_of(other, a, call.batch) for a in range(other.ndim)], other)
    return _expanded(call, list(call["size"]))


def _expanded(call: OperatorCall, wanted: list[Any], other: Facts | None = None) -> Facts:
    x, batch = call.tensor(), call.batch
    shift = len(wanted) - x.ndim
    if shift < 0:
        raise ArgumentsError(f"it expands {x.ndim} axes to {len(wanted)}")
    sizes: list[int] = []
    axis: int | None = None if x.axis is None else x.axis + shift
    outer = x.outer
    for place, size in enumerate(wanted):
        own = x.sizes[place - shift] if place >= shift else 1
        if place == axis:
            if size != -1 and size != size_of(x, place - shift, batch):
                raise NotPerImageError("it expands the batch axis to another size")
            sizes.append(own)
        elif isinstance(size, BatchSize):
            if own != 1 or axis is not None or size.factor is None:
                raise NotPerImageError("it spreads values over the images of a batch")
            axis, outer = place, 1
            sizes.append(size.factor)
            if other is not None and other.axis == place:
                outer = other.outer
        else:
            number = as_integer(size, "size", -1)
            if number == -1 and place >= shift:
                number = own
            if own not in (1, number):
                raise ArgumentsError(f"it expands the shape {x.sizes} to {tuple(wanted)}")
            sizes.append(number)
    return made(sizes, x.dtype, axis, outer)


def _repeat(call: OperatorCall) -> Result:
    x = call.tensor()
    repeats = list(call["repeats" if "repeats" in call.arguments else "dims"])
    if call.packet == "tile":
        repeats = [1] * (x.ndim - len(repeats)) + repeats
    shift = len(repeats) - x.ndim
    if shift < 0:
        raise ArgumentsError(f"it repeats {x.ndim} axes by {tuple(repeats)}")
    own = [1] * shift + list(x.sizes)
    axis = None if x.axis is None else x.axis + shift
    outer = x.outer
    sizes: list[int] = []
    for place, count in enumerate(repeats):
        if isinstance(count, BatchSize):
            if axis is not None or count.factor is None:
                raise NotPerImageError("it repeats values once for each image of a batch")
            # The repetitions follow each other: entries of one image are next to each other.
            axis, outer = place, 1
            sizes.append(own[place] * count.factor)
            continue
        number = as_integer(count, "repeats", 0)
        if place == axis and number != 1:
            outer *= max(number, 1)
        sizes.append(own[place] * number)
    return made(sizes, x.dtype, axis, outer)


def _repeat_interleave(call: OperatorCall) -> Result:
    x = call.tensor()
    count = call.integer("repeats", 1)
    if call["dim"] is None:
        x = reshaped(x, [-1], call.batch)
        axis = 0
    else:
        axis = call.axis_of("dim", x.ndim)
    if call.arguments.get("output_size") is not None:
        raise ArgumentsError("it is given the size of its result; expected it to compute it")
    sizes = list(x.sizes)
    if not sizes:
        raise ArgumentsError("it repeats a tensor without axes")
    sizes[axis] *= count
    return like(x, sizes)


def _along(what: str, argument: str = "dims") -> Rule:
    def rule(call: OperatorCall) -> Result:
        x = call.tensor()
        axes = call.axes_of(argument, x.ndim)
        keeps_image_axis(x, axes, what)
        return like(x, x.sizes)

    return rule


def _roll(call: OperatorCall) -> Result:
    x = call.tensor()
    shifts, dims = call.integers("shifts"), call["dims"]
    if not dims:
        if x.axis is not None:
            raise NotPerImageError("it rolls all elements of a batch")
        return like(x, x.sizes)
    axes = [as_axis(dim, x.ndim) for dim in (dims if isinstance(dims, (list, tuple)) else [dims])]
    if len(axes) != len(shifts):
        raise ArgumentsError(f"it rolls the axes {axes} by {shifts}")
    keeps_image_axis(x, axes, "rolls")
    return like(x, x.sizes)


def _triangle(call: OperatorCall) -> Result:
    x = call.tensor()
    if x.ndim < 2:
        raise ArgumentsError(f"it takes a triangle of a tensor with {x.ndim} axes")
    call.integer("diagonal")
    keeps_image_axis(x, [x.ndim - 2, x.ndim - 1], "takes a triangle")
    return like(x, x.sizes)


def _pixel_shuffle(call: OperatorCall) -> Result:
    x = call.tensor()
    if x.ndim < 3 or not x.elements:
        raise ArgumentsError(f"it rearranges a tensor of shape {x.sizes}; expected 3 axes or more")
    keeps_image_axis(x, [x.ndim - 3, x.ndim - 2, x.ndim - 1], "rearranges")
    *before, channels, rows, columns = x.sizes
    if call.packet == "pixel_shuffle":
        factor = call.integer("upscale_factor", 1)
        if channels % factor**2:
            raise ArgumentsError(f"it spreads {channels} channels over {factor} x {factor} pixels")
        return like(x, [*before, channels // factor**2, rows * factor, columns * factor])
    factor = call.integer("downscale_factor", 1)
    if rows % factor or columns % factor:
        raise ArgumentsError(f"it collects {factor} x {factor} pixels of {rows} x {columns}")
    return like(x, [*before, channels * factor**2, rows // factor, columns // factor])


def _channel_shuffle(call: OperatorCall) -> Result:
    x = call.tensor()
    groups = call.integer("groups", 1)
    if x.ndim < 3 or x.sizes[1] % groups:
        raise ArgumentsError(f"it shuffles {groups} groups of channels of the shape {x.sizes}")
    keeps_image_axis(x, [1], "shuffles")
    return like(x, x.sizes)


def _unfold(call: OperatorCall) -> Result:
    x = call.tensor()
    if not x.sizes:
        raise ArgumentsError("it takes windows of a tensor without axes")
    axis = call.axis_of("dimension", x.ndim)
    keeps_image_axis(x, [axis], "takes windows")
    size, step = call.integer("size", 0), call.integer("step", 1)
    if size > x.sizes[axis]:
        raise ArgumentsError(f"it takes windows of {size} of {x.sizes[axis]} entries")
    count = (x.sizes[axis] - size) // step + 1
    return like(x, [*x.sizes[:axis], count, *x.sizes[axis + 1 :], size])


def _as_strided(call: OperatorCall) -> Result:
    """By position in memory, of a tensor whose elements are in order.

    The first axis must be the images, and all other axes must stay inside one image.
    """
    x = call.tensor()
    sizes, strides = list(call["size"]), call.integers("stride", None, 0)
    offset = 0 if call["storage_offset"] is None else call.integer("storage_offset", 0)
    if len(sizes) != len(strides) or not sizes:
        raise ArgumentsError(f"it has {len(sizes)} sizes and {len(strides)} strides")
    if x.axis is None:
        plain = [as_integer(size, "size", 0) for size in sizes]
        reach = offset + sum((n - 1) * s for n, s in zip(plain, strides, strict=True))
        if math.prod(plain) and reach >= x.elements:
            raise ArgumentsError("it reads beyond the end of a tensor")
        return made(plain, x.dtype)
    inside = [as_integer(size, "size", 1) for size in sizes[1:]]
    reach = offset + sum((n - 1) * s for n, s in zip(inside, strides[1:], strict=True))
    images = size_of(x, 0, call.batch)
    if x.axis != 0 or x.sizes[0] != 1 or sizes[0] != images or strides[0] != x.elements:
        raise NotPerImageError("it reads memory by position across images")
    if reach >= x.elements:
        raise NotPerImageError("it reads memory by position beyond an image")
    return made([1, *inside], x.dtype, 0)


def _size(call: OperatorCall) -> Result:
    x = call.tensor()
    axis = call.axis_of("dim", x.ndim)
    if not x.sizes:
        raise ArgumentsError("it takes the size of a tensor without axes")
    return size_of(x, axis, call.batch)


def _numel(call: OperatorCall) -> Result:
    x = call.tensor()
    if x.axis is None:
        return x.elements
    return BatchSize(x.elements) if call.batch is None else x.elements * call.batch


RULES: dict[str, Rule] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _reshape),
    **dict.fromkeys(("reshape_as", "view_as"), _as_other),
    "flatten": _flatten,
    "ravel": _ravel,
    "unflatten": _unflatten,
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("t", "numpy_T", "mT"), _transpose_matrix),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("expand", "broadcast_to", "expand_as"), _expand),
    **dict.fromkeys(("repeat", "tile"), _repeat),
    "repeat_interleave": _repeat_interleave,
    "flip": _along("turns the order"),
    "roll": _roll,
    **dict.fromkeys(("tril", "triu"), _triangle),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _pixel_shuffle),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _channel_shuffle),
    "unfold": _unfold,
    "as_strided": _as_strided,
    "sym_size": _size,
    "sym_numel": _numel,
}
