"""Transfers from workers that do not answer any more."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline.anyk import AnyKPlugin


def connect_once_told(dask_worker: Any, address: str) -> None:
    """Connect to a worker right after the message that it was removed, as a transfer may."""
    usual = dask_worker.stream_handlers["remove-worker"]

    def handle(**message: Any) -> None:
        usual(**message)
        if not hasattr(dask_worker, "late_connection"):
            connecting = dask_worker.rpc.connect(address)
            dask_worker.late_connection = asyncio.ensure_future(connecting)

    dask_worker.stream_handlers["remove-worker"] = handle


def how_it_ended(dask_worker: Any) -> str | None:
    """Return the kind of error with which that connection ended; None as long as it waits."""
    connection = getattr(dask_worker, "late_connection", None)
    if connection is None or not connection.done():
        return None
    return type(connection.exception()).__name__


async def remove(dask_scheduler: Any, address: str) -> None:
    await dask_scheduler.remove_worker(address, close=False, stimulus_id="a test")


@pytest.mark.cluster
def test_a_worker_that_connects_to_a_removed_one_too_late_does_not_wait_for_ever() -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(AnyKPlugin())
        (stopped, process), (other, _) = client.run(os.getpid).items()
        client.run(connect_once_told, address=stopped, workers=[other])
        os.kill(process, signal.SIGSTOP)
        try:
            client.run_on_scheduler(remove, address=stopped)
            until = time.monotonic() + 60
            while (ended := client.run(how_it_ended, workers=[other])[other]) is None:
                assert time.monotonic() < until, "it still waits"
                time.sleep(0.1)
            assert ended == "CommClosedError"
            assert psutil.Process(process).status() == psutil.STATUS_STOPPED  # its end is not why
        finally:
            with suppress(ProcessLookupError):  # its nanny kills it after a while
                os.kill(process, signal.SIGKILL)
