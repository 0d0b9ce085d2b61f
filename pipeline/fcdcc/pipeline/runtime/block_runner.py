"""Run the graphs of blocks on a cluster: a bounded number in flight, each on its own."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, cast

from dask._task_spec import GraphNode
from dask.typing import Key
from distributed import Client, Future, KilledWorker

from ..anyk.client_loop import ClientRun
from ..anyk.keys import name_in_words, parse_key, step_in_words
from ..errors import ClusterLostError, full_line

MAX_DEADLY_BLOCKS = 3
"""Blocks that killed their workers even when run alone, after which a run without a single
finished block gives up the others."""

_Pending: TypeAlias = "Future[Any] | ClientRun"


@dataclass(frozen=True)
class BlockJob:
    """The whole graph of one block, and the key whose completion completes the block.

    ``kept`` are tasks that are in the graph of the next block, too, whose results are kept until
    that is sent; None if what the block before it kept is still needed.
    """

    block: int
    tasks: dict[Key, GraphNode]
    key: Key
    kept: tuple[Key, ...] | None = ()


@dataclass(frozen=True)
class BlockOutcome:
    """A block that has ended; ``error`` is None where it succeeded.

    ``attempts`` is how often the block was sent to the cluster.
    """

    block: int
    error: BaseException | None
    attempts: int = 1


Retry: TypeAlias = Callable[[BlockJob, BaseException], BlockJob | None]
"""Returns the job that replaces a failed one; None if the block has failed for good."""


def run_blocks(
    client: Client,
    blocks: Iterable[BlockJob],
    in_flight: int,
    poll_seconds: float,
    retry: Retry = lambda _job, _error: None,
    with_plugin: bool = True,
) -> Generator[BlockOutcome | None, None, None]:
    """Run blocks; yield each that has ended, and None after ``poll_seconds`` without any.

    A block's graph is built when there is room for it, ``in_flight`` at a time: Dask's own
    queue on the scheduler does not hold back shares, because they are bound to workers. Earlier
    blocks have priority. Results stay on the cluster and are released as soon as their block has
    ended; the last task of a block writes what must last. Closing the generator early cancels
    the blocks in flight.

    A block that fails does not stop the others. ``retry`` may return another job for it. A
    block whose workers died runs once more, alone, after all others: Dask blames the death of a
    worker on every task that waited for it, and only a block that runs alone shows whether it
    kills its workers or happened to run beside one that does.

    If no block at all has succeeded and ``MAX_DEADLY_BLOCKS`` of them killed their workers even
    when run alone, the remaining blocks are given up and yield no outcome: a block that is too
    large for the workers is as large as every other, and each attempt costs several workers.

    Without the any-k plugin on the scheduler (``with_plugin`` is false), a loop in this process
    takes each block through its layers (:mod:`fcdcc.pipeline.anyk.client_loop`).

    Raises
    ------
    ClusterLostError
        If the scheduler went away.
    """
    runner = _BlockRunner(client, poll_seconds, retry, _submit if with_plugin else _run_from_client)
    waiting = iter(blocks)
    suspects: list[BlockJob] = []
    yield from runner.run(waiting, in_flight, suspects)
    while suspects:
        alone, suspects = suspects, []
        yield from runner.run(iter(alone), 1, None)
        if runner.is_futile:
            break
        yield from runner.run(waiting, in_flight, suspects)


class _BlockRunner:
    """Runs blocks and remembers whether any succeeded and how many killed their workers."""

    def __init__(
        self,
        client: Client,
        poll_seconds: float,
        retry: Retry,
        send: Callable[[Client, BlockJob], tuple[_Pending, list[Future[Any]]]],
    ) -> None:
        self._client = client
        self._poll_seconds = poll_seconds
        self._retry = retry
        self._send = send
        self._kept: list[Future[Any]] = []
        self._attempts: Counter[int] = Counter()
        self._any_succeeded = False
        self._deadly_blocks = 0

    @property
    def is_futile(self) -> bool:
        """Whether no block has succeeded and several killed their workers when run alone."""
        return not self._any_succeeded and self._deadly_blocks >= MAX_DEADLY_BLOCKS

    def run(
        self, waiting: Iterator[BlockJob], in_flight: int, suspects: list[BlockJob] | None
    ) -> Iterator[BlockOutcome | None]:
        """Run blocks; append those whose workers died to ``suspects``, unless it is None.

        While there are suspects and no block has succeeded yet, no further blocks start.
        """
        retries: deque[BlockJob] = deque()
        active: dict[int, tuple[BlockJob, _Pending]] = {}
        ended: SimpleQueue[int] = SimpleQueue()
        try:
            while True:
                on_hold = self.is_futile or (bool(suspects) and not self._any_succeeded)
                new = iter(()) if on_hold else waiting
                for job in _next_jobs(retries, new, in_flight - len(active)):
                    future, kept = self._send(self._client, job)
                    self._attempts[job.block] += 1
                    self._kept = self._kept if job.kept is None else kept
                    active[job.block] = job, future
                    future.add_done_callback(partial(_enqueue, ended, job.block))
                if not active:
                    self._kept = []
                    return
                try:
                    block = ended.get(timeout=self._poll_seconds)
                except Empty:
                    _check_connection(self._client)
                    yield None
                else:
                    job, future = active.pop(block)
                    outcome = _outcome(block, future, self._attempts[block])
                    del future
                    yield self._final_outcome(job, outcome, retries, suspects)
        finally:
            if self._client.status == "running":
                for _, future in active.values():
                    future.cancel()

    def _final_outcome(
        self,
        job: BlockJob,
        outcome: BlockOutcome,
        retries: deque[BlockJob],
        suspects: list[BlockJob] | None,
    ) -> BlockOutcome | None:
        """Return the outcome of a block; None if the block runs again, now or later."""
        error = outcome.error
        if error is None:
            del self._attempts[job.block]
            self._any_succeeded = True
            return outcome
        replacement = self._retry(job, error)
        if replacement is not None:
            retries.append(replacement)
            return None
        if not isinstance(error, KilledWorker):
            return outcome
        if suspects is not None:
            suspects.append(job)
            return None
        self._deadly_blocks += 1
        return outcome


def _next_jobs(
    retries: deque[BlockJob], waiting: Iterator[BlockJob], count: int
) -> Iterator[BlockJob]:
    """Yield up to ``count`` jobs, retries first; ``count`` may be far more than there are."""
    for _ in range(count):
        job = retries.popleft() if retries else next(waiting, None)
        if job is None:
            return
        yield job


def _enqueue(ended: SimpleQueue[int], block: int, _: object) -> None:
    ended.put(block)


def _submit(client: Client, job: BlockJob) -> tuple[Future[Any], list[Future[Any]]]:
    """Send the whole graph of a block to the scheduler; earlier blocks have priority.

    The futures are those of the block and of the tasks whose results are kept.
    """
    keys = [job.key, *(job.kept or ())]
    futures = client.get(job.tasks, keys, sync=False, priority=-job.block)
    future, *kept = cast("list[Future[Any]]", futures)
    return future, kept


def _run_from_client(client: Client, job: BlockJob) -> tuple[ClientRun, list[Future[Any]]]:
    """Take a block through its layers from this process; earlier blocks have priority."""
    return ClientRun(client, job.tasks, job.key, -job.block), []


def _outcome(block: int, future: _Pending, attempts: int) -> BlockOutcome:
    """Return how a block ended.

    Raises
    ------
    ClusterLostError
        If it was cancelled or lost.
    """
    if future.status == "finished":
        return BlockOutcome(block, None, attempts)
    if future.status == "error":
        return BlockOutcome(block, cast("BaseException", future.exception()), attempts)
    raise ClusterLostError(
        f"block {block} was {future.status} before it was finished: the scheduler went away, or "
        "another client cancelled the block; run again to continue"
    )


def failure_reason(error: BaseException) -> str:
    """Return in one line why a block failed."""
    if isinstance(error, KilledWorker):
        return (
            f"KilledWorker: {_named(error.task)} killed every worker that ran it, "
            f"{error.last_worker.address} the last; unless these workers were stopped on purpose, "
            "they ran out of memory: use a smaller --batch, or workers with more memory"
        )
    return full_line(error)


def _named(key: object) -> str:
    """Return what a task is called, in words if its key is one of ours."""
    known = parse_key(key)
    if known is None:
        return f"its task {key!r}"
    name = name_in_words(known.stage, known.layer, known.position)
    return f"its task '{name}' ({step_in_words(known.stage, known.layer)})"


def _check_connection(client: Client) -> None:
    """Raise ClusterLostError if the connection to the scheduler is closed.

    Futures of a lost scheduler may stay pending for ever, so this is the only sign of it.
    """
    if client.status not in ("running", "connecting"):
        raise ClusterLostError(
            f"the connection to the scheduler is {client.status}; run again to continue when the "
            "scheduler is back"
        )
