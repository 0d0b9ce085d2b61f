"""Jobs that fail in part or are told to stop: what is said, recorded, and done by the next run."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
from dask._task_spec import Task
from distributed import Client, LocalCluster

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.runtime.block_runner import BlockJob, run_blocks
from fcdcc.pipeline.runtime.cluster import SteadyLocalCluster
from fcdcc.storage import OutputMismatchError, open_predictions, verify
from support.jobs import fcdcc, predictions, recorded_chunks
from support.small import IMAGES, Files, make_files

BATCH = 4
BLOCKS = -(-IMAGES // BATCH)

pytestmark = pytest.mark.cluster


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_files(tmp_path)


def test_a_cluster_that_does_not_close_in_time_fails_no_run(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    close = LocalCluster.close

    def too_slow(cluster: LocalCluster, timeout: float | None = None) -> None:
        close(cluster, timeout)
        raise TimeoutError

    monkeypatch.setattr(LocalCluster, "close", too_slow)
    output = str(tmp_path / "out.zarr")
    summary = run(
        JobConfig(
            model=str(files.model), input=str(files.images), output=output, workers=2, n=2,
            tolerate=0, processes=False, progress=False,
        )
    )  # fmt: skip
    assert summary.status == "complete"
    assert "did not close in time" in caplog.text


def test_a_cluster_goes_on_when_a_worker_is_lost_that_it_has_not_heard_of() -> None:
    with SteadyLocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster:
        cluster.scheduler_info["workers"].clear()  # as if it were still to hear of the worker
        [worker] = cluster.scheduler.workers
        cluster.sync(cluster.scheduler.remove_worker, worker, stimulus_id="lost")
        cluster.scale(2)
        until = time.monotonic() + 60
        while not cluster.scheduler_info["workers"]:  # it still hears of workers
            assert time.monotonic() < until
            time.sleep(0.01)


def test_bad_data_fails_its_blocks_alone_and_the_next_run_does_them(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    chunk = files.images / "image" / "c" / "1" / "0" / "0" / "0"  # images 8 … 15: blocks 2 and 3
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:40])
    output = tmp_path / "out.zarr"
    command = ["run", files.model, files.images, output, "--batch", BATCH]
    command += ["--scheduler", scheduler, "--json", "-"]

    first = fcdcc(*command)
    assert first.exit_code == 4, first.output
    summary = json.loads(first.stdout)
    assert (summary["status"], summary["blocks_failed"]) == ("incomplete", 2)
    assert [failure["block"] for failure in summary["failures"]] == [2, 3]
    assert "block 2 (images 8 to 11) failed: InputError" in first.stderr
    assert "2 of 13 blocks failed (2, 3)" in first.stderr
    progress = open_predictions(output).progress()
    assert progress.failed.keys() == {2, 3}
    assert "cannot be read at [8:16" in progress.failed[2]

    chunk.write_bytes(whole)
    second = fcdcc(*command)
    assert second.exit_code == 0, second.output
    assert json.loads(second.stdout)["blocks_done"] == 2
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []


def test_a_full_disk_fails_blocks_in_words_and_the_next_run_finishes(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the fifth block on: nothing more can be flushed to it."""
    output = tmp_path / "out.zarr"
    command = ["run", files.model, files.images, output, "--batch", BATCH, "--in-flight", 1]
    command += ["--scheduler", scheduler, "--json", "-"]
    flush = os.fsync

    def full(descriptor: int) -> None:
        if len([*output.glob("prediction/c.*")]) >= 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr("fcdcc.storage.files.os.fsync", full)
    first = fcdcc(*command)
    assert first.exit_code == 4, first.output
    assert "could not be written: No space left on device; make room" in first.stderr
    done = np.flatnonzero(open_predictions(output).progress().done)
    assert 0 < len(done) < BLOCKS
    kept = recorded_chunks(output)

    monkeypatch.setattr("fcdcc.storage.files.os.fsync", flush)
    second = fcdcc(*command)
    assert second.exit_code == 0, second.output
    assert json.loads(second.stdout)["blocks_skipped"] == len(done)
    after = recorded_chunks(output)
    assert {block: after[block] for block in kept} == kept
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []


