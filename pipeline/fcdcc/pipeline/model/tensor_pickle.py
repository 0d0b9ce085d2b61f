"""Tensors as plain arrays of bytes, for travelling between processes.

PyTorch's own pickling copies each tensor into a file in memory, its whole storage with it.
Here a tensor becomes a NumPy array over its elements, which pickle hands over as a buffer of
its own where the transport can (Dask's can), so nothing is copied on the way out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

PackedTensors = list[tuple[tuple[str, ...], torch.dtype, tuple[int, ...], NDArray[np.uint8]]]


def tensor_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor's elements in order, without a copy where that can be."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array


def pack_tensors(tensors: Mapping[str, torch.Tensor]) -> PackedTensors:
    """Return the tensors as arrays; one that has several names is there once."""
    names: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        names.setdefault(place if tensor.numel() else (name,), []).append(name)
    packed: PackedTensors = []
    for same in names.values():
        tensor = tensors[same[0]]
        packed.append((tuple(same), tensor.dtype, tuple(tensor.shape), tensor_bytes(tensor)))
    return packed


def unpack_tensors(packed: PackedTensors) -> dict[str, torch.Tensor]:
    """Return the tensors by name, on the CPU: the inverse of :func:`pack_tensors`.

    They lie in the arrays' own memory where that may be written to.
    """
    tensors: dict[str, torch.Tensor] = {}
    for names, dtype, shape, array in packed:
        owned = array if array.flags.writeable else array.copy()
        tensor = torch.from_numpy(owned).view(dtype).reshape(shape)
        tensors.update(dict.fromkeys(names, tensor))
    return tensors
