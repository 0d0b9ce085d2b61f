"""The weights of the positions of a value, and random weights of anything else.

The weight of a position is the product of one weight for each axis. Along the first axis these are
a cosine and a sine of a turning angle, along the others random numbers. They depend on the size of
the axis alone.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from .checksum_costs import TURNS

__all__ = ["axis_weights", "position_weights", "random_weights"]

_PARTS = 128
"""A circle has so many parts for each position of the first axis. Neighbours are a whole number of
parts apart, which is exact for every position, so that the weights are as accurate at the end of a
long axis as at its beginning."""

_LEAST_SUM, _LARGEST_SUM = 0.6, 1.5
"""What the weights along a further axis add up to, for every size and in units of its root, if the
next sign can reach it. So an error that is the same everywhere counts about as much as one of
random numbers: it neither cancels nor adds up."""

START = 0.7
"""Radians at the first position, where cosine and sine must both be large: it may be the only one,
as in linear layers."""

_HALF_CIRCLES = 0.91
"""Half circles that all positions of the first axis turn by, in units of the root of the size. The
larger one of the sums of all cosines and of all sines is then 0.5 to 1.25 times that root."""

QUARTER = math.pi / 2

KEPT_SIZES = 256
"""Sizes for which weights are kept."""


def position_weights(space: tuple[int, ...], sums: int) -> torch.Tensor:
    """Return the weights of all positions of a value of this size, (sums, positions) in float64."""
    whole = torch.ones((sums, 1), dtype=torch.float64)
    for axis, size in enumerate(space):
        of_axis = axis_weights(axis, size, sums)
        whole = (whole[:, :, None] * of_axis[:, None]).flatten(1)
    return whole


def axis_weights(axis: int, size: int, sums: int) -> torch.Tensor:
    """Return the weights of the positions along one axis, (sums, size) in float64.

    Along the first axis they are cosines and sines of a position times an angle, in turns: of two
    sums one is at least 0.7 everywhere. Along others they are random numbers, the same for a cosine
    and its sine, with signs that keep their sum near the root of the size.
    """
    number = torch.arange(sums)
    if axis:
        kept = 1 << max(size - 1, 0).bit_length()
        return _further_weights(axis, -(-sums // TURNS), kept)[number // TURNS, :size]
    turns = turns_of(torch.arange(size), size)
    # A whole number times π / 2 would be rounded to float32.
    return torch.cos(turns - QUARTER * (number % TURNS).to(torch.float64)[:, None])


@lru_cache(maxsize=KEPT_SIZES)
def _further_weights(axis: int, pairs: int, size: int) -> torch.Tensor:
    """Return the weights of the positions along an axis that is not the first, (pairs, size).

    They are those of :func:`random_weights`, some of them with the other sign.
    """
    with torch.inference_mode(mode=False):  # kept, and used in other modes, too
        weights = random_weights((pairs, size), 0, 2 + axis)
        for row in weights:
            total, drawn = 0.0, row.tolist()
            for place, weight in enumerate(drawn):
                root = math.sqrt(place + 1)
                outside = [
                    max(_LEAST_SUM - abs(found) / root, abs(found) / root - _LARGEST_SUM, 0.0)
                    for found in (total + weight, total - weight)
                ]
                if outside[1] < outside[0]:
                    drawn[place] = -weight
                total += drawn[place]
            row.copy_(torch.tensor(drawn, dtype=torch.float64))
        return weights


def turns_of(place: torch.Tensor, size: int, stride: int = 1) -> torch.Tensor:
    """Return the angles, in radians, of places on the first axis.

    Parameters
    ----------
    place
        Whole numbers, which may be negative.
    size
        Positions that have weights.
    stride
        Places from one position to the next.
    """
    parts = _PARTS * size * stride
    return START + math.tau * ((place * _steps(size)) % parts).to(torch.float64) / parts


@lru_cache(maxsize=KEPT_SIZES)
def _steps(size: int) -> int:
    """Return how many parts of the circle neighbours along the first axis are apart.

    All positions together turn by nearly an odd number of half circles, about the root of the size.
    So equal numbers nearly cancel but for a part that grows with the root of the size, as the sum
    of random numbers does. No two positions have the same weight.
    """
    half_circles = 2 * round(math.sqrt(size) * _HALF_CIRCLES / 2 - 0.5) + 1
    about = _PARTS // 2 * half_circles
    # A turn that the positions repeat after is longer than the axis.
    return next(
        steps
        for distance in range(1, about, 2)
        for steps in (about + distance, about - distance)
        if math.gcd(steps, _PARTS * size) <= _PARTS
    )


def random_weights(shape: tuple[int, int], seed: int, stream: int) -> torch.Tensor:
    """Return weights of random sign between ¾ and 1¼, float64 and exact in float32.

    A longer row begins with a shorter one of the same seed and stream.
    """
    rows = []
    for row in range(shape[0]):
        generator = torch.Generator().manual_seed((seed * 8 + stream) * 8 + row + 1)
        drawn = torch.rand((shape[1], 2), generator=generator, dtype=torch.float64)
        size = torch.round((0.75 + drawn[:, 0] / 2) * 4096) / 4096
        rows.append(torch.where(drawn[:, 1] < 0.5, -size, size))
    return torch.stack(rows)
