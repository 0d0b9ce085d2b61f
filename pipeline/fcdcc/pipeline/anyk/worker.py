"""What a task does on its worker: check whether it is still needed, and report wrong shares.

A share that was given up goes on running, because Dask cannot stop a thread, and its worker has
less room for others meanwhile: it is a *ghost*. A share that is computed in slices can end early:
between two slices it checks whether it is still needed, and stops if not (:func:`wanted`).

The worker knows it: when the scheduler takes a running task back, the worker marks it as cancelled.
The check reads two attributes, which is safe from the task's thread and takes well under a
microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from dask.context import thread_state
from distributed import Reschedule, get_worker

from fcdcc.coding.errors import Abandoned
from fcdcc.pipeline.anyk.keys import ATTEMPT_STRIDE, parse_key

from .state_machine.events import SharesReported

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed import Worker


TOPIC = "fcdcc-shares"
"""Topic of the scheduler's event log under which shares are reported."""

READY = "fcdcc-ready"
"""Name of the heartbeat metric of a worker that has loaded what its tasks need: it has no reason to
be silent any more."""

ShareProblem: TypeAlias = Literal["corrupt-share", "failed-check", "mismatch", "not-finite"]
"""A share is wrong; what a worker computed for a share, or between shares, fails its checksum;
shares contradict each other, and it is not known which of them is wrong; a share holds NaN or
infinity."""

MAX_NOTICE_SHARES = 4096
"""Number of shares that one notice names at most."""


def worker_address() -> str:
    """Return the address of the worker that runs the calling task; '' outside a Dask worker."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def report_shares(problem: ShareProblem, shares: Iterable[tuple[int, str]]) -> None:
    """Report shares of the layer and block of the running task to the scheduler.

    Outside a Dask worker nothing happens.

    Parameters
    ----------
    problem
        What is wrong with them.
    shares
        Position of each share, and the address of the worker that computed it.
    """
    try:
        worker = get_worker()
    except ValueError:
        return
    key = parse_key(getattr(thread_state, "key", None))
    if key is not None:
        place = {"run": key.run, "layer": key.layer, "block": key.block}
        found = [[position, address] for position, address in shares]
        notice = {"event": problem, **place, "shares": found[:MAX_NOTICE_SHARES]}
        worker.log_event(TOPIC, notice)


def report_failed_check() -> None:
    """Report to the scheduler that what the running task computed fails its checksum.

    Outside a Dask worker nothing happens.
    """
    key = parse_key(getattr(thread_state, "key", None))
    if key is not None:
        report_shares("failed-check", [(key.position % ATTEMPT_STRIDE, worker_address())])


def parse_notice(now: float, message: Mapping[str, Any]) -> SharesReported | None:
    """Return the event for a message of :func:`report_shares`; None if it is malformed."""
    problem, run = message.get("event"), message.get("run")
    layer, block, shares = (message.get(name) for name in ("layer", "block", "shares"))
    if not isinstance(problem, str) or problem not in get_args(ShareProblem):
        return None
    if not (isinstance(run, str) and isinstance(layer, int) and isinstance(block, int)):
        return None
    if not isinstance(shares, list | tuple):
        return None
    named = tuple((int(position), str(worker)) for position, worker in shares[:MAX_NOTICE_SHARES])
    return SharesReported(now, problem, run, layer, block, named)


def wanted() -> Callable[[], bool]:
    """Return a function that says whether the task that runs in this thread is still needed.

    Call ``wanted`` at the start of a task, and the function that it returns between slices, from
    any thread. Outside a Dask worker the function always returns True.

    >>> still_wanted = wanted()
    >>> still_wanted()
    True
    """
    try:
        worker = get_worker()
        key: Key = thread_state.key
    except (AttributeError, ValueError):
        return _always
    return _StillWanted(worker, key)


@contextmanager
def abandonable() -> Iterator[None]:
    """Let a share stop without an error: turn ``Abandoned`` into Dask's ``Reschedule``.

    A worker silently drops a cancelled task that ends so. If the scheduler has assigned the task
    again in the meantime, the worker runs it once more; any other exception would count as the
    task's failure.

    Raises
    ------
    Reschedule
        In place of :class:`fcdcc.coding.errors.Abandoned`.

    >>> with abandonable():
    ...     raise Abandoned("nobody needs it")
    Traceback (most recent call last):
    distributed.exceptions.Reschedule: nobody needs it
    """
    try:
        yield
    except Abandoned as error:
        raise Reschedule(str(error)) from error


def _always() -> bool:
    return True


class _StillWanted:
    """Says whether one task on one worker is still needed."""

    __slots__ = ("_key", "_worker")

    def __init__(self, worker: Worker, key: Key) -> None:
        self._worker = worker
        self._key = key

    def __call__(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state != "cancelled"
