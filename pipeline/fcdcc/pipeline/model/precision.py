"""A network in another precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..errors import ModelError
from .fingerprints import network_fingerprint
from .network import ConvStage, Network, Stage, Step
from .rewriting import convert

_PRECISIONS = (torch.float32, torch.float64)


def in_precision(network: Network, dtype: torch.dtype) -> Network:
    """Return a network that computes in float32 or float64.

    Tensors and casts of the network's own precision change with it; what it computes in
    another one on purpose stays.

    Raises
    ------
    ModelError
        If ``dtype`` is another type.
    """
    if dtype not in _PRECISIONS:
        raise ModelError(f"a network in {dtype}; expected torch.float32 or torch.float64")
    own = network.input_dtype
    if dtype == own:
        return network

    def converted(value: Any) -> Any:
        return dtype if value is own else value

    def stage_in_precision(stage: Stage) -> Stage:
        if isinstance(stage, ConvStage):
            return stage
        steps = tuple(
            Step(s.name, s.op, convert(s.args, converted), convert(s.kwargs, converted))
            for s in stage.steps
        )
        return replace(stage, steps=steps)

    stages = tuple(stage_in_precision(stage) for stage in network.stages)
    tensors = {
        name: tensor.to(dtype) if tensor.dtype == own else tensor
        for name, tensor in network.tensors.items()
    }
    return replace(
        network,
        stages=stages,
        tensors=tensors,
        input_dtype=dtype,
        fingerprint=network_fingerprint(stages, network.input, network.output, tensors),
    )
