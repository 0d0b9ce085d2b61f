from __future__ import annotations

import http.server
import pickle
import threading
import zipfile
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
    coordinates = {found.name: found for found in source.coordinates({"lat": 8, "lon": 6})}
    assert [*coordinates] == ["image_id", "lat", "time"]
    assert np.array_equal(coordinates["lat"].values, np.arange(8.0))
    assert coordinates["time"].attributes["units"] == "days since 2026-01-01 00:00:00"
    assert [found.name for found in source.coordinates({"lat": 4})] == ["image_id", "time"]


@pytest.mark.parametrize("backwards", [False, True])
def test_coordinates_come_by_name_however_the_store_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    dataset = xr.Dataset(
        {"image": (("time", "band", "lat", "lon"), np.zeros((2, 3, 8, 6), np.uint8))},
        {"time": np.arange(2), "lat": np.arange(8.0), "lon": np.arange(6.0)},
    )
    dataset.to_zarr(tmp_path / "data.zarr", zarr_format=3, consolidated=False)
    listed = zarr.Group.arrays

    def arrays(group: zarr.Group) -> list[tuple[str, object]]:
        return sorted(listed(group), reverse=backwards)

    monkeypatch.setattr(zarr.Group, "arrays", arrays)
    source = open_images(tmp_path / "data.zarr", expect=MODEL)
    names = [found.name for found in source.coordinates({"lat": 8, "lon": 6})]
    assert names == ["time", "lat", "lon"]  # the image ids first


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


def write_ome(
    folder: Path, axes: list[str], zarr_format: int, sizes: dict[str, int] | None = None
) -> Any:
    """Store one image as OME-Zarr in two resolutions and return it."""
    sizes = sizes or {"c": 3, "y": 8, "x": 6}
    shape = tuple(sizes.get(axis, 2) for axis in axes)
    kinds = {"t": "time", "c": "channel"}
    group = zarr.create_group(str(folder), zarr_format=zarr_format)  # type: ignore[arg-type] # 2 or 3
    scales: list[Any] = [
        {
            "axes": [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes],
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


def test_ome_zarr_images_with_longer_axes_than_the_model_takes_are_refused(tmp_path: Path) -> None:
    write_ome(tmp_path / "image.zarr", ["t", "c", "z", "y", "x"], 3)
    with pytest.raises(InputError, match=r"\(t, c, z, y, x\).*only axes of length 1 can be left"):
        open_images(tmp_path / "image.zarr", expect=MODEL)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("axes", "images", "order"),
    [
        ("tczyx", {"t": 1, "z": 1}, lambda x: x[:, :, 0]),
        ("tczyx", {"t": 4, "z": 1}, lambda x: x[:, :, 0]),
        ("czyx", {"z": 5}, lambda x: x.transpose(1, 0, 2, 3)),
        ("tczyx", {"t": 1, "z": 5}, lambda x: x[0].transpose(1, 0, 2, 3)),
        ("tcyx", {"t": 4}, lambda x: x),
    ],
)
def test_axes_have_the_roles_that_ome_zarr_gives_them(
    tmp_path: Path, axes: str, images: dict[str, int], order: Any, zarr_format: int
) -> None:
    sizes = {"c": 3, "y": 8, "x": 6} | images
    values = write_ome(tmp_path / "i.zarr", list(axes), zarr_format, sizes)
    wanted = order(values)
    for url, name in ((tmp_path / "i.zarr", None), (tmp_path / "i.zarr", "0")):
        source = open_images(url, name, expect=MODEL)
        assert source.images == len(wanted)
        assert np.array_equal(source.read(0, len(wanted)), wanted)
        assert np.array_equal(source.read_rows(0, 1, 2, 5), wanted[:1, :, 2:5])
    direct = open_images(tmp_path / "i.zarr" / "0", expect=MODEL)
    assert np.array_equal(direct.read(0, len(wanted)), wanted)
    half = open_images(tmp_path / "i.zarr", "1", expect=(None, 3, 4, 3))
    assert np.array_equal(half.read(0, 1), wanted[:1, :, ::2, ::2])


def write_series(folder: Path, count: int, *, listed: bool) -> Any:
    root = zarr.create_group(str(folder), zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    values = [write_ome(folder / str(n), ["t", "c", "z", "y", "x"], 2, ONE) for n in range(count)]
    if listed:
        root.create_group("OME").attrs["series"] = [str(n) for n in range(count)]
    return values


ONE = {"t": 1, "z": 1, "c": 3, "y": 8, "x": 6}


@pytest.mark.parametrize("listed", [True, False])
def test_the_images_of_a_series_are_named_and_one_can_be_chosen(
    tmp_path: Path, listed: bool
) -> None:
    values = write_series(tmp_path / "bf.zarr", 3, listed=listed)
    with pytest.raises(InputError, match=r"0/0, 1/0, 2/0; name the one.*--input-array 0/0"):
        open_images(tmp_path / "bf.zarr", expect=MODEL)
    for name in ("1", "1/0"):
        source = open_images(tmp_path / "bf.zarr", name, expect=MODEL)
        assert np.array_equal(source.read(0, 1), values[1][:, :, 0])


def test_a_series_of_one_image_is_that_image(tmp_path: Path) -> None:
    [value] = write_series(tmp_path / "bf.zarr", 1, listed=True)
    source = open_images(tmp_path / "bf.zarr", expect=MODEL)
    assert np.array_equal(source.read(0, 1), value[:, :, 0])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_images_of_a_plate_are_named_with_their_paths(tmp_path: Path, zarr_format: Any) -> None:
    plate = zarr.create_group(str(tmp_path / "p.zarr"), zarr_format=zarr_format)

    def describe(group: Any, what: str, members: dict[str, Any]) -> None:
        own = {what: members}
        group.attrs.update(own if zarr_format == 2 else {"ome": {"version": "0.5"} | own})

    describe(plate, "plate", {"wells": [{"path": "A/1"}, {"path": "B/2"}]})
    for path in ("A/1", "B/2"):
        describe(plate.create_group(path), "well", {"images": [{"path": "0"}, {"path": "1"}]})
        for field in "01":
            write_ome(tmp_path / "p.zarr" / path / field, list(ONE), zarr_format, ONE)
    with pytest.raises(InputError, match=r"A/1/0/0, A/1/1/0, B/2/0/0, B/2/1/0"):
        open_images(tmp_path / "p.zarr", expect=MODEL)
    with pytest.raises(InputError, match=r"'A/1'.*group.*A/1/0/0, A/1/1/0"):
        open_images(tmp_path / "p.zarr", "A/1", expect=MODEL)
    assert open_images(tmp_path / "p.zarr", "B/2/1", expect=MODEL).path == "B/2/1/0"


def test_a_plate_without_its_images_is_one_clear_line(tmp_path: Path) -> None:
    plate = zarr.create_group(str(tmp_path / "p.zarr"), zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "A/1"}]}
    with pytest.raises(InputError, match="names images that are not there"):
        open_images(tmp_path / "p.zarr", expect=MODEL)


