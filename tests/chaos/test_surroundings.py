"""Faults of what a cluster stands on: the network, the clock, the scheduler's own time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.anyk.scheduler import anyk_plugin
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from fcdcc.storage import verify
from support.fork_server import start_program
from support.jobs import predictions
from support.proxy import Proxy
from support.schedulers import own_cluster
from support.small import IMAGES, Files

BATCH = 2
BLOCKS = IMAGES // BATCH

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


class At(Quiet):
    """Does something once, when so many blocks are done."""

    def __init__(self, blocks: int, action: Callable[[], None]) -> None:
        self._blocks, self._action, self.done = blocks, action, False

    def advance(self, advance: RunProgress) -> None:
        if not self.done and advance.blocks_done >= self._blocks:
            self.done = True
            self._action()


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of three workers in this process."""
    with LocalCluster(
        n_workers=3, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


def job(files: Files, output: Path, scheduler: str, n: int = 3, tolerate: int = 1) -> JobConfig:
    return JobConfig(
        model=str(files.model), input=str(files.images), output=str(output),
        scheduler=scheduler, batch=BATCH, in_flight=2, n=n, tolerate=tolerate,
    )  # fmt: skip


def check(files: Files, output: Path) -> None:
    """Check that there is every answer, and that it is right."""
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []


# ----------------------------------------------------------------------------- network


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Behind:
    """A worker all of whose connections, to the scheduler and to others, go through a proxy."""

    def __init__(self, scheduler: str) -> None:
        port = free_port()
        self.proxies = [Proxy(int(scheduler.rpartition(":")[2])), Proxy(port)]
        to_scheduler, to_worker = self.proxies
        self.address = f"tcp://127.0.0.1:{to_worker.port}"
        self.process = start_program(
            "dask_worker", "--no-nanny", "--no-dashboard", "--nthreads", "1",
            "--listen-address", f"tcp://127.0.0.1:{port}", "--contact-address", self.address,
            f"tcp://127.0.0.1:{to_scheduler.port}",
        )  # fmt: skip

    def set(self, **how: float | bool) -> None:
        for proxy in self.proxies:
            for name, value in how.items():
                setattr(proxy, name, value)

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        for proxy in self.proxies:
            proxy.close()


@contextmanager
def one_behind_a_proxy(folder: Path) -> Iterator[tuple[str, Behind]]:
    """A scheduler and three workers, one of them behind a proxy."""
    with own_cluster(folder) as cluster:
        cluster.wait_for_workers()
        behind = Behind(cluster.address)
        try:
            with Client(cluster.address, set_as_default=False) as client:
                client.wait_for_workers(3, timeout=60)
            yield cluster.address, behind
        finally:
            behind.close()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["cut", "delay", "loss"])
def test_a_bad_network_costs_time_and_nothing_else(files: Files, tmp_path: Path, kind: str) -> None:
    how: dict[str, float | bool] = {
        "cut": {"cut": True}, "delay": {"delay": 0.1}, "loss": {"loss": 0.1},
    }[kind]  # fmt: skip
    output = tmp_path / "out.zarr"
    with one_behind_a_proxy(tmp_path) as (scheduler, behind):
        strike = At(3, lambda: behind.set(**how))
        summary = run(job(files, output, scheduler), strike)
        assert strike.done
        assert all(proxy.bytes > 0 for proxy in behind.proxies)
    assert (summary.status, summary.blocks_done) == ("complete", BLOCKS)
    if kind == "cut":
        # Nobody waited for its shares, or it was taken for gone: whichever came first.
        assert summary.erasures or behind.address in summary.workers_lost
    else:
        assert summary.workers_lost == ()
    check(files, output)


# ------------------------------------------------------------------- the scheduler's time


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_a_clock_that_jumps_takes_no_worker_away(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Of the scheduler's machine, as when it is set by hand or after a suspension."""
    import distributed.scheduler

    clock, offset = distributed.metrics.time, [0.0]

    def moved() -> float:
        return clock() + offset[0]

    monkeypatch.setattr(distributed.scheduler, "time", moved)
    monkeypatch.setattr(anyk_plugin, "time", moved)
    output = tmp_path / "out.zarr"
    summary = run(job(files, output, scheduler), At(3, lambda: offset.__setitem__(0, jump)))
    assert summary.status == "complete"
    assert summary.workers_lost == ()
    check(files, output)


@pytest.mark.long
def test_a_scheduler_that_is_busy_for_seconds_takes_no_worker_away(
    files: Files, tmp_path: Path
) -> None:
    """Its event loop is full: it hears nobody, and blames nobody."""
    output = tmp_path / "out.zarr"
    with LocalCluster(
        n_workers=3, processes=True, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:

        def fill() -> None:
            cluster.scheduler.loop.add_callback(time.sleep, 6.0)

        strike = At(3, fill)
        summary = run(job(files, output, cluster.scheduler_address), strike)
    assert strike.done
    assert (summary.status, summary.workers_lost) == ("complete", ())
    check(files, output)
