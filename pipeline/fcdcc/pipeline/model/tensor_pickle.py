"""Tensors as plain arrays of bytes, to send between processes and to hash.

PyTorch's own pickling copies each tensor, with its whole storage, into a file in memory.
Here a tensor becomes a NumPy array over its elements. Pickle protocol 5 sends such an array
as an out-of-band buffer where the transport supports it (Dask's does), without a copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

PackedTensors = list[tuple[tuple[str, ...], torch.dtype, tuple[int, ...], NDArray[np.uint8]]]


def tensor_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor's elements in order, without a copy where possible."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array


def pack_tensors(tensors: Mapping[str, torch.Tensor]) -> PackedTensors:
    """Return the tensors as arrays; a tensor with several names is packed once."""
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

    They share the memory of the arrays that are writeable.
    """
    tensors: dict[str, torch.Tensor] = {}
    for names, dtype, shape, array in packed:
        owned = array if array.flags.writeable else array.copy()
        tensor = torch.from_numpy(owned).view(dtype).reshape(shape)
        tensors.update(dict.fromkeys(names, tensor))
    return tensors


def hash_tensors(digest: hashlib._Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    """Add the names, types, shapes and elements of tensors to a hash."""
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor).data)
