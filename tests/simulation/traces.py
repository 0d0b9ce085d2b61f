"""How long tasks take: distributions from the literature on stragglers.

Shifted exponential: Lee, Lam, Pedarsani, Papailiopoulos and Ramchandran, "Speeding up
distributed machine learning using codes" (2018): a part of the time is fixed, the rest is
exponential. Heavy tail: Pareto, as in Ananthanarayanan and others, "Reining in the outliers in
map-reduce clusters" (2010), and Dean and Barroso, "The tail at scale" (2013). A draw depends
only on the task and the worker, so that all policies get the same times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from dask.typing import Key


class Times(Protocol):
    """Says how many times longer than nominal a task takes on a worker."""

    def __call__(self, key: Key, worker: str) -> float:
        """Return the factor; the same for the same task and worker."""
        ...


def draw(seed: int, key: Key, worker: str) -> float:
    """Return a number from 0 to 1, without 1, that depends on a task and a worker.

    >>> draw(1, "a", "w") == draw(1, "a", "w") != draw(2, "a", "w")
    True
    """
    digest = blake2b(f"{seed} {key} {worker}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


@dataclass(frozen=True)
class Steady:
    """Every task takes its nominal time on a worker of speed 1; ``speeds`` has other speeds."""

    speeds: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, key: Key, worker: str) -> float:
        """Return the reciprocal of the worker's speed."""
        return 1.0 / self.speeds.get(worker, 1.0)


@dataclass(frozen=True)
class SlowShares:
    """A fraction ``part`` of all shares takes ``factor`` times as long."""

    seed: int
    part: float = 0.1
    factor: float = 10.0

    def __call__(self, key: Key, worker: str) -> float:
        """Return ``factor`` for a slow one, else 1."""
        stage = key[0] if isinstance(key, tuple) else key
        is_share = isinstance(stage, str) and stage.startswith(("share-", "parity-"))
        return self.factor if is_share and draw(self.seed, key, worker) < self.part else 1.0


@dataclass(frozen=True)
class ShiftedExponential:
    """``certain`` times the nominal time, plus an exponential time of mean ``1 − certain``."""

    seed: int
    certain: float = 0.5

    def __call__(self, key: Key, worker: str) -> float:
        """Return the factor, 1 on average."""
        return self.certain - (1.0 - self.certain) * math.log1p(-draw(self.seed, key, worker))


@dataclass(frozen=True)
class HeavyTail:
    """Pareto with this ``index``, 1 on average, never above ``most``."""

    seed: int
    index: float = 2.0
    most: float = 100.0

    def __call__(self, key: Key, worker: str) -> float:
        """Return the factor."""
        rest = 1.0 - draw(self.seed, key, worker)
        factor = (1.0 - 1.0 / self.index) * math.exp(-math.log(rest) / self.index)
        return min(self.most, factor)
