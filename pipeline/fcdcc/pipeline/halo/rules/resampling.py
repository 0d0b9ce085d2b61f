"""Rules for resampling: nearest, linear and cubic, corners aligned or not, in 1 to 3 dimensions.

Where a row of the result lies in the source depends on the sizes of the whole tensors, so the
operator cannot be run on a strip as it stands. Along the rows it is done here, with the
weights that the operator itself has on a tensor of that size; the other axes are left to the
operator. The weights are found by asking: the operator is run on a few columns of zeros and
ones (row i is one in column i mod T, with T taps), so that what it does at borders and how it
rounds need not be repeated here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ...model.operators import resolve
from ..operation import Call, RowOperation, Rule, aligned, source_of
from ..ranges import Rows

_TAPS = {"nearest": 1, "linear": 2, "bilinear": 2, "trilinear": 2, "bicubic": 4}


@dataclass(frozen=True)
class _Grid:
    """How the rows of a tensor are resampled.

    Parameters
    ----------
    packet
        The operator's name without its overload.
    size, rows
        Rows of the whole source and of the whole result.
    ndim, place
        Number of spatial axes, and which of them the rows are.
    align_corners
        None where the operator has no such argument.
    scale
        The factor that the operator is given besides the sizes, if any.
    dtype
        Of the source: places are rounded in it.
    """

    packet: str
    size: int
    rows: int
    ndim: int
    place: int
    align_corners: bool | None
    scale: float | None
    dtype: torch.dtype

    @property
    def taps(self) -> int:
        """Rows of the source that a row of the result can depend on."""
        kind = self.packet.removeprefix("_").removeprefix("upsample_").partition("_")[0]
        return _TAPS[kind.rstrip("123d")]

    def middle(self, row: int) -> int:
        """Return the row of the source that lies nearest to a row of the result."""
        if self.align_corners:
            place = row * (self.size - 1) / (self.rows - 1) if self.rows > 1 else 0.0
        else:
            step = 1 / self.scale if self.scale else self.size / self.rows
            place = (row + 0.5) * step - 0.5
        return min(math.floor(place + 0.5), self.size - 1)


def _resample(
    x: torch.Tensor,
    packet: str,
    sizes: list[int],
    align_corners: bool | None,
    scales: list[float | None],
) -> torch.Tensor:
    options = [] if align_corners is None else [align_corners]
    result: torch.Tensor = resolve(f"aten.{packet}.default")(x, sizes, *options, *scales)
    return result


def _probed(grid: _Grid, columns: torch.Tensor) -> torch.Tensor:
    """Return what the operator makes of (T, rows of the source), as (T, rows of the result)."""
    shape, sizes = [1, len(columns), *[1] * grid.ndim], [1] * grid.ndim
    shape[2 + grid.place], sizes[grid.place] = grid.size, grid.rows
    scales: list[float | None] = [None] * grid.ndim
    scales[grid.place] = grid.scale
    x = columns.reshape(shape)
    made = _resample(x, grid.packet, sizes, grid.align_corners, scales)
    return made.reshape(len(columns), grid.rows)


@dataclass(frozen=True, eq=False)
class _TapTable:
    """What each row of the result is made from.

    Parameters
    ----------
    first
        (rows,): the first of the rows of the source that go in; the next taps − 1 follow.
    weights
        (taps, rows): their weights, 0 for rows outside the source.
    """

    first: torch.Tensor
    weights: torch.Tensor

    def needs(self, out: Rows) -> Rows:
        """Return the rows of the source that a range of the result is made from."""
        first = self.first[out.start : out.stop]
        taps = torch.arange(len(self.weights))[:, None]
        used = (first + taps)[self.weights[:, out.start : out.stop] != 0]
        return Rows(int(used.min()), int(used.max()) + 1)


@lru_cache(maxsize=256)
def _table(grid: _Grid) -> _TapTable:
    if grid.taps == 1:
        places = _probed(grid, torch.arange(grid.size, dtype=grid.dtype)[None])[0]
        return _TapTable(places.long(), torch.ones(1, grid.rows))
    # Among one row more than there are taps, around the nearest row, are all that can go in,
    # however places are rounded; either the first or the last of them has no weight.
    columns = grid.taps + 1
    place = torch.arange(grid.size) % columns
    probed = _probed(grid, (place == torch.arange(columns)[:, None]).to(grid.dtype))
    first = torch.tensor([grid.middle(row) for row in range(grid.rows)]) - grid.taps // 2
    weights = probed.gather(0, (first + torch.arange(columns)[:, None]) % columns)
    later = (weights[0] == 0).long()
    taps = torch.arange(grid.taps)[:, None]
    return _TapTable(first + later, weights.gather(0, taps + later))


@dataclass(frozen=True)
class _Resampled(RowOperation):
    """Resampling of the rows by their weights, and of the other axes by the operator.

    Parameters
    ----------
    input
        What the operator calls its operand.
    grid
        How the rows are resampled.
    sizes, scales
        Of all spatial axes of the whole result.
    """

    input: str
    grid: _Grid
    sizes: tuple[int, ...]
    scales: tuple[float | None, ...]

    def needs(self, out: Rows) -> tuple[Rows, ...]:
        """See :meth:`RowOperation.needs`."""
        return (_table(self.grid).needs(out),)

    def run(self, arguments: Mapping[str, Any], out: Rows) -> torch.Tensor:
        """Resample; see :meth:`RowOperation.run`."""
        x = self._rows(arguments[self.input], out)
        sizes, scales = list(self.sizes), list(self.scales)
        sizes[self.grid.place], scales[self.grid.place] = out.size, None
        if list(x.shape[-len(sizes) :]) == sizes and not any(scales):
            return x
        return _resample(x, self.grid.packet, sizes, self.grid.align_corners, scales)

    def _rows(self, x: torch.Tensor, out: Rows) -> torch.Tensor:
        axis, table = self.source.axis, _table(self.grid)
        rows = table.needs(out)
        first = table.first[out.start : out.stop]
        if self.grid.taps == 1:
            return x.index_select(axis, (first - rows.start).to(x.device))
        weights = table.weights[:, out.start : out.stop].to(x.device, x.dtype)
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        result = x.new_zeros(())
        for tap, weight in enumerate(weights):
            # A row that is not there has no weight, and any other may stand in for it.
            index = (first + tap).clamp(rows.start, rows.stop - 1) - rows.start
            term = x.index_select(axis, index.to(x.device)) * weight.reshape(shape)
            result = result + term if tap else term
        return result


def _upsample(call: Call) -> RowOperation:
    name = "input" if "input" in call.arguments else "self"
    x = call.main(name)
    packet = call.op.split(".")[1]
    ndim = int(packet[-2])
    source = source_of(x)
    place = source.axis - (x.ndim - ndim)
    if place < 0:
        return aligned(call, x, source.axis)
    sizes = tuple(int(size) for size in call.result.shape[-ndim:])
    scales = _scales(call, ndim)
    grid = _Grid(
        packet=packet,
        size=source.rows,
        rows=sizes[place],
        ndim=ndim,
        place=place,
        align_corners=call.arguments.get("align_corners"),
        scale=scales[place],
        dtype=x.tensor.dtype if x.tensor.is_floating_point() else torch.float32,
    )
    return _Resampled(call.op, source.axis, sizes[place], (source,), name, grid, sizes, scales)


def _scales(call: Call, ndim: int) -> tuple[float | None, ...]:
    if "scale_factors" in call.arguments:
        factors = call["scale_factors"]
        return (None,) * ndim if factors is None else tuple(float(f) for f in factors)
    names = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}
    return tuple(call.arguments.get(name) for name in names[ndim])


RULES: dict[str, Rule] = {
    **dict.fromkeys((f"upsample_nearest{n}d" for n in "123"), _upsample),
    **dict.fromkeys((f"_upsample_nearest_exact{n}d" for n in "123"), _upsample),
    "upsample_linear1d": _upsample,
    "upsample_bilinear2d": _upsample,
    "upsample_trilinear3d": _upsample,
    "upsample_bicubic2d": _upsample,
}
