"""Decoding: from the results of the survivors to the products of uncoded parts.

The survivors' rows of ``input_matrix ⊗ filter_matrix``, stacked, are the matrix E of the
system E Y = Ỹ (paper, section IV): one column for each product of an input part with a
filter part, one row for each result. It is factorised once per set of survivors:

- A row with a single 1 is an uncoded product. It is copied, bit for bit.
- Only the other products are solved for, from the rows that are not copied, after the
  contributions of the copied products have been subtracted. With more rows than unknowns
  this is least squares, by QR.
- Subtraction and solution are combined into one matrix, so that applying a decoder to any
  number of tensors is one matrix product. For a code without uncoded rows, such as the
  CRME, this matrix is E⁻¹.

The factorisation is in float64 whatever the tensors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import NotDecodableError

__all__ = ["Decoder", "make_decoder"]

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decoder:
    """The solution for one set of survivors, from :func:`make_decoder`.

    Products are numbered ``a * k_b + b`` for input part a and filter part b. Rows are
    numbered through the survivors in ascending order, ``ell_a * ell_b`` for each.

    Parameters
    ----------
    survivors
        The shares whose results it takes, ascending.
    copied
        Pairs (product, row) of products that are equal to a row.
    solved
        The products that are solved for, ascending.
    rows
        The rows that these are computed from, ascending.
    matrix
        (len(solved), len(rows)) float64: solved products = matrix @ rows.

    Examples
    --------
    >>> from fcdcc.coding import make_code
    >>> decoder = make_code("replication", n=4, k_a=2, k_b=1).decoder([1, 2])
    >>> decoder.survivors
    (1, 2)
    >>> len(decoder.copied) + len(decoder.solved)
    2
    """

    survivors: tuple[int, ...]
    copied: tuple[tuple[int, int], ...]
    solved: tuple[int, ...]
    rows: tuple[int, ...]
    matrix: Float64Array = field(repr=False)

    @cached_property
    def _casts(self) -> dict[tuple[torch.dtype, torch.device], torch.Tensor]:
        return {}

    def matrix_as(self, like: torch.Tensor) -> torch.Tensor:
        """Return ``matrix`` in the dtype and on the device of a tensor; cached."""
        key = (like.dtype, like.device)
        cast = self._casts.get(key)
        if cast is None:
            # A tensor made in the caller's inference mode could never be used for a gradient.
            with torch.inference_mode(False):
                matrix = torch.from_numpy(self.matrix.copy())
                cast = self._casts[key] = matrix.to(device=like.device, dtype=like.dtype)
        return cast

    def apply(self, results: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return all products, (products, *shape).

        Parameters
        ----------
        results
            One tensor for each row, all of one shape, dtype and device, or one tensor
            (rows, *shape). They are not changed.
        """
        first = results[0]
        products = len(self.copied) + len(self.solved)
        if len(self.solved) == products:
            return self.solve(results)
        out = first.new_empty((products, *first.shape))
        for product, row in self.copied:
            out[product].copy_(results[row])
        if self.solved:
            out[list(self.solved)] = self.solve(results)
        return out

    def solve(
        self, results: Sequence[torch.Tensor], which: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Return only the products that have to be solved for, (products, *shape).

        Parameters
        ----------
        results
            As for :meth:`apply`. Only those in ``rows`` are read.
        which
            Positions in ``solved``; by default all of them.
        """
        stacked = torch.stack([results[row] for row in self.rows])
        matrix = self.matrix_as(stacked)
        if which is not None and len(which) < len(self.solved):
            matrix = matrix[list(which)]
        solved = matrix @ stacked.reshape(len(self.rows), -1)
        return solved.reshape(len(matrix), *stacked.shape[1:])

    def __reduce__(self) -> tuple[type[Decoder], tuple[object, ...]]:
        # Without the cached casts to torch.
        return Decoder, (
            self.survivors,
            self.copied,
            self.solved,
            self.rows,
            self.matrix,
        )


def make_decoder(share_matrices: Float64Array, shares: Sequence[int]) -> Decoder:
    """Factorise the system of equations of some shares.

    Parameters
    ----------
    share_matrices
        (n, ell_a · ell_b, k_a · k_b) float64, see :attr:`fcdcc.coding.Code.share_matrices`.
    shares
        The survivors, ascending, each once. All of them are used.

    Raises
    ------
    NotDecodableError
        If the rows do not determine every product, in exact arithmetic or in float64.
    """
    system = np.concatenate(share_matrices[list(shares)])
    copied = _uncoded_rows(system)
    known = list(copied)
    unknown = [product for product in range(system.shape[1]) if product not in copied]
    coded = [row for row in range(len(system)) if not _is_one_hot(system[row])]
    solution = _pseudoinverse(system[np.ix_(coded, unknown)], shares)
    by_row = np.zeros((len(unknown), len(system)))
    by_row[:, coded] = solution
    by_row[:, list(copied.values())] = -solution @ system[np.ix_(coded, known)]
    rows = np.flatnonzero(np.any(by_row != 0.0, axis=0))
    return Decoder(
        survivors=tuple(int(share) for share in shares),
        copied=tuple(sorted(copied.items())),
        solved=tuple(unknown),
        rows=tuple(int(row) for row in rows),
        matrix=_frozen(by_row[:, rows]),
    )


def _is_one_hot(row: Float64Array) -> bool:
    return bool(np.count_nonzero(row) == 1 and np.max(row) == 1.0)


def _uncoded_rows(system: Float64Array) -> dict[int, int]:
    """Return the first row that holds each uncoded product."""
    found: dict[int, int] = {}
    for number, row in enumerate(system):
        if _is_one_hot(row):
            found.setdefault(int(np.argmax(row)), number)
    return found


def _pseudoinverse(system: Float64Array, shares: Sequence[int]) -> Float64Array:
    """Return the left inverse of a (rows, unknowns) system: its inverse, or least squares."""
    rows, unknowns = system.shape
    if unknowns == 0:
        return np.zeros((0, rows))
    singular = np.linalg.svd(system, compute_uv=False) if rows >= unknowns else np.zeros(1)
    # The tolerance of numpy.linalg.matrix_rank.
    if singular[-1] <= max(rows, unknowns) * np.finfo(np.float64).eps * singular[0]:
        raise NotDecodableError(
            f"shares {list(shares)} leave {unknowns} products that their {rows} coded results do "
            "not determine; expected a system of full rank: wait for further shares, or use "
            "another code"
        )
    if rows == unknowns:
        return np.asarray(np.linalg.inv(system), dtype=np.float64)
    q, r = np.linalg.qr(system)
    return np.asarray(np.linalg.solve(r, q.T), dtype=np.float64)


def _frozen(matrix: Float64Array) -> Float64Array:
    matrix = np.ascontiguousarray(matrix)
    matrix.setflags(write=False)
    return matrix
