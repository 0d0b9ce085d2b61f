"""Coefficients of the quaternion parity: shipped for the usual sizes, random for the others.

A table is for γ parity shares, δ_q parts on the side of the quaternions and δ_r on the other,
δ = δ_q δ_r. The block of parity share p for the pair of parts (i, j) is f[p, j] · Q[p, i].

A table is one of these, in this order:

- *shipped*: ``data/parity-γ-δq-δr.json``, found by ``benchmarks/optimise_parity.py``, with
  the condition number that program measured. Coefficients are multiples of 2⁻¹⁶, hence exact
  in float32.
- *formula*: for γ = 1 every quaternion is δ^(-1/2) and every real number 1, which no other choice
  improves (docs/systematic-codes.md, theorem 4).
- *cut*: part of a larger shipped table. Leaving out a parity share or a part never makes the
  worst condition number larger (docs/systematic-codes.md, theorem 3).
- *seeded*: random unit quaternions and reals, the best of ``SEEDS`` seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from .errors import CodeError
from .parity_tables import (
    SEEDS,
    UNIT,
    Method,
    Source,
    best_of_seeds,
    read_table,
    rounded,
    shipped_names,
    shipped_names_for,
)
from .quaternions import complex_form
from .spectrum import Spectrum

__all__ = ["SEEDS", "UNIT", "ParityTable", "parity_table", "seeded_table", "shipped_tables"]

Float64Array = NDArray[np.float64]

BLOCK_SCALE = 1.5
"""Random blocks have the norm ``BLOCK_SCALE`` / √δ."""


@dataclass(frozen=True, eq=False)
class ParityTable:
    """The coefficients of a separable quaternion parity.

    Parameters
    ----------
    quaternions
        (γ, δ_q, 4) float64.
    reals
        (γ, δ_r) float64.
    worst
        Worst condition number as measured; for a cut table that of the whole table, which is
        an upper bound if it was measured over all losses; nan for a seeded table.
    method
        How ``worst`` was measured: over 'all' losses, or by a 'search'.
    source
        Origin of the coefficients.
    """

    quaternions: Float64Array = field(repr=False)
    reals: Float64Array = field(repr=False)
    worst: float
    method: Method
    source: Source

    @property
    def coefficients(self) -> Float64Array:
        """(γ, δ_q, δ_r, 4): the quaternion of each parity share and pair of parts."""
        return self.quaternions[:, :, None, :] * self.reals[:, None, :, None]

    def spectrum(self) -> Spectrum:
        """Return the condition numbers of the systematic code with this parity."""
        gamma, delta_q, delta_r, _ = self.coefficients.shape
        delta = delta_q * delta_r
        parity = complex_form(self.coefficients.reshape(gamma, delta, 4))
        generator = np.concatenate([np.eye(2 * delta, dtype=np.complex128), parity])
        return Spectrum((generator.reshape(delta + gamma, 2, 2 * delta),), delta)


@lru_cache(maxsize=256)
def parity_table(gamma: int, delta_q: int, delta_r: int, seed: int | None = None) -> ParityTable:
    """Return the coefficients for γ parity shares and δ_q × δ_r parts.

    Parameters
    ----------
    gamma, delta_q, delta_r
        γ ≥ 0, δ_q ≥ 1 and δ_r ≥ 1.
    seed
        None for shipped coefficients, or ones cut from shipped ones, if there are any; a
        number for the random ones of this seed.

    Raises
    ------
    CodeError
        If the numbers are out of range.
    """
    if gamma < 0 or delta_q < 1 or delta_r < 1:
        raise CodeError(
            f"parity for γ = {gamma}, δ_q = {delta_q}, δ_r = {delta_r}; expected γ >= 0 and "
            "the others >= 1"
        )
    if seed is not None:
        return seeded_table(gamma, delta_q, delta_r, seed)
    fitting = shipped_names_for("parity", (gamma, delta_q, delta_r))
    if (gamma, delta_q, delta_r) in fitting:
        return _load(gamma, delta_q, delta_r)
    if gamma == 1:
        return _of_one_size(delta_q, delta_r)
    if fitting:
        return _cut(min((_load(*name) for name in fitting), key=_worst), gamma, delta_q, delta_r)
    return _best_seed(gamma, delta_q, delta_r)


def shipped_tables() -> tuple[tuple[int, int, int], ...]:
    """Return (γ, δ_q, δ_r) of every shipped table."""
    return shipped_names("parity")


def seeded_table(gamma: int, delta_q: int, delta_r: int, seed: int) -> ParityTable:
    """Return random quaternions and reals, their products of norm about BLOCK_SCALE / √δ."""
    rng = np.random.default_rng([seed, gamma, delta_q, delta_r])
    quaternions = rng.normal(size=(gamma, delta_q, 4))
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    reals = np.ones((gamma, 1)) if delta_r == 1 else rng.normal(size=(gamma, delta_r))
    reals /= np.sqrt((reals**2).mean(axis=1, keepdims=True))
    quaternions *= BLOCK_SCALE / math.sqrt(delta_q * delta_r)
    return ParityTable(rounded(quaternions), rounded(reals), math.nan, "none", "seeded")


def _best_seed(gamma: int, delta_q: int, delta_r: int) -> ParityTable:
    """Return the best of the tables of the first SEEDS seeds."""
    candidates = [seeded_table(gamma, delta_q, delta_r, seed) for seed in range(SEEDS)]
    return best_of_seeds(candidates, gamma, gamma + delta_q * delta_r)


@cache
def _load(gamma: int, delta_q: int, delta_r: int) -> ParityTable:
    stored = read_table("parity", (gamma, delta_q, delta_r))
    quaternions = np.array(stored["quaternions"], dtype=np.float64) * UNIT
    reals = np.array(stored["reals"], dtype=np.float64) * UNIT
    return ParityTable(
        quaternions.reshape(gamma, delta_q, 4),
        reals.reshape(gamma, delta_r),
        float(stored["worst"]),
        stored["method"],
        "shipped",
    )


def _of_one_size(delta_q: int, delta_r: int) -> ParityTable:
    """Return the table of γ = 1: all products of one absolute value."""
    delta = delta_q * delta_r
    quaternions = np.zeros((1, delta_q, 4))
    quaternions[..., 0] = delta**-0.5
    worst = math.sqrt(delta) + math.sqrt(delta - 1)
    return ParityTable(rounded(quaternions), np.ones((1, delta_r)), worst, "all", "formula")


def _cut(table: ParityTable, gamma: int, delta_q: int, delta_r: int) -> ParityTable:
    quaternions, reals = table.quaternions[:gamma, :delta_q], table.reals[:gamma, :delta_r]
    return ParityTable(quaternions, reals, table.worst, table.method, "cut")


def _worst(table: ParityTable) -> float:
    return table.worst
