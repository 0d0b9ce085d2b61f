"""Rules of operators that move, cut, join and repeat axes, and make tensors of sizes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .facts import (
    TO_THE_END,
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    Number,
    OperatorCall,
    Result,
    Rule,
    align_images,
    as_axis,
    as_integer,
    broadcast,
    check_elements,
    check_fits,
    is_uniform,
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


def _diagonal(call: OperatorCall) -> Facts:
    x = call.tensor()
    one, other = call.axis_of("dim1", x.ndim), call.axis_of("dim2", x.ndim)
    offset = call.integer("offset")
    if one == other or x.ndim < 2:
        raise ArgumentsError(f"it takes the diagonal of the axes {one} and {other}")
    keeps_image_axis(x, [one, other], "takes a diagonal")
    rows, columns = x.sizes[one], x.sizes[other]
    length = min(rows + min(offset, 0), columns - max(offset, 0))
    if length < 0:
        raise ArgumentsError(f"it takes diagonal {offset} of {rows} x {columns}")
    left = without_axes(x, [one, other])
    return like(left, [*left.sizes, length])


def _scatter_into(view_of: Callable[[OperatorCall], Facts]) -> Rule:
    """Return the rule of an operator that puts ``src`` in the place of a view of ``self``."""

    def rule(call: OperatorCall) -> Result:
        source = call.tensor("src")
        for x in _with_image_axis(call.tensor(), source, call.batch):
            view = view_of(
                OperatorCall(call.packet, call.overload, {**call.arguments, "self": x}, call.batch)
            )
            if source.sizes != view.sizes:
                continue
            if (source.axis, source.outer) == (view.axis, view.outer):
                return like(x, x.sizes)
        raise NotPerImageError(f"it writes values of shape {source.sizes} across images")

    return rule


def _with_image_axis(x: Facts, source: Facts, batch: int | None) -> Iterator[Facts]:
    """Yield a value, and if it is a constant all ways to see it as one value for each image."""
    yield x
    if batch is None or x.axis is not None or source.axis is None:
        return
    for axis, size in enumerate(x.sizes):
        entries = source.sizes[source.axis]
        if size == batch * entries and is_uniform(x, axis):
            sizes = [*x.sizes[:axis], entries, *x.sizes[axis + 1 :]]
            yield Facts(tuple(sizes), x.dtype, axis, source.outer)


def _slice_bounds(call: OperatorCall, size: int) -> tuple[int, int]:
    """Return (start, length) of a slice of an axis that is not the image axis."""
    start, end, step = call["start"], call["end"], call.integer("step", 1)
    if step >= MAX_RANGE:
        raise ArgumentsError(f"it takes every {step}th entry")
    first = 0 if start is None else as_integer(start, "start")
    last = size if end is None else as_integer(end, "end")
    first = min(max(first + size if first < 0 else first, 0), size)
    last = min(max(last + size if last < 0 else last, first), size)
    return first, -(-(last - first) // step)


def _slice(call: OperatorCall) -> Facts:
    x = call.tensor()
    if not x.sizes:
        raise ArgumentsError("it slices a tensor without axes")
    axis = call.axis_of("dim", x.ndim)
    if axis == x.axis:
        _all_images(call, x)
        return like(x, x.sizes)
    _, length = _slice_bounds(call, x.sizes[axis])
    return like(x, [*x.sizes[:axis], length, *x.sizes[axis + 1 :]])


def _all_images(call: OperatorCall, x: Facts) -> None:
    """Refuse a slice of the image axis unless it takes all of it."""
    start, end = call["start"], call["end"]
    whole = size_of(x, x.axis or 0, call.batch)
    to_end = end is None or end == whole
    if not to_end and isinstance(end, int):
        to_end = end >= (TO_THE_END if isinstance(whole, BatchSize) else whole)
    if start not in (None, 0) or not to_end or call["step"] != 1:
        raise NotPerImageError("it takes some images of a batch")


def _narrow(call: OperatorCall) -> Result:
    x = call.tensor()
    axis = call.axis_of("dim", x.ndim)
    if not isinstance(call["start"], int):
        raise ArgumentsError("it starts at a place that a tensor holds")
    if not x.sizes:
        raise ArgumentsError("it narrows a tensor without axes")
    if axis == x.axis:
        if call["start"] != 0 or call["length"] != size_of(x, axis, call.batch):
            raise NotPerImageError("it takes some images of a batch")
        return like(x, x.sizes)
    start, length = call.integer("start"), call.integer("length", 0)
    start += x.sizes[axis] if start < 0 else 0
    if not 0 <= start <= start + length <= x.sizes[axis]:
        raise ArgumentsError(f"it takes {length} entries from {start} of {x.sizes[axis]}")
    return like(x, [*x.sizes[:axis], length, *x.sizes[axis + 1 :]])


def _select(call: OperatorCall) -> Facts:
    x = call.tensor()
    if not x.sizes:
        raise ArgumentsError("it selects from a tensor without axes")
    axis = call.axis_of("dim", x.ndim)
    if axis == x.axis:
        raise NotPerImageError("it takes one image of a batch")
    index = call.integer("index")
    if not -x.sizes[axis] <= index < x.sizes[axis]:
        raise ArgumentsError(f"it takes entry {index} of {x.sizes[axis]}")
    return without_axes(x, [axis])


def _unbind(call: OperatorCall) -> Result:
    x = call.tensor()
    if not x.sizes:
        raise ArgumentsError("it unbinds a tensor without axes")
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "separates")
    return [without_axes(x, [axis])] * x.sizes[axis]


MAX_PARTS = 1 << 16
"""Parts that an operator may split a tensor into."""


def _parts(x: Facts, axis: int, lengths: Sequence[int]) -> list[Facts]:
    return [like(x, [*x.sizes[:axis], n, *x.sizes[axis + 1 :]]) for n in lengths]


def _split_axis(call: OperatorCall) -> tuple[Facts, int, int]:
    x = call.tensor()
    if not x.sizes:
        raise ArgumentsError("it splits a tensor without axes")
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "splits")
    return x, axis, x.sizes[axis]


def _split(call: OperatorCall) -> Result:
    x, axis, size = _split_axis(call)
    wanted = call["split_size" if "split_size" in call.arguments else "split_sizes"]
    if isinstance(wanted, (list, tuple)):
        lengths = [as_integer(n, "split_sizes", 0) for n in wanted]
        if sum(lengths) != size:
            raise ArgumentsError(f"it splits {size} entries into {lengths}")
    else:
        each = as_integer(wanted, "split_size", 1)
        if size // each > MAX_PARTS:
            raise ArgumentsError(f"it splits {size} entries into parts of {each}")
        lengths = [min(each, size - start) for start in range(0, size, each)] or [0]
    return _parts(x, axis, lengths)


def _chunk(call: OperatorCall) -> Result:
    x, axis, size = _split_axis(call)
    chunks = call.integer("chunks", 1)
    if chunks > MAX_PARTS:
        raise ArgumentsError(f"it splits {size} entries into {chunks} parts")
    each = max(-(-size // chunks), 1)
    return _parts(x, axis, [min(each, size - s) for s in range(0, size, each)] or [0] * chunks)


def _tensor_split(call: OperatorCall) -> Result:
    x, axis, size = _split_axis(call)
    if "sections" in call.arguments:
        sections = call.integer("sections", 1)
        if sections > MAX_PARTS:
            raise ArgumentsError(f"it splits {size} entries into {sections} parts")
        lengths = [size // sections + (i < size % sections) for i in range(sections)]
        return _parts(x, axis, lengths)
    places = [as_integer(i, "indices") for i in call["indices"]]
    stops = [min(max(p + size if p < 0 else p, 0), size) for p in [*places, size]]
    starts = [0, *stops[:-1]]
    return _parts(x, axis, [max(b - a, 0) for a, b in zip(starts, stops, strict=True)])


def _joined(call: OperatorCall, operands: list[Facts], axis: int) -> Facts:
    """Return the facts of tensors side by side along an axis that is not the images'."""
    first = max(operands, key=lambda operand: operand.axis is not None)
    ndim = first.ndim
    kept = [o for o in operands if o.sizes != (0,) or ndim == 1]
    if any(o.ndim != ndim for o in kept):
        raise ArgumentsError(f"it joins tensors of the shapes {[o.sizes for o in operands]}")
    image, outer, entries = align_images(kept, [o.axis for o in kept])
    if image == axis:
        raise NotPerImageError("it joins batches of images")
    length = 0
    for operand in kept:
        for place, size in enumerate(operand.sizes):
            if place == axis:
                length += size
            elif place == image and operand.axis is None:
                fixed = call.batch is not None and size == call.batch * entries
                if not (fixed and is_uniform(operand, place)):
                    raise NotPerImageError("a constant has values of its own for some images")
            elif size != first.sizes[place]:
                raise ArgumentsError(
                    f"it joins tensors of the shapes {[o.sizes for o in operands]}"
                )
    sizes = [*first.sizes]
    sizes[axis] = length
    dtype = kept[0].dtype
    for operand in kept[1:]:
        dtype = torch.promote_types(dtype, operand.dtype)
    return made(sizes, dtype, image, outer)


