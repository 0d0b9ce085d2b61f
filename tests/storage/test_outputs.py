from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from fcdcc.storage import (
    Coordinate,
    DamageError,
    Fingerprint,
    OutputArray,
    OutputError,
    OutputMismatchError,
    check_fingerprint,
    create_predictions,
    inspect_output,
    open_predictions,
    resize_predictions,
    set_aside,
    verify,
)
from fcdcc.storage.objects import open_folder
from fcdcc.storage.outputs import remove_former_tiles, tiles_of
from support.stored import FINGERPRINT, LOGITS, answers, fill, make_output

CLASSES = Coordinate("class", "class", np.array(["ant", "bee", "cat", "dog", "éland"]))


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_xarray_reads_labelled_predictions(place: str) -> None:
    ids = Coordinate("image_id", "image", np.arange(10) * 7)
    store = make_output(
        f"{place}/out", dim="image", coordinates=[ids, CLASSES], attributes={"model": "lenet"}
    )
    fill(store)
    with xr.open_zarr(f"{place}/out") as dataset:
        prediction = dataset["prediction"].load()
        assert dataset.attrs == {"model": "lenet"}
    assert prediction.dims == ("image", "class")
    assert prediction.dtype == np.float32
    wanted = np.concatenate([answers(store, block) for block in range(3)])
    assert np.array_equal(prediction, wanted)
    assert prediction.coords["image_id"].to_numpy().tolist() == [7 * i for i in range(10)]
    assert prediction.sel({"class": "éland"}).shape == (10,)


def test_a_coordinate_with_the_name_of_its_axis_is_an_index(tmp_path: Path) -> None:
    names = Coordinate("n", "n", np.array([f"p{i}.png" for i in range(10)], dtype=object))
    fill(make_output(str(tmp_path / "out"), coordinates=[names]))
    with xr.open_zarr(tmp_path / "out") as dataset:
        assert dataset["prediction"].sel(n="p3.png").to_numpy().tolist()[0] == 3.0


def test_times_are_read_back_as_times(tmp_path: Path) -> None:
    attributes: dict[str, Any] = {"units": "days since 2026-01-01", "calendar": "standard"}
    days = Coordinate("time", "time", np.arange(10), attributes)
    make_output(str(tmp_path / "a"), dim="time", coordinates=[days])
    moments = np.array("2026-01-01", "datetime64[s]") + np.arange(10) * np.timedelta64(86400, "s")
    make_output(str(tmp_path / "b"), dim="time", coordinates=[Coordinate("time", "time", moments)])
    with xr.open_zarr(tmp_path / "a") as first, xr.open_zarr(tmp_path / "b") as second:
        assert str(first["time"].to_numpy()[3])[:10] == "2026-01-04"
        assert str(second["time"].to_numpy()[3])[:10] == "2026-01-04"


def test_codecs_checksums_and_fill_values_are_explicit(tmp_path: Path) -> None:
    classes = OutputArray("class", (), "int64", ())
    make_output(str(tmp_path / "out"), arrays=[LOGITS, classes])
    group = zarr.open_group(tmp_path / "out", mode="r")
    for name, empty in (("prediction", np.nan), ("class", -1)):
        metadata = json.loads((tmp_path / f"out/{name}/zarr.json").read_text())
        assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "zstd", "crc32c"]
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert array.chunks[0] == 4
        np.testing.assert_array_equal(array[:], np.full(array.shape, empty))


