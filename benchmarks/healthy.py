"""What the insurance costs when nothing goes wrong, beside plain data-parallel inference.

The same blocks of the same images on the same six worker processes, one thread each: plain
Dask (every block a task that runs the whole PyTorch module), and ours split by images and by
rows, with all parity, parity on standby and none. Rounds are interleaved; the figures are
medians of the ratios to plain Dask in the same round.

    python benchmarks/healthy.py [--rounds 5] [--size 64] [--blocks 8] [--batch 16]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from io import BytesIO
from statistics import median
from typing import Any

import dask.array as da
import numpy as np
import torch
from distributed import Client, LocalCluster
from torch import nn

from fcdcc.pipeline import Model, infer, open_model

CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""The convolutions of VGG-16, 0 being a pooling."""

FORMS: dict[str, dict[str, Any]] = {
    "by images, standby": {"split": "images", "redundancy": "standby"},
    "by images, off": {"split": "images", "redundancy": "off"},
    "by images, eager": {"split": "images", "redundancy": "eager"},
    "by rows, gathered, off": {"split": "rows", "redundancy": "off"},
    "by rows, gathered, eager": {"split": "rows", "redundancy": "eager"},
}


def vgg16(size: int) -> nn.Module:
    """Return the convolutions of VGG-16 and a classifier, with seeded weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for width in CHANNELS:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * (size // 32) ** 2, 100)).eval()


def exported(module: nn.Module, size: int) -> Model:
    """Return the module as a model that fcdcc runs."""
    batch = {0: torch.export.Dim("batch")}
    stored = BytesIO()
    program = torch.export.export(module, (torch.zeros(2, 3, size, size),), dynamic_shapes=(batch,))
    torch.export.save(program, stored)
    return open_model(stored.getvalue())


def predict(block: np.ndarray[Any, Any], module: nn.Module) -> np.ndarray[Any, Any]:
    """Run the whole module on one block, as a user of plain Dask does."""
    with torch.inference_mode():
        return module(torch.from_numpy(np.array(block))).numpy()


def seconds(work: Callable[[], Any]) -> float:
    """Return how long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_thread() -> None:
    """Let torch use one thread per operation in this worker."""
    torch.set_num_threads(1)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    module = vgg16(options.size)
    model = exported(module, options.size)
    shape = (options.blocks * options.batch, 3, options.size, options.size)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    with (
        LocalCluster(n_workers=6, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.run(one_thread)
        held = client.scatter(module, broadcast=True)

        def plain() -> Any:
            starts = range(0, len(images), options.batch)
            blocks = [images[start : start + options.batch] for start in starts]
            return client.gather(client.map(predict, blocks, module=held, pure=False))

        def ours(form: dict[str, Any], run: int) -> Any:
            source = da.from_array(images, chunks=(options.batch, *shape[1:]), name=f"images-{run}")
            return infer(model, source, n=6, tolerate=2, batch=options.batch, **form).compute()

        expected = np.concatenate(plain())
        ratios: dict[str, list[float]] = {name: [] for name in FORMS}
        run = 0
        for number in range(options.rounds + 1):  # the first warms up
            base = seconds(plain)
            for name, form in FORMS.items():
                run += 1
                taken = seconds(lambda form=form, run=run: ours(form, run))
                if number:
                    ratios[name].append(taken / base)
        for name, form in FORMS.items():
            run += 1
            error = np.linalg.norm(ours(form, run) - expected) / np.linalg.norm(expected)
            assert error < 1e-5, (name, error)
    print(f"VGG-16 at {options.size} × {options.size}, blocks of {options.batch}, n = 6, γ = 2")
    print("time relative to plain Dask, median (smallest to largest)")
    for name, values in ratios.items():
        print(f"  {name:<26} {median(values):5.2f}   ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
