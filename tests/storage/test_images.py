from __future__ import annotations

import http.server
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from fcdcc.storage import ImageSource, InputError, open_images
from support.stored import write_images

MODEL = (None, 3, 8, 6)
NCYX, NYXC = (10, 3, 8, 6), (10, 8, 6, 3)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shape", [NCYX, NYXC])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">f4", "bool"])
def test_every_form_is_read_as_images_channels_space(
    place: str, zarr_format: int, shape: tuple[int, ...], dtype: str
) -> None:
    url = f"{place}/images.zarr"
    if dtype == ">f4" and zarr_format == 3:
        zarr.create_array(
            url, shape=shape, dtype="float32", serializer=zarr.codecs.BytesCodec(endian="big")
        )[...] = np.arange(1440).reshape(shape)
        values = np.arange(1440).reshape(shape)
    else:
        values = write_images(url, shape, dtype, zarr_format=zarr_format, chunks=(4, *shape[1:]))
    wanted = values if shape == NCYX else values.transpose(0, 3, 1, 2)
    source = open_images(url, expect=MODEL)
    assert (source.shape, source.images, source.channels) == (NCYX, 10, 3)
    images = source.read(3, 9)
    assert images.flags.c_contiguous
    assert images.dtype.isnative
    assert images.dtype == np.dtype(source.dtype)
    assert np.array_equal(images, wanted[3:9])
    rows = source.read_rows(0, 10, 2, 5)
    assert rows.flags.c_contiguous
    assert np.array_equal(rows, wanted[:, :, 2:5])


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (3, 2, 5, 4)},
        {"chunks": (1, 3, 8, 6)},
        {"chunks": (2, 3, 8, 6), "shards": (4, 3, 8, 6)},
        {"chunks": (10, 1, 1, 6), "shards": (10, 3, 8, 6)},
    ],
)
def test_any_chunking_and_sharding(place: str, options: dict[str, Any]) -> None:
    values = write_images(f"{place}/images.zarr", NCYX, **options)
    source = open_images(f"{place}/images.zarr", expect=MODEL)
    assert np.array_equal(source.read(1, 10), values[1:10])
    assert np.array_equal(source.read_rows(2, 7, 3, 8), values[2:7, :, 3:8])


@pytest.mark.parametrize("space", [(7,), (7, 6), (7, 6, 5)])
def test_one_to_three_spatial_dimensions(tmp_path: Path, space: tuple[int, ...]) -> None:
    values = write_images(str(tmp_path / "images.zarr"), (4, *space, 2))
    source = open_images(tmp_path / "images.zarr", expect=(None, 2, *space))
    assert source.spatial_dims == ("z", "y", "x")[-len(space) :]
    assert np.array_equal(source.read(0, 4), np.moveaxis(values, -1, 1))


def test_only_the_chunks_of_the_rows_are_read(tmp_path: Path) -> None:
    url = tmp_path / "images.zarr"
    values = write_images(str(url), (1, 1, 8, 6), chunks=(1, 1, 2, 6))
    for row in (0, 1, 3):
        (url / f"c/0/0/{row}/0").write_bytes(b"damaged")
    source = open_images(url, expect=(None, 1, 8, 6))
    assert np.array_equal(source.read_rows(0, 1, 4, 6), values[:, :, 4:6])
    with pytest.raises(InputError, match="cannot be read at"):
        source.read(0, 1)


def test_the_array_called_image_is_the_one(place: str) -> None:
    url = f"{place}/data.zarr"
    wanted = write_images(url, NCYX, path="image")
    write_images(url, NCYX, path="mask")
    source = open_images(url, expect=MODEL)
    assert source.path == "image"
    assert np.array_equal(source.read(0, 10), wanted)


def test_the_only_array_that_can_be_images_is_the_one(place: str) -> None:
    url = f"{place}/data.zarr"
    write_images(url, NCYX, path="pictures")
    write_images(url, (10,), path="label")
    write_images(url, (10, 4), path="box")
    assert open_images(url, expect=MODEL).path == "pictures"


def test_several_arrays_are_listed_and_one_can_be_named(place: str) -> None:
    url = f"{place}/data.zarr"
    write_images(url, NCYX, path="first")
    write_images(url, NCYX, path="second")
    with pytest.raises(InputError, match=r"2 arrays.*first.*second.*--input-array"):
        open_images(url, expect=MODEL)
    assert open_images(url, "second", expect=MODEL).path == "second"
    with pytest.raises(InputError, match="third"):
        open_images(url, "third", expect=MODEL)


def test_an_array_in_a_nested_group_can_be_named(tmp_path: Path) -> None:
    write_images(str(tmp_path), NCYX, path="train/image")
    write_images(str(tmp_path), (10,), "int64", path="train/image_id")
    source = open_images(tmp_path, "train/image", expect=MODEL)
    assert (source.path, source.ids_name) == ("train/image", "image_id")
    with pytest.raises(InputError, match=r"'train'.*group"):
        open_images(tmp_path, "train", expect=MODEL)


