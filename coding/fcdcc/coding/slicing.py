"""Splitting of work into slices: runs of images, of rows and of filters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

__all__ = ["pieces", "runs", "tiles"]

TILE_ENTRIES = 2**21
"""Entries that are decoded at once: some megabytes."""


def runs(length: int, slices: int) -> Iterator[slice]:
    """Yield ``slices`` runs of nearly equal length; fewer if there are fewer positions.

    >>> list(runs(5, 2))
    [slice(0, 2, None), slice(2, 5, None)]
    """
    slices = max(1, min(length, slices))
    edges = [length * i // slices for i in range(slices + 1)]
    yield from itertools.starmap(slice, itertools.pairwise(edges))


def pieces(images: int, rows: int, slices: int) -> Iterator[tuple[slice, slice]]:
    """Yield runs of images and of output rows, at least ``slices`` of them if possible.

    Images are separated first, at no cost; they are cut into rows if there are fewer images
    than slices.
    """
    image_runs = list(runs(images, slices))
    row_slices = math.ceil(slices / len(image_runs))
    yield from itertools.product(image_runs, runs(rows, row_slices))


def tiles(shape: Sequence[int], rows: int) -> Iterator[tuple[slice, slice]]:
    """Yield runs of images and of filters for decoding in tiles.

    Parameters
    ----------
    shape
        Of one result, (images, G, filters, h, …).
    rows
        Results that are decoded together.

    A tile of all rows is large enough for an efficient matrix product, and small enough that
    its memory is reused and stays in the processor's cache.
    """
    images, _, filters = shape[:3]
    one_filter = max(1, rows * math.prod(shape) // max(1, images * filters))
    at_once = max(1, min(filters, TILE_ENTRIES // one_filter))
    images_at_once = max(1, TILE_ENTRIES // (one_filter * at_once))
    yield from itertools.product(
        runs(images, math.ceil(images / images_at_once)),
        runs(filters, math.ceil(filters / at_once)),
    )
