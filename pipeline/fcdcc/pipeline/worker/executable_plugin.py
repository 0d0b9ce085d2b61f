"""How an executable reaches the workers: once each, those that join later included.

Dask asks every worker to take or to drop a plugin, and waits for all of them: a worker that
has stopped would hold up the whole run. The scheduler has noted what is wanted before it asks,
so nothing is lost by not waiting for the last answer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import torch
from distributed import Client, Worker, WorkerPlugin
from distributed.core import clean_exception
from distributed.protocol.pickle import dumps

from .executable import Executable, drop, hold
from .graceful_exit import leave_as_before, leave_in_order
from .peak_memory import PeakMemory

logger = logging.getLogger(__name__)

INSTALL_PATIENCE = 60.0
UNINSTALL_PATIENCE = 5.0
"""Seconds to wait for workers that do not answer."""

BYTES_SENT = "fcdcc-bytes-sent"
"""Name of the metric, in a worker's heartbeat, of the bytes that it has sent to others."""

PEAK_MEMORY = "fcdcc-peak-memory"
"""Name of the metric of the most bytes that a worker's process has had during the run."""


class ExecutablePlugin(WorkerPlugin):
    """Loads an executable on every worker for as long as a run lasts.

    Dask sends a worker plugin to the workers that are there and to each that joins, which a
    key in the graph would not do without pulling tasks towards the worker that has it.

    Parameters
    ----------
    executable
        What the run's tasks refer to.
    run
        The run's id: two runs of the same executable do not end each other.
    torch_threads
        Threads that one torch operation uses, in the worker's whole process.
    """

    def __init__(self, executable: Executable, run: str, torch_threads: int) -> None:
        self.executable = executable
        self.torch_threads = torch_threads
        self.name = f"fcdcc-executable-{run}"

    def setup(self, worker: Worker) -> None:
        """Keep the executable in the worker's process."""
        torch.set_num_threads(self.torch_threads)
        hold(self.executable)
        leave_in_order(worker)
        sent_before = worker.transfer_outgoing_bytes_total

        async def bytes_sent(worker: Worker) -> int:
            return worker.transfer_outgoing_bytes_total - sent_before

        async def peak_memory(worker: Worker) -> int:  # noqa: ARG001 - as Dask calls it
            return PeakMemory.peak()

        PeakMemory.start()
        worker.metrics[BYTES_SENT] = bytes_sent
        worker.metrics[PEAK_MEMORY] = peak_memory

    def teardown(self, worker: Worker) -> None:
        """Let it go when the run is over."""
        worker.metrics.pop(BYTES_SENT, None)
        if worker.metrics.pop(PEAK_MEMORY, None) is not None:
            PeakMemory.stop()
        leave_as_before(worker)
        drop(self.executable.ref)


def install(client: Client, plugin: ExecutablePlugin) -> None:
    """Give a plugin to all workers, and to those that will join.

    Workers that do not answer are not waited for longer than a minute, and those that die
    meanwhile not at all.

    Raises
    ------
    Exception
        Whatever the plugin's setup raised on a worker.
    """
    answers = _ask_all(
        client,
        "register_worker_plugin",
        INSTALL_PATIENCE,
        plugin=dumps(plugin),
        name=plugin.name,
        idempotent=False,
    )
    for answer in answers.values():
        if answer["status"] == "error":
            _, error, traceback = clean_exception(answer["exception"], answer["traceback"])
            if error is not None:
                raise error.with_traceback(traceback)


def uninstall(client: Client, plugin: ExecutablePlugin) -> None:
    """Take a plugin from all workers, not waiting long for those that do not answer."""
    _ask_all(client, "unregister_worker_plugin", UNINSTALL_PATIENCE, name=plugin.name)


def _ask_all(client: Client, operation: str, patience: float, **arguments: Any) -> dict[str, Any]:
    """Have the scheduler ask all workers; no answers if one of them does not give any."""

    async def ask() -> Any:
        try:
            request = getattr(client.scheduler, operation)(**arguments)
            return await asyncio.wait_for(request, patience)
        except (TimeoutError, OSError) as error:
            logger.info("a worker does not answer and is not waited for: %r", error)
            return {}

    return cast("dict[str, Any]", client.sync(ask))
