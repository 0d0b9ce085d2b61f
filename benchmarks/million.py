"""Many small images: memory of the client and scheduler, time to start, time to find nothing.

    python benchmarks/million.py --images 1000000 --folder /tmp/million

The client and the local cluster's scheduler are one process, so the memory reported is that
of both. It is taken every fifty blocks, and the growth is that from the first finished block
to the last. The scheduler's tasks are counted after every block.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
import zarr
from distributed import Scheduler
from models import TinyNet

from fcdcc.pipeline import JobConfig, Summary, run
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress

MEBIBYTE = 2**20
SHAPE = (1, 16, 16)
CHUNK = 4096


@dataclass
class Meter(Quiet):
    """Notes how long it took to start, and the memory of this process over the run."""

    started: float = field(default_factory=time.monotonic)
    planned: float = 0.0
    begun: float = 0.0
    memory: list[tuple[int, float]] = field(default_factory=list)
    tasks: int = 0

    def step(self, what: str) -> None:
        """Note when planning is over."""
        if what == "starting the cluster":
            self.planned = time.monotonic() - self.started

    def begin(self, run: str) -> None:  # noqa: ARG002 - the watcher's signature
        """Note when the first block begins."""
        self.begun = time.monotonic() - self.started

    def advance(self, advance: RunProgress) -> None:
        """Note the scheduler's tasks, and once per fifty blocks the memory."""
        for scheduler in Scheduler._instances:
            self.tasks = max(self.tasks, len(scheduler.tasks))
        if advance.blocks_done and (not self.memory or advance.blocks_done >= self._next):
            used = psutil.Process().memory_info().rss / MEBIBYTE
            self.memory.append((advance.blocks_done, used))

    @property
    def _next(self) -> int:
        return self.memory[-1][0] + 50


def make_files(folder: Path, images: int) -> tuple[Path, Path]:
    """Write the network and so many images, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    model, stored = folder / "tiny.pt2", folder / f"images-{images}.zarr"
    if not model.exists():
        batch = {0: torch.export.Dim("batch")}
        example = (torch.zeros(2, *SHAPE),)
        program = torch.export.export(TinyNet().eval(), example, dynamic_shapes=(batch,))
        torch.export.save(program, model)
    if not stored.exists():
        array = zarr.create_array(
            stored, shape=(images, *SHAPE), chunks=(CHUNK, *SHAPE), dtype="uint8",
            dimension_names=["n", "c", "y", "x"],
        )  # fmt: skip
        random = np.random.default_rng(0)
        for start in range(0, images, CHUNK):
            count = min(CHUNK, images - start)
            array[start : start + count] = random.integers(0, 256, (count, *SHAPE), np.uint8)
    return model, stored


def measure(config: JobConfig) -> tuple[Summary, Meter, float]:
    """Run a job and return its summary, what was noted, and the seconds that it took in all."""
    meter = Meter()
    summary = run(config, meter)
    return summary, meter, time.monotonic() - meter.started


def main() -> None:
    """Run twice and print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--batch", type=int, help="images per block; else planned")
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--redundancy", default=None)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    model, images = make_files(arguments.folder, arguments.images)
    config = JobConfig.of(
        model=str(model),
        input=str(images),
        output=str(arguments.folder / f"out-{arguments.images}-{time.time_ns()}.zarr"),
        batch=arguments.batch,
        n=arguments.n,
        tolerate=1,
        redundancy=arguments.redundancy,
        workers=arguments.workers,
        dashboard_address=":0",
    )
    summary, meter, seconds = measure(config)
    again, _, seconds_again = measure(config)
    first, last = meter.memory[0], meter.memory[-1]
    print(
        json.dumps(
            {
                "images": arguments.images,
                "blocks": summary.blocks_total,
                "status": summary.status,
                "seconds": round(seconds, 1),
                "images_per_second": summary.images_per_second,
                "seconds_to_plan": round(meter.planned, 2),
                "seconds_to_first_block": round(meter.begun, 2),
                "memory_first_mib": [first[0], round(first[1], 1)],
                "memory_last_mib": [last[0], round(last[1], 1)],
                "growth_mib": round(last[1] - first[1], 1),
                "memory_at_halves_mib": [
                    round(meter.memory[i * (len(meter.memory) - 1) // 4][1], 1) for i in range(5)
                ],
                "scheduler_tasks_max": meter.tasks,
                "second_run_blocks_done": again.blocks_done,
                "second_run_seconds": round(seconds_again, 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
