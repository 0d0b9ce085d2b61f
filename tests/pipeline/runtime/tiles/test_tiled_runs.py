"""Whole jobs with tiles: their predictions are those of the whole images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from numpy.typing import NDArray
from torch import nn

from fcdcc.pipeline import JobConfig, infer, open_model, plan, run
from fcdcc.pipeline.cli.process_exit import ExitCode
from fcdcc.pipeline.cli.run_command import _print_summary
from fcdcc.pipeline.demo.faults import Stopper
from fcdcc.pipeline.demo.faults import worker_processes as processes_of
from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from fcdcc.pipeline.monitoring.report.recorded_run import read_report
from fcdcc.pipeline.runtime.tiles import assembly
from fcdcc.pipeline.runtime.tiles.mosaic import Mosaic
from fcdcc.storage import OutputError, open_predictions, verify
from fcdcc.storage.outputs import tiles_of
from support.fork_server import worker_processes
from support.jobs import fcdcc
from zoo.segmentation import UNet

ROWS, COLUMNS, TILE, OVERLAP = 52, 44, 24, 8
TILES = 3 * 3

pytestmark = pytest.mark.cluster


def dense() -> nn.Module:
    """Return a network that looks at two pixels around each."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)
    ).eval()


def export(module: nn.Module, path: Path, *, size: int | None = None, multiple: int = 1) -> None:
    axes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if size is None:
        axes |= {2: multiple * torch.export.Dim("h"), 3: multiple * torch.export.Dim("w")}
    example = torch.zeros(2, 3, size or 32, size or 40)
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=(axes,))
    torch.export.save(program, path)


def pixels_of(images: int, rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (images, 3, rows, columns), dtype=np.uint8)


def write_images(path: Path, pixels: NDArray[np.uint8]) -> None:
    group = zarr.open_group(path, mode="w")
    group.create_array("image", data=pixels, chunks=(1, 3, 16, 16), dimension_names=list("ncyx"))
    group.create_array("image_id", data=np.arange(len(pixels)) + 100, dimension_names=["n"])
    group.create_array("y", data=np.arange(pixels.shape[2]) * 0.5, dimension_names=["y"])


