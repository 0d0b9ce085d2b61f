"""Jobs over images in bands, from row-chunked Zarr to row-chunked Zarr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from dask._task_spec import Task
from dask.typing import Key
from distributed import Client, LocalCluster

from fcdcc.pipeline import JobConfig, Summary, open_model, run
from fcdcc.pipeline.anyk import AnyK
from fcdcc.pipeline.demo.faults import Stopper, worker_processes
from fcdcc.pipeline.errors import OptionError, PlanError
from fcdcc.pipeline.graph import Block, build_block, build_retry
from fcdcc.pipeline.halo import Rows
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.runtime import job
from fcdcc.pipeline.worker.executable import Executable
from fcdcc.storage import open_predictions, verify
from fcdcc.storage.objects import open_folder
from fcdcc.storage.records import read_records
from support.bad_convolutions import spoil_convolutions
from support.jobs import fcdcc, predictions
from support.one_worker import FirstWorker
from support.planned import usual_plans
from support.spoiling import spoil
from zoo.segmentation import UNet

ROWS, COLUMNS, BAND = 90, 44, 16
BANDS = -(-ROWS // BAND)

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Large:
    """A network exported at the size of its images, the images, and PyTorch's predictions."""

    model: Path
    images: Path
    expected: np.ndarray[Any, Any]

    def config(self, output: Path, **options: Any) -> JobConfig:
        defaults: dict[str, Any] = {"band": BAND, "batch": 1, "dashboard_address": ":0"}
        defaults["progress"] = False
        return JobConfig(
            model=str(self.model), input=str(self.images), output=str(output), **defaults | options
        )


def module() -> torch.nn.Module:
    torch.manual_seed(4)
    return UNet(bilinear=True, width=4).eval()


def write_images(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    group = zarr.open_group(path, mode="w")
    group.create_array(
        "image", data=pixels, chunks=(1, 3, 32, COLUMNS), dimension_names=list("ncyx")
    )
    group.create_array("image_id", data=np.arange(len(pixels)) + 100, dimension_names=["n"])
    group.create_array("y", data=np.arange(ROWS) * 0.5, dimension_names=["y"])


@pytest.fixture
def large(tmp_path: Path) -> Large:
    """Two images of an odd size; the network was exported for one at a time."""
    net = module()
    program = torch.export.export(net, (torch.zeros(1).expand(1, 3, ROWS, COLUMNS),))
    torch.export.save(program, tmp_path / "unet.pt2")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 3, ROWS, COLUMNS), dtype=np.uint8)
    write_images(tmp_path / "images.zarr", pixels[:2])
    with torch.inference_mode():
        expected = net(torch.from_numpy(pixels).float() / 255).numpy()
    return Large(tmp_path / "unet.pt2", tmp_path / "images.zarr", expected)


def assert_right(large: Large, output: Path, images: int = 2) -> None:
    made = xr.open_zarr(output)["prediction"]
    assert made.dims == ("n", "class", "y", "x")
    expected = large.expected[:images]
    assert np.abs(made.values - expected).max() <= 1e-5 * np.abs(expected).max()
    assert verify(output) == []


def chunks(output: Path) -> dict[int, bytes]:
    """Return what is stored of the blocks that are recorded now."""
    store = open_predictions(output)
    done = np.flatnonzero(store.progress().done)
    names = {int(b): store.arrays[0].chunk_names(int(b), 1) for b in done}
    return {b: b"".join((output / name).read_bytes() for name in some) for b, some in names.items()}


