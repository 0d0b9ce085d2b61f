"""Images that change between runs: exactly the blocks that they are in are made again."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray

from fcdcc.pipeline.graph import StoreReader
from fcdcc.pipeline.runtime import absence, output
from fcdcc.pipeline.runtime.input_changes import count_images
from fcdcc.storage import BlockLayout, input_state, open_predictions
from support.jobs import fcdcc, predictions, recorded_chunks
from support.small import SHAPE, SmallNet, make_files

pytestmark = pytest.mark.cluster

IMAGES = 40
Run = Callable[..., dict[str, Any]]
Pixels = NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("small")).model


@pytest.fixture
def pixels() -> Pixels:
    return np.random.default_rng(4).random((IMAGES, *SHAPE), dtype=np.float32)


def expected(images: Pixels) -> Pixels:
    torch.manual_seed(11)
    with torch.inference_mode():
        made: Pixels = SmallNet().eval()(torch.from_numpy(images)).numpy()
    return made


def write(place: Path | str, images: Pixels, ids: Any = None, chunk: int = 10) -> Any:
    """Store images anew; return the group."""
    group = zarr.open_group(place, mode="w")
    group.create_array("image", data=images, chunks=(chunk, *SHAPE), dimension_names=tuple("ncyx"))
    if ids is not None:
        group.create_array("image_id", data=np.asarray(ids), dimension_names=("n",))
    return group


def test_images_of_blocks_are_counted_once_and_not_listed() -> None:
    assert count_images([0, 2], BlockLayout(images=10, batch=4)) == 6
    assert count_images([0, 1, 4], BlockLayout(images=2, batch=1, rows=100, band=40)) == 2
    assert count_images([0, 1], BlockLayout(images=10**15, batch=9 * 10**14)) == 10**15


def settle(place: Path) -> None:
    """Make the chunks an hour old, so that their times tell whether they are written again."""
    for file in place.rglob("*"):
        if file.is_file():
            state = file.stat()
            os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns - 3_600_000_000_000))


@pytest.fixture
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no input be so small that its pixels are always compared."""
    monkeypatch.setattr(input_state, "MAX_SMALL_BYTES", 0)


@pytest.fixture
def run(model: Path, scheduler: str, tmp_path: Path) -> Run:
    """Return what runs the job; its summary says in "again" which blocks were computed."""
    out = tmp_path / "o.zarr"

    def run_job(*options: object, place: object = tmp_path / "i.zarr", code: int = 0) -> Any:
        before = recorded_chunks(out) if out.exists() else {}
        result = fcdcc(
            "run", model, place, out, "--scheduler", scheduler, "--batch", 5,
            "--json", tmp_path / "summary.json", *options,
        )  # fmt: skip
        assert result.exit_code == code, result.output
        if code == 2:
            return {"said": " ".join(result.stderr.split())}
        summary = json.loads((tmp_path / "summary.json").read_text())
        after = recorded_chunks(out)
        again = {block for block, data in after.items() if before.get(block) != data}
        return summary | {"again": again, "said": " ".join(result.stderr.split())}

    return run_job


@pytest.mark.usefixtures("as_if_large")
def test_a_chunk_that_is_written_again_is_read_again(
    tmp_path: Path, run: Run, pixels: Pixels
) -> None:
    array = write(tmp_path / "i.zarr", pixels)["image"]
    settle(tmp_path / "i.zarr")
    assert run()["blocks_done"] == 8
    assert run()["blocks_done"] == 0
    pixels[10:20] = 1 - pixels[10:20]
    array[10:20] = pixels[10:20]
    found = fcdcc("verify", tmp_path / "o.zarr")
    assert found.exit_code == 5
    assert "blocks 2 to 3 no longer belong to the input: their images were changed" in found.output
    assert found.output.splitlines()[-1] == (
        "no file is damaged, but 2 blocks no longer belong to the input: run the job again"
    )
    second = run()
    assert (second["again"], second["redone"], second["blocks_redone"]) == (
        {2, 3}, {"images": 2}, 2,
    )  # fmt: skip
    assert (
        "2 blocks are made again (10 images): at least one image in the stored chunks of each was "
        "changed, or written anew, since; --compare contents makes only blocks again whose own "
        "images changed"
    ) in second["said"]
    assert "of them 6 done before, 2 made again (2 for changed images); 10 images" in second["said"]
    assert "WARNING" not in second["said"]
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)
    assert fcdcc("verify", tmp_path / "o.zarr").exit_code == 0
    assert run()["blocks_done"] == 0


