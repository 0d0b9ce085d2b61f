"""Takes the pictures of pages in ``docs/figures``: ``python benchmarks/pictures.py``.

It runs a small residual network on a cluster of six worker processes, stops two of them in the
middle, and takes pictures of the page ``/fcdcc`` meanwhile and of the report afterwards, 1280 and
390 pixels wide. ``--all FOLDER`` writes no figures but pictures of every page to a folder, to be
looked at, 1280, 800 and 390 pixels wide: the page and the report healthy, with stopped workers,
interrupted and with failed blocks, and the plan. It needs Chromium, and takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
import zarr
from PIL import Image

ROOT = Path(__file__).parents[1]
# tests/support is found from here on; all imports of its block come after this line, sorted.
sys.path.insert(0, str(ROOT / "tests"))

from distributed import LocalCluster  # noqa: E402 - after sys.path is set
from torch import nn  # noqa: E402 - after sys.path is set

from fcdcc.pipeline import JobConfig, run  # noqa: E402 - after sys.path is set
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress  # noqa: E402 - after sys.path is set
from support.browser import Page, browser  # noqa: E402 - after sys.path is set

FIGURES = ROOT / "docs" / "figures"
WIDTHS = (1280, 800, 390)
SHAPE = (3, 96, 96)
BATCH = 8

COLOURS = 256
"""Colours of a picture, which keep its file small."""

NAMED = "/not answered/.test(document.getElementById('sentence').innerText)"
"""JavaScript: whether the page says that workers do not answer."""


class Residual(nn.Module):
    """Six convolutions, two residual sums, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.left = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
        self.right = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.classify = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores of ten classes."""
        x = torch.relu(self.stem(x))
        for left, right in zip(self.left, self.right, strict=True):
            x = torch.relu(right(torch.relu(left(x))) + x)
        return self.classify(torch.relu(self.last(x)).mean((2, 3)))


class Watcher(Quiet):
    """Calls a function once so many blocks are done."""

    def __init__(self, blocks: int, action: Callable[[], None]) -> None:
        self._blocks, self._action, self.called = blocks, action, threading.Event()

    def advance(self, advance: RunProgress) -> None:
        """Call the function, the first time that enough blocks are done."""
        if advance.blocks_done >= self._blocks and not self.called.is_set():
            self.called.set()
            self._action()


def make_files(folder: Path, images: int) -> None:
    """Write the network and random images; two chunks of ``damaged.zarr`` are cut off."""
    torch.manual_seed(0)
    batch = {0: torch.export.Dim("batch")}
    sample = (torch.zeros(2, *SHAPE),)
    program = torch.export.export(Residual().eval(), sample, dynamic_shapes=(batch,))
    torch.export.save(program, folder / "residual.pt2")
    pixels = np.random.default_rng(0).integers(0, 256, (images, *SHAPE), dtype=np.uint8)
    names = list("ncyx")
    for name in ("images", "damaged"):
        group = zarr.create_group(folder / f"{name}.zarr")
        group.create_array("image", data=pixels, chunks=(BATCH, *SHAPE), dimension_names=names)
    for chunk in (3, 7):
        (folder / "damaged.zarr" / "image" / "c" / f"{chunk}" / "0/0/0").write_bytes(b"cut off")


def job(
    folder: Path,
    output: str,
    port: int = 0,
    images: str = "images.zarr",
    scheduler: str | None = None,
) -> JobConfig:
    """Return a job of 6 shares a layer, any 4 of which suffice."""
    return JobConfig(
        model=str(folder / "residual.pt2"),
        input=str(folder / images),
        output=str(folder / output),
        n=6,
        tolerate=2,
        split="rows",
        batch=BATCH,
        in_flight=4,
        workers=None if scheduler else 6,
        scheduler=scheduler,
        dashboard_address=f"127.0.0.1:{port}",
    )


def interrupt() -> None:
    """End a run as Ctrl-C does."""
    raise KeyboardInterrupt


def worker_processes(url: str) -> list[int]:
    """Return the processes of two of the workers of which a dashboard knows."""
    with urllib.request.urlopen(f"{url}/json/fcdcc.json") as answer:
        addresses = sorted(worker["address"] for worker in json.load(answer)["workers"])
    ports = {int(address.rpartition(":")[2]) for address in addresses[1:3]}
    listening = [one for one in psutil.net_connections("tcp4") if one.status == psutil.CONN_LISTEN]
    return [one.pid for one in listening if one.laddr.port in ports and one.pid is not None]


def send(pids: list[int], number: int) -> None:
    """Send a signal to processes, as far as they are there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def fcdcc(*arguments: object) -> None:
    """Run a command."""
    program = [sys.executable, "-m", "fcdcc.pipeline"]
    subprocess.run([*program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


class Camera:
    """Takes pictures of whole pages, as high as they are."""

    def __init__(self, page: Page, folder: Path, widths: tuple[int, ...]) -> None:
        self._page, self._folder, self._widths = page, folder, widths
        self.takes_all = widths == WIDTHS

    def take(self, name: str, url: str, when: str = "true") -> None:
        """Open a page and take a picture of it in each width, once something is true there."""
        self._page.open(url)
        self._page.wait_for(when)
        for width in self._widths:
            suffix = "" if width == self._widths[0] else f"-{width}"
            file = self._folder / f"{name}{suffix}.png"
            self._page.picture(width, 400, file)
            height = int(self._page.value("document.documentElement.scrollHeight"))
            self._page.picture(width, height, file)
            picture = Image.open(file).convert("RGB")
            picture.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(file, optimize=True)
            wider = self._page.overflow()
            print(file, f"{wider} pixels too wide" if wider > 0 else "")

    def report(self, name: str, output: Path) -> None:
        """Take pictures of the report of an output."""
        html = output.with_name(f"{name}.html")
        fcdcc("report", output, "--html", html)
        self.take(name, html.as_uri())


def stopped_run(folder: Path, camera: Camera) -> None:
    """Take pictures during and after a run in which two workers are stopped."""
    url, pids = f"http://127.0.0.1:{(port := free_port())}", []

    def stop() -> None:
        pids.extend(worker_processes(url))
        send(pids, signal.SIGSTOP)

    watcher = Watcher(12, stop)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, job(folder, "predictions.zarr", port), watcher)
        try:
            watcher.called.wait(120)
            camera.take("dashboard", f"{url}/fcdcc", NAMED)
            if camera.takes_all:
                time.sleep(8.0)
                camera.take("dashboard-replaced", f"{url}/fcdcc")
            running.result(300)
        finally:
            send(pids, signal.SIGKILL)
    camera.report("report", folder / "predictions.zarr")


def other_pages(folder: Path, camera: Camera) -> None:
    """Take pictures of what the documentation does not show."""
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=6, **options) as cluster, ThreadPoolExecutor(1) as pool:
        url = cluster.dashboard_link.removesuffix("/status") + "/fcdcc"

        def there(output: str, images: str = "images.zarr") -> JobConfig:
            return job(folder, output, images=images, scheduler=cluster.scheduler_address)

        watcher = Watcher(8, lambda: None)
        running = pool.submit(run, there("healthy.zarr"), watcher)
        watcher.called.wait(120)
        camera.take("dashboard-healthy", url)
        running.result(300)
        camera.take("dashboard-complete", url)
        with suppress(KeyboardInterrupt):
            run(there("interrupted.zarr"), Watcher(8, interrupt))
        camera.take("dashboard-interrupted", url)
        run(there("failed.zarr", "damaged.zarr"))
        camera.take("dashboard-failed", url)
    for name in ("healthy", "interrupted", "failed"):
        camera.report(f"report-{name}", folder / f"{name}.zarr")
    html = folder / "plan.html"
    files = folder / "residual.pt2", folder / "images.zarr"
    fcdcc("plan", *files, "--html", html, "--n", 6, "--tolerate", 2)
    camera.take("plan", html.as_uri())


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", metavar="FOLDER", type=Path, help="pictures of every page")
    parser.add_argument("--images", type=int, default=480)
    chosen = parser.parse_args()
    target, widths = chosen.all or FIGURES, WIDTHS if chosen.all else (WIDTHS[0], WIDTHS[-1])
    target.mkdir(exist_ok=True)
    with TemporaryDirectory() as name, browser() as page:
        folder = Path(name)
        make_files(folder, chosen.images)
        camera = Camera(page, target, widths)
        stopped_run(folder, camera)
        if chosen.all:
            other_pages(folder, camera)


if __name__ == "__main__":
    main()
