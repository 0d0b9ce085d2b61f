"""Networks of torchvision, timm and transformers: exported, run with two of six shares erased.

    pip install -e '.[torchvision,timm,transformers]'
    python benchmarks/library_networks.py --folder /tmp/networks [--seconds 240] [NAME ...]
    python benchmarks/library_networks.py --folder /tmp/networks --page docs/networks.md

Each network of ``library_list.py`` gets random weights (``library_weights.py``), is exported by
``fcdcc export`` and run by ``fcdcc run`` over four images on six workers. Every layer that can be
coded is coded, whether or not that pays, and two of the six shares of every group, drawn at random,
are taken out of the graph. All outputs are compared with what the live network gives for the same
images, and so is the class with the largest value. One JSON object for each network is appended to
``networks.jsonl`` in the folder; a network that is in there is not run again. ``--page`` writes the
table of all that is there.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from library_list import GAINS, LARGE_SIDE, Entry, entries
from library_weights import CALIBRATION_IMAGES, draw_weights, smooth_pictures
from torch import Tensor, nn

IMAGES = 4
ERASED_SHARES = 2
MIN_ROWS = 32
"""Images of fewer rows are split by images, others by rows or by images in turn."""

TOLERANCE = 1e-5
MIN_SPREAD = 0.02
"""Least standard deviation of the outputs over the images, relative to their size."""

CHECK_DOUBLE_ABOVE = 3e-6
"""Error above which the live network is compared with itself in float64, too."""

NETWORKS_A_PROCESS = 40
RESULTS = "networks.jsonl"
CURRENT = "current.json"


# ---------------------------------------------------------------------- one network


@contextmanager
def drawn_weights(entry: Entry, seen: list[Any]) -> Iterator[None]:
    """Have ``fcdcc export`` find the network of an entry with weights of ``draw_weights``.

    ``seen`` gets the live network.
    """
    from fcdcc.pipeline.model.export import network_names

    found = network_names.live_network

    def live_network(name: str, **options: Any) -> Any:
        live = found(name, **options)
        shape = entry.shape or live.input_shape
        is_large = shape[-1] > LARGE_SIDE
        pictures = smooth_pictures(shape, CALIBRATION_IMAGES // (1 + is_large), 1)
        images = prepared(pictures, live.preparation)
        draw_weights(live.module.float(), images, 0, GAINS.get(entry.name, 1.0))
        seen.append(live)
        return live

    network_names.live_network = live_network
    try:
        yield
    finally:
        network_names.live_network = found


def prepared(pictures: Tensor, preparation: Any) -> Tensor:
    """Return pictures (n, C, *space) as a network takes them, by its stored preparation."""
    white = 1.0 if preparation.value_range is None else preparation.value_range[1]
    images = pictures.float() * (white / 255)
    along = (1, -1, *(1 for _ in pictures.shape[2:]))
    if preparation.mean is not None:
        images = images - torch.tensor(preparation.mean).reshape(along)
    if preparation.std is not None:
        images = images / torch.tensor(preparation.std).reshape(along)
    return images


@contextmanager
def every_layer_coded() -> Iterator[None]:
    """Have runs take the usual plan, with every layer coded, whatever would be faster."""
    from fcdcc.pipeline.planner import search

    with (
        patch.object(search._Search, "_others", lambda _search, _usual: iter(())),
        patch.object(search, "MIN_WORK_PER_OVERHEAD", 0.0),
    ):
        yield


def command(*words: str) -> str:
    """Run a command of fcdcc in this process; return what it said on standard error.

    Raises
    ------
    RuntimeError
        If it did not end with 0, with what it said.
    """
    from fcdcc.pipeline.cli.main import main

    said = StringIO()
    try:
        with redirect_stdout(StringIO()), redirect_stderr(said):
            code = main.main(list(words), standalone_mode=False)
    except SystemExit as ended:
        code = ended.code
    if code not in (None, 0):
        lines = said.getvalue().splitlines()
        errors = [line for line in lines if "rror" in line] or lines[-1:]
        raise RuntimeError(f"fcdcc {words[0]} ended with {code}: {errors[-1] if errors else ''}")
    return said.getvalue()


def transformers_folder(entry: Entry, folder: Path) -> str:
    """Write the configuration of a small network of transformers; return its NAME."""
    import transformers

    kind = getattr(transformers, entry.name.partition(":")[2])
    members = {
        key: getattr(transformers, value[0])(**value[1]) if key == "backbone_config" else value
        for key, value in (entry.config or {}).items()
    }
    config = kind.config_class(**members)
    config.architectures = [kind.__name__]
    config.save_pretrained(folder / "config")
    return f"transformers:{folder / 'config'}"


def live_outputs(live: Any, pictures: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return what the live network gives, by the names of its outputs."""
    from fcdcc.pipeline.model.export.model_file import _tensors
    from fcdcc.pipeline.model.pt2.output_names import name_of_output

    images = prepared(pictures, live.preparation).to(dtype)
    network: nn.Module = live.module
    if dtype != torch.float32:
        network = copy.deepcopy(network).to(dtype)
    with torch.no_grad():
        returned = network(images)
    return {name_of_output(keys): tensor for keys, tensor in _tensors(returned)}


