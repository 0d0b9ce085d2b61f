"""The weights by which the predictions of overlapping tiles become one.

The weight of a tile at a place is the product of its weights along each axis, and so is their sum
over all tiles that have the place. So it is enough that along each axis the weights of all tiles
sum to 1 at every place.

The outermost places of a tile are those where the network saw the edge of the tile instead of what
lies beyond. Where the overlap is large enough, a margin of them has no weight, except at the edges
of the image, which are edges for the network run on the whole image, too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...options import Blend

GAUSSIAN_SIGMA = 1 / 8
"""Standard deviation of the bell in sizes of a tile, as in MONAI's sliding window."""


@dataclass(frozen=True)
class AxisWindows:
    """The weights of all tiles along one axis of the prediction.

    Parameters
    ----------
    starts, size
        The first places of the tiles, ascending, and the places of a tile.
    length
        Places of the whole prediction, which the tiles cover.
    overlap
        Places that tiles at the usual distance have in common.
    margin
        Places at the edges of a tile inside the prediction that have no weight; at most half of
        the overlap.
    blend
        How the weights fall off.
    """

    starts: tuple[int, ...]
    size: int
    length: int
    overlap: int
    margin: int
    blend: Blend

    def covering(self, start: int, stop: int) -> range:
        """Return the tiles that have weight at some of the places start … stop − 1."""
        found = []
        for tile in self._near(start, stop):
            first, last = self._support(tile)
            if first < stop and start < last:
                found.append(tile)
        return range(found[0], found[-1] + 1) if found else range(0)

    def weights(self, tile: int, start: int, stop: int) -> tuple[slice, NDArray[np.float64]]:
        """Return where a tile has weight among the places start … stop − 1, and its weights there.

        The weights of all tiles sum to 1 at every place.
        """
        first, last = self._support(tile)
        places = slice(max(start, first), max(min(stop, last), max(start, first)))
        own = self._raw(tile, places)
        total = np.zeros_like(own)
        for other in self._near(places.start, places.stop):
            low, high = self._support(other)
            part = slice(max(low, places.start), min(high, places.stop))
            if part.start < part.stop:
                inner = slice(part.start - places.start, part.stop - places.start)
                total[inner] += self._raw(other, part)
        return places, own / total

    def chosen(self, tile: int, start: int, stop: int) -> tuple[slice, NDArray[np.bool_]]:
        """Return where a tile has weight, and where it is the one with the largest weight.

        At each place that is one tile: the first of those that are equal.
        """
        places, own = self.weights(tile, start, stop)
        best = np.ones(own.shape, np.bool_)
        for other in self._near(places.start, places.stop):
            where, theirs = self.weights(other, places.start, places.stop)
            inner = slice(where.start - places.start, where.stop - places.start)
            mine = own[inner]
            best[inner] &= (mine > theirs) if other < tile else (mine >= theirs)
        return places, best

    def _near(self, start: int, stop: int) -> range:
        """Return the tiles that have some of the places start … stop − 1."""
        return range(bisect_right(self.starts, start - self.size), bisect_left(self.starts, stop))

    def _support(self, tile: int) -> tuple[int, int]:
        """Return the first place where a tile has weight, and the last + 1."""
        start = self.starts[tile]
        stop = start + self.size
        first = start if start == 0 else start + self.margin
        return first, stop if stop == self.length else stop - self.margin

    def _raw(self, tile: int, places: slice) -> NDArray[np.float64]:
        """Return the weights of a tile at places where it has weight, before they sum to 1."""
        start, stop = self.starts[tile], self.starts[tile] + self.size
        place = np.arange(places.start, places.stop) + 0.5
        if self.blend == "constant":
            return np.ones(len(place))
        if self.blend == "gaussian":
            distance = (place - (start + stop) / 2) / (GAUSSIAN_SIGMA * self.size)
            bell: NDArray[np.float64] = np.exp(-0.5 * distance**2)
            return bell
        ramp = max(self.overlap - 2 * self.margin, 1)
        rising = np.ones(len(place)) if start == 0 else (place - start - self.margin) / ramp
        falling = np.ones(len(place))
        if stop < self.length:
            falling = (stop - self.margin - place) / ramp
        part = np.clip(np.minimum(rising, falling), 0, 1)
        return part if self.blend == "linear" else np.sin(np.pi / 2 * part) ** 2


def blended(
    windows: Sequence[AxisWindows],
    tiles: Callable[[tuple[int, ...]], NDArray[Any]],
    channels: tuple[int, ...],
    dtype: str,
    region: Sequence[tuple[int, int]],
) -> NDArray[Any]:
    r"""Return a part of a prediction, put together from those of the tiles.

    Floats are averaged by the weights, in float32 at least. Of integers and truth values, which
    have no average, each place has that of the tile with the largest weight.

    Parameters
    ----------
    windows
        The weights along each axis.
    tiles
        Called with the place of a tile among the tiles; returns its prediction (\*channels,
        \*space). It is called in order, the last axis fastest.
    channels
        The axes of the prediction in front of its places.
    dtype
        Of the prediction.
    region
        The part: for each axis the first place and the last + 1.

    Returns
    -------
    ndarray
        (\*channels, \*space of the part).
    """
    averaged = np.dtype(dtype).kind == "f"
    sums = np.result_type(dtype, np.float32) if averaged else np.dtype(dtype)
    shape = tuple(stop - start for start, stop in region)
    found = np.zeros((*channels, *shape), sums)
    covering = [w.covering(*part) for w, part in zip(windows, region, strict=True)]
    for index in np.ndindex(*(len(some) for some in covering)):
        place = tuple(some[i] for some, i in zip(covering, index, strict=True))
        each = []
        for axis, (window, (start, stop)) in enumerate(zip(windows, region, strict=True)):
            get = window.weights if averaged else window.chosen
            places, weight = get(place[axis], start, stop)
            each.append((places, weight))
        own = tuple(
            slice(places.start - w.starts[at], places.stop - w.starts[at])
            for (places, _), w, at in zip(each, windows, place, strict=True)
        )
        part = tuple(
            slice(places.start - start, places.stop - start)
            for (places, _), (start, _) in zip(each, region, strict=True)
        )
        everywhere = (slice(None),) * len(channels)
        values = tiles(place)[everywhere + own]
        target = found[everywhere + part]
        if averaged:
            weighted = values.astype(sums, copy=True)
            for axis, (_, weight) in enumerate(each):
                weighted *= _along(weight.astype(sums), axis, len(each))
            target += weighted
            continue
        mask = np.ones((1,) * len(each), np.bool_)
        for axis, (_, weight) in enumerate(each):
            mask = mask & _along(weight, axis, len(each))
        np.copyto(target, values, where=mask)
    return found.astype(dtype, copy=False)


def _along(weights: NDArray[Any], axis: int, axes: int) -> NDArray[Any]:
    """Return weights so that they are broadcast along one of the last axes."""
    return weights.reshape([-1 if i == axis else 1 for i in range(axes)])