@pytest.mark.parametrize("how", ["deleted", pytest.param("moved", marks=pytest.mark.long)])
def test_a_run_whose_output_is_gone_ends_at_once(
    files: Files, scheduler: str, tmp_path: Path, how: str
) -> None:
    output, aside = tmp_path / "out.zarr", tmp_path / "elsewhere.zarr"
    command = ["run", files.model, files.images, output, "--batch", 1, "--in-flight", 1]
    command += ["--scheduler", scheduler, "--log-level", "info"]

    def take_away() -> None:
        while len([*output.glob(".fcdcc/blocks/*.json")]) < 3:
            time.sleep(0.001)
        output.rename(aside)
        if how == "deleted":
            shutil.rmtree(aside)

    thief = threading.Thread(target=take_away, daemon=True)
    thief.start()
    result = fcdcc(*command)
    thief.join()
    assert result.exit_code == 1, result.output
    assert "moved, put aside or deleted by another process" in result.stderr.splitlines()[-1]
    assert len(re.findall(r"block \d+ .*(?:is done|failed)", result.stderr)) < IMAGES
    assert not (output / ".fcdcc" / "runs").exists()
    if how == "moved":
        shutil.rmtree(output, ignore_errors=True)  # of a block that was being written just then
        aside.rename(output)
        assert fcdcc(*command).exit_code == 0
        np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
        assert verify(output) == []


def test_restart_puts_another_jobs_output_aside(
    files: Files, scheduler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out.zarr"
    options: dict[str, Any] = {
        "model": str(files.model),
        "input": str(files.images),
        "output": str(output),
        "scheduler": scheduler,
    }
    run(JobConfig(**options))
    before = predictions(output)
    with pytest.raises(OutputMismatchError, match="restart=True"):
        run(JobConfig(**options, scale="none"))
    with caplog.at_level("WARNING"):
        summary = run(JobConfig(**options, scale="none", restart=True))
    assert summary.blocks_done == summary.blocks_total
    (aside,) = tmp_path.glob("out.zarr.aside-*")
    assert str(aside) in caplog.text
    np.testing.assert_array_equal(predictions(aside), before)
    again = run(JobConfig(**options, scale="none", restart=True))
    assert (again.blocks_done, len([*tmp_path.glob("out.zarr.aside-*")])) == (0, 1)


def die() -> None:
    os._exit(1)


def test_a_block_that_kills_its_workers_fails_alone() -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        jobs = []
        for block in range(4):
            key = ("block", block)
            task = Task(key, die) if block == 1 else Task(key, abs, -block)
            jobs.append(BlockJob(block, {key: task}, key))
        outcomes = [o for o in run_blocks(client, jobs, 4, 0.1) if o is not None]
    errors = {outcome.block: outcome.error for outcome in outcomes}
    assert sorted(errors) == [0, 1, 2, 3]
    assert [block for block, error in errors.items() if error is not None] == [1]
    assert type(errors[1]).__name__ == "KilledWorker"


@pytest.mark.parametrize(
    ("signal_number", "how"),
    [
        (signal.SIGTERM, "--threads"),
        pytest.param(signal.SIGINT, "--processes", marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_a_run_and_the_next_one_goes_on(
    files: Files, scheduler: str, tmp_path: Path, signal_number: int, how: str
) -> None:
    output = tmp_path / "out.zarr"
    options = ["--batch", "2", "--in-flight", "1", how, "--workers", "2"]
    options += ["--dashboard-address", ":0"]
    command = ["run", str(files.model), str(files.images), str(output), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "fcdcc.pipeline", *command],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    children: list[psutil.Process] = []
    try:
        while len([*output.glob(".fcdcc/blocks/*.json")]) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        if signal_number == signal.SIGINT:  # as a terminal does: to all processes at once
            os.killpg(process.pid, signal_number)
        else:
            process.send_signal(signal_number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    told = re.search(rf"interrupted: at least (\d+) of {IMAGES // 2} blocks done: run the", said)
    assert told, said
    assert "Traceback" not in said
    psutil.wait_procs(children, timeout=60)
    assert not [child for child in children if child.is_running()]
    done = np.flatnonzero(open_predictions(output).progress().done)
    assert 3 <= len(done) < IMAGES // 2
    assert int(told[1]) <= len(done)
    kept = recorded_chunks(output)
    result = fcdcc(*command[:4], "--batch", 2, "--scheduler", scheduler, "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["blocks_skipped"] == len(done)
    after = recorded_chunks(output)
    assert {block: after[block] for block in kept} == kept
    assert verify(output) == []