@pytest.mark.parametrize("folder_inside", [True, False])
def test_a_zip_file_is_opened_by_its_path(tmp_path: Path, folder_inside: bool) -> None:
    values = write_images(str(tmp_path / "i.zarr"), NCYX, path="image", chunks=(4, 3, 8, 6))
    write_images(str(tmp_path / "i.zarr"), (10,), "int64", path="image_id")
    with zipfile.ZipFile(tmp_path / "i.zarr.zip", "w") as archive:
        for file in sorted((tmp_path / "i.zarr").rglob("*")):
            start = tmp_path if folder_inside else tmp_path / "i.zarr"
            archive.write(file, file.relative_to(start))
    source = pickle.loads(pickle.dumps(open_images(tmp_path / "i.zarr.zip", expect=MODEL)))
    assert (source.path, source.ids_name) == ("image", "image_id")
    assert np.array_equal(source.read(3, 9), values[3:9])


def test_channels_are_selected_by_number_and_by_name(tmp_path: Path) -> None:
    values = np.arange(4 * 5 * 8 * 6, dtype=np.uint16).reshape(4, 5, 8, 6)
    bands = ["B02", "B03", "B04", "B08", "SCL"]
    dataset = xr.Dataset({"image": (("time", "band", "y", "x"), values)}, {"band": bands})
    dataset["band"] = dataset["band"].astype(np.dtypes.StringDType())
    dataset.to_zarr(tmp_path / "i.zarr", consolidated=False, encoding=CHUNKED)
    with pytest.raises(InputError, match=r"5 channels.*--channels 0,1,2"):
        open_images(tmp_path / "i.zarr", expect=MODEL)
    for chosen, numbers in (
        ([0, 1, 2], [0, 1, 2]),
        (["2", "1", "0"], [2, 1, 0]),
        (["B04", "b03", "B02"], [2, 1, 0]),
        ([0, 2, 4], [0, 2, 4]),
        ([3, 3, 0], [3, 3, 0]),
    ):
        source = open_images(tmp_path / "i.zarr", channels=chosen, expect=MODEL)
        assert np.array_equal(source.read(1, 4), values[1:4, numbers])
        assert np.array_equal(source.read_rows(1, 4, 2, 5), values[1:4, numbers, 2:5])
        assert source.identity["channels"] == numbers
    with pytest.raises(InputError, match=r"'B11'.*0 B02, 1 B03, 2 B04, 3 B08, 4 SCL"):
        open_images(tmp_path / "i.zarr", channels=["B11"], expect=MODEL)
    with pytest.raises(InputError, match="channel '5'"):
        open_images(tmp_path / "i.zarr", channels=[0, 1, 5], expect=MODEL)
    with pytest.raises(InputError, match="2 channels are selected and the model takes 3"):
        open_images(tmp_path / "i.zarr", channels=[0, 1], expect=MODEL)