def relative_error(made: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference by the norm of what is expected."""
    made, expected = made.double(), expected.double()
    return float((made - expected).norm() / expected.norm().clamp_min(1e-30))


def check(entry: Entry, folder: Path, scheduler: str, number: int) -> dict[str, Any]:
    """Export, run and compare one network; return what is stored of it."""
    import zarr

    seen: list[Any] = []
    started = time.perf_counter()
    name, options = entry.name, ["--random-weights"]
    if name.startswith("transformers:"):
        name = transformers_folder(entry, folder)
    elif name.startswith("library_list:"):
        options = []
    if entry.shape is not None:
        options += ["--input-shape", ",".join(map(str, entry.shape))]
    model, made = folder / "model.pt2", folder / "out.zarr"
    with drawn_weights(entry, seen):
        command("export", name, str(model), *options)
    exported = time.perf_counter()
    (live,) = seen
    shape = entry.shape or live.input_shape
    pictures = smooth_pictures(shape, IMAGES, 2)
    group = zarr.create_group(folder / "images.zarr")
    array = group.create_array("image", shape=pictures.shape, chunks=pictures.shape, dtype="uint8")
    array[:] = pictures.numpy()
    split = "rows" if number % 2 == 0 and shape[1] >= MIN_ROWS else "images"
    words = ("run", str(model), str(folder / "images.zarr"), str(made), "--scheduler", scheduler)
    few = ("--n", "6", "--tolerate", "2", "--batch", str(IMAGES), "--split", split, "--no-progress")
    from support.erasing import erased_runs

    with every_layer_coded(), erased_runs(ERASED_SHARES, number) as groups:
        said = command(*words, *few)
    if "done twice" in said and "no block was done twice" not in said:
        raise RuntimeError("fcdcc run did the block again, since its shares were not used")
    ended = time.perf_counter()
    stored = zarr.open_group(made, mode="r")
    result: dict[str, Any] = {
        "split": split,
        "shape": shape,
        "parameters": sum(one.numel() for one in live.module.parameters()),
        "groups": groups[0],
        "export_seconds": round(exported - started, 1),
        "run_seconds": round(ended - exported, 1),
    }
    return result | compared(live, pictures, stored)


def compared(live: Any, pictures: Tensor, stored: Any) -> dict[str, Any]:
    """Return how the stored predictions agree with the live network."""
    expected = live_outputs(live, pictures, torch.float32)
    names = [name for name in expected if name in stored] or ["prediction"]
    if names == ["prediction"]:
        at_first = {n: t for n, t in expected.items() if t.shape[:1] == pictures.shape[:1]}
        expected = {"prediction": next(iter(at_first.values()))}
    errors, spreads, same = [], [], []
    for name in names:
        found, wanted = torch.from_numpy(stored[name][:]), expected[name]
        if found.shape != wanted.shape:
            raise ValueError(f"{name} is {tuple(found.shape)}, expected {tuple(wanted.shape)}")
        errors.append(relative_error(found, wanted))
        spreads.append(
            float(wanted.double().std(0).mean() / wanted.double().square().mean() ** 0.5)
        )
        if wanted.ndim == 2:
            same.append(bool((found.argmax(1) == wanted.argmax(1)).all()))
    result = {
        "outputs": len(names),
        "error": max(errors),
        "spread": min(spreads),
        "same_top": all(same) if same else None,
    }
    if result["error"] > CHECK_DOUBLE_ABOVE:
        exact = live_outputs(live, pictures, torch.float64)
        if names == ["prediction"]:
            exact = {"prediction": exact[next(iter(at_first))]}
        result["live_error"] = max(relative_error(expected[n], exact[n]) for n in names)
        result["error_of_exact"] = max(
            relative_error(torch.from_numpy(stored[n][:]), exact[n]) for n in names
        )
    return result


def verdict(result: Mapping[str, Any]) -> str:
    """Return an empty text for a network that has passed, or why it has not."""
    if "reason" in result:
        return str(result["reason"])
    if not result["error"] <= TOLERANCE:
        return f"relative error {result['error']:.1e}"
    if result["same_top"] is False:
        return "another class has the largest value"
    if result["spread"] < MIN_SPREAD:
        return f"its outputs differ by {result['spread']:.1e} only between images: says nothing"
    return ""


# --------------------------------------------------------------------- all networks


def work(folder: Path, wanted: list[Entry], limit: int) -> None:
    """Check some of the networks that are left, in this process."""
    from dask.distributed import LocalCluster

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    everything = [entry.name for entry in entries()]
    with LocalCluster(
        n_workers=6, processes=False, threads_per_worker=1, dashboard_address=":0", memory_limit=0
    ) as cluster:
        for entry in wanted[:limit]:
            (folder / CURRENT).write_text(json.dumps({"name": entry.name, "start": time.time()}))
            place = folder / "work"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            try:
                number = everything.index(entry.name)
                result = check(entry, place, cluster.scheduler_address, number)
            except Exception as error:  # noqa: BLE001 - a network that fails is a row of the table
                text = " ".join(str(error).split())
                known = isinstance(error, RuntimeError) and text.startswith("fcdcc ")
                result = {"reason": text if known else f"{type(error).__name__}: {text}"}
            shutil.rmtree(place, ignore_errors=True)
            store(folder, entry, result)


def store(folder: Path, entry: Entry, result: Mapping[str, Any]) -> None:
    """Append what was found, and print it."""
    line = {"name": entry.name, "family": entry.family, **result}
    with (folder / RESULTS).open("a") as file:
        file.write(json.dumps(line) + "\n")
    (folder / CURRENT).unlink(missing_ok=True)
    error = f"{result['error']:.1e}" if "error" in result else ""
    took = f"{result['export_seconds']} + {result['run_seconds']} s" if "error" in result else ""
    print(f"{entry.name:55} {error:8} {took:16} {verdict(result)}", flush=True)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is stored, by the names of networks: the last of each."""
    path = folder / RESULTS
    lines = path.read_text().splitlines() if path.exists() else []
    return {line["name"]: line for line in map(json.loads, lines)}


def supervise(folder: Path, wanted: list[Entry], seconds: float) -> None:
    """Have processes check all networks that are left; end one that takes too long."""
    while True:
        known = results(folder)
        left = [entry for entry in wanted if entry.name not in known]
        if not left:
            return
        names = [entry.name for entry in left[:NETWORKS_A_PROCESS]]
        child = subprocess.Popen(
            [sys.executable, __file__, "--folder", str(folder), "--here", *names]
        )
        late = False
        while child.poll() is None:
            time.sleep(1)
            current = _current(folder)
            if current is not None and time.time() - current["start"] > seconds:
                late = True
                child.kill()
        current = _current(folder)
        if current is not None:
            entry = next(entry for entry in left if entry.name == current["name"])
            reason = f"it took more than {seconds:g} s" if late else "its process died"
            store(folder, entry, {"reason": f"{reason} ({child.returncode})"})
        elif child.returncode:
            raise SystemExit(f"a process ended with {child.returncode} between networks")


def _current(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / CURRENT).read_text())
    except (OSError, ValueError):
        return None
    return found


