"""Accuracy of a code: condition numbers, their limits, and codes that are refused.

The relative error of a decoded layer is about the condition number of its survivors times
the rounding of the dtype. :func:`measure` returns the worst and the usual condition number,
:func:`check_tolerance` refuses a code that is not accurate enough after γ losses, and
:func:`is_enough` decides whether to decode from the shares that have arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from .code import Code
from .errors import CodeError, IllConditionedError, TensorError
from .spectrum import Losses, Spectrum, contiguous_losses, every_loss

__all__ = [
    "COUNTABLE",
    "ConditionStatistics",
    "check_tolerance",
    "condition_limit",
    "condition_of",
    "guaranteed_tolerance",
    "is_enough",
    "measure",
    "refusal_limit",
    "spectrum_of",
    "tolerance_within",
    "worst_found",
]

COUNTABLE = 60_000
"""Up to so many losses, :func:`measure` computes the condition numbers of all."""

_CONDITION_LIMITS = {torch.float32: 1e3, torch.float64: 1e8}
_REFUSAL_LIMITS = {torch.float32: 1e5, torch.float64: 1e12}

_CLIMBING_LOSSES = 100
"""The search for bad losses tries to make so many of the worst ones worse by swaps."""


def condition_limit(dtype: torch.dtype) -> float:
    """Return the condition number up to which a group is decoded without further shares.

    1e3 in float32 and 1e8 in float64: relative errors of about 1e-4 and 1e-8 at worst.

    Raises
    ------
    TensorError
        If the dtype is neither.
    """
    return _of_dtype(_CONDITION_LIMITS, dtype)


def refusal_limit(dtype: torch.dtype) -> float:
    """Return the worst condition number up to which a code is accepted: 1e5 and 1e12."""
    return _of_dtype(_REFUSAL_LIMITS, dtype)


@dataclass(frozen=True)
class ConditionStatistics:
    """Condition numbers of a code over losses of one size.

    Parameters
    ----------
    lost
        Number of lost shares.
    worst
        The largest condition number found; infinity if shares do not decode.
    worst_lost
        The lost shares that leave it.
    median, percentile_99
        Over all losses, or over the random samples alone.
    method
        'all': of every loss. 'search': of random samples, every contiguous loss, and losses
        that a search for bad ones found; then ``worst`` is a lower bound.
    looked_at
        Number of losses whose condition number was computed.
    not_decodable
        Number of these after which the shares do not decode in float64.
    """

    lost: int
    worst: float
    worst_lost: tuple[int, ...]
    median: float
    percentile_99: float
    method: Literal["all", "search"]
    looked_at: int
    not_decodable: int


@lru_cache(maxsize=256)
def spectrum_of(code: Code) -> Spectrum:
    """Return the spectrum of a code; cached."""
    return Spectrum.of(code)


@lru_cache(maxsize=65536)
def _condition(code: Code, survivors: tuple[int, ...]) -> float:
    lost = sorted(set(range(code.n)) - set(survivors))
    losses = np.array([lost], dtype=np.intp).reshape(1, len(lost))
    return float(spectrum_of(code).conditions(losses)[0])


def condition_of(code: Code, survivors: Iterable[int]) -> float:
    """Return the condition number of some survivors, infinity if they do not decode.

    The same as :meth:`fcdcc.coding.Code.condition_number`, from the reduced systems of
    :mod:`fcdcc.coding.spectrum`: fast enough to compute whenever a share arrives.
    """
    shares = tuple(sorted(set(survivors)))
    if not code.is_decodable(shares):
        return math.inf
    return _condition(code, shares)


def is_enough(code: Code, survivors: Iterable[int], dtype: torch.dtype) -> bool:
    """Return whether to decode from these shares now rather than wait for one more.

    They decode within :func:`condition_limit` of the dtype of the results, or no share is
    missing. One more share usually makes the condition number 3 to 10 times smaller.
    """
    shares = set(survivors)
    if not code.is_decodable(shares):
        return False
    return len(shares) == code.n or condition_of(code, shares) <= condition_limit(dtype)


def guaranteed_tolerance(code: Code) -> int:
    """Return how many shares may be lost, whichever they are.

    γ; for a code without ``every_delta`` one less than the number of shares that hold the
    uncoded part with the fewest copies.
    """
    if code.every_delta:
        return code.tolerance
    rows = code.share_matrices
    uncoded = (np.count_nonzero(rows, axis=2) == 1) & (rows.max(axis=2) == 1.0)
    holds = (rows == 1.0) & uncoded[:, :, None]
    return max(int(holds.any(axis=1).sum(axis=0).min()) - 1, 0)


@lru_cache(maxsize=256)
def measure(
    code: Code,
    lost: int | None = None,
    *,
    samples: int = 5000,
    seed: int = 0,
    countable: int = COUNTABLE,
) -> ConditionStatistics:
    """Return statistics of the condition numbers over all losses, or over samples.

    Parameters
    ----------
    code
        The code.
    lost
        Number of lost shares; by default :func:`guaranteed_tolerance`.
    samples, seed
        Number of random losses to draw, and their seed, if there are too many losses.
    countable
        Largest number of losses of which all condition numbers are computed.

    Raises
    ------
    CodeError
        If more than γ shares, or fewer than none, are lost.
    """
    lost = guaranteed_tolerance(code) if lost is None else lost
    if not 0 <= lost <= code.tolerance:
        raise CodeError(f"{lost} lost shares; expected 0 to γ = {code.tolerance}")
    spectrum = spectrum_of(code)
    exhaustive = math.comb(code.n, lost) <= countable
    rng = np.random.default_rng([seed, code.n, lost])
    losses = every_loss(code.n, lost) if exhaustive else _sample(rng, samples, code.n, lost)
    conditions = spectrum.conditions(losses)
    at = int(conditions.argmax())
    worst, worst_lost, looked_at = float(conditions[at]), losses[at], len(losses)
    if not exhaustive:
        found, found_lost = worst_found(spectrum, lost, rng)
        looked_at += code.n
        if found > worst:
            worst, worst_lost = found, found_lost
    return ConditionStatistics(
        lost=lost,
        worst=worst,
        worst_lost=tuple(int(share) for share in worst_lost),
        median=_quantile(conditions, 0.5),
        percentile_99=_quantile(conditions, 0.99),
        method="all" if exhaustive else "search",
        looked_at=looked_at,
        not_decodable=int(np.isinf(conditions).sum()),
    )


def worst_found(
    spectrum: Spectrum, lost: int, rng: np.random.Generator, starts: int = 600
) -> tuple[float, Losses]:
    """Return the worst condition number that a search finds, and its loss (lost,).

    The search starts from every contiguous and many random losses with
    :meth:`~fcdcc.coding.spectrum.Spectrum.worsen`. If γ shares are lost, it goes on from the
    worst of these with :meth:`~fcdcc.coding.spectrum.Spectrum.climb`.
    """
    begin = np.concatenate(
        [contiguous_losses(spectrum.n, lost), _sample(rng, starts, spectrum.n, lost)]
    )
    losses = np.unique(np.concatenate([begin, spectrum.worsen(begin)]), axis=0)
    conditions = spectrum.conditions(losses)
    worst = losses[np.argsort(-conditions)[:_CLIMBING_LOSSES]]
    if lost == spectrum.n - spectrum.threshold and np.isfinite(conditions).all():
        worst = np.concatenate([worst, spectrum.climb(worst)])
    conditions = spectrum.conditions(worst)
    at = int(conditions.argmax())
    return float(conditions[at]), worst[at]


def tolerance_within(code: Code, dtype: torch.dtype) -> int:
    """Return the largest number of losses, at most γ, whose worst condition number is allowed."""
    limit = condition_limit(dtype)
    for lost in range(guaranteed_tolerance(code), 0, -1):
        if measure(code, lost, samples=1000, countable=2000).worst <= limit:
            return lost
    return 0


def check_tolerance(code: Code, dtype: torch.dtype) -> ConditionStatistics:
    """Return the statistics of a code; raise an error if it is too inaccurate after γ losses.

    A worst condition number between :func:`condition_limit` and :func:`refusal_limit` deserves
    a warning: after some losses a group then waits for one more share, or is less accurate.

    Raises
    ------
    IllConditionedError
        If the worst condition number exceeds :func:`refusal_limit`.
    """
    statistics = measure(code)
    limit = refusal_limit(dtype)
    if statistics.worst > limit:
        lost = ", ".join(map(str, statistics.worst_lost))
        raise IllConditionedError(
            f"{code.name} with n = {code.n}, δ = {code.recovery_threshold} in {dtype}: losing "
            f"shares {lost} leaves a condition number of {statistics.worst:.3g}; expected at most "
            f"{limit:.0e}: tolerate fewer losses ({tolerance_within(code, dtype)} are safe), or "
            "use float64 or the systematic code"
        )
    return statistics


def _sample(rng: np.random.Generator, count: int, n: int, lost: int) -> Losses:
    return np.sort(np.argsort(rng.random((count, n)), axis=1)[:, :lost], axis=1).astype(np.intp)


def _quantile(values: np.ndarray[tuple[int], np.dtype[np.float64]], share: float) -> float:
    return float(np.quantile(values, share, method="higher"))


def _of_dtype(table: dict[torch.dtype, float], dtype: torch.dtype) -> float:
    if dtype not in table:
        raise TensorError(f"{dtype}; expected torch.float32 or torch.float64")
    return table[dtype]
