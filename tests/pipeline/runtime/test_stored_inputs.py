"""`run`, `plan` and `infer` agree on stored images, and with xarray and PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray
from torch import nn
from zarr.storage import ZipStore

from fcdcc.pipeline import JobConfig, Model, infer, open_model
from fcdcc.pipeline.runtime.image_sample import ImageSample
from fcdcc.pipeline.runtime.job_plan import preview_job
from support.jobs import fcdcc, predictions
from support.stored_inputs import (
    CHANNELS,
    CONTENTS,
    HEIGHT,
    KINDS,
    LAYOUTS,
    STORES,
    WIDTH,
    StoredInput,
    pairwise_inputs,
    read_by_xarray,
)

pytestmark = [
    pytest.mark.cluster,
    # Of infer: these inputs are odd on purpose.
    pytest.mark.filterwarnings("ignore:(the images|chunks of the images|a sample)"),
]


class TinyNet(nn.Module):
    """One convolution and a classifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.features(x)).mean((2, 3)))


class DenseNet(nn.Module):
    """A prediction for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def export(module: nn.Module, path: Path, shape: tuple[int, ...]) -> Path:
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (torch.zeros(2, *shape),), dynamic_shapes=(batch,))
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[nn.Module, Path]]:
    """A network for images of one channel and one for three, by number."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("networks")
    made = {}
    for channels in (1, CHANNELS):
        module = TinyNet(channels).eval()
        path = export(module, folder / f"{channels}.pt2", (channels, HEIGHT, WIDTH))
        made[channels] = module, path
    return made


@pytest.fixture(scope="module")
def models(networks: dict[int, tuple[nn.Module, Path]]) -> dict[int, Model]:
    return {channels: open_model(path) for channels, (_, path) in networks.items()}


def prepared(images: xr.DataArray) -> torch.Tensor:
    """Return images as PyTorch users prepare them: bytes to [0, 1], others as they are."""
    values = torch.from_numpy(images.values.astype(np.float32))
    return values / 255 if images.dtype == np.uint8 else values


def answer(module: nn.Module, images: torch.Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        made: NDArray[np.float32] = module(images).numpy()
    return made


def assert_close(made: NDArray[Any], wanted: NDArray[np.float32]) -> None:
    """Check that predictions agree to 1e-6 of the largest; NaN is where NaN is."""
    size = max(1.0, float(np.nanmax(np.abs(wanted))))
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6 * size)


