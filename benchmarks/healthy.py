"""What redundancy costs when nothing goes wrong, beside plain data-parallel inference.

The same blocks of the same stored images on the same six workers, one thread each: plain Dask
(every block a task that reads its images and runs the whole PyTorch module), and ours split by
images and by rows, with all parity, with parity on standby and with none, and gathered after
every layer. Rounds are interleaved; a figure is the median over the rounds of the ratio to
plain Dask in the same round.

    python benchmarks/healthy.py [--model vgg16] [--size 224] [--rounds 5] [--tcp] [--forms …]
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import dask.config
import numpy as np
import psutil
import torch
import zarr
from dask._task_spec import Task
from dask.typing import Key
from distributed import Client, LocalCluster
from models import MODELS, exported
from numpy.typing import NDArray
from torch import nn

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.anyk.queries import anyk_report
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.halo import Rows
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.runtime.block_runner import BlockJob, run_blocks
from fcdcc.pipeline.runtime.cluster import DASK_SETTINGS, PRELOAD
from fcdcc.pipeline.worker.executable import Executable
from fcdcc.pipeline.worker.executable_plugin import ExecutablePlugin, install, uninstall
from fcdcc.pipeline.worker.kernels import common, reading
from fcdcc.pipeline.worker.kernels.task_specs import ReadImages
from fcdcc.storage import ImageSource, Preparation, open_images

FORMS: dict[str, dict[str, Any]] = {
    "images standby": {"split": "images", "redundancy": "standby"},
    "images off": {"split": "images", "redundancy": "off"},
    "images eager": {"split": "images", "redundancy": "eager"},
    "rows standby": {"split": "rows", "redundancy": "standby"},
    "rows off": {"split": "rows", "redundancy": "off"},
    "rows eager": {"split": "rows", "redundancy": "eager"},
    "gathered eager (CRME)": {"split": "rows", "code": "crme", "redundancy": "eager"},
}
IN_FLIGHT = 4
PREPARATION = Preparation()


@dataclass
class Round:
    """One measurement."""

    seconds: float
    cpu_seconds: float
    bytes_sent: int


@dataclass
class Row:
    """A line of the table."""

    form: str
    ratio: float
    smallest: float
    largest: float
    cpu_ratio: float
    megabytes_per_image: float
    tasks_per_block: int
    parity_started: int
    error: float


def predict(source: ImageSource, start: int, stop: int, module: nn.Module) -> NDArray[np.float32]:
    """Read some images and run the whole module on them, as a user of plain Dask does."""
    with torch.inference_mode():
        images = reading.read(source, PREPARATION, ReadImages(start, stop, stop - start))
        predictions: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
    return predictions


def one_thread() -> None:
    """Let torch use one thread per operation in this process."""
    torch.set_num_threads(1)


def sent(dask_worker: Any) -> int:
    """Return the bytes that a worker has sent to others."""
    return int(dask_worker.transfer_outgoing_bytes_total)


class Bench:
    """A cluster with a model and stored images, and the ways to run one over the other."""

    def __init__(
        self, client: Client, module: nn.Module, network: Network, source: ImageSource, batch: int
    ) -> None:
        self.client = client
        self.network = network
        self.source = source
        self.batch = batch
        self.module = client.scatter(module, broadcast=True)
        self.plugins: dict[str, ExecutablePlugin] = {}
        self.tasks: dict[str, int] = {}
        self.parity: dict[str, int] = {}

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the first and the last image of every block."""
        for start in range(0, self.source.images, self.batch):
            yield start, min(start + self.batch, self.source.images)

    def plain(self) -> NDArray[np.float32]:
        """Run all blocks as plain Dask does."""
        futures = [
            self.client.submit(predict, self.source, *block, self.module, pure=False)
            for block in self.blocks()
        ]
        return np.concatenate(self.client.gather(futures))

    def add(self, form: str, options: dict[str, Any]) -> None:
        """Make the plan of a form and give it to the workers."""
        checked = PlanOptions.of(n=6, tolerate=2, batch=self.batch, **options)
        plan = choose_plan(self.network, self.source.image_shape, checked)
        plugin = ExecutablePlugin(Executable(self.network, plan), form, 1)
        install(self.client, plugin)
        self.plugins[form] = plugin

    def ours(self, form: str) -> None:
        """Run all blocks in one form."""
        executable, run = self.plugins[form].executable, uuid.uuid4().hex[:8]
        jobs = (self._job(executable, run, number) for number in range(len(list(self.blocks()))))
        for outcome in run_blocks(self.client, self._counted(form, jobs), IN_FLIGHT, 0.5):
            if outcome is not None and outcome.error is not None:
                raise outcome.error
        counters = anyk_report(self.client, run, timeline=False)["counters"]
        self.parity[form] = self.parity.get(form, 0) + counters["parity_started"]

    def error(self, form: str, expected: NDArray[np.float32]) -> float:
        """Return the relative error of the first block."""
        executable = self.plugins[form].executable
        job = self._job(executable, uuid.uuid4().hex[:8], 0)
        answer = self.client.get(job.tasks, job.key)
        wanted = expected[: self.batch]
        return float(np.linalg.norm(answer - wanted) / np.linalg.norm(wanted))

    def _job(self, executable: Executable, run: str, block: int) -> BlockJob:
        start, stop = list(self.blocks())[block]

        def reader(key: Key, first: int, last: int, pad_to: int, rows: Rows | None = None) -> Task:
            spec = ReadImages(start + first, start + last, pad_to, rows)
            return Task(key, reading.read, self.source, PREPARATION, spec)

        plan = executable.plan
        given = Block(executable.ref, run, block, stop - start, reader)
        graph = build_block(self.network, plan, given)
        last = Task(f"answer-{run}-{block}", common.same, graph.prediction)
        return BlockJob(block, {**graph.tasks, last.key: last}, last.key)

    def _counted(self, form: str, jobs: Iterator[BlockJob]) -> Iterator[BlockJob]:
        for job in jobs:
            self.tasks[form] = len(job.tasks)
            yield job

    def measure(self, work: Callable[[], Any]) -> Round:
        """Return what some work costs."""
        bytes_before, cpu_before, start = self._bytes_sent(), cpu_seconds(), time.perf_counter()
        work()
        taken = time.perf_counter() - start
        return Round(taken, cpu_seconds() - cpu_before, self._bytes_sent() - bytes_before)

    def _bytes_sent(self) -> int:
        return sum(self.client.run(sent).values())

    def close(self) -> None:
        """Take the models from the workers."""
        for plugin in self.plugins.values():
            uninstall(self.client, plugin)


