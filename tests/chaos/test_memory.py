"""Workers at their memory limit: their nannies end them, and the job says why and goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
import zarr
from distributed import Client, LocalCluster
from distributed.scheduler import KilledWorker
from torch import nn

from fcdcc.pipeline.runtime.block_runner import MAX_DEADLY_BLOCKS
from fcdcc.storage import open_predictions, verify
from support.jobs import fcdcc, predictions
from support.small import IMAGES, make_files

LIMIT = "700MB"
WORKERS = 2

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of two worker processes with little memory.

    Dask gives a task up when the first worker has died of it, not the fourth: it is quicker.
    """
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.worker.memory.monitor-interval": "20ms",
        # A local cluster closes the nanny of a worker this long after the worker was lost, even
        # if the nanny has started another one meanwhile.
        "distributed.deploy.lost-worker-timeout": "1h",
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            memory_limit=LIMIT,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster.scheduler_address


def bomb(size: int) -> bytes:
    """Return a frame of Zstandard, some kilobytes, that decompresses to so many zeros."""
    frame = bytearray(b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little"))
    most, left = 1 << 17, size
    while left:
        run = min(left, most)
        left -= run
        frame += ((run << 3) | (1 << 1) | (not left)).to_bytes(3, "little") + b"\0"
    return bytes(frame)


def said(result: Any) -> dict[str, Any]:
    """Return the summary of a run some of whose blocks failed."""
    assert result.exit_code == 4, result.output
    assert "Traceback" not in result.output
    summary: dict[str, Any] = json.loads(result.stdout)
    for failure in summary["failures"]:
        assert "killed every worker that ran it" in failure["reason"]
        assert "they ran out of memory: use a smaller --batch" in failure["reason"]
    return summary


def assert_alive(scheduler: str) -> None:
    """Wait until all workers are there again, and do something."""
    with Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        for attempt in range(WORKERS + 1):  # a worker may still be ending for its memory
            with suppress(KilledWorker):
                assert client.submit(abs, -3 - attempt).result(timeout=60) == 3 + attempt
                return
        raise AssertionError("every worker ended")


def test_images_that_are_too_large_fail_in_words_and_the_others_are_done(
    scheduler: str, tmp_path: Path
) -> None:
    """A chunk that decompresses to far more than its metadata says."""
    files = make_files(tmp_path)
    chunk = files.images / "image" / "c" / "1" / "0" / "0" / "0"  # images 8 … 15: blocks 2 and 3
    whole = chunk.read_bytes()
    chunk.write_bytes(bomb(4 * 2**30))
    output = tmp_path / "out.zarr"
    command = ["run", files.model, files.images, output, "--scheduler", scheduler, "--json", "-"]
    command += ["--batch", 4, "--n", 3, "--tolerate", 1, "--in-flight", 2]

    first = said(fcdcc(*command))
    assert [failure["block"] for failure in first["failures"]] == [2, 3]
    assert first["blocks_done"] == first["blocks_total"] - 2
    # Both workers for each of the two blocks, and as many when a block is tried by itself.
    assert len(first["workers_lost"]) <= 2 * 2 * WORKERS
    assert_alive(scheduler)
    others = np.setdiff1d(np.arange(IMAGES), np.arange(8, 16))
    np.testing.assert_allclose(predictions(output)[others], files.expected[others], atol=1e-5)

    second = said(fcdcc(*command))
    assert [failure["block"] for failure in second["failures"]] == [2, 3]
    assert second["blocks_skipped"] == first["blocks_done"]

    chunk.write_bytes(whole)
    third = fcdcc(*command)
    assert third.exit_code == 0, third.output
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []


def test_a_plan_that_is_too_large_is_refused_or_ends_in_words_after_a_few_workers(
    scheduler: str, tmp_path: Path
) -> None:
    """Refused by what the workers say they have; where that was overruled, a few blocks tell."""
    net = nn.Sequential(
        nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    size, images = 1024, 40
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (torch.zeros(2, 3, size, size),), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "wide.pt2")
    zarr.create_group(tmp_path / "large.zarr").create_array(
        "image", shape=(images, 3, size, size), chunks=(1, 3, size, size), dtype="uint8",
        dimension_names=list("ncyx"),
    )  # fmt: skip
    output = tmp_path / "out.zarr"
    command = ["run", tmp_path / "wide.pt2", tmp_path / "large.zarr", output]
    command += ["--scheduler", scheduler, "--json", "-"]
    command += ["--batch", 2, "--n", 2, "--tolerate", 1, "--in-flight", 2]
    refused = fcdcc(*command)
    assert refused.exit_code == 2
    assert "MiB are allowed: take a smaller --batch" in refused.stderr
    assert not output.exists()

    command += ["--memory", "64GiB"]  # they do not have that
    before: set[int] = set()
    for _ in range(2):  # the next run says the same, of others
        result = fcdcc(*command)
        summary = said(result)
        assert (summary["blocks_done"], summary["blocks_failed"]) == (0, MAX_DEADLY_BLOCKS)
        assert "17 blocks are left: none could be made, and 3 of them" in result.stderr
        assert len(summary["workers_lost"]) <= 2 * WORKERS * (MAX_DEADLY_BLOCKS + 2)
        failed = {failure["block"] for failure in summary["failures"]}
        assert open_predictions(output).progress().failed.keys() == failed
        assert not before & failed
        before = failed
        assert_alive(scheduler)
