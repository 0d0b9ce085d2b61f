"""Queries of clients about a scheduler."""

from __future__ import annotations

import dask.config
from distributed import Client, LocalCluster

from fcdcc.pipeline.anyk.queries import cluster_workers


def test_workers_are_known_while_the_client_refreshes_what_it_remembers() -> None:
    """A thread of the client forgets the workers whenever it refreshes: here at every moment."""
    with (
        dask.config.set({"distributed.client.scheduler-info-interval": "1ms"}),
        LocalCluster(n_workers=3, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert {len(cluster_workers(client)) for _ in range(300)} == {3}
