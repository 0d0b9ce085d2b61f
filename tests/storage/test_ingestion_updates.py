"""A store that is brought up to date: changed, deleted and renamed pictures, and killed calls."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from PIL import Image

from fcdcc.storage import InputError, OutputError, ingest_records, layout
from fcdcc.storage.checksummed_json import seal, unseal
from fcdcc.storage.files import LocalFolder
from fcdcc.storage.ingestion import Ingested, NothingIngestedError, ingest, latest_folder

RANDOM = np.random.default_rng(17)
SIDE = 6

Truth = dict[str, np.ndarray[Any, Any]]


def noise() -> np.ndarray[Any, Any]:
    return RANDOM.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


class Album:
    """A folder of pictures, and the pixels that a user expects of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.truth: Truth = {}

    def save(self, *names: str) -> None:
        """Write pictures, new ones or in place of others."""
        for name in names:
            self.truth[name] = noise()
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(self.truth[name]).save(path)

    def delete(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()
            del self.truth[name]


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Album:
    """Ten pictures; chunks have three images."""
    monkeypatch.setattr(ingest_records, "CHUNK_IMAGES", 3)
    album = Album(tmp_path / "in")
    album.save(*(f"{number}.png" for number in range(10)))
    return album


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


def stored(out: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a user reads, with and without consolidated metadata: id to pixels."""
    found = by_id(out)
    ids, images = (zarr.open_array(out / name, mode="r")[:] for name in ("image_id", "image"))
    np.testing.assert_array_equal(ids, list(found))
    np.testing.assert_array_equal(images, list(found.values()))
    return found


def by_id(out: Path) -> dict[str, np.ndarray[Any, Any]]:
    images = xr.open_zarr(out).load()
    ids = images["image_id"].values.tolist()
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, images["image"].values, strict=True))


def assert_is(out: Path, truth: Truth, order: Iterable[str] | None = None) -> None:
    found = stored(out)
    assert sorted(found) == sorted(truth)
    for name, pixels in truth.items():
        np.testing.assert_array_equal(found[name], pixels)
    if order is not None:
        assert list(found) == list(order)


def chunk_times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "image").glob("c.*")}


def counts(made: Ingested) -> dict[str, int]:
    lists = {name: len(getattr(made, name)) for name in ("changed", "missing", "removed")}
    return {"images": made.images, "added": made.added, "unchanged": made.unchanged, **lists}


def test_a_second_call_with_nothing_new_writes_no_image(album: Album, out: Path) -> None:
    ingest(album.folder, out)
    before = chunk_times(out)
    made = ingest(album.folder, out)
    assert counts(made) == {
        "images": 10, "added": 0, "unchanged": 10, "changed": 0, "missing": 0, "removed": 0,
    }  # fmt: skip
    assert chunk_times(out) == before


def test_changed_pictures_are_read_again_into_their_place(album: Album, out: Path) -> None:
    ingest(album.folder, out)
    before, order = chunk_times(out), list(stored(out))
    album.save("4.png", "9.png")
    made = ingest(album.folder, out)
    assert made.changed == ("4.png", "9.png")
    assert (made.unchanged, made.added, made.images) == (8, 0, 10)
    assert_is(out, album.truth, order)
    after = chunk_times(out)
    assert {name for name in before if after[name] != before[name]} == {"c.1.0.0.0", "c.3.0.0.0"}


def test_a_change_that_leaves_size_and_time_is_noticed(album: Album, out: Path) -> None:
    path = album.folder / "4.bmp"  # of the same length whatever its pixels are
    album.save("4.bmp")
    os.utime(path, ns=(10**18, 10**18))
    ingest(album.folder, out)
    album.save("4.bmp")
    os.utime(path, ns=(10**18, 10**18))
    assert ingest(album.folder, out).changed == ("4.bmp",)
    assert_is(out, album.truth)


def test_touched_and_copied_pictures_are_unchanged(album: Album, out: Path) -> None:
    ingest(album.folder, out)
    before = chunk_times(out)
    for name in album.truth:
        (album.folder / name).touch()
    shutil.copytree(album.folder, copy := album.folder.parent / "copy")
    for folder in (album.folder, copy):
        made = ingest(folder, out)
        assert (made.changed, made.unchanged) == ((), 10)
    exif = Image.Exif()
    exif[0x010E] = "a caption"
    Image.fromarray(album.truth["4.png"]).save(album.folder / "4.png", exif=exif)
    made = ingest(album.folder, out)
    assert (made.changed, made.unchanged) == ((), 10)
    assert chunk_times(out) == before


def test_old_files_are_not_read_again(
    album: Album, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcdcc.storage.picture_files.SETTLED_NS", 0)
    ingest(album.folder, out)

    def refuse(*_arguments: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr("fcdcc.storage.picture_files._read", refuse)
    assert ingest(album.folder, out).unchanged == 10


def test_pictures_that_are_gone_are_named_and_stay(album: Album, out: Path) -> None:
    ingest(album.folder, out)
    truth = dict(album.truth)
    album.delete("0.png", "4.png")
    for _ in range(2):
        made = ingest(album.folder, out)
        assert (made.missing, made.removed) == (("0.png", "4.png"), ())
        assert (made.images, made.unchanged) == (10, 8)
    assert_is(out, truth)


@pytest.mark.parametrize(
    "gone", ["0", "9", "4", "3 4 5", "0 1 2 3 4 5 6 7 8", "2 5 8", "7 8 9", "1 2 3 4 5 6 7 8 9"]
)
def test_pictures_that_are_gone_are_taken_out_on_request(
    gone: str, album: Album, out: Path
) -> None:
    ingest(album.folder, out)
    names = tuple(f"{number}.png" for number in gone.split())
    album.delete(*names)
    made = ingest(album.folder, out, remove_missing=True)
    assert (made.removed, made.missing, made.images) == (names, (), 10 - len(names))
    assert_is(out, album.truth, sorted(album.truth))
    album.save("a.png", "b.png")
    assert ingest(album.folder, out).added == 2
    assert_is(out, album.truth, sorted(album.truth))


def test_everything_at_once(album: Album, out: Path) -> None:
    ingest(album.folder, out)
    album.delete("1.png", "6.png", "7.png")
    album.save("0.png", "8.png", "new.png", "newer.png")
    (album.folder / "2.png").rename(album.folder / "two.png")
    album.truth["two.png"] = album.truth.pop("2.png")
    made = ingest(album.folder, out, remove_missing=True)
    assert counts(made) == {
        "images": 9, "added": 3, "unchanged": 4, "changed": 2, "missing": 0, "removed": 4,
    }  # fmt: skip
    order = [
        "0.png",
        "3.png",
        "4.png",
        "5.png",
        "8.png",
        "9.png",
        "new.png",
        "newer.png",
        "two.png",
    ]
    assert_is(out, album.truth, order)


def test_labels_stay_when_classes_lose_pictures(album: Album, out: Path) -> None:
    album = Album(album.folder.parent / "classes")
    album.save("ant/0.png", "bee/0.png", "ant/1.png", "cow/0.png")
    (album.folder / "boa").mkdir()
    (album.folder / "boa" / "broken.png").write_bytes(b"x")
    made = ingest(album.folder, out)
    assert made.classes == ("ant", "bee", "boa", "cow")
    album.delete("ant/0.png", "ant/1.png")
    album.save("ape/0.png", "boa/broken.png")
    made = ingest(album.folder, out, remove_missing=True)
    assert made.classes == ("ant", "bee", "boa", "cow", "ape")
    images = xr.open_zarr(out).load()
    labels = dict(zip(images["image_id"].values, images["label"].values, strict=True))
    assert labels == {"bee/0.png": 1, "boa/broken.png": 2, "cow/0.png": 3, "ape/0.png": 4}
    assert images["class"].values.tolist() == [*made.classes]


def test_nothing_is_taken_out_for_a_folder_that_is_empty_or_another(
    album: Album, out: Path, tmp_path: Path
) -> None:
    ingest(album.folder, out)
    truth = dict(album.truth)
    (tmp_path / "unmounted").mkdir()
    with pytest.raises(NothingIngestedError, match="10 images that are there stay"):
        ingest(tmp_path / "unmounted", out, remove_missing=True)
    other = Album(tmp_path / "other")
    other.save("x.png")
    with pytest.raises(InputError, match="right folder"):
        ingest(other.folder, out, remove_missing=True)
    assert_is(out, truth)


def test_pictures_under_something_unreadable_are_neither_missing_nor_taken_out(
    album: Album, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    album.save("sub/a.png", "sub/b.png")
    ingest(album.folder, out, labels="none")
    truth = dict(album.truth)
    (album.folder / "4.png").unlink()
    (album.folder / "4.png").symlink_to(tmp_path / "elsewhere.png")
    (album.folder / "5.png").write_bytes(b"damaged")
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    made = ingest(album.folder, out, remove_missing=True)
    assert set(made.unchecked) == {"4.png", "5.png", "sub/a.png", "sub/b.png"}
    assert (made.removed, made.missing, made.images) == ((), (), 12)
    assert {file.name for file in made.bad} == {"4.png", "5.png", "sub"}
    assert "its earlier image stays" in next(f.reason for f in made.bad if f.name == "5.png")
    assert_is(out, truth)
    monkeypatch.undo()
    (album.folder / "4.png").unlink()
    album.save("4.png", "5.png")
    assert set(ingest(album.folder, out).changed) == {"4.png", "5.png"}
    assert_is(out, album.truth)


def test_every_skipped_file_has_its_reason_and_later_calls_mend_it(album: Album, out: Path) -> None:
    (album.folder / "notes.txt").write_text("hello")
    (album.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (album.folder / ".DS_Store").write_bytes(b"x")
    made = ingest(album.folder, out)
    assert {file.name: file.bad for file in made.skipped} == {
        "notes.txt": False, "broken.png": True, ".DS_Store": False,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"broken\.png"):
        ingest(album.folder, out, bad="fail")
    album.save("broken.png")
    assert ingest(album.folder, out, bad="fail").added == 1
    assert_is(out, album.truth)


def test_a_first_picture_that_cannot_be_read_decides_nothing(tmp_path: Path, out: Path) -> None:
    album = Album(tmp_path / "in")
    album.save("b.png", "c.png")
    large = Image.fromarray(np.zeros((50, 50), np.uint8))
    large.save(album.folder / "0 too large.png")
    large.save(cut := album.folder / "1 cut.png")
    cut.write_bytes(cut.read_bytes()[:60])
    made = ingest(album.folder, out, max_pixels=100)
    assert made.shape == (SIDE, SIDE, 3)
    assert [file.name for file in made.bad] == ["0 too large.png", "1 cut.png"]
    assert_is(out, album.truth)


def test_options_that_are_not_given_stay_and_limits_may_change(tmp_path: Path, out: Path) -> None:
    album = Album(tmp_path / "in")
    album.save("a.png")
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(album.folder / "b.png")
    made = ingest(album.folder, out, size=(8, 4), fit="pad", colour="grey", max_pixels=100)
    assert (made.images, made.shape) == (1, (8, 4, 1))
    made = ingest(album.folder, out)  # the limit is no property of the images
    assert (made.images, made.added, made.bad) == (2, 1, ())
    for options in ({"fit": "crop"}, {"colour": "rgb"}, {"size": (4, 8)}, {"depth": 16}):
        with pytest.raises(OutputError, match="made with other options"):
            ingest(album.folder, out, **options)  # type: ignore[arg-type]


def test_a_difference_to_earlier_options_is_said_in_words(tmp_path: Path, out: Path) -> None:
    album = Album(tmp_path / "in")
    album.save("a.png")
    ingest(album.folder, out, size=(4, 4))
    with pytest.raises(OutputError, match=r"\(resize: 9 here, nothing there\)"):
        ingest(album.folder, out, size=(4, 4), resize=9)


def test_sixteen_bits_are_kept_scaled_or_refused(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    deep = RANDOM.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)
    shallow = RANDOM.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(shallow).save(folder / "shallow.png")
    made = ingest(folder, out, colour="grey")
    assert made.dtype == "uint16"
    images = stored(out)
    np.testing.assert_array_equal(images["deep.png"][:, :, 0], deep)
    np.testing.assert_array_equal(images["shallow.png"][:, :, 0], shallow.astype(int) * 257)
    (folder / "deep.png").rename(folder / "z.png")
    made = ingest(folder, tmp_path / "first.zarr", colour="grey")
    assert (made.dtype, made.images) == ("uint8", 1)
    assert "--depth 8" in made.bad[0].reason
    made = ingest(folder, tmp_path / "first.zarr", depth=8)
    assert (made.dtype, made.images, made.bad) == ("uint8", 2, ())
    scaled = stored(tmp_path / "first.zarr")["z.png"][:, :, 0]
    np.testing.assert_allclose(scaled, deep / 257, atol=0.51)


def write_pages(path: Path, pages: list[np.ndarray[Any, Any]]) -> None:
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, photometric="rgb", metadata=None)


def test_pages_become_images_on_request(album: Album, out: Path) -> None:
    pages = [noise() for _ in range(20)]
    write_pages(album.folder / "5 scan.tif", pages)
    made = ingest(album.folder, out)
    assert [file.name for file in made.bad] == ["5 scan.tif"]
    assert "--pages" in made.bad[0].reason
    made = ingest(album.folder, out, pages=True)
    assert (made.added, made.bad) == (20, ())
    album.truth |= {f"5 scan.tif#page={n}": page for n, page in enumerate(pages, 1)}
    assert_is(out, album.truth)
    assert ingest(album.folder, out).unchanged == 30
    # The file changes: one page is another, two are gone; then it grows.
    pages[3] = noise()
    write_pages(album.folder / "5 scan.tif", pages[:18])
    made = ingest(album.folder, out)
    assert made.changed == ("5 scan.tif#page=4",)
    assert made.missing == ("5 scan.tif#page=19", "5 scan.tif#page=20")
    assert ingest(album.folder, out, remove_missing=True).images == 28
    write_pages(album.folder / "5 scan.tif", pages)
    made = ingest(album.folder, out)
    assert (made.added, made.images) == (2, 30)
    album.truth["5 scan.tif#page=4"] = pages[3]
    assert_is(out, album.truth)


def test_an_empty_result_lists_every_reason(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    (folder / "b.txt").write_text("x")
    for options in ({}, {"size": (4, 4)}):
        with pytest.raises(NothingIngestedError) as caught:
            ingest(folder, out, **options)  # type: ignore[arg-type]
        assert {file.name for file in caught.value.skipped} == {"a.png", "b.txt"}
        assert not out.exists()
    Album(folder).save("a.png")  # nothing of the failed calls is in the way
    assert ingest(folder, out).images == 1


def test_images_of_older_versions_are_compared_once(album: Album, out: Path) -> None:
    ingest(album.folder, out, labels="none")
    options = out / ".fcdcc" / "ingest.json"
    form = unseal(options.read_bytes().strip())["form"]
    assert isinstance(form, dict)
    del form["depth"]
    options.write_bytes(seal({"form": form | {"max_pixels": 10**8}, "labels": False}) + b"\n")
    for record in (out / ".fcdcc" / "ingested").iterdir():
        images = unseal(record.read_bytes().strip())["images"]
        record.write_bytes(seal({"images": images}) + b"\n")
    album.save("4.png", "new.png")
    made = ingest(album.folder, out)
    assert (made.compared, made.changed, made.added) == (10, ("4.png",), 1)
    assert_is(out, album.truth)
    assert ingest(album.folder, out).compared == 0


def test_the_folder_that_was_read_last_is_known(
    album: Album, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert latest_folder(out) is None
    assert latest_folder("s3://bucket/images.zarr") is None
    ingest(album.folder, out)
    assert latest_folder(out) == str(album.folder)
    moved = album.folder.rename(tmp_path / "moved")
    (tmp_path / "jobs").mkdir()
    monkeypatch.chdir(tmp_path / "jobs")
    again = ingest("../moved", out)  # another folder is no other option
    assert (again.unchanged, again.changed, again.added) == (10, (), 0)
    assert latest_folder(out) == str(moved)
    (tmp_path / "newest").symlink_to(moved)
    ingest(tmp_path / "newest", out)
    assert latest_folder(out) == str(tmp_path / "newest")


def test_the_folder_is_recorded_beside_what_older_versions_read(album: Album, out: Path) -> None:
    """They read the members that they know; and images that they made have no folder."""
    ingest(album.folder, out)
    options = out / ".fcdcc" / "ingest.json"
    members = unseal(options.read_bytes().strip())
    assert members.pop("folder") == str(album.folder)
    known = {"schema", "form", "labels", "reduce", "pages", "chunk", "classes"}
    assert (members.keys(), members["schema"]) == (known, 2)
    options.write_bytes(seal(members) + b"\n")
    assert latest_folder(out) is None
    assert ingest(album.folder, out).unchanged == 10
    assert latest_folder(out) == str(album.folder)
    options.write_bytes(b"damaged")
    assert latest_folder(out) is None


class Killed(BaseException):
    """Stands for the end of the process at one moment."""


def changed_album(tmp_path: Path, out: Path) -> tuple[Album, dict[str, list[Any]]]:
    """Ingest an album, and change it; also return the pixels that each id may have meanwhile."""
    album = Album(tmp_path / "in")
    album.save(*(f"{number}.png" for number in range(10)))
    ingest(album.folder, out)
    allowed = {name: [pixels] for name, pixels in album.truth.items()}
    album.delete("0.png", "4.png", "5.png")
    album.save("1.png", "8.png", "a.png", "b.png")
    for name, pixels in album.truth.items():
        allowed.setdefault(name, []).append(pixels)
    return album, allowed


def assert_ids_belong(out: Path, allowed: dict[str, list[Any]]) -> None:
    """Check what a user reads between two calls."""
    if not (out / "zarr.json").exists():
        return
    for name, pixels in by_id(out).items():
        assert any(np.array_equal(pixels, one) for one in allowed[name]), name
    assert_prefix(out, allowed)


def assert_prefix(out: Path, allowed: dict[str, list[Any]]) -> None:
    """Check what is read from the arrays' own metadata, which are written one after another."""
    ids, images = (zarr.open_array(out / name, mode="r")[:] for name in ("image_id", "image"))
    assert len(ids) >= len(images)
    for name, pixels in zip(ids[: len(images)], images, strict=True):
        assert any(np.array_equal(pixels, one) for one in allowed[name]), name


@pytest.mark.parametrize(
    ("first", "limit", "stride"),
    [
        pytest.param(True, 1000, 3, id="a new store"),
        pytest.param(False, 1000, 4, id="an update"),
        pytest.param(False, 1000, 1, id="an update, every moment", marks=pytest.mark.long),
        pytest.param(False, 160, 1, id="chunks in several files", marks=pytest.mark.long),
    ],
)
def test_a_call_that_is_killed_at_any_moment_is_mended(
    first: bool, limit: int, stride: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_records, "CHUNK_IMAGES", 3)
    monkeypatch.setattr(layout, "CHUNK_LIMIT", limit)
    write, delete = LocalFolder.write, LocalFolder.delete
    album, allowed = changed_album(tmp_path, tmp_path / "before.zarr")
    moment = 0
    while True:
        out = tmp_path / f"out{moment}.zarr"
        if not first:
            shutil.copytree(tmp_path / "before.zarr", out)
        remaining = moment

        def step(change: Callable[..., Any]) -> Callable[..., Any]:
            def stepped(*arguments: Any, **options: Any) -> Any:
                nonlocal remaining
                if remaining == 0:
                    raise Killed
                remaining -= 1
                return change(*arguments, **options)

            return stepped

        with monkeypatch.context() as patched:
            patched.setattr(LocalFolder, "write", step(write))
            patched.setattr(LocalFolder, "delete", step(delete))
            try:
                ingest(album.folder, out, remove_missing=True)
            except Killed:
                finished = False
            else:
                finished = True
        assert_ids_belong(out, allowed)
        made = ingest(album.folder, out, remove_missing=True)
        assert made.bad == ()
        assert_is(out, album.truth)
        assert ingest(album.folder, out).unchanged == len(album.truth)
        if finished:
            break
        moment += stride
    assert moment > (10 if first else 20)


KILL = """
import os, signal, sys
from fcdcc.storage import ingest_records
from fcdcc.storage.files import LocalFolder
from fcdcc.storage.ingestion import ingest

ingest_records.CHUNK_IMAGES = 3
remaining = int(sys.argv[3])
write = LocalFolder.write

def stepped(self, name, data, **options):
    global remaining
    remaining -= 1
    if remaining == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, name, data, **options)

LocalFolder.write = stepped
ingest(sys.argv[1], sys.argv[2], remove_missing=True)
"""


@pytest.mark.parametrize("moment", [3, 9])
def test_a_process_that_is_killed_leaves_what_the_next_one_mends(
    moment: int, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_records, "CHUNK_IMAGES", 3)
    album, allowed = changed_album(tmp_path, out)
    command = [sys.executable, "-c", KILL, str(album.folder), str(out), str(moment)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert_ids_belong(out, allowed)
    ingest(album.folder, out, remove_missing=True)
    assert_is(out, album.truth)


def test_a_store_in_an_object_store_is_updated_alike(album: Album, place: str) -> None:
    out = f"{place}/images.zarr"
    ingest(album.folder, out)
    album.delete("3.png")
    album.save("1.png", "x.png")
    made = ingest(album.folder, out, remove_missing=True)
    assert (made.changed, made.removed, made.added) == (("1.png",), ("3.png",), 1)
    images = xr.open_zarr(out, storage_options={} if "://" in out else None).load()
    found = dict(zip(images["image_id"].values.tolist(), images["image"].values, strict=True))
    assert sorted(found) == sorted(album.truth)
    for name, pixels in album.truth.items():
        np.testing.assert_array_equal(found[name], pixels)


def test_names_that_pages_have_may_be_names_of_files(album: Album, out: Path) -> None:
    write_pages(album.folder / "s.tif", [noise(), noise()])
    album.save("s.tif#page=1.png")
    (album.folder / "s.tif#page=1.png").rename(album.folder / "s.tif#page=1")
    made = ingest(album.folder, out, pages=True)
    assert made.images == 12
    assert [file.name for file in made.bad] == ["s.tif#page=1"]
    assert "another image has this id" in made.bad[0].reason


def test_files_of_other_programs_in_the_store_do_no_harm(album: Album, out: Path) -> None:
    out.mkdir()
    (out / ".DS_Store").write_bytes(b"x")
    ingest(album.folder, out)
    folders = [out, *(path for path in out.rglob("*") if path.is_dir())]
    names = (".DS_Store", "._00000000.json", "._c.0.0", ".nfs0001", "Thumbs.db")
    for folder in folders:
        for name in names:
            (folder / name).write_bytes(b"x")
    album.delete("0.png")
    album.save("1.png", "a.png")
    made = ingest(album.folder, out, remove_missing=True)
    assert (made.changed, made.removed, made.added) == (("1.png",), ("0.png",), 1)
    images = by_id(out)
    assert sorted(images) == sorted(album.truth)
    assert all(np.array_equal(images[name], album.truth[name]) for name in images)


def test_what_a_killed_call_left_half_written_is_removed(album: Album, out: Path) -> None:
    scratch = out / ".fcdcc" / "tmp"
    scratch.mkdir(parents=True)
    (scratch / "0123.partial").write_bytes(b"x")
    ingest(album.folder, out)
    assert_is(out, album.truth)
    assert list(scratch.iterdir()) == []
