"""Choosing survivors with their conditioning in mind.

- :func:`is_enough` decodes at δ shares when they are conditioned well, and otherwise asks
  for one more, which usually makes the condition number 3 to 10 times smaller;
- :func:`choose_survivors` picks from more than δ shares;
- :func:`spread_positions` gives shares to hosts so that what is lost together lies far
  apart.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import torch

from .code import Code
from .conditioning import condition_limit, condition_of
from .errors import NotDecodableError
from .spectrum import every_loss

__all__ = ["choose_survivors", "is_enough", "spread_positions"]

_EXHAUSTIVE = 512


def is_enough(
    code: Code,
    survivors: Iterable[int],
    dtype: torch.dtype,
    *,
    more_to_come: bool = True,
    limit: float | None = None,
) -> bool:
    """Return whether to decode from these shares now rather than wait for one more.

    Parameters
    ----------
    code
        The code.
    survivors
        The shares that are there.
    dtype
        Of the results.
    more_to_come
        Whether any other share may still arrive. If not, whatever decodes is enough.
    limit
        The condition number to accept; by default :func:`condition_limit`.
    """
    shares = set(survivors)
    if not code.is_decodable(shares):
        return False
    if not more_to_come or len(shares) == code.n:
        return True
    limit = condition_limit(dtype) if limit is None else limit
    return condition_of(code, shares) <= limit


def choose_survivors(
    code: Code, available: Iterable[int], dtype: torch.dtype = torch.float32
) -> tuple[int, ...]:
    """Return the shares to decode from: δ well conditioned ones, else all, by least squares.

    Shares that hold uncoded parts are always taken: they cost nothing to decode. Of the
    others as many as needed, chosen by condition number among all choices if there are few,
    else one by one.

    Raises
    ------
    NotDecodableError
        If the available shares do not decode.
    """
    shares = tuple(sorted(set(available)))
    if not code.is_decodable(shares):
        raise NotDecodableError(
            f"shares {list(shares)} of the {code.name} code with n = {code.n} do not decode; "
            f"expected {code.recovery_threshold} or more: wait for further shares"
        )
    if len(shares) == code.recovery_threshold:
        return shares
    uncoded = [share for share in shares if _is_uncoded(code, share)]
    coded = [share for share in shares if share not in uncoded]
    if not coded or (code.every_delta and len(uncoded) >= code.recovery_threshold):
        return tuple(uncoded)
    best = _best_choice(code, uncoded, coded)
    if condition_of(code, best) <= condition_limit(dtype):
        return best
    return shares if condition_of(code, shares) < condition_of(code, best) else best


def spread_positions(hosts: Sequence[Hashable]) -> tuple[int, ...]:
    """Return a position among the shares for every worker, those of one host far apart.

    Parameters
    ----------
    hosts
        The host, rack or zone of every worker: what fails together.

    Returns
    -------
    tuple of int
        A permutation of 0 … len(hosts) − 1. The m workers of a host get positions about
        len(hosts) / m apart.

    Examples
    --------
    Five racks of four:

    >>> spread_positions([w // 4 for w in range(20)])[:8]
    (0, 5, 10, 15, 1, 6, 11, 16)
    """
    names = list(dict.fromkeys(hosts))
    total = {name: list(hosts).count(name) for name in names}
    # Larger hosts first: a smaller one then fills the gaps.
    rank = {name: i for i, name in enumerate(sorted(names, key=lambda name: -total[name]))}
    seen = dict.fromkeys(names, 0)
    keys = []
    for worker, host in enumerate(hosts):
        keys.append(((seen[host] + rank[host] / len(names)) / total[host], rank[host], worker))
        seen[host] += 1
    positions = [0] * len(keys)
    for position, (_, _, worker) in enumerate(sorted(keys)):
        positions[worker] = position
    return tuple(positions)


def _best_choice(code: Code, uncoded: list[int], coded: list[int]) -> tuple[int, ...]:
    """Return the uncoded shares with the best of the coded ones, down to δ where it can."""
    needed = max(code.recovery_threshold - len(uncoded), 0)
    if code.every_delta and math.comb(len(coded), needed) <= _EXHAUSTIVE:
        choices = every_loss(len(coded), needed)
        sets = [tuple(sorted([*uncoded, *(coded[i] for i in choice)])) for choice in choices]
        return min(sets, key=lambda chosen: condition_of(code, chosen))
    current = list(coded)
    while len(current) > needed:
        trials = [[c for c in current if c != left_out] for left_out in current]
        decodable = [trial for trial in trials if code.is_decodable([*uncoded, *trial])]
        if not decodable:
            break
        current = min(decodable, key=lambda trial: condition_of(code, [*uncoded, *trial]))
    return tuple(sorted([*uncoded, *current]))


def _is_uncoded(code: Code, share: int) -> bool:
    matrix = code.share_matrices[share]
    return bool(np.count_nonzero(matrix) == len(matrix) and (matrix.max(axis=1) == 1.0).all())