def whole(module: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return module(torch.from_numpy(pixels).float() / 255).numpy()


@dataclass(frozen=True)
class Tiled:
    """A network of any size, two images, and where their predictions go."""

    folder: Path
    scheduler: str

    @property
    def images(self) -> Path:
        return self.folder / "i.zarr"

    @property
    def output(self) -> Path:
        return self.folder / "o.zarr"

    def run(self, progress: Any = None, **options: Any) -> Any:
        defaults: dict[str, Any] = {
            "model": self.folder / "m.pt2", "input": self.images, "output": self.output,
            "tile": TILE, "overlap": OVERLAP, "batch": 4, "scheduler": self.scheduler,
            "progress": False,
        }  # fmt: skip
        return run(JobConfig(**defaults | options), progress)

    def prediction(self) -> xr.DataArray:
        return xr.open_zarr(self.output)["prediction"]

    def files(self) -> dict[str, bytes]:
        """What is stored of the images' predictions."""
        chunks = (self.output / "prediction").glob("c.*")
        return {path.name: path.read_bytes() for path in chunks}

    def tile_chunks(self) -> list[str]:
        return sorted(p.name for p in (Path(tiles_of(self.output)) / "prediction").glob("c.*"))


@pytest.fixture
def tiled(tmp_path: Path, scheduler: str) -> Tiled:
    export(dense(), tmp_path / "m.pt2")
    write_images(tmp_path / "i.zarr", pixels_of(2))
    return Tiled(tmp_path, scheduler)


def assert_right(tiled: Tiled, expected: NDArray[Any]) -> None:
    made = tiled.prediction()
    assert made.dims == ("n", "class", "y", "x")
    assert np.abs(made.values - expected).max() <= 1e-5 * np.abs(expected).max()
    assert verify(tiled.output) == []


def test_predictions_of_tiles_are_those_of_whole_images(
    tiled: Tiled, caplog: pytest.LogCaptureFixture
) -> None:
    """From the first run on, with images that are changed, appended and taken away."""
    pixels = pixels_of(3)
    summary = tiled.run()
    assert (summary.status, summary.images_done, summary.tiles_done) == ("complete", 2, 2 * TILES)
    assert (summary.blocks_total, summary.bands_done) == (5, 2)
    assert_right(tiled, whole(dense(), pixels[:2]))
    assert tiled.tile_chunks() == []  # they are removed once they are not needed
    stored = xr.open_zarr(tiled.output)
    assert stored["image_id"].values.tolist() == [100, 101]
    assert stored["y"].values[1] == 0.5
    assert stored.attrs["tiles"]["size"] == [TILE, TILE]
    before = tiled.files()

    again = tiled.run()
    assert (again.status, again.blocks_done, again.bands_skipped) == ("complete", 0, 2)
    status = json.loads(fcdcc("status", tiled.output, "--json").stdout)
    assert (status["status"], status["images_done"], status["tiles"]) == ("complete", 2, None)

    pixels[1, 0, 3, 3] ^= 255
    zarr.open_group(tiled.images)["image"][1, 0, 3, 3] = pixels[1, 0, 3, 3]
    assert "no longer belongs to the input" in fcdcc("verify", tiled.output).output
    changed = tiled.run()
    assert (changed.status, changed.images_done, changed.redone) == ("complete", 1, {"images": 1})
    assert changed.tiles_done < 2 * TILES
    line = "2 bands of the images, of them 1 done before, 1 made again (1 for changed images); "
    assert f"complete: {line}" in str(changed)
    assert_right(tiled, whole(dense(), pixels[:2]))
    assert tiled.files()["c.0.0.0.0"] == before["c.0.0.0.0"]

    write_images(tiled.images, pixels)
    appended = tiled.run()
    assert (appended.status, appended.images_done) == ("complete", 1)
    assert_right(tiled, whole(dense(), pixels))
    write_images(tiled.images, pixels[:1])
    removed = tiled.run()
    assert (removed.status, len(tiled.prediction())) == ("complete", 1)
    assert removed.images_removed == 2
    said = [text for text in caplog.messages if "more than the input" in text]
    assert [text.partition(":")[0] for text in said] == [
        "the output has 2 images more than the input, which has 1 now"
    ]
    assert fcdcc("report", tiled.output).exit_code == 0


def test_chunks_that_are_not_stored_are_counted_once_and_their_bands_made_again(
    tiled: Tiled,
) -> None:
    chunk = tiled.images / "image" / "c" / "1" / "0" / "1" / "1"  # several tiles touch it
    stored = chunk.read_bytes()
    chunk.unlink()
    first = tiled.run()
    assert (first.status, first.blocks_provisional, first.chunks_absent) == ("complete", 1, 1)
    chunk.write_bytes(stored)
    second = tiled.run()
    assert (second.status, second.redone) == ("complete", {"absent_chunks": 1})
    assert (second.blocks_redone, second.blocks_provisional, second.chunks_absent) == (1, 0, 0)
    assert_right(tiled, whole(dense(), pixels_of(2)))


@pytest.mark.parametrize("blend", ["linear", "gaussian", "constant"])
@pytest.mark.long
def test_other_windows(tiled: Tiled, blend: str) -> None:
    tiled.run(blend=blend)
    assert_right(tiled, whole(dense(), pixels_of(2)))


class Interrupting(Quiet):
    """Ends a run when some blocks are done."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done >= self._blocks:
            raise KeyboardInterrupt


@pytest.mark.parametrize("blocks", [2, 5])
def test_an_interrupted_run_is_continued_to_the_same_bytes(
    tiled: Tiled, blocks: int, tmp_path: Path
) -> None:
    """In the middle of the tiles, or when these are done; then some of them are damaged."""
    with pytest.raises(KeyboardInterrupt):
        tiled.run(Interrupting(blocks), in_flight=1)
    status = fcdcc("status", tiled.output)
    assert status.exit_code == 4
    assert "5 blocks of tiles done" in status.output
    made = blocks
    if blocks == 5:
        (Path(tiles_of(tiled.output)) / "prediction" / "c.2.0.0.0").write_bytes(b"nothing")
        found = fcdcc("verify", tiled.output)
        assert found.exit_code == 5
        assert ".fcdcc/tiles/prediction/c.2.0.0.0" in found.output
        made -= 1
    summary = tiled.run()
    assert (summary.status, summary.blocks_skipped) == ("complete", made)
    assert_right(tiled, whole(dense(), pixels_of(2)))
    other = Tiled(tmp_path, tiled.scheduler)
    continued = tiled.files()
    other.run(output=tmp_path / "at-once.zarr")
    at_once = (tmp_path / "at-once.zarr" / "prediction").glob("c.*")
    assert continued == {path.name: path.read_bytes() for path in at_once}


def test_the_report_of_an_interrupted_run_counts_blocks_of_tiles_not_bands(
    tiled: Tiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "MAX_BAND_BYTES", 6 * 4 * 4 * COLUMNS)
    first = tiled.run(limit=1)
    assert (first.status, first.bands_total) == ("complete", 9)
    with pytest.raises(KeyboardInterrupt):
        tiled.run(Interrupting(1), in_flight=1)
    text = " ".join(fcdcc("report", tiled.output).output.split())
    assert "4 tiles in" in text
    assert "It was interrupted when 3 of 5 blocks were done" in text


def test_tiles_that_are_damaged_when_they_are_needed_are_made_again(tiled: Tiled) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiled.run(Interrupting(5), in_flight=1)
    chunk = Path(tiles_of(tiled.output)) / "prediction" / "c.0.0.0.0"
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1  # of the same size: its record cannot tell
    chunk.write_bytes(damaged)
    first = tiled.run()
    assert (first.status, first.bands_failed) == ("incomplete", 1)
    assert "tiles are damaged" in first.failures[0].reason
    second = tiled.run()
    assert (second.status, second.blocks_done) == ("complete", 1)
    assert_right(tiled, whole(dense(), pixels_of(2)))


class Rewriting(Quiet):
    """Changes a pixel when all tiles are done and their predictions are about to be joined."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self.is_done = False

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done == advance.blocks_total and not self.is_done:
            zarr.open_group(self._images)["image"][1, 0, 3, 3] = 0
            self.is_done = True


def test_an_image_that_changes_after_its_tiles_were_read_is_noticed(tiled: Tiled) -> None:
    pixels = pixels_of(2)
    changes = Rewriting(tiled.images)
    assert tiled.run(changes).status == "complete"
    assert changes.is_done
    pixels[1, 0, 3, 3] = 0
    summary = tiled.run()
    assert (summary.status, summary.redone) == ("complete", {"images": 1})
    assert_right(tiled, whole(dense(), pixels))


def test_tiles_of_an_interrupted_run_are_made_again_if_their_image_changes(tiled: Tiled) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiled.run(Interrupting(5), in_flight=1)
    pixels = pixels_of(2)
    pixels[1, 0, 3, 3] ^= 255
    zarr.open_group(tiled.images)["image"][1, 0, 3, 3] = pixels[1, 0, 3, 3]
    summary = tiled.run()
    assert summary.status == "complete"
    assert 0 < summary.blocks_done < summary.blocks_total
    assert_right(tiled, whole(dense(), pixels))
    assert tiled.run().redone == {}


class Deleting(Quiet):
    """Deletes a prediction of tiles when all of them are done and are about to be joined."""

    def __init__(self, output: Path) -> None:
        self._chunk = Path(tiles_of(output)) / "prediction" / "c.0.0.0.0"

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done == advance.blocks_total:
            self._chunk.unlink(missing_ok=True)


def test_bands_whose_tiles_are_gone_fail_in_the_summary_the_report_and_the_exit_code(
    tiled: Tiled,
) -> None:
    first = tiled.run(Deleting(tiled.output))
    assert (first.status, first.bands_failed, first.blocks_failed) == ("incomplete", 1, 0)
    assert "1 block of its tiles is not there: run again" in first.failures[0].reason
    assert "1 band failed" in " ".join(fcdcc("report", tiled.output).output.split())
    assert _print_summary(first, None) == ExitCode.BLOCKS_FAILED
    (recorded,) = read_report(str(tiled.output)).runs
    told = {**recorded.members["summary"], "state": recorded.state}
    same = {"state": "incomplete", "bands_failed": 1, "prediction": first.prediction}
    same |= {"output": str(tiled.output), "fingerprint": first.fingerprint}
    assert {name: told[name] for name in same} == same
    assert tiled.run().status == "complete"
    assert_right(tiled, whole(dense(), pixels_of(2)))


def test_tiles_that_were_put_aside_are_removed_once_all_bands_are_done(
    tiled: Tiled, caplog: pytest.LogCaptureFixture
) -> None:
    assert tiled.run(Deleting(tiled.output)).bands_failed == 1
    private = Path(tiles_of(tiled.output)).parent
    for copy in (private / "tiles" / ".fcdcc").glob("run*.json"):
        copy.write_text("{}")  # as good as of another form
    assert tiled.run(restart=True).status == "complete"
    assert f"the earlier output was renamed to {private}/tiles.aside-" in caplog.text
    assert [*private.glob("tiles.aside-*")] == []
    assert_right(tiled, whole(dense(), pixels_of(2)))


def test_tiles_are_removed_even_if_a_run_ends_before_that(
    tiled: Tiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Mosaic, "clean_up", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiled.run()
    assert len(tiled.tile_chunks()) == 5
    assert tiled.run().status == "complete"
    assert tiled.tile_chunks() == []


class Averaging(nn.Module):
    """Classifies bytes with their channels last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2).float() / 255
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def test_classes_of_a_network_of_fixed_size_are_a_grid(tiled: Tiled) -> None:
    """It takes bytes with their channels last, and is larger than nothing that is said."""
    module = Averaging().eval()
    example = torch.zeros((2, 16, 16, 3), dtype=torch.uint8)
    axes = ({0: torch.export.Dim("batch")},)
    torch.export.save(
        torch.export.export(module, (example,), dynamic_shapes=axes), tiled.folder / "m.pt2"
    )
    told = fcdcc(
        "run", tiled.folder / "m.pt2", tiled.images, tiled.output, "--scheduler", tiled.scheduler,
        "--store", "probabilities",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "takes images of 16 × 16: each image of 52 × 44 is 4 × 3 tiles" in told.stderr
    made = tiled.prediction()
    assert made.dims == ("n", "tile_y", "tile_x", "class")
    starts = (0, 14, 28, 36), (0, 14, 28)
    assert made["tile_y_start"].values.tolist() == [*starts[0]]
    assert made["tile_y"].values.tolist() == [(start + 7.5) / 2 for start in starts[0]]
    assert made["tile_x"].values.tolist() == [start + 7.5 for start in starts[1]]
    pixels = np.moveaxis(pixels_of(2), 1, -1)
    for (i, top), (j, left) in product(*map(enumerate, starts)):
        tile = torch.from_numpy(pixels[:, top : top + 16, left : left + 16].copy())
        with torch.inference_mode():
            expected = module(tile).softmax(1).numpy()
        np.testing.assert_allclose(made.values[:, i, j], expected, atol=1e-6)
    assert verify(tiled.output) == []


def test_class_numbers_are_those_of_the_nearest_tile(tiled: Tiled) -> None:
    class Numbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = dense()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dense(x).argmax(1)

    export(Numbers(), tiled.folder / "m.pt2")
    tiled.run(limit=1)
    made = tiled.prediction()
    assert (made.dims, made.dtype) == (("n", "y", "x"), np.dtype("int64"))
    assert (made.values == whole(dense(), pixels_of(1)).argmax(1)).mean() > 0.999


@pytest.mark.long
@pytest.mark.parametrize("store", ["classes", "top:2", "probabilities"])
def test_stored_forms_are_made_of_the_blended_prediction(tiled: Tiled, store: str) -> None:
    tiled.run(store=store)
    expected = whole(dense(), pixels_of(2))
    made = tiled.prediction().values
    if store == "probabilities":
        softmax = torch.from_numpy(expected).softmax(1).numpy()
        np.testing.assert_allclose(made, softmax, atol=1e-6)
        return
    first = made if store == "classes" else made[:, 0]
    assert (first == expected.argmax(1)).mean() > 0.999


def test_volumes_in_bands_of_slices(tiled: Tiled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_BAND_BYTES", 4 * 2 * 20 * 18 * 7)
    torch.manual_seed(5)
    module = nn.Conv3d(1, 2, 3, padding=1).eval()
    axes = {0: torch.export.Dim("b"), 2: torch.export.Dim("d"), 3: torch.export.Dim("h")}
    axes |= {4: torch.export.Dim("w")}
    program = torch.export.export(module, (torch.zeros(2, 1, 9, 10, 11),), dynamic_shapes=(axes,))
    torch.export.save(program, tiled.folder / "m.pt2")
    volume = np.random.default_rng(0).normal(size=(1, 1, 16, 20, 18)).astype("float32")
    zarr.open_group(tiled.images, mode="w").create_array(
        "image", data=volume, chunks=(1, 1, 8, 8, 8), dimension_names=list("nczyx")
    )
    summary = tiled.run(tile=[8, 10, 9], overlap=4)
    assert (summary.status, summary.bands_total) == ("complete", 3)
    with torch.inference_mode():
        expected = module(torch.from_numpy(volume)).numpy()
    np.testing.assert_allclose(tiled.prediction().values, expected, atol=1e-5)


def test_other_windows_are_another_job_and_restart_puts_the_old_one_aside(tiled: Tiled) -> None:
    tiled.run(limit=1)
    told = fcdcc(
        "run", tiled.folder / "m.pt2", tiled.images, tiled.output, "--scheduler", tiled.scheduler,
        "--tile", TILE, "--overlap", OVERLAP, "--blend", "gaussian",
    )  # fmt: skip
    assert told.exit_code == 2
    assert "tiles" in told.output
    assert tiled.run(blend="gaussian", restart=True, limit=1).blocks_skipped == 0
    assert len([*tiled.folder.glob("o.zarr.aside-*")]) == 1


def test_plans_of_tiles_say_so(tiled: Tiled) -> None:
    told = fcdcc(
        "plan", tiled.folder / "m.pt2", tiled.images, "--tile", "24", "--overlap", "8",
        "--workers", "2",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "3 × 3 tiles of 24 × 24" in " ".join(told.output.split())
    model = open_model(str(tiled.folder / "m.pt2"))
    images = xr.open_zarr(tiled.images, consolidated=False)["image"]
    with pytest.raises(OptionError, match="fcdcc run"):
        plan(model, images, tile=24)
    with pytest.raises(OptionError, match="fcdcc run"):
        infer(model, images, tile=24)


# ------------------------------------------------------------------- processes


UNET_TILE, UNET_SIZE = 128, (576, 640)


@pytest.fixture
def unet(tmp_path: Path) -> tuple[Path, Path, NDArray[np.float32]]:
    """A U-Net, an image that is large for it, and what it makes of the whole image."""
    torch.manual_seed(4)
    module = UNet(bilinear=False, width=4).eval()
    export(module, tmp_path / "m.pt2", multiple=8)
    pixels = pixels_of(1, *UNET_SIZE)
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    group.create_array("image", data=pixels, chunks=(1, 3, 64, 64), dimension_names=list("ncyx"))
    return tmp_path / "m.pt2", tmp_path / "i.zarr", whole(module, pixels)


def blocks_of_tiles(output: Path) -> int:
    try:
        return int(open_predictions(tiles_of(output)).progress().done.sum())
    except OutputError:
        return 0


class StoppingWorkers(Quiet):
    """Stops workers when all tiles are done and their predictions are about to be put together."""

    def __init__(self, stopper: Stopper) -> None:
        self._stopper = stopper

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done == advance.blocks_total:
            self._stopper.stop()


@pytest.mark.long
def test_two_of_four_workers_stop_before_the_last_step(tiled: Tiled) -> None:
    with (
        LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        Stopper(dict([*processes_of(client).items()][:2])) as stopper,
    ):
        summary = tiled.run(StoppingWorkers(stopper), scheduler=cluster.scheduler_address)
        assert len(stopper.faults) == 2
    assert (summary.status, summary.bands_done) == ("complete", 2)
    assert_right(tiled, whole(dense(), pixels_of(2)))


@pytest.mark.long
@pytest.mark.parametrize("fault", ["stop two workers", "kill everything"])
def test_a_tiled_network_with_faults_in_the_middle(
    unet: tuple[Path, Path, NDArray[np.float32]], tmp_path: Path, fault: str
) -> None:
    model, images, expected = unet
    output = tmp_path / "o.zarr"
    command = [
        sys.executable, "-m", "fcdcc.pipeline", "run", str(model), str(images), str(output),
        "--tile", str(UNET_TILE), "--overlap", "64", "--workers", "6", "--batch", "4",
        "--n", "6", "--tolerate", "2", "--in-flight", "2", "--dashboard-address", ":0",
        "--json", "-",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while blocks_of_tiles(output) < 3 and process.poll() is None:
        assert time.monotonic() < deadline, "no block was made"
        time.sleep(0.05)
    workers = worker_processes(process.pid)
    if fault == "stop two workers":
        with Stopper({str(worker.pid): worker for worker in workers[:2]}) as stopper:
            stopper.stop()
            out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        summary = json.loads(out)
        assert summary["workers_lost"] or summary["erasures"] or summary["parity_started"]
    else:
        for each in psutil.Process(process.pid).children(recursive=True):
            each.kill()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        before = blocks_of_tiles(output)
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["blocks_skipped"] >= before >= 3
    made = xr.open_zarr(output)["prediction"].values
    assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()
    assert verify(output) == []
