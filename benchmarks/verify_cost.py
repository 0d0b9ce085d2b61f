"""What ``--verify`` costs: the same job with it off, spare and all, one after the other.

    python benchmarks/verify_cost.py --rounds 5

Six workers in this process, one thread each; six convolutions of 64 to 256 channels on images of
64 × 64, n = 6, γ = 2. The times of one round are compared with each other, and the middle of these
ratios is shown with their range: of the time, and of the processors' time, which says less of the
order in which things happened. Last comes the part of the processors' time that went into looking
at shares, for NaN and infinity, for their size and against each other: what can be told apart where
runs differ by more than that from one to the next.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from distributed import LocalCluster
from models import write_files
from torch import nn

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.worker import share_checks as checking
from fcdcc.pipeline.worker.kernels import common, gathered_kernels

FORMS = {
    "images, standby": {"split": "images", "redundancy": "standby"},
    "images, eager": {"split": "images", "redundancy": "eager"},
    "strips, standby": {"split": "rows", "redundancy": "standby"},
    "crme": {"code": "crme"},
}
MODES = ("off", "spare", "all")
LOOKING = ("is_finite", "convolution_scale", "compare_shares")
"""What looks at shares."""


def network() -> nn.Module:
    """Return the network that all jobs run."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 128, 128, 256, 256):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if width != channels and channels != 3 else []
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)).eval()


class Timed:
    """A job that is timed, and how much of its work went into looking at shares."""

    def __init__(self, **options: Any) -> None:
        self._looking = 0.0
        with ExitStack() as stack:
            for module in (checking, common, gathered_kernels):
                for name in LOOKING:
                    if hasattr(module, name):
                        stack.enter_context(patch.object(module, name, self._clocked(module, name)))
            before = time.process_time()
            self.seconds = run(JobConfig.of(**options)).seconds
            self.work = time.process_time() - before
        self.part = self._looking / self.work

    def _clocked(self, module: ModuleType, name: str) -> Callable[..., Any]:
        original = getattr(module, name)

        def clocked(*given: Any) -> Any:
            before = time.thread_time()
            try:
                return original(*given)
            finally:
                self._looking += time.thread_time() - before

        return clocked


def shown(ratios: list[float]) -> str:
    """Return the middle one and the range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--forms", nargs="*", default=[*FORMS])
    arguments = parser.parse_args()
    print("| form | `--verify` | seconds | time / off | processors / off | looking at shares |")
    print("|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as place,
        LocalCluster(
            n_workers=6, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        folder = Path(place)
        write_files(folder, network(), 64, arguments.images)
        for form in arguments.forms:
            rounds = []
            for number in range(arguments.rounds + 1):
                jobs = {
                    mode: Timed(
                        model=str(folder / "net.pt2"),
                        input=str(folder / "images.zarr"),
                        output=str(folder / f"{form}-{number}-{mode}.zarr"),
                        scheduler=cluster.scheduler_address,
                        batch=16,
                        progress=False,
                        verify=mode,
                        **FORMS[form],
                    )
                    for mode in (MODES if number % 2 else MODES[::-1])
                }
                rounds += [jobs] if number else []  # the first round warms up
            for mode in MODES:
                seconds = statistics.median(jobs[mode].seconds for jobs in rounds)
                times = [jobs[mode].seconds / jobs["off"].seconds for jobs in rounds]
                work = [jobs[mode].work / jobs["off"].work for jobs in rounds]
                part = statistics.median(jobs[mode].part for jobs in rounds)
                print(
                    f"| {form} | {mode} | {seconds:.2f} | {shown(times)} | {shown(work)} | "
                    f"{100 * part:.1f} % |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
