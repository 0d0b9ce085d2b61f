from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import dask
import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.anyk.state_machine import workers
from support.anyk_cluster import VALIDATION, Errors, Running, threaded_cluster


@pytest.fixture
def errors() -> Iterator[Errors]:
    handler = Errors()
    loggers = [logging.getLogger("distributed"), logging.getLogger("fcdcc")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


class Later:
    """A rule by which workers are late as soon as the test sets ``now``, and never before."""

    now = False

    def patience(self, usual: Sequence[float], idle: bool) -> float:
        return 0.0 if self.now else float("inf")


@pytest.fixture
def later(running: Running, monkeypatch: pytest.MonkeyPatch) -> Later:
    """A cluster on which no worker is late or quiet unless the test says so."""
    rule = Later()
    monkeypatch.setattr(running.plugin.state.lateness, "rule", rule)
    monkeypatch.setattr(workers, "QUIET_HEARTBEATS", 1e9)
    return rule


@pytest.fixture(scope="module")
def threads() -> Iterator[tuple[LocalCluster, Client]]:
    """Six workers of one thread in this process, under validation, with the plugin."""
    # Without stealing, so that shares run where the plugin places them.
    settings = {**VALIDATION, "distributed.scheduler.work-stealing": False}
    with (
        dask.config.set(settings),
        threaded_cluster(6) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(AnyKPlugin())
        yield cluster, client


@pytest.fixture
def running(threads: tuple[LocalCluster, Client], errors: Errors) -> Iterator[Running]:
    """The cluster of worker threads; after the test it must be empty and without errors."""
    running = Running(*threads, errors)
    for run in list(running.plugin.state.history.runs):
        running.plugin.state.history.drop(run)
    yield running
    running.wait_until_empty()
    running.wait_until_workers_are_empty()
    running.check()
