"""Blocks through a cluster: a bounded number in flight, each by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from dask._task_spec import GraphNode
from dask.typing import Key
from distributed import Client, Future

from .errors import ClusterError

__all__ = ["BlockJob", "Outcome", "run_blocks"]


@dataclass(frozen=True)
class BlockJob:
    """The whole graph of one block, and the key whose completion completes the block."""

    block: int
    tasks: dict[Key, GraphNode]
    key: Key


@dataclass(frozen=True)
class Outcome:
    """A block that is finished; ``error`` is None where it succeeded."""

    block: int
    error: BaseException | None


def run_blocks(
    client: Client, blocks: Iterable[BlockJob], in_flight: int, tick: float
) -> Iterator[Outcome | None]:
    """Run blocks, yielding each when it is finished and None when ``tick`` seconds bring none.

    Graphs are built when there is room for them, ``in_flight`` at a time: shares are bound to
    workers and so escape the scheduler's own queue. Earlier blocks come first. Results stay
    on the cluster and are let go as soon as a block is finished; what must last is written by
    its last task. Ending the iteration early gives up the blocks in flight.

    Raises
    ------
    ClusterError
        If the scheduler went away.
    """
    waiting = iter(blocks)
    active: dict[int, Future[Any]] = {}
    finished: SimpleQueue[int] = SimpleQueue()
    try:
        while True:
            for job in islice(waiting, in_flight - len(active)):
                future = client.get(job.tasks, job.key, sync=False, priority=-job.block)
                active[job.block] = future
                future.add_done_callback(lambda _, block=job.block: finished.put(block))
            if not active:
                return
            try:
                block = finished.get(timeout=tick)
            except Empty:
                _check(client)
                yield None
            else:
                yield _outcome(block, active.pop(block))
    finally:
        for future in active.values():
            future.cancel()


def _outcome(block: int, future: Future[Any]) -> Outcome:
    """Return how a block ended."""
    if future.status == "finished":
        return Outcome(block, None)
    if future.status == "error":
        return Outcome(block, future.exception())
    raise ClusterError(
        f"block {block} was {future.status} before it was finished: the scheduler went away or "
        "somebody cancelled it; run again to continue"
    )


def _check(client: Client) -> None:
    """Notice a scheduler that is gone; nothing else would."""
    if client.status not in ("running", "connecting"):
        raise ClusterError(
            f"the connection to the scheduler is {client.status}; run again to continue when the "
            "scheduler is back"
        )
