"""Convolutions for tests: Hypothesis strategies, and PyTorch as the oracle."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch.nn import functional

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@dataclass(frozen=True)
class Layer:
    """The arguments of one convolution."""

    batch: int
    in_channels: int
    out_channels: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    groups: int

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.batch, self.in_channels, *self.spatial)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (self.stride, self.padding, self.dilation, self.groups)

    def tensors(self, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(self.x_shape, generator=generator, dtype=torch.float64)
        weight = torch.randn(self.weight_shape, generator=generator, dtype=torch.float64)
        return x.to(dtype), weight.to(dtype)


def oracle(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *arguments: Any
) -> torch.Tensor:
    """Return what PyTorch makes of a convolution; it pads unevenly only for 'same'."""
    stride, padding, dilation, groups = arguments
    if not isinstance(padding, str) and isinstance(padding[0], tuple):
        x = functional.pad(x, [zeros for pair in reversed(padding) for zeros in pair])
        padding = 0
    convolution = CONVOLUTIONS[weight.ndim - 2]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
        return convolution(x, weight, bias, stride, padding, dilation, groups)


def relative_error(given: torch.Tensor, expected: torch.Tensor) -> float:
    assert given.shape == expected.shape
    return float((given.double() - expected.double()).norm() / expected.double().norm())


def error_beside(
    given: torch.Tensor, expected: torch.Tensor, x: torch.Tensor, weight: torch.Tensor
) -> float:
    """Return the error relative to what was multiplied.

    An output may be nothing but zeros (the kernel meets only padding) while the rows that
    fill up its last part are not: then its own norm is no measure.
    """
    assert given.shape == expected.shape
    difference = (given.double() - expected.double()).norm()
    return float(difference / (x.double().norm() * weight.double().norm()))


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Small convolutions of every kind that torch has: 1 to 3 dimensions, uneven padding …"""
    ndim = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    per_group = draw(st.integers(1, 2))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(ndim))
    dilation = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    padding: Any = draw(
        st.one_of(
            st.sampled_from(["same", "valid"]),
            st.tuples(*[st.integers(0, 3)] * ndim),
            st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * ndim),
        )
    )
    same = padding == "same"
    stride = (1,) * ndim if same else tuple(draw(st.integers(1, 5)) for _ in range(ndim))
    spatial = []
    for axis in range(ndim):
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        zeros = 0
        if same:
            zeros = extent - 1
        elif padding != "valid":
            entry = padding[axis]
            zeros = sum(entry) if isinstance(entry, tuple) else 2 * entry
        smallest = max(1, extent - zeros)
        spatial.append(draw(st.integers(smallest, smallest + (9 if axis == 0 else 3))))
    return Layer(
        batch=draw(st.integers(1, 5)),
        in_channels=groups * per_group,
        out_channels=groups * draw(st.integers(1, 5)),
        spatial=tuple(spatial),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
