"""The work of each stage of a network for one image, found without computing values."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ...model.interpreter import network_shapes, run_steps
from ...model.network import ConvStage, GlueStage, Network
from ...plans.forecast import Work, convolution_work

SLOW_OPERATIONS = ("pool", "upsample", "softmax")
"""Words in the names of operations that take :data:`SLOW_FACTOR` times as long for a byte."""

SLOW_FACTOR = 10.0
"""How many times as long as a copy windows and resampling take for a byte (measured on one core:
1 to 1.6 GB/s, where sums and concatenations have 36 to 45)."""

CHANNEL_BLOCK = 16
"""Channels that a convolution computes together; fewer take as long (benchmarks/operations.py)."""

PROFILED_BATCH = 2
"""Images that a network is profiled with, if its batch is not fixed."""


@dataclass(frozen=True)
class Profile:
    """The quantities of a network that the cost model uses.

    Parameters
    ----------
    image_bytes
        Bytes of every value that passes between stages, for one image.
    shapes
        Of these values, for :data:`PROFILED_BATCH` images or the network's fixed batch.
    work
        Of every stage, for one image.
    workspace
        Bytes that a stage needs at most for what it reads and makes, for one image.
    weights
        Bytes of all weights.
    itemsize
        Bytes of a number.
    """

    image_bytes: Mapping[str, float]
    shapes: Mapping[str, tuple[int, ...]]
    work: Mapping[int, Work]
    workspace: Mapping[int, float]
    weights: int
    itemsize: int

    def rows(self, name: str, axis: int) -> int:
        """Return how many rows a value has."""
        return self.shapes[name][axis]


@lru_cache(maxsize=4)
def profile_network(network: Network, image_shape: tuple[int, ...]) -> Profile:
    """Return the profile of a network for an image of shape (C, *space).

    Raises
    ------
    ModelError
        If the network does not take such images.
    """
    batch = network.input_shape[0] or PROFILED_BATCH
    shapes = network_shapes(network, (batch, *image_shape))
    itemsize = network.input_dtype.itemsize
    image_bytes = {name: prod(shape) * itemsize / batch for name, shape in shapes.items()}
    meta = {name: tensor.to("meta") for name, tensor in network.tensors.items()}
    work, workspace = {}, {}
    for stage in network.stages:
        if isinstance(stage, ConvStage):
            weight = network.tensors[stage.weight]
            made = prod(shapes[stage.output]) / batch
            touched = image_bytes[stage.input] + image_bytes[stage.output]
            fixed = weight.numel() * itemsize
            adds = made * prod(weight.shape[1:])
            work[stage.index] = convolution_work(adds, touched, fixed)
            workspace[stage.index] = touched + _ordered(
                image_bytes[stage.input], image_bytes[stage.output], weight.shape[0]
            )
        else:
            inputs = {
                name: torch.empty(shapes[name], dtype=network.input_dtype, device="meta")
                for name in stage.inputs
            }
            work[stage.index], workspace[stage.index] = _metered(stage, inputs, meta, batch)
    weights = sum(tensor.numel() * tensor.itemsize for tensor in network.tensors.values())
    return Profile(image_bytes, shapes, work, workspace, weights, itemsize)


def _metered(
    stage: GlueStage,
    inputs: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    batch: int,
) -> tuple[Work, float]:
    """Return the work of glue for an image, and the most bytes that it needs at once."""
    meter = _Meter(tensors.values(), sum(map(_bytes, inputs.values())))
    with meter:
        run_steps(stage, inputs, tensors)
    work = Work(meter.multiply_adds / batch, meter.touched / batch, meter.fixed)
    return work, meter.peak / batch


def _ordered(given: float, made: float, channels: int) -> float:
    """Return the bytes of a convolution's inputs and outputs in the layout that it computes in."""
    return given + made * (-(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK / max(channels, 1))


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch has no types there
    """Adds up the work of the operations that run under it."""

    def __init__(self, weights: Iterable[torch.Tensor], given: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.multiply_adds = self.touched = self.fixed = 0.0
        self.peak = self._bytes_alive = float(given)
        self._weights = {_storage(weight) for weight in weights}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.is_view:
            return out
        slow = SLOW_FACTOR if any(word in str(func) for word in SLOW_OPERATIONS) else 1.0
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.touched += slow * sum(map(_bytes, made))
        for leaf in made:
            self._count(leaf)
        for leaf in tree_leaves((args, kwargs)):
            if not isinstance(leaf, torch.Tensor):
                continue
            if _storage(leaf) in self._weights:
                self.fixed += _bytes(leaf)
            else:
                self.touched += slow * _bytes(leaf)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.multiply_adds += count(*args, **kwargs, out_val=out) / 2
            if "conv" in str(func):
                own = _ordered(_bytes(args[0]), _bytes(out), out.shape[1])
                self.peak = max(self.peak, self._bytes_alive + own)
        return out

    def _count(self, made: torch.Tensor) -> None:
        """Count the memory of a result until it is freed."""
        size = _bytes(made)
        self._bytes_alive += size
        self.peak = max(self.peak, self._bytes_alive)
        weakref.finalize(made, self._release, size)

    def _release(self, size: int) -> None:
        self._bytes_alive -= size


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.itemsize


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
