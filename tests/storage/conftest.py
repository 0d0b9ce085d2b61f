"""Places to read from and write to: a local folder and an object store in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A location of either kind, under which nothing is."""
    if request.param == "local":
        yield str(tmp_path)
        return
    root = f"memory://{uuid.uuid4().hex}"
    yield root
    files = fsspec.filesystem("memory")
    if files.exists(root):
        files.rm(root, recursive=True)
