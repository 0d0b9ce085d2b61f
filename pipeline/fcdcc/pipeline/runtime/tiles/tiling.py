"""How the images of a job are cut into tiles: by the options, or because the network needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fcdcc.coding.errors import FcdccError
from fcdcc.storage.tile_grid import TileGrid

from ...errors import OptionError
from ...halo import NetworkRows, Rows, ranges_for
from ...heads import Head
from ...model import Model
from ...model.network import GlueStage, Network
from ...model.operators import bound_arguments
from ...options import Blend, PlanOptions
from ...plans.row_layout import analysed
from ..output import heads_of
from .blend_windows import AxisWindows

DEFAULT_OVERLAP_PART = 8
"""Tiles overlap by one part in so many of their size, unless ``--overlap`` is given."""


@dataclass(frozen=True)
class Tiling:
    """The tiles of the images of a job.

    Parameters
    ----------
    grid
        Where they lie.
    head
        What the network predicts of a tile.
    blend
        How predictions of overlapping tiles become one.
    margin
        Places at the edges of a tile's prediction that are not used, along each axis; None for
        predictions that are not blended.
    reach
        Places at an edge of a tile where the network saw the edge; None if that is not known.
    reason
        Why there are tiles, in words; empty if the options say so.
    """

    grid: TileGrid
    head: Head
    blend: Blend
    margin: tuple[int, ...] | None
    reach: int | None
    reason: str

    @property
    def is_blended(self) -> bool:
        """Whether predictions are blended to one of the image's size, or else put side by side."""
        return self.margin is not None

    @property
    def overlap(self) -> tuple[int, ...]:
        """Pixels that neighbouring tiles have in common along each axis."""
        return tuple(t - s for t, s in zip(self.grid.tile, self.grid.stride, strict=True))

    @property
    def windows(self) -> tuple[AxisWindows, ...]:
        """The weights of the tiles along each axis of a blended prediction."""
        grid, found = self.grid, []
        made = self.head.shape[len(self.head.channels) :]
        for axis, margin in enumerate(self.margin or ()):
            tile, places = grid.tile[axis], made[axis]
            starts = tuple(start * places // tile for start in grid.starts[axis])
            length = grid.image[axis] * places // tile
            overlap = self.common_places[axis]
            found.append(AxisWindows(starts, places, length, overlap, margin, self.blend))
        return tuple(found)

    def __str__(self) -> str:
        grid = self.grid
        count = f"{_sizes(grid.counts)} tiles" if grid.tiles > 1 else "1 tile"
        text = f"each image of {_sizes(grid.image)} is {count} of {_sizes(grid.tile)}"
        if grid.tiles > 1:
            text += f" that overlap by {_sizes(self.overlap)} pixels"
        if not self.is_blended:
            return f"{self.reason}{text}; the predictions of the tiles are stored as a grid"
        if self.head.values == "decided":
            return f"{self.reason}{text}; each place has the answer of the tile nearest to it"
        text += f"; their predictions are blended ({self.blend})"
        if any(self.margin or ()):
            text += f", without the outer {_sizes(self.margin or ())} places of each tile"
        return self.reason + text

    @property
    def common_places(self) -> tuple[int, ...]:
        """Places that the predictions of neighbouring tiles have in common along each axis."""
        made = self.head.shape[len(self.head.shape) - len(self.grid.tile) :]
        pairs = zip(self.overlap, made, self.grid.tile, strict=True)
        return tuple(common * places // tile for common, places, tile in pairs)

    @property
    def warning(self) -> str:
        """What the user should know about the edges of tiles; empty if nothing."""
        if not self.is_blended or self.grid.tiles == 1:
            return ""
        if self.reach is None:
            return (
                "how far the network looks around a pixel is not known, or it is the whole tile: "
                "predictions differ from those of the whole image, most near the edges of tiles"
            )
        between = zip(self.common_places, self.grid.counts, strict=True)
        if all(2 * self.reach <= common for common, count in between if count > 1):
            return ""
        made = self.head.shape[len(self.head.channels)]
        needed = 2 * math.ceil(self.reach * self.grid.tile[0] / made)
        return (
            f"in the middle of overlaps ({_sizes(self.overlap)} pixels) every tile has its edge in "
            "the view of the network, and predictions differ there from those of the whole image: "
            f"with --overlap {needed} or more none do"
        )


def find_tiling(
    options: PlanOptions, model: Model, size: Sequence[int], classes: str | None = None
) -> Tiling | None:
    """Return the tiles of images of a size; None for whole images.

    Parameters
    ----------
    options
        ``tile``, ``overlap``, ``blend`` and those of the prediction.
    model
        Whose fixed size the tiles have, if it has one.
    size
        Of the spatial axes of the images.
    classes
        As for :func:`.output.heads_of`.

    Raises
    ------
    OptionError
        If there are no such tiles, or the predictions of such tiles make none of the image.
    ModelError
        If the network does not take images of the tiles' size.
    """
    fixed = model.network.input_shape[2:]
    size, reason = tuple(size), ""
    if options.tile is not None:
        tile = _tile(options.tile, fixed, size, model.source)
    elif None not in fixed and fixed != size:
        tile = tuple(int(length or 0) for length in fixed)
        reason = f"{model.source} takes images of {_sizes(tile)}: "
    else:
        for name in ("overlap", "blend"):
            if name in options.model_fields_set:
                raise OptionError(
                    f"--{name} without tiles: give --tile SIZE as well, or leave --{name} out"
                )
        return None
    if options.band is not None:
        raise OptionError(
            f"--band {options.band} for images in tiles, which are not cut into bands: leave "
            "--band or --tile out"
        )
    overlap = _overlap(options, tile)
    image_shape = (model.network.input_shape[1] or 1, *tile)
    heads = heads_of(model, image_shape, options, classes)
    if len(heads) > 1:
        raise OptionError(
            f"images in tiles for a network with the outputs {', '.join(heads)}: choose one of "
            "them with --output NAME"
        )
    (head,) = heads.values()
    found = _analysed(model.network, image_shape)
    steps = [_step(found, length) for length in tile]
    is_blended = head.is_dense and head.places == len(tile)
    if is_blended:
        units = _units(head, tile, size)
        steps = [math.lcm(*both) for both in zip(steps, units, strict=True)]
        if any(step > length for step, length in zip(steps, tile, strict=True)):
            raise OptionError(
                f"tiles of {_sizes(tile)} for a network that sees images alike every "
                f"{_sizes(steps)} pixels only: expected tiles of at least that size; give a larger "
                "--tile, or run it on whole images"
            )
    stride = tuple(
        max((length - common) // step * step, step)
        for length, common, step in zip(tile, overlap, steps, strict=True)
    )
    grid = TileGrid(size, tile, stride)
    tiling = Tiling(grid, head, options.blend, None, None, reason)
    if not is_blended:
        return tiling
    reach = _reach(found, head, steps[0])
    return replace(tiling, margin=_margin(tiling, reach), reach=reach)


def _tile(
    given: Sequence[int], fixed: Sequence[int | None], size: tuple[int, ...], source: str
) -> tuple[int, ...]:
    """Return the size of a tile along each axis."""
    tile = _for_axes("tile", given, len(fixed))
    for length, wanted, pixels in zip(tile, fixed, size, strict=True):
        if wanted not in (None, length):
            raise OptionError(
                f"--tile {_given(given)} for {source}, which takes images of "
                f"{_sizes(fixed)}: leave --tile out, or export the model for any size (fcdcc "
                "export --free-size)"
            )
        if length > pixels:
            raise OptionError(
                f"--tile {_given(given)} for images of {_sizes(size)}: expected tiles no larger "
                "than the images; give a smaller --tile, or leave it out"
            )
    return tile


def _overlap(options: PlanOptions, tile: tuple[int, ...]) -> tuple[int, ...]:
    """Return by how many pixels tiles overlap along each axis, at least."""
    if options.overlap is None:
        return tuple(length // DEFAULT_OVERLAP_PART for length in tile)
    overlap = _for_axes("overlap", options.overlap, len(tile))
    if any(common >= length for common, length in zip(overlap, tile, strict=True)):
        raise OptionError(
            f"--overlap {_given(options.overlap)} of tiles of {_sizes(tile)}: expected less than "
            "the size of a tile"
        )
    return overlap


def _for_axes(name: str, given: Sequence[int], axes: int) -> tuple[int, ...]:
    """Return a number for each axis, of one number or as many as there are axes."""
    if len(given) not in (1, axes):
        raise OptionError(
            f"--{name} {_given(given)} for images with {axes} spatial "
            f"{'axis' if axes == 1 else 'axes'}: expected one number, or one for each axis"
        )
    return tuple(given) * (axes if len(given) == 1 else 1)


def _units(head: Head, tile: tuple[int, ...], size: tuple[int, ...]) -> list[int]:
    """Return of how many pixels a place of the prediction is, along each axis, or 1 if of fewer."""
    found = []
    for length, places, pixels in zip(tile, head.shape[-len(tile) :], size, strict=True):
        if length % places and places % length:
            raise OptionError(
                f"the network predicts {_sizes(head.shape[-len(tile) :])} places of a tile of "
                f"{_sizes(tile)}: expected as many places as pixels, a multiple or a whole part of "
                "them; pad its convolutions, or run it on whole images"
            )
        unit = max(length // places, 1)
        if pixels % unit:
            raise OptionError(
                f"images of {_sizes(size)} for a network that predicts a place for each {unit} "
                f"pixels: expected sizes that are multiples of {unit}; cut or pad the images"
            )
        found.append(unit)
    return found


def _analysed(network: Network, image_shape: tuple[int, ...]) -> NetworkRows | None:
    """Return the row arithmetic of a network for a tile; None if it has none."""
    try:
        return analysed(network, image_shape)
    except FcdccError:
        return None


def _step(found: NetworkRows | None, length: int) -> int:
    """Return the distance of places at which a network sees an image in the same way.

    A network that pools by 8 in all treats images alike that are shifted by 8 pixels. It is taken
    from the rows of its values, and is the same along all axes.
    """
    step = 1
    for layout in () if found is None else found.layouts.values():
        whole = found.layouts[found.network.input].rows if found is not None else 0
        if layout.axis is not None and 0 < layout.rows < whole and whole % layout.rows == 0:
            step = math.lcm(step, whole // layout.rows)
    return step if step <= length // 2 else 1


def _reach(found: NetworkRows | None, head: Head, step: int) -> int | None:
    """Return how many places of a prediction, from an edge of the tile on, see beyond the edge.

    It is found for rows, and taken for all axes where all convolutions are alike along them; None
    if it is not known, or more than half of the tile. The network sees the image in the same way
    every ``step`` pixels.
    """
    if found is None:
        return None
    network = found.network
    if _aligns_corners(network):
        return None
    for stage in network.convolutions:
        kernel = network.tensors[stage.weight].shape[2:]
        if len({*zip(kernel, stage.stride, stage.dilation, stage.padding, strict=True)}) > 1:
            return None
    rows = head.shape[len(head.channels)]
    layout = found.layouts.get(network.output)
    if layout is None or layout.axis is None or layout.rows != rows:
        return None
    pixels = found.layouts[network.input].rows
    shift = step * rows // pixels

    def is_clean(edge: int) -> bool:
        # A step further inside, the same rows are needed relative to it, and none is cut off.
        inner = Rows(edge + shift, rows - edge - shift)
        needed = ranges_for(found, {network.output: inner}).get(network.input)
        return needed is not None and needed.start >= step and needed.stop <= pixels - step

    low, high = 0, rows // 2 - 1 - shift
    if shift < 1 or high < 0 or not is_clean(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_clean(middle) else (middle + 1, high)
    return low


def _aligns_corners(network: Network) -> bool:
    """Return whether a network resizes by a factor that depends on the size of the image."""
    steps = (step for s in network.stages if isinstance(s, GlueStage) for step in s.steps)
    return any(
        "upsample" in step.op and bound_arguments(step).get("align_corners") for step in steps
    )


def _margin(tiling: Tiling, reach: int | None) -> tuple[int, ...]:
    """Return the places at the edges of tiles that have no weight, along each axis.

    Of a place that some tile predicts without a view of its own edge, the prediction of a tile with
    such a view is not used: that are ``reach`` places, or where the overlap is shorter than twice
    that, those that the other tile predicts in this way.
    """
    if reach is None:
        return (0,) * len(tiling.grid.tile)
    return tuple(max(0, min(reach, common - reach)) for common in tiling.common_places)


def _sizes(sizes: Sequence[int | None]) -> str:
    return " × ".join("any" if size is None else str(size) for size in sizes)


def _given(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
