"""Sketches of shares: signed sums of their entries, which are enough to check them.

The linear relations between shares hold entry by entry, so they hold for sums of entries, too.
A *sketch* (:func:`sketch`) adds the entries of each result, with signs, into 1024 sums. That
takes one pass over the memory; checking the sums then takes very little time. A wrong entry
changes exactly one sum, to which only a few other entries contribute, and cannot cancel.

How large rounding can be depends on the dtype, on the number of products that were added up for
one entry, and on their size (:func:`rounding_bound`, :func:`convolution_scale`). It does not
depend on the size of the results: if large products cancel, the results are small but their
rounding is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch

from .code import Code
from .integrity import Rows, Verdict, check_shares, threshold

__all__ = [
    "bounded",
    "check_sketches",
    "convolution_scale",
    "rounding_bound",
    "sketch",
    "summed",
]

SUMS = 1024
"""Sums in the sketch of one result; fewer if it has fewer entries."""

ROUNDING_FACTOR = 8.0
"""Factor of :func:`rounding_bound` on ε √R, the scale of rounding after R additions."""

MAX_SIZE_RATIO = 16.0
"""The largest right share of a group is at most so many times as large as the second largest."""


def rounding_bound(dtype: torch.dtype, reduction: int, summed: int = 1) -> float:
    """Return the largest syndrome that rounding can cause, relative to the size of the products.

    Parameters
    ----------
    dtype
        torch.float32 or torch.float64.
    reduction
        Products that were added up for one entry, over all convolutions that led to it.
    summed
        Entries in one sum of a sketch.

    Notes
    -----
    Adding R numbers of one size one by one leaves an error of about ε √R / 6 of the sum;
    ``ROUNDING_FACTOR`` is far above 1/6. The sums of the sketch add ε √summed.

    Raises
    ------
    TensorError
        If the dtype is neither.
    """
    threshold(dtype)
    return torch.finfo(dtype).eps * (ROUNDING_FACTOR * math.sqrt(reduction) + math.sqrt(summed))


def convolution_scale(entering: torch.Tensor, filter_size: float, reduction: int) -> float:
    """Return the size that a convolution's outputs would have if its products had random signs.

    Parameters
    ----------
    entering
        The input of the convolution; if it holds infinity or NaN, so does the result.
    filter_size
        Root mean square of the filters' elements.
    reduction
        Products that are added up for one output.
    """
    if not entering.numel():
        return 0.0
    if entering.is_contiguous():  # a third faster than vector_norm
        flat = entering.view(-1)
        norm = math.sqrt(float(torch.dot(flat, flat)))
    else:
        norm = float(torch.linalg.vector_norm(entering))
    return norm / math.sqrt(entering.numel()) * filter_size * math.sqrt(reduction)


def sketch(rows: Rows) -> torch.Tensor:
    """Return the signed sums of the results of a share, (rows, sums).

    Every entry is added to one sum, with a sign that is the same for all shares. The sum of an
    entry that is NaN or infinite is not finite either.

    Parameters
    ----------
    rows
        The share's ell_a · ell_b results, tensors of one shape, as for :func:`check_shares`.
    """
    return torch.stack([_sums(row) for row in rows])


def summed(entries: int) -> int:
    """Return the largest number of entries in one sum of a sketch of so many entries.

    >>> summed(100), summed(5000)
    (1, 5)
    """
    return max(1, -(-entries // SUMS))


def check_sketches(
    code: Code, sketches: Mapping[int, torch.Tensor], scale: float, reduction: int, entries: int
) -> Verdict:
    """Check sketches of shares against each other and return which shares are wrong.

    Parameters
    ----------
    code
        The code.
    sketches
        For every share the result of :func:`sketch`.
    scale
        Size of the numbers that were rounded, see :func:`convolution_scale`; if the results
        are larger, their size is used.
    reduction
        As for :func:`rounding_bound`.
    entries
        Of one result.
    """
    dtype = next(iter(sketches.values())).dtype
    rows = {share: [*found.to(torch.float64)] for share, found in sketches.items()}
    in_sum = summed(entries)
    size = max(_size(rows), scale * math.sqrt(in_sum))
    return check_shares(code, rows, bound=rounding_bound(dtype, reduction, in_sum) * size)


def bounded(sizes: Iterable[float]) -> float:
    """Return the largest of some sizes, at most ``MAX_SIZE_RATIO`` times the second largest.

    No right share is larger, since the parity contains every systematic share. So a single
    wrong share, however large, cannot raise the bound far enough to pass the check itself.
    """
    known = sorted(size for size in sizes if math.isfinite(size))
    if len(known) < 2:
        return sum(known)
    return min(known[-1], MAX_SIZE_RATIO * known[-2])


def _size(rows: Mapping[int, Rows]) -> float:
    """Return the root mean square of the sums of the largest share; see :func:`bounded`."""
    return bounded(
        float(torch.linalg.vector_norm(torch.stack([*found]))) / math.sqrt(_count(found))
        for found in rows.values()
    )


def _count(found: Rows) -> int:
    return max(1, sum(row.numel() for row in found))


def _sums(row: torch.Tensor) -> torch.Tensor:
    """Return the signed sums of one result."""
    flat = row.reshape(-1)
    full, rest = divmod(len(flat), SUMS)
    if not full:
        return flat
    signs = _signs(full + 1).to(dtype=flat.dtype, device=flat.device)
    sums = signs[:full] @ flat[: full * SUMS].view(full, SUMS)
    if rest:
        sums[:rest] += signs[full] * flat[full * SUMS :]
    return sums


@lru_cache(maxsize=64)
def _signs(count: int) -> torch.Tensor:
    """Return ±1, the same in every process."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 2, (count,), generator=generator).mul_(2).sub_(1)
