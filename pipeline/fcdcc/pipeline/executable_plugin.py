"""How an executable reaches the workers: once each, those that join later included."""

from __future__ import annotations

import torch
from distributed import Worker, WorkerPlugin

from .executable import Executable, drop, hold

__all__ = ["ExecutablePlugin"]


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
        del worker
        torch.set_num_threads(self.torch_threads)
        hold(self.executable)

    def teardown(self, worker: Worker) -> None:
        """Let it go when the run is over."""
        del worker
        drop(self.executable.ref)
