"""Rules for resampling: nearest, linear and cubic, corners aligned or not, in 1 to 3 dimensions.

The position of an output row in the source depends on the sizes of the whole tensors, so the
operator cannot be applied to a strip directly. Along the rows this module resamples, with the
weights that the operator has on a tensor of that size; the other axes are left to the operator.
The weights are measured: the operator is run on a few columns of zeros and ones (row i is one
in column i mod T, for taps + 1 columns), so its behaviour at borders and its rounding are
reproduced. The taps are the source rows that one row of the result can depend on.
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
        Number of spatial axes, and the index of the rows among them.
    align_corners
        None where the operator has no such argument.
    scale
        The scale factor given to the operator in addition to the sizes, if any.
    dtype
        Of the source: positions are rounded in this type.
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
        """Number of source rows that a row of the result can depend on."""
        kind = self.packet.removeprefix("_").removeprefix("upsample_").partition("_")[0]
        return _TAPS[kind.rstrip("123d")]

    def middle(self, row: int) -> int:
        """Return the source row nearest to a row of the result."""
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
    """Apply the operator to (T, rows of the source); return (T, rows of the result)."""
    shape, sizes = [1, len(columns), *[1] * grid.ndim], [1] * grid.ndim
    shape[2 + grid.place], sizes[grid.place] = grid.size, grid.rows
    scales: list[float | None] = [None] * grid.ndim
    scales[grid.place] = grid.scale
    x = columns.reshape(shape)
    made = _resample(x, grid.packet, sizes, grid.align_corners, scales)
    return made.reshape(len(columns), grid.rows)


@dataclass(frozen=True, eq=False)
class _TapTable:
    """The source rows and weights of each row of the result.

    Parameters
    ----------
    first
        (rows,): the first source row of each row; it also uses the next taps − 1 rows.
    weights
        (taps, rows): their weights, 0 for rows outside the source.
    """

    first: torch.Tensor
    weights: torch.Tensor

    def needs(self, out: Rows) -> Rows:
        """Return the source rows that a range of the result depends on."""
        first = self.first[out.start : out.stop]
        taps = torch.arange(len(self.weights))[:, None]
        used = (first + taps)[self.weights[:, out.start : out.stop] != 0]
        return Rows(int(used.min()), int(used.max()) + 1)


@lru_cache(maxsize=256)
def _table(grid: _Grid) -> _TapTable:
    if grid.taps == 1:
        places = _probed(grid, torch.arange(grid.size, dtype=grid.dtype)[None])[0]
        return _TapTable(places.long(), torch.ones(1, grid.rows))
    # The rows with a weight are among taps + 1 rows around the nearest row, whatever the
    # rounding; either the first or the last of these has no weight.
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
        The name of the operand in the operator's schema.
    grid
        The resampling along the rows.
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
            # A row outside the source has weight 0, so any other row may replace it.
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
