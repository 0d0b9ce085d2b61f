"""The numbers of parts, k_a and k_b, with which a code has some n and δ."""

from __future__ import annotations

from .cost import Partition, crme_partitions
from .errors import CodeError

__all__ = ["code_partitions", "systematic_partitions"]

_MAX_REALS = 4
"""Largest δ_r: the number of parts on the side of the real coefficients."""

_MAX_LOSSES_WITH_REALS = 4
"""Above this γ, δ_r is 1."""


def code_partitions(
    name: str, n: int, delta: int, parity: str = "quaternion"
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
        Of the systematic code.

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
    if name == "systematic" and parity == "quaternion":
        return systematic_partitions(delta, n - delta)
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


def systematic_partitions(delta: int, gamma: int) -> tuple[Partition, ...]:
    """Return the partitions of the quaternion parity that are well conditioned.

    There are 4 δ_q parts on the side of the quaternions, and δ_r on the other, δ = δ_q δ_r.
    Conditioning gets worse with δ_r, so δ_r is at most 4, and 1 if γ exceeds 4: (20, 16) has a
    worst condition number of 23 with δ_r = 1, 27 with 2, 34 with 4 and 183 with 8.
    """
    found = set()
    for reals in range(1, _MAX_REALS + 1 if gamma <= _MAX_LOSSES_WITH_REALS else 2):
        if delta % reals:
            continue
        coded = 4 * (delta // reals)
        # If both numbers are multiples of four, the quaternions are on the larger side.
        if reals % 4 or coded >= reals:
            found.add(Partition(coded, reals, 4, 1))
        if reals % 4 or coded > reals:
            found.add(Partition(reals, coded, 1, 4))
    return tuple(sorted(found))


def _plain(parts: int) -> tuple[Partition, ...]:
    return tuple(Partition(k, parts // k, 1, 1) for k in range(1, parts + 1) if parts % k == 0)
