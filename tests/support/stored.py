"""Small inputs and outputs for the tests of what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fcdcc.storage import Fingerprint, OutputArray, PredictionStore, create_predictions
from fcdcc.storage.checksummed_json import seal

LOGITS = OutputArray("prediction", (5,), "float32", ("class",))
FINGERPRINT = Fingerprint.of({"model": "1f3a", "preparation": {"scale": "auto", "mean": []}})


def write_images(
    url: str, shape: tuple[int, ...], dtype: str = "uint8", path: str = "", **options: Any
) -> NDArray[Any]:
    """Store random images as an array, or as one in a group, and return them."""
    values = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    if path:
        group = zarr.open_group(url, mode="a", zarr_format=options.pop("zarr_format", 3))
        array = group.create_array(path, shape=shape, dtype=dtype, **options)
    else:
        array = zarr.create_array(url, shape=shape, dtype=dtype, **options)
    array[...] = values
    return values


def make_output(url: str, images: int = 10, batch: int = 4, **options: Any) -> PredictionStore:
    """Create an output without any block in it."""
    options = {"arrays": [LOGITS], "fingerprint": FINGERPRINT} | options
    return create_predictions(url, images=images, batch=batch, **options)


def answers(store: PredictionStore, block: int) -> NDArray[np.float32]:
    """Return predictions that differ for each image, the same each time."""
    start, stop = store.layout.bounds(block)
    return np.add.outer(np.arange(start, stop), np.arange(5) / 8).astype(np.float32)


def fill(store: PredictionStore) -> list[int]:
    """Write every block that is not done and return which these were."""
    progress = store.progress()
    store.clear(progress)
    for block in progress.pending:
        store.write(block, answers(store, block))
    return progress.pending


def write_journal(output: Path, name: str, members: dict[str, Any], **changes: Any) -> None:
    """Put the record of a run beside an output."""
    file = output / ".fcdcc" / "runs" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(seal(members | changes) + b"\n")