def run(
    scheduler: str, model: Path, place: Path, output: Path, *options: object
) -> dict[str, object]:
    result = fcdcc(
        "run", model, place, output, "--scheduler", scheduler, "--json", "-", *options,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary: dict[str, object] = json.loads(result.stdout)
    return summary


def check_all_ways(
    folder: Path,
    scheduler: str,
    network: tuple[nn.Module, Path],
    model: Model,
    found: StoredInput,
) -> None:
    """Compare `run`, `plan` and `infer`, by path and by array, with xarray and PyTorch alone."""
    module, path = network
    place = found.write(folder)
    images = read_by_xarray(place)
    values = prepared(images)
    wanted = answer(module, values)
    run(scheduler, path, place, folder / "out.zarr")
    assert_close(predictions(folder / "out.zarr"), wanted)
    for kind in (images, place, stored_array(place)):
        lazy = infer(model, kind, n=4, tolerate=1).compute(scheduler="sync")
        assert_close(lazy.values, wanted)
    preview = preview_job(
        JobConfig.of(model=path, input=place, output="-", progress=False, workers=6)
    )
    assert preview.plan.image_shape == tuple(values.shape[1:])
    assert preview.sample is not None
    assert_is_sample_of(preview.sample, values)


def stored_array(place: Path) -> zarr.Array[Any]:
    """Return the stored images as zarr opens them."""
    store: Any = ZipStore(place, mode="r") if place.suffix == ".zip" else place
    array = zarr.open_array(store, path="image", mode="r")
    assert isinstance(array, zarr.Array)
    return array


def assert_is_sample_of(sample: ImageSample, values: torch.Tensor) -> None:
    """Check what `plan` and `run` say of the first images."""
    first = values[: sample.images]
    for channel, noted in enumerate(sample.channels):
        finite = first[:, channel][first[:, channel].isfinite()]
        assert (noted.smallest, noted.largest) == (finite.min(), finite.max())
        assert noted.mean == pytest.approx(float(finite.double().mean()), abs=1e-6)
    assert (sample.missing > 0) == bool(first.isnan().any())


@pytest.mark.parametrize("found", pairwise_inputs(), ids=str)
def test_run_plan_and_infer_agree_on_the_same_stored_input(
    tmp_path: Path,
    scheduler: str,
    networks: dict[int, tuple[nn.Module, Path]],
    models: dict[int, Model],
    found: StoredInput,
) -> None:
    check_all_ways(tmp_path, scheduler, networks[found.channels], models[found.channels], found)


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", KINDS)
def test_run_plan_and_infer_agree_on_every_stored_input(
    tmp_path: Path,
    scheduler: str,
    networks: dict[int, tuple[nn.Module, Path]],
    models: dict[int, Model],
    kind: str,
    store: str,
) -> None:
    for layout in LAYOUTS:
        for content in CONTENTS:
            found = StoredInput(kind, layout, store, content)
            (folder := tmp_path / f"{layout} {content}").mkdir()
            model = models[found.channels]
            check_all_ways(folder, scheduler, networks[found.channels], model, found)


def test_channels_are_selected_alike_by_run_and_infer(
    tmp_path: Path,
    scheduler: str,
    networks: dict[int, tuple[nn.Module, Path]],
    models: dict[int, Model],
) -> None:
    module, path = networks[CHANNELS]
    values = np.random.default_rng(1).integers(0, 256, (6, 5, HEIGHT, WIDTH), dtype=np.uint8)
    bands = np.array(["B1", "B2", "B3", "B4", "B5"], dtype=np.dtypes.StringDType())
    dataset = xr.Dataset({"image": (("time", "band", "y", "x"), values)}, {"band": bands})
    place = tmp_path / "images.zarr"
    dataset.to_zarr(place, consolidated=False)
    refused = fcdcc("run", path, place, tmp_path / "no.zarr")
    assert refused.exit_code == 2
    assert "--channels 0,1,2" in refused.output
    wanted = answer(module, torch.from_numpy(values[:, [3, 0, 1]]) / 255)
    for number, chosen in enumerate(("3,0,1", "B4,B1,B2")):
        output = tmp_path / f"{number}.zarr"
        run(scheduler, path, place, output, "--channels", chosen)
        assert_close(predictions(output), wanted)
    output = tmp_path / "several.zarr"
    run(scheduler, path, place, output, "--channels", "B4", "--channels", "0,1")
    assert_close(predictions(output), wanted)
    model = models[CHANNELS]
    for channels in ([3, 0, 1], ["B4", "B1", "B2"], "3,0,1"):
        lazy = infer(model, dataset["image"], channels=channels).compute(scheduler="sync")
        assert_close(lazy.values, wanted)
    lazy = infer(model, values, channels=(3, 0, 1)).compute(scheduler="sync")
    assert_close(lazy.values, wanted)


def test_arrays_are_stacked_by_run(
    tmp_path: Path, scheduler: str, networks: dict[int, tuple[nn.Module, Path]]
) -> None:
    module, path = networks[CHANNELS]
    values = np.random.default_rng(1).random((6, 3, HEIGHT, WIDTH), dtype=np.float32)
    dims = ("time", "y", "x")
    dataset = xr.Dataset({f"B{n}": (dims, values[:, n]) for n in range(3)})
    place = tmp_path / "bands.zarr"
    dataset.to_zarr(place, consolidated=False)
    wanted = answer(module, torch.from_numpy(values[:, [2, 1, 0]]))
    for number, names in enumerate((["B2,B1,B0"], ["B2", "B1", "B0"])):
        output = tmp_path / f"{number}.zarr"
        options = [word for name in names for word in ("--input-array", name)]
        run(scheduler, path, place, output, *options)
        assert_close(predictions(output), wanted)
    job = tmp_path / "job.toml"
    job.write_text(
        f'model = "{path}"\ninput = "{place}"\noutput = "{tmp_path / "0.zarr"}"\n'
        'input-array = ["B2", "B1", "B0"]\n'
    )
    again = fcdcc("run", "--config", job, "--json", "-")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["blocks_done"] == 0


def test_what_lies_in_space_and_time_is_found_beside_dense_predictions(
    tmp_path: Path, scheduler: str
) -> None:
    torch.manual_seed(3)
    module = DenseNet().eval()
    path = export(module, tmp_path / "dense.pt2", (CHANNELS, HEIGHT, WIDTH))
    values = np.random.default_rng(1).random((4, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    months = np.arange("2024-01", "2024-05", dtype="datetime64[M]")
    stored = xr.Dataset(
        {"image": (("time", "band", "y", "x"), values, {"grid_mapping": "spatial_ref"})},
        {
            "x": ("x", 5e5 + 10.0 * np.arange(WIDTH), {"units": "metre", "axis": "X"}),
            "y": ("y", 5e6 - 10.0 * np.arange(HEIGHT), {"units": "metre", "axis": "Y"}),
            "lat": (("y", "x"), np.random.default_rng(2).random((HEIGHT, WIDTH))),
            "time": ("time", months.astype("datetime64[ns]")),
            "image_id": ("time", np.arange(4) * 7),
            "cloud": ("time", np.array([0.5, 0.25, 0.0, 1.0], dtype=np.float32)),
            "spatial_ref": ((), 0, {"crs_wkt": "PROJCS[...]", "GeoTransform": "1 2 3 4 5 6"}),
        },
    )  # fmt: skip
    place = tmp_path / "images.zarr"
    for zarr_format in (2, 3):
        stored.to_zarr(
            place, mode="w", zarr_format=zarr_format, consolidated=False,
            encoding={"cloud": {"dtype": "uint8", "scale_factor": 0.25, "_FillValue": 255}},
        )  # fmt: skip
        output = tmp_path / f"{zarr_format}.zarr"
        run(scheduler, path, place, output)
        with xr.open_zarr(output, decode_coords="all") as made:
            assert made["prediction"].dims == ("time", "class", "y", "x")
            assert made["prediction"].encoding["grid_mapping"] == "spatial_ref"
            for name in ("x", "y", "time", "lat", "image_id", "cloud", "spatial_ref"):
                xr.testing.assert_allclose(made[name].variable, stored[name].variable)
                assert made[name].attrs == stored[name].attrs
            assert made["time"].dtype.kind == "M"
        # A run that grows the output keeps them.
        group = zarr.open_group(place)
        for name in ("image", "time", "image_id", "cloud"):
            group[name].append(group[name][:1])
        run(scheduler, path, place, output)
        with xr.open_zarr(output, decode_coords="all") as made:
            assert made.sizes["time"] == 5
            assert made["spatial_ref"].attrs == stored["spatial_ref"].attrs
            assert made["cloud"].values.tolist() == [0.5, 0.25, 0.0, 1.0, 0.5]
        images = xr.open_zarr(place, decode_coords="all", consolidated=False)["image"]
        lazy = infer(open_model(path), images, n=4, tolerate=1)
        assert lazy.encoding["grid_mapping"] == "spatial_ref"
        assert lazy["x"].attrs == stored["x"].attrs
        assert lazy["spatial_ref"].attrs == stored["spatial_ref"].attrs
        images.close()


def test_a_prediction_that_is_not_dense_has_no_coordinate_system(
    tmp_path: Path, scheduler: str, networks: dict[int, tuple[nn.Module, Path]]
) -> None:
    _, path = networks[CHANNELS]
    values = np.random.default_rng(1).random((4, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    xr.Dataset(
        {"image": (("n", "c", "y", "x"), values, {"grid_mapping": "crs"})},
        {"crs": ((), 0, {"grid_mapping_name": "mercator"}), "y": np.arange(HEIGHT)},
    ).to_zarr(tmp_path / "i.zarr", consolidated=False)
    run(scheduler, path, tmp_path / "i.zarr", tmp_path / "o.zarr")
    with xr.open_zarr(tmp_path / "o.zarr") as made:
        assert set(made.variables) == {"prediction"}
        assert "grid_mapping" not in made["prediction"].attrs


def test_grey_images_and_singletons_are_taken_by_infer(
    networks: dict[int, tuple[nn.Module, Path]], models: dict[int, Model]
) -> None:
    module, _ = networks[1]
    values = np.random.default_rng(1).random((4, HEIGHT, WIDTH), dtype=np.float32)
    wanted = answer(module, torch.from_numpy(values[:, None]))
    for images in (
        values,
        xr.DataArray(values, dims=("time", "y", "x")),
        xr.DataArray(values[:, None, None], dims=("time", "band", "z", "y", "x")),
    ):
        lazy = infer(models[1], images, n=4, tolerate=1).compute(scheduler="sync")
        assert_close(lazy.values, wanted)


def test_packed_numbers_that_xarray_has_not_decoded_are_decoded_by_infer(
    tmp_path: Path, networks: dict[int, tuple[nn.Module, Path]], models: dict[int, Model]
) -> None:
    module, _ = networks[CHANNELS]
    found = StoredInput("int16 packed", "NCHW", "v3", "NaN")
    place = found.write(tmp_path)
    wanted = answer(module, prepared(read_by_xarray(place)))
    with xr.open_zarr(place, mask_and_scale=False, consolidated=False) as stored:
        lazy = infer(models[CHANNELS], stored["image"], n=4, tolerate=1)
        assert_close(lazy.compute(scheduler="sync").values, wanted)


def test_zeros_that_xarray_has_read_as_missing_are_named(
    tmp_path: Path, models: dict[int, Model]
) -> None:
    group = zarr.open_group(tmp_path / "i.zarr", mode="w", zarr_format=2)
    values = np.zeros((4, CHANNELS, HEIGHT, WIDTH), np.uint8)
    array = group.create_array("image", data=values)
    array.attrs["_ARRAY_DIMENSIONS"] = ["n", "c", "y", "x"]
    with (
        xr.open_zarr(tmp_path / "i.zarr", consolidated=False) as stored,
        pytest.warns(UserWarning, match="mask_and_scale=False"),
    ):
        infer(models[CHANNELS], stored["image"], n=4, tolerate=1)
    with xr.open_zarr(tmp_path / "i.zarr", consolidated=False, mask_and_scale=False) as stored:
        lazy = infer(models[CHANNELS], stored["image"], n=4, tolerate=1)
        assert np.isfinite(lazy.compute(scheduler="sync").values).all()
