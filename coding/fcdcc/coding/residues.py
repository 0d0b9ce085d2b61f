"""Differences of sums with their bounds, and the norms that bounds are made of."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from .position_sums import channels_last_view, summable

__all__ = ["Residues", "norms_of", "part_of_each", "roundoff", "roundoff_of_sums"]

_PART_READ = 8
"""Of so many elements of an input one is read to show that differences are small."""

_READ_WHOLE = 4096
"""Inputs of at most so many elements for each image are read whole."""

_SMALL_SQUARE = 1e-24
"""Norms whose squares are smaller are computed in float64."""


class Residues(NamedTuple):
    """How far a layer's sums are from those that they must be.

    Parameters
    ----------
    differences
        float64, of any shape; ``positions`` has (images, sums).
    bounds
        Largest difference that rounding explains, of a shape that broadcasts to it. Infinity where
        the input is not finite or so large that the output may not be.
    """

    differences: torch.Tensor
    bounds: torch.Tensor

    @property
    def is_right(self) -> bool:
        """Whether no difference exceeds its bound."""
        # A difference of NaN is no smaller than any bound but infinity.
        within = (self.differences.abs() <= self.bounds) | torch.isinf(self.bounds)
        return bool(within.all())

    @property
    def worst(self) -> float:
        """The largest difference in units of its bound; infinity for NaN, 0 if there is none."""
        if not self.differences.numel():
            return 0.0
        ratios = self.differences.abs() / self.bounds.clamp_min(torch.finfo(torch.float64).tiny)
        ratios = torch.where(torch.isinf(self.bounds).expand_as(ratios), 0.0, ratios)
        return float(torch.nan_to_num(ratios, nan=math.inf, posinf=math.inf).max())


def part_of_each(value: torch.Tensor) -> torch.Tensor:
    """Return (images, elements): a run from the middle of each image, or all of a small one."""
    view = channels_last_view(value)
    flat = (value if view is None else view).reshape(len(value), -1)
    size = flat.shape[1]
    if size <= _READ_WHOLE:
        return flat
    read = max(size // _PART_READ, _READ_WHOLE)
    return flat[:, (size - read) // 2 : (size + read) // 2]


def norms_of(value: torch.Tensor) -> list[float]:
    """Return the norm of every image."""
    value = summable(value)
    view = channels_last_view(value)
    flat = (value if view is None else view).reshape(len(value), -1)
    norms = []
    for image in flat:
        square = float(torch.dot(image, image))
        # Squares of small numbers may be zero, and those of large ones infinite.
        if not _SMALL_SQUARE <= square < math.inf:
            square = float(image.to(torch.float64).square().sum())
        norms.append(math.sqrt(square) if square >= 0 else math.nan)
    return norms


def roundoff(dtype: torch.dtype) -> float:
    """Return the unit roundoff of a dtype: half of the distance from 1 to the next number."""
    return torch.finfo(dtype).eps / 2


def roundoff_of_sums(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the unit roundoff in which the sums are computed."""
    return max(roundoff(summable(x[:0]).dtype), roundoff(summable(y[:0]).dtype))
