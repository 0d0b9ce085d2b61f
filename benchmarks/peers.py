"""The same job done by fcdcc and by what people would write instead, as whole commands.

Every contender reads the same stored images, runs the same network on the same cores and writes
its predictions. Each is a command of its own, started in turn, in every round once; a figure is
the median over the rounds. Measured are the seconds of the whole command, the seconds from the
first to the last image, CPU seconds and memory (proportional set size) of all its processes
together, and, with ``--stop``, what happens when one worker process gets SIGSTOP in the middle.

    pip install -e '.[peers]'
    python benchmarks/peers.py [--network resnet50] [--images 512] [--size 224] [--rounds 3]
                               [--contenders loop dask ours …] [--stop] [--json FILE]

``loop``        a PyTorch loop in one process with all cores
``dataloader``  the same with a DataLoader that reads in as many processes as there are cores
``dask``        ``dask.array.map_blocks`` on a LocalCluster of one worker per core
``ray``         Ray Data's ``map_batches`` with one actor per core
``onnxruntime``, ``openvino``   a loop over the network exported to ONNX, with all cores
``engine``      our engine alone, in one single-threaded process per core
``ours``        ``fcdcc run`` with its defaults; ``ours-cores`` with one worker per core;
                ``ours-off`` also with ``--redundancy off``; ``ours-eager`` also with this engine

Batches have 32 images everywhere but in ``ours``, which plans its own. Torch uses one thread in
worker processes and all cores where there is one process. Answers are compared with those of the
loop.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

BATCH = 32
CHUNK_BYTES = 16 * 2**20
POLL_SECONDS = 0.25
POLLS_FOR_MEMORY = 4
"""Memory is looked at once in so many polls: the kernel goes through all pages for it."""
MIN_WORKER_CPU_SECONDS = 1.0
"""A process that has used less is not taken for one that computes."""

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Work:
    """What is to be done: a folder with ``images.zarr``, ``model.pt2`` and ``model.onnx``."""

    folder: Path
    network: str
    size: int
    cores: int

    @property
    def images(self) -> Any:
        """The stored images, (n, 3, size, size) uint8."""
        import zarr

        return zarr.open_group(self.folder / "images.zarr", mode="r")["image"]


# ------------------------------------------------------------------------ contenders


class Clock:
    """Notes when work begins and ends and how many images are done, for the parent process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._first: float | None = None

    def done(self, images: int) -> None:
        """Note that so many images are done; 0 when work begins."""
        now = time.time()
        self._first = self._first or now
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps({"images": images, "seconds": now - self._first}))
        partial.replace(self._file)


def torch_predict(work: Work, threads: int) -> Predict:
    """Return a function that runs the module, as people write it."""
    import torch
    from models import MODELS

    torch.set_num_threads(threads)
    module = MODELS[work.network](work.size)

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = torch.from_numpy(images).to(torch.float32) / 255
            found: NDArray[np.float32] = module(batch).numpy()
            return found

    return predict


def run_loop(work: Work, clock: Clock, predict: Predict) -> NDArray[np.float32]:
    """Read, predict and collect one batch after another."""
    stored = work.images
    clock.done(0)
    found = []
    for first in range(0, stored.shape[0], BATCH):
        found.append(predict(stored[first : first + BATCH]))
        clock.done(min(first + BATCH, stored.shape[0]))
    return np.concatenate(found)


def loop(work: Work, clock: Clock) -> NDArray[np.float32]:
    """Run a PyTorch loop."""
    return run_loop(work, clock, torch_predict(work, work.cores))