# ------------------------------------------------------------------------- the page


def page(folder: Path) -> str:
    """Return the page of what is in a folder."""
    known = results(folder)
    rows, refused = [], []
    families = dict.fromkeys(line["family"] for line in known.values())
    for family in sorted(families):
        lines = [line for line in known.values() if line["family"] == family]
        passed = [line for line in lines if not verdict(line)]
        worst = max((line["error"] for line in passed), default=float("nan"))
        groups = sum(line["groups"] for line in passed)
        names = ", ".join(sorted(_short(line["name"]) for line in passed))
        rows.append(
            f"| {family} | {len(passed)} of {len(lines)} | {worst:.1e} | {groups:,} | {names} |"
        )
        refused += [line for line in lines if verdict(line)]
    passed_count = len(known) - len(refused)
    text = (Path(__file__).parent / "library_networks.md").read_text()
    table = "\n".join(rows)
    missed = "\n".join(
        f"| {_short(line['name'])} | {_reason(line)} |"
        for line in sorted(refused, key=lambda line: line["name"])
    )
    return (
        text.replace("@PASSED@", str(passed_count))
        .replace("@ALL@", str(len(known)))
        .replace("@LEFT@", str(sum(entry.name not in known for entry in entries())))
        .replace("@LIBRARIES@", _libraries(known))
        .replace("@TABLE@", table)
        .replace("@REFUSED@", missed or "| none | |")
    )