def cpu_seconds() -> float:
    """Return the CPU time of this process and all its children so far."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(known.user + known.system for known in times)


def compare(bench: Bench, forms: Sequence[str], rounds: int) -> list[Row]:
    """Run all forms in turn, several times, and return the table."""
    expected = bench.plain()
    for form in forms:
        bench.add(form, FORMS[form])
        bench.ours(form)
    bench.parity.clear()
    plain: list[Round] = []
    taken: dict[str, list[Round]] = {form: [] for form in forms}
    for number in range(rounds):
        plain.append(bench.measure(bench.plain))
        for form in forms:
            taken[form].append(bench.measure(lambda form=form: bench.ours(form)))
            ratio = taken[form][-1].seconds / plain[-1].seconds
            print(f"  round {number + 1}, {form}: {ratio:.2f}", flush=True)
    return [_row(bench, form, plain, taken[form], bench.error(form, expected)) for form in forms]


def _row(bench: Bench, form: str, plain: list[Round], taken: list[Round], error: float) -> Row:
    pairs = list(zip(taken, plain, strict=True))
    ratios = [ours.seconds / base.seconds for ours, base in pairs]
    return Row(
        form,
        median(ratios),
        min(ratios),
        max(ratios),
        median(ours.cpu_seconds / base.cpu_seconds for ours, base in pairs),
        median(ours.bytes_sent for ours in taken) / bench.source.images / 1e6,
        bench.tasks[form],
        bench.parity[form],
        error,
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="vgg16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tcp", action="store_true", help="worker processes, not threads")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument(
        "--dask-memory", action="store_true", help="workers with Dask's own settings of malloc"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    one_thread()
    module = MODELS[options.model](options.size)
    shape = (options.blocks * options.batch, 3, options.size, options.size)
    with (
        dask.config.set(DASK_SETTINGS),
        TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=6,
            threads_per_worker=1,
            processes=options.tcp,
            memory_limit=0,
            dashboard_address=":0",
            preload=[] if options.dask_memory else PRELOAD,
        ) as cluster,
        Client(cluster) as client,
    ):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        stored = zarr.create_array(
            f"{folder}/images.zarr",
            data=pixels,
            chunks=(options.batch, *shape[1:]),
            dimension_names=list("ncyx"),
        )
        client.run(one_thread)
        client.register_plugin(AnyKPlugin())
        network = exported(module, options.size).network
        source = open_images(str(stored.store_path.store.root))
        bench = Bench(client, module, network, source, options.batch)
        rows = compare(bench, options.forms, options.rounds)
        bench.close()
    where = "worker processes over TCP" if options.tcp else "workers in one process"
    print(
        f"{options.model} at {options.size} × {options.size}, blocks of {options.batch}, "
        f"n = 6, γ = 2, six {where}, {options.rounds} rounds"
    )
    print("relative to plain Dask: time, median (smallest to largest); CPU time")
    for row in rows:
        print(
            f"  {row.form:<22} {row.ratio:5.2f} ({row.smallest:.2f} to {row.largest:.2f}); "
            f"{row.cpu_ratio:5.2f}; {row.megabytes_per_image:7.2f} MB/image between workers; "
            f"{row.tasks_per_block} tasks/block; {row.parity_started} parity shares started; "
            f"error {row.error:.0e}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
