"""Outputs and plans of an older version: continued, verified, reported and run.

``data/output-30f3ad6`` holds what commit 30f3ad6 wrote. The images were read from
``memory://example/images.zarr``: where images are is part of what identifies a job, and a
store in memory is at the same place for every test. ``plan.json`` was saved with
``fcdcc plan --split rows --batch 2 --redundancy eager --json plan.json``. ``out.zarr`` was
begun by six worker threads with that plan and ``--classes names.txt`` while the first chunk
of the images was damaged, so that blocks 0, 1 and 2 failed. SIGTERM ended the run when
blocks 3 to 6 of 12 were done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray

from fcdcc.pipeline import Plan
from support.jobs import fcdcc, predictions, recorded_chunks

DATA = Path(__file__).parent / "data" / "output-30f3ad6"
IMAGES, BLOCKS = 24, 12
INPUT = "memory://example/images.zarr"
DONE, FAILED = [3, 4, 5, 6], [0, 1, 2]

pytestmark = pytest.mark.cluster


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A copy of the folder, its images in memory."""
    memory = fsspec.filesystem("memory")
    memory.put(str(DATA / "images.zarr"), "/example/images.zarr", recursive=True)
    yield shutil.copytree(DATA, tmp_path / "old")
    memory.rm("/example", recursive=True)


def expected(folder: Path) -> NDArray[Any]:
    """Return what PyTorch makes of the images."""
    pixels = torch.from_numpy(zarr.open_group(INPUT, mode="r")["image"][:])
    with torch.inference_mode():
        made = torch.export.load(folder / "model.pt2").module()(pixels.float() / 255)
    values: NDArray[Any] = made.numpy()
    return values


