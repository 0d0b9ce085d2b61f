"""The kinds of checksums of a convolution, and what each of them costs: :mod:`.checksums`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .geometry import ConvGeometry

__all__ = [
    "CHECKSUM_KINDS",
    "SUMS",
    "TURNS",
    "ChecksumCost",
    "ChecksumKind",
    "cheapest_checksum",
    "checksum_cost",
]

ChecksumKind = Literal["filters", "images", "both", "positions"]

CHECKSUM_KINDS: tuple[ChecksumKind, ...] = get_args(ChecksumKind)

SUMS = 4
"""Sums with different weights."""

TURNS = 2
"""Of these sums a cosine and a sine along the first axis have the same weights along others."""


@dataclass(frozen=True)
class ChecksumCost:
    """What one check of a layer costs for a batch.

    Parameters
    ----------
    multiply_adds
        Of both sides.
    elements
        Elements of input, filters and output that are read.
    """

    multiply_adds: int
    elements: int

    def relative_to(self, geometry: ConvGeometry, batch: int) -> float:
        """Return the multiply-adds as a fraction of those of the layer."""
        return self.multiply_adds / (geometry.multiply_adds * batch)


def checksum_cost(
    kind: ChecksumKind, geometry: ConvGeometry, batch: int, sums: int = SUMS
) -> ChecksumCost:
    """Return what a checksum of one layer costs for a batch of images.

    The sums of the filters are left out: they are computed once.
    """
    outputs = math.prod(geometry.output_spatial)
    inputs = math.prod(geometry.spatial)
    kernel = math.prod(geometry.kernel)
    entering = batch * geometry.in_channels * inputs
    leaving = batch * geometry.out_channels * outputs
    checksum_filter = geometry.in_channels * kernel * outputs
    if kind == "filters":
        work = sums * (leaving + batch * checksum_filter)
        return ChecksumCost(work, entering + leaving)
    if kind == "images":
        work = sums * (entering + leaving + geometry.multiply_adds)
        return ChecksumCost(work, entering + leaving + math.prod(geometry.weight_shape))
    if kind == "both":
        return ChecksumCost(sums * (entering + leaving + checksum_filter), entering + leaving)
    # The first axis is added up first: a cosine and a sine for each remainder of the stride give
    # the sums for all elements of the kernel, apart from those at the edges. The weights of the
    # other axes are the same for a cosine and its sine.
    pairs = -(-sums // TURNS)
    rows = min(TURNS * geometry.stride[0] + geometry.kernel[0] - 1, TURNS * geometry.kernel[0])
    left = geometry.in_channels * inputs // geometry.spatial[0] * rows
    work = geometry.in_channels * inputs * TURNS
    for size, columns in zip(geometry.spatial[1:], geometry.kernel[1:], strict=True):
        work += left * pairs * columns
        left = left // size * pairs * columns
    work = batch * (work + left * sums) + leaving * TURNS
    work += leaving // geometry.output_spatial[0] * sums
    read = entering + entering // 8 + leaving  # an eighth of the input is read again for its norm
    return ChecksumCost(work, read)


def cheapest_checksum(geometry: ConvGeometry, batch: int, sums: int = SUMS) -> ChecksumKind:
    """Return the kind with the fewest multiply-adds, of equals the first.

    Examples
    --------
    >>> layer = ConvGeometry.of((8, 64, 56, 56), (64, 64, 3, 3), padding=1)
    >>> cheapest_checksum(layer, 8)
    'positions'
    """
    return min(CHECKSUM_KINDS, key=lambda k: checksum_cost(k, geometry, batch, sums).multiply_adds)
