"""Which chunks of stored images are there."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

from fcdcc.storage import open_images
from fcdcc.storage.chunk_listing import AbsentChunks, list_chunks

SHAPE = (10, 3, 8, 6)
MODEL = (None, 3, 8, 6)
NCYX = ("n", "c", "y", "x")


def write_some(url: str, images: list[slice], **options: Any) -> None:
    """Create an array, in chunks of two images unless told otherwise, and write some images."""
    group = zarr.open_group(url, mode="w", zarr_format=options.pop("zarr_format", 3))
    if group.metadata.zarr_format == 3:
        options["dimension_names"] = NCYX
    options = {"chunks": (2, *SHAPE[1:]), "shape": SHAPE, "dtype": "uint8"} | options
    array = group.create_array("image", **options)
    for part in images:
        array[part] = 1


def absent(url: Any, *regions: Any) -> AbsentChunks:
    listing = list_chunks(open_images(url, expect=MODEL), regions or None)
    assert listing is not None
    return listing.absent()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_that_are_not_stored_are_found(place: str, zarr_format: int) -> None:
    write_some(f"{place}/i.zarr", [slice(0, 4), slice(6, 8)], zarr_format=zarr_format)
    found = absent(f"{place}/i.zarr")
    assert (found.count, found.runs) == (2, {"image": [(2, 2), (4, 4)]})
    assert str(found) == "image 2, image 4"
    assert absent(f"{place}/i.zarr", (0, 4, None)).count == 0
    assert absent(f"{place}/i.zarr", (3, 5, None)).runs == {"image": [(2, 2)]}
    write_some(f"{place}/whole.zarr", [slice(0, 10)], zarr_format=zarr_format)
    assert absent(f"{place}/whole.zarr").count == 0


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_key_encoding": {"name": "default", "separator": "."}},
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"chunks": (1, *SHAPE[1:]), "shards": (2, *SHAPE[1:])},
    ],
)
def test_names_and_shards_of_any_kind(place: str, options: dict[str, Any]) -> None:
    write_some(f"{place}/i.zarr", [slice(0, 6)], **options)
    assert absent(f"{place}/i.zarr").runs == {"image": [(3, 4)]}


def test_the_chunks_of_a_zip_file(tmp_path: Path) -> None:
    write_some(str(tmp_path / "i.zarr"), [slice(2, 10)])
    for name, start in (("a.zip", tmp_path), ("b.zip", tmp_path / "i.zarr")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in (tmp_path / "i.zarr").rglob("*"):
                archive.write(file, file.relative_to(start))
        assert absent(tmp_path / name).runs == {"image": [(0, 0)]}


def test_only_rows_and_channels_that_are_read_count(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    array = group.create_array(
        "image", shape=(2, 4, 8, 6), chunks=(2, 1, 4, 6), dtype="uint8", dimension_names=NCYX
    )
    array[:, 0, :4] = 1
    array[:, 2] = 1
    listing = list_chunks(open_images(tmp_path / "i.zarr", channels=[0, 2], expect=(None, 2, 8, 6)))
    assert listing is not None
    assert listing.absent([(0, 2, (0, 3))]).count == 0
    assert listing.absent([(0, 2, (4, 8))]).count == 1  # of channel 0
    assert listing.total == 4


def test_each_stacked_array_is_listed(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    for name in "abc":
        array = group.create_array(
            name, shape=(10, 8, 6), chunks=(5, 8, 6), dtype="uint8", dimension_names=("n", "y", "x")
        )
        array[: {"a": 10, "b": 5, "c": 0}[name]] = 1
    listing = list_chunks(open_images(tmp_path / "i.zarr", ["a", "b", "c"], expect=MODEL))
    assert listing is not None
    assert listing.absent().runs == {"b": [(1, 1)], "c": [(0, 1)]}
    assert listing.total == 6


def test_a_chunk_that_is_written_later_is_noticed(place: str) -> None:
    url = f"{place}/i.zarr"
    write_some(url, [slice(0, 4)])
    noted = AbsentChunks.from_json(absent(url).as_json())
    assert noted == absent(url)
    array = zarr.open_array(url, path="image", mode="a")

    def may_be_there() -> bool:
        listing = list_chunks(open_images(url, expect=MODEL))
        assert listing is not None
        return listing.has_any(noted)

    assert not may_be_there()
    array.resize((14, *SHAPE[1:]))
    assert not may_be_there()
    array[4:6] = 1
    assert may_be_there()


@pytest.mark.parametrize("chunks", [(2, 1, 8, 6), (1, *SHAPE[1:])])
def test_chunks_of_an_array_that_is_stored_otherwise_may_be_there(
    tmp_path: Path, chunks: tuple[int, ...]
) -> None:
    write_some(str(tmp_path), [slice(0, 4)])
    noted = absent(tmp_path)
    write_some(str(tmp_path), [], chunks=chunks)
    listing = list_chunks(open_images(tmp_path, expect=MODEL))
    assert listing is not None
    assert listing.has_any(noted)


@pytest.mark.parametrize("value", [None, 3, "absent", {"image": {}}, {"image": {"runs": [1]}}])
def test_what_no_version_has_written_names_no_chunk(value: Any) -> None:
    assert AbsentChunks.from_json(value).count == 0


def test_a_store_that_does_not_list_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write_some("memory://unlisted.zarr", [slice(0, 4)])
    files = fsspec.filesystem("memory")
    monkeypatch.setattr(type(files), "find", lambda self, path, **options: {})
    assert list_chunks(open_images("memory://unlisted.zarr", expect=MODEL)) is None
    monkeypatch.undo()
    files.rm("/unlisted.zarr", recursive=True)


def test_a_thousand_chunks_are_looked_for_without_being_read(tmp_path: Path) -> None:
    write_some(str(tmp_path), [], shape=(2000, 3, 8, 6))
    folder = tmp_path / "image" / "c"
    for number in range(0, 1000, 2):
        (folder / f"{number}/0/0").mkdir(parents=True)
        (folder / f"{number}/0/0/0").write_bytes(b"damaged")
    found = absent(tmp_path)
    assert found.count == 500
    assert np.all([first % 2 for first, _ in found.runs["image"]])
