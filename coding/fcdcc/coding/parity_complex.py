"""Coefficients of the complex parity, which codes both sides alike.

Both sides are split into pairs of parts, δ_a and δ_b of them, δ = δ_a δ_b. The block of parity
share p for the pairs (i, j) is the Kronecker product of the 2 × 2 matrices of the complex numbers
a[p, i] and b[p, j]. In complex coordinates the system falls into two of half the size, with the
coefficients a[p, i] · b[p, j] and a[p, i] · conj(b[p, j]); the worse of both counts.

A table is one of these, in this order:

- *formula*: for γ ≤ 1 every coefficient has the absolute value δ^(-1/2), which no other choice
  improves (docs/systematic-codes.md, theorem 4).
- *shipped*: ``data/complex-γ-δ1-δ2.json`` with δ1 ≥ δ2, for either order of the sides.
- *cut*: part of a larger shipped table.
- *seeded*: random complex numbers, the best of ``SEEDS`` seeds.
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
from .spectrum import Spectrum

__all__ = ["ComplexTable", "complex_table", "random_complex_table", "shipped_complex_tables"]

ComplexArray = NDArray[np.complex128]

BLOCK_SCALE = 1.25
"""Random coefficients have about the absolute value ``BLOCK_SCALE`` / √δ."""

MODULUS_SPREAD = 0.3
"""Standard deviation of the logarithm of the absolute values of random coefficients."""


@dataclass(frozen=True, eq=False)
class ComplexTable:
    """The coefficients of a complex parity.

    Parameters
    ----------
    a
        (γ, δ_a) complex128: for the pairs of input parts.
    b
        (γ, δ_b) complex128: for the pairs of filter parts.
    worst
        Worst condition number as measured; for a cut table that of the whole table, which is
        an upper bound if it was measured over all losses; nan for a seeded table.
    method
        How ``worst`` was measured: over 'all' losses, or by a 'search'.
    source
        Origin of the coefficients.
    """

    a: ComplexArray = field(repr=False)
    b: ComplexArray = field(repr=False)
    worst: float
    method: Method
    source: Source

    @property
    def parities(self) -> tuple[ComplexArray, ComplexArray]:
        """The coefficients of both complex systems, each (γ, δ)."""
        gamma = len(self.a)
        return (
            (self.a[:, :, None] * self.b[:, None, :]).reshape(gamma, -1),
            (self.a[:, :, None] * self.b[:, None, :].conj()).reshape(gamma, -1),
        )

    @property
    def swapped(self) -> ComplexTable:
        """The same table with the sides exchanged; its condition numbers are the same."""
        return ComplexTable(self.b, self.a, self.worst, self.method, self.source)

    def spectrum(self) -> Spectrum:
        """Return the condition numbers of the systematic code with this parity."""
        gamma, delta = self.parities[0].shape
        identity = np.eye(delta, dtype=np.complex128)
        systems = (np.concatenate([identity, parity]) for parity in self.parities)
        return Spectrum(tuple(s.reshape(delta + gamma, 1, delta) for s in systems), delta)


@lru_cache(maxsize=256)
def complex_table(gamma: int, delta_a: int, delta_b: int, seed: int | None = None) -> ComplexTable:
    """Return the coefficients for γ parity shares and δ_a × δ_b pairs of parts.

    Parameters
    ----------
    gamma, delta_a, delta_b
        γ ≥ 0, δ_a ≥ 1 and δ_b ≥ 1.
    seed
        None for the best coefficients there are; a number for the random ones of this seed.

    Raises
    ------
    CodeError
        If the numbers are out of range.
    """
    if gamma < 0 or delta_a < 1 or delta_b < 1:
        raise CodeError(
            f"complex parity for γ = {gamma}, δ_a = {delta_a}, δ_b = {delta_b}; expected γ >= 0 "
            "and the others >= 1"
        )
    if delta_a < delta_b:
        return complex_table(gamma, delta_b, delta_a, seed).swapped
    if seed is not None:
        return random_complex_table(gamma, delta_a, delta_b, seed)
    if gamma <= 1:
        return _of_one_size(gamma, delta_a, delta_b)
    fitting = shipped_names_for("complex", (gamma, delta_a, delta_b))
    if (gamma, delta_a, delta_b) in fitting:
        return _load(gamma, delta_a, delta_b)
    if fitting:
        return _cut(min((_load(*name) for name in fitting), key=_worst), gamma, delta_a, delta_b)
    candidates = [random_complex_table(gamma, delta_a, delta_b, seed) for seed in range(SEEDS)]
    return best_of_seeds(candidates, gamma, gamma + delta_a * delta_b)


def shipped_complex_tables() -> tuple[tuple[int, int, int], ...]:
    """Return (γ, δ1, δ2), δ1 ≥ δ2, of every shipped table."""
    return shipped_names("complex")


def random_complex_table(gamma: int, delta_a: int, delta_b: int, seed: int) -> ComplexTable:
    """Return random complex numbers, their products of absolute value about BLOCK_SCALE / √δ."""
    rng = np.random.default_rng([seed, gamma, delta_a, delta_b])
    a, b = (_random(rng, gamma, parts) for parts in (delta_a, delta_b))
    a = a * BLOCK_SCALE / math.sqrt(delta_a * delta_b)
    return ComplexTable(rounded_complex(a), rounded_complex(b), math.nan, "none", "seeded")


def rounded_complex(values: ComplexArray) -> ComplexArray:
    """Return complex numbers whose parts are multiples of :data:`~.parity_tables.UNIT`."""
    return np.asarray(rounded(values.real) + 1j * rounded(values.imag), dtype=np.complex128)


def _random(rng: np.random.Generator, gamma: int, parts: int) -> ComplexArray:
    modulus = np.exp(MODULUS_SPREAD * rng.normal(size=(gamma, parts)))
    return np.asarray(modulus * np.exp(2j * np.pi * rng.random((gamma, parts))))


def _of_one_size(gamma: int, delta_a: int, delta_b: int) -> ComplexTable:
    """Return the table of γ ≤ 1: all coefficients δ^(-1/2)."""
    delta = delta_a * delta_b
    a = rounded_complex(np.full((gamma, delta_a), delta**-0.5, dtype=np.complex128))
    b = np.ones((gamma, delta_b), dtype=np.complex128)
    worst = math.sqrt(delta) + math.sqrt(delta - 1) if gamma else 1.0
    return ComplexTable(a, b, worst, "all", "formula")


@cache
def _load(gamma: int, delta_a: int, delta_b: int) -> ComplexTable:
    stored = read_table("complex", (gamma, delta_a, delta_b))
    a, b = (
        np.array(stored[side], dtype=np.float64).reshape(gamma, -1, 2) * UNIT for side in ("a", "b")
    )
    return ComplexTable(
        a[..., 0] + 1j * a[..., 1],
        b[..., 0] + 1j * b[..., 1],
        float(stored["worst"]),
        stored["method"],
        "shipped",
    )


def _cut(table: ComplexTable, gamma: int, delta_a: int, delta_b: int) -> ComplexTable:
    a, b = table.a[:gamma, :delta_a], table.b[:gamma, :delta_b]
    return ComplexTable(a, b, table.worst, table.method, "cut")


def _worst(table: ComplexTable) -> float:
    return table.worst
