from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
from rich.console import Console

from fcdcc.pipeline.demo.files import IMAGES, PICTURE, STALLED_OUTPUT, DemoError
from fcdcc.pipeline.demo.show import run_demo


@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.long
def test_two_of_six_workers_are_stopped_and_every_answer_is_the_same(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DemoError, match=r"not empty.*name another one"):
        run_demo(tmp_path, stall=2)
    with pytest.raises(DemoError, match="expected 0 to 2"):
        run_demo(tmp_path / "demo", stall=3)
    said = io.StringIO()
    result = run_demo(tmp_path / "demo", stall=2, console=Console(file=said), images=240)
    assert result.passed, result.problems
    assert result.stalled is not None
    for run in (result.healthy, result.stalled):
        assert run.summary.status == "complete"
        assert run.summary.images_done == run.agreeing == 240
        assert run.accuracy >= 0.97
        assert np.abs(run.predicted - run.plain).max() < 1e-3
        assert any(share.state == "done" for share in run.timeline.shares)
    assert result.healthy.stopped == []
    assert result.stalled.stopped == ["worker 1", "worker 4"]
    erased = {share.worker for share in result.stalled.timeline.shares if share.state == "erased"}
    assert result.stalled.summary.erasures > 0
    assert erased
    assert "240 of 240" in said.getvalue()
    assert result.plain is not None
    assert {fault.worker for fault in result.plain.faults} == {"worker 1", "worker 4"}
    assert 2 <= len(result.plain.blocks) <= 20
    assert f"{len(result.plain.blocks)} of 20 blocks" in said.getvalue()

    files = tmp_path / "demo"
    assert (files / PICTURE).read_bytes().startswith(b"\x89PNG")
    with (
        xr.open_zarr(files / IMAGES) as images,
        xr.open_zarr(files / STALLED_OUTPUT) as predictions,
    ):
        np.testing.assert_array_equal(images["image_id"], predictions["image_id"])
        right = predictions["prediction"].values.argmax(axis=1) == images["label"].values
        assert right.mean() == pytest.approx(result.stalled.accuracy)
    left = [p for p in psutil.Process().children(recursive=True) if p.status() == "stopped"]
    assert not left


@pytest.mark.parametrize("stall", [-1, 3])
def test_more_workers_than_may_be_lost_are_not_stopped(tmp_path: Path, stall: int):
    with pytest.raises(DemoError, match="expected 0 to 2"):
        run_demo(tmp_path / "demo", stall=stall)
    assert not (tmp_path / "demo").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DemoError, match="not empty"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
