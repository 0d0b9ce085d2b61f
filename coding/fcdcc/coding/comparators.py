"""Codes from the literature to compare ours with, each as published.

============  ======================================================  ====================
name          source                                                  δ
============  ======================================================  ====================
polynomial    Yu, Maddah-Ali, Avestimehr (arXiv 1705.10464)           k_a k_b, any δ of n
chebyshev     Fahim and Cadambe (arXiv 1903.08326)                    k_a k_b, any δ of n
khatri-rao    Subramaniam, Heidarzadeh, Narayanan (arXiv 1907.05965)  k_a k_b, any δ of n
replication   γ + 1 copies of every part                              n − γ; see below
uncoded       one share for every part                                n
============  ======================================================  ====================

All have one coded input and one coded filter in a share, ell_a = ell_b = 1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.polynomial import chebyshev as chebyshev_series

from .code import Code, Float64Array
from .errors import CodeError
from .spectrum import Spectrum, contiguous_losses, every_loss
from .systematic import uncoded_sides

__all__ = ["chebyshev", "khatri_rao", "polynomial", "replication", "uncoded"]

Points = Literal["chebyshev", "equispaced"]

_POINT_STRETCH = 1.15
"""Factor on the Chebyshev points of :func:`polynomial`, which explains it."""

_MAX_LOSSES = 500
"""Up to so many losses, the draws of :func:`khatri_rao` are judged by all of them."""

_SAMPLED_LOSSES = 400
"""Random losses that draws are judged by otherwise, beside the contiguous ones."""


def polynomial(n: int, k_a: int, k_b: int, points: Points = "chebyshev") -> Code:
    """Return the real polynomial code: powers of x on the input, of x^k_a on the filters.

    Parameters
    ----------
    n
        Number of shares, at least δ = k_a k_b.
    k_a, k_b
        Each 1 or more.
    points
        Where share j evaluates: 'chebyshev', at 1.15 times the roots cos(π (2j + 1) / 2n) of
        T_n, the better choice; 'equispaced' in [−1, 1], as usual in published tables. The
        factor 1.15 keeps high powers from vanishing; (20, 16) has a worst condition number of
        1.29e7 without it and 8.75e6 with it, and a direct search over points found 7.5e6.

    Raises
    ------
    CodeError
        If there is no such code with these parameters.
    """
    _check_any_delta("polynomial", n, k_a, k_b)
    if points == "chebyshev":
        x = _POINT_STRETCH * _chebyshev_points(n)
    elif points == "equispaced":
        x = np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1)
    else:
        raise CodeError(f"points {points!r}; expected 'chebyshev' or 'equispaced'")
    return Code(
        name="polynomial",
        input_matrix=_powers(x, k_a)[:, None, :],
        filter_matrix=_powers(x**k_a, k_b)[:, None, :],
        recovery_threshold=k_a * k_b,
    )


def chebyshev(n: int, k_a: int, k_b: int) -> Code:
    """Return the code of Fahim and Cadambe: T_i on the input, T_{j k_a} on the filters.

    Evaluated at the roots of T_n, with T_0 scaled by 1/√2, which makes the first δ
    polynomials orthonormal on all n points.

    Parameters
    ----------
    n
        Number of shares, at least δ = k_a k_b.
    k_a, k_b
        Each 1 or more.

    Raises
    ------
    CodeError
        If there is no such code with these parameters.
    """
    _check_any_delta("chebyshev", n, k_a, k_b)
    x = _chebyshev_points(n)
    values = np.asarray(chebyshev_series.chebvander(x, k_a * k_b), dtype=np.float64)
    values[:, 0] /= math.sqrt(2.0)
    return Code(
        name="chebyshev",
        input_matrix=values[:, None, :k_a],
        filter_matrix=values[:, None, : k_a * k_b : k_a],
        recovery_threshold=k_a * k_b,
    )


def khatri_rao(n: int, k_a: int, k_b: int, draws: int = 100, seed: int = 0) -> Code:
    """Return the random Khatri-Rao product code, systematic: the best of some draws.

    The first δ shares hold uncoded parts. The coefficients of the other shares are products of
    independent normal variables; any δ of n shares decode with probability one.

    Parameters
    ----------
    n
        Number of shares, at least δ = k_a k_b.
    k_a, k_b
        Each 1 or more.
    draws
        Number of random draws of which the best is taken: the one with the smallest worst
        condition number over all losses, or over contiguous and sampled ones if there are
        more than 500.
    seed
        Of the draws.

    Raises
    ------
    CodeError
        If there is no such code with these parameters.
    """
    _check_any_delta("khatri-rao", n, k_a, k_b)
    if draws < 1:
        raise CodeError(f"khatri-rao with {draws} draws; expected 1 or more")
    of_input, of_filters = _best_draw(n, k_a, k_b, draws, seed)
    plain = uncoded_sides(k_a, k_b, 1, 1)
    return Code(
        name="khatri-rao",
        input_matrix=np.concatenate([plain[0], of_input[:, None, :]]),
        filter_matrix=np.concatenate([plain[1], of_filters[:, None, :]]),
        recovery_threshold=k_a * k_b,
    )


def replication(n: int, k_a: int, k_b: int) -> Code:
    """Return plain replication: γ + 1 = n / (k_a k_b) copies of every part.

    Any n − γ shares decode, and so do fewer if each part is among them: ``every_delta`` is
    false, and the recovery threshold is the least number that can suffice, k_a k_b.

    Parameters
    ----------
    n
        Number of shares, a multiple of k_a k_b.
    k_a, k_b
        Each 1 or more.

    Raises
    ------
    CodeError
        If there is no such code with these parameters.
    """
    parts = _checked_parts("replication", k_a, k_b)
    if n < parts or n % parts:
        raise CodeError(
            f"replication with n = {n} shares of {parts} parts; expected a multiple of {parts}: "
            f"take n = {max(1, math.ceil(n / parts)) * parts}"
        )
    plain = uncoded_sides(k_a, k_b, 1, 1)
    copies = n // parts
    return Code(
        name="replication",
        input_matrix=np.tile(plain[0], (copies, 1, 1)),
        filter_matrix=np.tile(plain[1], (copies, 1, 1)),
        recovery_threshold=parts,
        every_delta=False,
    )


def uncoded(n: int, k_a: int, k_b: int) -> Code:
    """Return the plain split: n = k_a k_b shares, none of which may be lost.

    Raises
    ------
    CodeError
        If n is not k_a k_b.
    """
    parts = _checked_parts("uncoded", k_a, k_b)
    if n != parts:
        raise CodeError(
            f"uncoded with n = {n} shares of {parts} parts; expected n = k_a k_b: it tolerates "
            "no loss"
        )
    plain = uncoded_sides(k_a, k_b, 1, 1)
    return Code(
        name="uncoded", input_matrix=plain[0], filter_matrix=plain[1], recovery_threshold=parts
    )


@lru_cache(maxsize=64)
def _best_draw(
    n: int, k_a: int, k_b: int, draws: int, seed: int
) -> tuple[Float64Array, Float64Array]:
    rng = np.random.default_rng([seed, n, k_a, k_b])
    delta = k_a * k_b
    gamma = n - delta
    losses = contiguous_losses(n, gamma)
    if math.comb(n, gamma) <= _MAX_LOSSES:
        losses = every_loss(n, gamma)
    else:
        sampled = np.argsort(rng.random((_SAMPLED_LOSSES, n)), axis=1)[:, :gamma]
        losses = np.concatenate([losses, np.sort(sampled, axis=1)])
    best: tuple[float, Float64Array, Float64Array] | None = None
    for _ in range(draws if gamma else 1):
        of_input = rng.normal(size=(gamma, k_a))
        of_filters = rng.normal(size=(gamma, k_b))
        parity = (of_input[:, :, None] * of_filters[:, None, :]).reshape(gamma, delta)
        generator = np.concatenate([np.eye(delta), parity]).astype(np.complex128)
        spectrum = Spectrum((generator.reshape(n, 1, delta),), delta)
        worst = float(spectrum.conditions(losses).max())
        if best is None or worst < best[0]:
            best = worst, of_input, of_filters
    assert best is not None  # noqa: S101 - there was at least one draw
    return best[1], best[2]


def _powers(x: Float64Array, k: int) -> Float64Array:
    """Return the first k powers of each point, (n, k)."""
    return np.asarray(np.vander(x, k, increasing=True), dtype=np.float64)


def _chebyshev_points(n: int) -> Float64Array:
    return np.asarray(np.cos(np.pi * (2 * np.arange(n) + 1) / (2 * n)))


def _checked_parts(name: str, k_a: int, k_b: int) -> int:
    if k_a < 1 or k_b < 1:
        raise CodeError(f"{name} with k_a = {k_a} and k_b = {k_b}; expected 1 or more of each")
    return k_a * k_b


def _check_any_delta(name: str, n: int, k_a: int, k_b: int) -> None:
    delta = _checked_parts(name, k_a, k_b)
    if n < delta:
        raise CodeError(
            f"{name} with n = {n} shares, k_a = {k_a} and k_b = {k_b} needs {delta} results to "
            f"decode; expected n >= {delta}: take more shares or fewer parts"
        )
