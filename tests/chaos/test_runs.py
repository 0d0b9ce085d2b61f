"""Small networks under one to three faults at random moments, with Dask's validation on.

A few runs here; ``make chaos`` has 140 with worker threads, 30 with worker processes, and 30 with
workers on hosts whose links are cut, slow or lossy for some time. ``FCDCC_CHAOS_FIRST=1000``
chooses other runs: those whose seeds begin there.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline import Model
from fcdcc.pipeline.anyk import AnyKPlugin
from support.anyk_chaos import Hosts, Processes, Threads, abstract, real, run_with_faults
from support.anyk_cluster import VALIDATION, Errors, Running, local_cluster, threaded_cluster
from support.anyk_graphs import gathered
from support.bystander import Bystander
from support.network import Network, on_host, why_impossible
from support.network_cluster import HOSTS, PORT, SCHEDULER, network_cluster

FIRST = int(os.environ.get("FCDCC_CHAOS_FIRST", "0"))
THREADS, PROCESSES, ON_HOSTS = 140, 30, 30
SHORT_THREADS, SHORT_PROCESSES, SHORT_ON_HOSTS = 4, 0, 0

Case = tuple[Model, Any, Any]


def test_threads(errors: Errors, case: Case, seed: int) -> None:
    draw = random.Random(seed)
    with (
        dask.config.set(VALIDATION),
        threaded_cluster(6) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(AnyKPlugin())
        running = Running(cluster, client, errors)
        check = real(draw, client, *case) if seed % 2 else abstract(draw, client)
        run_with_faults(Threads(running, draw), Threads.faults, check)


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[LocalCluster, Client]]:
    with (
        dask.config.set(VALIDATION),
        local_cluster(6, processes=True) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(AnyKPlugin())
        yield cluster, client


@pytest.mark.cluster
def test_processes(
    processes: tuple[LocalCluster, Client], errors: Errors, case: Case, seed: int
) -> None:
    draw = random.Random(1000 + seed)
    cluster, client = processes
    running = Running(cluster, client, errors)
    client.wait_for_workers(6, timeout=120)
    warm = gathered(0, run="warm", enough=6)
    assert client.get(warm.tasks, warm.results)[0][0] == 0.0
    running.wait_until_empty()
    check = real(draw, client, *case) if seed % 2 else abstract(draw, client)
    run_with_faults(Processes(running, draw), Processes.faults, check)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, LocalCluster]]:
    """A scheduler in this process, on a host, and six workers on others."""
    reason = why_impossible()
    if reason is not None:
        pytest.skip(reason)
    with Network(HOSTS) as network, dask.config.set(VALIDATION), ExitStack() as stack:
        with on_host(network.namespace(SCHEDULER)):
            scheduler = LocalCluster(
                n_workers=0, host=network.address(SCHEDULER), scheduler_port=PORT,
                dashboard_address=None,
                scheduler_kwargs={"dashboard": False, "dashboard_address": ":0"},
                silence_logs=logging.ERROR,
            )  # fmt: skip
        stack.enter_context(scheduler)
        folder = tmp_path_factory.mktemp("hosts")
        stack.enter_context(
            network_cluster(network, folder, has_scheduler=True, settings=VALIDATION)
        )
        yield network, scheduler


@pytest.mark.cluster
def test_hosts(
    hosts: tuple[Network, LocalCluster], errors: Errors, case: Case, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(2000 + seed)
    network, cluster = hosts
    network.reseed(seed)
    with Client(cluster) as client, Client(cluster, set_as_default=False) as other:
        client.register_plugin(AnyKPlugin())
        client.wait_for_workers(6, timeout=120)
        running = Running(cluster, client, errors)
        target = Hosts(running, draw, network)
        check = real(draw, client, *case) if seed % 2 else abstract(draw, client)
        if seed % 3:
            run_with_faults(target, Hosts.faults, check)
            return
        bystander = Bystander(other, tmp_path / "ran.txt", tasks=200)

        def check_both() -> None:
            check()
            bystander.check(150)

        run_with_faults(target, Hosts.harmless_faults, check_both)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" not in metafunc.fixturenames:
        return
    few, all_ = {
        "test_threads": (SHORT_THREADS, THREADS),
        "test_processes": (SHORT_PROCESSES, PROCESSES),
        "test_hosts": (SHORT_ON_HOSTS, ON_HOSTS),
    }[metafunc.function.__name__]
    seeds = [
        pytest.param(FIRST + number, marks=() if number < few else pytest.mark.long)
        for number in range(all_)
    ]
    metafunc.parametrize("seed", seeds)