def test_pixels_of_a_small_input_are_compared(
    tmp_path: Path, run: Run, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "i.zarr", pixels)
    settle(tmp_path / "i.zarr")
    run()
    pixels[17] = 1 - pixels[17]
    write(tmp_path / "i.zarr", pixels, chunk=7)
    settle(tmp_path / "i.zarr")
    second = run()
    assert second["again"] == {3}
    assert (
        "1 image was changed since (number 17): 1 block is made again (5 images), because blocks "
        "are made as a whole"
    ) in second["said"]
    # Also where the store says nothing.
    monkeypatch.setattr(absence, "list_chunks", lambda *_: None)
    pixels[3] = 1 - pixels[3]
    write(tmp_path / "i.zarr", pixels)
    last = run()
    assert last["again"] == {0}
    assert "--compare contents" not in last["said"]


def test_images_that_are_replaced_under_the_same_path(
    tmp_path: Path, run: Run, pixels: Pixels
) -> None:
    write(tmp_path / "i.zarr", pixels, range(IMAGES))
    run()
    write(tmp_path / "i.zarr", 1 - pixels, range(IMAGES))
    second = run()
    assert second["redone"] == {"images": 8}
    assert "40 images were changed since (0, 1, 2 and 37 others): 8 blocks are" in second["said"]
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(1 - pixels), atol=1e-5)


def test_an_image_in_the_middle_moves_the_names_of_those_behind_it(
    tmp_path: Path, run: Run, pixels: Pixels
) -> None:
    write(tmp_path / "i.zarr", pixels[:-1], range(100, 100 + IMAGES - 1))
    run("--limit", 39)
    moved = np.insert(pixels[:-1], 12, pixels[-1], axis=0)
    write(tmp_path / "i.zarr", moved, np.insert(np.arange(100, 139), 12, 7))
    second = run()
    assert {2, 3, 4, 5, 6, 7} <= second["again"]
    assert second["redone"]["image_ids"] >= 5
    with_names = zarr.open_group(tmp_path / "o.zarr", mode="r")
    assert with_names["image_id"][12] == 7
    np.testing.assert_allclose(with_names["prediction"][:], expected(moved), atol=1e-5)


def test_no_image_has_the_prediction_of_another_while_names_move(
    tmp_path: Path, run: Run, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "i.zarr", pixels, range(IMAGES))
    run()
    write(tmp_path / "i.zarr", pixels[::-1], range(IMAGES)[::-1])
    truth = dict(enumerate(expected(pixels)))

    def check() -> None:
        stored = zarr.open_group(tmp_path / "o.zarr", mode="r")
        for name, values in zip(stored["image_id"][:], stored["prediction"][:], strict=True):
            right = np.allclose(values, truth[int(name)], atol=1e-5)
            assert right or np.isnan(values).all(), f"the prediction beside {name} is another's"

    steps = 0
    original = open_predictions(tmp_path / "o.zarr").folder.__class__.write

    def checked(*arguments: Any, **options: Any) -> bool:
        nonlocal steps
        steps += 1
        check()
        return original(*arguments, **options)

    monkeypatch.setattr("fcdcc.storage.files.LocalFolder.write", checked)
    run()
    assert steps > 8
    check()


def test_images_that_move_to_the_front_are_not_new(
    tmp_path: Path, run: Run, pixels: Pixels
) -> None:
    """One was taken out near the front: the last block has an image less, and no new one."""
    group = write(tmp_path / "i.zarr", pixels, range(IMAGES))
    run()
    left = np.delete(np.arange(IMAGES), 2)
    for name, values in (("image", pixels[left]), ("image_id", left)):
        group[name].resize((IMAGES - 1, *group[name].shape[1:]))
        group[name][:] = values
    second = run()
    assert second["redone"] == {"image_ids": 7, "shorter": 1}
    assert "8 made again (7 for other image ids, 1 became shorter); 39 images in " in second["said"]
    assert "the output has 1 image more than the input, which has 39 now" in second["said"]
    # Other images in front, and five more: what is beyond the earlier end is new.
    other = [100, *left, *range(101, 104)]
    values = np.concatenate([pixels[:1], pixels[left], pixels[:3]])
    for name, stored in (("image", values), ("image_id", other)):
        group[name].resize((len(other), *group[name].shape[1:]))
        group[name][:] = stored
    third = run()
    assert "43 images (4 new, 39 made again)" in third["said"]
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(values), atol=1e-5)