def test_an_array_is_not_asked_for_by_name(tmp_path: Path) -> None:
    write_images(str(tmp_path / "images.zarr"), NCYX)
    with pytest.raises(InputError, match="leave out the array name"):
        open_images(tmp_path / "images.zarr", "image")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_of_xarray_is_understood(tmp_path: Path, zarr_format: int) -> None:
    values = np.arange(10 * 8 * 6 * 3, dtype=np.uint8).reshape(NYXC)
    times = np.array("2026-01-01", "datetime64[ns]") + np.arange(10) * np.timedelta64(1, "D")
    dataset = xr.Dataset(
        {"image": (("time", "lat", "lon", "band"), values), "label": ("time", np.arange(10))},
        {"time": times, "lat": np.arange(8.0), "image_id": ("time", [f"é{i}" for i in range(10)])},
    )
    # Zarr v3 has no specification of NumPy's fixed-length texts.
    dataset["image_id"] = dataset["image_id"].astype(
        np.dtypes.StringDType() if zarr_format == 3 else "O"
    )
    dataset.to_zarr(tmp_path / "data.zarr", zarr_format=zarr_format, consolidated=False)
    source = open_images(tmp_path / "data.zarr", expect=MODEL)
    assert source.dims == ("time", "band", "lat", "lon")
    assert np.array_equal(source.read(0, 10), values.transpose(0, 3, 1, 2))
    assert source.ids_name == "image_id"
    ids = source.read_ids(2, 4)
    assert ids is not None
    assert ids.tolist() == ["é2", "é3"]
    assert np.array_equal(source.spatial_coords()["lat"], np.arange(8.0))
    assert "lon" not in source.spatial_coords()


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"image_id": (10,), "a": (10,)}, "image_id"),
        ({"b": (10,), "a": (10,)}, "a"),
        ({"b": (10,), "n": (10,)}, "n"),
        ({"b": (10,), "a": (9,)}, "b"),
        ({"a": (10, 2)}, None),
        ({"class": (10,), "x": (10,), "prediction": (10,)}, None),
        ({}, None),
    ],
)
def test_the_ids_are_image_id_or_what_else_lies_along_n(
    tmp_path: Path, arrays: dict[str, tuple[int, ...]], wanted: str | None
) -> None:
    write_images(str(tmp_path), NCYX, path="image", dimension_names=("n", "c", "y", "x"))
    for name, shape in arrays.items():
        write_images(str(tmp_path), shape, "int64", path=name)
    source = open_images(tmp_path, expect=MODEL)
    assert source.ids_name == wanted
    assert (source.ids() is None) == (wanted is None)


def test_fewer_ids_than_images_are_an_error(tmp_path: Path) -> None:
    write_images(str(tmp_path), NCYX, path="image")
    write_images(str(tmp_path), (8,), "int64", path="image_id")
    with pytest.raises(InputError, match="10 images and 8 of 'image_id'"):
        open_images(tmp_path, expect=MODEL)


def test_images_that_stale_consolidated_metadata_hides_are_seen(tmp_path: Path) -> None:
    dataset = xr.Dataset({"image": (("n", "c", "y", "x"), np.zeros(NCYX, np.uint8))})
    dataset.to_zarr(tmp_path / "data.zarr", zarr_format=2, consolidated=True)
    array = zarr.open_array(tmp_path / "data.zarr", path="image", mode="a")
    array.append(np.ones((2, *NCYX[1:]), np.uint8))
    source = open_images(tmp_path / "data.zarr", expect=MODEL)
    assert source.images == 12
    assert source.read(10, 12).all()


def test_a_limit_cuts_the_end_off(tmp_path: Path) -> None:
    write_images(str(tmp_path / "images.zarr"), NCYX)
    source = open_images(tmp_path / "images.zarr", expect=MODEL, limit=4)
    assert source.images == 4
    assert source.with_limit(None).images == 10
    assert source.with_limit(99).images == 10
    with pytest.raises(InputError, match="at most 4 images"):
        source.read(0, 5)
    with pytest.raises(InputError, match="1 or more"):
        source.with_limit(0)


def test_a_source_travels_and_reads_where_it_arrives(place: str) -> None:
    values = write_images(f"{place}/images.zarr", NCYX)
    source = open_images(f"{place}/images.zarr", expect=MODEL)
    data = pickle.dumps(source)
    assert len(data) < 2000
    there: ImageSource = pickle.loads(data)
    assert there == source
    assert hash(there) == hash(source)
    assert np.array_equal(there.read(0, 10), values)


def test_an_array_that_was_replaced_is_opened_anew(place: str) -> None:
    url = f"{place}/images.zarr"
    write_images(url, NCYX, chunks=(10, 3, 8, 6))
    open_images(url, expect=MODEL).read(0, 10)
    values = write_images(url, NCYX, chunks=(2, 3, 8, 6), overwrite=True)
    assert np.array_equal(open_images(url, expect=MODEL).read(0, 10), values)


