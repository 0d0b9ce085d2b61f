"""What is fuzzed: every place where bytes from outside come in.

A target takes bytes and either uses them or refuses them with an error of ours; anything else that
it raises is a finding. ``folder`` is empty, and what is in it afterwards must be what the target
itself put there: nothing else may be written.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, TypeAlias

import dask
import numpy as np
import torch
import zarr
from PIL import Image
from rich.console import Console
from torch import nn

from fcdcc.coding.errors import FcdccError
from fcdcc.pipeline import open_model
from fcdcc.pipeline.cli.job_file import read_job_file
from fcdcc.pipeline.model.description import DESCRIPTION_RECORD, ModelDescription
from fcdcc.pipeline.model.interpreter import network_shapes
from fcdcc.pipeline.model.opening import open_description
from fcdcc.pipeline.model.pt2.checks import check_expression
from fcdcc.pipeline.monitoring.output_status import read_status, verify_output
from fcdcc.pipeline.monitoring.report.html_report import render_report
from fcdcc.pipeline.monitoring.report.recorded_run import read_report, read_running, showable
from fcdcc.pipeline.monitoring.report.text_report import print_report
from fcdcc.pipeline.options import JobConfig, PlanOptions
from fcdcc.pipeline.planner.cost.known_workers import read_speeds, save_speeds
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.plans.forecast import DEFAULTS
from fcdcc.pipeline.plans.plan import Plan
from fcdcc.pipeline.stored_forms import StoredForm, class_names
from fcdcc.storage import BlockLayout, open_images
from fcdcc.storage.checksummed_json import seal
from fcdcc.storage.objects import open_folder
from fcdcc.storage.pictures import PictureForm, read_picture
from fcdcc.storage.records import BlockRecord, read_records, record_name
from fcdcc.storage.runs import read_run
from support.operator_programs import check_images_apart, opened, random_model
from support.pt2 import CONSTANTS, GRAPH, WEIGHTS, edited, packed, pt2, records
from support.stored import fill, make_output

Target: TypeAlias = Callable[[bytes, Path], None]

MODEL = (None, 3, 8, 8)
DESCRIPTION = b"""{"version": 1, "network": "a:b", "output": "logits",
"class_names": ["cat", "dog"], "preparation": {"size": [8, 8], "fit": "torchvision", "resize": 9,
"interpolation": "bicubic", "channel_order": "rgb", "value_range": [0, 1], "mean": [0.5],
"std": [0.2, 0.2, 0.2]}, "versions": {"torch": "2.13.0"}}"""
JOURNAL = Path(__file__).parents[1] / "fuzz" / "journal.json"


class Net(nn.Module):
    """A convolution, a normalisation and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


@cache
def model_file() -> bytes:
    """Return a small model file, without the paths of this machine that PyTorch notes in it.

    What is kept in the corpus was made from it.
    """
    torch.manual_seed(0)

    def forget_paths(program: Any) -> None:
        for step in program["graph_module"]["graph"]["nodes"]:
            step["metadata"].pop("stack_trace", None)

    return edited(pt2(Net().eval(), (2, 3, 8, 8)), GRAPH, forget_paths)


def model(data: bytes, _: Path) -> None:
    """Open a model file, plan it and run it, image by image."""
    network = open_model(data).network
    if network.input_shape[1:] == MODEL[1:]:
        images = network.input_shape[0] or 2
        network_shapes(network, (images, 3, 8, 8))
        check_images_apart(network, (3, 8, 8))


def operators(data: bytes, _: Path) -> None:
    """Open and run a model of operators of the list that the bytes choose."""
    opened(random_model(int.from_bytes(data[:64], "big")))


def in_archive(record: str) -> Target:
    """Return a target that is one record of a model file."""

    def target(data: bytes, folder: Path) -> None:
        model(packed({**records(model_file()), record: data}), folder)

    return target


def description(data: bytes, _: Path) -> None:
    """Read what a model file says about its network, and use it."""
    found = open_description(packed({**records(model_file()), DESCRIPTION_RECORD: data}))
    if found is not None:
        ModelDescription.of(json.loads(found.to_json()), "again")
        if found.preparation.size is not None:
            found.preparation.picture_form()


def expression(data: bytes, _: Path) -> None:
    """Check a shape expression."""
    check_expression(data.decode("utf-8", "replace"))


def saved_plan(data: bytes, _: Path) -> None:
    """Read a saved plan, and make the codes that it names."""
    made = Plan.from_json(data)
    str(made)
    Plan.from_json(made.to_json())
    for layer in made.layers:
        if layer.code is not None:
            layer.coded_conv.code.condition_number(range(layer.code.n))


def job_file(data: bytes, folder: Path) -> None:
    """Read a job file, and check its options."""
    file = folder / "job.toml"
    file.write_bytes(data)
    found = read_job_file(file)
    JobConfig.of(**found.job)


