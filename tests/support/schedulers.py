"""Schedulers and workers in processes of their own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from distributed import Client

from support.fork_server import start_program

WORKERS = 2


class OwnCluster:
    """A scheduler and two workers; with ``supervised`` workers that end are started again."""

    def __init__(self, folder: Path, *, supervised: bool = False) -> None:
        self._file = folder / f"scheduler-{time.monotonic_ns()}.json"
        self._supervised = supervised
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.processes: list[BaseProcess] = []
        self.address = ""

    def start(self) -> None:
        """Start all, and wait until the scheduler says where it is."""
        self._start_scheduler(0)
        self._threads += [threading.Thread(target=self._keep_worker) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()
        while not self.address:
            assert self.scheduler.is_alive()
            try:
                self.address = str(json.loads(self._file.read_text())["address"])
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.02)

    def _start(self, module: str, *options: str) -> BaseProcess:
        process = start_program(
            module, "--no-dashboard", *options, "--scheduler-file", str(self._file)
        )
        self.processes.append(process)
        return process

    def _start_scheduler(self, port: int) -> None:
        self.scheduler = self._start(
            "dask_scheduler", "--port", str(port), "--idle-timeout", "10 minutes"
        )

    def _keep_worker(self) -> None:
        while not self._over.is_set():
            options = ("--no-nanny", "--nthreads", "1", "--death-timeout", "60")
            self._start("dask_worker", *options).join()
            if not self._supervised:
                break

    def wait_for_workers(self) -> None:
        """Wait until all workers are there."""
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(WORKERS)

    def kill_scheduler(self) -> None:
        """Kill the scheduler with SIGKILL."""
        self.scheduler.kill()
        self.scheduler.join()

    def restart_scheduler(self) -> None:
        """Kill the scheduler and start another at the same address."""
        self.kill_scheduler()
        self._start_scheduler(int(self.address.rpartition(":")[2]))

    def end(self) -> None:
        """Kill all that is left."""
        self._over.set()
        while any(thread.is_alive() for thread in self._threads):
            for process in [*self.processes]:
                process.kill()
            time.sleep(0.01)
        for process in self.processes:
            process.kill()
            process.join()


@contextmanager
def own_cluster(folder: Path, *, supervised: bool = False) -> Iterator[OwnCluster]:
    """Start a cluster, and end it at the end."""
    cluster = OwnCluster(folder, supervised=supervised)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
