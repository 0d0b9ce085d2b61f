"""Predictions of images from those of their tiles: what a band of an image is put together from.

The output of a job with tiles has the arrays of whole images, in bands of rows. Each band is one
block with a record of its own, and is made from the stored predictions of the tiles that it needs,
always in the same order. So no two tasks write one chunk, and a band has the same bytes whenever
and however often it is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcdcc.storage import DamageError, Json, OutputArray, PredictionStore
from fcdcc.storage.tile_grid import TileGrid

from ...stored_forms import StoredForm
from ..stored_outputs import PREDICTION, StoredOutputs
from .blend_windows import AxisWindows, blended
from .tiling import Tiling

MAX_BAND_BYTES = 32 * 2**20
"""Largest band of a prediction before it is in its stored form, unless one row is larger."""


class DamagedTilesError(DamageError):
    """The stored predictions of tiles that a band needs are damaged."""


@dataclass(frozen=True)
class Assembly:
    """How the predictions of an image's tiles become one.

    Parameters
    ----------
    grid
        Where the tiles lie.
    windows
        The weights of the tiles along each axis; none where predictions are put side by side.
    channels
        The axes of the prediction of a tile that are no places.
    dtype
        Of the prediction.
    stored
        What is stored of it.
    band
        Rows of a band: of the blended prediction, or of the grid of tiles.
    """

    grid: TileGrid
    windows: tuple[AxisWindows, ...]
    channels: tuple[int, ...]
    dtype: str
    stored: StoredOutputs
    band: int

    @classmethod
    def of(cls, tiling: Tiling, form: StoredForm, threshold: float | None) -> Assembly:
        """Return how the predictions of tiles become one that is stored in a form.

        Parameters
        ----------
        tiling
            The tiles.
        form, threshold
            As for :meth:`.stored_outputs.StoredOutputs.of`.

        Raises
        ------
        OptionError
            If there is no such form.
        """
        head, windows = tiling.head, tiling.windows
        space = tuple(window.length for window in windows)
        channels = head.channels if windows else head.shape
        if windows:
            head = replace(head, shape=(*channels, *space))
        across = math.prod(channels) * math.prod((space or tiling.grid.counts)[1:])
        rows = (space or tiling.grid.counts)[0]
        wanted = max(1, MAX_BAND_BYTES // max(1, across * max(4, np.dtype(head.dtype).itemsize)))
        bands = -(-rows // min(wanted, rows))
        stored = StoredOutputs.of({PREDICTION: head}, form, threshold)
        return cls(tiling.grid, windows, channels, head.dtype, stored, -(-rows // bands))

    def arrays(self, spatial: tuple[str, ...]) -> tuple[OutputArray, ...]:
        """Return the arrays of an output, in bands.

        Parameters
        ----------
        spatial
            The names of the spatial axes of the images.
        """
        if self.windows:
            bands = len(self.channels), self.band
            return tuple(self.stored.arrays(spatial, self.grid.image, bands))
        dims = tuple(map(tile_dim, spatial))
        return tuple(
            replace(
                array,
                shape=(*self.grid.counts, *array.shape),
                dims=(*dims, *array.dims),
                row_axis=0,
                band=self.band,
            )
            for array in self.stored.arrays(spatial, self.grid.tile)
        )

    def tile_rows(self, start: int, stop: int) -> range:
        """Return the rows of tiles that the rows start … stop − 1 of a prediction need."""
        return self.windows[0].covering(start, stop) if self.windows else range(start, stop)

    def tiles(self, image: int, start: int, stop: int) -> range:
        """Return the tiles of an image that some rows of its prediction need."""
        rows = self.tile_rows(start, stop)
        across = math.prod(self.grid.counts[1:])
        first = image * self.grid.tiles
        return range(first + rows.start * across, first + rows.stop * across)

    def image_rows(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first row of the image that rows of its prediction need, and the last + 1."""
        rows = self.tile_rows(start, stop)
        return self.grid.rows(rows.start, rows.stop)

    def make(
        self, tiles: TilePredictions, image: int, start: int, stop: int
    ) -> dict[str, NDArray[Any]]:
        """Return what is stored of rows start … stop − 1 of one image's prediction, by array.

        Raises
        ------
        DamagedTilesError
            If the predictions of tiles cannot be read.
        """
        if self.windows:
            region = [(start, stop), *((0, window.length) for window in self.windows[1:])]
            first = image * self.grid.tiles

            def of_place(place: tuple[int, ...]) -> NDArray[Any]:
                number = int(np.ravel_multi_index(place, self.grid.counts))
                return tiles.read(first + number)

            whole = blended(self.windows, of_place, self.channels, self.dtype, region)
            return self.stored.apply({PREDICTION: whole[None]})
        found = np.stack([tiles.read(tile) for tile in self.tiles(image, start, stop)])
        places = (1, stop - start, *self.grid.counts[1:])
        made = self.stored.apply({PREDICTION: found.astype(self.dtype, copy=False)})
        return {name: values.reshape(*places, *values.shape[1:]) for name, values in made.items()}


class TilePredictions:
    """Reads the stored predictions of tiles one by one; keeps one block of them in memory.

    Parameters
    ----------
    store
        The output of the tiles.
    """

    def __init__(self, store: PredictionStore) -> None:
        self._store = store
        self._block = -1
        self._values: NDArray[Any] = np.empty(0)

    def read(self, tile: int) -> NDArray[Any]:
        """Return the prediction of a tile.

        Raises
        ------
        DamagedTilesError
            If it cannot be read.
        """
        layout = self._store.layout
        block = layout.block_of(tile)
        if block != self._block:
            self._values = np.empty(0)  # so that one block is in memory, not two
            try:
                self._values = self._store.read(block)
            except DamageError as error:
                raise DamagedTilesError(f"the predictions of tiles are damaged: {error}") from error
            self._block = block
        found: NDArray[Any] = self._values[tile - layout.bounds(block)[0]]
        return found


def write_band(
    assembly: Assembly,
    tiles: PredictionStore,
    store: PredictionStore,
    band: int,
    details: Mapping[str, Json],
) -> None:
    """Put a band of an image together from the predictions of its tiles, and write its record.

    Parameters
    ----------
    assembly
        How.
    tiles, store
        The output of the tiles, and that of the images.
    band
        The block of the output that the band is.
    details
        For the record.

    Raises
    ------
    DamagedTilesError
        If the predictions of tiles cannot be read.
    OutputError
        If the band cannot be written.
    """
    image, _ = store.layout.bounds(band)
    rows = store.layout.rows_of(band) or (0, 1)
    made = assembly.make(TilePredictions(tiles), image, *rows)
    not_finite = any(not np.isfinite(values).all() for values in made.values())
    warnings = [f"rows {rows[0]} to {rows[1] - 1} have values that are not finite"]
    store.write(
        band, made, warnings=warnings if not_finite else (), details={**details, "rows": [*rows]}
    )


def tile_dim(name: str) -> str:
    """Return the name of an axis of tiles, for that of an axis of the images.

    >>> tile_dim("y")
    'tile_y'
    """
    return f"tile_{name}"
