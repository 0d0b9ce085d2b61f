"""Smaller complex systems that have the singular values of a code's own system.

After a unitary change of basis, blocks that are rotations become complex numbers, and blocks
that are left multiplications by quaternions become complex 2 × 2 matrices. The matrix E of any
survivors then falls into one or two complex systems with the same singular values, a half to a
quarter of its size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .code import Code
from .quaternions import complex_form, quaternion_blocks

__all__ = ["reduced_systems"]

ComplexArray = NDArray[np.complex128]
Float64Array = NDArray[np.float64]


def reduced_systems(code: Code) -> tuple[ComplexArray, ...]:
    """Return smaller systems that have the singular values of the code's own system.

    Each is (n, b, c) complex: b rows for every share. For any survivors, the singular values
    of E are those of the stacked rows of all the systems together, multiplicities aside.
    """
    rotations = _rotation_systems(code)
    if rotations is not None:
        return rotations
    quaternions = _quaternion_system(code)
    if quaternions is not None:
        return (quaternions,)
    return (code.share_matrices.astype(np.complex128),)


def _rotation_systems(code: Code) -> tuple[ComplexArray, ...] | None:
    """Return the complex systems of a code whose 2 × 2 blocks are all scaled rotations."""
    sides = [_as_complex(matrix) for matrix in (code.input_matrix, code.filter_matrix)]
    left, right = sides
    if left is None or right is None or (code.k_a == 1 and code.k_b == 1):
        return None
    products = [(left, right)]
    if code.k_a > 1 and code.k_b > 1:
        products.append((left, right.conj()))
    return tuple(
        np.einsum("na,nb->nab", a, b).reshape(code.n, 1, -1).astype(np.complex128)
        for a, b in products
    )


def _as_complex(matrix: Float64Array) -> ComplexArray | None:
    """Return (n, k / 2) complex for blocks [[x, −y], [y, x]]; ones for a side that is whole."""
    n, ell, k = matrix.shape
    if ell == 1 and k == 1:
        return matrix.reshape(n, 1).astype(np.complex128)
    if ell != 2 or k % 2:
        return None
    blocks = matrix.reshape(n, 2, k // 2, 2)
    x, y = blocks[:, 0, :, 0], blocks[:, 1, :, 0]
    if not (np.array_equal(blocks[:, 1, :, 1], x) and np.array_equal(blocks[:, 0, :, 1], -y)):
        return None
    return np.asarray(x + 1j * y)


def _quaternion_system(code: Code) -> ComplexArray | None:
    """Return (n, 2, 2 δ) for a code with quaternions on one side and reals on the other."""
    sides = (code.input_matrix, code.filter_matrix)
    coded, plain = sides if code.ell_a == 4 else sides[::-1]
    if coded.shape[1] != 4 or plain.shape[1] != 1 or coded.shape[2] % 4:
        return None
    quaternions = quaternion_blocks(coded)
    if quaternions is None:
        return None
    blocks = quaternions[:, :, None, :] * plain[:, 0, None, :, None]
    if code.ell_a != 4:
        blocks = blocks.swapaxes(1, 2)
    flat = blocks.reshape(code.n, -1, 4)
    return complex_form(flat).reshape(code.n, 2, -1)
