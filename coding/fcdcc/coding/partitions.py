"""The numbers of parts, k_a and k_b, with which a code has some n and δ."""

from __future__ import annotations

from typing import Literal

from .cost import Partition, crme_partitions
from .errors import CodeError
from .systematic import Parity, known_condition, quaternions_on_input

__all__ = ["code_partitions", "every_partition", "planned_parity", "systematic_partitions"]

_MAX_REALS = 4
"""Largest δ_r: the number of parts on the side of the real coefficients."""

_MAX_LOSSES_WITH_BOTH = 4
"""Above this γ only one side is split."""

MAX_CONDITION = 40.0
"""Splits of both sides are planned if their worst condition number is known to be at most this."""


def planned_parity(k_a: int, k_b: int) -> Literal["quaternion", "complex"]:
    """Return the parity of the systematic code that plans use for these numbers of parts.

    Complex if both numbers are even and quaternions would leave more parts to real coefficients
    than to quaternions; otherwise quaternion. Without a parity,
    :func:`fcdcc.coding.make_code` takes quaternions always.

    Examples
    --------
    >>> planned_parity(16, 4), planned_parity(8, 8), planned_parity(2, 8)
    ('quaternion', 'complex', 'quaternion')
    """
    coded, plain = max(k_a, k_b), min(k_a, k_b)
    if coded % 4:
        coded, plain = plain, coded
    even = k_a % 2 == k_b % 2 == 0
    return "complex" if even and coded % 4 == 0 and plain > coded // 4 else "quaternion"


def code_partitions(
    name: str, n: int, delta: int, parity: str | None = None
) -> tuple[Partition, ...]:
    """Return the partitions with which a code has n shares and recovery threshold δ.

    Parameters
    ----------
    name
        A name that :func:`fcdcc.coding.make_code` knows.
    n, delta
        Number of shares, and how many of any suffice. ``replication`` has γ + 1 copies of every
        part, with γ = n − δ, and needs n divisible by γ + 1; ``uncoded`` has δ = n.
    parity
        Of the systematic code; None stands for :func:`planned_parity` of each partition, which
        then has to be passed on with the partition's numbers of parts.

    Raises
    ------
    CodeError
        If the code has no partition for these numbers.

    Examples
    --------
    >>> [(k_a, k_b) for k_a, k_b, *_ in code_partitions("systematic", 6, 4)]
    [(1, 16), (2, 8), (4, 4), (8, 2), (16, 1)]
    >>> [(k_a, k_b) for k_a, k_b, *_ in code_partitions("replication", 6, 4)]
    [(1, 2), (2, 1)]
    """
    if not 1 <= delta <= n:
        raise CodeError(f"recovery threshold {delta} of n = {n} shares; expected 1 to n")
    if name == "systematic" and parity is None:
        return systematic_partitions(delta, n - delta)
    if name == "systematic" and parity == "quaternion":
        return tuple(p for p in _quaternion_partitions(delta) if _is_well_conditioned(p, n - delta))
    if name == "systematic" and parity == "complex":
        return tuple(p for p in crme_partitions(delta) if p.ell_a == p.ell_b == 2)
    if name in ("systematic", "crme"):
        return crme_partitions(delta)
    if name in ("polynomial", "chebyshev", "khatri-rao"):
        return _plain(delta)
    if name == "replication":
        copies = n - delta + 1
        if n % copies:
            raise CodeError(
                f"replication with n = {n} that tolerates {n - delta} losses has {copies} copies "
                f"of every part; expected n to be a multiple of {copies}"
            )
        return _plain(n // copies)
    if name == "uncoded":
        if delta != n:
            raise CodeError(f"uncoded with n = {n} and δ = {delta}; expected δ = n: no loss")
        return _plain(n)
    raise CodeError(f"no code is called {name!r}")


def every_partition(
    name: str, n: int, delta: int, parity: str | None = None
) -> tuple[Partition, ...]:
    """Return all partitions of a code for n and δ, the badly conditioned ones included.

    Arguments and errors are those of :func:`code_partitions`.

    Examples
    --------
    >>> [(k_a, k_b) for k_a, k_b, *_ in every_partition("systematic", 20, 16)]
    [(1, 64), (2, 32), (4, 16), (8, 8), (16, 4), (32, 2), (64, 1)]
    """
    usual = code_partitions(name, n, delta, parity)
    if name != "systematic" or parity is not None:
        return usual
    return _planned_partitions(delta)


def systematic_partitions(delta: int, gamma: int) -> tuple[Partition, ...]:
    """Return the partitions with :func:`planned_parity` that are well conditioned.

    All with one side whole are well conditioned. With quaternions there are 4 δ_q parts on one
    side and δ_r on the other, δ = δ_q δ_r. Conditioning gets worse with δ_r, so δ_r is at most 4:
    (20, 16) has a worst condition number of 23 with δ_r = 1, 27 with 2 and 34 with 4. Both sides
    are split only if γ is at most 4 and the worst condition number is known to be at most
    :data:`MAX_CONDITION`.
    """
    return tuple(p for p in _planned_partitions(delta) if _is_well_conditioned(p, gamma))


def _planned_partitions(delta: int) -> tuple[Partition, ...]:
    """Return every partition with the parity that plans use, ascending."""
    return tuple(
        Partition(k_a, k_b, 2, 2) if planned_parity(k_a, k_b) == "complex" else partition
        for partition in _quaternion_partitions(delta)
        for k_a, k_b in [partition[:2]]
    )


def _quaternion_partitions(delta: int) -> tuple[Partition, ...]:
    """Return every partition with quaternions on one side, ascending."""
    parts = 4 * delta
    pairs = ((k_a, parts // k_a) for k_a in range(1, parts + 1) if parts % k_a == 0)
    return tuple(
        Partition(k_a, k_b, *((4, 1) if quaternions_on_input(k_a, k_b) else (1, 4)))
        for k_a, k_b in pairs
        if k_a % 4 == 0 or k_b % 4 == 0
    )


def _is_well_conditioned(partition: Partition, gamma: int) -> bool:
    k_a, k_b, ell_a, ell_b = partition
    if min(k_a, k_b) == 1:
        return True
    if gamma > _MAX_LOSSES_WITH_BOTH or (ell_a != ell_b and min(k_a, k_b) > _MAX_REALS):
        return False
    parity: Parity = "complex" if ell_a == ell_b else "quaternion"
    return known_condition(k_a * k_b // 4 + gamma, k_a, k_b, parity) <= MAX_CONDITION


def _plain(parts: int) -> tuple[Partition, ...]:
    return tuple(Partition(k, parts // k, 1, 1) for k in range(1, parts + 1) if parts % k == 0)
