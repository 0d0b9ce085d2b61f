"""``status`` and ``verify``: what is done, what is damaged, and that a run repairs just that."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fcdcc.pipeline.monitoring import output_status
from fcdcc.storage import hold, images, open_predictions
from support.jobs import fcdcc
from support.small import IMAGES, Files

BATCH = 4
BLOCKS = -(-IMAGES // BATCH)

pytestmark = pytest.mark.cluster


def run(files: Files, output: Path, scheduler: str, *options: object) -> dict[str, object]:
    result = fcdcc(
        "run", files.model, files.images, output, "--scheduler", scheduler, "--n", 2,
        "--tolerate", 1, "--code", "replication", "--json", "-",
        *(options if "--batch" in options else ("--batch", BATCH, *options)),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary: dict[str, object] = json.loads(result.stdout)
    return summary


def test_status_says_what_is_done(files: Files, scheduler: str, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    assert fcdcc("status", output).exit_code == 2
    run(files, output, scheduler)
    whole = fcdcc("status", output)
    assert whole.exit_code == 0
    assert whole.stdout.startswith(f"complete: {BLOCKS} of {BLOCKS} blocks done (50 of 50 images)")
    assert "these are the images that the last run saw" in whole.stdout

    open_predictions(output).discard([3], "the reason")
    (output / ".fcdcc" / "blocks" / "00000005.json").unlink()
    part = fcdcc("status", output)
    assert part.exit_code == 4
    assert "block 3 failed: the reason" in part.stdout
    read = json.loads(fcdcc("status", output, "--json").stdout)
    assert (read["status"], read["images_done"]) == ("incomplete", 42)
    assert (read["blocks_done"], read["blocks_missing"], read["blocks_failed"]) == (11, 1, 1)
    assert read["failures"] == [{"block": 3, "reason": "the reason"}]


def test_verify_says_how_much_of_a_part_it_read(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    run(files, output, scheduler, "--limit", 20)
    *_, missing, last = fcdcc("verify", output).stdout.splitlines()
    assert missing.startswith("30 images have no place in the output")
    assert last == "20 of 20 predictions read, 5 blocks: none of it is damaged"
    (output / "prediction" / "c.3.0").unlink()
    open_predictions(output).discard([3], "the reason")
    *_, missing, _, last = fcdcc("verify", output).stdout.splitlines()
    assert missing == "4 images have no prediction yet; run the job again to compute them"
    assert last == "16 of 20 predictions read, 4 of 5 blocks: none of it is damaged"
    found = json.loads(fcdcc("verify", output, "--json").stdout)
    assert (found["images_read"], found["images_total"]) == (16, 20)
    assert (found["blocks_read"], found["blocks_total"]) == (4, 5)


def test_verify_names_damage_and_run_repairs_just_that(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    run(files, output, scheduler)
    assert fcdcc("verify", output).exit_code == 0

    flipped, cut, gone = (output / "prediction" / f"c.{block}.0" for block in (1, 4, 7))
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    record = output / ".fcdcc" / "blocks" / "00000010.json"
    record.write_bytes(record.read_bytes().replace(b"done", b"dome"))
    metadata = output / "prediction" / "zarr.json"
    metadata.write_bytes(metadata.read_bytes()[:-9])
    before = {path: path.read_bytes() for path in output.glob("prediction/c.*")}

    result = fcdcc("verify", output, "--json")
    assert result.exit_code == 5
    found = json.loads(result.stdout)
    named = {damage["path"]: damage["kind"] for damage in found["damage"]}
    assert named["prediction/c.1.0"] == "changed"
    assert named["prediction/c.4.0"] == "truncated"
    assert named["prediction/c.7.0"] == "missing"
    assert named[".fcdcc/blocks/00000010.json"] == "record"
    assert named["prediction/zarr.json"] == "truncated"
    assert found["blocks"] == [1, 4, 7, 10]
    assert {path: path.read_bytes() for path in output.glob("prediction/c.*")} == before
    again = fcdcc("verify", output)
    assert again.exit_code == 5  # until it is repaired
    before_line = "(block 1): found before: its bytes are not the ones that were written"
    assert f"prediction/c.1.0 {before_line}" in again.stdout.splitlines()
    assert f"{len(found['damage'])} damaged, in 4 blocks: run the job again" in again.stdout
    status = fcdcc("status", output).stdout
    assert f"{BLOCKS - 4} of {BLOCKS} blocks done" in status
    assert "0 missing, 0 failed, 4 damaged" in status
    assert "block 7 is damaged: prediction/c.7.0: the file is missing" in status
    open_predictions(output).discard([2], "the reason")

    summary = run(files, output, scheduler)
    assert (summary["blocks_repaired"], summary["blocks_retried"]) == (4, 1)
    assert (summary["blocks_done"], summary["blocks_skipped"]) == (5, BLOCKS - 5)
    kept = [path for path in before if path.name.split(".")[1] not in ("1", "2", "4", "7", "10")]
    assert all(path.read_bytes() == before[path] for path in kept)
    assert fcdcc("verify", output).exit_code == 0
    made = xr.open_zarr(output)["prediction"].values
    np.testing.assert_allclose(made, files.expected, atol=1e-5)


def test_a_run_keeps_verify_away(files: Files, scheduler: str, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    run(files, output, scheduler, "--limit", 4)
    with hold(output):
        assert fcdcc("verify", output).exit_code == 3


def test_an_input_that_does_not_answer_holds_up_no_verification(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, answered = tmp_path / "out.zarr", threading.Event()
    run(files, output, scheduler, "--limit", 4)
    monkeypatch.setattr(images, "open_identified_images", lambda _: answered.wait())
    monkeypatch.setattr(output_status, "MAX_SILENT_SECONDS", 0.01)
    checked = fcdcc("verify", output)
    answered.set()
    assert checked.exit_code == 0
    assert "its store has not answered for 0.01 s" in checked.stdout
    assert "answered" not in fcdcc("verify", output, "--compare", "off").stdout


@pytest.mark.parametrize("seed", [20, pytest.param(21, marks=pytest.mark.long)])
def test_flipped_bits_and_cut_files_are_all_named_and_repaired(
    files: Files, scheduler: str, tmp_path: Path, seed: int
) -> None:
    output = tmp_path / "out.zarr"
    run(files, output, scheduler, "--batch", 1)
    draw = np.random.default_rng(seed)
    # Of the two files that say which run it is, one copy has to stay.
    stored = [p for p in sorted(output.rglob("*")) if p.is_file() and p.stat().st_size]
    stored = [path for path in stored if path.name != "run.copy.json"]
    before = {path: path.read_bytes() for path in stored}
    flips = {(int(draw.integers(len(stored))), int(draw.integers(1 << 30))) for _ in range(100)}
    for number, place in flips:
        data = bytearray(stored[number].read_bytes())
        data[place % len(data)] ^= 1 << (place >> 8) % 8
        stored[number].write_bytes(data)
    for number in draw.choice(len(stored), 20, replace=False):
        data = stored[number].read_bytes()
        stored[number].write_bytes(data[: int(draw.integers(len(data)))])
    damaged = {path for path in stored if path.read_bytes() != before[path]}

    found = json.loads(fcdcc("verify", output, "--json").stdout)
    named = {output / damage["path"] for damage in found["damage"]}
    assert damaged <= named
    summary = run(files, output, scheduler, "--batch", 1)
    assert summary["blocks_done"] == len(found["blocks"])
    beside = {damage["path"] for damage in found["damage"] if damage["block"] is None}
    repaired = set(summary["files_repaired"])
    assert {path for path in beside if output / path in damaged} <= repaired <= beside
    redone = {f"c.{block}.0" for block in found["blocks"]}
    kept = [path for path in stored if path.parent.name == "prediction" and path.suffix == ".0"]
    assert all(path.read_bytes() == before[path] for path in kept if path.name not in redone)
    assert fcdcc("verify", output).exit_code == 0
    stored_again = xr.open_zarr(output)["prediction"].values
    np.testing.assert_allclose(stored_again, files.expected, atol=1e-5)


def test_verify_notes_files_of_other_programs(files: Files, scheduler: str, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    run(files, output, scheduler)
    for name in (".DS_Store", "prediction/._c.0.0", ".fcdcc/blocks/.nfs0001"):
        (output / name).write_bytes(b"x")
    result = fcdcc("verify", output)
    assert result.exit_code == 0
    *noted, last = result.stdout.splitlines()
    total, blocks = files.expected.shape[0], run(files, output, scheduler)["blocks_total"]
    assert last == f"{total} of {total} predictions read, {blocks} blocks: none of it is damaged"
    assert [line.split(":")[0] for line in noted] == [
        ".DS_Store", ".fcdcc/blocks/.nfs0001", "prediction/._c.0.0",
    ]  # fmt: skip
    assert json.loads(fcdcc("verify", output, "--json").stdout)["status"] == "whole"
    assert run(files, output, scheduler)["blocks_done"] == 0
    assert fcdcc("status", output).exit_code == 0
