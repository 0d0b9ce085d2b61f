"""Images are prepared, and classes named, as the model file says, unless options say otherwise."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from click.testing import CliRunner
from numpy.typing import NDArray

from fcdcc.pipeline import JobConfig, infer, open_model, run
from fcdcc.pipeline.cli import main
from fcdcc.pipeline.model.description import DESCRIPTION_RECORD
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.runtime.job_plan import preview_job
from fcdcc.pipeline.runtime.model_preparation import with_model_preparation
from support.small import SHAPE, Files, make_files

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
NAMES = [f"class {number}" for number in range(10)]
PREPARATION: dict[str, Any] = {"value_range": [0, 1], "mean": MEAN, "std": STD}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("small"), 8)


def described(files: Files, folder: Path, **preparation: Any) -> Path:
    """Write the small network with a description."""
    text = {"version": 1, "preparation": {**PREPARATION, **preparation}, "class_names": NAMES}
    path = folder / "described.pt2"
    shutil.copy(files.model, path)
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/{DESCRIPTION_RECORD}", json.dumps(text))
    return path


def stored_pixels(files: Files) -> NDArray[np.uint8]:
    array = zarr.open_group(files.images)["image"]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


def expected(files: Files, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what PyTorch alone makes of prepared images."""
    module = torch.export.load(files.model).module()
    with torch.no_grad():
        found: NDArray[np.float32] = module(torch.from_numpy(prepared)).numpy()
    return found


def normalised(scaled: NDArray[Any], mean: Any = MEAN, std: Any = STD) -> NDArray[np.float32]:
    shape = (-1, 1, 1)
    found = (scaled - np.reshape(mean, shape)) / np.reshape(std, shape)
    return found.astype(np.float32)


def job(model: Path, files: Files, output: Path, **options: Any) -> JobConfig:
    return JobConfig(
        model=model, input=files.images, output=output, processes=False, workers=2,
        dashboard_address=":0", progress=False, **options,
    )  # fmt: skip


@pytest.mark.cluster
def test_runs_prepare_images_and_name_classes_as_the_model_file_says(
    files: Files, tmp_path: Path
) -> None:
    model, output = described(files, tmp_path), tmp_path / "out.zarr"
    summary = run(job(model, files, output))
    assert summary.sample is not None
    assert "scale, mean, std as" in summary.sample["text"]
    with xr.open_zarr(output) as found:
        assert found["class"].values.tolist() == NAMES
        wanted = expected(files, normalised(stored_pixels(files) / 255))
        np.testing.assert_allclose(found["prediction"], wanted, atol=1e-5)
    # The same preparation by options is the same job.
    again = run(job(files.model, files, output, mean=MEAN, std=STD))
    assert again.blocks_skipped == again.blocks_total


@pytest.mark.cluster
def test_infer_prepares_arrays_as_the_model_file_says(files: Files, tmp_path: Path) -> None:
    model, pixels = open_model(described(files, tmp_path)), stored_pixels(files)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = infer(model, pixels, n=2, tolerate=0).compute(scheduler="synchronous")
    assert found["class"].values.tolist() == NAMES
    np.testing.assert_allclose(found, expected(files, normalised(pixels / 255)), atol=1e-5)
    with pytest.warns(UserWarning, match=r"mean=0\.1 is used, and .* mean 0\.5, 0\.4, 0\.3"):
        found = infer(model, pixels, n=2, tolerate=0, mean=0.1).compute(scheduler="synchronous")
    wanted = expected(files, normalised(pixels / 255, [0.1] * 3))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_images_that_seem_to_be_prepared_already_are_said(files: Files, tmp_path: Path) -> None:
    model, pixels = open_model(described(files, tmp_path)), stored_pixels(files)
    with pytest.warns(UserWarning, match="if they are prepared already"):
        infer(model, normalised(pixels / 255), n=2, tolerate=0)


def test_plans_say_what_the_model_file_asks_for(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = described(files, tmp_path)
    preview = preview_job(job(model, files, tmp_path / "out.zarr", n=2, tolerate=0))
    assert f"scale, mean, std as {model} says" in str(preview.sample)
    with caplog.at_level(logging.WARNING, "fcdcc"):
        preview = preview_job(job(model, files, tmp_path / "o.zarr", n=2, tolerate=0, std=0.5))
    assert f"scale, mean as {model} says" in str(preview.sample)
    assert "--std 0.5 is used" in caplog.text
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    ("white", "dtype", "scale"),
    [
        (1, "uint8", "auto"),
        (255, "uint8", "none"),
        (1, "uint16", "max"),
        (255, "uint16", 257.0),
        (1, "float32", "auto"),
        (1, "int16", "auto"),
    ],
)
def test_white_has_the_value_that_the_network_expects(
    white: float, dtype: str, scale: str | float, files: Files, tmp_path: Path
) -> None:
    model = open_model(described(files, tmp_path, value_range=[0, white]))
    assert with_model_preparation(PlanOptions(), model, dtype).options.scale == scale


def test_options_win_and_only_what_differs_is_said(files: Files, tmp_path: Path) -> None:
    model = open_model(described(files, tmp_path))
    same = with_model_preparation(PlanOptions(mean=MEAN, scale=255), model, "uint8")
    assert (same.warnings, same.options.scale) == ((), 255)
    assert "std as" in same.origin
    other = with_model_preparation(PlanOptions(scale="none", mean=0.5), model, "uint8")
    assert (other.options.scale, other.options.mean) == ("none", (0.5,))
    assert [text.split()[0] for text in other.warnings] == ["--mean", "--scale"]
    plain = with_model_preparation(PlanOptions(), open_model(files.model), "uint8")
    assert plain.options == PlanOptions()
    assert plain.origin == ""


def test_networks_for_blue_green_red_get_the_channels_in_that_order(
    files: Files, tmp_path: Path
) -> None:
    model, pixels = (
        open_model(described(files, tmp_path, channel_order="bgr")),
        stored_pixels(files),
    )
    found = infer(model, pixels, n=2, tolerate=0).compute(scheduler="synchronous")
    wanted = expected(files, normalised(pixels[:, ::-1] / 255))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_images_of_another_size_are_refused_with_the_command_that_makes_them(
    files: Files, tmp_path: Path
) -> None:
    model = described(files, tmp_path, size=[*SHAPE[1:]])
    zarr.create_array(tmp_path / "in.zarr", shape=(4, 3, 20, 30), dtype="uint8")
    done = CliRunner().invoke(main, ["plan", str(model), str(tmp_path / "in.zarr")])
    assert done.exit_code == 2
    assert f"ingest FOLDER OUT.zarr --for {model}" in done.output