def classes(data: bytes, folder: Path) -> None:
    """Read names of classes."""
    file = folder / "classes.txt"
    file.write_bytes(data)
    class_names(str(file), 3)


def options(data: bytes, _: Path) -> None:
    """Check options that come as JSON from a program."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(given, dict) and all(isinstance(name, str) for name in given):
        PlanOptions.of(**{k: v for k, v in given.items() if k.isidentifier()})
    if isinstance(given, str):
        try:
            StoredForm.parse(given)
        except ValueError:
            return


def record(data: bytes, folder: Path) -> None:
    """Read a block's record, as it is and with a checksum that fits."""
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        members = None
    stored = open_folder(str(folder))
    (folder / record_name(0)).parent.mkdir(parents=True)
    text = data
    if isinstance(members, dict) and members:
        try:
            text = seal(members) + b"\n"
        except ValueError:  # NaN, and halves of characters
            text = data
    (folder / record_name(0)).write_bytes(text)
    for _, found in read_records(stored):
        if isinstance(found, BlockRecord):
            for name in found.chunks:
                try:
                    stored.size(name)
                except OSError:
                    continue


def sealed(data: bytes) -> bytes:
    """Return a record with a checksum that fits; what is no record as it is."""
    try:
        members = json.loads(data)
        return seal(members) + b"\n" if isinstance(members, dict) and members else data
    except (ValueError, RecursionError):
        return data


def run_file(data: bytes, folder: Path) -> None:
    """Read what an output says of its run, with a checksum that fits."""
    text = sealed(data)
    (folder / ".fcdcc").mkdir()
    for name in ("run.json", "run.copy.json"):
        (folder / ".fcdcc" / name).write_bytes(text)
    stored = read_run(open_folder(str(folder)))
    if stored is not None:
        BlockLayout(10, stored.batch)


def zarr_metadata(name: str) -> Target:
    """Return a target that is the metadata of an array of images."""

    def target(data: bytes, folder: Path) -> None:
        (folder / "c.0.0.0.0").write_bytes(bytes(2 * 3 * 8 * 8))
        (folder / "0.0.0.0").write_bytes(bytes(2 * 3 * 8 * 8))
        (folder / name).write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = open_images(str(folder), expect=MODEL)
            source.read(0, 1)

    return target


def image_group(data: bytes, folder: Path) -> None:
    """Read images by the metadata of a group: of OME-Zarr here."""
    zarr.create_array(str(folder / "0"), shape=(3, 8, 8), dtype="u1", dimension_names=list("cyx"))
    (folder / "zarr.json").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_images(str(folder), expect=MODEL).read(0, 1)


@cache
def an_output() -> dict[str, bytes]:
    """Return the files of a whole output, by their names."""
    with tempfile.TemporaryDirectory() as place:
        fill(make_output(place, plan=samples()["plan"][0].decode()))
        files = [file for file in Path(place).rglob("*") if file.is_file()]
        return {str(file.relative_to(place)): file.read_bytes() for file in files}


def in_output(*names: str) -> Target:
    """Return a target that is some files of an output, of which all commands are asked."""

    def target(data: bytes, folder: Path) -> None:
        for name, content in {**an_output(), **dict.fromkeys(names, data)}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        verify_output(str(folder))
        read_status(str(folder))
        read_running(str(folder))
        past = read_report(str(folder))
        render_report(showable(past, render_report))
        console = Console(file=StringIO())
        print_report(showable(past, lambda some: print_report(some, console)), console)

    return target


def journal(data: bytes, folder: Path) -> None:
    """Report on a run by what it left beside the output, with a checksum that fits."""
    in_output(".fcdcc/runs/a.json")(sealed(data), folder)


def speeds(data: bytes, folder: Path) -> None:
    """Read measured speeds, and measure others."""
    file = folder / "calibration.json"
    file.write_bytes(data)
    with dask.config.set({"fcdcc.calibration-file": str(file)}):
        found = read_speeds("here")
        if found is not None:
            save_speeds("there", found)


def chunk(data: bytes, folder: Path) -> None:
    """Read images from a chunk of any bytes."""
    (folder / "zarr.json").write_bytes(samples()["zarr.json"][0])
    (folder / "c").mkdir()
    place = folder / "c" / "0" / "0" / "0" / "0"
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    open_images(str(folder), expect=MODEL).read(0, 2)


def picture(data: bytes, folder: Path) -> None:
    """Read a picture."""
    file = folder / "picture.png"
    file.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_picture(file, PictureForm(8, 8, max_pixels=1 << 20))


