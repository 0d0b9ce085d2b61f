"""A small job and a cluster to run it on, for the tests of whole jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.small import Files, make_files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A small model and images; only to be read."""
    return make_files(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a running cluster of six workers in this process."""
    # Imported before the tests are collected, Dask would take over pytest's handlers of logs.
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=6, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address