def test_images_in_bands_from_end_to_end(large: Large, scheduler: str, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    summary = run(large.config(output, scheduler=scheduler))
    assert (summary.blocks_total, summary.images_done) == (2 * BANDS, 2)
    assert_right(large, output)

    stored = xr.open_zarr(output)
    assert stored["prediction"].encoding["chunks"] == (1, 4, BAND, COLUMNS)
    assert stored["image_id"].values.tolist() == [100, 101]
    assert stored["y"].values[1] == 0.5
    status = json.loads(fcdcc("status", output, "--json").stdout)
    assert (status["status"], status["blocks_done"], status["images_done"]) == (
        "complete", 2 * BANDS, 2,
    )  # fmt: skip

    before = chunks(output)
    again = run(large.config(output, scheduler=scheduler, band=None))
    assert (again.blocks_done, again.blocks_skipped) == (0, 2 * BANDS)
    with pytest.raises(OptionError, match="band=20 for an output that was created with blocks of"):
        run(large.config(output, scheduler=scheduler, band=20))

    pixels = np.random.default_rng(1).integers(0, 256, (3, 3, ROWS, COLUMNS), dtype=np.uint8)
    write_images(large.images, pixels)
    appended = run(large.config(output, scheduler=scheduler))
    assert (appended.blocks_done, appended.images_done) == (BANDS, 1)
    assert_right(large, output, 3)
    assert before.items() <= chunks(output).items()


def test_an_output_that_another_run_has_created_since_the_planning_is_continued(
    large: Large, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This run plans whole images; before it has the lock, another run writes bands."""
    output = tmp_path / "out.zarr"
    hold, others = job.hold, []

    @contextmanager
    def hold_after_another_run(path: str) -> Iterator[None]:
        if not others:
            others.append("bands")
            run(large.config(output, scheduler=scheduler, limit=1))
        with hold(path):
            yield

    monkeypatch.setattr(job, "hold", hold_after_another_run)
    summary = run(large.config(output, scheduler=scheduler, band=None))
    assert (summary.blocks_skipped, summary.blocks_done) == (BANDS, BANDS)
    assert_right(large, output)


def test_damage_is_found_and_only_its_band_is_done_again(
    large: Large, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    run(large.config(output, scheduler=scheduler))
    before = chunks(output)
    hit = BANDS + 2  # the third band of the second image
    (output / "prediction" / "c.1.0.2.0").write_bytes(b"nothing")
    (output / "prediction" / "c.7.0.0.0").write_bytes(b"stray")
    found = fcdcc("verify", output)
    assert found.exit_code == 5
    assert f"(block {hit})" in found.output
    assert "c.7.0.0.0" in found.output
    (output / "prediction" / "c.7.0.0.0").unlink()
    status = json.loads(fcdcc("status", output, "--json").stdout)
    assert (status["blocks_failed"], status["images_done"]) == (1, 1)
    summary = run(large.config(output, scheduler=scheduler))
    assert (summary.blocks_done, summary.images_done) == (1, 1)
    assert_right(large, output)
    after = chunks(output)
    assert {b: data for b, data in after.items() if b != hit} == {
        b: data for b, data in before.items() if b != hit
    }


class Interrupting(Quiet):
    """Ends a run when so many blocks are done."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done >= self._blocks:
            raise KeyboardInterrupt


def test_an_interrupted_image_is_continued_where_it_stopped(
    large: Large, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    with pytest.raises(KeyboardInterrupt):
        run(large.config(output, scheduler=scheduler, in_flight=1), Interrupting(2))
    before = chunks(output)
    assert 2 <= len(before) < BANDS
    summary = run(large.config(output, scheduler=scheduler))
    assert summary.blocks_skipped >= 2
    assert (summary.status, summary.images_done) == ("complete", 2)
    assert_right(large, output)
    assert before.items() <= chunks(output).items()


def test_classes_and_the_best_of_them_are_stored_in_bands(
    large: Large, scheduler: str, tmp_path: Path
) -> None:
    """From images with their channels last, in one chunk each, which is said to be unwise."""
    pixels = zarr.open_group(large.images)["image"][:]
    last = np.moveaxis(pixels, 1, -1)
    zarr.create_array(
        tmp_path / "last.zarr", data=last, chunks=(1, *last.shape[1:]), dimension_names=list("nyxc")
    )
    for store in ("classes", "top:2"):
        output = tmp_path / f"{store[:3]}.zarr"
        images = str(tmp_path / "last.zarr")
        told = fcdcc(
            "run", large.model, images, output, "--scheduler", scheduler, "--store", store,
            "--band", BAND,
        )  # fmt: skip
        assert told.exit_code == 0, told.output
        assert "the images are stored in chunks of 90 of their 90 rows" in told.stderr
        assert "chunks of about 16 rows" in told.stderr
        made = xr.open_zarr(output)["prediction"].values
        first = made if store == "classes" else made[:, 0]
        assert (first == large.expected[:2].argmax(1)).mean() > 0.999
        assert verify(output) == []


class StoppingWorkers(Quiet):
    """Stops two worker processes when the first bands are done."""

    def __init__(self, stopper: Stopper) -> None:
        self._stopper = stopper

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done >= 2:
            self._stopper.stop()


@pytest.mark.long
def test_two_of_four_workers_stop_in_the_middle(large: Large, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    with (
        LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        Stopper(dict([*worker_processes(client).items()][:2])) as stopper,
    ):
        summary: Summary = run(
            large.config(output, scheduler=cluster.scheduler_address, in_flight=2, n=4),
            StoppingWorkers(stopper),
        )
        assert len(stopper.faults) == 2
    assert (summary.status, summary.images_done) == ("complete", 2)
    assert_right(large, output)


def test_what_cannot_be_cut_is_refused_in_one_line(large: Large, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    made = fcdcc("run", large.model, large.images, output, "--band", 16, "--code", "crme")
    assert made.exit_code == 2
    assert "--code crme gathers every layer" in made.output
    assert not output.exists()
    with pytest.raises(PlanError, match="allowed"):
        run(large.config(output, band=None, memory="400MiB", restart=True))


@pytest.mark.parametrize("mode", [pytest.param("spare", marks=pytest.mark.long), "all"])
@pytest.mark.long
def test_bands_whose_shares_are_right_pass_their_checks(
    large: Large, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    usual_plans(monkeypatch)
    output = tmp_path / "out.zarr"
    summary = run(large.config(output, scheduler=scheduler, verify=mode, band=2 * BAND))
    assert (summary.status, summary.corrupt_shares) == ("complete", ())
    assert (summary.parity_started > 0) >= (mode == "all")
    assert_right(large, output)


@pytest.mark.long
def test_bands_with_wrong_shares_are_done_without_the_worker_that_made_them(
    large: Large, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_plans(monkeypatch)
    bad = FirstWorker()
    hit = spoil(monkeypatch, lambda key, position, worker: bad.is_it(worker))
    output = tmp_path / "out.zarr"
    summary = run(large.config(output, scheduler=scheduler, verify="all", band=2 * BAND))
    assert hit
    assert summary.status == "complete"
    assert_right(large, output)
    records = [record for _, record in read_records(open_folder(str(output)))]
    said = [warning for record in records for warning in getattr(record, "warnings", ())]
    assert any("contradict each other" in warning for warning in said)


@pytest.mark.long
def test_bands_without_numbers_spoil_no_others(
    large: Large, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_plans(monkeypatch)
    pixels = zarr.open_group(large.images)["image"][:].astype("float32") / 255
    pixels[1, 2, 20, 5] = np.nan
    write_images(large.images, pixels)
    with torch.inference_mode():
        expected = module()(torch.from_numpy(pixels)).numpy()
    output = tmp_path / "out.zarr"
    summary = run(large.config(output, scheduler=scheduler, verify="all", band=2 * BAND))
    assert (summary.status, summary.corrupt_shares) == ("complete", ())
    made = predictions(output)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(made, expected, atol=1e-5 * np.nanmax(np.abs(expected)))


@pytest.mark.long
def test_a_worker_that_convolves_wrongly_is_named_by_checksums(
    large: Large, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_plans(monkeypatch)
    output = tmp_path / "out.zarr"
    with LocalCluster(
        n_workers=4, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        bad = sorted(cluster.scheduler.workers)[1]
        hit = spoil_convolutions(monkeypatch, lambda worker: worker == bad)
        address = cluster.scheduler_address
        options = {"verify": "checksum", "n": 4, "tolerate": 1}
        summary = run(large.config(output, scheduler=address, **options))
    assert hit
    assert (summary.status, summary.blocks_done) == ("complete", 2 * BANDS)
    assert_right(large, output)
    assert {found.worker for found in summary.corrupt_shares} == {bad}


def test_a_band_that_is_done_again_is_checked_in_every_layer(large: Large) -> None:
    """Also where only what was there anyway had been compared."""
    network = open_model(str(large.model)).network
    with pytest.MonkeyPatch.context() as patch:
        usual_plans(patch)
        plan = choose_plan(network, (3, ROWS, COLUMNS), PlanOptions(band=BAND, verify="spare"))
    executable, band = Executable(network, plan).ref, Rows(0, BAND)

    def reader(key: Key, *_: object) -> Task:
        return Task(key, abs, 0)

    given = (network, plan, Block(executable, "r", 0, 1, reader), band)
    assert not build_block(*given).checks
    graph = build_retry(*given, "recheck", 1, ["a", "b"])
    nodes = [task for task in graph.tasks.values() if isinstance(task, AnyK)]
    assert {node.allowed_workers for node in nodes} == {frozenset("ab")}
    groups = {frozenset(node.shares.values()) for node in nodes if node.own is None}
    parts = {key for node in nodes if node.own is not None for key in node.shares.values()}
    assert len(graph.checks) == len(groups) > 2
    assert frozenset().union(*groups) >= parts
