"""The arithmetic of tiles: where the tiles of a sliding window lie in an image.

Tiles begin at multiples of the stride. The last one along an axis is shifted inside, so that it
ends with the image and overlaps the one before it by more::

    image   0 ........................ 22
    tiles   |--------|
                  |--------|
                        |--------|
                             |--------|      shifted
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .checksummed_json import Json
from .errors import InputError

__all__ = ["TileGrid"]

Region = tuple[slice, ...]
"""A part of an image, a slice along each spatial axis."""


@dataclass(frozen=True)
class TileGrid:
    """The tiles of images of one size, numbered image by image with the last axis fastest.

    Parameters
    ----------
    image, tile, stride
        Sizes of an image and of a tile, and the distance of the starts of neighbouring tiles,
        along each spatial axis, in pixels.

    Examples
    --------
    >>> grid = TileGrid(image=(22, 9), tile=(9, 9), stride=(6, 6))
    >>> grid.starts
    ((0, 6, 12, 13), (0,))
    >>> grid.tiles, grid.place(6)
    (4, (1, (2, 0)))
    """

    image: tuple[int, ...]
    tile: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.image), len(self.tile), len(self.stride)}
        if len(lengths) > 1 or not self.image:
            raise InputError(
                f"tiles of {self.tile} in steps of {self.stride} for images of {self.image}; "
                "expected one size for each spatial axis"
            )
        for size, tile, stride in zip(self.image, self.tile, self.stride, strict=True):
            if not 1 <= stride <= tile <= size:
                raise InputError(
                    f"tiles of {self.tile} in steps of {self.stride} for images of {self.image}; "
                    "expected tiles no larger than the images, and steps no larger than the tiles"
                )

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """The first pixels of the tiles along each axis, ascending."""
        found = []
        for size, tile, stride in zip(self.image, self.tile, self.stride, strict=True):
            last = size - tile
            found.append((*range(0, last, stride), last))
        return tuple(found)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of tiles along each axis."""
        return tuple(map(len, self.starts))

    @property
    def tiles(self) -> int:
        """Number of tiles of an image."""
        return math.prod(self.counts)

    def place(self, tile: int) -> tuple[int, tuple[int, ...]]:
        """Return the image of a tile, and the tile's place among those of the image."""
        image, number = divmod(tile, self.tiles)
        return image, tuple(int(index) for index in np.unravel_index(number, self.counts))

    def region(self, place: tuple[int, ...]) -> Region:
        """Return the pixels of the tile at a place."""
        return tuple(
            slice(starts[index], starts[index] + size)
            for starts, index, size in zip(self.starts, place, self.tile, strict=True)
        )

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, tuple[int, ...], int]]:
        """Yield the tiles start … stop − 1 as runs of neighbours along the last axis.

        A run is its image, the place of its first tile, and its number of tiles.
        """
        while start < stop:
            image, place = self.place(start)
            count = min(stop - start, self.counts[-1] - place[-1])
            yield image, place, count
            start += count

    def images_of(self, start: int, stop: int) -> tuple[int, int, tuple[int, int] | None]:
        """Return what the tiles start … stop − 1 are cut from.

        Returns
        -------
        The first image and the last + 1; of a single image also the first of the rows that the
        tiles have and the last + 1, of several None.
        """
        first, last = start // self.tiles, -(-stop // self.tiles)
        if last - first != 1:
            return first, last, None
        low, high = (self.place(tile)[1][0] for tile in (start, stop - 1))
        return first, last, self.rows(low, high + 1)

    def rows(self, first: int, stop: int) -> tuple[int, int]:
        """Return the first row and the last + 1 of the tiles in some rows of tiles."""
        return self.starts[0][first], self.starts[0][stop - 1] + self.tile[0]

    def as_json(self) -> dict[str, Json]:
        """Return the tiles as JSON, without the sizes of the images."""
        return {"size": [*self.tile], "stride": [*self.stride]}
