"""What a worker process does on SIGINT and SIGTERM.

On SIGINT a local worker does nothing: a terminal sends Ctrl-C to all processes of a command, and
the client ends the run and its workers. Workers that ended by themselves would print tracebacks
and would look as if they had died.

On SIGTERM (a spot instance that is withdrawn, a pod that is moved) a worker leaves gracefully:
it accepts no more tasks, hands its results to other workers, and closes. Only the tasks it is
running are computed again elsewhere. This needs the worker's event loop in the main thread of its
process, as in all workers that Dask's commands and local clusters start.

A nanny also sends SIGTERM to its worker when the worker has used too much memory, and starts
another worker in its place. Such a worker ends at once, as Dask's own do: one that left gracefully
would tell its nanny to end as well, and nothing would take its place.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import dask.config

from fcdcc.pipeline.worker.memory import peak_since_start

if TYPE_CHECKING:
    from distributed import Worker

logger = logging.getLogger(__name__)

_sigterm_users: dict[str, tuple[int, Any]] = {}
"""By worker address: the number of runs that use the handler, and the handler before it."""

_leaving: set[asyncio.Task[None]] = set()
"""References that keep tasks of :func:`_leave` from being garbage-collected."""


def ignore_sigint() -> None:
    """Ignore SIGINT if this is the main thread of a process that another one has started."""
    if multiprocessing.parent_process() is not None and _in_main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def leave_on_sigterm(worker: Worker) -> None:
    """Let a worker leave gracefully on SIGTERM; call this in its event loop."""
    if not _in_main_thread():
        return
    runs, before = _sigterm_users.get(worker.address, (0, signal.getsignal(signal.SIGTERM)))
    _sigterm_users[worker.address] = runs + 1, before
    if runs == 0:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, _begin_to_leave, worker)


def restore_sigterm(worker: Worker) -> None:
    """Undo one :func:`leave_on_sigterm`; the last one restores the handler before it."""
    if not _in_main_thread():
        return
    runs, before = _sigterm_users.pop(worker.address, (0, None))
    if runs > 1:
        _sigterm_users[worker.address] = runs - 1, before
    elif runs == 1:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _begin_to_leave(worker: Worker) -> None:
    if _has_used_too_much_memory(worker):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        return
    leaving = asyncio.get_running_loop().create_task(_leave(worker))
    _leaving.add(leaving)
    leaving.add_done_callback(_leaving.discard)


def _has_used_too_much_memory(worker: Worker) -> bool:
    """Return whether the worker has a nanny that ends it because of its memory.

    The peak decides: a task may have freed its memory between the nanny's look and the signal.
    """
    limit = worker.memory_manager.memory_limit
    fraction = dask.config.get("distributed.worker.memory.terminate")
    if worker.nanny is None or not limit or not fraction:
        return False
    return bool(peak_since_start() > fraction * limit)


async def _leave(worker: Worker) -> None:
    """Hand the worker's results to other workers, if there are any, and close it."""
    logger.warning("worker %s received SIGTERM and leaves", worker.address)
    try:
        await worker.close_gracefully(restart=False, reason="SIGTERM")
    except (OSError, ValueError) as error:  # the scheduler is gone, too
        logger.warning("worker %s leaves without handing over: %s", worker.address, error)
        await worker.close(nanny=True, reason="SIGTERM")
