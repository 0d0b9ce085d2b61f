"""Codes by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache

from .code import Code
from .comparators import chebyshev, khatri_rao, polynomial, replication, uncoded
from .crme import crme
from .errors import CodeError
from .systematic import systematic

__all__ = ["BUILDERS", "code_names", "make_code"]

BUILDERS: dict[str, Callable[..., Code]] = {
    "systematic": systematic,
    "crme": crme,
    "polynomial": polynomial,
    "chebyshev": chebyshev,
    "khatri-rao": khatri_rao,
    "replication": replication,
    "uncoded": uncoded,
}
"""Functions that build codes, by name; each takes n, k_a, k_b and its own options."""


def code_names() -> tuple[str, ...]:
    """Return the names of all codes.

    Examples
    --------
    >>> "systematic" in code_names()
    True
    """
    return tuple(sorted(BUILDERS))


def make_code(name: str, *, n: int, k_a: int, k_b: int, **options: object) -> Code:
    """Return a code by its name; cached by the arguments.

    Parameters
    ----------
    name
        One of :func:`code_names`.
    n
        Number of shares.
    k_a, k_b
        Numbers of input parts and of filter parts.
    options
        Options of this code, such as ``q`` of the CRME.

    Raises
    ------
    CodeError
        If there is no such code, or none with these parameters.

    Examples
    --------
    >>> code = make_code("crme", n=20, k_a=8, k_b=8)
    >>> code.recovery_threshold, code.tolerance
    (16, 4)
    """
    builder = BUILDERS.get(name)
    if builder is None:
        raise CodeError(f"no code is called {name!r}; expected one of {', '.join(code_names())}")
    for label, value in (("n", n), ("k_a", k_a), ("k_b", k_b)):
        if not isinstance(value, int) or value < 1:
            raise CodeError(f"{label} = {value!r}; expected a positive integer")
    try:
        inspect.signature(builder).bind(n=n, k_a=k_a, k_b=k_b, **options)
    except TypeError as error:
        known = [p for p in inspect.signature(builder).parameters if p not in ("n", "k_a", "k_b")]
        raise CodeError(
            f"{name} with options {sorted(options)}: {error}; it has "
            f"{', '.join(known) if known else 'no options'}"
        ) from None
    return _build(builder, n, k_a, k_b, tuple(sorted(options.items())))


@lru_cache(maxsize=512)
def _build(
    builder: Callable[..., Code],
    n: int,
    k_a: int,
    k_b: int,
    options: tuple[tuple[str, object], ...],
) -> Code:
    return builder(n=n, k_a=k_a, k_b=k_b, **dict(options))
