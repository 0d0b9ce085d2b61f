"""Blocks through a cluster: a bounded number in flight, each by itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, cast

from dask._task_spec import GraphNode
from dask.typing import Key
from distributed import Client, Future, KilledWorker

from ..anyk.client_loop import ClientRun
from ..errors import ClusterLostError, full_line

DEADLY = 3
"""So many blocks that end their workers even by themselves are enough, if none was made."""

_Pending: TypeAlias = "Future[Any] | ClientRun"


@dataclass(frozen=True)
class BlockJob:
    """The whole graph of one block, and the key whose completion completes the block."""

    block: int
    tasks: dict[Key, GraphNode]
    key: Key


@dataclass(frozen=True)
class BlockOutcome:
    """A block that is finished; ``error`` is None where it succeeded."""

    block: int
    error: BaseException | None


Again: TypeAlias = Callable[[BlockJob, BaseException], BlockJob | None]
"""Says what is done in place of a job that failed; None if nothing is."""


def run_blocks(
    client: Client,
    blocks: Iterable[BlockJob],
    in_flight: int,
    tick: float,
    again: Again = lambda _job, _error: None,
    with_plugin: bool = True,
) -> Iterator[BlockOutcome | None]:
    """Run blocks, yielding each when it is finished and None when ``tick`` seconds bring none.

    Graphs are built when there is room for them, ``in_flight`` at a time: shares are bound to
    workers and so escape the scheduler's own queue. Earlier blocks come first. Results stay
    on the cluster and are let go as soon as a block is finished; what must last is written by
    its last task. Ending the iteration early gives up the blocks in flight.

    A block that fails stops no other. One whose workers died is tried again when all others
    are through, by itself: Dask blames a worker's death on everything that waited for it, and
    only alone is a block that kills its workers told from one that stood beside it. For one
    that fails otherwise, ``again`` may have something else to try.

    Where no block at all could be made, and ``DEADLY`` of them ended their workers even by
    themselves, the others are given up, and there is no outcome for them: what is too large
    for the workers is so in all of them, and every try costs several workers.

    Where the scheduler does not have the any-k plugin (``with_plugin``), a loop in this process
    takes every block through its layers (:mod:`.anyk.fallback`).

    Raises
    ------
    ClusterLostError
        If the scheduler went away.
    """
    run = _BlockRun(client, tick, again, _submitted if with_plugin else _taken_through)
    waiting = iter(blocks)
    suspects: list[BlockJob] = []
    yield from run.through(waiting, in_flight, suspects)
    while suspects:
        alone, suspects = suspects, []
        yield from run.through(iter(alone), 1, None)
        if run.is_futile:
            break
        yield from run.through(waiting, in_flight, suspects)


class _BlockRun:
    """Takes blocks through a cluster, and remembers what became of them."""

    def __init__(
        self,
        client: Client,
        tick: float,
        again: Again,
        send: Callable[[Client, BlockJob], _Pending],
    ) -> None:
        self._client = client
        self._tick = tick
        self._again = again
        self._send = send
        self._made = False
        self._ended_workers = 0

    @property
    def is_futile(self) -> bool:
        """Whether no block was made, and several ended their workers by themselves."""
        return not self._made and self._ended_workers >= DEADLY

    def through(
        self, waiting: Iterator[BlockJob], in_flight: int, suspects: list[BlockJob] | None
    ) -> Iterator[BlockOutcome | None]:
        """Run blocks; those whose workers died go to ``suspects``, where it is given.

        As long as none was made, no further ones are begun when there are suspects.
        """
        retried: deque[BlockJob] = deque()
        active: dict[int, tuple[BlockJob, _Pending]] = {}
        finished: SimpleQueue[int] = SimpleQueue()
        try:
            while True:
                held = self.is_futile or (bool(suspects) and not self._made)
                more = iter(()) if held else waiting
                for job in _next(retried, more, in_flight - len(active)):
                    future = self._send(self._client, job)
                    active[job.block] = job, future
                    future.add_done_callback(partial(_put, finished, job.block))
                if not active:
                    return
                try:
                    block = finished.get(timeout=self._tick)
                except Empty:
                    _check(self._client)
                    yield None
                else:
                    job, future = active.pop(block)
                    outcome = _outcome(block, future)
                    del future
                    yield self._judged(job, outcome, retried, suspects)
        finally:
            if self._client.status == "running":
                for _, future in active.values():
                    future.cancel()

    def _judged(
        self,
        job: BlockJob,
        outcome: BlockOutcome,
        retried: deque[BlockJob],
        suspects: list[BlockJob] | None,
    ) -> BlockOutcome | None:
        """Return what became of a block; None if it is done again, now or later."""
        error = outcome.error
        if error is None:
            self._made = True
            return outcome
        more = self._again(job, error)
        if more is not None:
            retried.append(more)
            return None
        if not isinstance(error, KilledWorker):
            return outcome
        if suspects is not None:
            suspects.append(job)
            return None
        self._ended_workers += 1
        return outcome


def _next(retried: deque[BlockJob], waiting: Iterator[BlockJob], count: int) -> Iterator[BlockJob]:
    """Yield up to so many jobs, first those that are done again."""
    for _ in range(count):
        if retried:
            yield retried.popleft()
        else:
            yield from islice(waiting, 1)


def _put(finished: SimpleQueue[int], block: int, _: object) -> None:
    """Note that a block has ended."""
    finished.put(block)


def _submitted(client: Client, job: BlockJob) -> Future[Any]:
    """Send a block's graph; earlier blocks come first."""
    future = client.get(job.tasks, job.key, sync=False, priority=-job.block)
    return cast("Future[Any]", future)


def _taken_through(client: Client, job: BlockJob) -> ClientRun:
    """Take a block through its layers from here; earlier blocks come first."""
    return ClientRun(client, job.tasks, job.key, -job.block)


def _outcome(block: int, future: _Pending) -> BlockOutcome:
    """Return how a block ended."""
    if future.status == "finished":
        return BlockOutcome(block, None)
    if future.status == "error":
        return BlockOutcome(block, cast("BaseException", future.exception()))
    raise ClusterLostError(
        f"block {block} was {future.status} before it was finished: the scheduler went away or "
        "somebody cancelled it; run again to continue"
    )


def reason(error: BaseException) -> str:
    """Return in one line why a block could not be made."""
    if isinstance(error, KilledWorker):
        return (
            f"KilledWorker: its task {error.task!r} ended every worker that it was given to, "
            f"{error.last_worker.address} the last; unless somebody else stopped them they ran "
            "out of memory: use a smaller --batch, or workers with more memory"
        )
    return full_line(error)


def _check(client: Client) -> None:
    """Notice a scheduler that is gone; nothing else would."""
    if client.status not in ("running", "connecting"):
        raise ClusterLostError(
            f"the connection to the scheduler is {client.status}; run again to continue when the "
            "scheduler is back"
        )
