"""What ``--verify`` costs: the same job with it off, spare and all, one after the other.

    python benchmarks/verify_cost.py --rounds 5

Six workers in this process, one thread each; six convolutions of 64 to 256 channels on images of
64 × 64, n = 6, γ = 2. ``blind`` is ``off`` without the look at shares for NaN and infinity. The
times of one round are compared with each other, and the middle of these ratios is shown with their
range: of the time, and of the processors' time, which says less of the order in which things
happened.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import zarr
from distributed import LocalCluster
from torch import nn

from fcdcc.pipeline import JobConfig, checking, kernels, run

FORMS = {
    "images, standby": {"split": "images", "redundancy": "standby"},
    "images, eager": {"split": "images", "redundancy": "eager"},
    "strips, standby": {"split": "rows", "redundancy": "standby"},
    "crme": {"code": "crme"},
}
MODES = ("blind", "off", "spare", "all")


def write_files(folder: Path, images: int) -> None:
    """Write the network and its images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 128, 128, 256, 256):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if width != channels and channels != 3 else []
        channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)).eval()
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(net, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=(batch,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    (folder / "net.pt2").write_bytes(buffer.getvalue())
    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, 64, 64), dtype=np.uint8)
    group = zarr.create_group(folder / "images.zarr")
    group.create_array("image", data=pixels, chunks=(16, 3, 64, 64), dimension_names=list("ncyx"))


def timed(mode: str, **options: Any) -> tuple[float, float]:
    """Run a job, and return the seconds that it took, and those of the processors."""
    with ExitStack() as stack:
        if mode == "blind":
            for module in (checking, kernels):
                stack.enter_context(patch.object(module, "is_finite", return_value=True))
        config = JobConfig.of(verify="off" if mode == "blind" else mode, **options)
        before = time.process_time()
        seconds = run(config).seconds
        return seconds, time.process_time() - before


def shown(pairs: list[tuple[float, float]]) -> str:
    """Return two ratios, each the middle one and the range."""
    return " | ".join(
        f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
        for ratios in zip(*pairs, strict=True)
    )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--forms", nargs="*", default=[*FORMS])
    parser.add_argument("--modes", nargs="*", default=[*MODES])
    arguments = parser.parse_args()
    print("| form | off, seconds | `--verify` | time / off | processors / off |")
    print("|---|---|---|---|---|")
    modes = ["off", *(mode for mode in arguments.modes if mode != "off")]
    with (
        tempfile.TemporaryDirectory() as place,
        LocalCluster(
            n_workers=6, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        folder = Path(place)
        write_files(folder, arguments.images)
        for form in arguments.forms:
            ratios: dict[str, list[tuple[float, float]]] = {mode: [] for mode in modes}
            seconds: list[float] = []
            for number in range(arguments.rounds + 1):
                times = {
                    mode: timed(
                        mode,
                        model=str(folder / "net.pt2"),
                        input=str(folder / "images.zarr"),
                        output=str(folder / f"{form}-{number}-{mode}.zarr"),
                        scheduler=cluster.scheduler_address,
                        batch=16,
                        progress=False,
                        **FORMS[form],
                    )
                    for mode in (modes if number % 2 else modes[::-1])
                }
                if number:  # the first round warms up
                    wall, work = times["off"]
                    seconds.append(wall)
                    for mode in modes:
                        ratios[mode].append((times[mode][0] / wall, times[mode][1] / work))
            first = f"{form} | {statistics.median(seconds):.2f}"
            for mode in modes[1:]:
                print(f"| {first} | {mode} | {shown(ratios[mode])} |", flush=True)


if __name__ == "__main__":
    main()
