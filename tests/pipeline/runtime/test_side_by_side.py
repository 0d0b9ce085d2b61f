"""Two jobs and somebody's own work on one cluster: each gets its answers, and nothing runs twice.

``tests/chaos/test_bystander.py`` has the same with workers that stop, continue and are killed.
"""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from fcdcc.pipeline.cli import main
from fcdcc.storage import verify
from support.anyk_cluster import Errors, Running, local_cluster
from support.bystander import Bystander
from support.fork_server import start_function
from support.jobs import predictions
from support.small import Files

BATCH = 2
LIMIT = 24
BLOCKS = LIMIT // BATCH

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


class Job:
    """A command in a process of its own."""

    def __init__(self, files: Files, folder: Path, name: str, scheduler: str, split: str) -> None:
        self.output = folder / f"{name}.zarr"
        self._summary = folder / f"{name}.json"
        self.log = folder / f"{name}.log"
        arguments = [
            "run", files.model, files.images, self.output, "--scheduler", scheduler,
            "--batch", BATCH, "--limit", LIMIT, "--in-flight", 2, "--n", 3, "--tolerate", 1,
            "--split", split, "--no-progress", "--json", self._summary,
        ]  # fmt: skip
        self._arguments = [str(argument) for argument in arguments]
        self.process = self.start()

    def start(self) -> BaseProcess:
        """Start it, or start it again."""
        self.process = start_function(run_command, self._arguments, namespace=None, log=self.log)
        return self.process

    def wait_for_blocks(self, number: int) -> None:
        """Wait until so many blocks are recorded."""
        while len([*(self.output / ".fcdcc" / "blocks").glob("*.json")]) < number:
            assert self.process.is_alive(), self.log.read_text()
            time.sleep(0.01)

    def end(self) -> dict[str, Any]:
        """Wait until it has ended well; return its summary."""
        self.process.join(120)
        assert self.process.exitcode == 0, self.log.read_text()
        summary: dict[str, Any] = json.loads(self._summary.read_text())
        assert summary["status"] == "complete"
        assert summary["workers_lost"] == []
        return summary


def run_command(arguments: list[str]) -> None:
    main(arguments, prog_name="fcdcc")


@pytest.mark.long
def test_two_jobs_and_a_users_own_work(files: Files, tmp_path: Path) -> None:
    """One of the jobs is interrupted, and run again."""
    with (
        local_cluster(4, processes=True) as cluster,
        Client(cluster) as client,
        Client(cluster, set_as_default=False) as user,
    ):
        client.wait_for_workers(4, timeout=60)
        address = cluster.scheduler_address
        jobs = [Job(files, tmp_path, split, address, split) for split in ("rows", "images")]
        interrupted, other = jobs
        interrupted.wait_for_blocks(1)
        theirs = Bystander(user, tmp_path / "ran.txt", tasks=60)
        interrupted.wait_for_blocks(3)
        assert interrupted.process.pid is not None
        os.kill(interrupted.process.pid, signal.SIGINT)
        interrupted.process.join(60)
        assert interrupted.process.exitcode == 130, interrupted.log.read_text()
        recorded = len([*(interrupted.output / ".fcdcc" / "blocks").glob("*.json")])
        interrupted.start()
        theirs.check(120)
        again, whole = interrupted.end(), other.end()
        assert (again["blocks_skipped"], again["blocks_done"]) == (recorded, BLOCKS - recorded)
        assert whole["blocks_done"] == BLOCKS
        for job in jobs:
            np.testing.assert_allclose(predictions(job.output), files.expected[:LIMIT], atol=1e-5)
            assert verify(job.output) == []
        running = Running(cluster, client, Errors())
        running.wait_until_empty()
        running.check()
