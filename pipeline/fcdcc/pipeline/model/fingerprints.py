"""Hashes of networks: equal hashes compute the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from .network import ConvStage, Stage
from .pt2.archive import Archive, Json
from .tensor_pickle import tensor_bytes

# Fields of a model's JSON that do not say what it computes.
_BESIDE = frozenset({"metadata", "hint", "requires_grad", "device", "is_hop_single_tensor_return"})


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
    _add_tensors(digest, tensors)
    return digest.hexdigest()


def archive_fingerprint(archive: Archive) -> str:
    """Return the SHA-256, in hexadecimal, of what a model file says and holds.

    It stays the same when the same model is exported again, and when this project learns to
    import models differently: where code came from, example sizes and versions are left out.
    """
    graph = archive.program["graph_module"]
    said = {"graph": _bare(graph["graph"]), "signature": _bare(graph["signature"])}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    _add_tensors(digest, archive.tensors)
    return digest.hexdigest()


def _add_tensors(digest: hashlib._Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor).data)


def _bare(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items() if key not in _BESIDE}
    if isinstance(value, list):
        return [_bare(inner) for inner in value]
    return value
