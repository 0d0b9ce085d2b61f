"""Which worker gets which seat of a block.

The shares of a group must not sit together, or one lost worker takes several of them along;
so every seat gets a worker of its own while there are enough, and a host of its own before
that. Workers that are busy with ghosts or do not answer come last. Among the others, a seat goes
where its work will be finished first: to whoever has least to do, measured by how fast it is.
The parity sits where nobody else wants to: where the code is systematic, with the slowest. Every
block begins at another worker, so that equals take turns.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

TOGETHER = 2
"""A fast worker is given another seat of a block as if it had so many seats' work more to do."""


class _Addressed(Protocol):
    @property
    def address(self) -> str: ...

    @property
    def host(self) -> str: ...


_OnHost = TypeVar("_OnHost", bound=_Addressed)

_Burden: TypeAlias = tuple[int, int, int, float, int]


class Seatable(NamedTuple):
    """A worker that can be given seats.

    ``avoided`` is how much others are to be preferred for now; ``load`` is how many shares it
    has yet to compute, ``pace`` how many times longer than usual one takes it, ``room`` how many
    seats of one block it may have before it counts as crowded: several, if it is much faster than
    others.
    """

    address: str
    host: str
    avoided: int = 0
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
        In the order of :func:`interleave`; none gives no seats.
    rotation
        At which worker seat 0 would like to be.
    parity
        Seats that choose last.
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
    places = _Places(workers, rotation, shares or {}, len(set(seats)))
    for seat, address in taken.items():
        places.take(seat, address)
    for seat in sorted(set(seats) - filled.keys(), key=lambda seat: (seat in parity, seat)):
        filled[seat] = places.best(seat)
    return filled


class _Places:
    """The workers, the one with the least burden first."""

    def __init__(
        self, workers: tuple[Seatable, ...], rotation: int, shares: Mapping[int, int], seats: int
    ) -> None:
        self._workers = workers
        self._shares = shares
        self._more = max(shares.values(), default=1)
        self._index = {worker.address: index for index, worker in enumerate(workers)}
        self._turn = rotation
        self._load = [worker.load for worker in workers]
        self._seats = [0] * len(workers)
        self._on_host: Counter[str] = Counter()
        # What a host must have where all have equally many.
        self._fair = -(-seats // len({worker.host for worker in workers}))
        self._heap: list[_Burden] = []

    def _burden(self, index: int) -> _Burden:
        worker = self._workers[index]
        crowd = max(0, self._seats[index] + 1 - worker.room)
        crowded_host = max(0, self._on_host[worker.host] + 1 - max(worker.room, self._fair))
        another = TOGETHER * self._seats[index]
        finish = (self._load[index] + self._more * (1 + another)) * worker.pace
        turn = (index - self._turn) % len(self._workers)
        return crowd, worker.avoided, crowded_host, finish, turn

    def take(self, seat: int, address: str) -> None:
        """Note that a seat is with a worker; before anybody is chosen."""
        index = self._index.get(address)
        if index is not None:
            self._give(seat, index)

    def _give(self, seat: int, index: int) -> None:
        self._seats[index] += 1
        self._load[index] += self._shares.get(seat, 1)
        self._on_host[self._workers[index].host] += 1

    def best(self, seat: int) -> str:
        """Choose a worker for a seat.

        Burdens only grow, so one that is out of date when it comes up is put back.
        """
        if not self._heap:
            self._heap = [self._burden(index) for index in range(len(self._workers))]
            heapq.heapify(self._heap)
        while True:
            known = self._heap[0]
            index = (known[-1] + self._turn) % len(self._workers)
            now = self._burden(index)
            if now > known:
                heapq.heapreplace(self._heap, now)
                continue
            self._give(seat, index)
            heapq.heapreplace(self._heap, self._burden(index))
            return self._workers[index].address
