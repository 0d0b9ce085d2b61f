"""Compare plans with their runs: bytes, memory and time; and with plans made by hand.

It measures the speeds of six worker processes (TCP, one thread each), and then runs three plans
for each network over the same stored images: by images, by rows and the planner's choice. It
prints the planned and the measured bytes between workers, memory of the largest worker process
and seconds. With --grid it runs the planner's choice in turn with plans made by hand. Rounds are
interleaved, and a figure is the median over the rounds.

    python benchmarks/planned.py [--models vgg16 resnet50 unet] [--size 112] [--grid]
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import dask.config
import numpy as np
import zarr
from dask._task_spec import Task
from dask.typing import Key
from distributed import Client, LocalCluster
from healthy import one_thread, sent
from models import MODELS, exported

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.anyk.queries import anyk_report
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.halo import Rows
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.cost.calibration import calibrate
from fcdcc.pipeline.planner.cost.estimate import forecast
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.plans.forecast import Speeds, WorkerPool
from fcdcc.pipeline.plans.plan import Plan
from fcdcc.pipeline.runtime.block_runner import BlockJob, run_blocks
from fcdcc.pipeline.runtime.cluster import DASK_SETTINGS, PRELOAD
from fcdcc.pipeline.worker.executable import Executable
from fcdcc.pipeline.worker.executable_plugin import ExecutablePlugin, install, uninstall
from fcdcc.pipeline.worker.kernels import common, reading
from fcdcc.pipeline.worker.kernels.task_specs import ReadImages
from fcdcc.pipeline.worker.memory import PeakMemory
from fcdcc.storage import ImageSource, Preparation, open_images

WORKERS = 6
PREPARATION = Preparation()

GRID: dict[str, dict[str, Any]] = {
    "images, 16 a block": {"split": "images", "batch": 16},
    "images, 32 a block": {"split": "images", "batch": 32},
    "images, 16, 8 in flight": {"split": "images", "batch": 16, "in_flight": 8},
    "rows, 4 a block": {"split": "rows", "batch": 4},
    "rows, 16 a block": {"split": "rows", "batch": 16},
    "CRME, gathered, 16": {"code": "crme", "redundancy": "eager", "batch": 16},
}


HEAD = (
    "| network | plan | seconds | MB an image between workers | MB of a worker | parity started "
    "| s to plan |"
)
GRID_HEAD = "| network | plan | seconds | planned | the planner's by it |"


@dataclass
class Measured:
    """One run of all images."""

    seconds: float
    bytes_sent: int
    peak_memory: int
    parity: int


def watch_memory() -> None:
    """Measure the memory of this process from now on."""
    PeakMemory.start()


def peak_memory() -> int:
    """Return the most memory since :func:`watch_memory`."""
    peak = PeakMemory.peak()
    PeakMemory.stop()
    return peak


class Bench:
    """A cluster, a network and stored images."""

    def __init__(self, client: Client, network: Network, source: ImageSource) -> None:
        self.client = client
        self.network = network
        self.source = source

    def restart(self) -> None:
        """Start the worker processes anew, without anything that ran before."""
        self.client.restart()
        self.client.run(one_thread)

    def run(self, plan: Plan) -> Measured:
        """Run a plan over all images."""
        executable, run = Executable(self.network, plan), uuid.uuid4().hex[:8]
        plugin = ExecutablePlugin(executable, run, 1)
        self.client.run(watch_memory)
        install(self.client, plugin)
        before, start = sum(self.client.run(sent).values()), time.perf_counter()
        for outcome in run_blocks(self.client, self._jobs(executable, run), plan.in_flight, 0.5):
            if outcome is not None and outcome.error is not None:
                raise outcome.error
        taken = time.perf_counter() - start
        moved = sum(self.client.run(sent).values()) - before
        peak = max(self.client.run(peak_memory).values())
        uninstall(self.client, plugin)
        counters = anyk_report(self.client, run, timeline=False)["counters"]
        return Measured(taken, moved, peak, counters["parity_started"])

    def _jobs(self, executable: Executable, run: str) -> Iterator[BlockJob]:
        plan = executable.plan
        for block, start in enumerate(range(0, self.source.images, plan.batch)):
            count = min(plan.batch, self.source.images - start)

            def reader(
                key: Key, first: int, last: int, pad_to: int, rows: Rows | None = None,
                start: int = start,
            ) -> Task:  # fmt: skip
                spec = ReadImages(start + first, start + last, pad_to, rows)
                return Task(key, reading.read, self.source, PREPARATION, spec)

            content = Block(executable.ref, run, block, count, reader)
            graph = build_block(self.network, plan, content)
            last = Task(f"answer-{run}-{block}", common.same, graph.prediction)
            yield BlockJob(block, {**graph.tasks, last.key: last}, last.key)


def compare(bench: Bench, name: str, workers: WorkerPool, speeds: Speeds, rounds: int) -> None:
    """Print planned and measured figures side by side."""
    for label, given in (
        ("as planned", {}),
        ("by images", {"split": "images", "batch": 16}),
        ("by rows", {"split": "rows", "batch": 16}),
    ):
        options = PlanOptions.of(**given)
        begun = time.perf_counter()
        plan = choose_plan(
            bench.network, bench.source.image_shape, options, bench.source.images, workers, speeds
        )
        planning = time.perf_counter() - begun
        bench.restart()
        bench.run(plan)
        found = [bench.run(plan) for _ in range(rounds)]
        expected = forecast(bench.network, plan, workers, speeds, bench.source.images)
        blocks = expected.blocks(bench.source.images, plan.batch)
        seconds = median(one.seconds for one in found)
        moved = median(one.bytes_sent for one in found) / bench.source.images
        peak = median(one.peak_memory for one in found)
        promised = expected.block_bytes * blocks / bench.source.images
        parity = sum(one.parity for one in found)
        print(
            f"| {name} | {label}: {plan.split}, {plan.batch} | {expected.seconds(blocks):.2f} / "
            f"{seconds:.2f} ({seconds / expected.seconds(blocks):.2f}) | {promised / 1e6:.4f} / "
            f"{moved / 1e6:.4f} ({moved / max(promised, 1):.2f}) | "
            f"{expected.peak_memory / 1e6:.0f} / {peak / 1e6:.0f} "
            f"({peak / expected.peak_memory:.2f}) | {parity} | {planning:.2f} |",
            flush=True,
        )


def grid(bench: Bench, name: str, workers: WorkerPool, speeds: Speeds, rounds: int) -> None:
    """Print how the planner's choice compares with plans made by hand."""
    shape, images = bench.source.image_shape, bench.source.images
    rows = {"the planner's": {}, **GRID}
    plans = {
        label: choose_plan(
            bench.network, shape, PlanOptions.of(**options), images, workers, speeds
        )
        for label, options in rows.items()
    }  # fmt: skip
    for plan in plans.values():
        bench.run(plan)
    taken: dict[str, list[float]] = {label: [] for label in plans}
    for _ in range(rounds):
        for label, plan in plans.items():
            taken[label].append(bench.run(plan).seconds)
    ours = median(taken["the planner's"])
    for label, plan in plans.items():
        seconds = median(taken[label])
        known = 0.0 if plan.forecast is None else plan.forecast.seconds(-(-images // plan.batch))
        print(
            f"| {name} | {label} ({plan.split}, {plan.batch}, {plan.in_flight} in flight) | "
            f"{seconds:.2f} | {known:.2f} | {ours / seconds:.2f} |",
            flush=True,
        )


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grid", action="store_true", help="against plans made by hand")
    options = parser.parse_args()
    one_thread()
    shape = (options.images, 3, options.size, options.size)
    with (
        dask.config.set(DASK_SETTINGS),
        TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, memory_limit=0,
            dashboard_address=":0", preload=PRELOAD,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        stored = zarr.create_array(
            f"{folder}/images.zarr",
            data=pixels,
            chunks=(16, *shape[1:]),
            dimension_names=list("ncyx"),
        )
        source = open_images(str(stored.store_path.store.root))
        client.run(one_thread)
        client.register_plugin(AnyKPlugin())
        workers = WorkerPool(WORKERS)
        speeds = calibrate(client, workers, 1, lambda _: None)
        print(speeds)
        print(GRID_HEAD if options.grid else HEAD)
        for name in options.models:
            network = exported(MODELS[name](options.size), options.size).network
            measure = grid if options.grid else compare
            measure(Bench(client, network, source), name, workers, speeds, options.rounds)


if __name__ == "__main__":
    main()
