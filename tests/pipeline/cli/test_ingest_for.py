"""``fcdcc ingest --for MODEL.pt2``: images as the model file says."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from fcdcc.pipeline.cli import main
from fcdcc.pipeline.model.description import DESCRIPTION_RECORD
from support.pt2 import packed, pt2, records

FORM = {"size": [16, 12], "fit": "torchvision", "resize": 20, "interpolation": "bicubic"}


@cache
def model_file() -> bytes:
    torch.manual_seed(0)
    return pt2(nn.Conv2d(3, 4, 3).eval(), (2, 3, 16, 12))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (31, 44, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(pictures / "a.png")
    return tmp_path


def ingest(
    folder: Path, *options: object, content: bytes | None = None, **preparation: Any
) -> Result:
    parts = records(content or model_file())
    if preparation:
        text = json.dumps({"version": 1, "preparation": preparation})
        parts[DESCRIPTION_RECORD] = text.encode()
    (folder / "model.pt2").write_bytes(packed(parts))
    paths = [folder / "pictures", folder / "out.zarr", "--for", folder / "model.pt2"]
    return CliRunner().invoke(main, ["ingest", *map(str, (*paths, *options))])


def stored(folder: Path, name: str = "out.zarr") -> np.ndarray[Any, Any]:
    array = zarr.open_group(folder / name)["image"]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


def test_pictures_are_scaled_and_cut_as_the_model_file_says(folder: Path) -> None:
    done = ingest(folder, **FORM, channel_order="rgb")
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output
    picture = Image.open(folder / "pictures" / "a.png")
    scaled = picture.resize((28, 20), Image.Resampling.BICUBIC)  # 20 * 44 / 31 is 28.4
    expected = np.asarray(scaled.crop((8, 2, 20, 18)))
    np.testing.assert_array_equal(stored(folder)[0], expected)
    again = ingest(folder, **FORM)
    assert again.exit_code == 0
    assert "0 new" in again.output


def test_a_network_that_takes_no_images_is_refused_in_words(folder: Path) -> None:
    done = ingest(folder, content=pt2(nn.ReLU().eval(), (4,)))
    assert done.exit_code == 2, done.output
    assert "expected (batch, C, *space)" in done.output
    assert not (folder / "out.zarr").exists()


def test_options_win_over_the_model_file_and_it_is_said(folder: Path) -> None:
    done = ingest(folder, "--size", "10x8", "--interpolation", "bilinear", **FORM)
    assert done.exit_code == 0, done.output
    assert "--size 10 × 8 is used" in done.output
    assert "exported for 16 × 12" in done.output
    assert "--interpolation bilinear is used" in done.output
    assert stored(folder).shape == (1, 10, 8, 3)


def test_grey_networks_get_grey_images(folder: Path) -> None:
    assert ingest(folder, **FORM, channel_order="grey").exit_code == 0
    assert stored(folder).shape == (1, 16, 12, 1)


@pytest.mark.parametrize(("channels", "mean"), [(3, [0.5]), (3, None), (1, None)])
def test_a_network_of_one_size_says_what_its_file_does_not(
    folder: Path, channels: int, mean: list[float] | None
) -> None:
    content = pt2(nn.Conv2d(channels, 4, 3).eval(), (2, channels, 16, 12))
    done = ingest(folder, content=content, **({} if mean is None else {"mean": mean}))
    assert done.exit_code == 0, done.output
    assert "takes images of 16 × 12 only: this is used as --size" in done.output
    assert stored(folder).shape == (1, 16, 12, channels)
    plain = [str(folder / name) for name in ("pictures", "plain.zarr")]
    colour = "grey" if channels == 1 else "rgb"
    CliRunner().invoke(main, ["ingest", *plain, "--size", "16x12", "--colour", colour])
    np.testing.assert_array_equal(stored(folder), stored(folder, "plain.zarr"))


def test_a_size_that_a_network_of_one_size_does_not_take_is_said(folder: Path) -> None:
    done = ingest(folder, "--size", "10x8")
    assert done.exit_code == 0, done.output
    assert "--size 10 × 8 is used" in done.output
    assert "used as --size" not in done.output
    assert stored(folder).shape == (1, 10, 8, 3)


@pytest.mark.parametrize("preparation", [{}, {"mean": [0.5]}])
def test_a_network_of_any_size_needs_one(folder: Path, preparation: dict[str, Any]) -> None:
    any_size = {axis: torch.export.Dim(f"axis_{axis}", min=8) for axis in (2, 3)}
    any_size[0] = torch.export.Dim("batch")
    content = pt2(nn.Conv2d(3, 4, 3).eval(), (2, 3, 16, 12), dynamic=any_size)
    done = ingest(folder, content=content, **preparation)
    assert done.exit_code == 2
    assert "does not say what size" in done.output
    assert not (folder / "out.zarr").exists()
    done = ingest(folder, "--size", "10x8", content=content, **preparation)
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output
    assert stored(folder).shape == (1, 10, 8, 3)