def test_dense_and_several_arrays(place: str) -> None:
    arrays = [
        OutputArray("prediction", (3,), "int64", ("rank",)),
        OutputArray("score", (3,), "float32", ("rank",)),
        OutputArray("mask", (2, 4, 5), "float64", ("class", "y", "x")),
    ]
    rows = Coordinate("y", "y", np.linspace(0.0, 1.0, 4))
    store = make_output(f"{place}/out", images=3, batch=2, arrays=arrays, coordinates=[rows])
    values = {
        a.name: np.arange(2 * np.prod(a.shape)).reshape(2, *a.shape).astype(a.dtype) for a in arrays
    }
    store.write(0, values)
    for name, wanted in values.items():
        assert np.array_equal(store.read(0, name), wanted)
    with xr.open_zarr(f"{place}/out") as dataset:
        assert dataset["mask"].dims == ("n", "class", "y", "x")
        assert dataset["mask"].coords["y"].to_numpy()[-1] == 1.0
        assert dataset["prediction"].to_numpy()[2].tolist() == [-1, -1, -1]
    assert verify(f"{place}/out") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "at least 1 per block"),
        ({"arrays": []}, "no arrays"),
        ({"arrays": [LOGITS, LOGITS]}, "two arrays"),
        ({"arrays": [OutputArray("prediction", (5,), "float32", ("n",))]}, "axis 'n'"),
        ({"coordinates": [Coordinate("a", "class", np.arange(4))]}, "4 values.*expected 5"),
        ({"coordinates": [Coordinate("a", "n", np.arange(9))]}, "9 values.*expected 10"),
        ({"coordinates": [Coordinate("a", "b", np.arange(9))]}, "no such axis"),
        ({"coordinates": [Coordinate("prediction", "n", np.arange(10))]}, "two arrays"),
        ({"coordinates": [Coordinate("class", "n", np.arange(10))]}, "name of another axis"),
    ],
)
def test_what_does_not_fit_together_leaves_nothing_behind(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OutputError, match=message):
        make_output(str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", (5,), "complex64", ("x",)), "integers or floats"),
        (("a", (5,), "nonsense", ("x",)), "integers or floats"),
        (("a", (5, 2), "float32", ("x",)), "one name for each axis"),
        (("a", (5, 2), "float32", ("x", "x")), "one name for each axis"),
        (("a", (0,), "float32", ("x",)), "sizes above 0"),
        (("a/b", (5,), "float32", ("x",)), "without '/'"),
        ((".fcdcc", (5,), "float32", ("x",)), "neither"),
    ],
)
def test_arrays_that_cannot_be_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(OutputError, match=message):
        OutputArray(*arguments)


def test_a_coordinate_has_one_axis() -> None:
    with pytest.raises(OutputError, match="one axis"):
        Coordinate("a", "n", np.zeros((2, 2)))


