"""Hashes of networks: equal hashes compute the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from .network import ConvStage, Stage

__all__ = ["network_fingerprint", "tensor_bytes"]


def network_fingerprint(
    stages: Iterable[Stage], input_name: str, output: str, tensors: Mapping[str, torch.Tensor]
) -> str:
    """Return the SHA-256, in hexadecimal, of a network's stages and tensors.

    The names that modules have for people do not matter.
    """
    digest = hashlib.sha256(f"{input_name} {output}\n".encode())
    for stage in stages:
        if isinstance(stage, ConvStage):
            stage = replace(stage, name="")
        digest.update(f"{stage!r}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor's elements in order, without a copy where that can be."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
