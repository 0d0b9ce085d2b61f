"""Class folders and classes of a network that are numbered differently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.jobs import fcdcc


@pytest.mark.parametrize(
    ("classes", "warned"),
    [
        ("dogs\nbirds", "(birds is folder 0 and class 1): compare names, not numbers"),
        ("birds\ncats", "dogs is a class folder of the images and no class of the network: all"),
        ("birds\ndogs", ""),
        ("one\ntwo", ""),
    ],
)
def test_a_run_warns_if_label_and_classes_have_other_orders(
    tmp_path: Path, classes: str, warned: str
) -> None:
    for number, name in enumerate(["birds", "dogs"]):
        (tmp_path / "photos" / name).mkdir(parents=True)
        pixels = np.full((16, 16, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / "a.png")
    assert fcdcc("ingest", tmp_path / "photos", tmp_path / "in.zarr").exit_code == 0
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    program = torch.export.export(network, (torch.zeros(2, 3, 16, 16),), strict=False)
    torch.export.save(program, tmp_path / "net.pt2")
    (tmp_path / "classes.txt").write_text(classes)
    done = fcdcc(
        "run", tmp_path / "net.pt2", tmp_path / "in.zarr", tmp_path / "out.zarr", "--workers", 1,
        "--classes", tmp_path / "classes.txt", "--head", "logits", "--no-progress",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert warned in " ".join(done.output.split())
    assert ("class folder" in done.output) == bool(warned)
