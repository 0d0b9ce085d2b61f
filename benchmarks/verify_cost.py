"""What ``--verify`` costs: the same job with it off, spare and all, one after the other.

    python benchmarks/verify_cost.py --rounds 5

Six workers in this process, one thread each; six convolutions of 64 to 256 channels on images of
64 × 64, n = 6, γ = 2. The times of one round are compared with each other, and the middle of these
ratios is shown with their range.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
import zarr
from distributed import LocalCluster
from torch import nn

from fcdcc.pipeline import JobConfig, run

FORMS = {
    "images, standby": {"split": "images", "redundancy": "standby"},
    "images, eager": {"split": "images", "redundancy": "eager"},
    "strips, standby": {"split": "rows", "redundancy": "standby"},
    "crme": {"code": "crme"},
}
MODES = ("off", "spare", "all")


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


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--forms", nargs="*", default=[*FORMS])
    arguments = parser.parse_args()
    print("| form | off, seconds | spare / off | all / off |\n|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as place,
        LocalCluster(
            n_workers=6, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        folder = Path(place)
        write_files(folder, arguments.images)
        for form in arguments.forms:
            ratios: dict[str, list[float]] = {mode: [] for mode in MODES}
            seconds: list[float] = []
            for number in range(arguments.rounds + 1):
                times = {}
                for mode in MODES if number % 2 else MODES[::-1]:
                    config = JobConfig.of(
                        model=str(folder / "net.pt2"),
                        input=str(folder / "images.zarr"),
                        output=str(folder / f"{form}-{number}-{mode}.zarr"),
                        scheduler=cluster.scheduler_address,
                        batch=16,
                        progress=False,
                        verify=mode,
                        **FORMS[form],
                    )
                    times[mode] = run(config).seconds
                if number:  # the first round warms up
                    seconds.append(times["off"])
                    for mode in MODES:
                        ratios[mode].append(times[mode] / times["off"])
            shown = [
                f"{statistics.median(ratios[mode]):.2f} "
                f"({min(ratios[mode]):.2f} to {max(ratios[mode]):.2f})"
                for mode in MODES[1:]
            ]
            print(
                f"| {form} | {statistics.median(seconds):.2f} | {' | '.join(shown)} |", flush=True
            )


if __name__ == "__main__":
    main()
