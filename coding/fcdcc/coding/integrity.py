"""Wrong shares: noticed by a syndrome, located by block MUSIC, corrected by leaving them out.

Every linear relation between the rows of the share matrices holds between the results, too.
With m > δ shares there are (m − δ) · ell independent ones, the rows of N in N E = 0. The
syndrome S = N Ỹ is rounding when all is well.

With t wrong shares S = Σ N_j Δ_j: its columns lie in the span of the wrong shares' blocks
N_j, of ell columns each. Any m − δ of these blocks are independent, since any δ shares
decode. So while t ≤ m − δ − 1, no other block meets the range of S, and the shares whose
smallest principal angle with that range is zero are the wrong ones; how many they are needs
not be known. With as many as m − δ the syndrome fills the whole space: it says that
something is wrong, and not what.

Whatever is accused is checked: the shares that remain have to satisfy their own relations.
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

_THRESHOLDS = {torch.float32: 1e-5, torch.float64: 1e-12}
_SIGNAL = 1e-2

PEAK = 8.0
"""One sum of a syndrome may be so many times larger than all of them are on average."""


@dataclass(frozen=True)
class Verdict:
    """What the shares of a group say about each other.

    Parameters
    ----------
    syndrome
        Size of the syndrome relative to the results, before anything was left out; 0 where
        there were no relations to check, infinity if a result is not finite.
    consistent
        Whether nothing is wrong, as far as can be told.
    wrong
        The shares that are wrong, ascending; empty if consistent or not located.
    """

    syndrome: float
    consistent: bool
    wrong: tuple[int, ...]

    @property
    def located(self) -> bool:
        """Whether the wrong shares are known: what is left without them is consistent."""
        return bool(self.wrong)


def threshold(dtype: torch.dtype) -> float:
    """Return the relative syndrome above which something is wrong.

    1e-5 in float32 and 1e-12 in float64: some ten times what rounding in long convolutions
    leaves, and a thousandth of an error of one per cent in one share.

    Raises
    ------
    TensorError
        If the dtype is neither.
    """
    if dtype not in _THRESHOLDS:
        raise TensorError(f"{dtype}; expected torch.float32 or torch.float64")
    return _THRESHOLDS[dtype]


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
    """Check results against each other and say which shares are wrong.

    Locates up to m − δ − 1 wrong shares among m. Nothing is changed; to correct, decode from
    the shares that are not accused.

    Parameters
    ----------
    code
        The code.
    results
        For every share its ell_a · ell_b results, tensors of one shape, in the order of the
        rows of its matrix :attr:`fcdcc.coding.Code.share_matrices`, as
        :meth:`fcdcc.coding.CodedConv.outputs` returns them.
    limit
        Size of the syndrome, relative to the results, above which something is wrong; by
        default :func:`threshold`.
    bound
        In place of ``limit``: the root mean square of the syndrome above which something is
        wrong, ``PEAK`` times as much in a single entry.
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
    """Return whether a syndrome is no larger than rounding makes it."""
    if bound is None:
        return _relative(syndrome, stacked) <= limit
    if not syndrome.numel():
        return True
    size = float(torch.linalg.vector_norm(syndrome, dtype=torch.float64))
    peak = float(syndrome.abs().max())
    return size <= bound * math.sqrt(syndrome.numel()) and peak <= PEAK * bound


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

    By the cosine of the smallest principal angle between the share's block of relations and
    the range of the syndrome. Singular values below ``least`` are rounding.
    """
    # The triangular factor has the range and the singular values, without their squaring.
    triangle = torch.linalg.qr(syndrome.to(torch.float64).T, mode="r").R.T.cpu().numpy()
    vectors, values, _ = np.linalg.svd(triangle, full_matrices=False)
    blocks = relations.reshape(len(relations), shares, -1).transpose(1, 0, 2)
    bases = np.linalg.qr(blocks)[0]
    # Rounding spreads over all directions; what stands out of it is signal.
    noise = max(values[-1] * 10.0, values[0] * _noise_floor(limit), least)
    signal = vectors[:, values > noise] if (values > noise).any() else vectors[:, :1]
    cosines = np.linalg.svd(signal.T @ bases, compute_uv=False)[:, 0]
    return [int(i) for i in np.argsort(-cosines)]


def _noise_floor(limit: float) -> float:
    return limit * _SIGNAL
