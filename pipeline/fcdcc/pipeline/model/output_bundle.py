"""Several outputs of a network as one value: the bytes of all of them, image by image.

Every form of a block's graph, every engine and the cost model handle networks with one output, one
entry for each image along its first axis. A network with several outputs ends in one step that
puts their bytes side by side; the task that writes a block takes them apart. Nothing is rounded,
whatever types the outputs have.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

BUNDLE = "fcdcc.bundle.default"
"""The operator that makes the value. It is no operator that a model file may name."""

SINGLE_OUTPUT = "prediction"
"""Name of the output of a program that just returns a tensor."""


def bundle(
    *outputs: torch.Tensor,
    names: Sequence[str] = (),  # noqa: ARG001 - Network.outputs reads it in the step
) -> torch.Tensor:
    """Return the bytes of some outputs side by side, (images, bytes) uint8.

    Parameters
    ----------
    *outputs
        (images, …) of any types.
    names
        What the outputs are called.

    >>> bundle(torch.tensor([1.0, 2.0]), torch.tensor([[True, False], [True, True]])).shape
    torch.Size([2, 6])
    """
    flat = [output.reshape(len(output), prod(output.shape[1:])) for output in outputs]
    return torch.cat([values.contiguous().view(torch.uint8) for values in flat], dim=1)


def taken_apart(
    values: NDArray[np.uint8], forms: Sequence[tuple[tuple[int, ...], str]]
) -> list[NDArray[Any]]:
    """Return the outputs in a value that :func:`bundle` made.

    Parameters
    ----------
    values
        (images, bytes) uint8.
    forms
        The shape of each output for one image, and its type by NumPy's name.

    >>> first, second = torch.tensor([1.0, 2.0]), torch.tensor([[3, 4], [5, 6]])
    >>> taken_apart(bundle(first, second).numpy(), [((), "float32"), ((2,), "int64")])[1]
    array([[3, 4],
           [5, 6]])
    """
    found, start = [], 0
    for shape, dtype in forms:
        size = prod(shape) * np.dtype(dtype).itemsize
        part = np.ascontiguousarray(values[:, start : start + size])
        found.append(part.view(dtype).reshape(len(values), *shape))
        start += size
    return found
