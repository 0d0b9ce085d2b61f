"""What the tables of parity coefficients have in common: reading, rounding, choosing by a search.

A table holds the coefficients of the parity of a systematic code. :mod:`.parity_quaternion` and
:mod:`.parity_complex` say what they are. The shipped tables are files in ``data``, found by
``benchmarks/optimise_parity.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .spectrum import Spectrum, contiguous_losses

__all__ = [
    "SEEDS",
    "UNIT",
    "Method",
    "Source",
    "best_of_seeds",
    "read_table",
    "rounded",
    "shipped_names",
    "shipped_names_for",
]

Float64Array = NDArray[np.float64]

UNIT = 2.0**-16
"""Coefficients are integer multiples of this, exact in float32; the files hold the integers."""

SEEDS = 8
"""Number of seeds that are tried where no table is shipped."""

Method = Literal["all", "search", "none"]
"""How the worst condition number of a table was measured."""

Source = Literal["shipped", "cut", "seeded", "formula"]
"""Origin of the coefficients of a table."""

_NAME = re.compile(r"([a-z]+)-(\d+)-(\d+)-(\d+)\.json")


class HasSpectrum(Protocol):
    """A table that knows the condition numbers of its code."""

    def spectrum(self) -> Spectrum:
        """Return the condition numbers of the systematic code with this parity."""
        ...


Table = TypeVar("Table", bound=HasSpectrum)


@cache
def shipped_names(kind: str) -> tuple[tuple[int, int, int], ...]:
    """Return γ and the parts of both sides for every shipped table of a kind."""
    names = (
        _NAME.fullmatch(entry.name) for entry in files("fcdcc.coding").joinpath("data").iterdir()
    )
    found = [match.groups() for match in names if match]
    return tuple(sorted((int(gamma), int(a), int(b)) for of, gamma, a, b in found if of == kind))


def shipped_names_for(kind: str, size: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    """Return the names of the shipped tables that are of a size, or that can be cut to it.

    ``size`` is γ and the parts of both sides.
    """
    return tuple(
        name
        for name in shipped_names(kind)
        if all(there >= wanted for there, wanted in zip(name, size, strict=True))
    )


def read_table(kind: str, name: tuple[int, int, int]) -> dict[str, Any]:
    """Return what the file of a shipped table holds."""
    file = files("fcdcc.coding").joinpath("data", "{}-{}-{}-{}.json".format(kind, *name))
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return stored


def rounded(values: Float64Array) -> Float64Array:
    """Return values rounded to multiples of :data:`UNIT`."""
    return np.asarray(np.round(values / UNIT) * UNIT, dtype=np.float64)


def best_of_seeds(candidates: Sequence[Table], gamma: int, n: int) -> Table:
    """Return the first of the tables whose worst loss in a short search is best.

    Parameters
    ----------
    candidates
        At least one table, all for n shares of which γ hold parity.
    gamma, n
        γ and the number of shares.
    """
    if gamma == 0:
        return candidates[0]
    rng = np.random.default_rng(0)
    sampled = np.sort(np.argsort(rng.random((24, n)), axis=1)[:, :gamma], axis=1)
    losses = np.concatenate([contiguous_losses(n, gamma), sampled])

    def worst(table: Table) -> float:
        spectrum = table.spectrum()
        return float(spectrum.conditions(spectrum.worsen(losses, steps=6)).max())

    return min(candidates, key=worst)
