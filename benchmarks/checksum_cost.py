"""What ``--verify checksum`` costs: CPU time of whole networks with the checks and without.

    python benchmarks/checksum_cost.py --pairs 5

Runs networks with random weights in the engine of a worker, in batches as a task has them, on one
thread. Every pair runs the same batch with and without checks, one right after the other, in turns
first; the figure is the median of the pairs' ratios, with their range. Reading images, encoding,
sending and writing are left out: in a job the part is smaller. ``--threads 2`` uses two cores.

The last columns are a limit: the bytes of the inputs and outputs of all convolutions for an image,
and what it would cost to read them once more from memory, as fast as a sum of 64 MB reads them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from models import MODELS, exported

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
    parser.add_argument("--engine", choices=["auto", "eager", "fused"], default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
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
