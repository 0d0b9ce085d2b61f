"""A small network and small images in files, for tests of whole jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import nn

IMAGES = 50
SHAPE = (3, 16, 16)


class SmallNet(nn.Module):
    """Two convolutions, a residual sum and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.first(x))
        second = torch.relu(self.second(first) + first)
        return self.head(torch.max_pool2d(second, 2).flatten(1))


@dataclass(frozen=True)
class Files:
    """A model, images, and what PyTorch alone makes of them."""

    model: Path
    images: Path
    expected: NDArray[np.float32]


def make_files(
    folder: Path,
    images: int = IMAGES,
    make: Callable[[], nn.Module] = SmallNet,
    fixed_batch: int | None = None,
) -> Files:
    """Write a network as .pt2 and images as bytes in a Zarr group.

    With ``fixed_batch`` the network is exported for so many images and no other number.
    """
    torch.manual_seed(11)
    module = make().eval()
    batch = {0: torch.export.Dim("batch")} if fixed_batch is None else None
    example = torch.zeros(fixed_batch or 2, *SHAPE)
    program = torch.export.export(module, (example,), dynamic_shapes=(batch,))
    model = folder / "small.pt2"
    torch.export.save(program, model)
    pixels = np.random.default_rng(5).integers(0, 256, (images, *SHAPE), dtype=np.uint8)
    stored = folder / "images.zarr"
    group = zarr.create_group(stored)
    group.create_array("image", data=pixels, chunks=(8, *SHAPE), dimension_names=list("ncyx"))
    with torch.inference_mode():
        expected = module(torch.from_numpy(pixels).float() / 255).numpy()
    return Files(model, stored, expected)