def test_an_array_that_shrinks_under_a_source_is_named(tmp_path: Path) -> None:
    url = str(tmp_path / "images.zarr")
    write_images(url, NCYX)
    source = open_images(url, expect=MODEL)
    write_images(url, (4, 3, 8, 6), overwrite=True)
    with pytest.raises(InputError, match="replaced during the run"):
        source.read(0, 10)


def test_what_is_no_zarr_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/zarr.json").write_text("{junk")
    (tmp_path / "empty").mkdir()
    urls = [tmp_path / name for name in ("text.txt", "broken", "empty", "absent")]
    for url in (*urls, "memory://absent", "nosuch://x", "http://127.0.0.1:9/x"):
        with pytest.raises(InputError, match="cannot be opened as a Zarr array or group") as caught:
            open_images(url, expect=MODEL)
        assert "\n" not in str(caught.value)
        assert str(url) in str(caught.value)


def test_arrays_that_hold_no_pixels_are_refused(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a"), shape=NCYX, dtype="complex64")
    with pytest.raises(InputError, match="complex64; expected integers or floats"):
        open_images(tmp_path / "a", expect=MODEL)
    zarr.create_array(str(tmp_path / "b"), shape=(0, 3, 8, 6), dtype="uint8")
    with pytest.raises(InputError, match="at least one image"):
        open_images(tmp_path / "b", expect=MODEL)


def test_the_identity_leaves_out_the_length(tmp_path: Path) -> None:
    url = str(tmp_path / "images.zarr")
    write_images(url, NCYX)
    before = open_images(url, expect=MODEL).identity
    zarr.open_array(url).append(np.zeros((3, 3, 8, 6), np.uint8))
    assert open_images(url, expect=MODEL).identity == before
    write_images(url, NCYX, "uint16", overwrite=True)
    assert open_images(url, expect=MODEL).identity != before


def test_a_relative_path_and_a_file_url_are_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(str(tmp_path / "images.zarr"), NCYX)
    monkeypatch.chdir(tmp_path)
    wanted = open_images(tmp_path / "images.zarr", expect=MODEL)
    assert open_images("images.zarr", expect=MODEL) == wanted
    assert open_images(f"file://{tmp_path}/images.zarr", expect=MODEL) == wanted


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL at which ``tmp_path`` is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://user:geheim@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_images_behind_http_are_read_and_no_secret_is_shown(tmp_path: Path, served: str) -> None:
    values = write_images(str(tmp_path / "images.zarr"), NCYX)
    source = open_images(f"{served}/images.zarr", expect=MODEL)
    assert np.array_equal(source.read(2, 5), values[2:5])
    for text in (repr(source), str(source.identity)):
        assert "geheim" not in text
        assert "127.0.0.1" in text
    with pytest.raises(InputError, match="cannot be opened") as caught:
        open_images(f"{served}/absent.zarr?token=geheim", expect=MODEL)
    chain = [caught.value, caught.value.__cause__]
    assert not any("geheim" in str(error) for error in chain)
    with pytest.raises(InputError) as caught:
        open_images("s3://geheim@bucket/images.zarr?token=geheim")
    assert "geheim" not in str(caught.value)


def write_ome(folder: Path, axes: list[str], zarr_format: int) -> Any:
    """Store one image as OME-Zarr in two resolutions and return it."""
    shape = tuple({"c": 3, "y": 8, "x": 6}.get(axis, 2) for axis in axes)
    group = zarr.create_group(str(folder), zarr_format=zarr_format)  # type: ignore[arg-type] # 2 or 3
    scales: list[Any] = [
        {
            "axes": [{"name": axis} for axis in axes],
            "datasets": [{"path": "0"}, {"path": "1"}],
        }
    ]
    group.attrs.update(
        {"multiscales": scales} if zarr_format == 2 else {"ome": {"multiscales": scales}}
    )
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    for name, array in (("0", values), ("1", values[..., ::2, ::2])):
        group.create_array(name, shape=array.shape, dtype="uint16")[...] = array
    return values


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_one_ome_zarr_image_is_a_batch_of_one(tmp_path: Path, zarr_format: int) -> None:
    values = write_ome(tmp_path / "image.zarr", ["c", "y", "x"], zarr_format)
    source = open_images(tmp_path / "image.zarr", expect=MODEL)
    assert (source.path, source.images, source.ids_name) == ("0", 1, None)
    assert np.array_equal(source.read(0, 1), values[np.newaxis])
    assert np.array_equal(source.read_rows(0, 1, 2, 5), values[np.newaxis, :, 2:5])
    assert source.read(1, 1).shape == (0, 3, 8, 6)


def test_other_ome_zarr_images_are_refused_in_words(tmp_path: Path) -> None:
    write_ome(tmp_path / "image.zarr", ["t", "c", "z", "y", "x"], 3)
    with pytest.raises(InputError, match=r"\(t, c, z, y, x\).*only \(c, y, x\)"):
        open_images(tmp_path / "image.zarr", expect=MODEL)
