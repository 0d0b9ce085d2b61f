"""Processes that stop and continue: all of a job at once, as on a laptop that sleeps, or one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zarr
from distributed import Client
from numpy.typing import NDArray

from fcdcc.storage import verify
from support.fork_server import worker_processes
from support.jobs import predictions
from support.schedulers import own_cluster
from support.small import SHAPE, Files

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(2000)]

BATCH = 2
TIMES = 24
"""How often the small images are repeated, so that the job goes on for a while."""

SLEEP_SECONDS = 40.0
BLINK_SECONDS = 2.0
GAP_SECONDS = 5.0
"""Between the processes of a job, where they do not all stop and continue at once."""

PATIENCE_SECONDS = 900.0


@dataclass(frozen=True)
class Work:
    """A model, many images, and what PyTorch makes of them."""

    model: Path
    images: Path
    expected: NDArray[np.float32]

    def start(self, output: Path, *options: object) -> subprocess.Popen[str]:
        """Start a run, in a process group of its own."""
        command = [
            sys.executable, "-m", "fcdcc.pipeline", "run", self.model, self.images, output,
            "--batch", BATCH, "--in-flight", 2, "--n", 3, "--tolerate", 1, "--json", "-",
            "--no-progress", "--dashboard-address", ":0", *options,
        ]  # fmt: skip
        return subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def check(self, process: subprocess.Popen[str], output: Path) -> dict[str, Any]:
        """Wait for the end of a run, check its predictions, and return its summary."""
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        np.testing.assert_allclose(predictions(output), self.expected, atol=1e-5)
        assert verify(output) == []
        summary: dict[str, Any] = json.loads(out)
        assert summary["status"] == "complete"
        assert summary["blocks_failed"] == 0
        assert summary["blocks_done"] == summary["blocks_total"]
        assert summary["corrupt_shares"] == []
        return summary


@pytest.fixture(scope="module")
def work(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Work:
    pixels = np.tile(zarr.open_group(files.images, mode="r")["image"][:], (TIMES, 1, 1, 1))
    folder = tmp_path_factory.mktemp("work")
    zarr.create_group(folder / "images.zarr").create_array(
        "image", data=pixels, chunks=(8, *SHAPE), dimension_names=list("ncyx")
    )
    return Work(files.model, folder / "images.zarr", np.tile(files.expected, (TIMES, 1)))


def wait_for_blocks(output: Path, process: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len([*output.glob(".fcdcc/blocks/*.json")]) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no block was recorded"
        time.sleep(0.01)


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it was removed, and another started
            os.kill(process.pid, number)


def wait_until_stopped(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while {process.status() for process in processes} != {psutil.STATUS_STOPPED}:
        assert time.monotonic() < deadline, "a process goes on"
        time.sleep(0.01)


@contextmanager
def all_ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End whatever is left of a run."""
    try:
        yield
    finally:
        left = [process]
        with suppress(psutil.NoSuchProcess):
            left = [*psutil.Process(process.pid).children(recursive=True), process]
        for one in left:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                one.kill()
        process.wait()


