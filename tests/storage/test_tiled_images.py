"""Tiles of stored images, read as images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fcdcc.storage import open_images
from fcdcc.storage.chunk_listing import list_chunks
from fcdcc.storage.input_state import InputState
from fcdcc.storage.tile_grid import TileGrid
from fcdcc.storage.tiled_images import TiledImages

GRID = TileGrid((22, 17), (9, 8), (6, 5))
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 22, 17, 2), dtype=np.uint8)


@pytest.fixture
def tiles(tmp_path: Path) -> TiledImages:
    """Tiles of three images with their channels last."""
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    group.create_array(
        "image", data=PIXELS, chunks=(1, 7, 5, 2), dimension_names=["n", "y", "x", "c"]
    )
    return TiledImages.of(open_images(tmp_path / "i.zarr", expect=(None, 2, None, None)), GRID)


def cut(tile: int) -> np.ndarray:
    image, place = GRID.place(tile)
    return np.moveaxis(PIXELS[image][GRID.region(place)], -1, 0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_read_is_what_numpy_cuts(tiles: TiledImages, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, tiles.images))
    stop = data.draw(st.integers(start, tiles.images))
    expected = [cut(tile) for tile in range(start, stop)]
    np.testing.assert_array_equal(tiles.read(start, stop), np.array(expected).reshape(-1, 2, 9, 8))
    np.testing.assert_array_equal(
        tiles.read_rows(start, stop, 2, 5), np.array(expected).reshape(-1, 2, 9, 8)[:, :, 2:5]
    )


def test_tiles_have_no_labels_and_an_identity_of_their_own(tiles: TiledImages) -> None:
    assert tiles.images == 3 * GRID.tiles
    assert tiles.image_shape == (2, 9, 8)
    assert tiles.coordinates({"y": 9, "x": 8}) == []
    assert tiles.identity == {**tiles.whole.identity, "tiles": GRID.as_json()}
    assert tiles.read_sample(GRID.tiles, 1, 2**20).shape[1] == 2


def test_only_blocks_whose_tiles_were_changed_count_as_changed(tiles: TiledImages) -> None:
    def state() -> InputState:
        return InputState(tiles, list_chunks(tiles.whole))

    across = GRID.counts[1]
    before = state().block_input(0, across)
    below = state().block_input(GRID.tiles - across, GRID.tiles)
    assert before.rows == (0, 9)
    assert below.rows == (13, 22)
    zarr.open_group(tiles.url)["image"][0, 20, 3] = 0
    assert state().block_input(0, across).pixels == before.pixels
    assert state().block_input(GRID.tiles - across, GRID.tiles).pixels != below.pixels
    assert state().block_input(GRID.tiles, 2 * GRID.tiles).rows == (0, 22)
    assert state().block_input(1, 2 * GRID.tiles).rows is None
