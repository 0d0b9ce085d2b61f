"""Whether the first slices of a slow worker's share are worth using.

A share is done in four slices. Were every slice a code of its own (any δ of the n workers' results
of that slice), and did worker w begin with slice w mod 4, what a slow worker has done before the
others are through would count. The time of a layer, whole shares against slices, when the time of
a worker's share is drawn as in ``simulate.py`` or is ten times as long for two workers.

    python benchmarks/partial.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SLICES, DRAWS = 4, 20_000
Array = NDArray[np.float64]


def whole(times: Array, delta: int) -> Array:
    """Return when any δ shares are there: (draws,) from the shares' times (draws, n)."""
    return np.partition(times, delta - 1, axis=1)[:, delta - 1]


def sliced(times: Array, delta: int) -> Array:
    """Return when every slice is there from any δ workers, each in an order of its own."""
    n = times.shape[1]
    place = (np.arange(SLICES)[None] - np.arange(n)[:, None]) % SLICES + 1
    there = times[:, :, None] * place[None] / SLICES
    return np.partition(there, delta - 1, axis=1)[:, delta - 1].max(axis=1)


def slow_workers(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return 1 for all but two workers, which take ten times as long."""
    times = random.normal(1.0, 0.05, shape)
    times[:, :2] *= 10.0
    return times


DRAWN: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "shifted exponential": lambda random, shape: 0.5 + random.exponential(0.5, shape),
    "heavy tail": lambda random, shape: np.minimum(100.0, 0.5 + 0.5 * random.pareto(2.0, shape)),
    "two slow workers": slow_workers,
}


def main() -> None:
    """Draw and print."""
    random = np.random.default_rng(0)
    print("times of slices relative to whole shares: mean, 99th percentile")
    for n, delta in ((6, 4), (6, 5), (12, 10), (20, 16), (20, 18)):
        for name, drawn in DRAWN.items():
            times = drawn(random, (DRAWS, n))
            before, after = whole(times, delta), sliced(times, delta)
            tail = np.quantile(after, 0.99) / np.quantile(before, 0.99)
            print(f"  {n:2}, {delta:2}  {name:<20} {after.mean() / before.mean():5.2f} {tail:5.2f}")


if __name__ == "__main__":
    main()
