"""Weights of overlapping tiles, and what they make of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fcdcc.pipeline.options import Blend
from fcdcc.pipeline.runtime.tiles.blend_windows import AxisWindows, blended
from fcdcc.storage.tile_grid import TileGrid

BLENDS: tuple[Blend, ...] = ("hann", "linear", "gaussian", "constant")


@st.composite
def axes(draw: st.DrawFn, blend: Blend | None = None) -> AxisWindows:
    length = draw(st.integers(1, 40))
    size = draw(st.integers(1, length))
    stride = draw(st.integers(1, size))
    (starts,) = TileGrid((length,), (size,), (stride,)).starts
    overlap = size - stride
    margin = draw(st.integers(0, overlap // 2))
    chosen = blend or draw(st.sampled_from(BLENDS))
    return AxisWindows(starts, size, length, overlap, margin, chosen)


@given(axes(), st.data())
def test_weights_sum_to_one_and_leave_the_margins_out(
    window: AxisWindows, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, window.length - 1))
    stop = data.draw(st.integers(start + 1, window.length))
    total, chosen = np.zeros(stop - start), np.zeros(stop - start, int)
    covering = window.covering(start, stop)
    for tile, first in enumerate(window.starts):
        places, weights = window.weights(tile, start, stop)
        own = slice(places.start - start, places.stop - start)
        assert (weights > 0).all()
        assert bool(len(weights)) == (tile in covering)
        if len(weights):
            last = first + window.size
            assert places.start >= first + (window.margin if first else 0)
            assert places.stop <= last - (window.margin if last < window.length else 0)
        total[own] += weights
        chosen[own] += window.chosen(tile, start, stop)[1]
    np.testing.assert_allclose(total, 1, rtol=1e-12)
    assert (chosen == 1).all()


@pytest.mark.parametrize("blend", BLENDS)
def test_one_tile_alone_has_the_whole_weight(blend: Blend) -> None:
    alone = AxisWindows((0, 6), 8, 14, 2, 0, blend)
    places, weights = alone.weights(0, 0, 6)
    assert (places.start, places.stop) == (0, 6)
    assert (weights == 1).all()  # so that its prediction stays as it is, bit by bit


def oracle(
    windows: tuple[AxisWindows, ...], tiles: NDArray[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Blend with full-sized weights, tile by tile: (*counts, C, *size) to (C, *shape)."""
    total = np.zeros(shape)
    sums = np.zeros((tiles.shape[len(windows)], *shape))
    for place in np.ndindex(tiles.shape[: len(windows)]):
        weight = np.ones(())
        for window, at in zip(windows, place, strict=True):
            own = np.zeros(window.length)
            first = window.starts[at]
            last = first + window.size
            along = np.arange(first, last)
            inside = np.minimum(
                np.inf if first == 0 else along + 0.5 - first,
                np.inf if last == window.length else last - along - 0.5,
            )
            raw = np.clip(
                (inside - window.margin) / max(window.overlap - 2 * window.margin, 1), 0, 1
            )
            if window.blend == "hann":
                raw = np.sin(np.pi / 2 * raw) ** 2
            if window.blend == "gaussian":
                middle = (first + last) / 2
                raw = np.exp(-0.5 * ((along + 0.5 - middle) / (window.size / 8)) ** 2)
            if window.blend == "constant":
                raw = np.ones(window.size)
            own[first:last] = np.where(inside > window.margin, raw, 0)
            weight = np.multiply.outer(weight, own)
        region = tuple(
            slice(w.starts[at], w.starts[at] + w.size) for w, at in zip(windows, place, strict=True)
        )
        total += weight
        sums[(slice(None), *region)] += weight[region] * tiles[place]
    return sums / total


@settings(max_examples=40)
@given(st.integers(1, 3), st.data())
def test_blended_predictions_are_those_of_numpy(count: int, data: st.DataObject) -> None:
    windows = tuple(data.draw(axes()) for _ in range(count))
    if np.prod([w.length for w in windows]) > 4000:
        windows = windows[:1]
    counts, sizes = tuple(len(w.starts) for w in windows), tuple(w.size for w in windows)
    shape = tuple(w.length for w in windows)
    tiles = np.random.default_rng(0).normal(size=(*counts, 2, *sizes)).astype(np.float32)
    whole = blended(windows, lambda place: tiles[place], (2,), "float32", [(0, n) for n in shape])
    np.testing.assert_allclose(whole, oracle(windows, tiles, shape), atol=2e-6)
    start = data.draw(st.integers(0, shape[0] - 1))
    stop = data.draw(st.integers(start + 1, shape[0]))
    region = [(start, stop), *((0, n) for n in shape[1:])]
    part = blended(windows, lambda place: tiles[place], (2,), "float32", region)
    assert part.tobytes() == whole[:, start:stop].tobytes()


@settings(max_examples=20)
@given(axes(), axes())
def test_class_numbers_are_taken_from_one_tile(rows: AxisWindows, columns: AxisWindows) -> None:
    windows = rows, columns
    counts = len(rows.starts), len(columns.starts)
    whole = blended(
        windows,
        lambda place: np.full((rows.size, columns.size), np.ravel_multi_index(place, counts)),
        (),
        "int64",
        [(0, rows.length), (0, columns.length)],
    )
    for tile, (top, left) in enumerate(np.ndindex(counts)):
        mine = np.argwhere(whole == tile)
        if len(mine):
            assert mine[:, 0].min() >= rows.starts[top]
            assert mine[:, 1].max() < columns.starts[left] + columns.size


def test_numbers_that_are_not_finite_stay_in_their_tiles_weight() -> None:
    """What has no weight is not multiplied by 0, which would spread NaN."""
    window = AxisWindows((0, 6), 10, 16, 4, 2, "hann")
    tiles = np.ones((2, 1, 10))
    tiles[1, :, :2] = np.nan  # the margin of the second tile
    made = blended((window,), lambda place: tiles[place], (1,), "float64", [(0, 16)])
    assert np.isfinite(made).all()
