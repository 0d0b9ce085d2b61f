"""On a worker: the question whether the running task is still wanted.

A share that was given up goes on running, because Dask cannot stop a thread, and its worker
has that much less room for others: it is a *ghost*. A share that runs in slices can end it:
between two slices it asks, and stops if nobody waits for it any more.

The answer is in the worker's own state: when the scheduler takes a running task back, the
worker marks it cancelled. Asking reads two attributes, which is safe from the task's thread
and costs well under a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dask.context import thread_state
from distributed import Reschedule, get_worker

from fcdcc.coding.errors import Abandoned

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed import Worker

__all__ = ["abandonable", "wanted"]


def wanted() -> Callable[[], bool]:
    """Return a question: whether the task that runs in this thread is still wanted.

    Call it at the start of a task and the result between slices, from any thread. Outside a
    Dask worker the answer is always yes.
    """
    try:
        worker = get_worker()
        key: Key = thread_state.key
    except (AttributeError, ValueError):
        return _always
    return _Question(worker, key)


@contextmanager
def abandonable() -> Iterator[None]:
    """Let a share stop quietly: turn its ``Abandoned`` into Dask's ``Reschedule``.

    A worker drops a cancelled task that ends so without a word. Should the scheduler have
    asked for the task again in the meantime, it runs it once more, where any other exception
    would count as the task's failure.

    Raises
    ------
    Reschedule
        In place of :class:`fcdcc.coding.errors.Abandoned`.
    """
    try:
        yield
    except Abandoned as error:
        raise Reschedule(str(error)) from error


def _always() -> bool:
    return True


class _Question:
    """Whether one task on one worker is still wanted."""

    __slots__ = ("_key", "_worker")

    def __init__(self, worker: Worker, key: Key) -> None:
        self._worker = worker
        self._key = key

    def __call__(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state != "cancelled"
