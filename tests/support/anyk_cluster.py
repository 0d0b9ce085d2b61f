"""A cluster with the any-k plugin, and checks of it for tests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from distributed import Client, LocalCluster

from fcdcc.pipeline.anyk import AnyKPlugin, anyk_alive, anyk_report
from fcdcc.pipeline.anyk.scheduler.anyk_plugin import NAME
from fcdcc.pipeline.runtime.cluster import SteadyLocalCluster

VALIDATION = {
    "distributed.scheduler.validate": True,
    "distributed.worker.validate": True,
    "distributed.scheduler.worker-ttl": None,
    "distributed.admin.tick.limit": "1h",
    "distributed.comm.timeouts.connect": "10s",
    # A local cluster closes the nanny of a worker this long after the worker was lost, even if
    # the nanny has started another one meanwhile.
    "distributed.deploy.lost-worker-timeout": "1h",
}


LOSSES = (
    "Worker stream died during communication",
    "Failed to communicate with scheduler during heartbeat",
    "Couldn't gather keys",
    "failed during get data",
    "broadcast to",
    "Failed to remove",  # a file of a lost worker's scratch folder that it has removed itself
)


def threaded_cluster(workers: int, threads: int = 1) -> LocalCluster:
    """Return a cluster of workers in this process."""
    return local_cluster(workers, processes=False, threads=threads)


def local_cluster(
    workers: int, processes: bool, threads: int = 1, memory_limit: int | str = "auto"
) -> LocalCluster:
    """Return a cluster without a dashboard, on any free port."""
    return SteadyLocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=processes,
        memory_limit=memory_limit,
        dashboard_address=None,
        scheduler_kwargs={"dashboard": False, "dashboard_address": ":0"},
        silence_logs=logging.ERROR,
    )


class Errors(logging.Handler):
    """Collects what Dask and the plugin log as errors: a failed validation is only logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


class Running:
    """A cluster with the plugin, and checks of it."""

    def __init__(self, cluster: LocalCluster, client: Client, errors: Errors) -> None:
        self.cluster = cluster
        self.client = client
        self.errors = errors

    @property
    def scheduler(self) -> Any:
        return self.cluster.scheduler

    @property
    def plugin(self) -> AnyKPlugin:
        plugin = self.scheduler.plugins[NAME]
        assert isinstance(plugin, AnyKPlugin)
        return plugin

    def report(self, run: str = "r") -> Any:
        return anyk_report(self.client, run)

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        until = monotonic() + seconds
        while not condition():
            assert monotonic() < until, f"waited {seconds} seconds and still not: {what}"
            sleep(0.01)

    def wait_until_empty(self) -> None:
        """Wait until neither the scheduler nor the plugin knows any task."""
        nothing = dict.fromkeys(("groups", "shares", "nodes", "blocks", "tasks", "doubles"), 0)
        self.wait_until(lambda: not self.scheduler.tasks, "the scheduler has no tasks")
        self.wait_until(lambda: anyk_alive(self.client) == nothing, "the plugin has no tasks")

    def wait_until_workers_are_empty(self) -> None:
        """Wait until no worker of this process knows any task.

        The scheduler forgets a task before its workers do. A test that uses the same keys right
        after that could get the results of the test before.
        """
        workers = self.cluster.workers
        self.wait_until(
            lambda: not any(worker.state.tasks for worker in workers.values()),
            "the workers have no tasks",
        )

    def check(self, losses: bool = False) -> None:
        """Check that there were no errors, in the plugin or in the logs.

        With ``losses``, errors that Dask logs about lost workers are expected.
        """
        assert self.report()["failures"] == []
        assert self.plugin.failures.count == 0
        errors = [m for m in self.errors.messages if not (losses and m.startswith(LOSSES))]
        assert errors == [], errors
