"""Convolutions of a worker: by PyTorch's public operators, or packed for oneDNN.

A packed convolution calls internal operators of PyTorch (``torch.ops.mkldnn``). Before they are
used the first time, :func:`fused_is_available` checks on small tensors that they give the answers
of the public operators.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..model.network import ConvStage

logger = logging.getLogger(__name__)

MAX_PACKED_COPIES = 2
"""Packed copies of one weight that are kept: for full batches, and for the last of a block, if
oneDNN prefers different layouts for them."""

MAX_PACKED_SHAPES = 8
"""Shapes of the input of one convolution for which the packed weight is known."""

CONTRACT_TOLERANCE = 1e-4
"""Largest difference from the public operators, relative to the largest value, that the check
of the fused operators accepts on its small tensors."""

_INTERNAL: Any = torch._C
"""PyTorch's compiled module. It has no type here: PyTorch's stubs lack its ``_nn`` and an
argument of the function that packs weights."""


@dataclass(frozen=True)
class FusedActivation:
    """An activation as oneDNN's fused convolution names it."""

    name: str
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


NO_ACTIVATION = FusedActivation("none")

RELU = FusedActivation("relu")

ACTIVATIONS = {
    "aten.relu.default": "relu",
    "aten.sigmoid.default": "sigmoid",
    "aten.tanh.default": "tanh",
    "aten.silu.default": "swish",
    "aten.hardswish.default": "hardswish",
    "aten.hardsigmoid.default": "hardsigmoid",
}
"""Activations without parameters, by their names in a network and in oneDNN."""


class PackedWeights:
    """The weights of a network in the layouts that oneDNN prefers, for all programs of a process.

    A layout may depend on the sizes of the input, so a weight is packed when the first batch
    arrives, and again for a batch of another shape. If that has the same layout, which is usual,
    both use one copy.
    """

    def __init__(self) -> None:
        self._by_weight: dict[tuple[Any, ...], dict[tuple[int, ...], Tensor]] = {}
        self._lock = threading.Lock()

    def packed(
        self,
        name: str,
        weight: Tensor,
        geometry: tuple[list[int], list[int], list[int], int],
        shape: tuple[int, ...],
    ) -> Tensor:
        """Return a weight (N, C / groups, H, W) as oneDNN prefers it for inputs of this shape.

        ``name`` is that of the weight, and ``geometry`` padding, stride, dilation and groups of its
        convolution.
        """
        padding, stride, dilation, groups = geometry
        key = (name, *map(tuple, geometry[:3]), groups)
        with self._lock:
            known = self._by_weight.setdefault(key, {})
            found = known.get(shape)
            if found is None:
                found = _INTERNAL._nn.mkldnn_reorder_conv2d_weight(
                    weight.to_mkldnn(), padding, stride, dilation, groups, list(shape)
                )
                for other in known.values():
                    if _is_same_memory(other, found):
                        found = other
                        break
                known[shape] = found
                while (
                    len({id(copy) for copy in known.values()}) > MAX_PACKED_COPIES
                    or len(known) > MAX_PACKED_SHAPES
                ):
                    del known[next(iter(known))]
        return found


def _is_same_memory(one: Tensor, other: Tensor) -> bool:
    """Return whether two packed weights have the same bytes, and so the same layout.

    False where this version of PyTorch cannot say where packed weights are.
    """
    try:
        first, second = (_bytes_of(tensor) for tensor in (one, other))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return np.array_equal(first, second)


def _bytes_of(packed: Tensor) -> NDArray[np.uint8]:
    """Return the memory of a packed weight, which must live as long as the result is used."""
    size, address = torch.ops.mkldnn._nbytes(packed), torch.ops.mkldnn.data_ptr(packed)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


class PackedConvolution:
    """A two-dimensional convolution with its weight in the layout that oneDNN prefers."""

    def __init__(
        self,
        stage: ConvStage,
        tensors: Mapping[str, Tensor],
        activation: FusedActivation,
        packed: PackedWeights,
    ) -> None:
        self._name, self._weight = stage.weight, tensors[stage.weight]
        self._bias = None if stage.bias is None else tensors[stage.bias]
        self._stride, self._dilation = list(stage.stride), list(stage.dilation)
        self._groups = stage.groups
        self._pad_before, self._padding = _paddings(stage)
        self._activation = activation
        self._packed = packed

    def __call__(self, value: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the convolution of (B, C, H, W), bias, residual and activation included."""
        if self._pad_before:
            value = functional.pad(value, self._pad_before)
        geometry = (self._padding, self._stride, self._dilation, self._groups)
        weight = self._packed.packed(self._name, self._weight, geometry, tuple(value.shape))
        activation = self._activation
        if residual is None:
            result: Tensor = torch.ops.mkldnn._convolution_pointwise(
                value, weight, self._bias, *geometry,
                activation.name, list(activation.scalars), activation.algorithm,
            )  # fmt: skip
            return result
        if residual.shape != self._output_shape(value.shape):  # the sum repeats an operand
            result = torch.ops.mkldnn._convolution_pointwise(
                value, weight, self._bias, *geometry, "none", [], ""
            )
            result = result + residual
            return functional.relu(result) if activation == RELU else result
        unary = None if activation == NO_ACTIVATION else activation.name
        residual = channels_last(residual)
        summed: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            value, residual, weight, self._bias, *geometry, "add", 1.0, unary, [], None
        )
        return summed

    def can_add(self, residual: Tensor, value: Tensor) -> bool:
        """Return whether a residual has the shape of the convolution of a value."""
        pairs = zip(self._pad_before[::-2], self._pad_before[-2::-2], strict=True)
        more = [before + after for before, after in pairs] or [0, 0]
        space = (size + added for size, added in zip(value.shape[2:], more, strict=True))
        return residual.shape == self._output_shape((*value.shape[:2], *space))

    def _output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the convolution of a value of this shape, padded before."""
        geometry = zip(
            shape[2:], self._weight.shape[2:], self._padding, self._stride, self._dilation,
            strict=True,
        )  # fmt: skip
        space = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, padding, stride, dilation in geometry
        )
        return (shape[0], self._weight.shape[0], *space)


