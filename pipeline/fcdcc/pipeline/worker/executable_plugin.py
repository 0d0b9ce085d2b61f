"""Load the executable of a run on every worker once, including workers that join later.

To register or unregister a worker plugin, Dask sends a request to every worker and waits for
all responses, so a worker that has stopped would hold up the whole run. The scheduler stores the
plugin before it sends the requests, so it is safe to stop waiting for the last responses.

Workers that are threads of the client's process share its executable, so that the weights are in
memory once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import torch
from distributed import Client, Worker, WorkerPlugin
from distributed.core import clean_exception
from distributed.protocol.pickle import dumps

from .executable import Executable, ExecutableRef, drop, find, hold
from .memory import PeakMemory
from .signals import leave_on_sigterm, restore_sigterm

logger = logging.getLogger(__name__)

INSTALL_TIMEOUT_SECONDS = 60.0
"""How long :func:`install` waits for workers that do not respond."""

UNINSTALL_TIMEOUT_SECONDS = 5.0
"""How long :func:`uninstall` waits for workers that do not respond."""

BYTES_SENT = "fcdcc-bytes-sent"
"""Name of the heartbeat metric for the bytes that a worker has sent to others in this run."""

PEAK_MEMORY = "fcdcc-peak-memory"
"""Name of the heartbeat metric for the peak memory of a worker's process in bytes."""


class ExecutablePlugin(WorkerPlugin):
    """Keeps an executable on every worker for the duration of a run.

    Dask sends a worker plugin to all workers, including those that join later. If the
    executable were a key in the graph instead, the scheduler would prefer workers that already
    hold it.

    Parameters
    ----------
    executable
        The executable that the tasks of the run refer to, or its name, where the process of the
        workers has it already.
    run
        Id of the run; it keeps apart the plugins of two runs of the same executable.
    torch_threads
        Threads per torch operation, for the whole process of the worker.
    """

    def __init__(
        self, executable: Executable | ExecutableRef, run: str, torch_threads: int
    ) -> None:
        self.executable = executable
        self.run = run
        self.torch_threads = torch_threads
        self.name = f"fcdcc-executable-{run}"

    @property
    def ref(self) -> ExecutableRef:
        """What tasks carry in place of the executable."""
        given = self.executable
        return given.ref if isinstance(given, Executable) else given

    def setup(self, worker: Worker) -> None:
        """Load the executable, handle SIGTERM, and add the metrics of the run."""
        torch.set_num_threads(self.torch_threads)
        self.executable = hold(find(self.executable))  # another worker of this process may have it
        leave_on_sigterm(worker)
        sent_before = worker.transfer_outgoing_bytes_total

        async def bytes_sent(worker: Worker) -> int:
            return worker.transfer_outgoing_bytes_total - sent_before

        async def peak_memory(worker: Worker) -> int:  # noqa: ARG001 - Dask calls it with the worker
            return PeakMemory.peak()

        PeakMemory.start()
        worker.metrics[BYTES_SENT] = bytes_sent
        worker.metrics[PEAK_MEMORY] = peak_memory

    def teardown(self, worker: Worker) -> None:
        """Undo :meth:`setup`."""
        worker.metrics.pop(BYTES_SENT, None)
        if worker.metrics.pop(PEAK_MEMORY, None) is not None:
            PeakMemory.stop()
        restore_sigterm(worker)
        drop(self.ref)


def install(client: Client, plugin: ExecutablePlugin) -> None:
    """Register a plugin with all workers, and with those that will join.

    This waits at most a minute for workers that do not respond, and not at all for workers
    that die meanwhile.

    Raises
    ------
    Exception
        Any error that the plugin's setup raised on a worker.
    """
    if _is_in_process(client):
        plugin = ExecutablePlugin(hold(find(plugin.executable)), plugin.run, plugin.torch_threads)
    responses = _request_all_workers(
        client,
        "register_worker_plugin",
        INSTALL_TIMEOUT_SECONDS,
        plugin=dumps(plugin),
        name=plugin.name,
        idempotent=False,
    )
    for response in responses.values():
        if response["status"] == "error":
            _, error, traceback = clean_exception(response["exception"], response["traceback"])
            if error is not None:
                raise error.with_traceback(traceback)


def uninstall(client: Client, plugin: ExecutablePlugin) -> None:
    """Unregister a plugin; this waits only briefly for workers that do not respond."""
    if _is_in_process(client):
        drop(plugin.ref)
    _request_all_workers(
        client, "unregister_worker_plugin", UNINSTALL_TIMEOUT_SECONDS, name=plugin.name
    )


def _is_in_process(client: Client) -> bool:
    """Return whether scheduler and workers are threads of this process."""
    return client.scheduler is not None and str(client.scheduler.address).startswith("inproc:")


def _request_all_workers(
    client: Client, operation: str, timeout: float, **arguments: Any
) -> dict[str, Any]:
    """Call an operation of the scheduler that sends a request to every worker.

    Returns the responses by worker; none at all if one worker does not respond within
    ``timeout`` seconds.
    """

    async def request() -> Any:
        try:
            responses = getattr(client.scheduler, operation)(**arguments)
            return await asyncio.wait_for(responses, timeout)
        except (TimeoutError, OSError) as error:
            logger.info("not waiting any longer for a worker that does not respond: %r", error)
            return {}

    return cast("dict[str, Any]", client.sync(request))
