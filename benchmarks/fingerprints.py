"""What it costs to know what each block was made from, for a million small images.

    python benchmarks/fingerprints.py --folder /tmp/fingerprints --chunk 4096
    python benchmarks/fingerprints.py --folder /tmp/fingerprints --chunk 16

No network is run over the images: the output gets chunks and records as a run would write them.
Measured are the CPU seconds that a run needs to look at the images, to make the digests for all
records, and to compare all records, and a whole second run that finds nothing to do, by the CPU
and by the clock.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import zarr
from models import TinyNet

from fcdcc.pipeline import JobConfig, run
from fcdcc.storage import BlockRecord, open_images, open_predictions, resize_predictions
from fcdcc.storage.block_inputs import INPUT
from fcdcc.storage.chunk_listing import list_chunks
from fcdcc.storage.chunks import encode
from fcdcc.storage.input_state import InputState
from fcdcc.storage.records import RECORDS, Chunk

SHAPE = (1, 8, 8)
BATCH = 64


def make_images(stored: Path, images: int, chunk: int) -> None:
    """Write images with names; every chunk but the first is a copy of it."""
    group = zarr.create_group(stored)
    array = group.create_array(
        "image", shape=(images, *SHAPE), chunks=(chunk, *SHAPE), dtype="uint8",
        dimension_names=["n", "c", "y", "x"],
    )  # fmt: skip
    ids = group.create_array(
        "image_id", shape=(images,), chunks=(65536,), dtype=str, dimension_names=["n"]
    )
    names = [f"folder-{image % 100:02}/picture-{image:07}.png" for image in range(images)]
    ids[:] = np.array(names, dtype=object)
    random = np.random.default_rng(0)
    array[:chunk] = random.integers(0, 256, (chunk, *SHAPE), np.uint8)
    data = (stored / "image/c/0/0/0/0").read_bytes()
    for number in range(1, -(-images // chunk)):
        folder = stored / f"image/c/{number}/0/0"
        folder.mkdir(parents=True)
        (folder / "0").write_bytes(data)


def make_output(job: JobConfig, images: int) -> float:
    """Write the output as if a run had been over all images; return the seconds of the digests."""
    run(job.model_copy(update={"limit": BATCH}))
    source = open_images(job.input, expect=(None, *SHAPE))
    labels = source.ids()
    store = resize_predictions(job.output, images, [] if labels is None else [labels])
    state = InputState(source, list_chunks(source))
    array, output, lines, seconds = store.arrays[0], Path(job.output), [], 0.0
    data = next(iter(encode(array, 0, BATCH, np.zeros((BATCH, 10), np.float32)).values()))
    chunk = Chunk.of(data)
    for block in range(store.layout.blocks):
        start, stop = store.layout.bounds(block)
        began = time.process_time()
        found = state.block_input(start, stop).as_json()
        seconds += time.process_time() - began
        [name] = array.chunk_names(block, BATCH)
        (output / name).write_bytes(data)
        record = BlockRecord(
            block, start, stop, "done", store.fingerprint, {name: chunk}, details={INPUT: found}
        )
        lines.append(record.to_bytes() + b"\n")
    (output / RECORDS / f"{0:08}.json").unlink()
    (output / RECORDS / "segment-000001.jsonl").write_bytes(b"".join(lines))
    return seconds


def main() -> None:
    """Measure and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--chunk", type=int, default=4096, help="images per chunk of the input")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    folder, images = arguments.folder, arguments.images
    folder.mkdir(parents=True, exist_ok=True)
    model, stored = folder / "tiny.pt2", folder / f"images-{images}-{arguments.chunk}.zarr"
    batch = {0: torch.export.Dim("batch")}
    example = (torch.zeros(2, *SHAPE),)
    program = torch.export.export(TinyNet().eval(), example, dynamic_shapes=(batch,))
    torch.export.save(program, model)
    if not stored.exists():
        make_images(stored, images, arguments.chunk)
    job = JobConfig(
        model=str(model), input=str(stored), batch=BATCH, workers=1, dashboard_address=":0",
        output=str(folder / f"out-{images}-{arguments.chunk}-{time.time_ns()}.zarr"),
    )  # fmt: skip
    making = make_output(job, images)
    source = open_images(stored, expect=(None, *SHAPE))
    began = time.process_time()
    listing = list_chunks(source)
    listed = time.process_time()
    state = InputState(source, listing)
    looked = time.process_time()
    progress = open_predictions(job.output).progress()
    read = time.process_time()
    blocks = np.flatnonzero(progress.done).tolist()
    layout = open_predictions(job.output).layout
    found = state.compare(progress.inputs, layout, blocks, {})
    compared = time.process_time()
    clock = time.perf_counter()
    again = run(job)
    seconds = time.perf_counter() - clock
    ended = time.process_time()
    assert not found.changed
    assert again.blocks_done == 0
    print(
        json.dumps(
            {
                "images": images,
                "images_per_chunk": arguments.chunk,
                "blocks": layout.blocks,
                "cpu_seconds_to_list_chunks": round(listed - began, 2),
                "cpu_seconds_to_read_ids": round(looked - listed, 2),
                "cpu_seconds_to_make_digests": round(making, 2),
                "cpu_seconds_to_read_records": round(read - looked, 2),
                "cpu_seconds_to_compare": round(compared - read, 2),
                "cpu_seconds_of_second_run": round(ended - compared, 2),
                "seconds_of_second_run": round(seconds, 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