def can_be_packed(stage: ConvStage, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the fused engine has a packed form of a convolution."""
    weight = tensors[stage.weight]
    return len(stage.stride) == 2 and weight.dtype == torch.float32 and weight.numel() > 0


def channels_last(value: Tensor) -> Tensor:
    """Return a value of four axes with its channels last in memory, others as they are."""
    if value.ndim != 4 or not value.is_floating_point():
        return value
    return value.contiguous(memory_format=torch.channels_last)


def convolve(stage: ConvStage, value: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return a convolution of (B, C, *space), bias included, by PyTorch's public operators."""
    pad_before, padding = _paddings(stage)
    if pad_before:
        value = functional.pad(value, pad_before)
    bias = None if stage.bias is None else tensors[stage.bias]
    return _CONVOLUTIONS[len(stage.stride)](
        value, tensors[stage.weight], bias, stage.stride, padding, stage.dilation, stage.groups
    )


_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}


def _paddings(stage: ConvStage) -> tuple[list[int], list[int]]:
    """Return what is padded before the convolution, as torch's pad takes it, and within it."""
    if all(before == after for before, after in stage.padding):
        return [], [before for before, _ in stage.padding]
    uneven = [size for pair in reversed(stage.padding) for size in pair]
    return uneven, [0] * len(stage.padding)


def activated(value: Tensor, activation: FusedActivation) -> Tensor:
    """Return an activation of a value that nothing else reads; the value may be changed."""
    if activation.name == "none":
        return value
    if activation.algorithm:
        return functional.gelu(value, approximate=activation.algorithm)
    return _IN_PLACE[activation.name](value, *activation.scalars)


def in_place(activation: FusedActivation) -> Callable[[Tensor], Tensor] | None:
    """Return what applies an activation in place; None for none, and if PyTorch has no such."""
    if activation.name not in _IN_PLACE:
        return None
    return partial(activated, activation=activation)


_IN_PLACE: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu_,
    "sigmoid": torch.sigmoid_,
    "tanh": torch.tanh_,
    "swish": partial(functional.silu, inplace=True),
    "hardswish": partial(functional.hardswish, inplace=True),
    "hardsigmoid": partial(functional.hardsigmoid, inplace=True),
    "hardtanh": functional.hardtanh_,
    "leaky_relu": functional.leaky_relu_,
}
"""Activations in place, by their names in oneDNN."""


@lru_cache(maxsize=1)
def fused_is_available() -> bool:
    """Return whether PyTorch's oneDNN operators are there and give right answers.

    They are internal to PyTorch and may change with a release, so they are tried on small
    tensors once per process.
    """
    try:
        with torch.inference_mode():
            return all(_contract_holds(*case) for case in _contract_cases())
    except Exception as error:  # noqa: BLE001 - whatever these operators raise, they cannot be used
        logger.info("the fused engine is not available (%r): eager takes its place", error)
        return False


def _contract_cases() -> list[tuple[FusedActivation, bool, int]]:
    names = sorted({*ACTIVATIONS.values(), "none"})
    plain = [(FusedActivation(name), False, 1) for name in names]
    return [
        *plain,
        (FusedActivation("hardtanh", (0.0, 6.0)), False, 1),
        (FusedActivation("leaky_relu", (0.1,)), False, 1),
        (FusedActivation("gelu", (), "none"), False, 1),
        (FusedActivation("gelu", (), "tanh"), False, 1),
        (NO_ACTIVATION, True, 1),
        (RELU, True, 1),
        (RELU, False, 8),
    ]


_PUBLIC: dict[str, Callable[..., Tensor]] = {
    "none": lambda value: value,
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "swish": functional.silu,
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "hardtanh": functional.hardtanh,
    "leaky_relu": functional.leaky_relu,
    "gelu": lambda value, approximate: functional.gelu(value, approximate=approximate),
}


def _contract_holds(activation: FusedActivation, has_residual: bool, groups: int) -> bool:
    """Return whether a fused convolution agrees with the public operators on small tensors."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn((2, 8, 9, 7), generator=generator)
    tensors = {
        "weight": torch.randn((16, 8 // groups, 3, 3), generator=generator),
        "bias": torch.randn(16, generator=generator),
    }
    stage = ConvStage(
        0, "check", "x", "y", "weight", "bias", (2, 1), ((1, 1), (0, 0)), (1, 1), groups
    )
    expected = convolve(stage, value, tensors)
    residual = torch.randn(expected.shape, generator=generator) if has_residual else None
    if residual is not None:
        expected = expected + residual
    arguments: tuple[Any, ...] = activation.scalars
    if activation.algorithm:
        arguments = (activation.algorithm,)
    expected = _PUBLIC[activation.name](expected, *arguments)
    packed = PackedConvolution(stage, tensors, activation, PackedWeights())
    found = packed(channels_last(value), None if residual is None else channels_last(residual))
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) <= CONTRACT_TOLERANCE * largest
