"""Rules for convolutions in the glue: transposed ones, and others that are not coded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ..operation import (
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
from ..ranges import Rows, never_empty, transposed_window
from .pooling import Windowed, pad_rows, zero_at


@dataclass(frozen=True)
class _Convolution(Windowed):
    """A convolution.

    Parameters
    ----------
    others
        (before, after) of the spatial axes other than the rows, if the padding is given as a
        name ('same'); None if it is given as numbers.
    """

    others: tuple[tuple[int, int], ...] | None

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        """Convolve; see :meth:`RowOperation.run`."""
        x = self.padded(arguments["input"], out, 0.0)
        ndim = x.ndim - 2
        if self.others is not None:
            x = functional.pad(x, [zeros for pair in reversed(self.others) for zeros in pair])
            return self._convolved(arguments, x, "valid")
        return self._convolved(
            arguments, x, zero_at(per_dimension(arguments["padding"], ndim), self.place)
        )

    def _convolved(
        self, arguments: Mapping[str, Any], x: torch.Tensor, padding: str | list[int]
    ) -> torch.Tensor:
        result: torch.Tensor = invoke(self.op, {**arguments, "input": x, "padding": padding})
        return result


@dataclass(frozen=True)
class _TransposedConvolution(RowOperation):
    """A transposed convolution of a range of input rows, cut to the wanted output rows.

    Parameters
    ----------
    place, kernel, stride, before
        As for :class:`~fcdcc.pipeline.halo.rules.pooling.Windowed`.
    """

    place: int
    kernel: int
    stride: int
    before: int

    def needs(self, out: Rows) -> tuple[Rows, ...]:
        """See :meth:`RowOperation.needs`; one row, for its batch size, if none is needed."""
        return (self._reached(out),)

    def _reached(self, out: Rows) -> Rows:
        size = self.source.rows
        found = transposed_window(
            out, kernel=self.kernel, stride=self.stride, before=self.before, size=size
        )
        return never_empty(found, size)

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        """Compute all rows that the given ones contribute to, and cut them to the range."""
        axis, ndim = self.source.axis, arguments["input"].ndim - 2
        made: torch.Tensor = invoke(
            self.op,
            {
                **arguments,
                "bias": None,
                **{
                    name: zero_at(per_dimension(arguments[name], ndim), self.place)
                    for name in ("padding", "output_padding")
                },
            },
        )
        first = self._reached(out).start * self.stride - self.before
        last = first + made.shape[axis]
        kept = Rows(max(first, out.start), max(min(last, out.stop), max(first, out.start)))
        inside = made.narrow(axis, min(kept.start, last) - first, kept.size)
        above = min(kept.start, out.stop) - out.start
        result = pad_rows(inside, axis, above, out.size - above - kept.size, 0.0)
        bias = arguments["bias"]
        return result if bias is None else result + bias.reshape(-1, *(1,) * ndim)


def _convolution(call: Call) -> RowOperation:
    x = call.main("input")
    weight: Operand = call["weight"]
    ndim = weight.ndim - 2
    source = source_of(x)
    place = source.axis - (x.ndim - ndim)
    if x.ndim != ndim + 2:
        raise NotLocalError("a convolution of one image without a batch")
    if place == -1:
        raise NotLocalError("a convolution that takes rows as channels")
    if place < 0:
        return aligned(call, x, source.axis)
    stride = per_dimension(call["stride"], ndim)
    dilation = per_dimension(call["dilation"], ndim)
    kernels = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    geometry: dict[str, Any] = {
        "op": call.op,
        "axis": source.axis,
        "rows": int(call.result.shape[source.axis]),
        "sources": (source,),
        "place": place,
        "kernel": kernels[place],
        "stride": stride[place],
    }
    if call.arguments.get("transposed") or "conv_transpose" in call.op:
        before = per_dimension(call["padding"], ndim)[place]
        return _TransposedConvolution(**geometry, before=before)
    if not isinstance(call["padding"], str):
        before = per_dimension(call["padding"], ndim)[place]
        return _Convolution(**geometry, before=before, others=None)
    same = call["padding"] == "same"
    # If the total padding is odd, the extra zero is added at the end, as in PyTorch.
    pairs = [((k - 1) // 2, k // 2) if same else (0, 0) for k in kernels]
    before = pairs[place][0]
    pairs[place] = (0, 0)
    return _Convolution(**geometry, before=before, others=tuple(pairs))


RULES: dict[str, Rule] = {
    **dict.fromkeys((f"conv{n}d" for n in "123"), _convolution),
    **dict.fromkeys((f"conv_transpose{n}d" for n in "123"), _convolution),
    "convolution": _convolution,
}