def _reason(line: Mapping[str, Any]) -> str:
    """Return why a network has not passed, without the command and the path of its file."""
    text = re.sub(r"^fcdcc \w+ ended with \d+: (fcdcc: )?(\S+\.pt2:? )?", "", verdict(line))
    if "live_error" in line and line["error"] > TOLERANCE:
        text += f"; the live network is {line['live_error']:.1e} from itself in float64"
    return text.partition("; expected")[0].replace("|", "/")[:300]


def _short(name: str) -> str:
    library, _, network = name.partition(":")
    marks = {"torchvision": "¹", "timm": "²", "transformers": "³"}
    return network.removesuffix("ForImageClassification") + marks.get(library, "")


def _libraries(known: Mapping[str, Mapping[str, Any]]) -> str:
    libraries = ("torchvision", "timm", "transformers")
    counts = [sum(name.startswith(library + ":") for name in known) for library in libraries]
    parts = [
        f"{count} of {library} {version(library)}"
        for library, count in zip(libraries, counts, strict=True)
    ]
    own = len(known) - sum(counts)
    return f"{', '.join(parts)}, and {own} parts of detectors and pyramids made by their functions"


def main() -> None:
    """Run the benchmark, or write the page."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=240, help="longest time of one network")
    parser.add_argument("--again", action="store_true", help="run those that have not passed again")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--page", type=Path, help="write the page of what is there; run nothing")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.page is not None:
        options.page.write_text(page(options.folder))
        return
    wanted = entries()
    if options.names:
        chosen = set(options.names)
        unknown = chosen - {entry.name for entry in wanted}
        if unknown:
            raise SystemExit(f"not in the list: {', '.join(sorted(unknown))}")
        wanted = [entry for entry in wanted if entry.name in chosen]
    if options.here:
        work(options.folder, wanted, len(wanted))
        return
    (options.folder / CURRENT).unlink(missing_ok=True)
    if options.again:
        kept = [line for line in results(options.folder).values() if not verdict(line)]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        (options.folder / RESULTS).write_text(text)
    supervise(options.folder, wanted, options.seconds)


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

if __name__ == "__main__":
    main()
