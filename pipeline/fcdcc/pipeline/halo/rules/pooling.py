"""Rules for pooling, and the window arithmetic that convolutions share with it.

The operator's padding along the rows is added explicitly, only where a range touches the
border of the tensor; along the other spatial axes the operator pads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ..operation import (
    Aligned,
    Call,
    NotLocalError,
    Operand,
    RowOperation,
    Rule,
    aligned,
    invoke,
    per_dimension,
    source_of,
)
from ..ranges import Rows, Window, never_empty, window


def pad_rows(x: torch.Tensor, axis: int, above: int, below: int, value: float) -> torch.Tensor:
    """Return a tensor with constant rows added above and below."""
    if not above and not below:
        return x
    parts = []
    for count in (above, x.shape[axis], below):
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        parts.append(x.new_full(shape, value))
    parts[1] = x
    return torch.cat(parts, dim=axis)


@dataclass(frozen=True)
class Windowed(RowOperation):
    """A window that moves along the rows.

    Parameters
    ----------
    place
        Index of the rows among the spatial axes.
    kernel, stride, before
        See :func:`~fcdcc.pipeline.halo.ranges.window`.
    """

    place: int
    kernel: int
    stride: int
    before: int

    def window(self, out: Rows) -> Window:
        """Return the rows of the source that the rows ``out`` need, and their padding."""
        return window(
            out,
            kernel=self.kernel,
            stride=self.stride,
            before=self.before,
            size=self.source.rows,
        )

    def needs(self, out: Rows) -> tuple[Rows, ...]:
        """See :meth:`RowOperation.needs`; one row, for its batch size, if none is needed."""
        return (never_empty(self.window(out).rows, self.source.rows),)

    def padded(self, x: torch.Tensor, out: Rows, value: float) -> torch.Tensor:
        """Return the rows of the window, with padding, from the rows of :meth:`needs`."""
        found = self.window(out)
        axis = self.source.axis
        return pad_rows(x.narrow(axis, 0, found.rows.size), axis, found.above, found.below, value)


def zero_at(values: list[int], place: int) -> list[int]:
    """Return the numbers with a 0 at one position."""
    return [0 if i == place else value for i, value in enumerate(values)]


class _MaxPool(Windowed):
    def run(self, arguments: Mapping[str, Any], out: Rows) -> Any:
        x: torch.Tensor = arguments["self"]
        lowest = -math.inf if x.is_floating_point() else float(torch.iinfo(x.dtype).min)
        padding = per_dimension(arguments["padding"], _pooled(self.op))
        return invoke(
            self.op,
            {
                **arguments,
                "self": self.padded(x, out, lowest),
                "padding": zero_at(padding, self.place),
            },
        )

    @property
    def first_only(self) -> bool:
        return True


@dataclass(frozen=True)
class _AveragePool(Windowed):
    """Average pooling, whose divisor depends on how much of the window is padding.

    Parameters
    ----------
    sizes
        Size of each spatial axis of the whole source and of the whole result.
    """

    sizes: tuple[tuple[int, int], ...]

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        x: torch.Tensor = arguments["self"]
        ndim = len(self.sizes)
        named = {k: per_dimension(arguments[k], ndim) for k in ("kernel_size", "padding")}
        named["stride"] = per_dimension(arguments["stride"] or arguments["kernel_size"], ndim)
        divisor = arguments.get("divisor_override")
        plain = {**arguments, **named, "padding": zero_at(named["padding"], self.place)}
        padded = self.padded(x, out, 0.0)
        if divisor is not None or padded.shape[x.ndim - ndim + self.place] == self._real(out):
            return _average({**plain, "self": padded, "divisor_override": divisor})
        sums = _average({**plain, "self": padded, "divisor_override": 1})
        counts = torch.ones((), dtype=x.dtype, device=x.device)
        for place, (size, results) in enumerate(self.sizes):
            rows = out if place == self.place else Rows(0, results)
            kernel, stride, before = (
                named[name][place] for name in ("kernel_size", "stride", "padding")
            )
            counted = _counted(rows, kernel, stride, before, size, arguments["count_include_pad"])
            shape = [-1 if place == i else 1 for i in range(ndim)]
            counts = counts * counted.to(counts).reshape(shape)
        return sums / counts

    def _real(self, out: Rows) -> int:
        return self.window(out).rows.size


def _average(arguments: Mapping[str, Any]) -> torch.Tensor:
    """Average pooling in any number of dimensions, with a divisor."""
    x: torch.Tensor = arguments["self"]
    names = ("kernel_size", "stride", "padding")
    kernel, stride, padding = (list(arguments[name]) for name in names)
    options = [arguments[n] for n in ("ceil_mode", "count_include_pad", "divisor_override")]
    if len(kernel) == 3:
        return functional.avg_pool3d(x, kernel, stride, padding, *options)
    if len(kernel) == 2:
        return functional.avg_pool2d(x, kernel, stride, padding, *options)
    # The one-dimensional operator takes no divisor.
    flat = functional.avg_pool2d(
        x.unsqueeze(-1), [*kernel, 1], [*stride, 1], [*padding, 0], *options
    )
    return flat.squeeze(-1)


def _counted(
    rows: Rows, kernel: int, stride: int, before: int, size: int, include_padding: bool
) -> torch.Tensor:
    """Return the divisor of each window's sum, in one dimension.

    Padding counts if ``include_padding``; rows beyond the padding, which ceil mode reads, do
    not count.
    """
    start = torch.arange(rows.start, rows.stop) * stride - before
    stop = (start + kernel).clamp_max(size + before)
    if include_padding:
        return stop - start
    return stop.clamp_max(size) - start.clamp_min(0)


def _pooled(op: str) -> int:
    """Return the number of spatial dimensions of a pooling operator, from its name."""
    return next(int(d) for d in "123" if f"{d}d" in op)


def _pool_geometry(call: Call, x: Operand) -> tuple[int, list[int], list[int], list[int]]:
    ndim = _pooled(call.op)
    kernel = per_dimension(call["kernel_size"], ndim)
    stride = per_dimension(call["stride"], ndim) if call["stride"] else kernel
    return x.rows_at - (x.ndim - ndim), kernel, stride, per_dimension(call["padding"], ndim)


def _max_pool(call: Call) -> RowOperation:
    x = call.main()
    place, kernel, stride, padding = _pool_geometry(call, x)
    source = source_of(x)
    if place < 0:
        return _FirstResultOnly(call.op, source.axis, source.rows, (source,))
    dilation = per_dimension(call["dilation"], len(kernel))[place]
    first = call.result if isinstance(call.result, torch.Tensor) else call.result[0]
    return _MaxPool(
        op=call.op,
        axis=source.axis,
        rows=int(first.shape[source.axis]),
        sources=(source,),
        place=place,
        kernel=(kernel[place] - 1) * dilation + 1,
        stride=stride[place],
        before=padding[place],
    )


class _FirstResultOnly(Aligned):
    """The other results are positions in the whole tensor."""

    @property
    def first_only(self) -> bool:
        return True


def _average_pool(call: Call) -> RowOperation:
    x = call.main()
    place, kernel, stride, padding = _pool_geometry(call, x)
    source = source_of(x)
    if place < 0:
        return aligned(call, x, source.axis)
    ndim = len(kernel)
    return _AveragePool(
        op=call.op,
        axis=source.axis,
        rows=int(call.result.shape[source.axis]),
        sources=(source,),
        place=place,
        kernel=kernel[place],
        stride=stride[place],
        before=padding[place],
        sizes=tuple(zip(x.shape[-ndim:], tuple(call.result.shape[-ndim:]), strict=True)),
    )


@dataclass(frozen=True)
class _AdaptivePool(RowOperation):
    """Row o of the result pools the rows from ⌊o H / O⌋ to ⌈(o + 1) H / O⌉."""

    place: int

    def needs(self, out: Rows) -> tuple[Rows, ...]:
        """See :meth:`RowOperation.needs`."""
        return (self._reads(out),)

    def _reads(self, out: Rows) -> Rows:
        size = self.source.rows
        return Rows(out.start * size // self.rows, -(-out.stop * size // self.rows))

    def run(self, arguments: Mapping[str, Any], out: Rows) -> Any:
        """Pool in one call if all windows are equal, else row by row."""
        source = self.source
        if source.rows % self.rows == 0:
            return self._pool(arguments, arguments["self"], out.size)
        start = self._reads(out).start
        results = []
        for row in range(*out):
            rows = self._reads(Rows(row, row + 1))
            x = arguments["self"].narrow(source.axis, rows.start - start, rows.size)
            results.append(self._pool(arguments, x, 1))
        if isinstance(results[0], torch.Tensor):
            return torch.cat(results, dim=source.axis)
        return tuple(torch.cat(parts, dim=source.axis) for parts in zip(*results, strict=True))

    def _pool(self, arguments: Mapping[str, Any], x: torch.Tensor, rows: int) -> Any:
        sizes = per_dimension(arguments["output_size"], _pooled(self.op))
        sizes[self.place] = rows
        return invoke(self.op, {**arguments, "self": x, "output_size": sizes})

    @property
    def first_only(self) -> bool:
        return True


def _adaptive_pool(call: Call) -> RowOperation:
    x = call.main()
    ndim = _pooled(call.op)
    source = source_of(x)
    place = source.axis - (x.ndim - ndim)
    if place < 0:
        return _FirstResultOnly(call.op, source.axis, source.rows, (source,))
    rows = int(per_dimension(call["output_size"], ndim)[place])
    if rows == 1:
        raise NotLocalError("global pooling")
    return _AdaptivePool(call.op, source.axis, rows, (source,), place)


RULES: dict[str, Rule] = {
    **dict.fromkeys((f"max_pool{n}d" for n in "123"), _max_pool),
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), _max_pool),
    **dict.fromkeys((f"avg_pool{n}d" for n in "123"), _average_pool),
    **dict.fromkeys((f"adaptive_avg_pool{n}d" for n in "123"), _adaptive_pool),
    **dict.fromkeys((f"adaptive_max_pool{n}d" for n in "123"), _adaptive_pool),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), _adaptive_pool),
}
