"""On a worker: the question whether the running task is still wanted.

A share that was given up goes on running, because Dask cannot stop a thread, and its worker
has that much less room for others: it is a *ghost*. A share that runs in slices can end it:
between two slices it asks, and stops if nobody waits for it any more.

The answer is in the worker's own state: when the scheduler takes a running task back, the
worker marks it cancelled. Asking reads two attributes, which is safe from the task's thread
and costs well under a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from dask.context import thread_state
from distributed import Reschedule, get_worker

from fcdcc.coding.errors import Abandoned
from fcdcc.pipeline.anyk.keys import parse_key

from .state_machine.events import Noticed

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed import Worker


TOPIC = "fcdcc-shares"
"""Of the scheduler's event log."""

What: TypeAlias = Literal["corrupt-share", "mismatch", "not-finite"]
"""Found wrong; contradict each other, and nobody knows which is wrong; hold NaN or infinity."""

MOST = 4096
"""Shares that one notice names at most."""


def here() -> str:
    """Return the address of the worker whose task this is; '' outside Dask's workers."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def announce(what: What, shares: Iterable[tuple[int, str]]) -> None:
    """Tell the scheduler of shares of the layer and block that the running task belongs to.

    Outside a worker nobody is told.

    Parameters
    ----------
    what
        What is the matter with them.
    shares
        Position, and the worker that made the share, of each.
    """
    try:
        worker = get_worker()
    except ValueError:
        return
    key = parse_key(getattr(thread_state, "key", None))
    if key is not None:
        place = {"run": key.run, "layer": key.layer, "block": key.block}
        found = [[position, address] for position, address in shares]
        worker.log_event(TOPIC, {"event": what, **place, "shares": found[:MOST]})


def noticed(now: float, message: Mapping[str, Any]) -> Noticed | None:
    """Return what a notice says; None if it is none."""
    what, run = message.get("event"), message.get("run")
    layer, block, shares = (message.get(name) for name in ("layer", "block", "shares"))
    if not isinstance(what, str) or what not in get_args(What) or not isinstance(run, str):
        return None
    if not (isinstance(layer, int) and isinstance(block, int) and isinstance(shares, list | tuple)):
        return None
    named = tuple((int(position), str(worker)) for position, worker in shares[:MOST])
    return Noticed(now, what, run, layer, block, named)


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
