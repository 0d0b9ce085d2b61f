from __future__ import annotations

import logging
from collections.abc import Iterator

import dask
import pytest
from distributed import Client, LocalCluster

from anyk_cluster import VALIDATION, Errors, Running, threaded_cluster
from fcdcc.pipeline.anyk import AnyKPlugin


@pytest.fixture
def errors() -> Iterator[Errors]:
    handler = Errors()
    loggers = [logging.getLogger("distributed"), logging.getLogger("fcdcc")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def threads() -> Iterator[tuple[LocalCluster, Client]]:
    """Six workers of one thread in this process, under validation, with the plugin."""
    with (
        dask.config.set(VALIDATION),
        threaded_cluster(6) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(AnyKPlugin())
        yield cluster, client


@pytest.fixture
def running(threads: tuple[LocalCluster, Client], errors: Errors) -> Iterator[Running]:
    """The cluster of worker threads, empty; after the test it must be empty and unharmed."""
    running = Running(*threads, errors)
    for run in list(running.plugin.state.history.runs):
        running.plugin.state.history.drop(run)
    yield running
    running.wait_until_empty()
    running.check()