def run(folder: Path, scheduler: str, output: str = "out.zarr", *options: object) -> dict[str, Any]:
    result = fcdcc(
        "run", folder / "model.pt2", INPUT, folder / output, "--scheduler",
        scheduler, "--classes", folder / "names.txt", "--json", "-", *options,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


def assert_right(folder: Path, output: str = "out.zarr") -> None:
    np.testing.assert_allclose(predictions(folder / output), expected(folder), atol=1e-5)
    checked = fcdcc("verify", folder / output)
    assert checked.exit_code == 0, checked.output


def test_its_status_is_known(old: Path) -> None:
    found = fcdcc("status", old / "out.zarr", "--json")
    assert found.exit_code == 4
    status = json.loads(found.stdout)
    assert (status["blocks_total"], status["blocks_done"], status["blocks_failed"]) == (
        BLOCKS, len(DONE), len(FAILED),
    )  # fmt: skip
    assert status["images_done"] == 2 * len(DONE)


def test_it_is_verified(old: Path) -> None:
    output = old / "out.zarr"
    whole = fcdcc("verify", output)
    assert whole.exit_code == 0, whole.output
    stored = output / "prediction" / "c.4.0"
    stored.write_bytes(stored.read_bytes()[:-1])
    damaged = fcdcc("verify", output)
    assert damaged.exit_code == 5
    assert "block 4" in damaged.output


def test_its_run_is_reported(old: Path) -> None:
    output = old / "out.zarr"
    text = " ".join(fcdcc("report", output).output.split())
    assert "4 of 12 blocks done" in text
    assert "8 images in 1.3 s, 5.9 a second, with 6 workers" in text
    assert "It was interrupted when " in text
    for block in FAILED:
        assert f"block {block} failed: InputError" in text
    page = fcdcc("report", output, "--html", "-").output
    [journal] = (output / ".fcdcc" / "runs").glob("*.json")
    for address in json.loads(journal.read_text())["workers"]:
        assert address in page


def test_it_is_continued(old: Path, scheduler: str) -> None:
    output = old / "out.zarr"
    before = recorded_chunks(output)
    assert [*before] == DONE
    summary = run(old, scheduler)
    assert (summary["blocks_skipped"], summary["blocks_done"]) == (len(DONE), BLOCKS - len(DONE))
    assert_right(old)
    after = recorded_chunks(output)
    assert {block: after[block] for block in before} == before
    with xr.open_zarr(output) as stored:
        assert stored["image_id"].values.tolist() == [10 * image for image in range(IMAGES)]
        assert stored["class"].values.tolist() == ["ant", "bee", "cat"]
    text = fcdcc("report", output).output
    assert "interrupted" in text
    assert "complete" in text


@pytest.mark.parametrize(
    ("options", "shares"),
    [(("--n", 4), "2 of 4"), (("--n", 5, "--tolerate", 2, "--code", "crme"), "3 of 5, crme")],
    ids=str,
)
def test_it_is_continued_with_other_shares(
    old: Path, scheduler: str, options: tuple[object, ...], shares: str
) -> None:
    output = old / "out.zarr"
    before = recorded_chunks(output)
    summary = run(old, scheduler, "out.zarr", *options)
    assert (summary["status"], summary["blocks_failed"]) == ("complete", 0)
    assert_right(old)
    after = recorded_chunks(output)
    assert {block: after[block] for block in before} == before
    assert fcdcc("status", output).exit_code == 0
    text = fcdcc("report", output).output
    assert "4 of 6" in text
    assert shares in text


def test_it_grows_with_its_input(old: Path, scheduler: str) -> None:
    images = zarr.open_group(INPUT)
    for name in ("image", "image_id"):
        images[name].append(images[name][:3])
    summary = run(old, scheduler)
    assert (summary["status"], summary["images_done"]) == ("complete", IMAGES + 3 - 2 * len(DONE))
    assert_right(old)


def test_what_cannot_be_known_of_it_is_said_once(old: Path, scheduler: str) -> None:
    command = [old / "model.pt2", INPUT, old / "out.zarr", "--classes", old / "names.txt"]
    for again in (False, True):
        result = fcdcc("run", *command, "--scheduler", scheduler)
        assert result.exit_code == 0, result.output
        said = " ".join(result.stderr.split())
        assert said.count("4 blocks were made by an older version that did not record") == 1, again
    checked = fcdcc("verify", old / "out.zarr")
    assert checked.exit_code == 0
    assert "whether 4 blocks still belong to the input is not known" in checked.output
    assert "use another output to make them again" in said
    command[2] = old / "new.zarr"
    result = fcdcc("run", *command, "--scheduler", scheduler)
    assert result.exit_code == 0, result.output
    assert "an older version" not in result.stderr


def test_image_ids_that_moved_are_followed(old: Path, scheduler: str) -> None:
    images = zarr.open_group(INPUT)
    for name in ("image", "image_id"):
        values = images[name][:]
        images[name].append(values[:1])
        images[name][:] = np.concatenate([values[:8], values[:1], values[8:]])
    images["image_id"][8] = 7
    summary = run(old, scheduler)
    # Block 3 has the images 6 and 7 as before.
    assert (summary["blocks_skipped"], summary["redone"]) == (1, {"image_ids": 3})
    assert_right(old)
    with xr.open_zarr(old / "out.zarr") as stored:
        assert stored["image_id"].values[7:10].tolist() == [70, 7, 80]


def test_another_job_is_refused(old: Path) -> None:
    command = ["run", old / "model.pt2", INPUT, old / "out.zarr", "--scale", "none"]
    result = fcdcc(*command, "--classes", old / "names.txt")
    assert result.exit_code == 2
    assert "made by another job (preparation.scale" in result.output


def test_a_saved_plan_is_run(old: Path, scheduler: str) -> None:
    saved = (old / "plan.json").read_text("utf-8")
    plan = Plan.from_json(saved)
    assert (plan.n, plan.tolerate, plan.batch, plan.redundancy) == (6, 2, 2, "eager")
    assert plan.forecast is not None
    summary = run(old, scheduler, "new.zarr", "--plan", old / "plan.json")
    assert (summary["status"], summary["blocks_done"]) == ("complete", BLOCKS)
    assert summary["planned"]["seconds"] > 0
    assert_right(old, "new.zarr")
