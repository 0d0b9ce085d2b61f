"""One image of 8192 × 8192 through a U-Net: memory per worker against that of the whole image.

    python benchmarks/large.py --folder /tmp/large [--markdown docs/large-images.md]

The whole image is computed by plain PyTorch in a process of its own, whose largest resident
memory is its need. Then six worker processes compute the same image in bands, from row-chunked
Zarr to row-chunked Zarr, and two of them are stopped (SIGSTOP) when a third of the blocks are
done. The largest resident memory of every worker process is read from the kernel, the stopped
ones and their replacements included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import zarr
from torch import nn

from fcdcc.pipeline import JobConfig, Summary, run
from fcdcc.pipeline.demo.faults import Stopper
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress

MEBIBYTE = 2**20
CHUNK = 256
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


class UNet(nn.Module):
    """Four levels of two convolutions each, transposed convolutions, a class for each pixel."""

    def __init__(self, width: int, classes: int = 4) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.enter = _double(3, width)
        self.down = nn.ModuleList(_double(w, 2 * w) for w in widths[:-1])
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1])
        )
        self.up = nn.ModuleList(_double(2 * w, w) for w in reversed(widths[:-1]))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes, H, W)."""
        skips = [self.enter(x)]
        for down in self.down:
            skips.append(down(torch.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for grow, up in zip(self.grow, self.up, strict=True):
            x = up(torch.cat([skips.pop(), grow(x)], dim=1))
        return self.classify(x)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(inplace=True),
    )  # fmt: skip


def make_net(width: int) -> nn.Module:
    """Return the network, always with the same weights."""
    torch.manual_seed(0)
    return UNet(width).eval()


def make_files(folder: Path, size: int, width: int) -> tuple[Path, Path]:
    """Write the network, exported at the size of the image, and the image, unless they are there.

    The export holds a tensor of the image's shape and no memory behind it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, stored = folder / f"unet-{width}-{size}.pt2", folder / f"image-{size}.zarr"
    if not model.exists():
        example = torch.zeros(1).expand(1, 3, size, size)
        torch.export.save(torch.export.export(make_net(width), (example,)), model)
    if not stored.exists():
        array = zarr.create_array(
            stored, shape=(1, 3, size, size), chunks=(1, 3, CHUNK, size), dtype="uint8",
            dimension_names=["n", "c", "y", "x"],
        )  # fmt: skip
        random = np.random.default_rng(0)
        for start in range(0, size, CHUNK):
            rows = min(CHUNK, size - start)
            array[:, :, start : start + rows] = random.integers(0, 256, (1, 3, rows, size), "uint8")
    return model, stored


def compute_whole(folder: Path, size: int, width: int) -> dict[str, float]:
    """Compute the whole image in this process, store it, and return what it took."""
    stored = zarr.open_array(folder / f"image-{size}.zarr", mode="r")
    before = _largest(psutil.Process())
    begun = time.monotonic()
    image = torch.from_numpy(np.asarray(stored[:])).float().div_(255)
    with torch.inference_mode():
        logits = make_net(width)(image).numpy()
    seconds, peak = time.monotonic() - begun, _largest(psutil.Process())
    np.save(folder / f"whole-{width}-{size}.npy", logits)
    return {"before": before, "peak": peak, "seconds": seconds}


@dataclass
class Meter:
    """The largest resident memory of every worker process of this one, in MiB, by its number."""

    peaks: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Note the memory of the workers that there are."""
        for process in workers():
            with suppress(psutil.Error, OSError):
                self.peaks[process.pid] = max(self.peaks.get(process.pid, 0.0), _largest(process))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look a few times a second while the body runs."""
        over = threading.Event()

        def keep_looking() -> None:
            while not over.wait(0.25):
                self.look()

        thread = threading.Thread(target=keep_looking)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def workers() -> list[psutil.Process]:
    """Return the worker processes of the local cluster of this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any("spawn_main" in argument for argument in process.cmdline()):
                found.append(process)
    return found


def _largest(process: psutil.Process) -> float:
    """Return the largest resident memory that a process has had, in MiB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Stopping(Quiet):
    """Stops some workers when a third of the blocks are done."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.stopper: Stopper | None = None

    def advance(self, advance: RunProgress) -> None:
        """Stop them, once."""
        if self.stopper is None and self._count and 3 * advance.blocks_done >= advance.blocks_total:
            chosen = workers()[: self._count]
            self.stopper = Stopper({str(process.pid): process for process in chosen})
            self.stopper.stop()


def compute_in_bands(
    model: Path, image: Path, output: Path, options: argparse.Namespace, redundancy: str
) -> tuple[Summary, Meter, list[str]]:
    """Run the job, and return what it said, the memory of its workers, and which were stopped."""
    config = JobConfig.of(
        model=str(model),
        input=str(image),
        output=str(output),
        workers=options.workers,
        band=options.band,
        memory=options.memory,
        in_flight=options.in_flight,
        redundancy=redundancy,
        dashboard_address=":0",
        progress=False,
    )
    meter, stopping = Meter(), Stopping(options.stop)
    try:
        with meter.watching():
            summary = run(config, stopping)
    finally:
        if stopping.stopper is not None:
            stopping.stopper.end()
    stopped = [] if stopping.stopper is None else [f.worker for f in stopping.stopper.faults]
    return summary, meter, stopped


def compare(output: Path, expected: Path) -> float:
    """Return the largest difference, relative to the largest value, band by band."""
    got, whole = zarr.open_array(output / "prediction", mode="r"), np.load(expected, mmap_mode="r")
    worst = largest = 0.0
    rows = got.chunks[2]
    for start in range(0, got.shape[2], rows):
        part = np.asarray(whole[:, :, start : start + rows])
        difference = np.abs(np.asarray(got[:, :, start : start + rows]) - part).max()
        if not np.isfinite(difference):
            raise ValueError(f"rows {start} to {start + rows - 1} are not all there")
        worst, largest = max(worst, float(difference)), max(largest, float(np.abs(part).max()))
    return worst / largest


def table(whole: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Return what was measured as Markdown."""
    head = (
        "",
        "largest resident memory",
        "of the whole image's",
        "median worker",
        "largest difference",
        "workers gone, parity started",
    )
    first = ("whole image, plain PyTorch", f"{whole['peak']:,.0f} MiB", "1", "")
    rows = [head, ("---",) * len(head), (*first, "", "")]
    for each in runs:
        how = f"{each['blocks']} blocks of {each['band']} rows, `{each['redundancy']}`"
        row = (
            f"{how}, {each['stopped']} of {each['workers']} workers stopped",
            f"{each['largest_mib']:,.0f} MiB",
            f"{each['part_of_whole']:.2f}",
            f"{each['median_mib']:,.0f} MiB",
            f"{each['difference']:.0e}",
            f"{each['workers_lost']}, {each['parity_started']}",
        )
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measure(
    model: Path, image: Path, whole: dict[str, Any], options: argparse.Namespace, redundancy: str
) -> dict[str, Any]:
    """Run the job once and return what is to be told of it."""
    output = options.folder / f"out-{time.time_ns()}.zarr"
    summary, meter, stopped = compute_in_bands(model, image, output, options, redundancy)
    largest = max(meter.peaks.values())
    expected = options.folder / f"whole-{options.width}-{options.size}.npy"
    return {
        "size": options.size,
        "status": summary.status,
        "blocks": summary.blocks_total,
        "band": zarr.open_array(output / "prediction", mode="r").chunks[2],
        "redundancy": redundancy,
        "seconds": summary.seconds,
        "largest_mib": round(largest),
        "planned_mib": round((summary.planned or {}).get("peak_memory", 0.0) / MEBIBYTE),
        "median_mib": round(float(np.median([*meter.peaks.values()]))),
        "part_of_whole": round(largest / whole["peak"], 3),
        "workers": options.workers,
        "processes": len(meter.peaks),
        "stopped": len(stopped),
        "workers_lost": len(summary.workers_lost),
        "parity_started": summary.parity_started,
        "erasures": summary.erasures,
        "extra_work": summary.extra_work,
        "difference": compare(output, expected),
    }


def main() -> None:
    """Measure, print JSON and a table, and put the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--stop", type=int, default=2, help="workers to stop in the middle")
    parser.add_argument("--band", type=int, help="rows per block; else planned")
    parser.add_argument("--memory", help="allowed per worker")
    parser.add_argument("--in-flight", type=int)
    parser.add_argument("--redundancy", nargs="+", default=["standby", "eager"])
    parser.add_argument("--markdown", type=Path, help="page between whose marks the table goes")
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.whole:
        print(json.dumps(compute_whole(options.folder, options.size, options.width)))
        return
    model, image = make_files(options.folder, options.size, options.width)
    kept = options.folder / f"whole-{options.width}-{options.size}.json"
    if not kept.exists():
        command = [
            sys.executable, __file__, "--whole", "--folder", str(options.folder),
            "--size", str(options.size), "--width", str(options.width),
        ]  # fmt: skip
        kept.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    whole = json.loads(kept.read_text())
    runs = []
    for redundancy in options.redundancy:
        runs.append(measure(model, image, whole, options, redundancy))
        print(json.dumps(runs[-1]), flush=True)
    print(table(whole, runs))
    if options.markdown is not None:
        page = options.markdown.read_text()
        before, rest = page.split(BEGIN)
        after = rest.split(END)[1]
        options.markdown.write_text(f"{before}{BEGIN}\n{table(whole, runs)}\n{END}{after}")


if __name__ == "__main__":
    main()
