"""Processes of test clusters are forked from a server that has already imported PyTorch and Dask.

A new interpreter takes two seconds of CPU time for these imports, a fork next to none. Commands
that tests start as users do (``python -m fcdcc.pipeline``) are not affected: their worker
processes are started by Dask's default, ``spawn``.
"""

from __future__ import annotations

import multiprocessing
import os
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.process import BaseProcess

import psutil

PRELOAD = ["distributed.nanny", "distributed.dashboard.worker", "fcdcc.pipeline.worker.kernels"]
"""What the server imports; for other modules each process pays itself."""

METHOD = "forkserver"


def use_fork_server() -> None:
    """Have Dask fork worker processes; to be called once, after the tests are collected."""
    from distributed.utils import get_mp_context

    missing = [name for name in PRELOAD if find_spec(name) is None]
    assert not missing, f"the server cannot import {missing}: mend PRELOAD"
    get_mp_context().set_forkserver_preload(PRELOAD)  # Dask has set a list of its own


def settings() -> dict[str, str]:
    """Return the settings of Dask by which it forks worker processes."""
    return {
        "distributed.worker.multiprocessing-method": METHOD,
        "multiprocessing.context": METHOD,
    }


def worker_processes() -> list[psutil.Process]:
    """Return the worker processes of all clusters that this process has started."""
    found = psutil.Process().children(recursive=True)
    ours = [p for p in found if any(METHOD in argument for argument in p.cmdline())]
    return [process for process in ours if process.ppid() != os.getpid()]


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
