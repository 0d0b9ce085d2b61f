"""What the cost model takes for granted of operations: their time by two rates, their memory.

Every stage of three networks is timed in turn, one thread, and compared with the multiply-adds
and touched bytes of the model at the two rates that explain all of them best. Then single
convolutions: how far resident memory rises above their input, beside what the model expects.

    python benchmarks/operations.py [--models vgg16 resnet50 unet] [--images 4] [--size 112]
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
import psutil
import torch
from models import MODELS, exported

from fcdcc.pipeline.model.interpreter import run_steps
from fcdcc.pipeline.model.network import ConvStage, Network
from fcdcc.pipeline.planner.cost.profile import CHANNEL_BLOCK, profile_network
from fcdcc.pipeline.plans.forecast import Work
from fcdcc.pipeline.worker.kernels.common import to_tensor

CONVOLUTIONS = ((4, 4, 160, 8192), (8, 4, 160, 8192), (4, 4, 640, 8192), (32, 32, 160, 2048))
"""Channels in and out, rows, columns; 3 × 3."""

SHORT = 2e-4
"""Seconds of a stage below which the clock decides, not the work."""


def timed(network: Network, images: int, rounds: int) -> list[tuple[bool, Work, float]]:
    """Return, for every stage, whether it is a convolution, its work, and its median seconds."""
    size = network.input_shape[2] or 0
    profile = profile_network(network, (3, size, size))
    taken: dict[int, list[float]] = {stage.index: [] for stage in network.stages}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            values = {network.input: torch.rand(images, 3, size, size)}
            for stage in network.stages:
                begun = time.perf_counter()
                if isinstance(stage, ConvStage):
                    values[stage.output] = convolved(network, stage, values[stage.input])
                else:
                    values.update(run_steps(stage, values, network.tensors))
                taken[stage.index].append(time.perf_counter() - begun)
    return [
        (
            isinstance(stage, ConvStage),
            profile.work[stage.index].times(images),
            median(taken[stage.index][1:]),
        )
        for stage in network.stages
    ]


def convolved(network: Network, stage: ConvStage, value: torch.Tensor) -> torch.Tensor:
    """Return what a convolution makes."""
    bias = None if stage.bias is None else network.tensors[stage.bias]
    padding = tuple(before for before, _ in stage.padding)
    return torch.nn.functional.conv2d(
        value, network.tensors[stage.weight], bias, stage.stride, padding, stage.dilation,
        stage.groups,
    )  # fmt: skip


def compare(found: dict[str, list[tuple[bool, Work, float]]]) -> None:
    """Print the rates that explain all stages best, and how well they explain each network."""
    stages = [stage for each in found.values() for stage in each]
    known = np.array([numbers(work) / s for _, work, s in stages if s > SHORT])
    costs, *_ = np.linalg.lstsq(known, np.ones(len(known)), rcond=None)
    print(f"{1e-9 / costs[0]:.1f} G multiply-adds/s, {1e-9 / costs[1]:.1f} GB/s")
    print("| network | convolutions, ms | by the model | glue, ms | by the model |\n|" + "---|" * 5)
    for name, each in found.items():
        cells = []
        for kind in (True, False):
            real = sum(s for convolution, _, s in each if convolution == kind)
            model = sum(
                numbers(work) @ costs for convolution, work, _ in each if convolution == kind
            )
            cells += [f"{1e3 * real:.1f}", f"{1e3 * model:.1f} ({model / real:.2f})"]
        print(f"| {name} | {' | '.join(cells)} |")


def numbers(work: Work) -> np.ndarray:
    """Return what the rates are for."""
    return np.array([work.multiply_adds, work.touched + work.fixed])


@contextmanager
def watched(rises: list[float]) -> Iterator[None]:
    """Note by how many MB resident memory rises at most while the body runs."""
    process, over = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    peak = [before]

    def look() -> None:
        while not over.wait(0.0005):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        rises.append((peak[0] - before) / 1e6)


def memory() -> None:
    """Print how far the memory of single convolutions rises."""
    print("| channels, size | MB above the input | by the model, without |\n|---|---|---|")
    for inputs, outputs, rows, columns in CONVOLUTIONS:
        x = to_tensor(np.ones((1, inputs, rows, columns), np.float32))
        weight, rises = torch.rand(outputs, inputs, 3, 3), list[float]()
        with watched(rises), torch.inference_mode():
            torch.nn.functional.conv2d(x, weight, padding=1)
        one = 4e-6 * rows * columns
        model = one * (inputs + outputs + -(-outputs // CHANNEL_BLOCK) * CHANNEL_BLOCK)
        size = f"{inputs}→{outputs}, {rows} × {columns}"
        print(f"| {size} | {rises[0]:.0f} | {model:.0f}, {one * (inputs + 2 * outputs):.0f} |")


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    memory()
    networks = {name: exported(MODELS[name](options.size), options.size) for name in options.models}
    compare({n: timed(m.network, options.images, options.rounds) for n, m in networks.items()})


if __name__ == "__main__":
    main()
