"""A cluster for the tests of whole jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a running cluster of six workers in this process."""
    # Imported before the tests are collected, Dask would take over pytest's handlers of logs.
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=6, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address
