"""How often a job reads and unpacks the stored chunks of its images."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import nn
from zarr.storage import LocalStore

from fcdcc.pipeline import JobConfig, run
from fcdcc.storage import input_state
from support.jobs import predictions

pytestmark = pytest.mark.cluster

IMAGES = 600
SHAPE = (1, 12, 10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(),
        nn.Linear(4 * 10 * 8, 3),
    ).eval()  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "model.pt2"
    dims = ({0: torch.export.Dim("batch")},)
    torch.export.save(
        torch.export.export(net, (torch.zeros(2, *SHAPE),), dynamic_shapes=dims), path
    )
    return path, net


@pytest.fixture(scope="module", params=[1, pytest.param(16, marks=pytest.mark.long), 111, 512])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray[Any, Any]]:
    folder = tmp_path_factory.mktemp("images") / "images.zarr"
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *SHAPE), np.uint8)
    array = zarr.create_array(
        folder, shape=images.shape, dtype="uint8", chunks=(request.param, *SHAPE),
        dimension_names=("n", "c", "y", "x"),
    )  # fmt: skip
    array[:] = images
    return folder, images


class Reads:
    """Counts the bytes that are read of every chunk of a local store."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.bytes: Counter[str] = Counter()
        self.stored = sum(
            file.stat().st_size for file in (folder / "c").rglob("*") if file.is_file()
        )
        get = LocalStore.get

        async def counting(store: LocalStore, key: str, *rest: Any, **options: Any) -> Any:
            found = await get(store, key, *rest, **options)
            if found is not None and store.root == folder and key.startswith("c/"):
                self.bytes[key] += len(found)
            return found

        patch.setattr(LocalStore, "get", counting)


@pytest.mark.parametrize(
    "options",
    [{}, {"n": 2, "tolerate": 1}, {"batch": 7, "split": "rows"}, {"batch": 50, "code": "crme"}],
    ids=["defaults", "two shares", "rows, 7 images", "gathered, 50 images"],
)
def test_every_stored_chunk_is_read_once(
    model: tuple[Path, nn.Module],
    stored: tuple[Path, np.ndarray[Any, Any]],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, images = stored
    # Of a small input, and of what has just been written, the run also reads the pixels to know
    # them again: not of this one.
    monkeypatch.setattr(input_state, "MAX_SMALL_BYTES", 0)
    monkeypatch.setattr(input_state, "MAX_LAST_CHUNK_BYTES", 0)
    for file in folder.rglob("*"):
        os.utime(file, (1e9, 1e9))
    reads = Reads(monkeypatch, folder)
    summary = run(
        JobConfig(
            model=str(model[0]), input=str(folder), output=str(tmp_path / "out.zarr"),
            processes=False, workers=3, dashboard_address=":0", progress=False, **options,
        )
    )  # fmt: skip
    assert summary.status == "complete"
    with torch.inference_mode():
        expected = model[1](torch.from_numpy(images).to(torch.float32) / 255).numpy()
    np.testing.assert_allclose(predictions(tmp_path / "out.zarr"), expected, atol=1e-5)
    # The run also looks at one chunk before it starts, to say what its values become.
    looked_at = (folder / "c/0/0/0/0").stat().st_size
    read = sum(reads.bytes.values()) - looked_at
    assert read <= 1.1 * reads.stored, reads.bytes.most_common(3)
