"""Which numbers of parts a code of some n and δ has."""

from __future__ import annotations

from .cost import Partition, crme_partitions
from .errors import CodeError

__all__ = ["code_partitions", "systematic_partitions"]

_MOST_REALS = 4
_FEW_LOSSES = 4


def code_partitions(
    name: str, n: int, delta: int, parity: str = "quaternion"
) -> tuple[Partition, ...]:
    """Return the partitions with which a code has n shares and recovery threshold δ.

    Parameters
    ----------
    name
        A name that :func:`fcdcc.coding.make_code` knows.
    n, delta
        Shares, and how many of any suffice. ``replication`` keeps γ + 1 copies of every part,
        with γ = n − δ, and needs n divisible by that; ``uncoded`` has δ = n.
    parity
        Of the systematic code.

    Raises
    ------
    CodeError
        If the code has none for these numbers.

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
    """Return the partitions of the quaternion parity that are worth having.

    Four parts for each of the δ_q on the side of the quaternions, and δ_r on the other,
    δ = δ_q δ_r. The reals are what makes conditioning worse: δ_r is at most 4, and 1 where
    γ exceeds 4. (20, 16) has a worst condition number of 23 with δ_r = 1, 27 with 2, 34 with
    4 and 183 with 8.
    """
    found = set()
    for reals in range(1, _MOST_REALS + 1 if gamma <= _FEW_LOSSES else 2):
        if delta % reals:
            continue
        coded = 4 * (delta // reals)
        # Where both numbers are multiples of four the larger one has the quaternions.
        if reals % 4 or coded >= reals:
            found.add(Partition(coded, reals, 4, 1))
        if reals % 4 or coded > reals:
            found.add(Partition(reals, coded, 1, 4))
    return tuple(sorted(found))


def _plain(parts: int) -> tuple[Partition, ...]:
    return tuple(Partition(k, parts // k, 1, 1) for k in range(1, parts + 1) if parts % k == 0)
