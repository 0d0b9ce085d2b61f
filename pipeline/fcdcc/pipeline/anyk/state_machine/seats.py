"""Which worker gets which seat of a block.

A seat is a place for the shares of one position, layer after layer. The shares of a group should
be on different workers, so that a lost worker loses only one of them. So every seat gets a worker
of its own while there are enough, and hosts have equally many seats as far as possible. Workers
that are busy with ghosts or do not answer come last. Among the others, a seat goes to the worker
that will finish its work first, by the work that it has and by its pace. The parity seats are
assigned last, and so go to the slowest. Every block begins at another worker, so that equal workers
take turns.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

EXTRA_SEAT_WEIGHT = 2
"""A further seat of the same block counts as this many additional seats' work for each seat of the
block that the worker has already."""


class _Addressed(Protocol):
    @property
    def address(self) -> str: ...

    @property
    def host(self) -> str: ...


_OnHost = TypeVar("_OnHost", bound=_Addressed)

_Burden: TypeAlias = tuple[int, int, int, float, int]


class Seatable(NamedTuple):
    """A worker that can be given seats.

    Parameters
    ----------
    avoid_rank
        Workers with a lower rank are preferred; 0 to 2.
    load
        Number of shares that it has yet to compute.
    pace
        How many times as long as usual it takes for a share.
    room
        How many seats of one block it may have before it counts as crowded: more than one if it is
        much faster than others.
    """

    address: str
    host: str
    avoid_rank: int = 0
    load: float = 0.0
    pace: float = 1.0
    room: int = 1


def interleave(workers: Iterable[_OnHost]) -> tuple[_OnHost, ...]:
    """Return the workers ordered so that neighbours are on different hosts where possible.

    >>> [w.address for w in interleave([Seatable("a1", "a"), Seatable("a2", "a"),
    ...                                 Seatable("b1", "b")])]
    ['a1', 'b1', 'a2']
    """
    ordered = sorted(workers, key=lambda worker: (worker.host, worker.address))
    met: Counter[str] = Counter()
    ranked: list[tuple[int, _OnHost]] = []
    for worker in ordered:
        ranked.append((met[worker.host], worker))
        met[worker.host] += 1
    return tuple(worker for _, worker in sorted(ranked, key=lambda pair: pair[0]))


def assign(
    seats: Collection[int],
    taken: Mapping[int, str],
    workers: tuple[Seatable, ...],
    rotation: int,
    parity: Collection[int] = (),
    shares: Mapping[int, int] | None = None,
) -> dict[int, str]:
    """Return the address for each seat; seats in ``taken`` stay where they are.

    Parameters
    ----------
    seats
        The seats to fill.
    taken
        Seats that are filled already, by addresses among the workers.
    workers
        The workers, in the order of :func:`interleave`. Without workers no seat is filled.
    rotation
        Index of the worker that seat 0 is given to if all workers are equal.
    parity
        Seats that are filled last.
    shares
        How many shares are to be computed at each seat; by default one.

    >>> workers = tuple(Seatable(name, name) for name in "abc")
    >>> assign(range(3), {}, workers, rotation=1)
    {0: 'b', 1: 'c', 2: 'a'}
    >>> assign(range(4), {3: "b"}, workers, rotation=0)
    {3: 'b', 0: 'a', 1: 'c', 2: 'a'}
    >>> fast, *slow = (Seatable(name, name, pace=pace) for name, pace in zip("abc", (1, 2, 4)))
    >>> assign(range(3), {}, (fast, *slow), rotation=2, parity=[0])
    {1: 'a', 2: 'b', 0: 'c'}
    """
    filled = dict(taken)
    if not workers:
        return filled
    seating = _Seating(workers, rotation, shares or {}, len(set(seats)))
    for seat, address in taken.items():
        seating.take(seat, address)
    for seat in sorted(set(seats) - filled.keys(), key=lambda seat: (seat in parity, seat)):
        filled[seat] = seating.best(seat)
    return filled


class _Seating:
    """The workers in a heap, the one with the least burden first."""

    def __init__(
        self, workers: tuple[Seatable, ...], rotation: int, shares: Mapping[int, int], seats: int
    ) -> None:
        self._workers = workers
        self._shares = shares
        self._most_shares = max(shares.values(), default=1)
        self._index = {worker.address: index for index, worker in enumerate(workers)}
        self._rotation = rotation
        self._load = [worker.load for worker in workers]
        self._seats = [0] * len(workers)
        self._on_host: Counter[str] = Counter()
        # The number of seats of a host if all hosts have equally many.
        self._host_share = -(-seats // len({worker.host for worker in workers}))
        self._heap: list[_Burden] = []

    def _burden(self, index: int) -> _Burden:
        worker = self._workers[index]
        crowd = max(0, self._seats[index] + 1 - worker.room)
        crowded_host = max(0, self._on_host[worker.host] + 1 - max(worker.room, self._host_share))
        extra = EXTRA_SEAT_WEIGHT * self._seats[index]
        finish = (self._load[index] + self._most_shares * (1 + extra)) * worker.pace
        turn = (index - self._rotation) % len(self._workers)
        return crowd, worker.avoid_rank, crowded_host, finish, turn

    def take(self, seat: int, address: str) -> None:
        """Note that a worker has a seat. Call it before :meth:`best`."""
        index = self._index.get(address)
        if index is not None:
            self._give(seat, index)

    def _give(self, seat: int, index: int) -> None:
        self._seats[index] += 1
        self._load[index] += self._shares.get(seat, 1)
        self._on_host[self._workers[index].host] += 1

    def best(self, seat: int) -> str:
        """Give a seat to the worker with the least burden, and return its address.

        Burdens only grow, so one that is out of date when it comes first is put back.
        """
        if not self._heap:
            self._heap = [self._burden(index) for index in range(len(self._workers))]
            heapq.heapify(self._heap)
        while True:
            known = self._heap[0]
            index = (known[-1] + self._rotation) % len(self._workers)
            now = self._burden(index)
            if now > known:
                heapq.heapreplace(self._heap, now)
                continue
            self._give(seat, index)
            heapq.heapreplace(self._heap, self._burden(index))
            return self._workers[index].address


def shares_held(holders: int, of: int, shares: int) -> int:
    """Return how many shares are held by those of some workers, or machines, that hold most.

    >>> shares_held(2, of=5, shares=6), shares_held(1, of=2, shares=6)
    (3, 3)
    """
    each, more = divmod(shares, of)
    return holders * each + min(holders, more)


def most_lost(holders: int, shares: int, spare: int) -> int:
    """Return the most workers, or machines, that hold no more than γ (``spare``) shares together.

    >>> [most_lost(workers, shares=6, spare=2) for workers in (12, 6, 5, 3, 2, 0)]
    [2, 2, 1, 1, 0, 0]
    """
    losses = range(1, min(holders, spare) + 1)
    return sum(shares_held(lost, holders, shares) <= spare for lost in losses)
