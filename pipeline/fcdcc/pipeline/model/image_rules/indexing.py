"""Rules of operators that pick or write entries at places that tensors hold.

Kernels check places against sizes as they run and raise an error for one that is outside.
The shapes that they rely on are checked here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .facts import (
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    OperatorCall,
    Result,
    Rule,
    broadcast,
    check_fits,
    keeps_image_axis,
    like,
    made,
)

_PLACES = (torch.int64, torch.int32)


def _places(x: Facts, only_long: bool = False) -> Facts:
    if x.dtype not in (_PLACES[:1] if only_long else _PLACES):
        raise ArgumentsError(f"it takes places of {x.dtype}; expected int64")
    return x


def _index(call: OperatorCall) -> Facts:
    """``x[:, places, …]``: all places at once, where the first of them stands."""
    x = call.tensor()
    given = list(call["indices"])
    if len(given) > x.ndim:
        raise ArgumentsError(f"it has {len(given)} indices for {x.ndim} axes")
    given = _without_masks(call, x, given)
    axes = [axis for axis, index in enumerate(given) if index is not None]
    if not axes or len(given) > x.ndim:
        raise ArgumentsError(f"it has {len(given)} indices for {x.ndim} axes")
    indices = [_places(index) for index in given if index is not None]
    keeps_image_axis(x, axes, "picks places")
    if not x.elements:
        raise ArgumentsError(f"it picks places of a tensor of shape {x.sizes}")
    sizes, image, outer = broadcast(indices, call.batch)
    if x.axis is not None and image is not None:
        raise NotPerImageError("it picks places of images by indices that depend on images")
    together = axes == list(range(axes[0], axes[-1] + 1))
    first = axes[0] if together else 0
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    before = [axis for axis in kept if axis < first] if together else []
    order = [x.sizes[axis] for axis in before]
    after = [axis for axis in kept if axis not in before]
    whole = [*order, *sizes, *(x.sizes[axis] for axis in after)]
    if x.axis is not None:
        place = before.index(x.axis) if x.axis in before else 0
        if x.axis not in before:
            place = len(before) + len(sizes) + after.index(x.axis)
        return made(whole, x.dtype, place, x.outer)
    return made(whole, x.dtype, None if image is None else len(before) + image, outer)


def _without_masks(
    call: OperatorCall, x: Facts, given: Sequence[Facts | None]
) -> list[Facts | None]:
    """Return indices with each constant mask as the places where it is true."""
    found: list[Facts | None] = []
    for index in given:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            found.append(index)
            continue
        if call.packet == "_unsafe_index":
            raise ArgumentsError("it picks places by a mask")
        covered = x.sizes[len(found) : len(found) + index.ndim]
        if index.constant is None:
            raise NotPerImageError("its shape depends on values: it picks places by a mask")
        if index.sizes != covered or index.constant.is_meta or not index.ndim:
            raise ArgumentsError(f"it has a mask of shape {index.sizes} for {covered}")
        count = int(index.constant.count_nonzero())
        found.extend([Facts((count,), torch.int64)] * index.ndim)
    return found


def _index_put(call: OperatorCall) -> Result:
    x, values = call.tensor(), call.tensor("values")
    if values.dtype != x.dtype:
        raise ArgumentsError(f"it writes {values.dtype} into {x.dtype}")
    given = list(call["indices"])
    masks = [index for index in given if isinstance(index, Facts) and index.dtype == torch.bool]
    if len(given) == len(masks) == 1 and masks[0].constant is None:
        mask = masks[0]
        same = (mask.sizes, mask.axis, mask.outer) == (x.sizes[: mask.ndim], x.axis, x.outer)
        if values.elements != 1 or values.axis is not None or (x.axis is not None and not same):
            raise NotPerImageError("it writes values by a mask across images")
        if mask.sizes != x.sizes[: mask.ndim]:
            raise ArgumentsError(f"it has a mask of shape {mask.sizes} for {x.sizes}")
        return like(x, x.sizes)
    view = _index(call)
    if view.axis is not None and x.axis is None:
        raise NotPerImageError("it writes to a constant at places that depend on images")
    sizes, axis, outer = broadcast([view, values], call.batch)
    if (sizes, axis, outer) != (view.sizes, view.axis, view.outer):
        raise ArgumentsError(f"it writes the shape {values.sizes} in the place of {view.sizes}")
    return like(x, x.sizes)


def _index_select(call: OperatorCall) -> Result:
    x, index = call.tensor(), _places(call.tensor("index"))
    if index.ndim > 1 or not x.ndim:
        raise ArgumentsError(f"it picks places of shape {index.sizes} of {x.sizes}")
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "picks places")
    if x.axis is not None and index.axis is not None:
        raise NotPerImageError("it picks places of images by indices that depend on images")
    sizes = [*x.sizes[:axis], index.elements, *x.sizes[axis + 1 :]]
    if index.axis is not None:
        return made(sizes, x.dtype, axis, index.outer)
    return like(x, sizes)


def _embedding(call: OperatorCall) -> Result:
    weight, index = call.tensor("weight"), _places(call.tensor("indices"))
    if weight.ndim != 2 or not weight.elements:
        raise ArgumentsError(f"it has a table of shape {weight.sizes}")
    if weight.axis is not None:
        raise NotPerImageError("its table depends on the images")
    if isinstance(call["padding_idx"], BatchSize):
        raise NotPerImageError("its argument 'padding_idx' depends on the number of images")
    if call["sparse"] is not False:
        raise ArgumentsError("it has sparse gradients")
    return made([*index.sizes, weight.sizes[1]], weight.dtype, index.axis, index.outer)


def _same_images(operands: Sequence[Facts]) -> None:
    """Refuse tensors that do not have the same images along the same axis."""
    first = operands[0]
    for other in operands[1:]:
        if (first.axis, first.outer) != (other.axis, other.outer):
            raise NotPerImageError("the images of one operand meet other images of another")
        if first.axis is not None and first.sizes[first.axis] != other.sizes[first.axis]:
            raise NotPerImageError("it reads some images of a batch")


def _gather(call: OperatorCall) -> Result:
    x, index = call.tensor(), _places(call.tensor("index"), only_long=True)
    if x.ndim != index.ndim or not x.ndim:
        raise ArgumentsError(f"it picks places of shape {index.sizes} of {x.sizes}")
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "picks places")
    keeps_image_axis(index, [axis], "picks places")
    _same_images([x, index])
    if any(index.sizes[a] > x.sizes[a] for a in range(x.ndim) if a != axis):
        raise ArgumentsError(f"it picks places of shape {index.sizes} of {x.sizes}")
    return made(index.sizes, x.dtype, index.axis, index.outer)


def _take_along(call: OperatorCall) -> Result:
    x, index = call.tensor(), _places(call.tensor("indices"), only_long=True)
    if call["dim"] is None or x.ndim != index.ndim or not x.ndim or not x.elements:
        raise ArgumentsError(f"it picks places of shape {index.sizes} of {x.sizes}")
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "picks places")
    keeps_image_axis(index, [axis], "picks places")
    narrow = [
        Facts((*f.sizes[:axis], 1, *f.sizes[axis + 1 :]), f.dtype, f.axis, f.outer)
        for f in (x, index)
    ]
    sizes, image, outer = broadcast(narrow, call.batch)
    whole = [*sizes[:axis], index.sizes[axis], *sizes[axis + 1 :]]
    return made(whole, x.dtype, image, outer)


def _scatter(call: OperatorCall) -> Result:
    x, index = call.tensor(), _places(call.tensor("index"), only_long=True)
    if x.ndim != index.ndim or not x.ndim:
        raise ArgumentsError(f"it writes to places of shape {index.sizes} of {x.sizes}")
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "writes to places")
    operands = [x, index]
    if "src" in call.arguments:
        source = call.tensor("src")
        if source.dtype != x.dtype or source.ndim != x.ndim:
            raise ArgumentsError(f"it writes {source.sizes} of {source.dtype} into {x.dtype}")
        if any(i > s for i, s in zip(index.sizes, source.sizes, strict=True)):
            raise ArgumentsError(f"it writes {source.sizes} to places of shape {index.sizes}")
        operands.append(source)
    elif isinstance(call["value"], BatchSize):
        raise NotPerImageError("its argument 'value' depends on the number of images")
    else:
        check_fits(call["value"], x.dtype)
    _same_images(operands)
    if any(index.sizes[a] > x.sizes[a] for a in range(x.ndim) if a != axis):
        raise ArgumentsError(f"it writes to places of shape {index.sizes} of {x.sizes}")
    return like(x, x.sizes)


def _index_write(call: OperatorCall) -> Result:
    """``index_add``, ``index_copy`` and ``index_fill`` at constant places of one axis."""
    x, index = call.tensor(), _places(call.tensor("index"), only_long=True)
    if index.ndim != 1 or not x.ndim:
        raise ArgumentsError(f"it writes to places of shape {index.sizes} of {x.sizes}")
    if index.axis is not None:
        raise NotPerImageError("it writes to places that depend on images")
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "writes to places")
    if call.packet == "index_fill":
        if isinstance(call["value"], BatchSize):
            raise NotPerImageError("its argument 'value' depends on the number of images")
        check_fits(call["value"], x.dtype)
        return like(x, x.sizes)
    source = call.tensor("source")
    expected = (*x.sizes[:axis], index.elements, *x.sizes[axis + 1 :])
    if source.sizes != expected or source.dtype != x.dtype:
        raise ArgumentsError(f"it writes {source.sizes} of {source.dtype} in place of {expected}")
    _same_images([x, source])
    return like(x, x.sizes)


def _number_of(call: OperatorCall) -> Result:
    """Return the number in a constant of one element; other tensors have none before a run."""
    x = call.tensor()
    if x.constant is None or x.elements != 1:
        raise ArgumentsError("it makes a number of values that are not known before the run")
    return math.nan if x.constant.is_meta else x.constant.item()


RULES: dict[str, Rule] = {
    **dict.fromkeys(("index", "_unsafe_index"), _index),
    **dict.fromkeys(("index_put", "_unsafe_index_put"), _index_put),
    "index_select": _index_select,
    "embedding": _embedding,
    "gather": _gather,
    "take_along_dim": _take_along,
    **dict.fromkeys(("scatter", "scatter_add"), _scatter),
    **dict.fromkeys(("index_add", "index_copy", "index_fill"), _index_write),
    **dict.fromkeys(("_local_scalar_dense", "item"), _number_of),
}
