"""Coded inputs: linear combinations of strips, or of runs of images."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from .apcp import ImagePartition, RowPartition
from .combine import combine_runs
from .geometry import ConvGeometry

__all__ = ["combine_images", "combine_strips", "take_images"]


def combine_strips(
    x: torch.Tensor,
    matrix: NDArray[np.float64],
    geometry: ConvGeometry,
    partition: RowPartition,
) -> torch.Tensor:
    """Return combinations of strips, (ell · B, C, Ĥ, W + 2p …).

    Parameters
    ----------
    x
        The unpadded input, (B, C, *space).
    matrix
        (ell, k_a) float64.
    geometry, partition
        The layer, and the split of its rows.
    """
    batch, channels, rows, *others = x.shape
    ell, count = len(matrix), partition.input_rows
    out = x.new_zeros((ell, batch, channels, count, *geometry.padded_spatial[1:]))
    unpadded = out
    for axis, (size, (before, _)) in enumerate(zip(others, geometry.padding[1:], strict=True)):
        unpadded = unpadded.narrow(4 + axis, before, size)
    flat = x.contiguous().view(batch * channels, rows, math.prod(others))
    for run, values in combine_runs(flat, matrix, partition.step, count, geometry.padding[0][0]):
        by_image = values.view(batch, channels, ell, values.shape[2], *others)
        unpadded[:, :, :, run] = by_image.movedim(2, 0)
    return out.flatten(0, 1)


def combine_images(
    x: torch.Tensor, matrix: NDArray[np.float64], partition: ImagePartition
) -> torch.Tensor:
    """Return combinations of runs of images, (ell · b, C, *space); x is (B, C, *space)."""
    ell, images = len(matrix), partition.per_part
    out = x.new_zeros((ell, images, *x.shape[1:]))
    flat = x.contiguous().flatten(1)[None]
    for run, values in combine_runs(flat, matrix, max(images, 1), images, before=0):
        out[:, run] = values.view(ell, values.shape[2], *x.shape[1:])
    return out.flatten(0, 1)


def take_images(x: torch.Tensor, partition: ImagePartition, first: int, parts: int) -> torch.Tensor:
    """Return consecutive runs of images, uncoded, with zero images at the end if needed.

    A view of ``x`` if no zero images are needed.
    """
    taken = x[partition.run(first, parts)]
    missing = parts * partition.per_part - len(taken)
    return torch.cat([taken, taken.new_zeros((missing, *x.shape[1:]))]) if missing else taken
