"""Which worker gets which seat of a block.

The shares of a group must not sit together, or one lost worker takes several of them along;
so every seat gets a worker of its own while there are enough, and a host of its own before
that. Workers that are busy with ghosts or do not answer come last, which gives them the
last positions: the parity, where the code is systematic. Every block begins at another
worker, so that no worker always has the same position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Seatable", "assign", "interleave"]


@dataclass(frozen=True)
class Seatable:
    """A worker that can be given seats.

    ``avoided`` if others are to be preferred for now, ``slow`` if it is slower than others.
    """

    address: str
    host: str
    avoided: bool = False
    slow: bool = False


def interleave(workers: Iterable[Seatable]) -> tuple[Seatable, ...]:
    """Return the workers ordered so that neighbours are on different hosts where possible.

    >>> [w.address for w in interleave([Seatable("a1", "a"), Seatable("a2", "a"),
    ...                                 Seatable("b1", "b")])]
    ['a1', 'b1', 'a2']
    """
    ordered = sorted(workers, key=lambda worker: (worker.host, worker.address))
    met: Counter[str] = Counter()
    ranked: list[tuple[int, Seatable]] = []
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

    >>> workers = tuple(Seatable(name, name) for name in "abc")
    >>> assign(range(3), {}, workers, rotation=1)
    {0: 'b', 1: 'c', 2: 'a'}
    >>> assign(range(4), {3: "b"}, workers, rotation=0)
    {3: 'b', 0: 'a', 1: 'c', 2: 'c'}
    """
    filled = dict(taken)
    if not workers:
        return filled
    hosts = {worker.address: worker.host for worker in workers}
    on_worker = Counter(filled.values())
    on_host = Counter(hosts[address] for address in filled.values())
    for seat in sorted(set(seats) - filled.keys(), key=lambda seat: (seat in parity, seat)):
        first = (seat + rotation) % len(workers)

        def burden(index: int, first: int = first) -> tuple[int, bool, bool, int, int]:
            worker = workers[index]
            distance = (index - first) % len(workers)
            taken = on_worker[worker.address]
            return taken, worker.avoided, worker.slow, on_host[worker.host], distance

        chosen = workers[min(range(len(workers)), key=burden)]
        filled[seat] = chosen.address
        on_worker[chosen.address] += 1
        on_host[chosen.host] += 1
    return filled
