"""What a message says to do is done, and gets further."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
import zarr
from click.testing import Result
from distributed import Client, LocalCluster
from PIL import Image
from torch import nn

from fcdcc.pipeline import open_model, plan
from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.planner.cost import calibration
from fcdcc.storage.checksummed_json import seal
from support.jobs import fcdcc
from support.small import SHAPE, Files

SIZE = SHAPE[1:]


@dataclass(frozen=True)
class Advice:
    """A command that is refused, words of its message, and commands that do what they say.

    Words of a command that are files of the test's folder stand for their paths.
    """

    command: str
    message: str
    mended: tuple[str, ...]


class OneNumber(nn.Module):
    """Predicts one number per image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x).mean((1, 2, 3))


def export(module: nn.Module, path: Path, *dynamic: int, channels: int = 3) -> None:
    """Write a module as .pt2; some of its axes take any size."""
    shapes = (dict.fromkeys(dynamic, torch.export.Dim.AUTO),)
    example = (torch.zeros(2, channels, *SIZE),)
    torch.export.save(torch.export.export(module.eval(), example, dynamic_shapes=shapes), path)


def store(
    path: Path, shape: tuple[int, ...], dims: str | None = "ncyx", name: str = "image"
) -> None:
    group = zarr.open_group(path, mode="a")
    group.create_array(
        name, shape=shape, dtype="uint8", dimension_names=None if dims is None else list(dims)
    )


