"""A disk that is full: blocks fail in words, what is recorded stays, the next run finishes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from fcdcc.storage import open_predictions, verify
from support.jobs import fcdcc, predictions, recorded_chunks
from support.small import IMAGES, Files

BATCH = 2
BLOCKS = IMAGES // BATCH

pytestmark = pytest.mark.cluster


def mount(*arguments: object) -> None:
    """Mount something, or skip the test where that is not allowed."""
    command = ["mount", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 512 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", place)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def free_bytes(disk: Path, leave: int) -> Path:
    """Fill the disk up to so many free bytes, as somebody else's file does."""
    filler = disk / "filler"
    stat = subprocess.run(
        ["stat", "-f", "--format=%a %S", str(disk)], capture_output=True, text=True, check=True
    )
    blocks, size = map(int, stat.stdout.split())
    filler.write_bytes(bytes(blocks * size - leave))
    return filler


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "free", [pytest.param(8_000, marks=LONG), 40_000, pytest.param(140_000, marks=LONG)]
)
def test_a_full_disk_fails_blocks_in_words_and_the_next_run_finishes(
    files: Files, scheduler: str, disk: Path, free: int
) -> None:
    output = disk / "out.zarr"
    command = ["run", files.model, files.images, output, "--batch", BATCH, "--in-flight", 2]
    command += ["--scheduler", scheduler, "--json", "-"]
    begun = fcdcc(*command, "--limit", 2 * BATCH)
    assert begun.exit_code == 0, begun.output
    before = recorded_chunks(output)
    filler = free_bytes(disk, free)

    full = fcdcc(*command)
    assert full.exit_code in (2, 4), full.output
    assert "No space left on device" in full.stderr
    assert "room" in full.stderr
    assert "Traceback" not in full.output
    kept = recorded_chunks(output)
    assert before.items() <= kept.items()
    assert len(kept) < BLOCKS
    if full.exit_code == 4:
        assert json.loads(full.stdout)["blocks_failed"] == BLOCKS - len(kept)

    filler.unlink()
    assert {damage.block for damage in verify(output)}.isdisjoint(kept)
    again = fcdcc(*command)
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["blocks_skipped"] == len(kept)
    stored = recorded_chunks(output)
    assert {block: stored[block] for block in kept} == kept
    assert open_predictions(output).progress().complete
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []


def test_results_that_find_no_room_are_said_and_earlier_ones_stay(
    files: Files, scheduler: str, disk: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    command = ["run", files.model, files.images, output, "--scheduler", scheduler]
    assert fcdcc(*command, "--json", disk / "summary.json").exit_code == 0
    kept = (disk / "summary.json").read_bytes()
    free_bytes(disk, 0)
    for asked in (
        [*command, "--json", disk / "summary.json"],
        ["report", output, "--html", disk / "report.html"],
        ["plan", files.model, files.images, "--json", disk / "plan.json"],
    ):
        full = fcdcc(*asked)
        assert full.exit_code == 2, full.output
        assert "could not be written: No space left on device" in full.stderr
        assert "Traceback" not in full.output
    assert {path.name for path in disk.iterdir()} == {"summary.json", "filler"}
    assert (disk / "summary.json").read_bytes() == kept


def test_a_disk_without_room_for_more_files_is_a_full_disk(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    place = tmp_path / "few"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m,nr_inodes=40", "tmpfs", place)
    try:
        command = ["run", files.model, files.images, place / "out.zarr", "--batch", BATCH]
        command += ["--scheduler", scheduler, "--json", "-"]
        full = fcdcc(*command)
        assert full.exit_code in (2, 4), full.output
        assert "No space left on device" in full.stderr
        assert "Traceback" not in full.output
        subprocess.run(["mount", "-o", "remount,nr_inodes=4000", str(place)], check=True)
        again = fcdcc(*command)
        assert again.exit_code == 0, again.output
        np.testing.assert_allclose(predictions(place / "out.zarr"), files.expected, atol=1e-5)
        assert verify(place / "out.zarr") == []
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("free", [0, 4_096, 100_000])
def test_a_full_disk_ends_an_ingestion_in_words_and_the_next_one_goes_on(
    disk: Path, tmp_path: Path, free: int
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    filler = free_bytes(disk, free)
    output = disk / "images.zarr"
    full = fcdcc("ingest", folder, output)
    assert full.exit_code == 2, full.output
    assert "No space left on device; make room" in full.stderr
    assert len(full.output.splitlines()) == 1
    filler.unlink()
    again = fcdcc("ingest", folder, output)
    assert again.exit_code == 0, again.output
    stored = zarr.open_group(output, mode="r")["image"]
    assert isinstance(stored, zarr.Array)
    np.testing.assert_array_equal(stored[:], pixels)
