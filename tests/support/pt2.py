"""Model files in memory, for tests of the model import."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

ROOT = "archive/"
GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
EXAMPLES = "data/sample_inputs/model.pt"


def pt2(
    module: nn.Module, shape: tuple[int, ...], dynamic: Mapping[int, Any] | bool = True
) -> bytes:
    """Return the .pt2 file of a module for images of a shape (batch, C, *space).

    ``dynamic`` is true for a dynamic batch, false for none, or the dynamic axes.
    """
    axes = {0: torch.export.Dim("batch")} if dynamic is True else dynamic or None
    with warnings.catch_warnings():
        # PyTorch says once per process that uneven 'same' padding may copy its input.
        warnings.filterwarnings("ignore", "Using padding='same'", UserWarning)
        # And of recurrent layers that they hold their weights twice.
        warnings.filterwarnings("ignore", "The tensor attributes self", UserWarning)
        program = torch.export.export(
            module, (torch.zeros(shape),), dynamic_shapes=None if axes is None else (dict(axes),)
        )
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Said of buffers that are all slices of a larger tensor.
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
        torch.export.save(program, file)
    return file.getvalue()


def records(data: bytes) -> dict[str, bytes]:
    """Return a file's records by name, without the leading folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.removeprefix(ROOT): archive.read(name) for name in archive.namelist()}


def packed(
    contents: Mapping[str, bytes] | Iterable[tuple[str, bytes]],
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """Return a file of these records, in the way of torch.export.save."""
    file = io.BytesIO()
    items = contents.items() if isinstance(contents, Mapping) else contents
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in items:
            archive.writestr(ROOT + name, content)
    return file.getvalue()


def edited(data: bytes, name: str, edit: Callable[[Any], Any]) -> bytes:
    """Return a file with one JSON record changed in place by a function."""
    contents = records(data)
    value = json.loads(contents[name])
    edit(value)
    contents[name] = json.dumps(value).encode()
    return packed(contents)
