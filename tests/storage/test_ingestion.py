"""Folders of pictures to Zarr: right pixels, bad files named, interrupted and continued."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from PIL import Image

from fcdcc.pipeline.cli import main
from fcdcc.storage import InputError, LockedError, OutputError, hold, ingest_records, open_images
from fcdcc.storage.ingestion import ingest
from fcdcc.storage.pictures import PictureForm, read_picture

RANDOM = np.random.default_rng(3)


def noise(height: int, width: int, *channels: int) -> np.ndarray[Any, Any]:
    return RANDOM.integers(0, 256, (height, width, *channels), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three formats, seven pictures of several sizes."""
    for number in range(3):
        save(tmp_path / "in" / "cats" / f"{number}.png", noise(20 + number, 30, 3))
        save(tmp_path / "in" / "dogs" / f"{number}.jpg", noise(40, 24, 3))
    save(tmp_path / "in" / "dogs" / "old" / "grey.TIFF", noise(33, 33))
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    return tmp_path / "in"


NAMES = ["cats/0.png", "cats/1.png", "cats/2.png", "dogs/0.jpg", "dogs/1.jpg", "dogs/2.jpg",
         "dogs/old/grey.TIFF"]  # fmt: skip


def test_pictures_become_labelled_images(folder: Path, tmp_path: Path) -> None:
    made = ingest(folder, tmp_path / "out.zarr", size=(16, 12))
    assert (made.images, made.added, made.bad) == (7, 7, ())
    stored = xr.open_zarr(tmp_path / "out.zarr").load()
    assert stored["image"].dims == ("n", "y", "x", "c")
    assert stored["image"].dtype == np.uint8
    assert stored["image_id"].values.tolist() == NAMES
    assert stored["class"].values.tolist() == ["cats", "dogs"]
    assert stored["label"].values.tolist() == [0, 0, 0, 1, 1, 1, 1]
    for number, name in enumerate(NAMES):
        with Image.open(folder / name) as picture:
            x, y = picture.size
            scale = max(12 / x, 16 / y)  # what is cut away: to the left and right, or above, below
            left, top = (x - 12 / scale) / 2, (y - 16 / scale) / 2
            box = (left, top, x - left, y - top)
            expected = picture.convert("RGB").resize((12, 16), Image.Resampling.BILINEAR, box)
        difference = np.asarray(expected).astype(int) - stored["image"].values[number]
        assert np.abs(difference).max() <= 1


def test_what_is_ingested_can_be_run(folder: Path, tmp_path: Path) -> None:
    ingest(folder, tmp_path / "out.zarr", size=(16, 12))
    source = open_images(tmp_path / "out.zarr", expect=(None, 3, 16, 12))
    assert source.image_shape == (3, 16, 12)
    ids = source.ids()
    assert ids is not None
    assert ids.name == "image_id"


