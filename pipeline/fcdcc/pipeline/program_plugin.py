"""How a program reaches the workers: once each, those that join later included."""

from __future__ import annotations

import torch
from distributed import Worker, WorkerPlugin

from .program import Program, drop_program, hold_program

__all__ = ["ProgramPlugin"]


class ProgramPlugin(WorkerPlugin):
    """Loads a program on every worker for as long as a run lasts.

    Dask sends a worker plugin to the workers that are there and to each that joins, which a
    key in the graph would not do without pulling tasks towards the worker that has it.

    Parameters
    ----------
    program
        What the run's tasks refer to.
    torch_threads
        Threads that one torch operation uses, in the worker's whole process.
    """

    def __init__(self, program: Program, torch_threads: int) -> None:
        self.program = program
        self.torch_threads = torch_threads
        self.name = self.plugin_name(program)

    @staticmethod
    def plugin_name(program: Program) -> str:
        """Return the name under which Dask knows the plugin of this program."""
        return f"fcdcc-program-{program.fingerprint}"

    def setup(self, worker: Worker) -> None:
        """Keep the program in the worker's process."""
        del worker
        torch.set_num_threads(self.torch_threads)
        hold_program(self.program)

    def teardown(self, worker: Worker) -> None:
        """Let it go when the run is over."""
        del worker
        drop_program(self.program.ref)