def test_an_input_that_became_shorter_is_followed(tmp_path: Path, run: Run, pixels: Pixels) -> None:
    write(tmp_path / "i.zarr", pixels, range(IMAGES))
    settle(tmp_path / "i.zarr")
    run()
    refused = run("--limit", 30, code=2)
    assert "holds predictions for 40 images and --limit is 30" in refused["said"]
    group = zarr.open_group(tmp_path / "i.zarr")
    for name in ("image", "image_id"):
        group[name].resize((27, *group[name].shape[1:]))
    assert (
        "blocks 5 to 7 no longer belong to the input" in fcdcc("verify", tmp_path / "o.zarr").output
    )
    second = run()
    assert (second["images_removed"], second["blocks_total"]) == (13, 6)
    assert second["again"] <= {4, 5}
    assert "the output has 13 images more than the input, which has 27 now" in second["said"]
    assert "1 made again (1 became shorter); 2 images in " in second["said"]
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels[:27]), atol=1e-5)
    assert fcdcc("verify", tmp_path / "o.zarr").exit_code == 0
    for name in ("image", "image_id"):
        group[name].resize((33, *group[name].shape[1:]))
    longer = fcdcc("verify", tmp_path / "o.zarr")
    assert "6 images have no place in the output" in longer.output
    assert json.loads(fcdcc("verify", tmp_path / "o.zarr", "--json").output)["images_new"] == 6
    # At the end of a block nothing has to be computed.
    for name in ("image", "image_id"):
        group[name].resize((20, *group[name].shape[1:]))
    third = run()
    assert (third["images_removed"], third["blocks_done"]) == (7, 0)
    assert fcdcc("verify", tmp_path / "o.zarr").exit_code == 0


@pytest.mark.usefixtures("as_if_large")
def test_images_appended_to_a_chunk_that_was_not_full(
    tmp_path: Path, run: Run, pixels: Pixels
) -> None:
    write(tmp_path / "i.zarr", pixels[:33], range(33), chunk=16)
    settle(tmp_path / "i.zarr")
    run()
    group = zarr.open_group(tmp_path / "i.zarr")
    for end in (37, 40):
        start = group["image"].shape[0]
        group["image"].append(pixels[start:end])
        group["image_id"].append(np.arange(start, end))
        assert run()["again"] == ({6, 7} if end == 37 else {7})
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)


@pytest.mark.usefixtures("as_if_large")
def test_contents_are_compared_where_that_is_asked_for(
    tmp_path: Path, run: Run, pixels: Pixels
) -> None:
    write(tmp_path / "i.zarr", pixels)
    settle(tmp_path / "i.zarr")
    run("--compare", "contents")
    write(tmp_path / "i.zarr", pixels, chunk=4)
    settle(tmp_path / "i.zarr")
    assert run()["blocks_done"] == 0
    # The times say that nothing has changed, and the sizes are the same.
    array = zarr.open_group(tmp_path / "i.zarr")["image"]
    before = {p: p.stat() for p in (tmp_path / "i.zarr").rglob("*") if p.is_file()}
    pixels[21] = pixels[21][:, ::-1]
    array[20:24] = pixels[20:24]
    for path, state in before.items():
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    sizes = all(path.stat().st_size == state.st_size for path, state in before.items())
    assert run("--compare", "contents")["again"] == {4}
    if sizes:
        np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)


@pytest.mark.usefixtures("as_if_large")
def test_a_chunk_that_changes_while_it_is_read_is_read_again_by_the_next_run(
    tmp_path: Path, run: Run, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = write(tmp_path / "i.zarr", pixels)["image"]
    settle(tmp_path / "i.zarr")
    changed = pixels.copy()
    changed[20:30] = 1 - changed[20:30]
    original = StoreReader.of
    begun: list[int] = []

    def change_then_read(*arguments: Any) -> StoreReader:
        if not begun:
            begun.append(1)
            array[20:30] = changed[20:30]
        return original(*arguments)

    monkeypatch.setattr(StoreReader, "of", change_then_read)
    run()
    assert begun
    second = run()
    assert second["again"] | {4, 5} == {4, 5}
    assert second["blocks_redone"] == 2
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(changed), atol=1e-5)
    assert run()["blocks_done"] == 0


