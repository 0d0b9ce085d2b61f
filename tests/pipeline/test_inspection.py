"""``status`` and ``verify``: what is done, what is damaged, and that a run repairs just that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from distributed import LocalCluster

from fcdcc.pipeline.cli import main
from fcdcc.storage import hold, open_predictions
from small import IMAGES, Files, make_files

BATCH = 4
BLOCKS = -(-IMAGES // BATCH)

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with LocalCluster(
        n_workers=2, processes=False, threads_per_worker=2, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


def fcdcc(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run(files: Files, output: Path, scheduler: str, *options: object) -> dict[str, object]:
    result = fcdcc(
        "run", files.model, files.images, output, "--scheduler", scheduler, "--n", 2,
        "--tolerate", 1, "--code", "replication", "--batch", BATCH, "--json", "-", *options,
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

    open_predictions(output).discard([3], "the reason")
    (output / ".fcdcc" / "blocks" / "00000005.json").unlink()
    part = fcdcc("status", output)
    assert part.exit_code == 4
    assert "block 3 failed: the reason" in part.stdout
    read = json.loads(fcdcc("status", output, "--json").stdout)
    assert (read["status"], read["images_done"]) == ("incomplete", 42)
    assert (read["blocks_done"], read["blocks_missing"], read["blocks_failed"]) == (11, 1, 1)
    assert read["failures"] == [{"block": 3, "reason": "the reason"}]


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
    assert fcdcc("verify", output).exit_code == 5  # until it is repaired

    summary = run(files, output, scheduler)
    assert (summary["blocks_done"], summary["blocks_skipped"]) == (4, BLOCKS - 4)
    kept = [path for path in before if path.name.split(".")[1] not in ("1", "4", "7", "10")]
    assert all(path.read_bytes() == before[path] for path in kept)
    assert fcdcc("verify", output).exit_code == 0
    made = xr.open_zarr(output)["prediction"].values
    np.testing.assert_allclose(made, files.expected, atol=1e-5)


def test_a_run_keeps_verify_away(files: Files, scheduler: str, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    run(files, output, scheduler, "--limit", 4)
    with hold(output):
        assert fcdcc("verify", output).exit_code == 3
