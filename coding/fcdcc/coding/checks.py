"""Checks of the tensors that callers pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .errors import GeometryError, TensorError

__all__ = ["check_alike", "check_dtype", "check_shape"]

_DTYPES = (torch.float32, torch.float64)


def check_dtype(tensor: torch.Tensor) -> None:
    """Check that a tensor is float32 or float64.

    Raises
    ------
    TensorError
        If it is of another dtype.
    """
    if tensor.dtype not in _DTYPES:
        raise TensorError(
            f"tensor of {tensor.dtype}; expected torch.float32 or torch.float64: convert it"
        )


def check_alike(first: torch.Tensor, second: torch.Tensor) -> None:
    """Check that two tensors have one dtype and one device.

    Raises
    ------
    TensorError
        If they differ.
    """
    if first.dtype != second.dtype or first.device != second.device:
        raise TensorError(
            f"tensors of {first.dtype} on {first.device} and of {second.dtype} on "
            f"{second.device}; expected one dtype and one device: convert one of them"
        )


def check_shape(what: str, tensor: torch.Tensor, expected: Sequence[int]) -> None:
    """Check the shape of a tensor; ``what`` begins the message.

    Raises
    ------
    GeometryError
        If the tensor has another shape.
    """
    if tuple(tensor.shape) != tuple(expected):
        raise GeometryError(f"{what} of shape {tuple(tensor.shape)}; expected {tuple(expected)}")
