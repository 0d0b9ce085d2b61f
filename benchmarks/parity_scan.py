"""Every bad loss of a code with quaternion circulants, by enumeration.

A set of s missing columns is bad only if one of them lies close to the span of the other
s − 1. So it is enough to go through all sets of s − 1 columns, to take the normal vector of
each, and to look at its product with every column: for (40, 32) two million normal vectors
stand for 76.9 million losses. What is left out is provably better than the limit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fcdcc.coding.quaternions import complex_form
from fcdcc.coding.spectrum import Losses, Spectrum

__all__ = ["Circulant", "every_bad_loss"]

_CHUNK = 8192


class Circulant(Protocol):
    """What is asked of a size, see ``optimise_parity.Size``."""

    @property
    def gamma(self) -> int:
        """Number of parity shares, the size of a circulant."""

    @property
    def delta(self) -> int:
        """Number of systematic shares."""

    def canonical(self, losses: Losses) -> Losses:
        """Return one loss for all that a turn of the circulants makes equal."""


def every_bad_loss(
    size: Circulant, parity: NDArray[np.complex128], spectrum: Spectrum, limit: float
) -> Losses:
    """Return all losses, one for every turn, with a condition number of at least the limit.

    With M the missing block, κ(E) ≤ ‖E‖ (1 + ‖M⁻¹‖ ‖[P I]‖). The largest row of M⁻¹ has at
    least ‖M⁻¹‖ / √s, and its norm is one over the distance of a column from the others.
    """
    gamma, delta = size.gamma, size.delta
    norm = float(np.linalg.norm(np.concatenate([np.eye(2 * delta), parity]), 2))
    wide = float(np.linalg.norm(np.concatenate([parity, np.eye(2 * gamma)], axis=1), 2))
    inverse = (limit / norm - 1.0) / wide
    spare = complex_form(np.random.default_rng(0).normal(size=(gamma, 1, 4)))
    found = [np.zeros((0, gamma), dtype=np.intp)]
    for rows, prefixes in _cases(size):
        s = len(rows)
        present = parity[(2 * np.array(rows)[:, None] + np.arange(2)).ravel()]
        columns = present.reshape(2 * s, delta, 2).transpose(1, 0, 2)
        lost = np.array([delta + p for p in range(gamma) if p not in rows], dtype=np.intp)
        for start in range(0, len(prefixes), _CHUNK):
            some = prefixes[start : start + _CHUNK]
            matrices = np.empty((len(some), 2 * s, 2 * s), dtype=np.complex128)
            matrices[:, :, 2 * s - 2 :] = spare[: 2 * s]
            if s > 1:
                chosen = columns[some].transpose(0, 2, 1, 3)
                matrices[:, :, : 2 * s - 2] = chosen.reshape(len(some), 2 * s, 2 * s - 2)
            # The rows of the inverse that belong to the spare column are normal to the others;
            # one of the two is enough, the other is its mirror image.
            normal = np.linalg.inv(matrices)[:, 2 * s - 2]
            normal /= np.linalg.norm(normal, axis=1, keepdims=True)
            distance = (np.abs(normal @ present) ** 2).reshape(len(some), delta, 2).sum(axis=2)
            which, column = np.nonzero(distance <= s / inverse**2)
            new = ~(some[which] == column[:, None]).any(axis=1)
            which, column = which[new], column[new]
            if len(which):
                parts = [some[which], column[:, None], np.tile(lost, (len(which), 1))]
                losses = np.sort(np.concatenate(parts, axis=1).astype(np.intp), axis=1)
                losses = size.canonical(losses)
                found.append(losses[spectrum.conditions(losses) >= limit])
    return size.canonical(np.concatenate(found))


def _cases(size: Circulant) -> Iterator[tuple[tuple[int, ...], NDArray[np.int8]]]:
    """Yield sets of s parity rows and all sets of s − 1 columns, one for every turn."""
    gamma = size.gamma
    for s in range(1, gamma + 1):
        columns = _combinations(size.delta, s - 1)
        for rows in itertools.combinations(range(gamma), s):
            turned = [tuple(sorted((row + t) % gamma for row in rows)) for t in range(gamma)]
            if min(turned) != rows:
                continue
            keep = np.ones(len(columns), dtype=bool)
            for t in range(1, gamma):
                if turned[t] == rows and s > 1:
                    moved = columns // gamma * gamma + (columns + t) % gamma
                    keep &= _mask(columns) <= _mask(moved)
            yield rows, columns[keep]


def _mask(columns: NDArray[np.int8]) -> NDArray[np.int64]:
    return np.asarray((np.int64(1) << columns.astype(np.int64)).sum(axis=1))


def _combinations(n: int, k: int) -> NDArray[np.int8]:
    count = math.comb(n, k)
    flat = itertools.chain.from_iterable(itertools.combinations(range(n), k))
    return np.fromiter(flat, dtype=np.int8, count=count * k).reshape(count, k)