@pytest.fixture(scope="module")
def folder(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, images and plans; only to be read."""
    folder = tmp_path_factory.mktemp("advice")
    torch.manual_seed(0)
    (folder / "small.pt2").symlink_to(files.model)
    (folder / "images.zarr").symlink_to(files.images)
    (folder / "array.zarr").symlink_to(files.images / "image")
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    export(pooled, folder / "pooled.pt2", 0, 2, 3)
    export(nn.Conv2d(3, 2, 3, padding=1), folder / "dense.pt2", 0, 2, 3)
    export(nn.Conv2d(5, 2, 3), folder / "five.pt2", 0, channels=5)
    export(OneNumber(), folder / "number.pt2", 0)
    for band in ("B1", "B2", "B3"):
        store(folder / "bands.zarr", (9, *SIZE), "nyx", band)
    store(folder / "five.zarr", (9, 5, *SIZE))
    store(folder / "unnamed.zarr", (9, 5, *SIZE), None)
    store(folder / "grey.zarr", (9, 1, *SIZE))
    store(folder / "huge.zarr", (1, 3, 8192, 8192))
    store(folder / "large.zarr", (9, 3, 20, 20))
    store(folder / "tiny.zarr", (9, 3, 12, 12))
    zarr.create_array(folder / "floats.zarr", shape=(9, *SHAPE), dtype="float32")
    series = zarr.open_group(folder / "series.zarr", mode="w", zarr_format=2)
    series.attrs["bioformats2raw.layout"] = 3
    for number in "01":
        image = series.create_group(number)
        axes = [{"name": name} for name in "tczyx"]
        scales = [{"path": "0", "coordinateTransformations": []}]
        image.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": scales}]
        image.create_array("0", shape=(1, 3, 1, *SIZE), dtype="uint8")
    (folder / "pictures").mkdir()
    for number in range(3):
        pixels = np.full((*SIZE, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
    assert fcdcc("ingest", folder / "pictures", folder / "ingested.zarr").exit_code == 0
    for name, model, images in (
        ("small", "small", "images"), ("dense", "dense", "images"), ("large", "dense", "large")
    ):  # fmt: skip
        words = f"plan {model}.pt2 {images}.zarr --json {name}.json --workers 6"
        assert command(folder, words).exit_code == 0
    wrong = {**json.loads((folder / "small.json").read_text()), "form": "rows"}
    (folder / "form.json").write_text(json.dumps(wrong))
    for name in ("units", "written"):
        (folder / name).mkdir()
    (folder / "written" / "fcdcc-job.cron").write_text("something else")
    (folder / "two.txt").write_text("cat\ndog\n")
    (folder / "ten.txt").write_text("\n".join(f"name {n}" for n in range(10)))
    (folder / "job.toml").write_text(
        'model = "small.pt2"\ninput = "images.zarr"\noutput = "out.zarr"\n'
    )
    (folder / "urls.toml").write_text(
        'model = "s3://a/m.pt2"\ninput = "s3://a/i.zarr"\noutput = "s3://a/o.zarr"\n'
    )
    return folder


def command(folder: Path, words: str, *more: str) -> Result:
    """Run a command in which words that are files of the folder stand for their paths."""
    made = re.compile(r"[\w-]+\.(zarr|json|pt2|toml|txt)")
    named = [
        folder / word if made.fullmatch(word) or (folder / word).exists() else word
        for word in shlex.split(words)
    ]
    return fcdcc(*named, *more)


CHANNELS = "--channels 0,1,2"

IMAGES = (
    Advice("small.pt2 array.zarr --input-array image", "leave out the array name",
           ("small.pt2 array.zarr",)),
    Advice("small.pt2 bands.zarr", r"name the one to read \(--input-array\), or several",
           ("small.pt2 bands.zarr --input-array B1 --channels 0,0,0",
            "small.pt2 bands.zarr --input-array B1,B2,B3")),
    Advice("small.pt2 bands.zarr --input-array B1", "give --input-array for each",
           ("small.pt2 bands.zarr --input-array B1 --input-array B2 --input-array B3",)),
    Advice("small.pt2 bands.zarr --input-array B1,B2", "give as many.*--input-array",
           ("small.pt2 bands.zarr --input-array B1,B2,B3",)),
    Advice("small.pt2 series.zarr", "--input-array 0/0",
           ("small.pt2 series.zarr --input-array 0/0",)),
    Advice("small.pt2 five.zarr", CHANNELS, (f"small.pt2 five.zarr {CHANNELS}",)),
    Advice("small.pt2 five.zarr --channels 0,1", "give as many.*--channels",
           (f"small.pt2 five.zarr {CHANNELS}",)),
    Advice("small.pt2 unnamed.zarr", r"select channels \(--channels\) or use another model",
           (f"small.pt2 unnamed.zarr {CHANNELS}", "five.pt2 unnamed.zarr")),
    Advice("small.pt2 grey.zarr", r"1 channel; .*\(--channels\), stack .*\(--input-array\) or use",
           ("small.pt2 grey.zarr --channels 0,0,0",
            "small.pt2 grey.zarr --input-array image,image,image")),
    Advice("small.pt2 tiny.zarr", r"resize the images, export .* any \(fcdcc export --free-size\)",
           ("small.pt2 images.zarr", "small.pt2 large.zarr")),
    Advice("dense.pt2 large.zarr --tile 24", "give a smaller --tile, or leave it out",
           ("dense.pt2 large.zarr --tile 16", "dense.pt2 large.zarr")),
    Advice("dense.pt2 large.zarr --overlap 4", "give --tile SIZE as well, or leave --overlap out",
           ("dense.pt2 large.zarr --overlap 4 --tile 16", "dense.pt2 large.zarr")),
    Advice("small.pt2 pictures", "fcdcc ingest FOLDER OUT.zarr makes one",
           ("small.pt2 ingested.zarr",)),
    Advice("small.pt2 floats.zarr --scale max", "give the number to divide by",
           ("small.pt2 floats.zarr --scale 10",)),
    Advice("small.pt2 images.zarr --mean 1,2", "give one number or 3",
           ("small.pt2 images.zarr --mean 1", "small.pt2 images.zarr --mean 1,2,3")),
)  # fmt: skip

OPTIONS = (
    Advice("--n 6 --tolerate 6", "expected at most 5", ("--n 6 --tolerate 5",)),
    Advice("--code uncoded --tolerate 2", "leave --tolerate out, or use another code",
           ("--code uncoded", "--code crme --tolerate 2")),
    Advice("--verify all --redundancy off", "leave one of the two options out",
           ("--verify all", "--redundancy off")),
    Advice("--verify all --tolerate 0", "leave one of the two options out",
           ("--verify all", "--tolerate 0")),
    Advice("--verify all --workers 1", "start more workers, or give --n and --tolerate",
           ("--verify all --workers 6", "--verify all --workers 1 --n 6 --tolerate 2")),
    Advice("--code replication --n 5", "give another --n, or --tolerate",
           ("--code replication --n 6", "--code replication --n 5 --tolerate 4")),
    Advice("--split images --objective paper", "leave one out",
           ("--split images", "--objective paper")),
    Advice("--split images --code crme", "take --code systematic, or --split rows",
           ("--split images --code systematic", "--split rows --code crme")),
    Advice("--split images --batch 2", "raise --batch, or take --split rows",
           ("--split images --batch 4", "--split rows --batch 2")),
    Advice("--tls-ca-file a", "give all three",
           ("--tls-ca-file a --tls-cert b --tls-key c",)),
    Advice("--dashboard-address 99999", "expected :PORT or HOST:PORT.* such as :8787",
           ("--dashboard-address :8787", "--dashboard-address 0.0.0.0:8787")),
    Advice("--memory some", "such as 4GB or 900MiB", ("--memory 4GB", "--memory 900MiB")),
)  # fmt: skip

NETWORKS = (
    Advice("dense.pt2 images.zarr --band 4 --code crme", "take --code systematic",
           ("dense.pt2 images.zarr --band 4 --code systematic",)),
    Advice("dense.pt2 images.zarr --band 4 --split images", "take --split rows",
           ("dense.pt2 images.zarr --band 4 --split rows",)),
    Advice("dense.pt2 huge.zarr --memory 300MiB", "raise --memory, .* or say --band yourself",
           ("dense.pt2 huge.zarr --memory 500MiB", "dense.pt2 huge.zarr --memory 300MiB --band 2")),
    Advice("pooled.pt2 huge.zarr --memory 500MiB",
           r"Use workers with more memory \(--memory\), smaller images, or a network",
           ("pooled.pt2 huge.zarr --memory 16GiB", "pooled.pt2 images.zarr --memory 500MiB",
            "dense.pt2 huge.zarr --memory 500MiB")),
)  # fmt: skip

NIGHTLY = '--cron "0 2 * * *"'

SCHEDULES = (
    Advice('job.toml --print cron --cron "0 2 * *"', r"such as '0 2 \* \* \*'",
           (f"job.toml --print cron {NIGHTLY}",)),
    Advice(f"job.toml {NIGHTLY} --write units", "as in --print systemd",
           (f"job.toml {NIGHTLY} --write units --print systemd",)),
    Advice(f"job.toml {NIGHTLY} --write written --print cron",
           "move it away, or choose another folder",
           (f"job.toml {NIGHTLY} --write units --print cron",)),
    Advice(f"job.toml {NIGHTLY} --print cron --image a", "leave it out",
           (f"job.toml {NIGHTLY} --print cron",)),
    Advice(f"urls.toml {NIGHTLY} --print kubernetes --memory 4GB", "as Kubernetes writes it: 4Gi",
           (f"urls.toml {NIGHTLY} --print kubernetes --memory 4Gi",)),
    Advice(f"urls.toml {NIGHTLY} --print kubernetes --claim images", "such as images:/data",
           (f"urls.toml {NIGHTLY} --print kubernetes --claim images:/data",)),
    Advice(f"job.toml {NIGHTLY} --print kubernetes",
           "give --claim NAME:/PATH .*, or use URLs of object stores",
           (f"job.toml {NIGHTLY} --print kubernetes --claim images:/data",
            f"urls.toml {NIGHTLY} --print kubernetes")),
    Advice('job.toml --print kubernetes --claim images:/data --cron "0 2 */2 * 1"',
           "give only one of the two, or use --print systemd",
           ('job.toml --print kubernetes --claim images:/data --cron "0 2 */2 * *"',
            'job.toml --print kubernetes --claim images:/data --cron "0 2 * * 1"',
            'job.toml --print systemd --cron "0 2 */2 * 1"')),
    Advice(f"job.toml {NIGHTLY} --print systemd --timezone Zurich", "a name such as Europe/Zurich",
           (f"job.toml {NIGHTLY} --print systemd --timezone Europe/Zurich",)),
    Advice(f"job.toml {NIGHTLY} --print cron --timezone Europe/Zurich",
           "leave --timezone out .*, or use --print systemd",
           (f"job.toml {NIGHTLY} --print cron",
            f"job.toml {NIGHTLY} --print systemd --timezone Europe/Zurich")),
)  # fmt: skip

RUNS = (
    Advice("dense.pt2 images.zarr o.zarr --plan small.json", "make one .* with fcdcc plan --json",
           ("dense.pt2 images.zarr o.zarr --plan dense.json",)),
    Advice("dense.pt2 large.zarr o.zarr --plan dense.json", "make one .* with fcdcc plan --json",
           ("dense.pt2 large.zarr o.zarr --plan large.json",)),
    Advice("small.pt2 images.zarr o.zarr --plan form.json", "make it again with fcdcc plan --json",
           ("small.pt2 images.zarr o.zarr --plan small.json",)),
    Advice("small.pt2 images.zarr o.zarr --plan small.json --n 6", "leave it out",
           ("small.pt2 images.zarr o.zarr --plan small.json",)),
    Advice("small.pt2 images.zarr done.zarr --batch 4", "leave --batch out, or use another output",
           ("small.pt2 images.zarr done.zarr", "small.pt2 images.zarr o.zarr --batch 4")),
    Advice("small.pt2 images.zarr done.zarr --limit 4", "raise --limit, or use another output",
           ("small.pt2 images.zarr done.zarr --limit 9", "small.pt2 images.zarr o.zarr --limit 4")),
    Advice("small.pt2 images.zarr done.zarr --scale none", "use another output, or --restart",
           ("small.pt2 images.zarr o.zarr --scale none",
            "small.pt2 images.zarr done.zarr --scale none --restart")),
    Advice("small.pt2 images.zarr pictures", "choose another location",
           ("small.pt2 images.zarr o.zarr",)),
    Advice("small.pt2 images.zarr o.zarr --store top:11", "at most top:10",
           ("small.pt2 images.zarr o.zarr --store top:10",)),
    Advice("number.pt2 images.zarr o.zarr --store top:2", "use --store classes, or --store logits",
           ("number.pt2 images.zarr o.zarr --store classes --threshold 0.3",
            "number.pt2 images.zarr other.zarr --store logits")),
    Advice("small.pt2 images.zarr o.zarr --store classes --threshold 0.3", "leave it out",
           ("small.pt2 images.zarr o.zarr --store classes",
            "small.pt2 images.zarr other.zarr --head labels --store classes --threshold 0.3")),
    Advice("small.pt2 images.zarr o.zarr --head mask", "give --head logits or .* --head labels",
           ("small.pt2 images.zarr o.zarr --head logits",
            "small.pt2 images.zarr o.zarr --head labels")),
    Advice("small.pt2 images.zarr o.zarr --head embedding --store classes", "give --head logits",
           ("small.pt2 images.zarr o.zarr --head logits --store classes",)),
    Advice("number.pt2 images.zarr o.zarr --classes ten.txt", "leave --classes out",
           ("number.pt2 images.zarr o.zarr",)),
    Advice("small.pt2 images.zarr o.zarr --classes two.txt", "one name on each of 10 lines",
           ("small.pt2 images.zarr o.zarr --classes ten.txt",)),
)  # fmt: skip


def check(folder: Path, advice: Advice, start: str, *more: str) -> None:
    """Check that a command is refused with its advice, and what the advice leads to is not."""
    refused = command(folder, f"{start} {advice.command}", *more)
    assert refused.exit_code == 2, refused.output
    assert re.search(advice.message, " ".join(refused.output.split())), refused.output
    for words in advice.mended:
        done = command(folder, f"{start} {words}", *more)
        assert done.exit_code == 0, f"{words}: {done.output}"


def commands(table: tuple[Advice, ...]) -> Any:
    return pytest.mark.parametrize("advice", table, ids=[advice.command for advice in table])


@commands(IMAGES)
def test_advice_about_images(folder: Path, advice: Advice) -> None:
    check(folder, advice, "plan")


@commands(OPTIONS)
def test_advice_about_options(folder: Path, advice: Advice) -> None:
    workers = () if "--workers" in advice.command else ("--workers", "6")
    check(folder, advice, "plan small.pt2 images.zarr", *workers)


@commands(NETWORKS)
def test_advice_about_networks_and_memory(folder: Path, advice: Advice) -> None:
    check(folder, advice, "plan --workers 2")


@commands(SCHEDULES)
def test_advice_about_schedules(folder: Path, advice: Advice, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    check(tmp_path / "copy", advice, "schedule")


@pytest.mark.cluster
@commands(RUNS)
@pytest.mark.long
def test_advice_about_runs(folder: Path, advice: Advice, tmp_path: Path, scheduler: str) -> None:
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    options = ["--scheduler", scheduler, "--no-progress"]
    limit = [] if "--limit" in advice.command else ["--limit", "8"]
    if "done.zarr" in advice.command:
        begun = "run small.pt2 images.zarr done.zarr --limit 8"
        assert command(tmp_path / "copy", begun, *options).exit_code == 0
    check(tmp_path / "copy", advice, "run", *options, *limit)


@pytest.mark.cluster
@pytest.mark.long
def test_advice_about_clusters(folder: Path, tmp_path: Path, scheduler: str) -> None:
    words = f"run small.pt2 images.zarr {tmp_path / 'out.zarr'} --limit 8 --no-progress"
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        refused = command(folder, f"{words} --scheduler tcp://127.0.0.1:9")
    assert refused.exit_code == 1  # the same command may succeed later
    assert "expected an address such as tcp://host:8786 of one that is running" in refused.output
    assert command(folder, f"{words} --scheduler {scheduler}").exit_code == 0
    local = f"{words} --restart --scale none --threads --workers 1 --dashboard-address"
    refused = command(folder, f"{local} 192.0.2.1:8787")  # no machine has this address
    assert refused.exit_code == 2
    assert "look at --dashboard-address and --workers" in refused.output
    done = command(folder, f"{local} 127.0.0.1:0")
    assert done.exit_code == 0, done.output


@pytest.mark.cluster
@pytest.mark.long
def test_advice_about_calibration(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "SECONDS_PER_OPERATION", 0.005)
    monkeypatch.setattr(calibration, "REPETITIONS", 1)
    model, pixels = open_model(folder / "small.pt2"), np.zeros((9, *SHAPE), np.uint8)
    with pytest.raises(OptionError, match="calibrate=True without workers: connect a distrib"):
        plan(model, pixels, calibrate=True)
    with (
        dask.config.set({"fcdcc.calibration-file": str(tmp_path / "calibration.json")}),
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
    ):
        words = f"plan small.pt2 images.zarr --calibrate --scheduler {cluster.scheduler_address}"
        refused = command(folder, words)
        assert refused.exit_code == 2
        assert "a cluster that has no workers: start some first" in refused.output
        cluster.scale(1)
        cluster.wait_for_workers(1)
        done = command(folder, words)
        assert done.exit_code == 0, done.output
        # No other test may find this client, should it be closed late.
        with Client(cluster, set_as_default=False) as client, client.as_current():
            assert plan(model, pixels, calibrate=True).batch > 0


def test_advice_about_ingested_pictures(folder: Path, tmp_path: Path) -> None:
    other, empty, out = tmp_path / "other", tmp_path / "new.zarr", tmp_path / "out.zarr"
    shutil.copytree(folder / "pictures", other)
    refused = fcdcc("ingest", other, folder / "images.zarr")
    assert (refused.exit_code, "choose another one" in refused.output) == (2, True)
    assert fcdcc("ingest", other, out).exit_code == 0
    refused = fcdcc("ingest", other, out, "--size", 8)
    assert (refused.exit_code, "choose another folder" in refused.output) == (2, True)
    assert fcdcc("ingest", other, empty, "--size", 8).exit_code == 0
    few = fcdcc("ingest", other, tmp_path / "few.zarr", "--max-pixels", 200)
    assert (few.exit_code, "(--max-pixels)" in few.output) == (2, True)
    assert fcdcc("ingest", other, tmp_path / "few.zarr", "--max-pixels", 256).exit_code == 0
    Image.new("RGB", (9, 16)).save(other / "narrow.png")
    left_out = fcdcc("ingest", other, out)
    assert re.search(r"narrow\.png: .*size of the first picture or of --size", left_out.output)
    sized = fcdcc("ingest", other, tmp_path / "sized.zarr", "--size", 16)
    assert (sized.exit_code, "narrow.png" in sized.output) == (0, False)


def test_advice_about_damaged_records_of_pictures(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    assert fcdcc("ingest", folder / "pictures", out).exit_code == 0
    for damaged in (b"{}", seal({"schema": 99})):  # damaged, or of a newer version
        (out / ".fcdcc" / "ingest.json").write_bytes(damaged)
        refused = fcdcc("ingest", folder / "pictures", out)
        assert (refused.exit_code, "ingest into a new folder" in refused.output) == (2, True)
    assert fcdcc("ingest", folder / "pictures", tmp_path / "new.zarr").exit_code == 0


@pytest.mark.cluster
def test_advice_about_damaged_outputs(folder: Path, tmp_path: Path, scheduler: str) -> None:
    out = tmp_path / "out.zarr"
    words = f"run small.pt2 images.zarr {out} --limit 8 --no-progress --scheduler {scheduler}"
    assert command(folder, words).exit_code == 0
    for name in ("run.json", "run.copy.json"):
        (out / ".fcdcc" / name).write_bytes(b"{}")
    refused = command(folder, words)
    assert refused.exit_code == 2
    assert "put it aside with --restart and run the job again" in refused.output
    assert command(folder, f"{words} --restart").exit_code == 0
    assert command(folder, words).exit_code == 0
    assert command(folder, f"verify {out}").exit_code == 0
    for name in ("run.json", "run.copy.json"):
        (out / ".fcdcc" / name).write_bytes(seal({"schema": 99}) + b"\n")
    refused = command(folder, words)
    assert refused.exit_code == 2
    assert "update fcdcc, or use another output" in refused.output
    assert command(folder, words.replace("out.zarr", "other.zarr")).exit_code == 0
