"""Faults as bad hardware makes them, to be injected into tensors of a test.

Every function changes a tensor in place, in any memory layout, and takes the random numbers that
it needs from a generator.
"""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["FAULTS", "flip_bit", "repeat_row", "stick_lane", "take_stale"]

LANES = 16
"""Numbers that one vector instruction computes at once."""

_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}


def flip_bit(values: torch.Tensor, rng: np.random.Generator, bit: int | None = None) -> None:
    """Flip one bit of one element.

    Parameters
    ----------
    values
        float32, float64 or bfloat16.
    bit
        Its number, 0 for the least significant one; by default a random one.
    """
    integers = _INTEGERS[values.dtype]
    bits = torch.iinfo(integers).bits
    bit = int(rng.integers(bits)) if bit is None else bit
    place = tuple(int(rng.integers(size)) for size in values.shape)
    mask = torch.tensor(1 << bit if bit < bits - 1 else torch.iinfo(integers).min, dtype=integers)
    element = values[place].reshape(1).contiguous().view(integers)
    values[place] = (element ^ mask).view(values.dtype)[0]


def stick_lane(values: torch.Tensor, rng: np.random.Generator) -> None:
    """Give every sixteenth element in memory the value of the first of them."""
    flat = values.as_strided((values.numel(),), (1,), values.storage_offset())
    lane = int(rng.integers(min(LANES, max(len(flat), 1))))
    flat[lane::LANES] = flat[lane].clone()


def repeat_row(values: torch.Tensor, rng: np.random.Generator) -> None:
    """Replace one row, of the first spatial axis of (images, C, *space), by its neighbour."""
    rows = values.shape[2]
    row = int(rng.integers(rows))
    values[:, :, row] = values[:, :, (row + 1) % rows].clone()


def take_stale(values: torch.Tensor, rng: np.random.Generator) -> None:
    """Replace the values of one image by other numbers of the same distribution."""
    image = int(rng.integers(len(values)))
    flat = values[image].flatten()
    order = torch.from_numpy(rng.permutation(len(flat)))
    values[image] = flat[order].reshape(values[image].shape)


FAULTS = {
    "bit": flip_bit,
    "lane": stick_lane,
    "row": repeat_row,
    "stale": take_stale,
}
"""The faults by name."""
