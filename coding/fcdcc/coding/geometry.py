"""The shape of one convolution as a checked value.

Code that partitions, plans or costs a convolution takes a :class:`ConvGeometry`.
:meth:`ConvGeometry.of` makes one from the arguments of ``torch.nn.functional.conv2d`` and
brings strides, paddings and dilations to one form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from .errors import GeometryError

__all__ = ["ConvGeometry", "Padding", "pad_space"]

Padding = int | str | Sequence[int]
"""Padding as torch takes it: a number, one number per dimension, 'same' or 'valid'."""

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@dataclass(frozen=True)
class ConvGeometry:
    """One convolution of an image of a known size.

    Parameters
    ----------
    in_channels, out_channels
        C and N.
    spatial
        Size of the input in each of its 1 to 3 spatial dimensions, unpadded.
    kernel
        Size of the kernel in each dimension, undilated.
    stride, dilation
        One number per dimension, at least 1.
    padding
        (before, after) per dimension: zeros added at both ends.
    groups
        A divisor of C and of N.

    Raises
    ------
    GeometryError
        If the numbers do not fit together.

    Examples
    --------
    >>> geometry = ConvGeometry.of((1, 3, 32, 32), (8, 3, 3, 3), stride=2, padding=1)
    >>> geometry.output_spatial, geometry.multiply_adds
    ((16, 16), 55296)
    """

    in_channels: int
    out_channels: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.ndim <= 3:
            raise GeometryError(
                f"{self.ndim} spatial dimensions {self.spatial}; expected 1, 2 or 3"
            )
        for name in ("kernel", "stride", "padding", "dilation"):
            given = getattr(self, name)
            if len(given) != self.ndim:
                raise GeometryError(
                    f"{name} {given} for input of size {self.spatial}; expected {self.ndim} "
                    "entries, one for each spatial dimension"
                )
        for name in ("spatial", "kernel", "stride", "dilation"):
            if min(getattr(self, name)) < 1:
                raise GeometryError(f"{name} {getattr(self, name)}; expected 1 or more everywhere")
        if any(len(pair) != 2 or min(pair) < 0 for pair in self.padding):
            raise GeometryError(
                f"padding {self.padding}; expected two numbers, 0 or more, for each dimension"
            )
        for name in ("in_channels", "out_channels"):
            channels = getattr(self, name)
            if channels < 1 or self.groups < 1 or channels % self.groups:
                raise GeometryError(
                    f"{channels} {name} in {self.groups} groups; expected a positive multiple of "
                    "the number of groups"
                )
        for kernel, padded in zip(self.effective_kernel, self.padded_spatial, strict=True):
            if kernel > padded:
                raise GeometryError(
                    f"kernel of size {self.effective_kernel} (dilated) on padded input of size "
                    f"{self.padded_spatial}; expected a kernel that fits: pad or enlarge the input"
                )

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.spatial)

    @cached_property
    def effective_kernel(self) -> tuple[int, ...]:
        """Extent of the dilated kernel: (K − 1) d + 1."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @cached_property
    def padded_spatial(self) -> tuple[int, ...]:
        """Size of the input with its padding."""
        return tuple(
            size + before + after
            for size, (before, after) in zip(self.spatial, self.padding, strict=True)
        )

    @cached_property
    def output_spatial(self) -> tuple[int, ...]:
        """Size of the output: ⌊(H + 2p − KH) / s⌋ + 1."""
        return tuple(
            (padded - kernel) // stride + 1
            for padded, kernel, stride in zip(
                self.padded_spatial, self.effective_kernel, self.stride, strict=True
            )
        )

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the filters: (N, C / groups, *kernel)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one image, uncoded."""
        return math.prod(self.weight_shape) * math.prod(self.output_spatial)

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the plain convolution, uncoded.

        Parameters
        ----------
        x
            Unpadded, (images, C, *space); its size may differ from ``spatial``.
        weight
            (filters, C / groups, *kernel), any number of filters that the groups divide.
        bias
            (filters,), added if given.
        """
        return self.convolve_padded(*self._padded_for_torch(x), weight, bias)

    def convolve_padded(
        self,
        x: torch.Tensor,
        padding: tuple[int, ...],
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the plain convolution of ``x``, with ``padding`` instead of the geometry's."""
        convolution = _CONVOLUTIONS[self.ndim]
        return convolution(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _padded_for_torch(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Return an input and a padding for torch, which pads without a copy if it is even."""
        if all(before == after for before, after in self.padding):
            return x, tuple(before for before, _ in self.padding)
        return pad_space(x, self.padding), (0,) * self.ndim

    @classmethod
    def of(
        cls,
        x_shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding | Sequence[Sequence[int]] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> ConvGeometry:
        """Return the geometry of ``torch.nn.functional.conv*d`` with these arguments.

        Parameters
        ----------
        x_shape
            (batch, C, *space), or (C, *space) for one image.
        weight_shape
            (N, C / groups, *kernel); it says how many spatial dimensions there are.
        stride, dilation
            A number, or one number for each dimension.
        padding
            A number, one number for each dimension, 'valid', 'same' (stride 1 only; the
            odd zero goes to the end), or pairs (before, after).
        groups
            Number of groups.

        Raises
        ------
        GeometryError
            If the shapes and numbers do not fit together.

        Examples
        --------
        >>> ConvGeometry.of((8, 3, 32, 32), (16, 3, 5, 5), padding="same").output_spatial
        (32, 32)
        """
        ndim = len(weight_shape) - 2
        if len(x_shape) not in (ndim + 1, ndim + 2):
            raise GeometryError(
                f"input of shape {tuple(x_shape)} and filters of shape {tuple(weight_shape)}; "
                f"expected filters (N, C / groups, *kernel) and input (batch, C, *space) with as "
                "many spatial dimensions"
            )
        in_channels, spatial = int(x_shape[-ndim - 1]), tuple(int(size) for size in x_shape[-ndim:])
        if in_channels != int(weight_shape[1]) * groups:
            raise GeometryError(
                f"input of {in_channels} channels for filters of shape {tuple(weight_shape)} in "
                f"{groups} groups; expected {int(weight_shape[1]) * groups} channels"
            )
        kernel = tuple(int(size) for size in weight_shape[2:])
        strides = _per_dimension("stride", stride, ndim)
        dilations = _per_dimension("dilation", dilation, ndim)
        return cls(
            in_channels=in_channels,
            out_channels=int(weight_shape[0]),
            spatial=spatial,
            kernel=kernel,
            stride=strides,
            padding=_paddings(padding, kernel, strides, dilations),
            dilation=dilations,
            groups=groups,
        )


def pad_space(x: torch.Tensor, padding: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Add zeros (before, after) to each spatial dimension; returns ``x`` itself if none."""
    if not any(before or after for before, after in padding):
        return x
    return functional.pad(x, [zeros for pair in reversed(padding) for zeros in pair])


def _per_dimension(name: str, value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return one number for each dimension; a single one is for all, as in torch."""
    if isinstance(value, int):
        return (value,) * ndim
    numbers = tuple(int(number) for number in value)
    if len(numbers) == 1:
        return numbers * ndim
    if len(numbers) != ndim:
        raise GeometryError(
            f"{name} {numbers} for {ndim} spatial dimensions; expected 1 or {ndim} numbers"
        )
    return numbers


def _paddings(
    padding: Padding | Sequence[Sequence[int]],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        return _named_padding(padding, kernel, stride, dilation)
    if not isinstance(padding, int):
        pairs = [tuple(entry) for entry in padding if not isinstance(entry, int)]
        if pairs:
            if len(pairs) != len(padding) or any(len(pair) != 2 for pair in pairs):
                raise GeometryError(
                    f"padding {padding!r}; expected a pair (before, after) for each dimension"
                )
            return tuple((int(before), int(after)) for before, after in pairs)
        padding = [entry for entry in padding if isinstance(entry, int)]
    return tuple((p, p) for p in _per_dimension("padding", padding, len(kernel)))


def _named_padding(
    padding: str, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding != "same":
        raise GeometryError(f"padding {padding!r}; expected 'same', 'valid' or numbers")
    if any(s != 1 for s in stride):
        raise GeometryError(f"padding 'same' with stride {stride}; expected stride 1 everywhere")
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)