def test_a_zip_file_is_compared_by_its_checksums(tmp_path: Path, run: Run, pixels: Pixels) -> None:
    def pack(images: Pixels) -> None:
        write(tmp_path / "folder", images)
        with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
            for file in sorted((tmp_path / "folder").rglob("*")):
                archive.write(file, file.relative_to(tmp_path / "folder"))
        shutil.rmtree(tmp_path / "folder")

    place = tmp_path / "i.zip"
    pack(pixels)
    run(place=place)
    pack(pixels)
    assert run(place=place)["blocks_done"] == 0
    pixels[7] = 1 - pixels[7]
    pack(pixels)
    assert run(place=place)["redone"] == {"images": 1}
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://changes/i.zarr"
    fsspec.filesystem("memory").rm("/changes", recursive=True)


@pytest.mark.usefixtures("as_if_large")
def test_a_store_without_times_is_named_once(
    memory: str, run: Run, pixels: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fsspec.filesystem("memory")
    find = type(files).find

    def without_times(*arguments: Any, **options: Any) -> Any:
        found = find(*arguments, **options)
        if isinstance(found, list):
            return found
        return {name: {"size": details["size"]} for name, details in found.items()}

    monkeypatch.setattr(type(files), "find", without_times)
    array = write(memory, pixels, chunk=5)["image"]
    assert run(place=memory)["said"].count("unless --compare contents reads them") == 1
    array[5:10] = 1 - pixels[5:10]
    # As the message says: such a change goes unnoticed, unless the sizes tell.
    assert run(place=memory)["again"] <= {1}
    shutil.rmtree(tmp_path / "o.zarr")
    array[5:10] = pixels[5:10]
    first = run("--compare", "contents", place=memory)
    assert "unless --compare contents" not in first["said"]
    assert run("--compare", "contents", place=memory)["blocks_done"] == 0
    pixels[5:10] = pixels[5:10][:, ::-1].copy()
    array[5:10] = pixels[5:10]
    assert run("--compare", "contents", place=memory)["again"] == {1}
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)


@pytest.mark.usefixtures("as_if_large")
def test_a_store_that_does_not_list_is_compared_by_its_contents(
    tmp_path: Path, run: Run, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = write(tmp_path / "i.zarr", pixels)["image"]
    monkeypatch.setattr(absence, "list_chunks", lambda *_: None)
    assert "does not list its chunks" in run()["said"]
    # What was made without contents cannot be compared with them.
    assert "whether these changed since is not known" in run("--compare", "contents")["said"]
    shutil.rmtree(tmp_path / "o.zarr")
    run("--compare", "contents")
    pixels[33] = 1 - pixels[33]
    array[33] = pixels[33]
    assert run("--compare", "contents")["again"] == {6}
    np.testing.assert_allclose(predictions(tmp_path / "o.zarr"), expected(pixels), atol=1e-5)


def test_records_in_segments_are_replaced(
    tmp_path: Path, run: Run, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = write(tmp_path / "i.zarr", pixels)["image"]
    settle(tmp_path / "i.zarr")
    run()
    open_predictions(tmp_path / "o.zarr").compact(keep=0)
    array[10:20] = 1 - pixels[10:20]

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output, "resize_predictions", interrupted)
        run(code=130)
    # What was removed is missing, and is no damage.
    assert fcdcc("verify", tmp_path / "o.zarr").exit_code == 0
    assert fcdcc("status", tmp_path / "o.zarr").exit_code == 4
    assert run()["again"] == {2, 3}


def test_names_that_change_alone_are_followed(tmp_path: Path, run: Run, pixels: Pixels) -> None:
    group = write(tmp_path / "i.zarr", pixels, range(IMAGES))
    run()
    group["image_id"][10:15] = np.arange(1010, 1015)
    assert run()["redone"] == {"image_ids": 1}
    stored = zarr.open_group(tmp_path / "o.zarr", mode="r")
    assert stored["image_id"][10:15].tolist() == [*range(1010, 1015)]
