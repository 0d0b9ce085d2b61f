"""How many workers a job starts on a machine, and the plan that it makes for them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, cast

import dask.system
import distributed.system
import pytest
import zarr
from dask.utils import parse_bytes
from distributed import Client

from fcdcc.pipeline import JobConfig, Plan
from fcdcc.pipeline.errors import PlanError
from fcdcc.pipeline.planner.cost import known_workers
from fcdcc.pipeline.planner.cost.known_workers import (
    local_worker_count,
    start_and_end_seconds,
    workers_of_client,
    workers_of_options,
)
from fcdcc.pipeline.planner.search import MAX_MEMORY_PART
from fcdcc.pipeline.runtime.job_plan import preview_job
from support.jobs import fcdcc
from support.small import SHAPE, Files

IMAGES = 100_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many images that every worker has work; planning reads none of them."""
    path = tmp_path_factory.mktemp("many") / "images.zarr"
    zarr.create_array(
        path, shape=(IMAGES, *SHAPE), chunks=(64, *SHAPE), dtype="uint8",
        dimension_names=list("ncyx"),
    )  # fmt: skip
    return path


def machine(patch: pytest.MonkeyPatch, cores: int, memory: str = "256 GiB") -> None:
    """Have this process believe that it runs on such a machine."""
    patch.setattr(dask.system, "CPU_COUNT", cores)
    patch.setattr(distributed.system, "MEMORY_LIMIT", parse_bytes(memory))


def job(files: Files, images: Path, **options: Any) -> JobConfig:
    return JobConfig(
        model=str(files.model), input=str(images), output="-", progress=False, **options
    )


def planned(files: Files, images: Path, **options: Any) -> Plan:
    return preview_job(job(files, images, **options)).plan


@pytest.mark.parametrize(
    ("cores", "n", "tolerate"),
    [(1, 1, 0), (2, 2, 1), (3, 3, 1), (4, 4, 2), (6, 6, 2), (16, 6, 2), (64, 6, 2)],
)
def test_each_core_has_a_worker_with_work_and_memory(
    files: Files, many: Path, monkeypatch: pytest.MonkeyPatch, cores: int, n: int, tolerate: int
) -> None:
    machine(monkeypatch, cores)
    plan = planned(files, many)
    assert (plan.n, plan.tolerate, plan.code) == (n, tolerate, "systematic")
    made = plan.forecast
    assert made is not None
    assert (made.workers.count, made.workers.slots) == (cores, 1)
    # A share of the blocks in flight is computed on each worker, and another one waits there.
    assert plan.in_flight * plan.delta >= 2 * cores
    assert plan.in_flight <= max(8, 4 * cores // plan.delta)
    assert made.workers.memory == parse_bytes("256 GiB") // cores
    assert made.peak_memory <= MAX_MEMORY_PART * made.workers.memory
    assert ("one worker" in " ".join(plan.warnings)) == (cores == 1)


def test_a_machine_with_sixty_four_cores(
    files: Files, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 64)
    plan = planned(files, many)
    assert (plan.n, plan.tolerate, plan.split, plan.batch) == (6, 2, "images", 256)
    assert plan.in_flight in (32, 64)
    made = plan.forecast
    assert made is not None
    assert (made.workers.count, made.workers.memory) == (64, 4 * 2**30)
    assert made.workers.lost(plan.n, plan.tolerate) == 2
    assert 350e6 < made.peak_memory < 700e6


@pytest.mark.parametrize(("memory", "most"), [("16 GiB", 32), ("2 GiB", 4), ("600 MiB", 1)])
def test_with_little_memory_there_are_fewer_workers_of_which_each_has_enough(
    files: Files, many: Path, monkeypatch: pytest.MonkeyPatch, memory: str, most: int
) -> None:
    machine(monkeypatch, 64, memory)
    made = planned(files, many).forecast
    assert made is not None
    assert 1 <= made.workers.count <= most
    assert made.workers.memory == parse_bytes(memory) // made.workers.count
    assert made.peak_memory <= MAX_MEMORY_PART * made.workers.memory
    with pytest.raises(PlanError, match=r"are allowed: .*--memory"):  # one more has too little
        planned(files, many, workers=2 * made.workers.count + 1)


def test_a_plan_that_fits_no_worker_is_refused(
    files: Files, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 4, "200 MiB")
    with pytest.raises(PlanError, match="are allowed"):
        planned(files, many)


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({}, 64),
        ({"workers": 3}, 3),
        ({"workers": 100}, 100),
        ({"threads_per_worker": 4}, 16),
        ({"torch_threads": 8}, 8),
        ({"threads_per_worker": 4, "torch_threads": 32}, 1),
        ({"processes": False}, 64),
        ({"memory": "16 GiB"}, 16),
        ({"n": 12}, 64),
    ],
    ids=str,
)
def test_what_is_given_is_obeyed(
    files: Files, many: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], workers: int
) -> None:
    machine(monkeypatch, 64)
    assert local_worker_count(job(files, many, **options)) == workers


@pytest.mark.parametrize(
    ("hosts", "is_here"),
    [(["127.0.0.1", "127.0.0.1"], True), ([socket.gethostname(), "localhost"], True),
     (["127.0.0.1", "10.0.0.2"], False)],
)  # fmt: skip
def test_speeds_are_saved_under_the_machine_if_all_workers_of_a_scheduler_are_on_it(
    hosts: list[str], is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = {
        f"tcp://{host}:{port}": {"host": host, "memory_limit": 2**32, "nthreads": 1}
        for port, host in enumerate(hosts)
    }
    told = {"address": "tcp://127.0.0.1:8786", "workers": workers}
    monkeypatch.setattr(known_workers, "scheduler_identity", lambda _: told)
    found = workers_of_client(cast("Client", None))
    assert found is not None
    form = f"{os.cpu_count()} cores: 2 workers of 1 as processes, 1 torch threads"
    name = f"{socket.gethostname()}, {form}" if is_here else "tcp://127.0.0.1:8786"
    assert (found.name, found.here) == (name, is_here)


def test_a_scheduler_without_workers_is_expected_to_have_six(files: Files, many: Path) -> None:
    known = workers_of_options(job(files, many, scheduler="tcp://nowhere:1"))
    assert known.workers.count == 6
    known = workers_of_options(job(files, many, scheduler="tcp://nowhere:1", n=20))
    assert known.workers.count == 20


def test_the_plan_says_how_long_a_job_takes_to_start(
    files: Files, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 2)
    said = " ".join(fcdcc("plan", files.model, many).output.split())
    assert "for 100,000 images, of which start and end 3.5 s" in said
    running = job(files, many, scheduler="tcp://host:1")
    assert start_and_end_seconds(running) < start_and_end_seconds(job(files, many))
