"""Linear combinations of overlapping runs of a tensor, without copying the runs.

Encoding multiplies the parts of an input by a small matrix. The parts are runs of one axis,
``step`` apart and ``count`` long; they overlap, and reach beyond both ends, where there are
zeros. Copying and padding them would take several passes over the input, which cost more than
the multiplication itself. But the r-th rows of all parts are evenly spaced in memory, and so
are rows r to r' of all parts as long as r' − r ≤ ``step``: a matrix with one row for each
part, which is a view of the input. So the positions 0 … count − 1 are cut into pieces such
that for each piece the same parts are inside the input, and each piece is one matrix product.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["combine_runs"]

_NARROW_COLUMNS = 512
"""Matrices with fewer columns than this are copied side by side and multiplied at once."""


def combine_runs(
    x: torch.Tensor, matrix: NDArray[np.float64], step: int, count: int, before: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield combinations of runs: Σ_a matrix[i, a] · x[:, a · step + r − before, :].

    Parameters
    ----------
    x
        (outer, length, inner), contiguous.
    matrix
        (ell, k) float64. Runs before the first and after the last column that is not zero
        are not read.
    step
        Positions between the beginnings of neighbouring runs, at least 1.
    count
        Positions of one run, r = 0 … count − 1.
    before
        Zeros before the first position of ``x``; after the last there are as many as needed.

    Yields
    ------
    tuple
        A slice of positions r, and their combinations, (outer, ell, positions, inner).
        Positions that are zero in all runs are left out.
    """
    outer, length, inner = x.shape
    used = np.flatnonzero(np.any(matrix != 0.0, axis=0))
    if not len(used):
        return
    coefficients = torch.from_numpy(matrix.copy()).to(device=x.device, dtype=x.dtype)
    for piece in _pieces(int(used[0]), int(used[-1]), length, step, count, before):
        # The runs that have positions [piece.start, piece.stop) inside x.
        first = max(int(used[0]), -(-(before - piece.start) // step))
        last = min(int(used[-1]), (length + before - piece.stop) // step)
        if first > last:
            continue
        width = (piece.stop - piece.start) * inner
        runs = torch.as_strided(
            x,
            (outer, last - first + 1, width),
            (length * inner, step * inner, 1),
            x.storage_offset() + (first * step + piece.start - before) * inner,
        )
        product = _multiply(coefficients[:, first : last + 1], runs)
        yield piece, product.view(outer, len(matrix), piece.stop - piece.start, inner)


def _pieces(
    first: int, last: int, length: int, step: int, count: int, before: int
) -> Iterator[slice]:
    """Yield slices of at most ``step`` positions for which the same parts are inside."""
    edges = {0, count, *range(step, count, step)}
    for a in range(first, last + 1):
        for end in (before - a * step, length + before - a * step):
            if 0 < end < count:
                edges.add(end)
    yield from (slice(start, stop) for start, stop in itertools.pairwise(sorted(edges)))


def _multiply(coefficients: torch.Tensor, runs: torch.Tensor) -> torch.Tensor:
    """Return (outer, ell, width), the product of (ell, k) with each of (outer, k, width)."""
    outer, parts, width = runs.shape
    if outer > 1 and width < _NARROW_COLUMNS:
        side_by_side = runs.transpose(0, 1).reshape(parts, outer * width)
        return (coefficients @ side_by_side).view(-1, outer, width).transpose(0, 1).contiguous()
    return torch.bmm(coefficients.expand(outer, -1, -1), runs)
