"""Small networks on a cluster of threads, with faults at random moments, under validation.

Many more runs, with more faults, are in ``tests/chaos/test_runs.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import sleep

import dask
import pytest
from distributed import Client, Future, LocalCluster

from fcdcc.pipeline.anyk import AnyKPlugin
from support.anyk_cluster import VALIDATION, Errors, Running, threaded_cluster
from support.anyk_graphs import Kind, network

KINDS: list[Kind] = ["gathered", "parts", "parts and parity at once"]


@pytest.mark.parametrize("seed", range(4))
def test_every_run_ends_with_the_right_answers(seed: int, errors: Errors) -> None:
    run_with_faults(seed, errors)


def run_with_faults(seed: int, errors: Errors) -> None:
    draw = random.Random(seed)
    with dask.config.set(VALIDATION), threaded_cluster(6) as cluster, Client(cluster) as client:
        client.register_plugin(AnyKPlugin())
        running = Running(cluster, client, errors)
        futures: dict[int, Future] = {}
        for block in range(draw.randint(3, 10)):
            chance = draw.choice([0.0, 0.1, 0.3])
            layers, kind = draw.randint(1, 3), draw.choice(KINDS)
            graph = network(block, layers, kind, lambda chance=chance: draw.random() < chance)
            [futures[block]] = client.get(graph.tasks, graph.results, sync=False)
        for _ in range(draw.randint(1, 3)):
            sleep(draw.random() * 0.4)  # a random moment
            draw.choice(FAULTS)(draw, cluster, client, futures)
        for block, future in futures.items():
            assert future.result(timeout=120) == block
        del future
        futures.clear()
        running.wait_until_empty()
        running.check(losses=True)


def lose(draw: random.Random, cluster: LocalCluster, client: Client, _: object) -> None:
    """Lose a worker as if its process had died."""
    workers = list(cluster.scheduler.workers)
    if len(workers) > 2:
        cluster.sync(
            cluster.scheduler.remove_worker,
            draw.choice(workers),
            close=True,
            stimulus_id="handle-worker-cleanup",
        )


def retire(draw: random.Random, cluster: LocalCluster, client: Client, _: object) -> None:
    """Retire a worker."""
    workers = list(cluster.scheduler.workers)
    if len(workers) > 2:
        client.retire_workers([draw.choice(workers)])


def join(draw: random.Random, cluster: LocalCluster, client: Client, _: object) -> None:
    """Add a worker."""
    cluster.scale(len(cluster.scheduler.workers) + 1)


def forget(
    draw: random.Random, cluster: LocalCluster, client: Client, futures: dict[int, Future]
) -> None:
    """Release the future of a block."""
    if len(futures) > 1:
        del futures[draw.choice(list(futures))]


FAULTS: list[Callable[[random.Random, LocalCluster, Client, dict[int, Future]], None]] = [
    lose,
    lose,
    retire,
    join,
    forget,
]
