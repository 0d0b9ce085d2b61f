"""CRME, the circulant and rotation matrix embedding: the code of the paper.

With R the rotation by θ = 2π/q, share j combines the input parts by the 2 × 2 blocks
R^{ij}, i < k_a / 2, and the filter parts by R^{(k_a / 2) i j}, i < k_b / 2. A rotation is
diagonal in complex coordinates, so the system of any survivors is, up to a unitary change
of basis, two Vandermonde matrices on δ consecutive powers of the survivors' q-th roots of
unity. It is invertible if the roots are distinct: for every q ≥ n, odd or even. The roots are
spread most evenly with q = n.

Source: FCDCC (arXiv 2411.01579), section IV; Ramamoorthy and Tang (arXiv 1910.06515). The
papers take an odd q.
"""

from __future__ import annotations

import math

import numpy as np

from .code import Code, Float64Array
from .errors import CodeError

__all__ = ["crme", "crme_threshold"]


def crme_threshold(k_a: int, k_b: int) -> int:
    """Return δ: k_a k_b / (ell_a ell_b), where ell is 2 on a side that is split, else 1.

    Raises
    ------
    CodeError
        If k_a or k_b is neither 1 nor even.

    Examples
    --------
    >>> crme_threshold(8, 8), crme_threshold(1, 8), crme_threshold(1, 1)
    (16, 4, 1)
    """
    for name, k in (("k_a", k_a), ("k_b", k_b)):
        if k < 1 or (k > 1 and k % 2):
            raise CodeError(f"crme with {name} = {k}; expected 1 or an even number: take {k + 1}")
    return (k_a // 2 if k_a > 1 else 1) * (k_b // 2 if k_b > 1 else 1)


def crme(n: int, k_a: int, k_b: int, q: int | None = None) -> Code:
    """Return the CRME for n shares, k_a input parts and k_b filter parts.

    Parameters
    ----------
    n
        Number of shares, at least δ = :func:`crme_threshold`.
    k_a, k_b
        Each 1 or even.
    q
        The rotation is by 2π/q. Any q ≥ n decodes from every δ shares. The default is n;
        the paper takes the smallest odd q ≥ n.

    Raises
    ------
    CodeError
        If there is no CRME with these parameters.
    """
    threshold = crme_threshold(k_a, k_b)
    if n < threshold:
        raise CodeError(
            f"crme with n = {n} shares, k_a = {k_a} and k_b = {k_b} needs {threshold} results to "
            f"decode; expected n >= {threshold}: take more shares or fewer parts"
        )
    q = n if q is None else q
    if q < n:
        raise CodeError(
            f"crme with q = {q} and n = {n}: two shares would be equal; expected q >= n"
        )
    return Code(
        name="crme",
        input_matrix=_rotations(n, k_a, q, step=1),
        filter_matrix=_rotations(n, k_b, q, step=max(k_a // 2, 1)),
        recovery_threshold=threshold,
    )


def _rotations(n: int, k: int, q: int, step: int) -> Float64Array:
    """Return (n, 2, k): blocks R^{step · i · j} side by side; (n, 1, 1) ones for k = 1."""
    if k == 1:
        return np.ones((n, 1, 1))
    shares = np.arange(n)[:, None]
    # Reduced modulo q as integers, so that equal angles are equal to the last bit.
    angles = 2.0 * math.pi * (step * np.arange(k // 2) * shares % q) / q
    cos, sin = np.cos(angles), np.sin(angles)
    blocks = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], axis=1)
    # A quarter turn has exact zeros and not 6e-17.
    blocks[np.abs(blocks) < 1e-15] = 0.0
    return blocks.reshape(n, 2, k)
