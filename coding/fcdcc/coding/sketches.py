"""Sketches of shares: what is left of them for checking, a thousandth of their size.

Relations hold entry by entry, so they hold for sums of entries, too. A *sketch*
(:func:`sketch`) adds the entries of each result, with signs, into about a thousand sums: one
pass over the memory, after which checking costs next to nothing. A single wrong entry lands in
one sum, beside the rounding of the few entries that share it, and cannot cancel.

What rounding explains follows from the dtype, from how many products were added up for one
entry, and from how large these were (:func:`rounding_bound`, :func:`convolution_scale`), not
from the size of the results: where large products cancel, the results are small and their
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
"""Sums in the sketch of one result, as far as it has so many entries."""

SAFETY = 8.0
"""The bound is so many times what rounding leaves when products are added one by one."""

MODEST = 16.0
"""The second largest of right shares, so many times, is not less than the largest."""


def rounding_bound(dtype: torch.dtype, reduction: int, summed: int = 1) -> float:
    """Return what rounding leaves of a syndrome at most, relative to the size of the products.

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
    ``SAFETY`` is far above that, and the sums of the sketch add ε √summed.

    Raises
    ------
    TensorError
        If the dtype is neither.
    """
    threshold(dtype)
    return torch.finfo(dtype).eps * (SAFETY * math.sqrt(reduction) + math.sqrt(summed))


def convolution_scale(entering: torch.Tensor, filter_size: float, reduction: int) -> float:
    """Return the size of a convolution's outputs if its products had random signs.

    Parameters
    ----------
    entering
        What is convolved; infinity or NaN in it is in the answer, too.
    filter_size
        Root mean square of the filters' elements.
    reduction
        Products that are added up for one output.
    """
    if not entering.numel():
        return 0.0
    if entering.is_contiguous():  # a third faster
        flat = entering.view(-1)
        norm = math.sqrt(float(torch.dot(flat, flat)))
    else:
        norm = float(torch.linalg.vector_norm(entering))
    return norm / math.sqrt(entering.numel()) * filter_size * math.sqrt(reduction)


def sketch(rows: Rows) -> torch.Tensor:
    """Return the sums that stand for the results of a share, (rows, sums).

    Every entry goes into one sum, with a sign, the same for all shares. NaN and infinity
    stay what they are.

    Parameters
    ----------
    rows
        The share's ell_a · ell_b results, tensors of one shape, as for :func:`check_shares`.
    """
    return torch.stack([_sums(row) for row in rows])


def summed(entries: int) -> int:
    """Return how many entries at most go into one sum of a sketch of so many.

    >>> summed(100), summed(5000)
    (1, 5)
    """
    return max(1, -(-entries // SUMS))


def check_sketches(
    code: Code, sketches: Mapping[int, torch.Tensor], scale: float, reduction: int, entries: int
) -> Verdict:
    """Check sketches of shares against each other and say which shares are wrong.

    Parameters
    ----------
    code
        The code.
    sketches
        For every share what :func:`sketch` gives.
    scale
        Size of what rounding is proportional to, see :func:`convolution_scale`; where the
        results are larger, their size is taken.
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
    """Return the largest of some sizes, but no more than ``MODEST`` times the second largest.

    Of right shares none is larger than that: what is in one of them is in the parity, too. So
    a single wrong share, however large, does not hide itself.
    """
    known = sorted(size for size in sizes if math.isfinite(size))
    if len(known) < 2:
        return sum(known)
    return min(known[-1], MODEST * known[-2])


def _size(rows: Mapping[int, Rows]) -> float:
    """Return the root mean square of the sums of the largest share that can be right."""
    return bounded(
        float(torch.linalg.vector_norm(torch.stack([*found]))) / math.sqrt(_count(found))
        for found in rows.values()
    )


def _count(found: Rows) -> int:
    return max(1, sum(row.numel() for row in found))


def _sums(row: torch.Tensor) -> torch.Tensor:
    """Return the signed sums of one result; the last one of a row of sums may lack entries."""
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
