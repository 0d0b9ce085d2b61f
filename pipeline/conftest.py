"""What the examples in docstrings stand on: a model and images in files, and a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with ``model.pt2`` and twenty images of 3 × 16 × 16 in ``images.zarr``."""
    import numpy as np
    import torch
    import zarr

    folder = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.Flatten(),
        torch.nn.Linear(2048, 10),
    ).eval()
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(network, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "model.pt2")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
    zarr.create_group(folder / "images.zarr").create_array("image", data=pixels)
    return folder


@pytest.fixture(scope="session")
def example_client() -> Iterator[Any]:
    """Connect a client to a cluster of two workers that are threads of this process."""
    from distributed import Client, LocalCluster

    options: dict[str, Any] = {"processes": False, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def surroundings_of_examples(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    doctest_namespace: dict[str, Any],
) -> None:
    """Give an example the files that it opens and the client that it names."""
    examples = getattr(getattr(request.node, "dtest", None), "examples", ())
    source = "".join(example.source for example in examples)
    if "model.pt2" in source:
        monkeypatch.chdir(request.getfixturevalue("example_folder"))
    if "client" in source:
        doctest_namespace["client"] = request.getfixturevalue("example_client")
