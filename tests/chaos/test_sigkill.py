"""Jobs killed with SIGKILL at random moments and started again: nothing recorded is lost.

What is killed is the client (the local cluster's scheduler with it), a worker, the scheduler
of a cluster of its own, or all at once. The moments are drawn, and the seed is in the test's
name, so that a failure can be had again.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr

from fcdcc.storage import OutputError, open_predictions, verify
from support.fork_server import worker_processes
from support.schedulers import own_cluster
from support.small import IMAGES, Files

BATCH = 2
BLOCKS = IMAGES // BATCH
IN_FLIGHT = 2
PATIENCE = 240.0

pytestmark = pytest.mark.cluster


@dataclass
class Job:
    """A job as people start it: in a process of its own."""

    files: Files
    output: Path
    redundancy: str

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "fcdcc.pipeline", "run", str(self.files.model),
            str(self.files.images), str(self.output), "--batch", str(BATCH),
            "--in-flight", str(IN_FLIGHT),
            "--n", "3", "--tolerate", "1", "--redundancy", self.redundancy,
            "--log-level", "debug", "--log-format", "json", "--dashboard-address", ":0",
            "--json", "-", *(options or ("--workers", "2")),
        ]  # fmt: skip
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self) -> dict[str, Any]:
        """Run to the end and return the summary."""
        out, err = (process := self.start("--workers", "2", "--threads")).communicate(
            timeout=PATIENCE
        )
        assert process.returncode == 0, err
        summary: dict[str, Any] = json.loads(out)
        return summary

    def done(self) -> list[int]:
        """Blocks that are recorded now."""
        try:
            return [
                int(block)
                for block in np.flatnonzero(open_predictions(self.output).progress().done)
            ]
        except OutputError:
            return []

    def chunks(self) -> dict[int, bytes]:
        """What is stored of the blocks that are recorded now."""
        return {b: (self.output / "prediction" / f"c.{b}.0").read_bytes() for b in self.done()}


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=PATIENCE)


def wait_for_moment(job: Job, process: subprocess.Popen[str], draw: random.Random) -> None:
    """Wait until some more blocks are recorded, or for some time of the start."""
    records = job.output / ".fcdcc" / "blocks"
    wanted = len([*records.glob("*.json")]) + draw.choice([0, 1, 1, 2, 3, 5])
    deadline = time.monotonic() + PATIENCE
    while len([*records.glob("*.json")]) < wanted and process.poll() is None:
        assert time.monotonic() < deadline, "no block was recorded"
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.2))


def begun(log: str) -> list[int]:
    """Return the blocks that a run has begun, as it has logged them."""
    lines = [line for line in log.splitlines() if line.startswith("{") and line.endswith("}")]
    found = (re.fullmatch(r"block (\d+) begins", json.loads(line)["message"]) for line in lines)
    return [int(match[1]) for match in found if match]


def strike(job: Job, kind: str, draw: random.Random, folder: Path) -> str:
    """Start the job, kill something at a moment, let what is left come to its end.

    Returns what the run has logged.
    """
    if kind == "scheduler":
        with own_cluster(folder, supervised=True) as cluster:
            process = job.start("--scheduler", cluster.address)
            wait_for_moment(job, process, draw)
            cluster.restart_scheduler()
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        return err
    before = job.done()
    process = job.start()
    wait_for_moment(job, process, draw)
    workers = worker_processes(process.pid)
    assert workers or job.done() == before or process.poll() is not None, (
        "the workers were not found"
    )
    if kind == "worker":
        kill(workers[:1])
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 4), err
        return err
    process.kill()
    if kind == "all":
        kill(workers)
    _, err = process.communicate(timeout=PATIENCE)
    psutil.wait_procs(workers, timeout=PATIENCE)
    return err


def chaos(files: Files, folder: Path, kinds: list[str], seed: int, redundancy: str) -> None:
    draw = random.Random(seed)
    job = Job(files, folder / "out.zarr", redundancy)
    kept: dict[int, bytes] = {}
    for number, kind in enumerate(kinds):
        if len(job.done()) == BLOCKS:  # through before it was struck often enough: once more
            job = Job(files, folder / f"out-{number}.zarr", redundancy)
            kept = {}
        started = begun(strike(job, kind, draw, folder))
        stored = job.chunks()
        assert {block: stored.get(block) for block in kept} == kept, f"after {kind}"
        assert not kept.keys() & set(started), "what was recorded was done again"
        assert len(started) - len(stored.keys() - kept.keys()) <= IN_FLIGHT, f"after {kind}"
        kept = stored
    summary = job.finish()
    assert summary["blocks_skipped"] >= len(kept)
    stored = job.chunks()
    assert len(stored) == BLOCKS
    assert {block: stored[block] for block in kept} == kept
    made = xr.open_zarr(job.output)["prediction"].values
    np.testing.assert_allclose(made, files.expected, atol=1e-5)
    np.testing.assert_array_equal(made.argmax(1), files.expected.argmax(1))
    assert verify(job.output) == []
    if redundancy == "off":
        whole = Job(files, folder / "uninterrupted.zarr", redundancy)
        whole.finish()
        np.testing.assert_array_equal(made, xr.open_zarr(whole.output)["prediction"].values)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_a_few_kills(files: Files, tmp_path: Path, seed: int) -> None:
    chaos(files, tmp_path, ["client", "all"], seed, "off")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("seed", "redundancy"), [(11, "standby"), (12, "off"), (13, "eager")])
def test_thirty_kills(files: Files, tmp_path: Path, seed: int, redundancy: str) -> None:
    kinds = ["client", "all", "worker", "scheduler", "client", "all", "client", "scheduler"]
    chaos(files, tmp_path, [*kinds, "all", "client"], seed, redundancy)
