"""Rules for operators that shift rows: padding, cropping, strides, pixel shuffle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..operation import Call, NotLocalError, RowOperation, Rule, aligned, invoke, source_of
from ..ranges import Rows, never_empty
from .pooling import pad_rows


@dataclass(frozen=True)
class _Shifted(RowOperation):
    """Row o of the result is row ``first`` + o ``step`` of the source, or padding.

    Parameters
    ----------
    first, step
        The source row of the first row (negative: above the source), and the distance between
        source rows.
    """

    first: int
    step: int = 1

    def _span(self, out: Rows) -> Rows:
        start = self.first + out.start * self.step
        stop = self.first + (out.stop - 1) * self.step + 1
        first = min(max(start, 0), self.source.rows)
        return Rows(first, max(min(stop, self.source.rows), first))

    def needs(self, out: Rows) -> tuple[Rows, ...]:
        """See :meth:`RowOperation.needs`; one row, for its batch size, if none is needed."""
        return (never_empty(self._span(out), self.source.rows),)


class _Cropped(_Shifted):
    """``x[:, :, first:last:step]`` along the rows."""

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        """Take every ``step``-th row; see :meth:`RowOperation.run`."""
        x: torch.Tensor = arguments["self"]
        index = torch.arange(out.size, device=x.device) * self.step
        return x.index_select(self.source.axis, index) if self.step > 1 else x


class _PaddedConstant(_Shifted):
    """Constant rows above and below (negative numbers crop); other axes by the operator."""

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        """Pad; see :meth:`RowOperation.run`."""
        x: torch.Tensor = arguments["self"]
        axis, span = self.source.axis, self._span(out)
        above = min(max(-(self.first + out.start), 0), out.size)
        below = out.size - above - span.size
        value = arguments["value"]
        x = x.narrow(axis, 0, span.size)
        x = pad_rows(x, axis, above, below, 0.0 if value is None else value)
        return _pad_others(self.op, arguments, x, axis)


@dataclass(frozen=True)
class _PaddedBorder(RowOperation):
    """Rows outside the source are mirrored at its border, or repeat its border row.

    Parameters
    ----------
    before
        Rows of padding above.
    mirrored
        True for 'reflect', False for 'replicate'.
    """

    before: int
    mirrored: bool

    def _places(self, out: Rows) -> list[int]:
        last = self.source.rows - 1
        places = (row - self.before for row in range(*out))
        if self.mirrored:
            return [last - abs(last - abs(place)) for place in places]
        return [min(max(place, 0), last) for place in places]

    def needs(self, out: Rows) -> tuple[Rows, ...]:
        """See :meth:`RowOperation.needs`."""
        places = self._places(out)
        return (Rows(min(places), max(places) + 1),)

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        """Pad; see :meth:`RowOperation.run`."""
        x: torch.Tensor = arguments["self"]
        axis = self.source.axis
        places = torch.tensor(self._places(out), device=x.device)
        x = x.index_select(axis, places - places.min())
        return _pad_others(self.op, arguments, x, axis)


def _pad_argument(arguments: Mapping[str, Any]) -> str:
    return "pad" if "pad" in arguments else "padding"


def _pad_others(op: str, arguments: Mapping[str, Any], x: torch.Tensor, axis: int) -> torch.Tensor:
    """Pad the axes other than the rows."""
    name = _pad_argument(arguments)
    amounts = list(arguments[name])
    place = 2 * (x.ndim - 1 - axis)
    amounts[place : place + 2] = [0, 0]
    if not any(amounts):
        return x
    padded: torch.Tensor = invoke(op, {**arguments, "self": x, name: amounts})
    return padded


def _pad(call: Call) -> RowOperation:
    x = call.main()
    source = source_of(x)
    amounts: Sequence[int] = call[_pad_argument(call.arguments)]
    place = 2 * (x.ndim - 1 - source.axis)
    if place >= len(amounts):
        return aligned(call, x, source.axis)
    before = int(amounts[place])
    rows = int(call.result.shape[source.axis])
    mode = _pad_mode(call)
    if mode == "constant":
        return _PaddedConstant(call.op, source.axis, rows, (source,), first=-before)
    if mode in ("reflect", "replicate"):
        mirrored = mode == "reflect"
        return _PaddedBorder(call.op, source.axis, rows, (source,), before, mirrored)
    raise NotLocalError(f"padding of the kind {mode!r}")


def _pad_mode(call: Call) -> str:
    packet = call.op.split(".")[1]
    if packet == "pad":
        return str(call["mode"])
    kinds = {"constant": "constant", "reflection": "reflect", "replication": "replicate"}
    return kinds[packet.partition("_")[0]]


def _slice(call: Call) -> RowOperation:
    x = call.main()
    source = source_of(x)
    if int(call["dim"]) % x.ndim != source.axis:
        return aligned(call, x, source.axis)
    start, step = call["start"] or 0, int(call["step"])
    rows = int(call.result.shape[source.axis])
    first = int(min(max(start + source.rows if start < 0 else start, 0), source.rows))
    return _nonempty(_Cropped(call.op, source.axis, rows, (source,), first, step))


def _narrow(call: Call) -> RowOperation:
    x = call.main()
    source = source_of(x)
    if int(call["dim"]) % x.ndim != source.axis:
        return aligned(call, x, source.axis)
    if not isinstance(call["start"], int):
        raise NotLocalError("the position of the rows is a value of a tensor")
    first = call["start"] % source.rows
    rows = int(call.result.shape[source.axis])
    return _nonempty(_Cropped(call.op, source.axis, rows, (source,), first))


def _nonempty(operation: RowOperation) -> RowOperation:
    if not operation.rows:
        raise NotLocalError("its result has no rows")
    return operation


@dataclass(frozen=True)
class _Shuffled(RowOperation):
    """Blocks of rows: ``up`` rows of the result from ``down`` rows of the source."""

    up: int
    down: int

    def needs(self, out: Rows) -> tuple[Rows, ...]:
        """See :meth:`RowOperation.needs`."""
        return (Rows(out.start // self.up * self.down, -(-out.stop // self.up) * self.down),)

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        """Shuffle whole blocks and cut; see :meth:`RowOperation.run`."""
        made: torch.Tensor = invoke(self.op, arguments)
        return made.narrow(self.axis, out.start % self.up, out.size)


def _pixel_shuffle(call: Call) -> RowOperation:
    x = call.main()
    source = source_of(x)
    if source.axis == x.ndim - 3:
        raise NotLocalError("a channel shuffle that takes rows as channels")
    factor = (
        1
        if source.axis < x.ndim - 3
        else int(
            next(
                call[name]
                for name in ("upscale_factor", "downscale_factor")
                if name in call.arguments
            )
        )
    )
    up, down = (factor, 1) if "upscale_factor" in call.arguments else (1, factor)
    rows = int(call.result.shape[source.axis])
    return _Shuffled(call.op, source.axis, rows, (source,), up, down)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys((f"reflection_pad{n}d" for n in "123"), _pad),
    **dict.fromkeys((f"replication_pad{n}d" for n in "123"), _pad),
    "slice": _slice,
    "narrow": _narrow,
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _pixel_shuffle),
}
