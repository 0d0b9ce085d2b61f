"""When an any-k node has enough. No Dask in here: the node and the state machine both ask it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, runtime_checkable


@runtime_checkable
class Readiness(Protocol):
    """Says whether the shares at some positions are enough. It must be picklable and pure."""

    def __call__(self, done: frozenset[int], /) -> bool:
        """Return whether the node can run with the shares at these positions."""
        ...


def is_ready(enough: int | Readiness, own: int | None, done: Collection[int]) -> bool:
    """Return whether a node can run with the shares at these positions.

    >>> is_ready(2, None, {0, 3}), is_ready(2, None, {3}), is_ready(2, 3, {3})
    (True, False, True)
    """
    if own is not None and own in done:
        return True
    if isinstance(enough, int):
        return len(done) >= enough
    return bool(enough(frozenset(done)))


def used(own: int | None, done: Collection[int]) -> frozenset[int]:
    """Return the positions that a ready node uses: its own share alone if it is there.

    >>> sorted(used(3, {0, 3})), sorted(used(None, {0, 3}))
    ([3], [0, 3])
    """
    if own is not None and own in done:
        return frozenset((own,))
    return frozenset(done)