def test_pictures_that_came_later_go_to_the_end(folder: Path, tmp_path: Path) -> None:
    ingest(folder, tmp_path / "out.zarr", size=(8, 8))
    before = xr.open_zarr(tmp_path / "out.zarr")["image"].values
    assert ingest(folder, tmp_path / "out.zarr", size=(8, 8)).added == 0
    for name in ("ants/0.png", "cats/00.png", "birds/0.png"):
        save(folder / name, noise(8, 8, 3))
    made = ingest(folder, tmp_path / "out.zarr")
    assert (made.images, made.added) == (10, 3)
    stored = xr.open_zarr(tmp_path / "out.zarr").load()
    np.testing.assert_array_equal(stored["image"].values[:7], before)
    assert stored["image_id"].values[7:].tolist() == ["ants/0.png", "birds/0.png", "cats/00.png"]
    assert stored["class"].values.tolist() == ["cats", "dogs", "ants", "birds"]
    assert stored["label"].values[7:].tolist() == [2, 3, 0]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_an_interrupted_ingestion_is_continued(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(ingest_records, "CHUNK_IMAGES", chunk)
    whole = ingest(folder, tmp_path / "whole.zarr", size=(8, 8))

    def stop(done: int, total: int, bad: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(folder, tmp_path / "out.zarr", size=(8, 8), progress=stop)
    made = ingest(folder, tmp_path / "out.zarr", size=(8, 8))
    assert made.added == 7 - 5 // chunk * chunk
    assert made.images == whole.images
    xr.testing.assert_identical(
        xr.open_zarr(tmp_path / "out.zarr").load(), xr.open_zarr(tmp_path / "whole.zarr").load()
    )


def bomb(path: Path) -> None:
    """A PNG of 50,000 × 50,000 pixels in few bytes."""

    def part(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    signature = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(signature + part(b"IHDR", header) + part(b"IDAT", data) + part(b"IEND", b""))


def cut(path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(whole, "PNG")
    path.write_bytes(whole.getvalue()[:2000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_picture(path: Path) -> None:
    path.write_text("not a picture")


def bytes_without_meaning(path: Path) -> None:
    path.write_bytes(bytes([0, 200, 7, 13]) * 100)


def jpeg_with_a_damaged_header(path: Path) -> None:
    Image.fromarray(noise(64, 64, 3)).save(path, "JPEG")
    whole = path.read_bytes()
    path.write_bytes(whole[:3] + bytes(len(whole) - 3))


def pages(path: Path) -> None:
    first, second = (Image.fromarray(noise(8, 8, 3)) for _ in range(2))
    first.save(path, "TIFF", save_all=True, append_images=[second])


def deep(path: Path) -> None:
    Image.fromarray(np.ones((8, 8), np.float32)).save(path, "TIFF")


def link_out(path: Path) -> None:
    save(path.parents[2] / "secret.png", noise(8, 8, 3))
    path.symlink_to(path.parents[2] / "secret.png")


def link_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "nothing.png")


BAD: dict[Callable[[Path], None], str] = {
    bomb: "50000 × 50000 pixels",
    cut: "cannot be read",
    empty: "is empty",
    no_picture: "no picture of a format that is read: it holds text",
    bytes_without_meaning: "no picture of a format that is read",
    jpeg_with_a_damaged_header: "begins as JPEG and cannot be read: it is damaged",
    pages: "several pages",
    deep: "32 bits",
    link_out: "leaves the folder",
    link_nowhere: "does not exist",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_bad_files_are_listed_and_left_out_or_fatal(
    make: Callable[[Path], None], folder: Path, tmp_path: Path
) -> None:
    make(folder / "cats" / "1x.png")
    made = ingest(folder, tmp_path / "out.zarr", size=(8, 8))
    assert [picture.name for picture in made.bad] == ["cats/1x.png"]
    assert BAD[make] in made.bad[0].reason
    assert xr.open_zarr(tmp_path / "out.zarr")["image_id"].values.tolist() == NAMES
    with pytest.raises(InputError, match=r"1x\.png"):
        ingest(folder, tmp_path / "other.zarr", size=(8, 8), bad="fail")


def test_folders_that_are_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "a.png", noise(8, 8, 3))
    (folder / "wolves").symlink_to(tmp_path / "elsewhere")
    (folder / "cats" / "loop").symlink_to(folder)
    made = ingest(folder, tmp_path / "out.zarr", size=(8, 8))
    assert [picture.name for picture in made.bad] == ["cats/loop", "wolves"]
    assert made.images == 7


def test_a_bad_file_that_is_mended_comes_in_later(folder: Path, tmp_path: Path) -> None:
    cut(folder / "cats" / "0.png")
    assert ingest(folder, tmp_path / "out.zarr", size=(8, 8)).images == 6
    save(folder / "cats" / "0.png", noise(8, 8, 3))
    made = ingest(folder, tmp_path / "out.zarr", size=(8, 8))
    assert (made.images, made.added, made.bad) == (7, 1, ())


def test_without_a_size_all_must_be_as_large_as_the_first(tmp_path: Path) -> None:
    for name, size in {"a.png": (6, 9), "b.png": (6, 9), "c.png": (9, 6)}.items():
        save(tmp_path / "in" / name, noise(*size, 3))
    made = ingest(tmp_path / "in", tmp_path / "out.zarr")
    assert (made.shape, made.images) == ((6, 9, 3), 2)
    assert "9 × 6" in made.bad[0].reason
    assert "label" not in xr.open_zarr(tmp_path / "out.zarr")


def test_the_ways_to_fit(tmp_path: Path) -> None:
    left_white = np.zeros((10, 40), np.uint8)
    left_white[:, :20] = 255
    path = save(tmp_path / "wide.png", left_white)

    def read(**options: Any) -> np.ndarray[Any, Any]:
        return read_picture(path, PictureForm(10, 10, colour="grey", **options))[:, :, 0]

    assert read(fit="crop")[:, :5].min() == 255
    assert read(fit="stretch")[5, 0] == 255
    assert read(fit="pad")[0].max() == 0  # black above
    assert read(fit="crop", resize=20).shape == (10, 10)
    with pytest.raises(InputError, match="10 × 40"):
        read(fit="exact")
    with pytest.raises(InputError, match="no less than 10"):
        read(resize=9)


def test_what_does_not_go(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="not a folder"):
        ingest(tmp_path / "nowhere", output)
    with pytest.raises(InputError, match="no picture"):
        ingest(tmp_path / "none", output)
    assert not output.exists()
    with hold(output), pytest.raises(LockedError):
        ingest(folder, output, size=(8, 8))
    ingest(folder, output, size=(8, 8))
    with pytest.raises(OutputError, match=r"\(height: 9 here, 8 there\)"):
        ingest(folder, output, size=(9, 8))
    with pytest.raises(OutputError, match="holds other files"):
        ingest(folder, folder, size=(8, 8))


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["ingest", *map(str, words)])


def test_the_command(folder: Path, tmp_path: Path) -> None:
    cut(folder / "cats" / "broken.png")
    arguments = (folder, tmp_path / "out.zarr", "--size", "8x9")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "7 images of 8 × 9 × 3" in result.stdout
    assert "7 new (3 png, 3 jpeg, 1 tiff)" in result.stdout
    assert "pictures of other sizes scaled and cropped (--fit crop)" in result.stdout
    assert "left out cats/broken.png: it cannot be read" in result.stderr
    assert "left out notes.txt: it is no picture" in result.stderr
    again = json.loads(run(*arguments, "--json").stdout)
    assert (again["images"], again["added"], again["unchanged"]) == (7, 0, 7)
    assert again["fit"] == "crop"
    assert [file["name"] for file in again["bad"]] == ["cats/broken.png"]
    assert {file["name"]: file["bad"] for file in again["skipped_files"]} == {
        "cats/broken.png": True, "notes.txt": False,
    }  # fmt: skip
    assert run(*arguments[:-1], "8x0").exit_code == 2
    assert run(folder, tmp_path / "o", "--bad", "fail").exit_code == 2


def test_the_command_says_what_changed(folder: Path, tmp_path: Path) -> None:
    arguments = (folder, tmp_path / "out.zarr", "--size", "8")
    run(*arguments)
    (folder / "cats" / "0.png").unlink()
    save(folder / "dogs" / "0.jpg", noise(40, 24, 3))
    result = run(*arguments)
    assert "0 new, 1 changed, 1 without a file" in result.stdout
    assert "--remove-missing takes it out): cats/0.png" in result.stderr
    made = json.loads(run(*arguments, "--remove-missing", "--json").stdout)
    assert (made["removed"], made["missing"], made["unchanged"]) == (1, 0, 6)
    assert made["removed_images"] == ["cats/0.png"]


@pytest.mark.parametrize("size", [(), ("--size", "8")])
def test_the_command_lists_all_reasons_when_nothing_came_in(
    size: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    empty(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.heic").write_text("not read")
    result = run(tmp_path / "in", tmp_path / "out.zarr", *size)
    assert result.exit_code == 2
    *reasons, last = result.stderr.splitlines()
    assert [line.split(":")[1] for line in reasons] == [" left out a.png", " left out b.heic"]
    assert "no picture that can be read (2 files left out)" in last
    result = run(tmp_path / "in", tmp_path / "out.zarr", *size, "--json")
    assert result.exit_code == 2
    made = json.loads(result.stdout)
    assert (made["images"], made["skipped"]) == (0, 2)
    assert [file["name"] for file in made["bad"]] == ["a.png", "b.heic"]
    assert not (tmp_path / "out.zarr").exists()


def test_what_the_reasons_advise_works(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "link.png", noise(9, 9, 3))
    (folder / "cats" / "link.png").symlink_to(tmp_path / "elsewhere" / "link.png")
    (folder / "wolves").symlink_to(tmp_path / "elsewhere")
    save(folder / "dogs" / "large.png", noise(90, 90, 3))
    save(folder / "dogs" / "deep.png", noise(9, 9).astype(np.uint16))
    pages(folder / "dogs" / "pages.tif")
    save(folder / "top.png", noise(9, 9, 3))
    arguments = [folder, tmp_path / "out.zarr", "--size", "8", "--max-pixels", "2000", "--json"]
    advised = [
        ["--labels", "none"], ["--follow-links"], ["--max-pixels", "100000"], ["--depth", "8"],
        ["--pages"],
    ]  # fmt: skip
    made = json.loads(run(*arguments, "--labels", "folders").stdout)
    said = " ".join(file["reason"] for file in made["bad"])
    assert made["images"] == 7
    for option in advised:
        assert option[0] in said
    arguments[1] = tmp_path / "other.zarr"
    for number in range(len(advised) + 1):
        extra = [word for option in advised[:number] for word in option]
        last = json.loads(run(*arguments, "--labels", "none", *extra).stdout)
    assert [file["name"] for file in last["skipped_files"]] == ["notes.txt"]
    assert last["images"] == 14


def test_names_cannot_control_the_terminal(folder: Path, tmp_path: Path) -> None:
    empty(folder / "cats" / "\x1b[31mred\n.png")
    result = run(folder, tmp_path / "out.zarr", "--size", "8")
    assert "\x1b" not in result.stderr
    assert "left out cats/�[31mred�.png" in result.stderr