TARGETS: dict[str, Target] = {
    "model": model,
    "operators": operators,
    "graph": in_archive(GRAPH),
    "weights": in_archive(WEIGHTS),
    "constants": in_archive(CONSTANTS),
    "description": description,
    "expression": expression,
    "plan": saved_plan,
    "jobfile": job_file,
    "classes": classes,
    "options": options,
    "record": record,
    "run": run_file,
    "zarr.json": zarr_metadata("zarr.json"),
    ".zarray": zarr_metadata(".zarray"),
    "group": image_group,
    "output": in_output("zarr.json"),
    "array": in_output("prediction/zarr.json"),
    "journal": journal,
    "speeds": speeds,
    "chunk": chunk,
    "picture": picture,
}


def right_programs(count: int) -> list[bytes]:
    """Return the bytes that choose the first so many programs that can be opened."""
    found: list[bytes] = []
    for seed in range(256):
        try:
            open_model(random_model(seed))
        except FcdccError:
            continue
        found.append(bytes([seed]))
        if len(found) == count:
            break
    return found


@cache
def samples() -> dict[str, list[bytes]]:
    """Return, for every target, right inputs to begin with."""
    parts = records(model_file())
    network = open_model(model_file()).network
    plans = [
        choose_plan(network, (3, 8, 8), PlanOptions.of(**options)).to_json().encode()
        for options in ({"split": "images", "batch": 16}, {"split": "rows"}, {"code": "crme"})
    ]
    metadata: dict[str, bytes] = {}
    chunks: list[bytes] = []
    for version, name in ((3, "zarr.json"), (2, ".zarray")):
        files: dict[str, Any] = {}
        zarr.create_array(
            zarr.storage.MemoryStore(files), shape=(2, 3, 8, 8), chunks=(2, 3, 8, 8),
            dtype="uint8", zarr_format=version, compressors="auto" if version == 3 else None,
            dimension_names=list("ncyx") if version == 3 else None,
        )[...] = np.arange(384, dtype=np.uint8).reshape(2, 3, 8, 8)  # fmt: skip
        metadata[name] = files[name].to_bytes()
        chunks += [v.to_bytes() for key, v in files.items() if "0" in key and version == 3]
    pictures = []
    for form in ("PNG", "JPEG", "TIFF"):
        buffer = BytesIO()
        Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(buffer, form)
        pictures.append(buffer.getvalue())
    block = BlockRecord(0, 0, 4, "done", "f" * 32, {}, details={"rows": [0, 3]})
    members = json.loads(block.to_bytes())
    members.pop("check")
    members["chunks"] = {"prediction/c.0.0": [12, "a" * 64]}
    run = {
        "schema": 1, "fingerprint": {"model": "a"}, "batch": 4, "dim": "n", "attributes": {},
        "arrays": [{"name": "prediction", "shape": [10], "dtype": "float32", "dims": ["class"]}],
        "plan": plans[0].decode(), "output": "0" * 32, "created": "2026-01-01T00:00:00",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        make_output(place)
        group, array = (
            (Path(place) / name).read_bytes() for name in ("zarr.json", "prediction/zarr.json")
        )
    scale = {"axes": [{"name": name} for name in "cyx"], "datasets": [{"path": "0"}]}
    attributes = {"ome": {"version": "0.5", "multiscales": [scale]}}
    ome = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    measured = {"format": 1, "clusters": {"here": {"measured": 1.0, "speeds": asdict(DEFAULTS)}}}
    job = b'model = "m.pt2"\ninput = "i.zarr"\noutput = "o.zarr"\nn = 6\nmean = [0.5]\n'
    return {
        "model": [model_file()],
        "operators": right_programs(8),
        "graph": [parts[GRAPH]],
        "weights": [parts[WEIGHTS]],
        "constants": [parts[CONSTANTS]],
        "description": [DESCRIPTION],
        "expression": [b"Mul(Integer(2), Symbol('s77', positive=True, integer=True))", b"s0 // 2"],
        "plan": plans,
        "jobfile": [job],
        "classes": [b"cat\ndog\nbird\n", "ä\nö\nü".encode("utf-8-sig")],
        "options": [b'{"n": 6, "tolerate": 2, "mean": [0.5, 1], "split": "rows"}', b'"top:5"'],
        "record": [json.dumps(members).encode()],
        "run": [json.dumps(run).encode()],
        "zarr.json": [metadata["zarr.json"]],
        ".zarray": [metadata[".zarray"]],
        "group": [json.dumps(ome).encode()],
        "output": [group],
        "array": [array],
        "journal": [JOURNAL.read_bytes()],
        "speeds": [json.dumps(measured).encode()],
        "chunk": chunks,
        "picture": pictures,
    }


def feed(name: str, data: bytes, folder: Path) -> None:
    """Give bytes to a target; only errors of ours are as they should be.

    Raises
    ------
    Exception
        Whatever else comes of it.
    """
    try:
        TARGETS[name](data, folder)
    except FcdccError as error:
        if "\n" in str(error).strip():
            raise AssertionError(f"several lines: {error}") from error