CHUNKED = {"image": {"chunks": (2, 1, 4, 6)}}


def test_all_channels_in_their_order_are_the_plain_input(tmp_path: Path) -> None:
    write_images(str(tmp_path), NCYX)
    plain = open_images(tmp_path, expect=MODEL)
    assert open_images(tmp_path, channels=[0, 1, 2], expect=MODEL) == plain


def test_channels_last_are_selected_too(tmp_path: Path) -> None:
    values = write_images(str(tmp_path), (10, 8, 6, 4), dimension_names=("n", "y", "x", "c"))
    source = open_images(tmp_path, channels=["0", "1", "3"], expect=MODEL)
    assert np.array_equal(source.read(0, 10), values.transpose(0, 3, 1, 2)[:, [0, 1, 3]])


def test_several_arrays_are_stacked_as_channels(place: str) -> None:
    url = f"{place}/bands.zarr"
    names = ("time", "y", "x")
    values = {
        band: np.random.default_rng(n).integers(0, 99, (10, 8, 6), np.uint8)
        for n, band in enumerate(("B02", "B03", "B04"))
    }
    group = zarr.create_group(url)
    for band, value in values.items():
        group.create_array(band, data=value, dimension_names=names)
    group.create_array("time", data=np.arange(10), dimension_names=("time",))
    with pytest.raises(InputError, match=r"3 arrays.*several to stack them as channels"):
        open_images(url, expect=MODEL)
    source = open_images(url, ["B04", "B03", "B02"], expect=MODEL)
    wanted = np.stack([values[band] for band in ("B04", "B03", "B02")], axis=1)
    assert (source.shape, source.dims, source.ids_name) == (NCYX, ("time", "c", "y", "x"), "time")
    assert np.array_equal(source.read(2, 7), wanted[2:7])
    assert source.identity["arrays"] == ["B04", "B03", "B02"]
    some = open_images(url, ["B04", "B03", "B02"], channels=["B02", "B04"], expect=(None, 2, 8, 6))
    assert np.array_equal(some.read(0, 10), wanted[:, [2, 0]])
    with pytest.raises(InputError, match="2 channels are selected and the model takes 3"):
        open_images(url, ["B04", "B03"], expect=MODEL)


def test_arrays_of_other_images_are_not_stacked(tmp_path: Path) -> None:
    names = ("time", "y", "x")
    write_images(str(tmp_path), (10, 8, 6), path="a", dimension_names=names)
    write_images(str(tmp_path), (9, 8, 6), path="b", dimension_names=names)
    write_images(str(tmp_path), (10, 8, 6), "uint16", path="c", dimension_names=names)
    for other in "bc":
        with pytest.raises(InputError, match="expected the same images"):
            open_images(tmp_path, ["a", other], expect=(None, 2, 8, 6))


@pytest.mark.parametrize("names", [("n", "y", "x"), ("time", "y", "x"), ("slice", "y", "x"), None])
def test_grey_images_without_an_axis_of_channels_are_read(
    tmp_path: Path, names: tuple[str, ...] | None
) -> None:
    values = write_images(str(tmp_path), (10, 8, 6), dimension_names=names)
    source = open_images(tmp_path, expect=(None, 1, 8, 6))
    assert np.array_equal(source.read(2, 7), values[2:7, None])
    assert np.array_equal(source.read_rows(2, 7, 1, 3), values[2:7, None, 1:3])


def test_a_picture_without_an_axis_of_images_is_a_batch_of_one(tmp_path: Path) -> None:
    values = write_images(str(tmp_path), (3, 8, 6), dimension_names=("band", "y", "x"))
    source = open_images(tmp_path, expect=MODEL)
    assert source.images == 1
    assert np.array_equal(source.read(0, 1), values[None])
