"""Rules of operators that cut, join and pad tensors along axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from .facts import (
    TO_THE_END,
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    OperatorCall,
    Result,
    Rule,
    align_images,
    as_axis,
    as_integer,
    broadcast,
    is_uniform,
    keeps_image_axis,
    like,
    made,
    size_of,
)
from .reshaping import without_axes


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


MAX_STEP = 1 << 31
"""Steps of a slice are smaller."""


def _slice_bounds(call: OperatorCall, size: int) -> tuple[int, int]:
    """Return (start, length) of a slice of an axis that is not the image axis."""
    start, end, step = call["start"], call["end"], call.integer("step", 1)
    if step >= MAX_STEP:
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


RULES: dict[str, Rule] = {
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
}