def _cat(call: OperatorCall) -> Result:
    operands = call.tensors("tensors")
    ndim = max(operand.ndim for operand in operands)
    if ndim == 0:
        raise ArgumentsError("it joins tensors without axes")
    return _joined(call, operands, as_axis(call["dim"], ndim))


def _stack(call: OperatorCall) -> Result:
    operands = call.tensors("tensors")
    axis = as_axis(call["dim"], max(operand.ndim for operand in operands) + 1)
    return _stacked(call, operands, axis)


def _stacked(call: OperatorCall, operands: list[Facts], axis: int) -> Facts:
    if any(axis > operand.ndim for operand in operands):
        raise ArgumentsError(f"it stacks tensors of the shapes {[o.sizes for o in operands]}")
    wider = [
        like(
            o,
            [*o.sizes[:axis], 1, *o.sizes[axis:]],
            None if o.axis is None else o.axis + (axis <= o.axis),
        )
        for o in operands
    ]
    constants = [
        Facts(w.sizes, w.dtype, None, 1, None if o.constant is None else o.constant.unsqueeze(axis))
        if w.axis is None
        else w
        for w, o in zip(wider, operands, strict=True)
    ]
    return _joined(call, constants, axis)


def _stack_by_name(call: OperatorCall) -> Result:
    """``hstack``, ``vstack``, ``dstack`` and ``column_stack`` of tensors with enough axes."""
    operands = call.tensors("tensors")
    least = {"hstack": 1, "vstack": 2, "dstack": 3, "column_stack": 2}[call.packet]
    if any(operand.ndim < least for operand in operands):
        raise ArgumentsError(f"it joins tensors with fewer than {least} axes")
    place = {"hstack": int(operands[0].ndim > 1), "vstack": 0, "dstack": 2, "column_stack": 1}
    return _joined(call, operands, place[call.packet])


