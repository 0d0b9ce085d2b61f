"""Where tiles lie."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.storage import InputError
from fcdcc.storage.tile_grid import TileGrid


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    axes = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 12)) for _ in range(axes)]
    tiles = [draw(st.integers(1, size)) for size in sizes]
    strides = [draw(st.integers(1, tile)) for tile in tiles]
    return TileGrid(tuple(sizes), tuple(tiles), tuple(strides))


@given(grids())
def test_tiles_cover_every_pixel_and_stay_inside(grid: TileGrid) -> None:
    seen = np.zeros(grid.image, int)
    for tile in range(grid.tiles):
        image, place = grid.place(tile)
        assert image == 0
        region = grid.region(place)
        assert all(
            0 <= part.start < part.stop <= n for part, n in zip(region, grid.image, strict=True)
        )
        assert tuple(part.stop - part.start for part in region) == grid.tile
        seen[region] += 1
    assert (seen > 0).all()


@given(grids(), st.data())
def test_neighbours_overlap_by_what_was_asked_at_least(grid: TileGrid, data: st.DataObject) -> None:
    for starts, tile, stride in zip(grid.starts, grid.tile, grid.stride, strict=True):
        assert list(starts) == sorted(set(starts))
        assert all(b - a <= stride for a, b in pairwise(starts))
        assert all(a + tile - b >= tile - stride for a, b in pairwise(starts))


@given(grids(), st.integers(1, 3), st.data())
def test_runs_and_regions_of_tiles(grid: TileGrid, images: int, data: st.DataObject) -> None:
    total = images * grid.tiles
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    listed = [
        (image, (*place[:-1], place[-1] + step))
        for image, place, count in grid.runs(start, stop)
        for step in range(count)
    ]
    assert listed == [grid.place(tile) for tile in range(start, stop)]
    first, last, rows = grid.images_of(start, stop)
    assert {image for image, _ in listed} == set(range(first, last))
    if rows is not None:
        regions = [grid.region(place)[0] for _, place in listed]
        assert rows == (min(r.start for r in regions), max(r.stop for r in regions))


@pytest.mark.parametrize(
    ("image", "tile", "stride"), [((8,), (9,), (3,)), ((8,), (4,), (5,)), ((8, 8), (4,), (4,))]
)
def test_impossible_tiles_are_refused(
    image: tuple[int, ...], tile: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="expected"):
        TileGrid(image, tile, stride)
