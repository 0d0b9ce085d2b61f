"""Worker processes of test clusters are forked, as those of a job's own cluster are.

The server that they are forked from has imported PyTorch and Dask: a new interpreter takes two
seconds of CPU time for that, a fork next to none.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.process import BaseProcess

import psutil

METHOD = "forkserver"


def use_fork_server() -> None:
    """Set what the server imports; to be called once, after the tests are collected."""
    from distributed.utils import get_mp_context

    from fcdcc.pipeline.runtime.cluster import FORK_SERVER_IMPORTS

    missing = [name for name in FORK_SERVER_IMPORTS if find_spec(name) is None]
    assert not missing, f"the server cannot import {missing}"
    get_mp_context().set_forkserver_preload(FORK_SERVER_IMPORTS)  # Dask has set a list of its own


def settings() -> dict[str, str]:
    """Return the settings of Dask by which it forks worker processes."""
    return {
        "distributed.worker.multiprocessing-method": METHOD,
        "multiprocessing.context": METHOD,
    }


def worker_processes(client: int | None = None) -> list[psutil.Process]:
    """Return the worker processes of all clusters that a process has started.

    Parameters
    ----------
    client
        The id of that process; None: this one. If it has ended there are none.
    """
    found: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(client).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                # The server's own parent is the client.
                forked = any(METHOD in argument for argument in process.cmdline())
                if forked and process.ppid() != (client or os.getpid()):
                    found.append(process)
    return found


def start_program(module: str, *arguments: str) -> BaseProcess:
    """Start a command of Dask, such as ``dask_worker``, in a process that says nothing."""
    context = multiprocessing.get_context(METHOD)
    process = context.Process(target=_run_program, args=(module, arguments))
    process.start()
    return process


def _run_program(module: str, arguments: tuple[str, ...]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    import_module(f"distributed.cli.{module}").main(list(arguments))
