"""Files of several releases of PyTorch are read, and their networks compute what PyTorch does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fcdcc.pipeline import infer, open_model

ROOT = Path(__file__).parents[3]
FILES = sorted((Path(__file__).parent / "data").glob("network-*.pt2"))


def exporter() -> ModuleType:
    """The program that made the files."""
    spec = importlib.util.spec_from_file_location("exporter", ROOT / "tools/export_for_release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_file_of_every_release_since_2_9() -> None:
    versions = [path.stem.removeprefix("network-") for path in FILES]
    minors = {tuple(map(int, version.split(".")[:2])) for version in versions}
    assert minors >= {(2, minor) for minor in range(9, 16)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_another_release_is_read(path: Path) -> None:
    program = exporter()
    images = np.random.default_rng(0).random((5, 3, program.SIZE, program.SIZE), np.float32)
    with torch.inference_mode():
        expected = program.network()(torch.from_numpy(images)).numpy()
    found = infer(open_model(path), images, n=6, tolerate=2).compute(scheduler="sync")
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