def test_a_folder_that_holds_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"it holds thesis\.tex; expected"):
        make_output(str(tmp_path))
    with pytest.raises(OutputError, match="it was not moved"):
        set_aside(tmp_path)
    assert files_below(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_store_of_somebody_else_is_refused(place: str) -> None:
    zarr.create_array(f"{place}/out", shape=(3,), dtype="uint8")
    with pytest.raises(OutputError, match="not an output of fcdcc: it holds"):
        inspect_output(f"{place}/out")


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for url in (tmp_path / "out", tmp_path / "out/deeper"):
        with pytest.raises(OutputError, match="cannot be"):
            make_output(str(url))


def test_nothing_and_an_empty_folder_are_no_output(place: str, tmp_path: Path) -> None:
    assert inspect_output(f"{place}/absent") is None
    (tmp_path / "empty").mkdir()
    assert inspect_output(tmp_path / "empty") is None
    make_output(str(tmp_path / "empty"))
    with pytest.raises(OutputError, match="it is empty or does not exist"):
        open_predictions(f"{place}/absent")
    with pytest.raises(OutputError, match="it is empty or does not exist"):
        resize_predictions(f"{place}/absent", 3)
    with pytest.raises(OutputError, match="it is empty or does not exist"):
        verify(f"{place}/absent")


def test_readers_are_told_what_is_there_instead(tmp_path: Path) -> None:
    (tmp_path / "images" / ".fcdcc").mkdir(parents=True)
    (tmp_path / "images" / ".fcdcc" / "ingest.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for read in (open_predictions, verify):
        with pytest.raises(OutputError, match=r"is not an output .*: it holds \.fcdcc; expected"):
            read(tmp_path / "images")
        with pytest.raises(OutputError, match="cannot be read: Not a directory"):
            read(tmp_path / "file")


def test_an_output_is_created_once(place: str) -> None:
    make_output(f"{place}/out")
    with pytest.raises(OutputError, match="is an output already"):
        make_output(f"{place}/out")


def test_an_output_remembers_its_job(place: str) -> None:
    plan = {"layers": [{"k_a": 4, "k_b": 2}], "note": "gespeichert für später"}
    store = make_output(f"{place}/out", plan=plan, attributes={"model": "lenet"}, dim="time")
    run = inspect_output(f"{place}/out")
    assert run is not None
    assert (run.plan, run.batch, run.dim, run.fingerprint) == (plan, 4, "time", FINGERPRINT)
    assert open_predictions(f"{place}/out") == store


def test_another_fingerprint_is_refused_by_what_differs(place: str) -> None:
    make_output(f"{place}/out")
    run = inspect_output(f"{place}/out")
    assert run is not None
    check_fingerprint(f"{place}/out", run, FINGERPRINT)
    other = Fingerprint.of({"model": "9b2c", "preparation": {"scale": "none", "mean": []}})
    with pytest.raises(OutputMismatchError) as caught:
        check_fingerprint(f"{place}/out", run, other)
    text = str(caught.value)
    assert 'model: "9b2c" here, "1f3a" there' in text
    assert 'preparation.scale: "none" here, "auto" there' in text
    assert "mean" not in text
    assert "--restart" in text


def test_putting_aside_keeps_every_byte(tmp_path: Path) -> None:
    fill(make_output(str(tmp_path / "out")))
    before = files_below(tmp_path / "out")
    first = set_aside(tmp_path / "out")
    assert inspect_output(tmp_path / "out") is None
    fill(make_output(str(tmp_path / "out")))
    second = set_aside(tmp_path / "out")
    assert first != second
    assert files_below(Path(first)) == before
    assert verify(first) == verify(second) == []


def test_putting_aside_in_an_object_store(place: str) -> None:
    fill(make_output(f"{place}/out"))
    moved = set_aside(f"{place}/out")
    assert inspect_output(f"{place}/out") is None
    assert verify(moved) == []


def test_former_tiles_are_removed_and_nothing_else(place: str) -> None:
    fill(make_output(f"{place}/out"))
    remove_former_tiles(f"{place}/out")  # there are none
    for _ in range(2):
        fill(make_output(tiles_of(f"{place}/out")))
        set_aside(tiles_of(f"{place}/out"))
    fill(make_output(tiles_of(f"{place}/out")))
    remove_former_tiles(f"{place}/out")
    entries = open_predictions(f"{place}/out/.fcdcc/tiles").folder.entries()
    assert entries is not None
    assert "prediction" in entries
    assert not [n for n in open_folder(f"{place}/out/.fcdcc").entries() or () if "aside" in n]
    assert verify(f"{place}/out") == []


def test_former_tiles_that_cannot_be_removed_are_named_and_the_others_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(make_output(tmp_path / "out"))
    private = tmp_path / "out/.fcdcc"
    (private / "tiles.aside-a").symlink_to(tmp_path)
    (private / "tiles.aside-b").mkdir()
    remove_former_tiles(tmp_path / "out")
    [said] = [record.getMessage() for record in caplog.records]
    assert f"{private}/tiles.aside-a cannot be deleted" in said
    assert [path.name for path in private.glob("tiles.aside-*")] == ["tiles.aside-a"]


def test_a_file_that_vanishes_while_a_folder_is_deleted_does_not_end_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "file").touch()
    unlink = os.unlink

    def unlink_twice(path: Any, **options: Any) -> None:
        unlink(path, **options)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", unlink_twice)
    open_folder(str(tmp_path / "folder")).remove()
    open_folder(str(tmp_path / "folder")).remove()  # there is none any more
    assert not (tmp_path / "folder").exists()


def test_appended_images_leave_recorded_blocks_alone(place: str) -> None:
    fill(make_output(f"{place}/out", coordinates=[CLASSES, Coordinate("id", "n", np.arange(10))]))
    before = {name: open_predictions(f"{place}/out").folder.read(name) for name in CHUNKS[:2]}
    ids = Coordinate("id", "n", np.arange(100, 115))
    store = resize_predictions(f"{place}/out", 15, [ids])
    assert store.progress().pending == [2, 3]
    with xr.open_zarr(f"{place}/out") as dataset:
        # What was predicted for the partial block stays readable until it is made anew.
        assert dataset["prediction"].to_numpy()[9, 0] == 9.0
    assert fill(store) == [2, 3]
    assert {name: store.folder.read(name) for name in CHUNKS[:2]} == before
    with xr.open_zarr(f"{place}/out") as dataset:
        assert dataset["prediction"].to_numpy()[:, 0].tolist() == list(range(15))
        assert dataset["id"].to_numpy().tolist() == list(range(100, 115))
        assert dataset["class"].to_numpy().tolist() == ["ant", "bee", "cat", "dog", "éland"]
    assert verify(f"{place}/out") == []


CHUNKS = ["prediction/c.0.0", "prediction/c.1.0", "prediction/c.2.0"]


def test_appended_images_after_a_full_block_leave_all_blocks_alone(tmp_path: Path) -> None:
    fill(make_output(str(tmp_path / "out"), images=8))
    assert resize_predictions(tmp_path / "out", 9).progress().pending == [2]


def test_bringing_an_output_to_the_length_it_has_writes_nothing(tmp_path: Path) -> None:
    fill(make_output(str(tmp_path / "out")))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    resize_predictions(tmp_path / "out", 10)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")} == before


def test_fewer_images_than_before_are_refused(tmp_path: Path) -> None:
    make_output(str(tmp_path / "out"))
    with pytest.raises(OutputError, match="10 images and there are 9"):
        resize_predictions(tmp_path / "out", 9)


@pytest.mark.parametrize("survivors", range(1, 12))
def test_a_creation_that_was_interrupted_anywhere_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    ids = Coordinate("id", "n", np.arange(10))
    replaced = 0
    replace = os.replace

    def dying(*arguments: Any) -> None:
        nonlocal replaced
        replaced += 1
        if replaced > survivors:
            raise KeyboardInterrupt
        replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", dying)
        with contextlib.suppress(KeyboardInterrupt):
            make_output(str(tmp_path / "out"), coordinates=[ids])
    if inspect_output(tmp_path / "out") is None:
        make_output(str(tmp_path / "out"), coordinates=[ids])
    store = resize_predictions(tmp_path / "out", 10, [ids])
    fill(store)
    assert verify(tmp_path / "out") == []
    with xr.open_zarr(tmp_path / "out") as dataset:
        assert dataset["id"].to_numpy().tolist() == list(range(10))


SEALED = [
    "zarr.json",
    "prediction/zarr.json",
    "id/zarr.json",
    "id/c.0",
    "class/zarr.json",
    "class/c.0",
    ".fcdcc/run.json",
    ".fcdcc/run.copy.json",
    ".fcdcc/contents.json",
    ".fcdcc/contents.copy.json",
]


@pytest.mark.parametrize("name", SEALED)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_metadata_is_mended(tmp_path: Path, name: str, damage: str) -> None:
    ids = Coordinate("id", "n", np.arange(10))
    fill(make_output(str(tmp_path / "out"), coordinates=[ids, CLASSES]))
    before = files_below(tmp_path / "out")
    path = tmp_path / "out" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-1])
    assert [found.path for found in verify(tmp_path / "out")] == [name]
    told: list[list[str]] = []
    resize_predictions(tmp_path / "out", 10, [ids], on_repair=told.append)
    assert told == [[name]]
    resize_predictions(tmp_path / "out", 10, [ids], on_repair=told.append)
    assert len(told) == 1
    assert verify(tmp_path / "out") == []
    assert files_below(tmp_path / "out") == before


