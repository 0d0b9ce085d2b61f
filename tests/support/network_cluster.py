"""A scheduler, workers and jobs on the hosts of a network, each in a process of its own."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Client

from fcdcc.pipeline.cli import main
from fcdcc.storage import verify
from support.fork_server import start_function, start_program
from support.jobs import predictions
from support.network import Network
from support.small import Files

SCHEDULER, CLIENT = "scheduler", "client"
"""The hosts of the scheduler and of the jobs."""

WORKERS = ("a", "b", "c", "d", "e", "f")
"""The hosts of one worker each."""

HOSTS = (SCHEDULER, CLIENT, *WORKERS)

PORT = 8786
"""Of the scheduler."""

SMALL_BATCH = 2
"""Images of a block."""

POLL_SECONDS = 0.02


class NetworkCluster:
    """A scheduler and one worker on each of some hosts.

    A worker that ends is started again, as by a supervisor such as systemd, unless that is
    turned off.

    Parameters
    ----------
    network
        With the hosts of this module.
    folder
        For what the processes write.
    workers
        The hosts of workers.
    supervised
        Whether workers that end are started again.
    worker_options
        More options of ``dask worker``.
    settings
        Of Dask, in the processes of the scheduler and the workers.
    has_scheduler
        Whether there is a scheduler already, which somebody has started at this address.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        workers: Sequence[str] = WORKERS,
        *,
        supervised: bool = True,
        worker_options: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        has_scheduler: bool = False,
    ) -> None:
        self.network = network
        self.workers = tuple(workers)
        self.address = f"tcp://{network.address(SCHEDULER)}:{PORT}"
        self.folder = folder
        self._supervised = supervised
        self._worker_options = tuple(worker_options)
        self._settings = settings
        self._has_scheduler = has_scheduler
        self._over = threading.Event()
        self._processes: list[BaseProcess] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start all, and wait until the scheduler has all workers."""
        if not self._has_scheduler:
            self._start(
                SCHEDULER, "dask_scheduler", "--host", self.network.address(SCHEDULER),
                "--port", str(PORT), "--idle-timeout", "10 minutes",
            )  # fmt: skip
        self._threads = [
            threading.Thread(target=self._keep_worker, args=(host,)) for host in self.workers
        ]
        for thread in self._threads:
            thread.start()
        self.on_client_host(_wait_for_workers, self.address, len(self.workers))

    def on_client_host(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function in a process on the host of the jobs until it has ended."""
        process = self.start_on_client_host(function, *arguments)
        process.join()
        assert process.exitcode == 0, self.logs()

    def start_on_client_host(
        self, function: Callable[..., object], *arguments: object, log: str = CLIENT
    ) -> BaseProcess:
        """Start a function in a process on the host of the jobs."""
        process = start_function(
            function, *arguments,
            namespace=self.network.namespace(CLIENT), log=self.folder / f"{log}.log",
        )  # fmt: skip
        self._processes.append(process)
        return process

    def _keep_worker(self, host: str) -> None:
        while not self._over.is_set():
            self._start(
                host, "dask_worker", "--no-nanny", "--nthreads", "1", "--name", host,
                "--host", self.network.address(host), "--death-timeout", "60",
                "--local-directory", str(self.folder / f"scratch-{host}"),
                *self._worker_options, self.address,
            ).join()  # fmt: skip
            if not self._supervised:
                break

    def _start(self, host: str, module: str, *arguments: str) -> BaseProcess:
        process = start_program(
            module, "--no-dashboard", *arguments,
            namespace=self.network.namespace(host), log=self.folder / f"{host}.log",
            settings=self._settings,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def end(self) -> None:
        """Kill all that is left."""
        self._over.set()
        while True:
            for process in [*self._processes]:
                process.kill()
                process.join()
            if not any(thread.is_alive() for thread in self._threads):
                return
            time.sleep(POLL_SECONDS)

    def logs(self) -> str:
        """Return the last lines of all logs, for the message of a test that fails."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {file.stem}\n{file.read_text()[-3000:]}" for file in files)


@contextmanager
def network_cluster(network: Network, folder: Path, **options: Any) -> Iterator[NetworkCluster]:
    """Start a cluster on a network whose links are whole, and end it at the end.

    ``options`` are those of :class:`NetworkCluster`.
    """
    network.mend()
    cluster = NetworkCluster(network, folder, **options)
    try:
        cluster.start()
        yield cluster
    finally:
        network.mend()  # nobody has to wait for a connection that is cut
        cluster.end()


class NetworkJob:
    """A job that ``fcdcc run`` runs on the client's host.

    Parameters
    ----------
    cluster
        Where it runs.
    files
        The model and the images.
    output
        The store of its predictions.
    options
        Of the command.
    settings
        Of Dask, in the process of the command.
    """

    def __init__(
        self,
        cluster: NetworkCluster,
        files: Files,
        output: Path,
        options: Sequence[object],
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._cluster = cluster
        self._files = files
        self._output = output
        self._name = f"job-{time.monotonic_ns()}"
        arguments = [
            "run", files.model, files.images, output, "--scheduler", cluster.address,
            "--no-progress", "--json", self._file("json"), *options,
        ]  # fmt: skip
        self._process = cluster.start_on_client_host(
            _run_command, [str(argument) for argument in arguments], settings, log=self._name
        )

    def _file(self, kind: str) -> Path:
        return self._cluster.folder / f"{self._name}.{kind}"

    @property
    def log(self) -> str:
        """What the job has written so far."""
        return self._file("log").read_text()

    def blocks(self) -> int:
        """Return how many blocks are recorded."""
        return len([*(self._output / ".fcdcc" / "blocks").glob("*.json")])

    def wait_for_blocks(self, number: int, seconds: float = 180) -> None:
        """Wait until so many blocks are recorded, while the job runs."""
        until = time.monotonic() + seconds
        while self.blocks() < number:
            assert self._process.is_alive(), f"the job has ended: {self._cluster.logs()}"
            assert time.monotonic() < until, f"no block is recorded: {self._cluster.logs()}"
            time.sleep(POLL_SECONDS)

    def end(self, seconds: float) -> int:
        """Wait until the job has ended by itself; return its exit code."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, (
            f"the job does not end, {self.blocks()} blocks are done: {self._cluster.logs()}"
        )
        return code

    def complete(self, seconds: float) -> dict[str, Any]:
        """Wait until the job has ended well; return its summary."""
        assert self.end(seconds) == 0, self._cluster.logs()
        summary: dict[str, Any] = json.loads(self._file("json").read_text())
        assert summary["status"] == "complete"
        return summary

    def check(self) -> None:
        """Check that there is every answer, and that it is PyTorch's."""
        made = predictions(self._output)
        np.testing.assert_allclose(made, self._files.expected[: len(made)], rtol=1e-5, atol=1e-5)
        assert verify(self._output) == []


def small_job(
    cluster: NetworkCluster,
    files: Files,
    folder: Path,
    blocks: int,
    *,
    in_flight: int = 2,
    settings: Mapping[str, object] | None = None,
) -> NetworkJob:
    """Start a job of so many blocks by rows, six shares each of which two may be lost."""
    options = [
        "--batch", SMALL_BATCH, "--limit", blocks * SMALL_BATCH, "--in-flight", in_flight,
        "--n", 6, "--tolerate", 2, "--split", "rows",
    ]  # fmt: skip
    return NetworkJob(cluster, files, folder / "out.zarr", options, settings)


def _run_command(arguments: list[str], settings: Mapping[str, object] | None) -> None:
    with dask.config.set(settings or {}):
        main(arguments, prog_name="fcdcc")


def _wait_for_workers(address: str, number: int) -> None:
    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(number, timeout=60)
    sys.exit(0)
