"""Queries of clients about a scheduler."""

from __future__ import annotations

import threading
import time

import dask.config
import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.anyk.queries import anyk_waiting, cluster_workers


def test_workers_are_known_while_the_client_refreshes_what_it_remembers() -> None:
    """A thread of the client forgets the workers whenever it refreshes: here at every moment."""
    with (
        dask.config.set({"distributed.client.scheduler-info-interval": "1ms"}),
        LocalCluster(n_workers=3, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert {len(cluster_workers(client)) for _ in range(300)} == {3}


GO = threading.Event()
"""For workers that are threads of this process. An event of Dask would leave a client of the worker
as this process's default client."""


def wait_to_go() -> None:
    GO.wait(100)


@pytest.mark.cluster
def test_tasks_of_a_run_are_found_with_their_workers() -> None:
    """By a scheduler that runs nothing that a client sends, but has the plugin."""
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert anyk_waiting(client, "r1") is None
        client.register_plugin(AnyKPlugin())
        del cluster.scheduler.handlers["run_function"]
        assert anyk_waiting(client, "r1") == []
        GO.clear()
        key = task_key("share", "r1", 3, 12, 2)
        other = client.submit(wait_to_go, key=task_key("share", "r2", 3, 12, 2))
        future = client.submit(wait_to_go, key=key)
        while not (found := anyk_waiting(client, "r1")):
            time.sleep(0.01)
        [worker] = cluster_workers(client)
        assert [task.identity for task in found] == [(12, 3, "share", 2, worker)]
        GO.set()
        client.gather([future, other])
        assert anyk_waiting(client, "r1") == []
