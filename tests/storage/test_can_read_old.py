"""Outputs that older versions wrote stay readable: one of each schema is kept in ``data``."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fcdcc.storage import (
    Coordinate,
    check_fingerprint,
    inspect_output,
    open_predictions,
    resize_predictions,
    verify,
)
from fcdcc.storage.records import BlockRecord, read_records
from support.stored import FINGERPRINT, LOGITS, answers, fill

OUTPUTS = sorted((Path(__file__).parent / "data").glob("output-schema-*"))
IDS = Coordinate("image_id", "n", np.arange(18) * 7)


@pytest.fixture(params=OUTPUTS, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an output of 18 images: blocks 0 to 2 done, 3 failed, 4 not tried."""
    folder: Path = shutil.copytree(request.param, tmp_path / "out")
    return folder


def test_there_is_one_of_the_present_schema() -> None:
    assert [path.name for path in OUTPUTS] == ["output-schema-1"]


def test_its_job_is_known(old: Path) -> None:
    run = inspect_output(old)
    assert run is not None
    check_fingerprint(old, run, FINGERPRINT)
    assert run.plan == {"layers": [{"k_a": 4, "k_b": 2}]}
    assert (run.batch, run.dim, run.arrays) == (4, "n", (LOGITS,))
    assert run.attributes == {"model": "lenet.pt2"}


def test_its_records_count(old: Path) -> None:
    store = open_predictions(old)
    progress = store.progress()
    assert progress.done.tolist() == [True, True, True, False, False]
    assert progress.failed == {3: "image 13 is cut off"}
    records = [record for _, record in read_records(store.folder)]
    first = next(r for r in records if isinstance(r, BlockRecord) and r.block == 0)
    assert first.warnings == ("a warning",)
    assert first.details == {"seconds": 0.5}
    assert first.written.startswith("20")


def test_it_is_undamaged_and_its_predictions_are_read(old: Path) -> None:
    assert verify(old) == []
    store = open_predictions(old)
    assert np.array_equal(store.read(1), answers(store, 1))
    with xr.open_zarr(old) as dataset:
        assert dataset["prediction"].to_numpy()[:12, 0].tolist() == list(range(12))
        assert dataset["image_id"].to_numpy()[2] == 14
        assert dataset["class"].to_numpy().tolist() == ["ant", "bee", "cat", "dog", "elk"]


def test_it_is_continued_and_grows(old: Path) -> None:
    before = {path: path.read_bytes() for path in old.glob("prediction/c.*")}
    repaired: list[list[str]] = []
    store = resize_predictions(old, 18, [IDS], on_repair=repaired.append)
    assert repaired == []  # what an older version wrote is not damaged
    assert fill(store) == [3, 4]
    store = resize_predictions(old, 19, [Coordinate("image_id", "n", np.arange(19))])
    assert fill(store) == [4]
    assert verify(old) == []
    assert {path: path.read_bytes() for path in before} == before
