"""A folder of real pictures through all commands, twice, by the schedule."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch
import xarray as xr
from PIL import Image

from support.jobs import fcdcc

PICTURES = 2000
LATER = 40
SIZE = 48


class PhotoNet(torch.nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


def photos() -> dict[str, Image.Image]:
    """The pictures that come with scikit-learn and scikit-image, in colours or grey, by name."""
    shipped = (sklearn.datasets, "images"), (skimage.data, "")
    folders = [Path(str(package.__file__)).parent / folder for package, folder in shipped]
    large = {}
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        if path.suffix in (".jpg", ".png"):
            with Image.open(path) as picture:
                if min(picture.size) > 150 and picture.mode in ("RGB", "L"):
                    large[path.stem] = picture.copy()
    assert len(large) > 15
    return large


def add_crops(folder: Path, first: int, count: int) -> None:
    """Cut pictures out of the photographs, one folder for each."""
    draw = np.random.default_rng(first)
    formats = (".jpg", ".png", ".tiff")
    large = photos()
    for number in range(first, first + count):
        name = list(large)[number % len(large)]
        size = int(draw.integers(SIZE, 120))
        left, top = (int(draw.integers(0, side - size)) for side in large[name].size)
        (folder / name).mkdir(parents=True, exist_ok=True)
        crop = large[name].crop((left, top, left + size, top + size))
        crop.save(folder / name / f"{number:05d}{formats[number % 3]}")


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_two_thousand_photos_twice_by_the_schedule(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = PhotoNet().eval()
    batch = {0: torch.export.Dim("batch")}
    example = (torch.zeros(2, 3, SIZE, SIZE),)
    torch.export.save(
        torch.export.export(module, example, dynamic_shapes=(batch,)), tmp_path / "photos.pt2"
    )
    add_crops(tmp_path / "photos", 0, PICTURES)
    (tmp_path / "photos" / "china" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "job.toml").write_text(
        'model = "photos.pt2"\ninput = "images.zarr"\noutput = "out.zarr"\nn = 4\ntolerate = 1\n'
        'workers = 2\nprocesses = false\nbatch = 32\njson = "summary.json"\n'
        'dashboard_address = ":0"\n'
    )
    for pictures in (PICTURES, PICTURES + LATER):
        if pictures > PICTURES:
            add_crops(tmp_path / "photos", PICTURES, LATER)
        ingest = ("ingest", tmp_path / "photos", tmp_path / "images.zarr", "--size", SIZE)
        made = json.loads(fcdcc(*ingest, "--json").stdout)
        assert made["images"] == pictures
        assert [bad["name"] for bad in made["bad"]] == ["china/broken.jpg"]
        command = [sys.executable, "-m", "fcdcc.pipeline", "schedule", str(tmp_path / "job.toml")]
        command += ["--cron", "* * * * *", "--runs", "1"]
        for when in (["--now"], []):  # one after the other, however long the first takes
            said = subprocess.run([*command, *when], capture_output=True, text=True, check=True)
            assert said.stderr.count("the run ended with code 0") == 1
        summary = json.loads((tmp_path / "summary.json").read_text())  # of the second run
        assert (summary["status"], summary["blocks_done"]) == ("complete", 0)
        assert fcdcc("status", tmp_path / "out.zarr").exit_code == 0
        assert fcdcc("verify", tmp_path / "out.zarr").exit_code == 0
    images = xr.open_zarr(tmp_path / "images.zarr").load()
    stored = xr.open_zarr(tmp_path / "out.zarr").load()
    assert stored["image_id"].values.tolist() == images["image_id"].values.tolist()
    pixels = torch.from_numpy(images["image"].values).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        expected = module(pixels).numpy()
    np.testing.assert_allclose(stored["prediction"], expected, atol=1e-5)
