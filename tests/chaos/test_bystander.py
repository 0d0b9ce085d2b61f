"""Somebody else's work on the same cluster, while workers stop, continue and are killed.

Its workers stop and continue, and nobody kills them, so that nothing but the runs beside it could
be the reason for a task of it that runs twice.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import dask
import pytest
from distributed import Client, Future, LocalCluster

from fcdcc.pipeline import Model
from fcdcc.pipeline.anyk import AnyKPlugin
from support.anyk_chaos import Processes, abstract, left, real
from support.anyk_cluster import VALIDATION, Errors, Running, local_cluster
from support.anyk_graphs import append, gathered

SEEDS = 20
TASKS = 12

pytestmark = pytest.mark.cluster

Case = tuple[Model, Any, Any]


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[LocalCluster, Client]]:
    with (
        dask.config.set(VALIDATION),
        local_cluster(6, processes=True) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(AnyKPlugin())
        yield cluster, client


def theirs(number: int, path: str, seconds: float, *needed: int) -> int:
    """Return a number plus those of other tasks; the file gets a line for every run."""
    append(number, path)
    sleep(seconds)
    return number + sum(needed)


def submit_theirs(
    client: Client, draw: random.Random, workers: list[str], runs: Path
) -> list[Future]:
    """Send tasks to these workers alone, each of which needs the two before it.

    Each worker has one result when this returns.
    """
    futures: list[Future] = []
    for number in range(TASKS):
        first = number < len(workers)
        where = [workers[number] if first else draw.choice(workers)]
        seconds = 0.0 if first else draw.random()
        futures.append(
            client.submit(
                theirs, number, str(runs), seconds, *futures[-2:], workers=where, pure=False
            )
        )
    for future in futures[: len(workers)]:
        future.result(timeout=60)
    return futures


def expected_of_theirs() -> list[int]:
    """Return the results of their tasks."""
    values: list[int] = []
    for number in range(TASKS):
        values.append(number + sum(values[-2:]))
    return values


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SEEDS))
def test_others_on_the_cluster_are_not_harmed(
    processes: tuple[LocalCluster, Client], errors: Errors, case: Case, seed: int, tmp_path: Path
) -> None:
    draw, (cluster, client) = random.Random(7000 + seed), processes
    running = Running(cluster, client, errors)
    client.wait_for_workers(6, timeout=120)
    warm = gathered(0, run="warm", enough=6)
    assert client.get(warm.tasks, warm.results)[0][0] == 0.0
    target = Processes(running, draw)
    used = draw.sample(target.workers, 2)
    target.lost |= set(used)  # those are never killed
    runs = tmp_path / "runs"
    futures = submit_theirs(client, draw, used, runs)
    checks = [real(draw, client, *case), abstract(draw, client)]  # two runs, side by side
    try:
        for worker in used[: draw.randint(1, 2)]:
            sleep(draw.random())  # a random moment
            if draw.random() < 0.5:
                target.kill()
            os.kill(target.pids[worker], signal.SIGSTOP)
            sleep(2 + 6 * draw.random())  # shorter or longer than a worker may be silent
            os.kill(target.pids[worker], signal.SIGCONT)
        for check in checks:
            check()
        assert client.gather(futures) == expected_of_theirs()
    finally:
        for worker in used:
            os.kill(target.pids[worker], signal.SIGCONT)
    assert Counter(runs.read_text().split()) == Counter(map(str, range(TASKS)))
    assert set(used) <= set(running.scheduler.workers)
    futures.clear()
    running.wait_until_empty()
    running.wait_until(lambda: not left(running), "no worker holds or runs anything", 120)
    running.check(losses=True)
