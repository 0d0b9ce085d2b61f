"""A network of each family: exported and run by the commands, two of six shares erased.

The networks of libraries are run in the same way by ``benchmarks/library_networks.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import zarr

import zoo
from support.erasing import erased_runs
from support.jobs import fcdcc, predictions
from support.planned import usual_plans

FAMILIES = {
    "plain convolutions": "squeezenet",
    "residual": "resnet18",
    "dense": "densenet",
    "mobile": "mobilenet_v3",
    "modern convolutions": "convnext",
    "vision transformer": "vision_transformer",
    "transformer with stages": "swin",
    "hybrid": "hybrid",
    "mixers": "mixer",
    "segmentation": "unet",
    "detection": "feature_pyramid",
    "video": "video",
}

SHORT = ("vision transformer", "video")
"""The families that are tested in the usual suite, too; ``graph/test_networks.py`` has networks of
all of them there, without the commands."""

IMAGES = 4


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a function for each network."""
    module = ModuleType("nets_of_families")
    for name, entry in zoo.ZOO.items():
        members = {"input_shape": list(entry.input_shape)}
        setattr(module, name, lambda entry=entry, members=members: (zoo.build(entry), members))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


@pytest.mark.cluster
@pytest.mark.parametrize(
    "family",
    [f if f in SHORT else pytest.param(f, marks=pytest.mark.long) for f in FAMILIES],
)
def test_exported_and_run_with_two_of_six_shares_erased(
    family: str, nets: str, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = FAMILIES[family]
    entry = zoo.ZOO[name]
    pixels = zoo.images(entry, IMAGES)
    group = zarr.create_group(tmp_path / "images.zarr")
    group.create_array("image", data=pixels.numpy(), chunks=pixels.shape)
    exported = fcdcc("export", f"{nets}:{name}", tmp_path / "model.pt2")
    assert exported.exit_code == 0, exported.output
    usual_plans(monkeypatch)
    options = ["--n", 6, "--tolerate", 2, "--batch", IMAGES, "--split", "images"]
    places = [tmp_path / name for name in ("model.pt2", "images.zarr", "out.zarr")]
    with erased_runs(2, seed=5) as groups:
        done = fcdcc("run", *places, "--scheduler", scheduler, "--no-progress", *options)
    assert done.exit_code == 0, done.output
    assert min(groups) >= 1
    made = predictions(tmp_path / "out.zarr")
    with torch.no_grad():
        expected = zoo.build(entry)(pixels).numpy()
    assert np.linalg.norm(made - expected) <= 1e-5 * np.linalg.norm(expected)
    np.testing.assert_array_equal(made.argmax(1), expected.argmax(1))
