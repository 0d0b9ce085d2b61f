"""Condition numbers of very many survivor sets at once.

The condition number of a code's survivors is that of the matrix E of stacked share matrices,
(δ · ell) × (δ · ell) and real. Three facts make it cheap enough to compute it for every loss of
a code with tens of thousands of them:

- Rotations are complex numbers, and quaternions complex 2 × 2 matrices: a smaller system
  has the same singular values (:mod:`fcdcc.coding.reduction`).
- A systematic code has E = [I 0; B M]. All its singular values other than 1 are those of
  [I 0; C M] with C Cᴴ = B Bᴴ, whose size is the number of missing shares and not δ
  (:class:`Spectrum`).
- A badly conditioned survivor set has a vector x such that the rows of its shares times x are
  small. The δ shares with the smallest products are a set that is at least as bad. Alternating
  between sets and vectors finds bad sets that sampling does not (:meth:`Spectrum.worsen`).

Losses are arrays (m, g) of integers: m sets of g lost shares each, ascending in a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .code import Code
from .errors import CodeError
from .reduction import reduced_systems

__all__ = [
    "Losses",
    "Spectrum",
    "by_missing",
    "contiguous_losses",
    "every_loss",
    "expand",
    "pencils",
]

Losses = NDArray[np.intp]
ComplexArray = NDArray[np.complex128]
Float64Array = NDArray[np.float64]

_BATCH_LOSSES = 4096
"""Losses whose matrices are computed at once."""

_BATCH_SWAPS = 64
"""Losses of which all swaps are computed at once."""

_MAX_GRAM_CONDITION = 3e5
"""Above this condition number the eigenvalues of a Gram matrix, which are squares of the singular
values, have too few correct digits."""


def every_loss(n: int, lost: int) -> Losses:
    """Return all sets of ``lost`` out of n shares, (C(n, lost), lost)."""
    sets = list(itertools.combinations(range(n), lost))
    return np.array(sets, dtype=np.intp).reshape(len(sets), lost)


def contiguous_losses(n: int, lost: int) -> Losses:
    """Return the n sets of cyclically adjacent shares, (n, lost)."""
    first = np.arange(n)[:, None]
    return np.sort((first + np.arange(lost)) % n, axis=1).astype(np.intp)


class Spectrum:
    """The condition numbers of one code after losses.

    Parameters
    ----------
    systems
        From :func:`reduced_systems`.
    threshold
        δ: at most n − δ shares are lost.
    """

    def __init__(self, systems: tuple[ComplexArray, ...], threshold: int) -> None:
        self.n = len(systems[0])
        self.threshold = threshold
        self._systems = tuple(_System(system, threshold) for system in systems)

    @classmethod
    def of(cls, code: Code) -> Spectrum:
        """Return the spectrum of a code."""
        return cls(reduced_systems(code), code.recovery_threshold)

    def conditions(self, lost: Losses) -> Float64Array:
        """Return the condition number after each loss, (m,); infinity if it is singular."""
        self._check(lost)
        extremes = [system.extremes(lost) for system in self._systems]
        largest = np.max([high for _, high in extremes], axis=0)
        smallest = np.min([low for low, _ in extremes], axis=0)
        with np.errstate(divide="ignore"):
            condition = np.asarray(largest / smallest, dtype=np.float64)
        # Singular in float64: the decoder refuses these, too.
        condition[smallest <= np.finfo(np.float64).eps * largest] = np.inf
        return condition

    def worsen(self, lost: Losses, steps: int = 25) -> Losses:
        """Return losses that are at least as bad, each once.

        Alternates between losses and vectors, as the module's text says, until nothing changes
        or for so many steps.
        """
        self._check(lost)
        ends = []
        for system in self._systems:
            current = lost
            for _ in range(steps):
                following = system.least_response(current)
                rests = (following == current).all(axis=1)
                ends.append(current[rests])
                current = np.unique(following[~rests], axis=0)
                if len(current) == 0:
                    break
            ends.append(current)
        return np.unique(np.concatenate(ends), axis=0)

    def climb(self, lost: Losses, steps: int = 40) -> Losses:
        """Return losses that are at least as bad, each once, found by swapping single shares.

        Each step makes the swap after which the Frobenius norm of the inverse is largest. A
        formula for updates of small rank computes it for all swaps at once.

        Parameters
        ----------
        lost
            Losses of exactly n − δ shares.
        steps
            Largest number of swaps.
        """
        self._check(lost)
        if lost.shape[1] != self.n - self.threshold:
            raise CodeError(
                f"losses of {lost.shape[1]} shares; expected {self.n - self.threshold}: only "
                "then is the system square"
            )
        ends = [lost]
        for system in self._systems:
            current = np.unique(lost, axis=0)
            for _ in range(steps):
                current = np.unique(system.best_swaps(current), axis=0)
                if len(current) == 0:
                    break
                ends.append(current)
        return np.unique(np.concatenate(ends), axis=0)

    def _check(self, lost: Losses) -> None:
        if lost.ndim != 2 or lost.shape[1] > self.n - self.threshold:
            raise CodeError(
                f"losses of shape {lost.shape}; expected (sets, shares lost), at most "
                f"{self.n - self.threshold} of {self.n} shares lost"
            )


class _System:
    """One complex system (n, b, c) and the extreme singular values of its survivors."""

    def __init__(self, system: ComplexArray, threshold: int) -> None:
        self.system = system
        self.n, self.block, self.columns = system.shape
        self.threshold = threshold
        self.gram: ComplexArray = np.einsum("nij,nik->njk", system.conj(), system)
        self.total = self.gram.sum(axis=0)
        self.parity = _parity_of(system, threshold)

    def extremes(self, lost: Losses) -> tuple[Float64Array, Float64Array]:
        """Return the smallest and the largest singular value after each loss."""
        low, high = np.empty(len(lost)), np.empty(len(lost))
        for chosen, matrices, exact in self._grams(lost):
            values = np.linalg.eigvalsh(matrices)
            smallest, largest = np.maximum(values[:, 0], 0.0), values[:, -1]
            if exact:
                # 1 lies between the extremes of [I 0; B M], but the pencil may not have it.
                smallest, largest = np.minimum(smallest, 1.0), np.maximum(largest, 1.0)
            low[chosen], high[chosen] = np.sqrt(smallest), np.sqrt(largest)
        doubtful = np.flatnonzero(low * _MAX_GRAM_CONDITION < high)
        for start in range(0, len(doubtful), _BATCH_LOSSES):
            some = doubtful[start : start + _BATCH_LOSSES]
            values = np.linalg.svd(self._stacked(lost[some]), compute_uv=False)
            low[some], high[some] = values[:, -1], values[:, 0]
        return low, high

    def least_response(self, lost: Losses) -> Losses:
        """Return the shares with the largest products with each loss's weakest vector."""
        following = np.empty_like(lost)
        for start in range(0, len(lost), _BATCH_LOSSES):
            some = slice(start, start + _BATCH_LOSSES)
            vectors = self._weakest(lost[some])
            answers = np.einsum("nbc,mc->mnb", self.system, vectors, optimize=True)
            response = (np.abs(answers) ** 2).sum(axis=2)
            order = np.argsort(response, axis=1)[:, self.n - lost.shape[1] :]
            following[some] = np.sort(order, axis=1)
        return following

    def best_swaps(self, lost: Losses) -> Losses:
        """Return each loss after its worst swap, without those that no swap makes worse."""
        following = [
            self._best_swaps(lost[start : start + _BATCH_SWAPS])
            for start in range(0, len(lost), _BATCH_SWAPS)
        ]
        return np.concatenate([lost[:0], *following])

    def _best_swaps(self, lost: Losses) -> Losses:
        count, block = len(lost), self.block
        kept = self._kept(lost)
        inverse = np.linalg.inv(self._stacked(lost))
        by_share = inverse.reshape(count, self.columns, -1, block)
        # C = G E⁻¹ for the lost rows G. Swapping in row l for row w subtracts
        # U_w C_lw⁻¹ (C_l − e_w) from the inverse, with U_w the columns of E⁻¹ for w.
        answers = self.system[lost].reshape(count, -1, self.columns) @ inverse
        gram = inverse.conj().swapaxes(1, 2) @ inverse
        blocks = _blocks(answers, block)
        pivots = np.linalg.inv(blocks + 1e-14 * np.eye(block))
        own = np.einsum("mcwi,mcwj->mwij", by_share.conj(), by_share)
        cross = _blocks(answers @ gram, block) - own[:, None]
        change = -2.0 * np.einsum("mlwij,mlwji->mlw", pivots, cross).real
        outer = _blocks_of_rows(answers, block)[:, :, None]
        outer = outer - blocks - blocks.conj().swapaxes(-1, -2) + np.eye(block)
        weighted = pivots @ outer @ pivots.conj().swapaxes(-1, -2)
        change = change + np.einsum("mlwij,mwji->mlw", weighted, own).real
        flat = change.reshape(count, -1)
        chosen = flat.argmax(axis=1)
        each = np.arange(count)
        norm = (np.abs(inverse) ** 2).sum(axis=(1, 2))
        rises = flat[each, chosen] > 1e-6 * norm
        leaving, entering = np.divmod(chosen, kept.shape[1])
        following = lost.copy()
        following[each, leaving] = kept[each, entering]
        return np.sort(following[rises], axis=1)

    def _weakest(self, lost: Losses) -> ComplexArray:
        """Return the right singular vectors of the smallest singular values, (m, c)."""
        if self.parity is None or lost.shape[1] != self.n - self.threshold:
            return np.asarray(np.linalg.eigh(self._survivor_gram(lost))[1][:, :, 0])
        vectors = np.zeros((len(lost), self.columns), dtype=np.complex128)
        vectors[:, 0] = 1.0
        for chosen, rows, columns in by_missing(lost, self.n, self.threshold):
            if columns.shape[1] == 0:
                continue
            matrices = pencils(self.parity, self.block, rows, columns)
            values, eigenvectors = np.linalg.eigh(matrices)
            row_index, column_index = expand(rows, self.block), expand(columns, self.block)
            weights = np.zeros((len(rows), len(self.parity)), dtype=np.complex128)
            each = np.arange(len(rows))[:, None]
            weights[each, row_index] = eigenvectors[:, -row_index.shape[1] :, 0]
            image = weights @ self.parity.conj()
            if matrices.shape[1] == row_index.shape[1]:
                vectors[chosen] = image
                continue
            # The eigenvector of [I 0; B M]ᴴ[I 0; B M], from that of its mirror image.
            scale = values[:, 0] / np.minimum(values[:, 0] - 1.0, -1e-12)
            whole = image * scale[:, None]
            whole[each, column_index] = image[each, column_index]
            vectors[chosen] = whole
        return vectors

    def _grams(self, lost: Losses) -> Iterator[tuple[Losses, ComplexArray, bool]]:
        """Yield positions in ``lost``, Hermitian matrices, and whether 1 is a singular value.

        The extreme eigenvalues of the matrices are the squared extreme singular values, but
        the matrices may lack the singular value 1.
        """
        if self.parity is None or lost.shape[1] != self.n - self.threshold:
            for start in range(0, len(lost), _BATCH_LOSSES):
                chosen = np.arange(start, min(start + _BATCH_LOSSES, len(lost)))
                yield chosen, self._survivor_gram(lost[chosen]), False
            return
        for chosen, rows, columns in by_missing(lost, self.n, self.threshold):
            if columns.shape[1] == 0:
                yield chosen, np.ones((len(chosen), 1, 1), dtype=np.complex128), True
                continue
            for start in range(0, len(chosen), _BATCH_LOSSES):
                some = slice(start, start + _BATCH_LOSSES)
                matrices = pencils(self.parity, self.block, rows[some], columns[some])
                yield chosen[some], matrices, columns.shape[1] < self.threshold

    def _survivor_gram(self, lost: Losses) -> ComplexArray:
        matrices = np.repeat(self.total[None], len(lost), axis=0)
        for column in lost.T:
            matrices -= self.gram[column]
        return matrices

    def _stacked(self, lost: Losses) -> ComplexArray:
        return self.system[self._kept(lost)].reshape(len(lost), -1, self.columns)

    def _kept(self, lost: Losses) -> Losses:
        kept = np.ones((len(lost), self.n), dtype=bool)
        kept[np.arange(len(lost))[:, None], lost] = False
        return np.nonzero(kept)[1].reshape(len(lost), -1)


