"""Which blocks were made from what the images are now."""

from __future__ import annotations

import datetime as dt
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fcdcc.storage import BlockLayout, chunk_listing, input_state, open_images
from fcdcc.storage.block_inputs import MAX_CHECKSUMS, BlockInput, RecordedInputs
from fcdcc.storage.chunk_listing import Tells, list_chunks
from fcdcc.storage.input_state import Comparison, InputState

SHAPE = (10, 3, 8, 6)
LAYOUT = BlockLayout(10, 2)
NAMES = [f"{letter}.png" for letter in "abcdefghij"]


def write(url: str, chunks: tuple[int, ...] = (2, 3, 8, 6), ids: Any = NAMES) -> zarr.Group:
    group = zarr.open_group(url, mode="w")
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    group.create_array("image", data=pixels, chunks=chunks, dimension_names=tuple("ncyx"))
    if ids is not None:
        values = np.asarray(ids)
        dtype = str if values.dtype.kind == "U" else values.dtype
        stored = group.create_array(
            "image_id", shape=values.shape, dtype=dtype, dimension_names=("n",)
        )
        stored[:] = values
    return group


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let times tell whether chunks are written again right after they were written."""
    monkeypatch.setattr(chunk_listing, "SETTLED_NS", 0)


def state_of(url: str, *, contents: bool = False) -> InputState:
    source = open_images(url, expect=(None, *SHAPE[1:]))
    return InputState(source, list_chunks(source), contents=contents)


def recorded(state: InputState, rows: tuple[int, int] | None = None) -> RecordedInputs:
    """Return what the records of a run over all images say, as they are read again."""
    found = RecordedInputs(LAYOUT.blocks)
    for block, (start, stop) in enumerate(LAYOUT):
        found.note(block, BlockInput.from_json(state.block_input(start, stop, rows).as_json()))
    return found


def compare(url: str, known: RecordedInputs, *, contents: bool = False) -> Comparison:
    state = state_of(url, contents=contents)
    return state.compare(known, LAYOUT, range(LAYOUT.blocks), {})


@pytest.fixture(autouse=True)
def _as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_state, "MAX_SMALL_BYTES", 0)


@pytest.mark.usefixtures("settled")
def test_nothing_differs_where_nothing_is_written(place: str) -> None:
    url = f"{place}/i.zarr"
    write(url)
    known = recorded(state_of(url))
    assert len(known) == 5
    assert compare(url, known) == Comparison()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("contents", [False, True])
def test_a_chunk_that_is_written_changes_the_blocks_that_read_it(
    place: str, contents: bool
) -> None:
    url = f"{place}/i.zarr"
    group = write(url, chunks=(5, 3, 8, 6))
    known = recorded(state_of(url, contents=contents))
    group["image"][6] = 255 - group["image"][6]
    found = compare(url, known, contents=contents)
    changed = [3] if contents else [2, 3, 4]
    assert found.changed == dict.fromkeys(changed, "images")
    assert found.changed_images == ({3: (6,)} if contents else {})
    assert [*found.renewed] == ([2, 4] if contents else [])


@pytest.mark.parametrize(
    ("ids", "others"),
    [
        (NAMES, [*NAMES[:7], "x", *NAMES[8:]]),
        (np.arange(10), np.arange(10) + (np.arange(10) == 7)),
        (np.arange(10) / 3, np.arange(10) / 3 + (np.arange(10) == 7)),
    ],
    ids=["texts", "integers", "floats"],
)
@pytest.mark.usefixtures("settled")
def test_ids_are_compared_row_by_row(place: str, ids: Any, others: Any) -> None:
    url = f"{place}/i.zarr"
    group = write(url, ids=ids)
    known = recorded(state_of(url))
    group["image_id"][:] = np.asarray(others)
    assert compare(url, known).changed == {3: "ids"}
    grown = state_of(url).compare(known, LAYOUT, [0], {3: 7, 4: 9})
    # Of block 3, which was made with image 6 alone, nothing is the same.
    assert grown.changed == {3: "ids", 4: "ids"}


def test_integers_of_another_width_are_the_same_ids(tmp_path: Path) -> None:
    url = str(tmp_path / "i.zarr")
    write(url, ids=np.arange(10, dtype=np.int32))
    known = recorded(state_of(url))
    write(url, ids=np.arange(10, dtype=np.int64))
    assert "ids" not in compare(url, known).changed.values()


@pytest.mark.usefixtures("settled")
def test_only_rows_that_a_band_needs_count(tmp_path: Path) -> None:
    url = str(tmp_path / "i.zarr")
    group = write(url, chunks=(1, 3, 4, 6))
    known = {rows: recorded(state_of(url), rows) for rows in ((0, 4), (3, 8), None)}
    group["image"][4, :, 6] = 0
    assert not compare(url, known[0, 4]).changed
    assert compare(url, known[3, 8]).changed == {2: "images"}
    assert compare(url, known[None]).changed == {2: "images"}


@pytest.mark.parametrize("rows", [None, (2, 7)])
def test_pixels_are_the_same_in_all_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: tuple[int, int] | None
) -> None:
    digests = set()
    for held, chunks in ((2**20, (3, 1, 8, 2)), (300, (10, 3, 8, 6)), (300, (1, 3, 2, 6))):
        monkeypatch.setattr(input_state, "MAX_HELD_BYTES", held)
        write(str(tmp_path), chunks=chunks)
        state = state_of(str(tmp_path), contents=True)
        digests.add(tuple(state.block_input(start, stop, rows).pixels for start, stop in LAYOUT))
    assert len(digests) == 1
    assert len({*digests.pop()}) == 5


@pytest.mark.usefixtures("settled")
def test_a_store_that_says_the_same_of_other_pixels_is_compared_by_contents(
    tmp_path: Path,
) -> None:
    url = str(tmp_path)
    group = write(url)
    known = recorded(state_of(url, contents=True))
    file = tmp_path / "image/c/1/0/0/0"
    before = file.stat()
    group["image"][2:4] = group["image"][2:4][:, ::-1]
    os.truncate(file, before.st_size)  # damaged, and of the same size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not compare(url, known).changed
    if file.stat().st_size == before.st_size:
        assert set(compare(url, known, contents=True).changed) <= {1}


def test_a_chunk_that_is_written_at_the_same_time_again_is_noticed(tmp_path: Path) -> None:
    group = write(str(tmp_path))
    known = recorded(state_of(str(tmp_path)))  # right after the chunks were written
    assert known[1].fresh
    file = tmp_path / "image/c/1/0/0/0"
    before = file.stat()
    pixels = group["image"][2:4]
    group["image"][2:4] = 255 - pixels
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    if file.stat().st_size == before.st_size:
        assert compare(str(tmp_path), known).changed == {1: "images"}
    group["image"][2:4] = pixels
    found = compare(str(tmp_path), known)
    assert (found.changed, {*found.renewed} >= {1}) == ({}, True)


def test_a_zip_file_tells_by_its_checksums(tmp_path: Path) -> None:
    write(str(tmp_path / "i.zarr"))
    for _ in range(2):
        with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
            for file in (tmp_path / "i.zarr").rglob("*"):
                archive.write(file, file.relative_to(tmp_path / "i.zarr"))
        state = state_of(str(tmp_path / "i.zip"))
        assert state.listing is not None
        assert state.listing.tells is Tells.CONTENTS
        known = recorded(state)
        assert not compare(str(tmp_path / "i.zip"), known).changed


@pytest.mark.parametrize(
    ("details", "tells"),
    [
        (
            {"ETag": '"5d41"', "LastModified": dt.datetime(2026, 11, 22, tzinfo=dt.UTC)},
            Tells.CONTENTS,
        ),
        ({"generation": 17, "updated": "2026-11-21T03:50:05Z"}, Tells.CONTENTS),
        ({"mtime": 1.7e9}, Tells.TIMES),
        ({"modificationTime": 1_700_000_000_000}, Tells.TIMES),
        ({"LastModified": dt.datetime(2026, 11, 21, tzinfo=dt.UTC)}, Tells.TIMES),
        ({"ETag": None, "mtime": None}, Tells.NOTHING),
        ({}, Tells.NOTHING),
    ],
    ids=str,
)
def test_what_drivers_say_is_understood(
    monkeypatch: pytest.MonkeyPatch, details: dict[str, Any], tells: Tells
) -> None:
    import fsspec

    write("memory://drivers/i.zarr")
    files = fsspec.filesystem("memory")
    find = type(files).find

    def described(*arguments: Any, **options: Any) -> Any:
        found = find(*arguments, **options)
        return {name: {"size": one["size"], **details} for name, one in found.items()}

    monkeypatch.setattr(type(files), "find", described)
    listing = list_chunks(open_images("memory://drivers/i.zarr", expect=(None, *SHAPE[1:])))
    monkeypatch.undo()
    files.rm("/drivers", recursive=True)
    assert listing is not None
    assert listing.tells is tells
    assert not listing.is_fresh((0, 10, None))


def test_records_that_say_nothing_are_counted_and_their_ids_compared(tmp_path: Path) -> None:
    write(str(tmp_path))
    state = state_of(str(tmp_path))
    known = RecordedInputs(LAYOUT.blocks)
    assert state.compare(known, LAYOUT, [0, 3], {}).unknown == (0, 3)
    ids = np.array(NAMES)
    ids[1] = "other"
    assert state.compare(known, LAYOUT, [0, 3], {}, ids).changed == {0: "ids"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        [],
        {"ids": 3},
        {"chunks": "no digest"},
        {"pixels": "00"},
        {"each": "00"},
        {"each": "00" * 4 * (MAX_CHECKSUMS + 1)},
        {"rows": [4, 2]},
        {"rows": 1},
    ],
    ids=str,
)
def test_what_no_version_has_written_says_nothing(value: Any) -> None:
    assert BlockInput.from_json(value) is None


def test_the_latest_record_of_a_block_counts() -> None:
    known = RecordedInputs(3)
    first = BlockInput(bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48)), True, (2, 5))
    known.note(1, first)
    assert (dict(known), known[1]) == ({1: first}, first)
    known.note(1, BlockInput(chunks=first.chunks))
    assert known[1] == BlockInput(chunks=first.chunks)
    known.note(1, None)
    assert 1 not in known
    assert len(known) == 0