def _broadcast_tensors(call: OperatorCall) -> Result:
    operands = call.tensors("tensors")
    sizes, axis, outer = broadcast(operands, call.batch)
    return [made(sizes, operand.dtype, axis, outer) for operand in operands]


def _meshgrid(call: OperatorCall) -> Result:
    operands = call.tensors("tensors")
    if any(o.axis is not None for o in operands):
        raise NotPerImageError("it makes a grid of the images of a batch")
    if any(o.ndim > 1 for o in operands):
        raise ArgumentsError("it makes a grid of tensors with more than one axis")
    sizes = [o.elements for o in operands]
    if call.arguments.get("indexing", "ij") == "xy" and len(sizes) > 1:
        sizes[0], sizes[1] = sizes[1], sizes[0]
    elif call.arguments.get("indexing", "ij") not in ("ij", "xy"):
        raise ArgumentsError(f"its argument 'indexing' is {call['indexing']!r:.40}")
    if any(o.dtype != operands[0].dtype for o in operands):
        raise ArgumentsError("it makes a grid of tensors of different types")
    return [made(sizes, o.dtype) for o in operands]


def _padded(call: OperatorCall) -> Result:
    x = call.tensor()
    amounts = call.integers("pad" if "pad" in call.arguments else "padding")
    if len(amounts) % 2 or len(amounts) > 2 * x.ndim:
        raise ArgumentsError(f"it pads a tensor with {x.ndim} axes by {amounts}")
    mode = _pad_mode(call)
    ndim = len(amounts) // 2
    if call.packet[-1] == "d" and call.packet[-2] in "123" and ndim != int(call.packet[-2]):
        raise ArgumentsError(f"it pads {call.packet[-2]} axes by {amounts}")
    if mode != "constant" and not x.elements:
        raise ArgumentsError(f"it pads a tensor of shape {x.sizes} ({mode})")
    if mode != "constant" and not (1 <= ndim <= 3 and x.ndim in (ndim + 1, ndim + 2)):
        raise ArgumentsError(f"it pads a tensor with {x.ndim} axes by {amounts} ({mode})")
    sizes = list(x.sizes)
    for place in range(ndim):
        before, after = amounts[2 * place], amounts[2 * place + 1]
        axis = x.ndim - 1 - place
        if not before and not after:
            continue
        keeps_image_axis(x, [axis], "pads")
        size = sizes[axis]
        most = {"constant": 1 << 62, "reflect": size - 1, "replicate": 1 << 62, "circular": size}
        if max(before, after) > most[mode] or (not size and mode != "constant"):
            raise ArgumentsError(f"it pads {size} entries by ({before}, {after}) ({mode})")
        if before + size < 0 or after + size < 0:
            raise ArgumentsError(f"it crops {size} entries by ({before}, {after})")
        sizes[axis] = size + before + after
    if mode == "constant" and isinstance(call.arguments.get("value"), BatchSize):
        raise NotPerImageError("its argument 'value' depends on the number of images")
    return like(x, sizes)


