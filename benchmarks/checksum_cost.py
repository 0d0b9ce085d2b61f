"""What ``--verify checksum`` costs: CPU time of whole networks with the checks and without.

    python benchmarks/checksum_cost.py --pairs 5

Runs networks with random weights in the engine of a worker, in batches as a task has them, on one
thread. Every pair runs the same batch with and without checks, one right after the other, in turns
first; the figure is the median of the pairs' ratios, with their range. Reading images, encoding,
sending and writing are left out. ``--threads 2`` uses two cores.

    python benchmarks/checksum_cost.py --jobs 64

compares whole jobs on so many stored images instead: ``--verify off`` and ``checksum`` on two
workers in this process, one thread each, from reading to writing.

The last columns are a limit: the bytes of the inputs and outputs of all convolutions for an image,
and what it would cost to read them once more from memory, as fast as a sum of 64 MB reads them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from distributed import LocalCluster
from models import MODELS, exported, write_files

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.planner.cost.profile import profile_network
from fcdcc.pipeline.worker.engines import EngineName, StageProgram
from fcdcc.pipeline.worker.layer_checks import LayerChecks


def seconds(program: StageProgram, images: torch.Tensor, name: str) -> float:
    """Return the CPU seconds of one batch."""
    begun = time.process_time()
    program({name: images})
    return time.process_time() - begun


def pairs_of(
    network: Network, size: int, images: int, pairs: int, engine: EngineName
) -> list[tuple[float, float]]:
    """Return the CPU seconds of a batch without checks and with them, several times."""
    stages, outputs = range(len(network.stages)), (network.output,)
    plain = StageProgram(network, stages, outputs, engine)
    checked = StageProgram(network, stages, outputs, engine, checks=LayerChecks(network))
    batch = torch.rand(images, 3, size, size)
    found = []
    for number in range(pairs + 1):
        programs = (plain, checked) if number % 2 else (checked, plain)
        taken = {program: seconds(program, batch, network.input) for program in programs}
        found.append((taken[plain], taken[checked]))
    return found[1:]  # the first one packs weights


def job_pairs(name: str, size: int, images: int, pairs: int) -> list[tuple[float, float]]:
    """Return the CPU seconds of whole jobs without checks and with them, several times."""
    found = []
    with (
        tempfile.TemporaryDirectory() as place,
        LocalCluster(
            n_workers=2, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        folder = Path(place)
        write_files(folder, MODELS[name](size), size, images)

        def seconds_of_job(verify: str, number: int) -> float:
            begun = time.process_time()
            run(
                JobConfig(
                    model=str(folder / "net.pt2"),
                    input=str(folder / "images.zarr"),
                    output=str(folder / f"{verify}-{number}.zarr"),
                    scheduler=cluster.scheduler_address,
                    batch=16,
                    progress=False,
                    verify=verify,
                )
            )
            return time.process_time() - begun

        for number in range(pairs + 1):
            modes = ("off", "checksum") if number % 2 else ("checksum", "off")
            taken = {mode: seconds_of_job(mode, number) for mode in modes}
            found.append((taken["off"], taken["checksum"]))
    return found[1:]  # the first one loads what all others use


def bytes_of(network: Network, size: int) -> float:
    """Return the bytes of the inputs and outputs of all convolutions, for one image."""
    made = profile_network(network, (3, size, size)).image_bytes
    return sum(made[stage.input] + made[stage.output] for stage in network.convolutions)


def seconds_of_byte() -> float:
    """Return how long it takes to read a byte of a large tensor."""
    value, taken = torch.rand(2**24), []
    for _ in range(9):
        begun = time.process_time()
        value.sum()
        taken.append(time.process_time() - begun)
    return statistics.median(taken) / value.nbytes


def of_jobs(arguments: argparse.Namespace) -> None:
    """Print a Markdown table of whole jobs."""
    print("| network | CPU time of an image, off | checksum / off | range |")
    print("|---|---|---|---|")
    for name in arguments.networks:
        found = job_pairs(name, arguments.size, arguments.jobs, arguments.pairs)
        ratios = sorted(checked / plain for plain, checked in found)
        off = 1e3 * statistics.median(plain for plain, _ in found) / arguments.jobs
        print(
            f"| {name} | {off:.1f} ms | {statistics.median(ratios):.3f} | "
            f"{ratios[0]:.3f} to {ratios[-1]:.3f} |",
            flush=True,
        )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--networks", nargs="+", default=["vgg16", "resnet50", "mobilenet_v3_small"]
    )
    parser.add_argument("--size", type=int, default=224, help="pixels of an image")
    parser.add_argument("--images", type=int, default=16, help="images of a batch")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, metavar="IMAGES", help="whole jobs on so many images")
    parser.add_argument("--engine", choices=["auto", "eager", "fused"], default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.jobs:
        of_jobs(arguments)
        return
    print("| network | CPU time of an image, off | checksum / off | range | read again | limit |")
    print("|---|---|---|---|---|---|")
    with torch.inference_mode():
        for name in arguments.networks:
            size = arguments.size
            network = exported(MODELS[name](size), size).network
            found = pairs_of(network, size, arguments.images, arguments.pairs, arguments.engine)
            ratios = sorted(checked / plain for plain, checked in found)
            off = 1e3 * statistics.median(plain for plain, _ in found) / arguments.images
            again = bytes_of(network, size)
            limit = 1e3 * again * seconds_of_byte() / off
            print(
                f"| {name} | {off:.1f} ms | {statistics.median(ratios):.3f} | "
                f"{ratios[0]:.3f} to {ratios[-1]:.3f} | {again / 1e6:.0f} MB | {limit:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
