"""Quaternions as matrices: the coefficients of the systematic code's parity.

A quaternion a + bi + cj + dk is an array (…, 4). Left multiplication by it is a real 4 × 4
matrix, |q| times an orthogonal one; in complex coordinates it is a 2 × 2 matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["complex_form", "left_matrices", "quaternion_blocks"]

Float64Array = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]


def left_matrices(quaternions: Float64Array) -> Float64Array:
    """Return the matrices of x ↦ q x, (…, 4, 4) for (…, 4).

    Examples
    --------
    The matrices multiply as the quaternions do, here i · j = k:

    >>> i, j, k = left_matrices(np.eye(4)[1:])
    >>> bool((i @ j == k).all())
    True
    """
    a, b, c, d = np.moveaxis(quaternions, -1, 0)
    rows = [[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_blocks(matrix: Float64Array) -> Float64Array | None:
    """Return the quaternions (n, k / 4, 4) of a stack (n, 4, k) of their matrices, else None."""
    n, ell, k = matrix.shape
    if ell != 4 or k % 4:
        return None
    blocks = matrix.reshape(n, 4, k // 4, 4).transpose(0, 2, 1, 3)
    quaternions = np.ascontiguousarray(blocks[..., 0])
    return quaternions if np.array_equal(left_matrices(quaternions), blocks) else None


def complex_form(quaternions: Float64Array) -> ComplexArray:
    """Return (2 r, 2 c) complex for a matrix (r, c, 4) of quaternions.

    The real matrix of blocks :func:`left_matrices` has the same singular values, each twice.
    """
    a, b, c, d = np.moveaxis(quaternions, -1, 0)
    alpha, beta = a + 1j * b, c + 1j * d
    rows, columns = alpha.shape
    form = np.empty((rows, 2, columns, 2), dtype=np.complex128)
    form[:, 0, :, 0], form[:, 0, :, 1] = alpha, beta
    form[:, 1, :, 0], form[:, 1, :, 1] = -beta.conj(), alpha.conj()
    return form.reshape(2 * rows, 2 * columns)
