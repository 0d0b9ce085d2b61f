"""Stored numbers are decoded as xarray decodes them."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from fcdcc.storage import open_images

SHAPE = (6, 3, 8, 5)
MODEL = (None, *SHAPE[1:])

PACKED: dict[str, dict[str, Any]] = {
    "scale and offset": {"dtype": "int16", "scale_factor": 1e-4, "add_offset": -0.1},
    "with a fill value": {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -9999},
    "fill value 0 of packed numbers": {"dtype": "uint8", "scale_factor": 0.5, "_FillValue": 0},
    "unsigned": {"dtype": "int8", "_Unsigned": "true", "scale_factor": 0.01, "_FillValue": -1},
    "wide": {"dtype": "int32", "scale_factor": 1e-6, "add_offset": 0.5},
    "only a fill value": {"dtype": "uint8", "_FillValue": 255},
    "missing value": {"dtype": "uint16", "missing_value": 65535},
    "floats with a fill value": {"dtype": "float32", "_FillValue": -9999.0},
    "doubles with a fill value": {"dtype": "float64", "_FillValue": 1e20},
}


def values(encoding: dict[str, Any]) -> Any:
    numbers = np.random.default_rng(3).random(SHAPE)
    if "scale_factor" not in encoding and encoding["dtype"] != "float32":
        numbers = np.round(numbers * 200)
    if "_FillValue" in encoding or "missing_value" in encoding:
        numbers[1, :, :2, :2] = np.nan
    return numbers


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_numbers_are_those_that_xarray_reads(
    tmp_path: Path, kind: str, zarr_format: Any
) -> None:
    encoding = PACKED[kind]
    dataset = xr.Dataset({"image": (("n", "c", "y", "x"), values(encoding))})
    with warnings.catch_warnings():  # packed without a fill value for NaN, of which there is none
        warnings.simplefilter("ignore", xr.SerializationWarning)
        dataset.to_zarr(
            tmp_path / "i.zarr", zarr_format=zarr_format, consolidated=False,
            encoding={"image": encoding},
        )  # fmt: skip
    with xr.open_zarr(tmp_path / "i.zarr", consolidated=False) as stored:
        wanted = stored["image"].values
    source = pickle.loads(pickle.dumps(open_images(tmp_path / "i.zarr", expect=MODEL)))
    assert source.dtype == wanted.dtype
    assert source.stored_dtype in (encoding["dtype"], None)
    np.testing.assert_array_equal(source.read(0, 6), wanted)
    np.testing.assert_array_equal(source.read_rows(1, 3, 1, 4), wanted[1:3, :, 1:4])
    assert "decoding" in source.identity


def test_numbers_that_are_not_packed_are_read_as_they_are(tmp_path: Path) -> None:
    """NaN as the fill value of floats, which xarray always writes, changes nothing."""
    for name, dtype in (("a", "float32"), ("b", "uint16")):
        numbers = (np.random.default_rng(3).random(SHAPE) * 100).astype(dtype)
        xr.Dataset({"image": (("n", "c", "y", "x"), numbers)}).to_zarr(
            tmp_path / name, zarr_format=2, consolidated=False
        )
        source = open_images(tmp_path / name, expect=MODEL)
        assert source.dtype == dtype
        assert set(source.identity) == {"url", "array", "dtype", "image_shape", "channels_last"}
        np.testing.assert_array_equal(source.read(0, 6), numbers)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("fill", [0, 7, None])
def test_the_fill_value_of_zarr_v2_stands_for_missing_values_as_in_xarray(
    tmp_path: Path, fill: int | None, named: bool
) -> None:
    """It does if xarray can open the array, and it is not 0, Zarr's default."""
    numbers = np.random.default_rng(3).integers(0, 9, SHAPE, np.uint8)
    group = zarr.open_group(tmp_path / "i.zarr", mode="w", zarr_format=2)
    attributes = {"_ARRAY_DIMENSIONS": ["n", "c", "y", "x"]} if named else {}
    group.create_array("image", shape=SHAPE, dtype="uint8", fill_value=fill, attributes=attributes)[
        ...
    ] = numbers
    source = open_images(tmp_path / "i.zarr", expect=MODEL)
    read = source.read(0, 6)
    if fill == 7 and named:
        with xr.open_zarr(tmp_path / "i.zarr", consolidated=False) as stored:
            np.testing.assert_array_equal(read, stored["image"].values)
    else:
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, numbers)


def test_several_missing_values_all_become_nan(tmp_path: Path) -> None:
    numbers = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    array = group.create_array("image", data=numbers, dimension_names=("n", "c", "y", "x"))
    array.attrs.update({"missing_value": [3, 5], "_FillValue": 8, "scale_factor": [0.5]})
    read = open_images(tmp_path / "i.zarr", expect=MODEL).read(0, 6)
    wanted = np.where(np.isin(numbers, (3, 5, 8)), np.nan, numbers * 0.5)
    np.testing.assert_array_equal(read, wanted)


@pytest.mark.parametrize(
    "attributes",
    [
        {"_FillValue": "nothing"},
        {"scale_factor": "big"},
        {"scale_factor": [1, 2]},
        {"_FillValue": 70000},
        {"_FillValue": 3.5},
        {"valid_min": 5, "valid_max": 100, "valid_range": [5, 100]},
        {"units": "days since 2020-01-01"},
    ],
)
def test_attributes_that_decode_nothing_change_nothing(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    numbers = np.random.default_rng(3).integers(0, 200, SHAPE, np.uint8)
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    group.create_array("image", data=numbers).attrs.update(attributes)
    source = open_images(tmp_path / "i.zarr", expect=MODEL)
    assert source.dtype == "uint8"
    np.testing.assert_array_equal(source.read(0, 6), numbers)


def test_each_stacked_array_has_its_own_decoding(tmp_path: Path) -> None:
    bands = {name: np.random.default_rng(n).random((6, 8, 5)) for n, name in enumerate("abc")}
    encoding = {
        name: {"dtype": "int16", "scale_factor": 10.0**-n, "_FillValue": -1}
        for n, name in enumerate(bands, start=2)
    }
    dataset = xr.Dataset({name: (("time", "y", "x"), band) for name, band in bands.items()})
    dataset.to_zarr(tmp_path / "i.zarr", consolidated=False, encoding=encoding)
    with xr.open_zarr(tmp_path / "i.zarr", consolidated=False) as stored:
        wanted = np.stack([stored[name].values for name in "cab"], axis=1)
    source = open_images(tmp_path / "i.zarr", ["c", "a", "b"], expect=MODEL)
    np.testing.assert_array_equal(source.read(0, 6), wanted)
