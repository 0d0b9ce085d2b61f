"""Bytes that cross the loopback interface while a lazy array of ``infer`` is computed repeatedly.

Scheduler and workers are processes of their own, as on a running cluster. Nothing else may use the
loopback interface meanwhile: ``unshare -n sh -c "ip link set lo up; python
benchmarks/infer_bytes.py"`` has one of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import torch
import zarr
from distributed import Client
from models import MODELS, exported

from fcdcc.pipeline import infer


def sent() -> float:
    """Return how many MB have been sent over the loopback interface."""
    return psutil.net_io_counters(pernic=True)["lo"].bytes_sent / 1e6


def start(command: str, *options: str) -> subprocess.Popen[bytes]:
    """Start a command of Dask."""
    module = f"distributed.cli.dask_{command}"
    return subprocess.Popen(
        [sys.executable, "-m", module, "--no-dashboard", *options], stderr=subprocess.DEVNULL
    )


def measure(arguments: argparse.Namespace, images: Path) -> None:
    """Print the bytes of the call of ``infer`` and of each computation."""
    model = exported(MODELS[arguments.network](arguments.size), arguments.size)
    size = sum(tensor.nbytes for tensor in model.network.tensors.values()) / 1e6
    print(f"{arguments.network}: {size:.0f} MB of weights, {arguments.workers} workers")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before, begun = sent(), time.monotonic()
        made = infer(model, images, n=arguments.workers, tolerate=1, batch=arguments.images)
        print(f"| infer | {sent() - before:.1f} MB | {time.monotonic() - begun:.1f} s |")
        total = before
        for number in range(arguments.computes):
            before, begun = sent(), time.monotonic()
            made.compute()
            taken = time.monotonic() - begun
            print(f"| compute {number + 1} | {sent() - before:.1f} MB | {taken:.1f} s |")
        print(f"| all | {sent() - total:.1f} MB | |")
    large = [w for w in caught if "large graph" in str(w.message)]
    print(f"warnings of a large graph: {len(large)}")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=sorted(MODELS), default="resnet50")
    parser.add_argument("--size", type=int, default=64, help="pixels of an image")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--computes", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = (arguments.images, 3, arguments.size, arguments.size)
        pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
        group = zarr.create_group(folder / "images.zarr")
        group.create_array("image", data=pixels, dimension_names=list("ncyx"))
        file = folder / "scheduler.json"
        processes = [start("scheduler", "--port", "0", "--scheduler-file", str(file))]
        try:
            while not file.exists():
                time.sleep(0.1)
            options = ("--nthreads", "1", "--no-nanny", "--scheduler-file", str(file))
            processes += [start("worker", *options) for _ in range(arguments.workers)]
            address = json.loads(file.read_text("utf-8"))["address"]
            with Client(address) as client:  # the current one, which infer uses
                client.wait_for_workers(arguments.workers)
                measure(arguments, folder / "images.zarr")
        finally:
            for process in processes:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
