"""How an executable reaches the workers: once each, those that join later included."""

from __future__ import annotations

import torch
from distributed import Worker, WorkerPlugin

from .executable import Executable, drop, hold

__all__ = ["BYTES_SENT", "ExecutablePlugin"]

BYTES_SENT = "fcdcc-bytes-sent"
"""Name of the metric, in a worker's heartbeat, of the bytes that it has sent to others."""


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
        sent_before = worker.transfer_outgoing_bytes_total

        async def bytes_sent(worker: Worker) -> int:
            return worker.transfer_outgoing_bytes_total - sent_before

        worker.metrics[BYTES_SENT] = bytes_sent

    def teardown(self, worker: Worker) -> None:
        """Let it go when the run is over."""
        worker.metrics.pop(BYTES_SENT, None)
        drop(self.executable.ref)
