r"""One large image through a U-Net: memory per worker against that of the whole image.

    python benchmarks/large.py --folder /tmp/large [--markdown docs/large-images.md]
    python benchmarks/large.py --folder /tmp/large --size 4000 --columns 6000 \
        --tile 512 --overlap 64

The whole image is computed by plain PyTorch in a process of its own, whose largest resident
memory is its need. Then six worker processes compute the same image in bands, or in tiles with
``--tile``, from Zarr to Zarr, and two of them are stopped (SIGSTOP) when a third of the blocks are
done. The largest resident memory of every worker process is read from the kernel, the stopped
ones and their replacements included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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


@dataclass(frozen=True)
class Files:
    """The network and the image of a measurement, and what the whole image gives.

    Parameters
    ----------
    folder
        Where they are.
    size
        Rows and columns of the image.
    width
        Channels of the first level of the network.
    tiled
        Whether the network is exported for any size, and the image stored in square chunks.
    """

    folder: Path
    size: tuple[int, int]
    width: int
    tiled: bool

    def _path(self, what: str) -> Path:
        rows, columns = self.size
        kind = "-any" if self.tiled else ""
        return self.folder / what.format(f"{rows}x{columns}{kind}", f"{self.width}-")

    @property
    def model(self) -> Path:
        """The network."""
        return self._path("unet-{1}{0}.pt2")

    @property
    def image(self) -> Path:
        """The image."""
        return self._path("image-{0}.zarr")

    @property
    def whole(self) -> Path:
        """What the network gives for the whole image."""
        return self._path("whole-{1}{0}.npy")

    def make(self) -> None:
        """Write the network and the image, unless they are there.

        The export holds a tensor of the image's shape and no memory behind it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        rows, columns = self.size
        if not self.model.exists():
            example, free = torch.zeros(1).expand(1, 3, rows, columns), None
            if self.tiled:
                example = torch.zeros(1).expand(2, 3, 64, 64)
                eighth = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
                free = ({0: torch.export.Dim("batch"), 2: 8 * eighth[0], 3: 8 * eighth[1]},)
            program = torch.export.export(make_net(self.width), (example,), dynamic_shapes=free)
            torch.export.save(program, self.model)
        if not self.image.exists():
            array = zarr.create_array(
                self.image, shape=(1, 3, rows, columns), dtype="uint8",
                chunks=(1, 3, CHUNK, CHUNK if self.tiled else columns),
                dimension_names=["n", "c", "y", "x"],
            )  # fmt: skip
            random = np.random.default_rng(0)
            for start in range(0, rows, CHUNK):
                part = random.integers(0, 256, (1, 3, min(CHUNK, rows - start), columns), "uint8")
                array[:, :, start : start + CHUNK] = part


def compute_whole(files: Files) -> dict[str, float]:
    """Compute the whole image in this process, store it, and return what it took."""
    stored = zarr.open_array(files.image, mode="r")
    before = _largest(psutil.Process())
    begun = time.monotonic()
    image = torch.from_numpy(np.asarray(stored[:])).float().div_(255)
    with torch.inference_mode():
        logits = make_net(files.width)(image).numpy()
    seconds, peak = time.monotonic() - begun, _largest(psutil.Process())
    np.save(files.whole, logits)
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
    """Return the worker processes of the local cluster of this process.

    They are forked by a server, which is a child of this process.
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.ppid() != os.getpid():
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
        self.stopped = ExitStack()

    def advance(self, advance: RunProgress) -> None:
        """Stop them, once."""
        if self.stopper is None and self._count and 3 * advance.blocks_done >= advance.blocks_total:
            chosen = workers()[: self._count]
            processes = {str(process.pid): process for process in chosen}
            self.stopper = self.stopped.enter_context(Stopper(processes))
            self.stopper.stop()


def compute_in_parts(
    files: Files, output: Path, options: argparse.Namespace, redundancy: str
) -> tuple[Summary, Meter, list[str]]:
    """Run the job, and return what it said, the memory of its workers, and which were stopped."""
    config = JobConfig.of(
        model=str(files.model),
        input=str(files.image),
        output=str(output),
        workers=options.workers,
        band=options.band,
        tile=options.tile,
        overlap=options.overlap,
        memory=options.memory,
        in_flight=options.in_flight,
        redundancy=redundancy,
        dashboard_address=":0",
        progress=False,
    )
    meter, stopping = Meter(), Stopping(options.stop)
    with stopping.stopped, meter.watching():
        summary = run(config, stopping)
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
        if each["tile"] is not None:
            tile = f"tiles of {each['tile']} that overlap by {each['overlap']}"
            how = f"{tile}, {each['blocks']} blocks, `{each['redundancy']}`"
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
    files: Files, whole: dict[str, Any], options: argparse.Namespace, redundancy: str
) -> dict[str, Any]:
    """Run the job once and return what is to be told of it."""
    output = options.folder / f"out-{time.time_ns()}.zarr"
    summary, meter, stopped = compute_in_parts(files, output, options, redundancy)
    largest = max(meter.peaks.values())
    return {
        "size": files.size,
        "tile": options.tile,
        "overlap": options.overlap,
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
        "difference": compare(output, files.whole),
    }


def main() -> None:
    """Measure, print JSON and a table, and put the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8192, help="rows of the image")
    parser.add_argument("--columns", type=int, help="of the image; by default as many as rows")
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--stop", type=int, default=2, help="workers to stop in the middle")
    parser.add_argument("--band", type=int, help="rows per block; else planned")
    parser.add_argument("--tile", type=int, help="size of tiles; without it, bands")
    parser.add_argument("--overlap", type=int, help="of tiles; else an eighth")
    parser.add_argument("--memory", help="allowed per worker")
    parser.add_argument("--in-flight", type=int)
    parser.add_argument("--redundancy", nargs="+", default=["standby", "eager"])
    parser.add_argument("--markdown", type=Path, help="page between whose marks the table goes")
    parser.add_argument("--mark", default="measured", help="name of these marks")
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = options.size, options.columns or options.size
    files = Files(options.folder, size, options.width, options.tile is not None)
    if options.whole:
        print(json.dumps(compute_whole(files)))
        return
    files.make()
    kept = files.whole.with_suffix(".json")
    if not kept.exists():
        command = [sys.executable, __file__, *sys.argv[1:], "--whole"]
        kept.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    whole = json.loads(kept.read_text())
    runs = []
    for redundancy in options.redundancy:
        runs.append(measure(files, whole, options, redundancy))
        print(json.dumps(runs[-1]), flush=True)
    print(table(whole, runs))
    if options.markdown is not None:
        page = options.markdown.read_text()
        begin, end = f"<!-- {options.mark} -->", f"<!-- end of {options.mark} -->"
        before, rest = page.split(begin)
        after = rest.split(end)[1]
        options.markdown.write_text(f"{before}{begin}\n{table(whole, runs)}\n{end}{after}")


if __name__ == "__main__":
    main()
