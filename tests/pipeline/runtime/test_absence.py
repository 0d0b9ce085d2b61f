"""Chunks of the images that are not stored: counted, and their blocks made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray

from fcdcc.pipeline.runtime import absence
from fcdcc.storage import open_predictions
from support.jobs import fcdcc, predictions, recorded_chunks
from support.small import SHAPE, SmallNet, make_files

pytestmark = pytest.mark.cluster

IMAGES = 40
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("small")).model


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.float32]:
    return np.random.default_rng(4).random((IMAGES, *SHAPE), dtype=np.float32)


def expected(images: NDArray[np.float32]) -> NDArray[np.float32]:
    torch.manual_seed(11)
    with torch.inference_mode():
        made: NDArray[np.float32] = SmallNet().eval()(torch.from_numpy(images)).numpy()
    return made


def store(place: Path, images: NDArray[np.float32], absent: tuple[int, ...]) -> Any:
    """Store images in chunks of ten, some of which are missing; return the array."""
    group = zarr.open_group(place, mode="w")
    array = group.create_array(
        "image", data=images, chunks=(10, *SHAPE), dimension_names=tuple("ncyx")
    )
    for number in absent:
        (place / f"image/c/{number}/0/0/0").unlink()
    return array


@pytest.fixture
def run(model: Path, scheduler: str, tmp_path: Path) -> Run:
    def run_job(*options: object, code: int = 0, batch: int = 5) -> dict[str, Any]:
        result = fcdcc(
            "run", model, tmp_path / "i.zarr", tmp_path / "o.zarr", "--scheduler", scheduler,
            "--batch", batch, "--json", tmp_path / "summary.json", *options,
        )  # fmt: skip
        assert result.exit_code == code, result.output
        summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
        summary["said"] = " ".join(result.stderr.split())
        return summary

    return run_job


def test_blocks_without_all_chunks_are_made_again_when_these_are_there(
    tmp_path: Path, run: Run, pixels: NDArray[np.float32], model: Path
) -> None:
    array = store(tmp_path / "i.zarr", pixels, absent=(1, 3))
    planned = fcdcc("plan", model, tmp_path / "i.zarr")
    assert "2 of 4 chunks are not stored" in " ".join(planned.stdout.split())
    first = run()
    assert (first["status"], first["blocks_done"]) == ("complete", 8)
    assert (first["blocks_provisional"], first["chunks_absent"]) == (4, 2)
    assert "2 of 4 chunks are not stored" in first["said"]
    assert "2 chunks of the images are not stored" in first["said"]
    status = fcdcc("status", tmp_path / "o.zarr", "--json")
    assert status.exit_code == 0
    assert json.loads(status.stdout)["blocks_provisional"] == 4
    zeros = pixels.copy()
    zeros[10:20] = zeros[30:] = 0
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(zeros), atol=1e-5)
    again = run()
    assert (again["blocks_done"], again["blocks_provisional"], again["chunks_absent"]) == (0, 4, 2)
    before = recorded_chunks(tmp_path / "o.zarr")
    array[10:20] = pixels[10:20]
    second = run()
    assert (second["blocks_done"], second["blocks_skipped"]) == (2, 6)
    assert (second["blocks_provisional"], second["chunks_absent"]) == (2, 1)
    assert "2 blocks are made again" in second["said"]
    after = recorded_chunks(tmp_path / "o.zarr")
    assert {block for block in before if before[block] != after[block]} == {2, 3}
    array[30:] = pixels[30:]
    third = run()
    assert (third["blocks_done"], third["blocks_provisional"]) == (2, 0)
    assert "not stored" not in third["said"].replace("were not stored, and are now", "")
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)
    verified = fcdcc("verify", tmp_path / "o.zarr")
    assert verified.exit_code == 0, verified.output


def test_the_plan_says_what_happens_to_blocks_without_all_chunks(
    tmp_path: Path, pixels: NDArray[np.float32], model: Path
) -> None:
    store(tmp_path / "i.zarr", pixels, absent=(1, 3))
    said = {}
    for options in ((), ("--absent", "fail"), ("--compare", "contents")):
        planned = fcdcc("plan", model, tmp_path / "i.zarr", *options)
        assert planned.exit_code == 0, planned.output
        said[options] = " ".join(planned.stdout.split())
    assert "2 of 4 chunks are not stored and are read as the fill value" in said[()]
    assert (
        "2 of 4 chunks are not stored, and blocks that need what is missing fail"
        in said[("--absent", "fail")]
    )
    assert "reads all" not in said[()]
    assert "each run reads all 120.00 kiB of them" in said[("--compare", "contents")]


def test_an_array_that_grows_before_it_is_filled(
    tmp_path: Path, run: Run, pixels: NDArray[np.float32]
) -> None:
    array = store(tmp_path / "i.zarr", pixels[:20], absent=())
    run()
    array.resize((40, *SHAPE))
    array[20:30] = pixels[20:30]
    assert run()["blocks_provisional"] == 2
    array[30:] = pixels[30:]
    assert (run()["blocks_done"], run()["blocks_done"]) == (2, 0)
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)


def test_absent_chunks_can_be_failures(
    tmp_path: Path, run: Run, pixels: NDArray[np.float32]
) -> None:
    array = store(tmp_path / "i.zarr", pixels, absent=(2,))
    first = run("--absent", "fail", code=4)
    assert (first["blocks_done"], first["blocks_failed"], first["status"]) == (6, 2, "incomplete")
    assert [failure["block"] for failure in first["failures"]] == [4, 5]
    assert "chunks of its images are not stored (image 2)" in first["failures"][0]["reason"]
    assert np.isnan(predictions(tmp_path / "o.zarr")[20:30]).all()
    # As the message says: with --absent redo, or when they are there.
    assert run("--absent", "redo")["blocks_provisional"] == 2
    assert run("--absent", "fail", code=4)["blocks_failed"] == 2
    array[20:30] = pixels[20:30]
    last = run("--absent", "fail")
    assert (last["status"], last["blocks_done"], last["blocks_provisional"]) == ("complete", 2, 0)
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)


def test_every_block_that_needs_a_chunk_is_provisional(
    tmp_path: Path, run: Run, pixels: NDArray[np.float32]
) -> None:
    array = store(tmp_path / "i.zarr", pixels, absent=(1,))
    assert run(batch=8)["blocks_provisional"] == 2  # images 8 to 15 and 16 to 23
    records = open_predictions(tmp_path / "o.zarr").progress().provisional
    assert [*records] == [1, 2]
    array[10:20] = pixels[10:20]
    assert run(batch=8)["blocks_done"] == 2


def test_images_that_are_all_there_are_not_provisional(
    tmp_path: Path, run: Run, pixels: NDArray[np.float32]
) -> None:
    store(tmp_path / "i.zarr", pixels, absent=())
    summary = run()
    assert (summary["blocks_provisional"], summary["chunks_absent"]) == (0, 0)
    assert "not stored" not in summary["said"]


def test_the_sample_is_of_a_chunk_that_is_stored(
    tmp_path: Path, run: Run, pixels: NDArray[np.float32]
) -> None:
    store(tmp_path / "i.zarr", pixels, absent=(0, 1))
    sample = run()["sample"]
    assert sample["channels"][0]["largest"] == pytest.approx(pixels[20:28, 0].max())


def test_a_store_that_does_not_list_its_chunks_is_named_once(
    tmp_path: Path, run: Run, pixels: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    array = store(tmp_path / "i.zarr", pixels[:20], absent=(1,))
    assert run()["blocks_provisional"] == 2
    array.resize((30, *SHAPE))
    monkeypatch.setattr(absence, "list_chunks", lambda *_: None)
    summary = run()
    assert summary["said"].count("does not list its chunks") == 1
    assert (summary["blocks_done"], summary["blocks_provisional"]) == (2, 2)
