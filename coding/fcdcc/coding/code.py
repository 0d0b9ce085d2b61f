"""A code as a value: two stacks of small matrices, and what is computed from them.

Share j of a layer convolves ``ell_a`` coded inputs with ``ell_b`` coded filters. The coded
inputs are combinations of the k_a parts of the input (the rows of ``input_matrix[j]``), the
coded filters combinations of the k_b parts of the filters (the rows of
``filter_matrix[j]``). Convolution is bilinear, so the ``ell_a * ell_b`` results of share j
are the rows of ``input_matrix[j] ⊗ filter_matrix[j]`` applied to the k_a k_b products of
uncoded parts, and decoding is linear algebra on those rows alone (paper, section IV).

:meth:`Code.is_decodable` says when the shares that are there suffice, and
:meth:`Code.decoder` how to compute the layer's output from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from .decoder import Decoder, make_decoder
from .errors import CodeError, NotDecodableError

__all__ = ["Code", "Float64Array"]

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Code:
    """A linear code for the n shares of one convolution layer.

    Parameters
    ----------
    name
        See :func:`fcdcc.coding.make_code`.
    input_matrix
        (n, ell_a, k_a) float64: row i of ``input_matrix[j]`` has the coefficients of coded
        input i of share j.
    filter_matrix
        (n, ell_b, k_b) float64: likewise for the filters.
    recovery_threshold
        δ: the number of shares that suffice; if ``every_delta`` is false, the least number
        that can suffice.
    every_delta
        Whether any δ shares decode. False for codes such as replication, where it depends on
        which shares there are; then :meth:`is_decodable` computes a rank.

    Two codes are equal if their names and matrices are.

    Examples
    --------
    >>> from fcdcc.coding import make_code
    >>> code = make_code("systematic", n=6, k_a=16, k_b=1)
    >>> code.n, code.recovery_threshold, code.tolerance
    (6, 4, 2)
    >>> code.is_decodable([0, 2, 4, 5]), code.is_decodable([0, 1, 2])
    (True, False)
    >>> code.condition_number([0, 1, 2, 3])
    1.0
    """

    name: str
    input_matrix: Float64Array = field(repr=False)
    filter_matrix: Float64Array = field(repr=False)
    recovery_threshold: int
    every_delta: bool = True

    def __post_init__(self) -> None:
        for label in ("input_matrix", "filter_matrix"):
            matrix = np.array(getattr(self, label), dtype=np.float64)
            if matrix.ndim != 3:
                raise CodeError(
                    f"{label} has shape {matrix.shape}; expected three axes (n, ell, k)"
                )
            matrix.setflags(write=False)
            object.__setattr__(self, label, matrix)
        if len(self.input_matrix) != len(self.filter_matrix):
            raise CodeError(
                f"input_matrix is for {len(self.input_matrix)} shares and filter_matrix for "
                f"{len(self.filter_matrix)}; expected the same number"
            )
        if not 1 <= self.recovery_threshold <= self.n:
            raise CodeError(
                f"recovery threshold {self.recovery_threshold} with n = {self.n} shares; "
                "expected 1 <= threshold <= n"
            )

    @property
    def n(self) -> int:
        """Number of shares."""
        return len(self.input_matrix)

    @property
    def k_a(self) -> int:
        """Number of parts of the input."""
        return int(self.input_matrix.shape[2])

    @property
    def k_b(self) -> int:
        """Number of parts of the filters."""
        return int(self.filter_matrix.shape[2])

    @property
    def ell_a(self) -> int:
        """Number of coded inputs per share."""
        return int(self.input_matrix.shape[1])

    @property
    def ell_b(self) -> int:
        """Number of coded filters per share."""
        return int(self.filter_matrix.shape[1])

    @property
    def tolerance(self) -> int:
        """γ = n − δ: the number of shares that may be lost."""
        return self.n - self.recovery_threshold

    @cached_property
    def share_matrices(self) -> Float64Array:
        """(n, ell_a · ell_b, k_a · k_b): ``input_matrix[j] ⊗ filter_matrix[j]`` for every j."""
        blocks = np.einsum("jia,jlb->jilab", self.input_matrix, self.filter_matrix)
        stack = np.empty((self.n, self.ell_a * self.ell_b, self.k_a * self.k_b))
        stack[:] = blocks.reshape(stack.shape)
        stack.setflags(write=False)
        return stack

    def parts_needed(self, share: int) -> tuple[int, ...]:
        """Return the input parts that the coded inputs of a share are made of, ascending."""
        used = np.any(self.input_matrix[share] != 0.0, axis=0)
        return tuple(int(part) for part in np.flatnonzero(used))

    def input_run(self, share: int) -> int | None:
        """Return the first input part of a share whose inputs are consecutive uncoded parts.

        None if they are not: then the inputs have to be combined.
        """
        self.check_share(share)
        return self._runs[share][0]

    def filter_run(self, share: int) -> int | None:
        """Return the first filter part of a share whose filters are consecutive uncoded parts.

        None if they are not: then the filters have to be combined.
        """
        self.check_share(share)
        return self._runs[share][1]

    def check_share(self, share: int) -> None:
        """Check that a share is one of 0 … n − 1.

        Raises
        ------
        CodeError
            If it is not.
        """
        if not 0 <= share < self.n:
            raise CodeError(f"share {share}; expected one of the shares 0 to {self.n - 1}")

    def is_decodable(self, survivors: Iterable[int]) -> bool:
        """Return whether the layer's output can be computed from these shares.

        Repeated shares count once.

        Raises
        ------
        CodeError
            If a share is not one of 0 … n − 1.
        """
        shares = self._checked(survivors)
        if len(shares) < self.recovery_threshold:
            return False
        return self.every_delta or _rank(self, shares) == self.k_a * self.k_b

    def condition_number(self, survivors: Iterable[int]) -> float:
        """Return the 2-norm condition number of the system of equations of these shares.

        Infinity if they do not decode. With more than δ shares it is the condition number of
        the least-squares problem.
        """
        shares = self._checked(survivors)
        if not self.is_decodable(shares):
            return float("inf")
        return _condition(self, shares)

    def decoder(self, survivors: Iterable[int]) -> Decoder:
        """Return the decoder for a set of survivors, factorised once and cached.

        Raises
        ------
        NotDecodableError
            If the survivors do not decode.
        """
        shares = self._checked(survivors)
        if not self.is_decodable(shares):
            raise NotDecodableError(
                f"shares {list(shares)} of the {self.name} code with n = {self.n} do not decode; "
                f"expected {self.recovery_threshold} or more: wait for further shares"
            )
        return _decoder(self, shares)

    @cached_property
    def _runs(self) -> tuple[tuple[int | None, int | None], ...]:
        return tuple(
            (_uncoded_run(inputs), _uncoded_run(filters))
            for inputs, filters in zip(self.input_matrix, self.filter_matrix, strict=True)
        )

    def _checked(self, survivors: Iterable[int]) -> tuple[int, ...]:
        shares = tuple(sorted({int(share) for share in survivors}))
        if shares and not 0 <= shares[0] <= shares[-1] < self.n:
            raise CodeError(f"shares {list(shares)}; expected some of the shares 0 to {self.n - 1}")
        return shares

    def __reduce__(self) -> tuple[type[Code], tuple[object, ...]]:
        # Without cached properties: a hash of strings differs between processes.
        return type(self), (
            self.name,
            self.input_matrix,
            self.filter_matrix,
            self.recovery_threshold,
            self.every_delta,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Code):
            return NotImplemented
        return (
            self.name == other.name
            and self.recovery_threshold == other.recovery_threshold
            and np.array_equal(self.input_matrix, other.input_matrix)
            and np.array_equal(self.filter_matrix, other.filter_matrix)
        )

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.input_matrix.tobytes(), self.filter_matrix.tobytes()))

    def __hash__(self) -> int:
        return self._hash


def _uncoded_run(matrix: Float64Array) -> int | None:
    """Return the first part if the rows of (ell, k) are consecutive uncoded parts, else None."""
    ell, k = matrix.shape
    first = int(np.argmax(matrix[0]))
    run = np.zeros_like(matrix)
    run[np.arange(ell), np.minimum(np.arange(first, first + ell), k - 1)] = 1.0
    return first if np.array_equal(matrix, run) else None


@lru_cache(maxsize=4096)
def _rank(code: Code, shares: tuple[int, ...]) -> int:
    return int(np.linalg.matrix_rank(np.concatenate(code.share_matrices[list(shares)])))


@lru_cache(maxsize=4096)
def _condition(code: Code, shares: tuple[int, ...]) -> float:
    return float(np.linalg.cond(np.concatenate(code.share_matrices[list(shares)])))


# The decoder of a large code takes some hundred kilobytes.
@lru_cache(maxsize=256)
def _decoder(code: Code, shares: tuple[int, ...]) -> Decoder:
    return make_decoder(code.share_matrices, shares)
