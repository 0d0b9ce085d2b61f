"""Worker processes of test clusters are forked, as those of a job's own cluster are.

The server that they are forked from has imported PyTorch and Dask: a new interpreter takes two
seconds of CPU time for that, a fork next to none.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dask
import psutil

from support.network import enter

METHOD = "forkserver"


def use_fork_server() -> None:
    """Set what the server imports; to be called once, after the tests are collected."""
    from distributed.utils import get_mp_context

    from fcdcc.pipeline.runtime.fork_server import FORK_SERVER_IMPORTS

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
                # The server, and what multiprocessing starts beside it, are the client's children.
                if process.ppid() != (client or os.getpid()):
                    found.append(process)
    return found


def start_program(
    module: str,
    *arguments: str,
    namespace: str | None = None,
    log: Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> BaseProcess:
    """Start a command of Dask, such as ``dask_worker``.

    Parameters
    ----------
    module
        Of ``distributed.cli``, with the command.
    *arguments
        Of the command.
    namespace
        The file of the host that it runs on (:meth:`support.network.Network.namespace`).
    log
        The file that it writes to; None: it says nothing.
    settings
        Of Dask, in that process.
    """
    return start_function(
        _run_program, module, arguments, settings or {}, namespace=namespace, log=log
    )


def start_function(
    target: Callable[..., object], *arguments: Any, namespace: str | None, log: Path | None
) -> BaseProcess:
    """Start a function in a process of its own; it ends with the code of ``sys.exit``.

    Parameters
    ----------
    target
        A function of a module.
    *arguments
        Of the function.
    namespace, log
        As of :func:`start_program`.
    """
    context = multiprocessing.get_context(METHOD)
    process = context.Process(target=_run, args=(target, arguments, namespace, log))
    process.start()
    return process


def _run(
    target: Callable[..., object],
    arguments: Sequence[Any],
    namespace: str | None,
    log: Path | None,
) -> None:
    written = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(written, descriptor)
    if namespace is not None:
        enter(namespace)
    target(*arguments)


def _run_program(module: str, arguments: tuple[str, ...], settings: Mapping[str, object]) -> None:
    with dask.config.set(settings):
        import_module(f"distributed.cli.{module}").main(list(arguments))
