"""Small networks under one to three faults at random moments, with Dask's validation on.

A few runs here; ``make chaos`` has 170 with worker threads and 30 with worker processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster

from fcdcc.pipeline import Model, open_model
from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.model.interpreter import run_network
from support.anyk_chaos import Processes, Threads, abstract, real, run_with_faults
from support.anyk_cluster import VALIDATION, Errors, Running, local_cluster, threaded_cluster
from support.anyk_graphs import gathered
from support.small import SHAPE, make_files

THREADS, PROCESSES = 170, 30
SHORT_THREADS, SHORT_PROCESSES = 4, 1

Case = tuple[Model, Any, Any]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A model, images, and what it makes of them."""
    model = open_model(make_files(tmp_path_factory.mktemp("small")).model)
    pixels = np.random.default_rng(2).random((40, *SHAPE), dtype=np.float32)
    return model, run_network(model.network, torch.from_numpy(pixels)).numpy(), pixels


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" not in metafunc.fixturenames:
        return
    few, all_ = {
        "test_threads": (SHORT_THREADS, THREADS),
        "test_processes": (SHORT_PROCESSES, PROCESSES),
    }[metafunc.function.__name__]
    seeds = [
        pytest.param(seed, marks=() if seed < few else pytest.mark.long) for seed in range(all_)
    ]
    metafunc.parametrize("seed", seeds)