def _blocks(matrices: ComplexArray, size: int) -> ComplexArray:
    """Return (m, r, c, size, size) for matrices (m, r · size, c · size)."""
    count, rows, columns = matrices.shape
    split = matrices.reshape(count, rows // size, size, columns // size, size)
    return split.transpose(0, 1, 3, 2, 4)


def _blocks_of_rows(matrices: ComplexArray, size: int) -> ComplexArray:
    """Return (m, r, size, size), each row block times its conjugate transpose."""
    rows = matrices.reshape(len(matrices), -1, size, matrices.shape[2])
    return np.asarray(rows @ rows.conj().swapaxes(-1, -2))


def pencils(parity: ComplexArray, block: int, rows: Losses, columns: Losses) -> ComplexArray:
    """Return L Lᴴ, L = [I 0; C M], for the parity rows present and the columns missing.

    With every systematic share missing L is M alone.
    """
    row_index, column_index = expand(rows, block), expand(columns, block)
    present = parity[row_index]
    whole = present @ present.conj().swapaxes(1, 2)
    size = row_index.shape[1]
    if size == parity.shape[1]:
        return np.asarray(whole)
    missing = parity[row_index[:, :, None], column_index[:, None, :]]
    diagonal = np.arange(size)
    rest = whole - missing @ missing.conj().swapaxes(1, 2)
    # B may have fewer columns than rows; a shift far below the rounding of L Lᴴ makes the
    # Cholesky factor exist.
    shift = 1e-13 * np.trace(whole, axis1=1, axis2=2).real / size
    rest[:, diagonal, diagonal] += shift[:, None]
    factor = np.linalg.cholesky(rest)
    pencil = np.zeros((len(rows), 2 * size, 2 * size), dtype=np.complex128)
    pencil[:, diagonal, diagonal] = 1.0
    pencil[:, size:, :size] = factor
    pencil[:, :size, size:] = factor.conj().swapaxes(1, 2)
    pencil[:, size:, size:] = whole
    return pencil


def by_missing(lost: Losses, n: int, threshold: int) -> Iterator[tuple[Losses, Losses, Losses]]:
    """Group losses of n − δ by how many systematic shares they miss.

    Yields positions in ``lost``, the parity shares that are present (m, s), and the systematic
    shares that are missing (m, s).
    """
    mask = np.zeros((len(lost), n), dtype=bool)
    mask[np.arange(len(lost))[:, None], lost] = True
    missing = mask[:, :threshold].sum(axis=1)
    for count in np.unique(missing):
        chosen = np.flatnonzero(missing == count)
        columns = np.nonzero(mask[chosen, :threshold])[1].reshape(len(chosen), count)
        rows = np.nonzero(~mask[chosen, threshold:])[1].reshape(len(chosen), count)
        yield chosen, rows, columns


def expand(blocks: Losses, size: int) -> Losses:
    """Return the indices within blocks of ``size``, (m, s) to (m, s · size)."""
    return np.asarray(
        (blocks[:, :, None] * size + np.arange(size)).reshape(len(blocks), -1), dtype=np.intp
    )


def _parity_of(system: ComplexArray, threshold: int) -> ComplexArray | None:
    """Return the parity rows if the first δ shares are the identity, columns in its order."""
    n, block, columns = system.shape
    if threshold * block != columns or n == threshold:
        return None
    if not np.array_equal(system[:threshold].reshape(columns, columns), np.eye(columns)):
        return None
    return np.ascontiguousarray(system[threshold:].reshape(-1, columns))