@contextmanager
def going_on(
    work: Work, output: Path, *, workers: int, split: str, blocks: int
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a run with workers of its own; give its process and theirs when blocks are recorded."""
    process = work.start(output, "--workers", workers, "--split", split)
    with all_ended(process):
        wait_for_blocks(output, process, blocks)
        found = worker_processes(process.pid)
        assert len(found) == workers
        yield process, found


def all_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a run's process and all that it has started."""
    client = psutil.Process(process.pid)
    return [client, *client.children(recursive=True)]


@pytest.mark.parametrize("order", ["workers first", "client first"])
@pytest.mark.parametrize("split", ["images", "rows"])
def test_a_laptop_that_sleeps(work: Work, tmp_path: Path, split: str, order: str) -> None:
    """All processes of a job are stopped for 40 s and continue: nobody counts as lost."""
    output = tmp_path / "out.zarr"
    with going_on(work, output, workers=3, split=split, blocks=20) as (process, _):
        everybody = all_of(process)
        send(everybody, signal.SIGSTOP)
        stopped = len([*output.glob(".fcdcc/blocks/*.json")])
        time.sleep(SLEEP_SECONDS)
        assert len([*output.glob(".fcdcc/blocks/*.json")]) == stopped
        send(everybody[:: -1 if order == "workers first" else 1], signal.SIGCONT)
        summary = work.check(process, output)
        assert summary["workers_lost"] == []
        assert summary["blocks_done"] > stopped


@pytest.mark.parametrize("split", ["images", "rows"])
def test_workers_that_all_sleep(work: Work, tmp_path: Path, split: str) -> None:
    """The workers are stopped for 40 s and continue one after the other; the rest goes on."""
    output = tmp_path / "out.zarr"
    with going_on(work, output, workers=3, split=split, blocks=20) as (process, workers):
        send(workers, signal.SIGSTOP)
        time.sleep(SLEEP_SECONDS)
        for worker in workers:
            send([worker], signal.SIGCONT)
            time.sleep(1.0)
        assert work.check(process, output)["workers_lost"] == []


@pytest.mark.parametrize("split", ["images", "rows"])
def test_a_process_group_that_sleeps(work: Work, tmp_path: Path, split: str) -> None:
    """As after Ctrl-Z in a terminal: one signal stops all processes of a job, which are a group."""
    output = tmp_path / "out.zarr"
    with going_on(work, output, workers=3, split=split, blocks=20) as (process, _):
        everybody = all_of(process)
        os.killpg(process.pid, signal.SIGSTOP)
        wait_until_stopped(everybody)
        time.sleep(SLEEP_SECONDS)
        os.killpg(process.pid, signal.SIGCONT)
        assert work.check(process, output)["workers_lost"] == []


@pytest.mark.parametrize("split", ["images", "rows"])
@pytest.mark.parametrize(
    "order", ["client scheduler workers", "workers scheduler client", "scheduler workers client"]
)
def test_a_laptop_that_sleeps_with_a_cluster_of_its_own(
    work: Work, tmp_path: Path, order: str, split: str
) -> None:
    """Client, scheduler and workers stop one after the other, and continue the other way round.

    The first sleeps longest. Each of them is awake for some time while the others are not.
    """
    output = tmp_path / "out.zarr"
    with own_cluster(tmp_path) as cluster:
        cluster.wait_for_workers()
        process = work.start(output, "--scheduler", cluster.address, "--split", split)
        with all_ended(process):
            wait_for_blocks(output, process, 20)
            scheduler = psutil.Process(cluster.scheduler.pid)
            workers = [psutil.Process(one.pid) for one in cluster.processes]
            workers.remove(scheduler)
            parts = {
                "client": [psutil.Process(process.pid)],
                "scheduler": [scheduler],
                "workers": workers,
            }
            for part in order.split():
                send(parts[part], signal.SIGSTOP)
                time.sleep(GAP_SECONDS)
            time.sleep(SLEEP_SECONDS)
            for part in reversed(order.split()):
                send(parts[part], signal.SIGCONT)
                time.sleep(GAP_SECONDS)
            assert work.check(process, output)["workers_lost"] == []
        with Client(cluster.address, set_as_default=False) as client:
            assert {*client.run(os.getpid).values()} == {one.pid for one in workers}


@pytest.mark.parametrize("split", ["images", "rows"])
@pytest.mark.parametrize("blinking", [1, 2])
def test_workers_that_stop_and_continue_every_two_seconds(
    work: Work, tmp_path: Path, split: str, blinking: int
) -> None:
    output = tmp_path / "out.zarr"
    over = threading.Event()
    with going_on(work, output, workers=4, split=split, blocks=10) as (process, workers):
        victims = workers[:blinking]

        def blink() -> None:
            while not over.wait(BLINK_SECONDS):
                send(victims, signal.SIGSTOP)
                over.wait(BLINK_SECONDS)
                send(victims, signal.SIGCONT)

        thread = threading.Thread(target=blink)
        thread.start()
        try:
            summary = work.check(process, output)
        finally:
            over.set()
            thread.join()
    assert len(summary["workers_lost"]) <= 4 * blinking


def test_the_workers_of_a_cluster_that_stop_and_continue_are_not_all_given_up(
    work: Work, tmp_path: Path
) -> None:
    """Both workers of a cluster stop for 2 s at different times, again and again."""
    output = tmp_path / "out.zarr"
    with own_cluster(tmp_path, supervised=True) as cluster:
        cluster.wait_for_workers()
        with Client(cluster.address, set_as_default=False) as client:
            pids = [*client.run(os.getpid).values()]
        process = work.start(output, "--scheduler", cluster.address)
        over = threading.Event()

        def blink() -> None:
            number = 0
            while not over.wait(BLINK_SECONDS / 2):
                victim = [psutil.Process(p) for p in pids if psutil.pid_exists(p)][number % 2 :][:1]
                send(victim, signal.SIGSTOP)
                over.wait(BLINK_SECONDS)
                send(victim, signal.SIGCONT)
                number += 1

        with all_ended(process):
            wait_for_blocks(output, process, 10)
            thread = threading.Thread(target=blink)
            thread.start()
            try:
                work.check(process, output)
            finally:
                over.set()
                thread.join()