def _pad_mode(call: OperatorCall) -> str:
    if call.packet == "pad":
        mode = call["mode"]
        if mode not in ("constant", "reflect", "replicate", "circular"):
            raise ArgumentsError(f"its argument 'mode' is {mode!r:.40}")
        return str(mode)
    kinds = {"constant": "constant", "reflection": "reflect", "replication": "replicate"}
    return kinds[call.packet.partition("_")[0]]


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


def _created(call: OperatorCall) -> Result:
    """Tensors of one number: the same for every image along an axis of images."""
    sizes: list[int] = []
    axis: int | None = None
    for place, size in enumerate(call["size"]):
        if isinstance(size, BatchSize):
            if axis is not None or size.factor is None:
                raise NotPerImageError("its shape depends on the number of images")
            axis = place
            sizes.append(size.factor)
        else:
            sizes.append(as_integer(size, "size", 0))
    _plain_layout(call)
    value: Number = call.arguments.get("fill_value", 0.0)
    if isinstance(value, BatchSize):
        raise NotPerImageError("its argument 'fill_value' depends on the number of images")
    base = call.arguments.get("self")
    default = base.dtype if isinstance(base, Facts) else _type_of_number(call, value)
    check_fits(value, call.dtype(default))
    return made(sizes, call.dtype(default), axis)


def _type_of_number(call: OperatorCall, value: Any) -> torch.dtype:
    if call.packet != "full":
        return torch.float32
    if isinstance(value, bool):
        return torch.bool
    if isinstance(value, int):
        return torch.int64
    return torch.complex64 if isinstance(value, complex) else torch.float32


def _plain_layout(call: OperatorCall) -> None:
    if call.arguments.get("layout") not in (None, torch.strided):
        raise ArgumentsError("it makes a tensor that is not strided")


def _created_like(call: OperatorCall) -> Result:
    x = call.tensor()
    _plain_layout(call)
    if isinstance(call.arguments.get("fill_value"), BatchSize):
        raise NotPerImageError("its argument 'fill_value' depends on the number of images")
    check_fits(call.arguments.get("fill_value"), call.dtype(x.dtype))
    return made(x.sizes, call.dtype(x.dtype), x.axis, x.outer)


