"""Images as their tiles: a source of which every image is a tile of a larger one.

Plans, graphs and records know images along one axis. A sliding window gives them tiles in place of
images, and only what reads pixels, and what looks for changes, knows where a tile lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .checksummed_json import Json
from .errors import InputError
from .metadata import Coordinate
from .sources import ImageSource
from .tile_grid import TileGrid

__all__ = ["TiledImages"]


@dataclass(frozen=True)
class TiledImages(ImageSource):
    """The tiles of images, one after the other, as images; :meth:`of` makes it.

    Parameters
    ----------
    untiled
        The images that are cut into tiles.
    tile_grid
        Where their tiles lie.

    The others are those of :class:`ImageSource`, for the tiles. Tiles have no ids and no
    coordinates.
    """

    untiled: ImageSource | None = field(default=None, repr=False)
    tile_grid: TileGrid | None = None

    @classmethod
    def of(cls, source: ImageSource, grid: TileGrid) -> TiledImages:
        """Return the tiles of images.

        Raises
        ------
        InputError
            If the tiles are for images of another size.
        """
        if grid.image != source.shape[2:]:
            raise InputError(f"tiles of images of size {grid.image}; expected that of {source!r}")
        limit = None if source.limit is None else source.limit * grid.tiles
        return cls(
            url=source.url,
            parts=source.parts,
            shape=(source.shape[0] * grid.tiles, source.shape[1], *grid.tile),
            dtype=source.dtype,
            dims=source.dims,
            stored_dtype=source.stored_dtype,
            chosen=source.chosen,
            limit=limit,
            row_chunk=source.row_chunk,
            chunk_bytes=source.chunk_bytes,
            untiled=source,
            tile_grid=grid,
        )

    @property
    def whole(self) -> ImageSource:
        """The images that are cut into tiles."""
        if self.untiled is None:
            raise InputError("tiles without images: make them with TiledImages.of")
        return self.untiled

    @property
    def grid(self) -> TileGrid:
        """Where the tiles lie."""
        if self.tile_grid is None:
            raise InputError("tiles without a grid: make them with TiledImages.of")
        return self.tile_grid

    @property
    def identity(self) -> dict[str, Json]:
        """What identifies the tiles: the images, and how they are cut."""
        return {**self.whole.identity, "tiles": self.grid.as_json()}

    def stored_region(
        self, start: int, stop: int, rows: tuple[int, int] | None = None
    ) -> tuple[int, int, tuple[int, int] | None]:
        """Return the images, and the rows of a single one, that some tiles are cut from.

        It is whole tiles that are read: ``rows`` of tiles make no difference.
        """
        del rows
        return self.grid.images_of(start, stop)

    def read_rows(
        self, start: int, stop: int, row_start: int, row_stop: int
    ) -> NDArray[np.generic]:
        """Return rows of tiles start … stop − 1; see :meth:`ImageSource.read_rows`.

        Tiles beside each other are cut from a part of the image that is read once.
        """
        self._check_rows(start, stop, row_start, row_stop)
        grid, found = self.grid, []
        for image, place, count in grid.runs(start, stop):
            first = grid.region(place)
            last = grid.region((*place[:-1], place[-1] + count - 1))
            joined = slice(first[-1].start, last[-1].stop)
            read = self.whole.read_part(slice(image, image + 1), (*first[:-1], joined))
            for number in range(count):
                begin = grid.starts[-1][place[-1] + number] - joined.start
                found.append(read[0, ..., begin : begin + grid.tile[-1]])
        tiles = np.stack(found) if found else np.empty((0, *self.image_shape), self.dtype)
        return np.ascontiguousarray(tiles[:, :, row_start:row_stop])

    def read_sample(self, start: int, images: int, size: int) -> NDArray[np.generic]:
        """Return a part of a few whole images; see :meth:`ImageSource.read_sample`."""
        return self.whole.read_sample(start // self.grid.tiles, images, size)

    def coordinates(
        self,
        sizes: Mapping[str, int],  # noqa: ARG002 - the signature is that of ImageSource
        ids: NDArray[np.generic] | None = None,  # noqa: ARG002 - the signature is that of ImageSource
    ) -> list[Coordinate]:
        """Return nothing: tiles have no labels."""
        return []
