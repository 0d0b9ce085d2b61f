"""Rules of operators that make tensors of sizes and numbers alone."""

from __future__ import annotations

import math
from typing import Any

import torch

from .facts import (
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    Number,
    OperatorCall,
    Result,
    Rule,
    as_integer,
    check_elements,
    check_fits,
    made,
)


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


RULES: dict[str, Rule] = {
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"), _created),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like"), _created_like),
    "arange": _range,
    "linspace": _linspace,
    "eye": _eye,
    "scalar_tensor": _scalar_tensor,
    **dict.fromkeys(("tril_indices", "triu_indices"), _triangle_indices),
}
