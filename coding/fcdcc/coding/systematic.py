"""The systematic codes: uncoded parts for the first δ shares, parity for the other γ.

The generator is [I; P]. If the first δ shares arrive, nothing is decoded, and the output is that
of an uncoded split, bit for bit; the ell_a · ell_b small convolutions of a systematic share merge
into one; and only missing parts are solved for.

*Quaternion parity*, the default. One side is split into 4 δ_q parts, the other into δ_r,
δ = δ_q δ_r; a systematic share takes four consecutive parts of the one and one part of the
other. The block of a parity share is f · L(q): L(q) is the left multiplication by a quaternion,
on the side with four parts, and f a real number on the other. The probability that a random
determinant of quaternions is close to zero falls with the fourth power of the distance, for real
or complex numbers only with the first or second: badly conditioned survivor sets are very rare.
See docs/systematic-codes.md.

*Complex parity*, which plans use where both sides are split into many parts. Both are coded alike:
a systematic share takes two consecutive parts of each, and the blocks of a parity share are 2 × 2
matrices of complex numbers on both sides. With quaternions, one of the sides would have real
coefficients, and many real coefficients are badly conditioned.
:func:`~fcdcc.coding.partitions.planned_parity` says which of the two plans use.

*Rotation parity*. Both sides as in the CRME, with ell = 2 on a side that is split, and parity by
powers of one rotation of prime order q: any δ shares decode by Chebotarev's theorem on the
minors of a Fourier matrix of prime order. About as well conditioned as the CRME.

*Real parity*. One side is split into δ parts, a share has one of them, and parity is a
combination with real coefficients. For small γ: :mod:`.parity_real` says why.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .code import Code, Float64Array
from .crme import crme_threshold
from .errors import CodeError
from .parity_complex import complex_table
from .parity_quaternion import parity_table
from .parity_real import real_coefficients
from .quaternions import left_matrices

__all__ = [
    "Parity",
    "known_condition",
    "systematic",
    "systematic_threshold",
]

Parity = Literal["quaternion", "complex", "rotation", "real"]


def systematic_threshold(k_a: int, k_b: int, parity: Parity = "quaternion") -> int:
    """Return δ of the systematic code.

    k_a k_b / 4 with quaternions and with complex numbers, that of the CRME with rotations, k_a k_b
    with reals.

    Raises
    ------
    CodeError
        If there is no such code: with quaternions k_a or k_b has to be a multiple of 4, with
        complex numbers both have to be even, with reals one of them has to be 1.

    Examples
    --------
    >>> systematic_threshold(16, 1), systematic_threshold(2, 32), systematic_threshold(8, 8)
    (4, 16, 16)
    """
    if parity == "rotation":
        return crme_threshold(k_a, k_b)
    if parity == "complex":
        if k_a < 1 or k_b < 1 or k_a % 2 or k_b % 2:
            raise CodeError(
                f"systematic with complex parity, k_a = {k_a} and k_b = {k_b}; expected two even "
                f"numbers: take k_a = {_even(k_a)} and k_b = {_even(k_b)}"
            )
        return k_a * k_b // 4
    if parity == "real":
        if min(k_a, k_b) != 1:
            raise CodeError(
                f"systematic with real parity, k_a = {k_a} and k_b = {k_b}; expected one of them "
                f"to be 1: take k_a = {k_a * k_b} and k_b = 1"
            )
        return k_a * k_b
    if parity != "quaternion":
        raise CodeError(
            f"parity {parity!r}; expected 'quaternion', 'complex', 'rotation' or 'real'"
        )
    if k_a < 1 or k_b < 1 or (k_a % 4 and k_b % 4):
        raise CodeError(
            f"systematic with k_a = {k_a} and k_b = {k_b}; expected both at least 1 and one of "
            f"them a multiple of 4: take k_a = {4 * max(1, math.ceil(k_a / 4))}"
        )
    return k_a * k_b // 4


def systematic(
    n: int,
    k_a: int,
    k_b: int,
    parity: Parity = "quaternion",
    q: int | None = None,
    seed: int | None = None,
) -> Code:
    """Return the systematic code for n shares, k_a input parts and k_b filter parts.

    Parameters
    ----------
    n
        Number of shares, at least δ = :func:`systematic_threshold`.
    k_a, k_b
        With quaternions, one is a multiple of 4 and the other any number: the quaternions are
        on the side that is a multiple of 4, on the larger one if both are, on the input if
        they are equal. Conditioning is best with 1 on the other side and hardly worse with 2
        or 4. With complex numbers both are even. With rotations, each is 1 or even. With reals, one
        of them is 1.
    parity
        'quaternion', 'complex', 'rotation' or 'real'.
    q
        Rotation parity only: the order of the rotation, a prime, at least δ and at least γ;
        by default the smallest one.
    seed
        Quaternion and complex parity only: random coefficients of this seed instead of the
        optimised ones.

    Raises
    ------
    CodeError
        If there is no such code with these parameters.
    """
    threshold = systematic_threshold(k_a, k_b, parity)
    if n < threshold:
        raise CodeError(
            f"systematic with n = {n} shares, k_a = {k_a} and k_b = {k_b} needs {threshold} "
            f"results to decode; expected n >= {threshold}: take more shares or fewer parts"
        )
    if parity not in ("quaternion", "complex") and seed is not None:
        raise CodeError(f"{parity} parity has no seed; expected none")
    if parity != "rotation" and q is not None:
        raise CodeError(f"{parity} parity has no q; expected none")
    if parity == "rotation":
        input_matrix, filter_matrix = _rotation_sides(n - threshold, k_a, k_b, threshold, q)
    elif parity == "real":
        input_matrix, filter_matrix = _real_sides(n - threshold, k_a, k_b)
    elif parity == "complex":
        input_matrix, filter_matrix = _complex_sides(n - threshold, k_a, k_b, seed)
    else:
        input_matrix, filter_matrix = _quaternion_sides(n - threshold, k_a, k_b, seed)
    return Code(
        name="systematic" if parity == "quaternion" else f"systematic-{parity}",
        input_matrix=input_matrix,
        filter_matrix=filter_matrix,
        recovery_threshold=threshold,
    )


def known_condition(n: int, k_a: int, k_b: int, parity: Parity = "quaternion") -> float:
    """Return the worst condition number that the table of a code's coefficients states.

    It is a measured value, or that of a larger table, which no smaller one exceeds. Infinity if no
    table is shipped from which the coefficients are taken.

    Parameters
    ----------
    n, k_a, k_b
        As for :func:`systematic`.
    parity
        'quaternion' or 'complex'.

    Raises
    ------
    CodeError
        If there is no such code.
    """
    gamma = n - systematic_threshold(k_a, k_b, parity)
    if parity == "complex":
        worst = complex_table(gamma, k_a // 2, k_b // 2).worst
    else:
        coded, plain = (k_a, k_b) if quaternions_on_input(k_a, k_b) else (k_b, k_a)
        worst = parity_table(gamma, coded // 4, plain).worst
    return math.inf if math.isnan(worst) else worst


def uncoded_sides(k_a: int, k_b: int, ell_a: int, ell_b: int) -> tuple[Float64Array, Float64Array]:
    """Return the matrices of shares that hold all uncoded parts, in order.

    Share ``i · (k_b / ell_b) + j`` has the i-th run of ell_a input parts and the j-th run of
    ell_b filter parts.

    Returns
    -------
    tuple
        (δ, ell_a, k_a) and (δ, ell_b, k_b) float64, with δ = k_a k_b / (ell_a ell_b).
    """
    runs_a, runs_b = k_a // ell_a, k_b // ell_b
    of_input = np.eye(k_a).reshape(runs_a, ell_a, k_a)
    of_filters = np.eye(k_b).reshape(runs_b, ell_b, k_b)
    return np.repeat(of_input, runs_b, axis=0), np.tile(of_filters, (runs_a, 1, 1))


def quaternions_on_input(k_a: int, k_b: int) -> bool:
    """Return whether quaternions are on the side of the input: on the larger one that allows it."""
    return k_a % 4 == 0 and (k_b % 4 != 0 or k_a >= k_b)


def _quaternion_sides(
    gamma: int, k_a: int, k_b: int, seed: int | None
) -> tuple[Float64Array, Float64Array]:
    on_input = quaternions_on_input(k_a, k_b)
    coded, plain = (k_a, k_b) if on_input else (k_b, k_a)
    table = parity_table(gamma, coded // 4, plain, seed)
    blocks = left_matrices(table.quaternions).transpose(0, 2, 1, 3).reshape(gamma, 4, coded)
    reals = table.reals.reshape(gamma, 1, plain)
    parity = (blocks, reals) if on_input else (reals, blocks)
    plain_sides = uncoded_sides(k_a, k_b, *((4, 1) if on_input else (1, 4)))
    return (
        np.concatenate([plain_sides[0], parity[0]]),
        np.concatenate([plain_sides[1], parity[1]]),
    )


def _complex_sides(
    gamma: int, k_a: int, k_b: int, seed: int | None
) -> tuple[Float64Array, Float64Array]:
    table = complex_table(gamma, k_a // 2, k_b // 2, seed)
    plain = uncoded_sides(k_a, k_b, 2, 2)
    return (
        np.concatenate([plain[0], _complex_blocks(table.a.real, table.a.imag)]),
        np.concatenate([plain[1], _complex_blocks(table.b.real, table.b.imag)]),
    )


def _real_sides(gamma: int, k_a: int, k_b: int) -> tuple[Float64Array, Float64Array]:
    coded = real_coefficients(gamma, k_a * k_b)[:, None, :]
    ones = np.ones((gamma, 1, 1))
    parity = (coded, ones) if k_b == 1 else (ones, coded)
    plain = uncoded_sides(k_a, k_b, 1, 1)
    return np.concatenate([plain[0], parity[0]]), np.concatenate([plain[1], parity[1]])


def _rotation_sides(
    gamma: int, k_a: int, k_b: int, threshold: int, q: int | None
) -> tuple[Float64Array, Float64Array]:
    least = max(threshold, gamma, 2)
    q = next(p for p in range(least, 2 * least + 1) if _is_prime(p)) if q is None else q
    if q < least or not _is_prime(q):
        raise CodeError(
            f"rotation parity with q = {q}; expected a prime of at least {least}, "
            "the larger of δ and γ"
        )
    scale = 1.0 / math.sqrt(threshold)
    of_input = _powers(gamma, k_a, q, 1, scale if k_a > 1 else 1.0)
    of_filters = _powers(gamma, k_b, q, max(k_a // 2, 1), scale if k_a == 1 else 1.0)
    plain = uncoded_sides(k_a, k_b, min(k_a, 2), min(k_b, 2))
    return np.concatenate([plain[0], of_input]), np.concatenate([plain[1], of_filters])


def _powers(gamma: int, k: int, q: int, step: int, scale: float) -> Float64Array:
    """Return (γ, 2, k): blocks scale · R^{step · i · j} side by side; ones for k = 1."""
    if k == 1:
        return np.full((gamma, 1, 1), scale)
    # Reduced modulo q as integers, so that equal angles are equal to the last bit.
    turns = step * np.arange(k // 2) * np.arange(gamma)[:, None] % q
    cos, sin = scale * np.cos(2 * np.pi * turns / q), scale * np.sin(2 * np.pi * turns / q)
    return _complex_blocks(cos, sin)


def _complex_blocks(real: Float64Array, imaginary: Float64Array) -> Float64Array:
    """Return (γ, 2, 2 m) for (γ, m): the matrices of complex numbers side by side."""
    rows = [np.stack([real, -imaginary], -1), np.stack([imaginary, real], -1)]
    return np.stack(rows, axis=1).reshape(len(real), 2, 2 * real.shape[1])


def _even(number: int) -> int:
    """Return the next even number, at least 2."""
    return max(2, number + number % 2)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))
