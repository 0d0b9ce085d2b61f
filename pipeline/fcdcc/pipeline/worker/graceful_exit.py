"""A worker that is told to end (SIGTERM: a spot notice, a pod that is moved) leaves in order.

It tells the scheduler that it takes no more tasks, hands what it holds to others, and ends. What it
is computing is done again elsewhere, nothing else. It needs the worker's event loop in the main
thread of its process, as in all workers that Dask's commands and local clusters start.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Worker


logger = logging.getLogger(__name__)

_before: dict[str, tuple[int, Any]] = {}
"""By worker: how many runs asked for it, and what was done about the signal before."""

_leaving: set[asyncio.Task[None]] = set()
"""Kept from being collected."""


def leave_in_order(worker: Worker) -> None:
    """Let a worker leave in order when its process is told to end; call it in its event loop."""
    if threading.current_thread() is not threading.main_thread():
        return
    runs, before = _before.get(worker.address, (0, signal.getsignal(signal.SIGTERM)))
    _before[worker.address] = runs + 1, before
    if runs == 0:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, _begin, worker)


def leave_as_before(worker: Worker) -> None:
    """Undo :func:`leave_in_order`, as often as it was asked for."""
    if threading.current_thread() is not threading.main_thread():
        return
    runs, before = _before.pop(worker.address, (0, None))
    if runs > 1:
        _before[worker.address] = runs - 1, before
    elif runs == 1:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def _begin(worker: Worker) -> None:
    leaving = asyncio.get_running_loop().create_task(_leave(worker))
    _leaving.add(leaving)
    leaving.add_done_callback(_leaving.discard)


async def _leave(worker: Worker) -> None:
    """Hand over what the worker holds, if there is anybody to take it, and close it."""
    logger.warning("worker %s was told to end, and leaves", worker.address)
    try:
        await worker.close_gracefully(restart=False, reason="SIGTERM")
    except (OSError, ValueError) as error:  # the scheduler is gone, too
        logger.warning("worker %s leaves at once: %s", worker.address, error)
        await worker.close(nanny=True, reason="SIGTERM")
