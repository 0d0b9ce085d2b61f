"""The server process that the worker processes of a local cluster are forked from.

It has imported Dask and PyTorch once; a new interpreter would take seconds of CPU time for that in
every worker. There are two ways to get one:

- :func:`start_fork_server` starts a new process, which imports everything while this one goes on.
- :func:`fork_this_process` forks this one, which has imported everything for itself already. That
  costs nothing, and is only possible as long as this process has a single thread. The command line
  does it at its very beginning.

Both make it the server that :mod:`multiprocessing` uses. This module imports nothing that takes
time.
"""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, resource_tracker, util
from pathlib import Path
from socket import AF_UNIX, socket
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ..options import JobConfig

METHOD = "forkserver"
"""Name of :mod:`multiprocessing` for processes that are forked from a server."""

FORK_SERVER_IMPORTS = [
    "distributed.nanny",
    "fcdcc.pipeline.worker.kernels",
    "fcdcc.pipeline.worker.executable_plugin",
    "fcdcc.pipeline.runtime.output",
]
"""Modules that a new server imports: what workers need. None of them may start a thread or change a
signal's handler: forks would inherit that."""

THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables of numerical libraries, which read them when they are imported."""

LAST = -1_000
"""Priority of what is done at the end of this process after worker processes have been ended."""

_KNOWN_PARAMETERS = ["listener_fd", "alive_r", "preload", "main_path", "sys_path"]
"""Parameters of ``multiprocessing.forkserver.main`` where this module can call it."""


def uses_fork_server(config: JobConfig) -> bool:
    """Return whether the job's workers are forked from a server.

    Jobs on a running cluster or on threads need none, and only POSIX systems can fork.
    """
    return (
        config.scheduler is None
        and config.processes
        and METHOD in multiprocessing.get_all_start_methods()
    )


def start_fork_server() -> None:
    """Start a server in a new process; if there is one, this changes nothing."""
    multiprocessing.get_context(METHOD).set_forkserver_preload(FORK_SERVER_IMPORTS)
    server: Any = forkserver._forkserver  # nothing public names its process
    is_ours = server._forkserver_pid is None
    with single_threaded_libraries():
        forkserver.ensure_running()
    if is_ours:
        _end_with_this_process(server._forkserver_pid)


@contextmanager
def single_threaded_libraries() -> Iterator[None]:
    """Have libraries that are imported meanwhile, also by new processes, use one thread each.

    What the user has set in the environment stays. Dask does the same for workers that it spawns.
    """
    unset = [name for name in THREAD_COUNTS if name not in os.environ]
    os.environ.update(dict.fromkeys(unset, "1"))
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]


def fork_this_process() -> bool:
    """Make a fork of this process the server; return False if that is not possible.

    It is possible on Linux, in a process that has one thread and no server yet.
    """
    if not _can_fork():
        return False
    resource_tracker.ensure_running()
    multiprocessing.get_context(METHOD).set_forkserver_preload(FORK_SERVER_IMPORTS)
    with socket(AF_UNIX) as listener:
        address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined] # untyped
        listener.bind(address)
        if not util.is_abstract_socket_namespace(address):
            Path(address).chmod(0o600)
        listener.listen()
        # The server ends when it reads the end of this pipe: when no process can write into it.
        alive_reader, alive_writer = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        server = os.fork()
        if server == 0:
            os.close(alive_writer)
            _serve(listener.detach(), alive_reader)
        os.close(alive_reader)
    known: Any = forkserver._forkserver
    known._forkserver_address = address
    known._forkserver_alive_fd = alive_writer
    known._forkserver_pid = server
    _end_with_this_process(server)
    return True


def _can_fork() -> bool:
    """Return whether this process can be forked safely, and multiprocessing is as expected."""
    threads = Path("/proc/self/task")
    server = forkserver._forkserver
    return (
        sys.platform == "linux"
        and threads.is_dir()
        and len(list(threads.iterdir())) == threading.active_count() == 1
        and list(inspect.signature(forkserver.main).parameters) == _KNOWN_PARAMETERS
        and getattr(server, "_forkserver_pid", 0) is None
    )


def _serve(listener: int, alive_reader: int) -> NoReturn:
    """Be the server, in the fork, with the settings that a new interpreter would have."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
        for name in ("", "fcdcc"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
            logger.setLevel(logging.WARNING)
        forkserver.main(listener, alive_reader, [])
        code = 0
    except SystemExit:
        code = 0
    finally:
        os._exit(code)  # neither what this process's caller does next, nor its atexit functions


def _end_with_this_process(server: int) -> None:
    util.Finalize(None, _kill, (server,), exitpriority=LAST)


def _kill(server: int) -> None:
    """Kill the server at the end of this process; it would take PyTorch apart for two seconds."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