def test_an_output_that_no_longer_says_of_which_run_is_named(tmp_path: Path) -> None:
    make_output(str(tmp_path / "out"))
    for name in ("run.json", "run.copy.json"):
        (tmp_path / "out/.fcdcc" / name).write_bytes(b"{}")
    with pytest.raises(DamageError, match="--restart"):
        inspect_output(tmp_path / "out")
    assert len(verify(tmp_path / "out")) == 2
    set_aside(tmp_path / "out")
    make_output(str(tmp_path / "out"))


def test_an_output_of_a_newer_version_is_refused_in_words(tmp_path: Path) -> None:
    from fcdcc.storage.checksummed_json import seal

    make_output(str(tmp_path / "out"))
    (tmp_path / "out/.fcdcc/run.json").write_bytes(seal({"schema": 99}) + b"\n")
    with pytest.raises(OutputError, match="newer version"):
        inspect_output(tmp_path / "out")


def test_an_output_cannot_be_made_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be an output"):
        make_output("http://127.0.0.1:9/out")
    with pytest.raises(OutputError, match="cannot be"):
        make_output("nosuch://out")
    with pytest.raises(OutputError, match="cannot be"):
        make_output("/proc/nowhere/out")


def test_every_argument_can_be_left_to_its_default(tmp_path: Path) -> None:
    store = create_predictions(
        tmp_path / "out", images=1, batch=1, arrays=[LOGITS], fingerprint=FINGERPRINT
    )
    assert "PredictionStore" in repr(store)
