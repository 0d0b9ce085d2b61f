"""Rules for operators that move, join, split or reduce axes and keep the row axis as an axis.

The row axis may move to another position (channels last and back), and other axes may be cut,
joined and reduced in any way. In a shape that is an argument, the number of rows is replaced
by that of the range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import RowsError
from ..operation import (
    Aligned,
    Call,
    NotLocalError,
    Operand,
    RowOperation,
    Rule,
    Source,
    aligned,
    source_of,
)
from ..ranges import Rows
from .pointwise import broadcast


def _permute(call: Call) -> RowOperation:
    x, dims = call.main(), call["dims"]
    return aligned(call, x, [int(d) % x.ndim for d in dims].index(x.rows_at))


def _transpose(call: Call) -> RowOperation:
    x = call.main()
    one, other = (int(call[name]) % x.ndim for name in _two_dims(call))
    return aligned(call, x, {one: other, other: one}.get(x.rows_at, x.rows_at))


def _two_dims(call: Call) -> tuple[str, str]:
    return ("dim0", "dim1") if "dim0" in call.arguments else ("axis0", "axis1")


def _movedim(call: Call) -> RowOperation:
    x = call.main()
    source, destination = (
        [int(d) % x.ndim for d in ([value] if isinstance(value, int) else value)]
        for value in (call["source"], call["destination"])
    )
    order = dict(zip(destination, source, strict=True))
    others = iter(axis for axis in range(x.ndim) if axis not in source)
    places = [order[axis] if axis in order else next(others) for axis in range(x.ndim)]
    return aligned(call, x, places.index(x.rows_at))


def _unsqueeze(call: Call) -> RowOperation:
    x = call.main()
    dim = int(call["dim"]) % (x.ndim + 1)
    return aligned(call, x, x.rows_at + (dim <= x.rows_at))


def _squeeze(call: Call) -> RowOperation:
    """``dim`` must be given: without it a range of one row would lose its row axis."""
    x = call.main()
    if "dim" not in call.arguments:
        raise NotLocalError("it drops whatever axis has one entry")
    dims = {d % x.ndim for d in _as_list(call["dim"])}
    if x.rows_at in dims:
        raise NotLocalError("it drops the row axis")
    gone = sum(1 for d in dims if d < x.rows_at and x.shape[d] == 1)
    return aligned(call, x, x.rows_at - gone)


def _as_list(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else [int(v) for v in value]


def _expand(call: Call) -> RowOperation:
    """``x.expand(sizes)``, also along the rows."""
    x, sizes = call.main(), call["size"]
    axis = x.rows_at + len(sizes) - x.ndim
    rows = int(call.result.shape[axis])
    return Aligned(call.op, axis, rows, (source_of(x),), ("size", axis))


def _repeat(call: Call) -> RowOperation:
    x, repeats = call.main(), call["repeats"]
    axis = x.rows_at + len(repeats) - x.ndim
    if repeats[axis] != 1:
        raise NotLocalError("it repeats the rows")
    return aligned(call, x, axis)


@dataclass(frozen=True)
class _Reshaped(Aligned):
    """A reshape that keeps the rows; checks that the axes before them keep their product.

    The analysis uses one batch size, at which shapes may be equal by chance. This check finds
    such cases at another batch size.
    """

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        """Reshape; see :meth:`RowOperation.run`."""
        x: torch.Tensor = arguments["self"]
        result: torch.Tensor = super().run(arguments, out)
        before, after = x.shape[: self.source.axis], result.shape[: self.axis]
        if math.prod(before) != math.prod(after) or result.shape[self.axis] != out.size:
            raise RowsError(
                f"{self.op} from {tuple(x.shape)} to {tuple(result.shape)} moves rows at this "
                "batch size; expected them to stay: analyse the network with a batch of 2"
            )
        return result


def _reshape(call: Call) -> RowOperation:
    """View, reshape, flatten: rows must stay an axis, with the same number of elements before."""
    x = call.main()
    source = source_of(x)
    shape = tuple(call.result.shape)
    before = math.prod(x.shape[: source.axis])
    places = [
        place
        for place, size in enumerate(shape)
        if size == source.rows and math.prod(shape[:place]) == before
    ]
    if not places:
        raise NotLocalError("it joins the rows with other axes")
    axis = source.axis if source.axis in places else places[0]
    sized = next((name for name in ("size", "shape") if name in call.arguments), None)
    position = None if sized is None else (sized, axis)
    return _Reshaped(call.op, axis, source.rows, (source,), position)


def _unflatten(call: Call) -> RowOperation:
    x = call.main()
    if int(call["dim"]) % x.ndim == x.rows_at:
        raise NotLocalError("it splits the row axis")
    return _reshape(call)


def _reduce(call: Call) -> RowOperation:
    """Means, sums, extrema and variances over axes other than the rows."""
    x = call.main()
    dims = call.arguments.get("dim")
    if dims is None or dims == []:
        raise NotLocalError("it reduces over all axes")
    reduced = {d % x.ndim for d in _as_list(dims)}
    if x.rows_at in reduced:
        raise NotLocalError(f"{_REDUCTIONS[call.op.split('.')[1]]} over all rows")
    gone = 0 if call.arguments.get("keepdim") else sum(d < x.rows_at for d in reduced)
    return aligned(call, x, x.rows_at - gone)


def _along_axes(call: Call) -> RowOperation:
    """Values are reordered along some axes."""
    x = call.main()
    if x.rows_at in {int(d) % x.ndim for d in call["dims"]} or not call["dims"]:
        raise NotLocalError("it works along the rows")
    return aligned(call, x, x.rows_at)


_REDUCTIONS = {
    "mean": "a mean",
    "sum": "a sum",
    "amax": "a maximum",
    "amin": "a minimum",
    "max": "a maximum",
    "min": "a minimum",
    "prod": "a product",
    "std": "a standard deviation",
    "var": "a variance",
    "logsumexp": "a sum",
    "argmax": "the position of a maximum",
    "argmin": "the position of a minimum",
    "linalg_vector_norm": "a norm",
    "norm": "a norm",
    "std_mean": "a standard deviation",
    "var_mean": "a variance",
    "all": "a test",
    "any": "a test",
}


def _extremum(call: Call) -> RowOperation:
    """``max`` and ``min``: of two tensors, or a reduction over ``dim`` or over all axes."""
    return broadcast(call) if "other" in call.arguments else _reduce(call)


def _concatenate(call: Call) -> RowOperation:
    """Concatenation along an axis other than the rows."""
    operands = call["tensors"]
    dim = int(call["dim"]) % operands[0].ndim
    return _side_by_side(call, operands, dim, added=False)


def _stack(call: Call) -> RowOperation:
    operands = call["tensors"]
    dim = int(call["dim"]) % (operands[0].ndim + 1)
    return _side_by_side(call, operands, dim, added=True)


def _side_by_side(call: Call, operands: list[Operand], dim: int, *, added: bool) -> RowOperation:
    axes = {operand.axis for operand in operands if operand.axis is not None}
    if len(axes) != 1:
        raise NotLocalError("the rows of one operand are another axis of the other")
    (axis,) = axes
    if not added and dim == axis:
        raise NotLocalError("it puts tensors below each other")
    rows = int(call.result.shape[axis + (added and dim <= axis)])
    if any(axis >= operand.ndim or operand.shape[axis] != rows for operand in operands):
        raise NotLocalError("it joins tensors with different rows")
    sources = tuple(Source(o.name, axis, rows, whole=o.axis is None) for o in operands)
    return Aligned(call.op, axis + (added and dim <= axis), rows, sources)


def _split(call: Call) -> RowOperation:
    """Chunks along an axis other than the rows."""
    x = call.main()
    if int(call["dim"]) % x.ndim == x.rows_at:
        raise NotLocalError("it splits the rows")
    return aligned(call, x, x.rows_at)


def _drop_axis(call: Call) -> RowOperation:
    """``select`` and ``unbind`` along an axis other than the rows."""
    x = call.main()
    dim = int(call["dim"]) % x.ndim
    if dim == x.rows_at:
        raise NotLocalError("it takes single rows")
    return aligned(call, x, x.rows_at - (dim < x.rows_at))


def _index(call: Call) -> RowOperation:
    """``x[:, order]`` with one list of positions along an axis other than the rows."""
    x, indices = call.main(), call["indices"]
    used = [dim for dim, index in enumerate(indices) if index is not None]
    if len(used) != 1 or used[0] == x.rows_at or indices[used[0]].ndim != 1:
        raise NotLocalError("it picks rows, or positions of several axes at once")
    if indices[used[0]].tensor.dtype == torch.bool:
        raise NotLocalError("it picks positions by a mask")
    return aligned(call, x, x.rows_at)


def _bundle(call: Call) -> RowOperation:  # noqa: ARG001 - every rule takes the call
    raise NotLocalError("several outputs are brought together")


def _getitem(call: Call) -> RowOperation:
    """One of several results."""
    several: Operand = call["0"]
    if several.first_only and call["1"] != 0:
        raise NotLocalError("it takes statistics or positions, which refer to the whole tensor")
    rows = int(call.result.shape[several.rows_at])
    source = Source(several.name, several.rows_at, rows)
    return Aligned(call.op, source.axis, rows, (source,))


RULES: dict[str, Rule] = {
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "repeat": _repeat,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten"), _reshape),
    "unflatten": _unflatten,
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("max", "min"), _extremum),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenate),
    "stack": _stack,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk"), _split),
    "unsafe_split": _split,
    **dict.fromkeys(("select", "unbind"), _drop_axis),
    "index_select": _split,
    **dict.fromkeys(("flip", "roll"), _along_axes),
    "index": _index,
    "getitem": _getitem,
    "bundle": _bundle,
}
