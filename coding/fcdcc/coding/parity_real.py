"""Coefficients of the real parity: one number for each parity share and part.

Real numbers are worse conditioned than quaternions, the more so the larger γ: (6, 4) has a worst
condition number of 10 instead of 4. Their advantage is that a share is one part instead of four,
so that rows are cut into δ strips and hardly any row is padding. For small γ this is worth it.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from .spectrum import Losses, Spectrum, contiguous_losses, every_loss

__all__ = ["real_coefficients"]

Float64Array = NDArray[np.float64]

SEEDS = 400
"""Number of seeds that are tried."""

COUNTABLE = 300
"""Up to so many losses, seeds are judged by all; above, by contiguous and so many random ones."""

UNIT = 2.0**-16
"""Coefficients are multiples of this, exact in float32."""


@lru_cache(maxsize=64)
def real_coefficients(gamma: int, delta: int) -> Float64Array:
    """Return (γ, δ) float64, rows of norm about 1: a constant one, or those of the best seed.

    >>> real_coefficients(1, 4)
    array([[0.5, 0.5, 0.5, 0.5]])
    """
    if gamma <= 1:
        return _rounded(np.full((gamma, delta), delta**-0.5))
    losses = _losses(gamma, delta)
    candidates = [_seeded(gamma, delta, seed) for seed in range(SEEDS)]
    return min(candidates, key=lambda parity: _worst(parity, losses))


def _seeded(gamma: int, delta: int, seed: int) -> Float64Array:
    parity = np.random.default_rng([seed, gamma, delta]).normal(size=(gamma, delta))
    return _rounded(parity / np.linalg.norm(parity, axis=1, keepdims=True))


def _losses(gamma: int, delta: int) -> Losses:
    n = gamma + delta
    if comb(n, gamma) <= COUNTABLE:
        return every_loss(n, gamma)
    drawn = np.random.default_rng(0).random((COUNTABLE, n))
    sampled = np.sort(np.argsort(drawn, axis=1)[:, :gamma], axis=1)
    return np.concatenate([contiguous_losses(n, gamma), sampled])


def _worst(parity: Float64Array, losses: Losses) -> float:
    gamma, delta = parity.shape
    generator = np.concatenate([np.eye(delta), parity]).astype(np.complex128)
    spectrum = Spectrum((generator.reshape(delta + gamma, 1, delta),), delta)
    return float(spectrum.conditions(losses).max())


def _rounded(values: Float64Array) -> Float64Array:
    return np.asarray(np.round(values / UNIT) * UNIT, dtype=np.float64)
