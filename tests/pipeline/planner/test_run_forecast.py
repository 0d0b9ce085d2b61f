"""What a run is expected to cost: for the blocks and images that it computes, and no others."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from fcdcc.pipeline.options import JobConfig
from fcdcc.pipeline.planner.cost.known_workers import workers_of_options
from fcdcc.pipeline.plans.forecast import Forecast, RunForecast, Speeds, WorkerPool
from fcdcc.pipeline.runtime import job_plan
from fcdcc.pipeline.runtime.cluster import Cluster
from fcdcc.pipeline.runtime.job_plan import open_job
from fcdcc.storage import BlockLayout
from support.small import Files

IMAGE_BYTES = 3 * 16 * 16
"""Of an image of ``files``, which are in chunks of 8."""

IMAGES = 44

IMAGE_WORK = 16 * 16 * 9 * (3 * 8 + 8 * 8) + 8 * 8 * 8 * 10
"""Multiply-adds of an image: two convolutions and a classifier."""


def run_forecast(
    files: Files,
    patch: pytest.MonkeyPatch,
    pending: list[int],
    layout: BlockLayout | None = None,
    **options: object,
) -> RunForecast:
    """Return what a run of some blocks is expected to cost, where an image takes a second."""
    config = JobConfig(
        model=str(files.model), input=str(files.images), output="-", split="images", limit=IMAGES,
        in_flight=2, **options,  # type: ignore[arg-type] # pydantic checks the types of options
    )  # fmt: skip
    opened = open_job(config)
    speeds = Speeds(
        multiply_adds=IMAGE_WORK, touched=1e30, task=0.0, scheduler=0.0, fetch=0.0, copied=1e30,
        link=1e30, hop=0.0, parallel=float(options["workers"]),  # type: ignore[arg-type] # every caller gives an int
    )  # fmt: skip
    known = workers_of_options(config).with_speeds(speeds)
    plan = job_plan.job_plan(opened.config, opened.network, opened.source, known)
    patch.setattr(job_plan, "workers_of_client", lambda *_: known)
    patch.setattr(job_plan, "cluster_workers", lambda _: {})
    layout = layout or BlockLayout(opened.source.images, plan.batch)
    cluster = cast("Cluster", SimpleNamespace(client=None))
    return job_plan.forecast_of_run(
        opened.config, plan, opened.network, cluster, opened.source, layout, pending
    )


@pytest.mark.parametrize(
    ("batch", "pending", "images"),
    [
        (8, [5], 4),  # a run that continues an output with the last, partly full block
        (8, [4, 5], 12),
        (8, [0], 8),  # one block, although two would be in flight
        (8, [0, 1, 2, 3, 4, 5], 44),
        (4, [*range(11)], 44),  # more than are simulated
        (8, [5, 0, 1, 2, 3], 36),  # the last had failed
    ],
)
def test_on_one_worker_a_run_takes_the_time_of_its_images(
    files: Files, monkeypatch: pytest.MonkeyPatch, batch: int, pending: list[int], images: int
) -> None:
    """Redundancy and plain inference alike: nothing is coded."""
    options = {"n": 1, "tolerate": 0, "workers": 1, "batch": batch}
    found = run_forecast(files, monkeypatch, pending, **options)
    told = found.expected(len(pending))
    assert told["seconds"] == pytest.approx(images, rel=0.01)
    assert told["plain_seconds"] == pytest.approx(images, rel=0.01)


def test_blocks_of_which_none_is_full_take_the_time_of_their_images(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the bands of 4 images, in blocks of up to 8, are."""
    layout = BlockLayout(images=4, batch=8, rows=16, band=1)
    pending = [*range(16)]
    found = run_forecast(files, monkeypatch, pending, layout, n=1, tolerate=0, workers=1, batch=8)
    told = found.expected(16)
    assert told["seconds"] == pytest.approx(64.0, rel=0.01)
    assert told["plain_seconds"] == pytest.approx(64.0, rel=0.01)


@pytest.mark.parametrize(
    ("pending", "seconds", "plain"),
    [
        (
            [5],
            4.0,
            2.0,
        ),  # 4 images in 4 of the 8 parts: the other share has zeros; or 2 and 2
        ([4], 4.0, 3.0),  # 8 images: 4 on each of 2 workers, or 3, 3 and 2 on 3
    ],
)
def test_the_time_of_redundancy_and_of_plain_inference_are_of_the_same_images(
    files: Files, monkeypatch: pytest.MonkeyPatch, pending: list[int], seconds: float, plain: float
) -> None:
    found = run_forecast(files, monkeypatch, pending, n=3, tolerate=1, workers=3, batch=8)
    told = found.expected(1)
    assert told["seconds"] == pytest.approx(seconds, rel=0.01)
    assert told["plain_seconds"] == pytest.approx(plain, rel=0.01)


@pytest.mark.parametrize(("pending", "images"), [([5], 0), ([4], 4), ([0, 1, 2, 5], 12)])
def test_bytes_are_those_of_the_images_that_a_run_reads(
    files: Files, monkeypatch: pytest.MonkeyPatch, pending: list[int], images: int
) -> None:
    """Half of each chunk of 8 goes to the worker of the other part; the last 4 have one part."""
    found = run_forecast(files, monkeypatch, pending, n=3, tolerate=1, workers=3, batch=8)
    assert found.read_bytes == images * IMAGE_BYTES
    results = found.bytes_sent - found.read_bytes  # of one part, to the worker of the other
    assert results == pytest.approx(len(pending) * 4 * 10 * 4)


def test_a_forecast_of_few_blocks_is_rough() -> None:
    made = Forecast(
        WorkerPool(2), Speeds(), 32, (4.0, 5.0, 8.0, 9.0, 12.0, 13.0), 2.0, 100.0, 0.0, 0.05, 5e8,
        14.0, 9, (),
    )  # fmt: skip
    few = RunForecast(made, blocks=3, work_in_blocks=3.0, in_flight=2, read_bytes=60.0)
    assert few.expected(3) == {
        "seconds": 8.0, "plain_seconds": 14.0, "is_rough": True, "bytes_sent": 360,
        "extra_work": 0.05, "peak_memory": 5e8, "parity_memory": 0.0,
    }  # fmt: skip
    many = replace(few, blocks=8, work_in_blocks=7.5)
    assert many.expected(8)["seconds"] == 16.0  # 13.0 for the first six, and 1.5 more of 2.0
    assert many.expected(8)["bytes_sent"] == 810
    assert not many.expected(8)["is_rough"]
    assert many.expected(4)["seconds"] == 8.0  # half of them failed
