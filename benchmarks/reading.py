"""What reading and writing cost beside computing, and beside plain xarray.

    python benchmarks/reading.py --folder /tmp/reading

VGG-16 with random weights over images of 224 × 224 bytes: the CPU time of a whole job, that of
reading and preparing the same images again, and that of writing the same predictions again. All
threads of the process count, so everything runs in one process: one worker, one thread of torch.
Then blocks per second: as the job reads them, and as ``xarray.open_zarr`` does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray
from torch import nn

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.heads import Head
from fcdcc.pipeline.runtime.output import write_block
from fcdcc.pipeline.stored_forms import StoredForm
from fcdcc.storage import (
    BlockLayout,
    Fingerprint,
    OutputArray,
    Preparation,
    create_predictions,
    open_images,
)

SHAPE = (3, 224, 224)
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def vgg16() -> nn.Module:
    """Return VGG-16, layer by layer as torchvision has it."""
    layers: list[nn.Module] = []
    channels = SHAPE[0]
    for widths in WIDTHS:
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    head = [nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096)]
    head += [nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head)


def make_files(folder: Path, images: int, chunk: int) -> tuple[Path, Path]:
    """Write the network and so many images, smooth as photographs are, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    model, stored = folder / "vgg16.pt2", folder / f"images-{images}-{chunk}.zarr"
    if not model.exists():
        torch.manual_seed(0)
        batch = {0: torch.export.Dim("batch")}
        example = (torch.zeros(2, *SHAPE),)
        program = torch.export.export(vgg16().eval(), example, dynamic_shapes=(batch,))
        torch.export.save(program, model)
    if not stored.exists():
        random = np.random.default_rng(0)
        coarse = torch.from_numpy(random.random((images, 3, 28, 28), np.float32))
        smooth = nn.functional.interpolate(coarse, SHAPE[1:], mode="bicubic")
        noisy = smooth + torch.from_numpy(random.normal(0, 0.02, smooth.shape).astype(np.float32))
        zarr.create_group(stored).create_array(
            "image",
            data=(noisy * 255).clamp(0, 255).byte().numpy(),
            chunks=(chunk, *SHAPE),
            dimension_names=["n", "c", "y", "x"],
        )
    return model, stored


def cpu(action: Callable[[], object]) -> float:
    """Return the CPU seconds, of all threads of this process, that something takes."""
    before = time.process_time()
    action()
    return time.process_time() - before


def rates(actions: dict[str, Callable[[int], object]], blocks: int) -> dict[str, float]:
    """Return blocks per second of each, the median of seven passes taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(7):
        for name, action in actions.items():
            before = time.perf_counter()
            for block in range(blocks):
                action(block)
            seconds[name].append(time.perf_counter() - before)
    return {name: round(blocks / statistics.median(times), 2) for name, times in seconds.items()}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--chunk", type=int, default=8, help="images per chunk of the input")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, stored = make_files(arguments.folder, arguments.images, arguments.chunk)
    config = JobConfig(
        model=str(model),
        input=str(stored),
        output=str(arguments.folder / f"out-{time.time_ns()}.zarr"),
        mean=MEAN,
        std=STD,
        n=1,
        tolerate=0,
        code="uncoded",
        workers=1,
        processes=False,
        threads_per_worker=1,
        torch_threads=1,
        dashboard_address=":0",
    )
    whole = cpu(lambda: run(config))
    predictions = xr.open_zarr(config.output)["prediction"]
    batch = predictions.encoding["chunks"][0]
    made = predictions.values
    layout = BlockLayout(arguments.images, batch)
    source = open_images(stored)
    preparation = Preparation("auto", MEAN, STD, "float32")

    def read(block: int) -> NDArray[np.generic]:
        return source.read(*layout.bounds(block))

    def read_and_prepare(block: int) -> NDArray[np.generic]:
        return preparation.apply(read(block))

    again = create_predictions(
        arguments.folder / f"again-{time.time_ns()}.zarr",
        images=arguments.images,
        batch=batch,
        arrays=[OutputArray("prediction", made.shape[1:], "float32", ("class",))],
        fingerprint=Fingerprint.of({}),
    )

    head = Head("logits", "logits", made.shape[1:], "float32", 0, "the last layer is linear")
    stored_form = StoredForm("logits").of(head)

    def store(block: int) -> None:
        write_block(made[slice(*layout.bounds(block))], again, block, stored_form, {})

    blocks = range(layout.blocks)
    reading = min(cpu(lambda: [read_and_prepare(block) for block in blocks]) for _ in range(3))
    writing = cpu(lambda: [store(block) for block in blocks])
    plain = xr.open_zarr(stored, chunks=None, consolidated=False)["image"]
    speed = rates(
        {
            "xarray": lambda block: plain.isel(n=slice(*layout.bounds(block))).values,
            "read": read,
            "read_and_prepare": read_and_prepare,
        },
        layout.blocks,
    )
    print(
        json.dumps(
            {
                "images": arguments.images,
                "blocks": layout.blocks,
                "images_per_block": batch,
                "cpu_seconds_job": round(whole, 2),
                "cpu_seconds_reading": round(reading, 3),
                "cpu_seconds_writing": round(writing, 3),
                "reading_and_writing_percent": round(100 * (reading + writing) / whole, 2),
                "blocks_per_second": speed,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
