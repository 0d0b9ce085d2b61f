"""Coefficients of the quaternion parity: shipped for the usual sizes, random for the others.

A table is for γ parity shares, δ_q parts on the side of the quaternions and δ_r on the other,
δ = δ_q δ_r. The block of parity share p for the pair of parts (i, j) is f[p, j] · Q[p, i].

A table is one of these, in this order:

- *shipped*: ``data/parity-γ-δq-δr.json``, found by ``benchmarks/optimise_parity.py``, with
  the condition number that program measured. Coefficients are multiples of 2⁻¹⁶, hence exact
  in float32.
- *cut*: part of a larger shipped table. Leaving out a parity share or a part never makes the
  worst condition number larger (docs/systematic-codes.md, theorem 3).
- *seeded*: random unit quaternions and reals, the best of ``SEEDS`` seeds.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import CodeError
from .quaternions import complex_form
from .spectrum import Spectrum, contiguous_losses

__all__ = ["SEEDS", "ParityTable", "parity_table", "seeded_table", "shipped_tables"]

Float64Array = NDArray[np.float64]

UNIT = 2.0**-16
"""Coefficients are integer multiples of this, exact in float32; the files hold the integers."""

SEEDS = 8
"""Number of seeds that are tried where no table is shipped."""

BLOCK_SCALE = 1.5
"""Random blocks have the norm ``BLOCK_SCALE`` / √δ."""

_NAME = re.compile(r"parity-(\d+)-(\d+)-(\d+)\.json")


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
    method: Literal["all", "search", "none"]
    source: Literal["shipped", "cut", "seeded"]

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
    if (gamma, delta_q, delta_r) in shipped_tables():
        return _load(gamma, delta_q, delta_r)
    fitting = [
        name
        for name in shipped_tables()
        if name[0] >= gamma and name[1] >= delta_q and name[2] >= delta_r
    ]
    if fitting:
        return _cut(min((_load(*name) for name in fitting), key=_worst), gamma, delta_q, delta_r)
    return _best_seed(gamma, delta_q, delta_r)


@cache
def shipped_tables() -> tuple[tuple[int, int, int], ...]:
    """Return (γ, δ_q, δ_r) of every shipped table."""
    names = (
        _NAME.fullmatch(entry.name) for entry in files("fcdcc.coding").joinpath("data").iterdir()
    )
    found = [tuple(map(int, match.groups())) for match in names if match]
    return tuple(sorted((gamma, delta_q, delta_r) for gamma, delta_q, delta_r in found))


def seeded_table(gamma: int, delta_q: int, delta_r: int, seed: int) -> ParityTable:
    """Return random quaternions and reals, their products of norm about BLOCK_SCALE / √δ."""
    rng = np.random.default_rng([seed, gamma, delta_q, delta_r])
    quaternions = rng.normal(size=(gamma, delta_q, 4))
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    reals = np.ones((gamma, 1)) if delta_r == 1 else rng.normal(size=(gamma, delta_r))
    reals /= np.sqrt((reals**2).mean(axis=1, keepdims=True))
    quaternions *= BLOCK_SCALE / math.sqrt(delta_q * delta_r)
    return ParityTable(_rounded(quaternions), _rounded(reals), math.nan, "none", "seeded")


def _best_seed(gamma: int, delta_q: int, delta_r: int) -> ParityTable:
    """Return the table of the first SEEDS seeds whose worst loss in a short search is best."""
    candidates = [seeded_table(gamma, delta_q, delta_r, seed) for seed in range(SEEDS)]
    if gamma == 0:
        return candidates[0]
    n = gamma + delta_q * delta_r
    rng = np.random.default_rng(0)
    sampled = np.sort(np.argsort(rng.random((24, n)), axis=1)[:, :gamma], axis=1)
    losses = np.concatenate([contiguous_losses(n, gamma), sampled])

    def worst(table: ParityTable) -> float:
        spectrum = table.spectrum()
        return float(spectrum.conditions(spectrum.worsen(losses, steps=6)).max())

    return min(candidates, key=worst)


@cache
def _load(gamma: int, delta_q: int, delta_r: int) -> ParityTable:
    name = f"parity-{gamma}-{delta_q}-{delta_r}.json"
    text = files("fcdcc.coding").joinpath("data", name).read_text(encoding="utf-8")
    stored = json.loads(text)
    quaternions = np.array(stored["quaternions"], dtype=np.float64) * UNIT
    reals = np.array(stored["reals"], dtype=np.float64) * UNIT
    return ParityTable(
        quaternions.reshape(gamma, delta_q, 4),
        reals.reshape(gamma, delta_r),
        float(stored["worst"]),
        stored["method"],
        "shipped",
    )


def _cut(table: ParityTable, gamma: int, delta_q: int, delta_r: int) -> ParityTable:
    quaternions, reals = table.quaternions[:gamma, :delta_q], table.reals[:gamma, :delta_r]
    return ParityTable(quaternions, reals, table.worst, table.method, "cut")


def _worst(table: ParityTable) -> float:
    return table.worst


def _rounded(values: Float64Array) -> Float64Array:
    return np.asarray(np.round(values / UNIT) * UNIT, dtype=np.float64)
