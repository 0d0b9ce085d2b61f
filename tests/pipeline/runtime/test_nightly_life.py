"""A folder of pictures that changes from night to night: ingested, and predicted again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray
from PIL import Image

from support.jobs import fcdcc, recorded_chunks
from support.small import SHAPE, SmallNet, make_files

pytestmark = pytest.mark.cluster

BATCH = 10


class Nights:
    """A folder of pictures, what is ingested from it, and a job; checked after each step."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.pictures, self.images = folder / "pictures", folder / "images.zarr"
        self.output, self.model = folder / "out.zarr", make_files(folder / "model").model
        self.pictures.mkdir()
        self.scheduler = scheduler
        self.truth: dict[str, NDArray[np.uint8]] = {}
        """The pixels of each image by its name, (3, 16, 16)."""
        self._random = np.random.default_rng(3)

    def save(self, *numbers: int) -> None:
        """Write pictures, new ones or in place of others."""
        for number in numbers:
            name = f"p{number:03}.png"
            pixels = self._random.integers(0, 256, SHAPE, dtype=np.uint8)
            Image.fromarray(pixels.transpose(1, 2, 0)).save(self.pictures / name)
            self.truth[name] = pixels

    def ingest(self, *options: object) -> None:
        result = fcdcc("ingest", self.pictures, self.images, "--no-progress", *options)
        assert result.exit_code == 0, result.output

    def run(self, *options: object) -> dict[str, Any]:
        """Run the job; return its summary, with the blocks that were computed as "again"."""
        before = recorded_chunks(self.output) if self.output.exists() else {}
        result = fcdcc(
            "run", self.model, self.images, self.output, "--scheduler", self.scheduler,
            "--batch", BATCH, "--json", "-", *options,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        summary: dict[str, Any] = json.loads(result.stdout)
        assert summary["status"] == "complete"
        self.check()
        after = recorded_chunks(self.output)
        changed = {block for block, data in after.items() if before.get(block) != data}
        assert len(changed) == summary["blocks_done"]
        return summary | {"again": changed, "said": result.stderr}

    def check(self) -> None:
        """Assert that every name in the output is beside the prediction of its picture."""
        names = zarr.open_group(self.images, mode="r")["image_id"][:].tolist()
        assert {*names} == {*self.truth}
        pixels = torch.from_numpy(np.stack([self.truth[name] for name in names]))
        torch.manual_seed(11)
        with torch.inference_mode():
            expected = SmallNet().eval()(pixels.float() / 255).numpy()
        with xr.open_zarr(self.output) as stored:
            assert stored["image_id"].values.tolist() == names
            np.testing.assert_allclose(stored["prediction"].values, expected, atol=1e-5)
        verified = fcdcc("verify", self.output)
        assert verified.exit_code == 0, verified.output

    def rewrite(self, chunk: int) -> None:
        """Store the same images in other chunks."""
        stored = zarr.open_group(self.images, mode="r")
        pixels, names = stored["image"][:], stored["image_id"][:]
        shutil.rmtree(self.images)
        group = zarr.open_group(self.images, mode="w")
        group.create_array(
            "image", data=pixels, chunks=(chunk, *pixels.shape[1:]), dimension_names=tuple("nyxc")
        )
        ids = group.create_array(
            "image_id", shape=names.shape, chunks=(50,), dtype=str, dimension_names=("n",)
        )
        ids[:] = names


def test_a_block_that_was_not_full_is_made_again_and_called_so(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    nights = Nights(tmp_path, scheduler)
    nights.save(*range(18))
    nights.ingest()
    first = nights.run()
    assert (first["blocks_not_full"], first["images_again"]) == (0, 0)
    nights.save(*range(18, 23))
    nights.ingest()
    with monkeypatch.context() as patch:  # the run ends when its output has its new size
        patch.setattr("fcdcc.pipeline.runtime.job.forecast_of_run", None)
        ended = fcdcc("run", nights.model, nights.images, nights.output, "--scheduler", scheduler)
    assert ended.exit_code == 1
    status = fcdcc("status", nights.output).stdout
    assert (
        "1 of 3 blocks done (10 of 23 images), "
        "2 missing (1 to be made again: it was not full), 0 failed"
    ) in status
    second = nights.run()
    assert second["again"] == {1, 2}
    assert (
        "complete: 3 blocks, of them 1 done before, 1 made again (it was not full), 1 new; "
        "13 images (5 new, 8 made again) in "
    ) in second["said"]
    # 2 of 3 blocks of a run that has few of them: no time that is known well.
    assert second["planned"]["is_rough"]


def test_exactly_what_changed_is_computed_every_night(tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "model").mkdir()
    nights = Nights(tmp_path, scheduler)
    nights.save(*range(200))
    nights.ingest()
    assert nights.run()["blocks_done"] == 20
    assert nights.run()["blocks_done"] == 0

    # The second night: 5 pictures are replaced, 3 deleted, and 20 come in.
    nights.save(3, 4, 55, 120, 129)
    for number in (151, 152, 199):
        (nights.pictures / f"p{number:03}.png").unlink()
    nights.save(*range(200, 220))
    nights.ingest()
    second = nights.run()
    assert second["again"] == {0, 5, 12, 20, 21}
    assert (second["redone"], second["blocks_redone"]) == ({"images": 3}, 3)
    assert (
        "5 images were changed since (p003.png, p004.png, p055.png and 2 others): 3 blocks are "
        "made again (30 images)"
    ) in second["said"]

    # What was deleted is taken out: everything behind it moves up.
    for number in (151, 152, 199):
        del nights.truth[f"p{number:03}.png"]
    nights.ingest("--remove-missing")
    third = nights.run()
    assert third["again"] == {15, 16, 17, 18, 19, 20, 21}
    assert (third["redone"], third["images_removed"]) == ({"image_ids": 6, "shorter": 1}, 3)
    assert "6 blocks are made again (60 images): images in them have other ids" in third["said"]
    assert nights.run()["blocks_done"] == 0

    # The store is written anew in other chunks: the pixels are the same.
    nights.rewrite(chunk=9)
    assert nights.run()["blocks_done"] == 0
    nights.rewrite(chunk=7)
    image = zarr.open_group(nights.images)["image"]
    image[40] = 255 - image[40]
    name = sorted(nights.truth)[40]
    nights.truth[name] = 255 - nights.truth[name]
    last = nights.run()
    assert (last["again"], last["redone"]) == ({4}, {"images": 1})