MAX_RANGE = 1 << 31
"""Elements that a range of numbers may have."""


MAX_NUMBER = 1 << 53
"""Numbers of a range are smaller: all integers below have a floating-point number."""


def _range(call: OperatorCall) -> Result:
    given = [call.arguments.get(name) for name in ("start", "end", "step")]
    if any(isinstance(value, BatchSize) for value in given):
        raise NotPerImageError("it numbers the images of a batch")
    start, end, step = (
        default if value is None else value for value, default in zip(given, (0, 0, 1), strict=True)
    )
    numbers = (start, end, step)
    if not all(isinstance(n, (int, float)) and abs(n) < MAX_NUMBER for n in numbers) or not step:
        raise ArgumentsError(f"it counts from {start} to {end} in steps of {step}")
    count = (end - start) / step
    if not 0 <= count <= MAX_RANGE:
        raise ArgumentsError(f"it counts from {start} to {end} in steps of {step}")
    _plain_layout(call)
    whole = all(isinstance(n, int) for n in numbers)
    length = -(-(end - start) // step) if whole else math.ceil(count)
    return made([int(length)], call.dtype(torch.int64 if whole else torch.float32))


def _linspace(call: OperatorCall) -> Result:
    for name in ("start", "end"):
        if not isinstance(call[name], (int, float)):
            raise ArgumentsError(f"its argument {name!r} is {call[name]!r:.40}")
    _plain_layout(call)
    return made([call.integer("steps", 0)], call.dtype(torch.float32))


def _eye(call: OperatorCall) -> Result:
    rows = call.integer("n", 0)
    columns = call.integer("m", 0) if "m" in call.arguments else rows
    _plain_layout(call)
    return made([rows, columns], call.dtype(torch.float32))


def _scalar_tensor(call: OperatorCall) -> Result:
    if isinstance(call["s"], BatchSize):
        raise NotPerImageError("its argument 's' depends on the number of images")
    _plain_layout(call)
    return made([], call.dtype(torch.float32))


def _triangle_indices(call: OperatorCall) -> Result:
    rows, columns = call.integer("row", 0), call.integer("col", 0)
    offset = call.integer("offset")
    check_elements([rows, columns])
    if max(rows, columns, abs(offset)) > 1 << 20:
        raise ArgumentsError(f"it lists a triangle of {rows} x {columns}")
    lower = sum(min(max(i + offset + 1, 0), columns) for i in range(rows))
    if call.packet == "triu_indices":
        below = sum(min(max(i + offset, 0), columns) for i in range(rows))
        lower = rows * columns - below
    _plain_layout(call)
    return made([2, lower], call.dtype(torch.int64))


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
    "diagonal": _diagonal,
    "diagonal_scatter": _scatter_into(_diagonal),
    "slice": _slice,
    "slice_scatter": _scatter_into(_slice),
    "narrow": _narrow,
    "select": _select,
    "select_scatter": _scatter_into(_select),
    "unbind": _unbind,
    **dict.fromkeys(("split", "unsafe_split", "split_with_sizes"), _split),
    "unsafe_split_with_sizes": _split,
    **dict.fromkeys(("chunk", "unsafe_chunk"), _chunk),
    "tensor_split": _tensor_split,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    **dict.fromkeys(("hstack", "vstack", "dstack", "column_stack"), _stack_by_name),
    "broadcast_tensors": _broadcast_tensors,
    "meshgrid": _meshgrid,
    **dict.fromkeys(("pad", "constant_pad_nd"), _padded),
    **dict.fromkeys((f"reflection_pad{n}d" for n in "123"), _padded),
    **dict.fromkeys((f"replication_pad{n}d" for n in "123"), _padded),
    "unfold": _unfold,
    "as_strided": _as_strided,
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"), _created),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like"), _created_like),
    "arange": _range,
    "linspace": _linspace,
    "eye": _eye,
    "scalar_tensor": _scalar_tensor,
    **dict.fromkeys(("tril_indices", "triu_indices"), _triangle_indices),
    "sym_size": _size,
    "sym_numel": _numel,
}
