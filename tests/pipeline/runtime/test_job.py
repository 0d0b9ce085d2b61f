"""Whole jobs on real clusters: right answers, whatever happens to the workers."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline import JobConfig, Summary, run
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from fcdcc.storage import LockedError, OutputMismatchError, hold, verify
from support.fork_server import worker_processes
from support.jobs import predictions
from support.small import IMAGES, Files

BATCH = 4
BLOCKS = -(-IMAGES // BATCH)

pytestmark = pytest.mark.cluster


def config(files: Files, output: Path, **options: Any) -> JobConfig:
    defaults: dict[str, Any] = {"batch": BATCH, "dashboard_address": ":0"}
    return JobConfig(
        model=str(files.model),
        input=str(files.images),
        output=str(output),
        **{**defaults, **options},
    )


def assert_right(files: Files, output: Path, summary: Summary) -> None:
    assert summary.status == "complete"
    assert summary.blocks_failed == 0
    made = predictions(output)
    np.testing.assert_allclose(made, files.expected, atol=1e-5)
    np.testing.assert_array_equal(made.argmax(1), files.expected.argmax(1))
    assert verify(output) == []


class AtBlock(Quiet):
    """Does something once, when so many blocks are done."""

    def __init__(self, blocks: int, action: Callable[[], None]) -> None:
        self._blocks = blocks
        self._action: Callable[[], None] | None = action

    def advance(self, advance: RunProgress) -> None:
        if self._action is not None and advance.blocks_done >= self._blocks:
            action, self._action = self._action, None
            action()


def test_a_job_gives_what_pytorch_gives(files: Files, scheduler: str, tmp_path: Path) -> None:
    summary = run(config(files, tmp_path / "out.zarr", scheduler=scheduler))
    assert_right(files, tmp_path / "out.zarr", summary)
    assert (summary.blocks_total, summary.blocks_done) == (BLOCKS, BLOCKS)
    assert summary.images_done == IMAGES
    assert summary.groups == BLOCKS


def test_a_second_run_does_nothing_and_changes_nothing(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    run(config(files, output, scheduler=scheduler))
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    again = run(config(files, output, scheduler=scheduler))
    assert (again.status, again.blocks_done, again.blocks_skipped) == ("complete", 0, BLOCKS)
    after = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert after == before


def test_an_interrupted_run_is_continued(files: Files, scheduler: str, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config(files, output, scheduler=scheduler, in_flight=2), AtBlock(3, interrupt))
    summary = run(config(files, output, scheduler=scheduler))
    assert summary.blocks_skipped >= 3
    assert summary.blocks_done + summary.blocks_skipped == BLOCKS
    assert_right(files, output, summary)


def test_only_the_first_images_and_later_the_others(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    first = run(config(files, output, scheduler=scheduler, limit=10))
    assert (first.images_done, len(predictions(output))) == (10, 10)
    rest = run(config(files, output, scheduler=scheduler))
    assert rest.blocks_skipped == 10 // BATCH
    assert_right(files, output, rest)


def test_without_redundancy_all_is_bit_for_bit(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    for name in ("one.zarr", "two.zarr"):
        run(config(files, tmp_path / name, scheduler=scheduler, redundancy="off"))
    np.testing.assert_array_equal(
        predictions(tmp_path / "one.zarr"), predictions(tmp_path / "two.zarr")
    )


def test_nothing_is_left_on_a_cluster_that_is_not_ours(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    run(config(files, tmp_path / "out.zarr", scheduler=scheduler))
    with Client(scheduler, set_as_default=False) as client:

        def tasks_left(dask_scheduler: Any) -> int:
            return len(dask_scheduler.tasks)

        assert client.run_on_scheduler(tasks_left) == 0


def test_another_jobs_output_is_refused(files: Files, scheduler: str, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    run(config(files, output, scheduler=scheduler))
    with pytest.raises(OutputMismatchError, match=r"preparation.*restart=True"):
        run(config(files, output, scheduler=scheduler, scale="none"))


def test_a_second_run_at_the_same_time_leaves(files: Files, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    with hold(output), pytest.raises(LockedError, match=str(os.getpid())):
        run(config(files, output))
    assert not output.exists()


def test_one_process_with_fewer_workers_than_shares_says_what_is_protected(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary = run(
        config(
            files, tmp_path / "out.zarr", processes=False, workers=4, limit=12, n=6, tolerate=2,
        )
    )  # fmt: skip
    assert summary.images_done == 12
    assert "4 workers for n = 6 shares" in caplog.text
    assert "1 of the workers may be lost" in caplog.text
    np.testing.assert_allclose(predictions(tmp_path / "out.zarr"), files.expected[:12], atol=1e-5)


@pytest.mark.parametrize(
    ("signal_name", "blocks"),
    [
        ("SIGSTOP", 0),
        ("SIGKILL", 3),
        pytest.param("SIGSTOP", 3, marks=pytest.mark.long),
        pytest.param("SIGSTOP", BLOCKS, marks=pytest.mark.long),
        pytest.param("SIGKILL", 0, marks=pytest.mark.long),
    ],
)
def test_two_of_six_worker_processes_may_go(
    files: Files, tmp_path: Path, signal_name: str, blocks: int
) -> None:
    assert_workers_may_go(files, tmp_path, (6, 2), signal_name, blocks)


@pytest.mark.parametrize(("signal_name", "blocks"), [("SIGSTOP", 3), ("SIGKILL", 3)])
def test_one_of_two_worker_processes_may_go(
    files: Files, tmp_path: Path, signal_name: str, blocks: int
) -> None:
    assert_workers_may_go(files, tmp_path, (2, 1), signal_name, blocks)


def assert_workers_may_go(
    files: Files, folder: Path, counts: tuple[int, int], signal_name: str, blocks: int
) -> None:
    """Run a job; some of its worker processes get a signal when so many blocks are done."""
    workers, lost = counts
    victims: list[psutil.Process] = []

    def strike() -> None:
        victims.extend(worker_processes()[:lost])
        for victim in victims:
            victim.send_signal(getattr(signal, signal_name))

    output = folder / "out.zarr"
    try:
        summary = run(config(files, output, workers=workers), AtBlock(blocks, strike))
    finally:
        for victim in victims:
            if victim.is_running():
                victim.kill()
    assert len(victims) == lost
    assert_right(files, output, summary)


@pytest.mark.long
def test_a_run_on_a_running_cluster_names_a_worker_that_was_removed(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output, victims = tmp_path / "out.zarr", dict[str, int]()
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        found = client.run(os.getpid)

        def strike() -> None:
            address = next(iter(found))
            victims[address] = found[address]
            os.kill(found[address], signal.SIGSTOP)

        try:
            job = config(files, output, scheduler=cluster.scheduler_address, batch=1)
            summary = run(job, AtBlock(3, strike))
        finally:
            for victim in victims.values():
                os.kill(victim, signal.SIGKILL)
    assert_right(files, output, summary)
    [(address, process)] = victims.items()
    called = rf"{re.escape(address)} \(worker \d, pid {process}\)"
    named = f"^worker {called} does not answer and was removed"
    assert [text for text in caplog.messages if re.match(named, text)]


class Slow(Quiet):
    """Waits after each block until something holds; does something else once, before."""

    def __init__(self, action: Callable[[], None], until: Callable[[], bool]) -> None:
        self._action: Callable[[], None] | None = action
        self._until = until
        self._done = 0

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done == self._done:
            return
        self._done = advance.blocks_done
        if self._action is not None:
            action, self._action = self._action, None
            action()
        limit = time.monotonic() + 1.0
        while not self._until() and time.monotonic() < limit:
            time.sleep(0.02)


@pytest.mark.long
def test_a_run_warns_once_of_a_worker_that_falls_silent_and_need_not_be_removed(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = re.compile(r"worker (\S+) .*has not answered for \d.* s: others are preferred")

    def warned() -> list[str]:
        return [found[1] for found in map(said.match, caplog.messages) if found]

    output = tmp_path / "out.zarr"
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        victim, process = next(iter(client.run(os.getpid).items()))
        kept = client.submit(int, 1, workers=[victim])  # another user's, so it is not removed
        assert kept.result() == 1

        def strike() -> None:
            os.kill(process, signal.SIGSTOP)

        job = config(files, output, scheduler=cluster.scheduler_address, batch=1, in_flight=1)
        try:
            summary = run(job, Slow(strike, lambda: bool(warned())))
        finally:
            os.kill(process, signal.SIGKILL)
    assert_right(files, output, summary)
    assert warned() == [victim]
    assert summary.workers_lost == ()


def test_a_job_runs_in_a_thread_of_its_own(files: Files, scheduler: str, tmp_path: Path) -> None:
    summaries: list[Summary] = []
    thread = threading.Thread(
        target=lambda: summaries.append(
            run(config(files, tmp_path / "out.zarr", scheduler=scheduler, limit=8))
        )
    )
    thread.start()
    thread.join()
    assert summaries[0].images_done == 8