def dataloader(work: Work, clock: Clock) -> NDArray[np.float32]:
    """Run a PyTorch loop whose batches are read by a DataLoader's processes."""
    from torch.utils.data import DataLoader, Dataset

    class Batches(Dataset[Any]):
        def __len__(self) -> int:
            return -(-work.images.shape[0] // BATCH)

        def __getitem__(self, index: int) -> Any:
            return work.images[index * BATCH : (index + 1) * BATCH]

    predict = torch_predict(work, work.cores)
    reader = DataLoader(Batches(), batch_size=None, num_workers=work.cores)
    clock.done(0)
    found, images = [], 0
    for batch in reader:
        found.append(predict(np.asarray(batch)))
        images += len(found[-1])
        clock.done(images)
    return np.concatenate(found)


def dask_map_blocks(work: Work, clock: Clock) -> NDArray[np.float32]:
    """``map_blocks`` on one single-threaded worker process per core."""
    import dask.array as da
    from distributed import Client, LocalCluster, as_completed

    with (
        LocalCluster(n_workers=work.cores, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        stored = da.from_zarr(work.images).rechunk((BATCH, -1, -1, -1))
        parts = stored.map_blocks(
            predict_block, work, dtype=np.float32, chunks=(stored.chunks[0], (1,)), drop_axis=(2, 3)
        )
        clock.done(0)
        futures = client.compute(list(parts.to_delayed().ravel()))
        images = 0
        for _, found in as_completed(futures, with_results=True):
            images += len(found)
            clock.done(images)
        return np.concatenate(client.gather(futures))


_PREDICT: dict[str, Predict] = {}


def predict_block(images: NDArray[np.uint8], work: Work) -> NDArray[np.float32]:
    """Predict in a worker process, where the module is made once."""
    if work.network not in _PREDICT:
        _PREDICT[work.network] = torch_predict(work, 1)
    return _PREDICT[work.network](images)


def ray_data(work: Work, clock: Clock) -> NDArray[np.float32]:
    """Ray Data: ranges of images through one actor per core."""
    import ray

    class Predictor:
        def __init__(self) -> None:
            sys.path.insert(0, str(Path(__file__).parent))
            self.predict = torch_predict(work, 1)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            first = int(batch["id"][0])
            found = self.predict(work.images[first : first + len(batch["id"])])
            return {"id": batch["id"], "prediction": found.reshape(len(found), -1)}

    # One more than there are: the actors hold all cores, and listing the images needs one as well.
    ray.init(num_cpus=work.cores + 1, include_dashboard=False, log_to_driver=False)
    count = work.images.shape[0]
    ids = ray.data.range(count, override_num_blocks=-(-count // BATCH))
    made = ids.map_batches(Predictor, batch_size=BATCH, concurrency=work.cores, num_cpus=1)
    clock.done(0)
    rows: dict[int, Any] = {}
    for batch in made.iter_batches(batch_size=None):
        rows.update(zip(batch["id"].tolist(), batch["prediction"], strict=True))
        clock.done(len(rows))
    ray.shutdown()
    return np.stack([rows[index] for index in range(count)])


def onnxruntime(work: Work, clock: Clock) -> NDArray[np.float32]:
    """Loop over an ONNX Runtime session."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = work.cores
    session = ort.InferenceSession(str(work.folder / "model.onnx"), options)
    name = session.get_inputs()[0].name
    return run_loop(
        work, clock, lambda images: session.run(None, {name: images.astype(np.float32) / 255})[0]
    )


def openvino(work: Work, clock: Clock) -> NDArray[np.float32]:
    """Loop over a compiled OpenVINO model, float32."""
    import openvino as ov

    core = ov.Core()
    properties = {
        "INFERENCE_NUM_THREADS": work.cores,
        "PERFORMANCE_HINT": "LATENCY",  # all cores for the one request that runs
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(str(work.folder / "model.onnx"), "CPU", properties)
    return run_loop(
        work, clock, lambda images: np.array(compiled(images.astype(np.float32) / 255)[0])
    )


def engine(work: Work, clock: Clock) -> NDArray[np.float32]:
    """Our engine alone: one single-threaded process per core takes one batch after another."""
    from multiprocessing import get_context

    count = work.images.shape[0]
    batches = [(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
    with get_context("spawn").Pool(work.cores, _load_engine, (work,)) as pool:
        clock.done(0)
        found = []
        for predictions, (_, last) in zip(pool.imap(_predict_range, batches), batches, strict=True):
            found.append(predictions)
            clock.done(last)
    return np.concatenate(found)


_ENGINE: list[tuple[Work, Predict]] = []


def _load_engine(work: Work) -> None:
    """Prepare the engine in a process of the pool, with the settings of a worker."""
    import torch

    from fcdcc.pipeline import open_model
    from fcdcc.pipeline.worker.engines import StageProgram
    from fcdcc.pipeline.worker.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    network = open_model(str(work.folder / "model.pt2")).network
    program = StageProgram(network, range(len(network.stages)), (network.output,))

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = torch.from_numpy(images).to(torch.float32) / 255
            found: NDArray[np.float32] = program({network.input: batch})[network.output].numpy()
            return found

    _ENGINE.append((work, predict))


def _predict_range(bounds: tuple[int, int]) -> NDArray[np.float32]:
    work, predict = _ENGINE[0]
    return predict(work.images[slice(*bounds)])


IN_PYTHON: dict[str, Callable[[Work, Clock], NDArray[np.float32]]] = {
    "loop": loop,
    "dataloader": dataloader,
    "dask": dask_map_blocks,
    "ray": ray_data,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "engine": engine,
}
ONE_PER_CORE = ("--workers", "{cores}")
OURS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "ours-cores": ONE_PER_CORE,
    "ours-off": (*ONE_PER_CORE, "--redundancy", "off"),
    "ours-eager": (*ONE_PER_CORE, "--engine", "eager"),
}


def child(name: str, work: Work, output: Path) -> None:
    """Run one of the contenders that are written in Python, in a process of its own."""
    found = IN_PYTHON[name](work, Clock(output / "clock.json"))
    np.save(output / "predictions.npy", found.reshape(len(found), -1))


# ----------------------------------------------------------------------- measurement


@dataclass
class Measured:
    """What one run of one contender took.

    ``seconds`` is the whole command, ``working_seconds`` from the first image to the last;
    ``memory`` is bytes of all processes together at their peak.
    """

    contender: str
    images: int
    seconds: float = 0.0
    working_seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: int = 0
    difference: float | None = None
    outcome: str = ""

    @property
    def images_per_second(self) -> float:
        """Images per second while working."""
        return self.images / self.working_seconds if self.working_seconds else 0.0


@dataclass
class Processes:
    """All processes of a command: CPU time and memory, sampled while it runs."""

    root: psutil.Process
    cpu: dict[int, float] = field(default_factory=dict)
    memory: int = 0
    samples: int = 0

    def sample(self) -> None:
        """Look at all of them once."""
        memory = 0
        self.samples += 1
        for process in self.alive():
            try:
                times = process.cpu_times()
                self.cpu[process.pid] = times.user + times.system
                if self.samples % POLLS_FOR_MEMORY == 1:
                    memory += _proportional_set(process.pid)
            except (psutil.Error, OSError):
                continue
        self.memory = max(self.memory, memory)

    def alive(self) -> list[psutil.Process]:
        """Return the processes that run now."""
        try:
            return [self.root, *self.root.children(recursive=True)]
        except psutil.Error:
            return []

    def busiest_child(self) -> psutil.Process | None:
        """Return the child process that has computed most, if one has."""
        children = self.alive()[1:]
        busiest = max(children, key=lambda p: self.cpu.get(p.pid, 0.0), default=None)
        if busiest is None or self.cpu.get(busiest.pid, 0.0) < MIN_WORKER_CPU_SECONDS:
            return None
        return busiest


def _proportional_set(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    return 0


def command_of(name: str, work: Work, output: Path) -> list[str]:
    """Return the command that runs a contender."""
    if name in OURS:
        folder = work.folder
        return [
            str(Path(sys.executable).parent / "fcdcc"), "run", str(folder / "model.pt2"),
            str(folder / "images.zarr"), str(output / "out.zarr"), "--json",
            str(output / "summary.json"), "--dashboard-address", "127.0.0.1:0",
            *(option.format(cores=work.cores) for option in OURS[name]),
        ]  # fmt: skip
    return [
        sys.executable, __file__, "--child", name, "--folder", str(work.folder), "--network",
        work.network, "--size", str(work.size), "--cores", str(work.cores), "--output", str(output),
    ]  # fmt: skip


def images_done(name: str, output: Path) -> int:
    """Return how many images a contender has finished so far."""
    if name in OURS:
        import zarr

        try:
            stored: Any = zarr.open_group(output / "out.zarr", mode="r")["prediction"]
        except (OSError, KeyError, ValueError):
            return 0
        chunks = [
            path for path in (output / "out.zarr" / "prediction").glob("c*") if path.is_file()
        ]
        return len(chunks) * int(stored.chunks[0])
    file = output / "clock.json"
    return int(json.loads(file.read_text())["images"]) if file.exists() else 0


def measure(name: str, work: Work, output: Path, stop: bool, give_up: float) -> Measured:
    """Run a contender, with one of its worker processes stopped half-way if so asked."""
    images = work.images.shape[0]
    found = Measured(name, images)
    log = (output / "log.txt").open("w")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    began = time.monotonic()
    process = subprocess.Popen(
        command_of(name, work, output), stdout=log, stderr=log, env=environment,
        start_new_session=True,
    )  # fmt: skip
    seen = Processes(psutil.Process(process.pid))
    stopped: psutil.Process | None = None
    moved, at = 0, time.monotonic()
    finished = threading.Event()
    threading.Thread(target=lambda: (process.wait(), finished.set()), daemon=True).start()
    while not finished.wait(POLL_SECONDS):
        seen.sample()
        done = images_done(name, output)
        if done > moved:
            moved, at = done, time.monotonic()
        if stop and stopped is None and done >= images // 2:
            stopped = seen.busiest_child()
            if stopped is None:
                found.outcome = "has no worker process to stop"
                stop = False
            else:
                stopped.send_signal(signal.SIGSTOP)
                at = time.monotonic()
        elif time.monotonic() - at > give_up:
            found.outcome = f"no image in {give_up:.0f} s: {moved} of {images} done"
            break
    found.seconds = time.monotonic() - began
    for left in [*seen.alive(), *([stopped] if stopped is not None else [])]:
        try:
            left.kill()
        except psutil.Error:
            continue
    found.cpu_seconds, found.memory = sum(seen.cpu.values()), seen.memory
    if process.returncode not in (0, None) and not found.outcome:
        found.outcome = (
            f"failed with {process.returncode}: {(output / 'log.txt').read_text()[-300:]}"
        )
    elif not found.outcome:
        found.outcome = "done"
        found.working_seconds = _working_seconds(name, output)
        found.difference = _difference(name, output, work)
    return found


def _working_seconds(name: str, output: Path) -> float:
    if name in OURS:
        return float(json.loads((output / "summary.json").read_text())["seconds"])
    return float(json.loads((output / "clock.json").read_text())["seconds"])


def _difference(name: str, output: Path, work: Work) -> float | None:
    """Return the largest difference from the loop's predictions, by their largest value."""
    reference = work.folder / "reference.npy"
    if name in OURS:
        import zarr

        stored: Any = zarr.open_group(output / "out.zarr", mode="r")["prediction"]
        found = np.asarray(stored[:]).reshape(stored.shape[0], -1)
    else:
        found = np.load(output / "predictions.npy")
    if name == "loop" and not reference.exists():
        np.save(reference, found)
    if not reference.exists():
        return None
    expected = np.load(reference)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# --------------------------------------------------------------------------- set-up


def prepare(work: Work, images: int, onnx: bool) -> None:
    """Write the images and the network."""
    import torch
    import zarr
    from models import MODELS

    random = np.random.default_rng(0)
    shape = (images, 3, work.size, work.size)
    chunk = max(1, min(images, CHUNK_BYTES // (3 * work.size**2)))
    group = zarr.open_group(work.folder / "images.zarr", mode="w")
    stored = group.create_array(
        "image", shape=shape, chunks=(chunk, *shape[1:]), dtype="uint8",
        dimension_names=("n", "c", "y", "x"),
    )  # fmt: skip
    for first in range(0, images, chunk):
        count = min(chunk, images - first)
        stored[first : first + count] = random.integers(0, 256, (count, *shape[1:]), np.uint8)
    module = MODELS[work.network](work.size)
    example = torch.zeros(2, *shape[1:])
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, work.folder / "model.pt2")
    if onnx:
        torch.onnx.export(
            module, (example,), str(work.folder / "model.onnx"), dynamo=True,
            dynamic_shapes=({0: batch},), external_data=False, verbose=False,
        )  # fmt: skip


def rows(found: list[Measured]) -> Iterator[dict[str, Any]]:
    """Yield a row for each contender: medians over its rounds."""
    for name in dict.fromkeys(measured.contender for measured in found):
        runs = [m for m in found if m.contender == name and m.outcome == "done"]
        if not runs:
            yield {
                "contender": name,
                "outcome": next(m.outcome for m in found if m.contender == name),
            }
            continue
        images = runs[0].images
        yield {
            "contender": name,
            "seconds": median(m.seconds for m in runs),
            "images_per_second": median(m.images_per_second for m in runs),
            "cpu_seconds_per_image": median(m.cpu_seconds for m in runs) / images,
            "memory_mib": median(m.memory for m in runs) / 2**20,
            "difference": max((m.difference or 0.0) for m in runs),
            "outcome": "done",
        }


def show(found: list[Measured], stopped: list[Measured]) -> None:
    """Print the table."""
    table = {row["contender"]: row for row in rows(found)}
    base = table.get("loop", {})
    print(
        "| contender | whole command | images a second | CPU s an image | memory | difference "
        "| one worker stopped |\n|---|---|---|---|---|---|---|"
    )
    for name in dict.fromkeys([*table, *(m.contender for m in stopped)]):
        row = table.get(name, {"outcome": ""})
        after = [m for m in stopped if m.contender == name]
        text = "; ".join(
            f"done in {m.seconds:.1f} s" if m.outcome == "done" else m.outcome for m in after
        )
        if row["outcome"] != "done":
            print(f"| {name} | {row['outcome']} | | | | | {text} |")
            continue
        whole, rate = row["seconds"], row["images_per_second"]
        by = (
            (f" ({whole / base['seconds']:.2f} ×)", f" ({rate / base['images_per_second']:.2f} ×)")
            if base.get("outcome") == "done"
            else ("", "")
        )
        print(
            f"| {name} | {whole:.1f} s{by[0]} | {rate:.1f}{by[1]} | "
            f"{row['cpu_seconds_per_image']:.4f} | {row['memory_mib']:.0f} MiB | "
            f"{row['difference']:.1e} | {text} |"
        )


def main() -> None:
    """Measure and print."""
    every = [*IN_PYTHON, *OURS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=every, default=every)
    parser.add_argument("--stop", action="store_true", help="also with one worker stopped")
    parser.add_argument("--give-up", type=float, default=120.0, help="seconds without an image")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work = Work(options.folder, options.network, options.size, options.cores)
        child(options.child, work, options.output)
        return
    with TemporaryDirectory(prefix="fcdcc-peers-") as temporary:
        work = Work(Path(temporary), options.network, options.size, options.cores)
        prepare(work, options.images, bool({"onnxruntime", "openvino"} & {*options.contenders}))
        found: list[Measured] = []
        stopped: list[Measured] = []
        rounds = [(False, found)] * options.rounds + ([(True, stopped)] if options.stop else [])
        for stop, results in rounds:
            for name in options.contenders:
                output = work.folder / "run"
                shutil.rmtree(output, ignore_errors=True)
                output.mkdir()
                results.append(measure(name, work, output, stop, options.give_up))
                print(asdict(results[-1]), file=sys.stderr, flush=True)
        print(
            f"{options.network}, {options.images} images of {options.size} × {options.size}, "
            f"{options.cores} cores, medians of {options.rounds}\n"
        )
        show(found, stopped)
        if options.json is not None:
            options.json.write_text(
                json.dumps(
                    {
                        "options": {**vars(options), "json": str(options.json)},
                        "healthy": [asdict(m) for m in found],
                        "stopped": [asdict(m) for m in stopped],
                    },
                    indent=2,
                    default=str,
                )
            )


if __name__ == "__main__":
    main()
