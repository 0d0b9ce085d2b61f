"""Wrong shares: detected by a syndrome, located by block MUSIC, corrected by leaving them out.

Every linear relation between the rows of the share matrices holds between the results, too.
With m > δ shares there are (m − δ) · ell independent ones, the rows of N in N E = 0. The
syndrome S = N Ỹ is zero up to rounding if all shares are right.

With t wrong shares S = Σ N_j Δ_j: its columns lie in the span of the wrong shares' blocks
N_j, of ell columns each. Any m − δ of these blocks are independent, since any δ shares
decode. So while t ≤ m − δ − 1, no other block meets the range of S, and the shares whose
smallest principal angle with that range is zero are the wrong ones; t need not be known. With
t = m − δ wrong shares the syndrome fills the whole space: it shows that shares are wrong, but
not which.

A set of suspects is accepted only if the other shares satisfy the relations among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from .code import Code
from .errors import TensorError

__all__ = [
    "Verdict",
    "check_shares",
    "parity_relations",
    "threshold",
]

Float64Array = NDArray[np.float64]
Rows = Sequence[torch.Tensor]

_SYNDROME_LIMITS = {torch.float32: 1e-5, torch.float64: 1e-12}

_NOISE_PER_LIMIT = 1e-2
"""Singular values of a syndrome below this times its limit times the largest are rounding."""

MAX_PEAK_TO_RMS = 8.0
"""An entry of a syndrome that is larger than so many times its bound on the root mean square
is not rounding."""


@dataclass(frozen=True)
class Verdict:
    """The result of checking the shares of a group against each other.

    Parameters
    ----------
    syndrome
        Norm of the syndrome relative to that of the results, of all shares; 0 if there are
        no relations to check, infinity if a result is not finite.
    consistent
        Whether no share was found wrong; true if there are no relations to check.
    wrong
        The wrong shares, ascending; empty if consistent or not located.
    """

    syndrome: float
    consistent: bool
    wrong: tuple[int, ...]

    @property
    def located(self) -> bool:
        """Whether the wrong shares are known: the others are consistent."""
        return bool(self.wrong)


def threshold(dtype: torch.dtype) -> float:
    """Return the relative syndrome above which shares are wrong.

    1e-5 in float32 and 1e-12 in float64: about ten times the rounding of long convolutions, and
    in float32 a thousandth of an error of one per cent in one share.

    Raises
    ------
    TensorError
        If the dtype is neither.
    """
    if dtype not in _SYNDROME_LIMITS:
        raise TensorError(f"{dtype}; expected torch.float32 or torch.float64")
    return _SYNDROME_LIMITS[dtype]


@lru_cache(maxsize=512)
def parity_relations(code: Code, shares: tuple[int, ...]) -> Float64Array:
    """Return N with orthonormal rows, N E = 0, for some shares ascending.

    Returns
    -------
    numpy.ndarray
        (rows of the shares − rank, rows of the shares) float64.
    """
    system = np.concatenate(code.share_matrices[list(shares)])
    vectors, values, _ = np.linalg.svd(system, full_matrices=True)
    rank = int((values > 1e-10 * values[0]).sum())
    relations = np.ascontiguousarray(vectors[:, rank:].T)
    relations.setflags(write=False)
    return relations


def check_shares(
    code: Code, results: Mapping[int, Rows], limit: float | None = None, bound: float | None = None
) -> Verdict:
    """Check results against each other and return which shares are wrong.

    Locates up to m − δ − 1 wrong shares among m. The results are not changed; to correct the
    layer, decode from the other shares.

    Parameters
    ----------
    code
        The code.
    results
        For every share its ell_a · ell_b results, tensors of one shape, in the order of the
        rows of its matrix :attr:`fcdcc.coding.Code.share_matrices`, as
        :meth:`fcdcc.coding.CodedConv.outputs` returns them.
    limit
        Norm of the syndrome, relative to that of the results, above which shares are wrong; by
        default :func:`threshold`.
    bound
        Instead of ``limit``: the root mean square of the syndrome above which shares are
        wrong; a single entry may be ``MAX_PEAK_TO_RMS`` times as large.
    """
    shares = tuple(sorted(results))
    stacked = _stack(results, shares)
    limit = threshold(stacked.dtype) if limit is None else limit
    finite = torch.isfinite(stacked).flatten(1).all(dim=1).reshape(len(shares), -1).all(dim=1)
    broken = tuple(s for s, good in zip(shares, finite.tolist(), strict=True) if not good)
    if broken:
        rest = {share: rows for share, rows in results.items() if share not in broken}
        inner = check_shares(code, rest, limit, bound) if rest else None
        known = inner is not None and (inner.consistent or inner.located)
        wrong = tuple(sorted((*broken, *inner.wrong))) if known and inner else broken
        return Verdict(float("inf"), False, wrong)
    relations = parity_relations(code, shares)
    syndrome = _syndrome(code, shares, stacked)
    size = _relative(syndrome, stacked)
    if len(relations) == 0 or _is_rounding(syndrome, stacked, limit, bound):
        return Verdict(size, True, ())
    noise = 0.0 if bound is None else bound * math.sqrt(syndrome.shape[1])
    order = _suspects(relations, syndrome, len(shares), limit, noise)
    most = len(shares) - code.recovery_threshold - 1
    singly = [(suspect,) for suspect in order] if most else []
    for accused in [*singly, *(tuple(order[:count]) for count in range(2, most + 1))]:
        wrong = tuple(sorted(shares[i] for i in accused))
        rest = {share: results[share] for share in shares if share not in wrong}
        if code.is_decodable(rest) and _agree(code, rest, limit, bound):
            return Verdict(size, False, wrong)
    return Verdict(size, False, ())


def _agree(code: Code, results: Mapping[int, Rows], limit: float, bound: float | None) -> bool:
    shares = tuple(sorted(results))
    stacked = _stack(results, shares)
    return _is_rounding(_syndrome(code, shares, stacked), stacked, limit, bound)


def _is_rounding(
    syndrome: torch.Tensor, stacked: torch.Tensor, limit: float, bound: float | None
) -> bool:
    """Return whether a syndrome is small enough to be rounding."""
    if bound is None:
        return _relative(syndrome, stacked) <= limit
    if not syndrome.numel():
        return True
    size = float(torch.linalg.vector_norm(syndrome, dtype=torch.float64))
    peak = float(syndrome.abs().max())
    return size <= bound * math.sqrt(syndrome.numel()) and peak <= MAX_PEAK_TO_RMS * bound


def _stack(results: Mapping[int, Rows], shares: tuple[int, ...]) -> torch.Tensor:
    """Return (rows, entries), the results of ascending shares one below the other."""
    return torch.stack([row for share in shares for row in results[share]]).flatten(1)


def _syndrome(code: Code, shares: tuple[int, ...], stacked: torch.Tensor) -> torch.Tensor:
    relations = torch.from_numpy(parity_relations(code, shares).copy())
    return relations.to(device=stacked.device, dtype=stacked.dtype) @ stacked


def _relative(syndrome: torch.Tensor, stacked: torch.Tensor) -> float:
    scale = float(torch.linalg.vector_norm(stacked, dtype=torch.float64))
    size = float(torch.linalg.vector_norm(syndrome, dtype=torch.float64))
    return size / scale if scale else 0.0


def _suspects(
    relations: Float64Array, syndrome: torch.Tensor, shares: int, limit: float, least: float
) -> list[int]:
    """Return the positions of all shares, the most suspicious first.

    Sorted by the cosine of the smallest principal angle between the share's block of relations
    and the range of the syndrome. Singular values below ``least`` are rounding.
    """
    # The triangular factor has the same range and singular values; the Gram matrix would
    # have their squares.
    triangle = torch.linalg.qr(syndrome.to(torch.float64).T, mode="r").R.T.cpu().numpy()
    vectors, values, _ = np.linalg.svd(triangle, full_matrices=False)
    blocks = relations.reshape(len(relations), shares, -1).transpose(1, 0, 2)
    bases = np.linalg.qr(blocks)[0]
    # Rounding spreads over all directions: singular values far above the smallest are signal.
    noise = max(values[-1] * 10.0, values[0] * limit * _NOISE_PER_LIMIT, least)
    signal = vectors[:, values > noise] if (values > noise).any() else vectors[:, :1]
    cosines = np.linalg.svd(signal.T @ bases, compute_uv=False)[:, 0]
    return [int(i) for i in np.argsort(-cosines)]
