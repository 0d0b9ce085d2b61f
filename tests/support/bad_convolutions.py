"""Convolutions and linear layers that go wrong in this process, below whatever checks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from fcdcc.coding.geometry import ConvGeometry
from fcdcc.pipeline.anyk.worker import worker_address
from fcdcc.pipeline.model import interpreter
from fcdcc.pipeline.worker import engines, packed_convolutions
from fcdcc.pipeline.worker.layer_checks import LINEAR


class FirstWorker:
    """The first worker that is asked about: it has work for sure, whatever the scheduler does."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def __call__(self, worker: str) -> bool:
        """Return whether this is the one; what runs on no worker has no address."""
        return bool(worker) and self._found.setdefault("address", worker) == worker

    @property
    def address(self) -> str:
        """Its address, once there is one."""
        return self._found["address"]


def one_wrong_element(made: Tensor) -> Tensor:
    """Return the values with one of them wrong by as much as the largest of all."""
    wrong = made.clone()
    place = tuple(size // 2 for size in wrong.shape)
    wrong[place] = wrong[place] + wrong.abs().max() + 1
    return wrong


def spoil_convolutions(
    patch: pytest.MonkeyPatch,
    when: Callable[[str], bool],
    how: Callable[[Tensor], Tensor] = one_wrong_element,
    *,
    linear: bool = False,
) -> list[str]:
    """Let convolutions of every engine, of coded shares and among other operations go wrong.

    Parameters
    ----------
    patch
        Undoes it.
    when
        Called for each convolution with the address of its worker: whether it goes wrong.
    how
        Makes the wrong values of the right ones.
    linear
        Linear layers go wrong in place of convolutions.

    Returns
    -------
    The workers whose results went wrong, in order.
    """
    hit: list[str] = []
    packed_convolutions.fused_is_available()  # it is tried once, with convolutions that are right

    def spoiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*given: Any, **named: Any) -> Tensor:
            made, worker = function(*given, **named), worker_address()
            if not made.numel() or not when(worker):
                return made
            hit.append(worker)
            return how(made)

        return call

    resolve, wrong = interpreter.resolve, LINEAR if linear else "aten.convolution.default"
    patch.setattr(
        interpreter, "resolve", lambda op: spoiled(resolve(op)) if op == wrong else resolve(op)
    )
    if linear:
        return hit
    patch.setattr(
        packed_convolutions.PackedConvolution,
        "__call__",
        spoiled(packed_convolutions.PackedConvolution.__call__),
    )
    patch.setattr(engines, "convolve", spoiled(packed_convolutions.convolve))
    patch.setattr(ConvGeometry, "convolve_padded", spoiled(ConvGeometry.convolve_padded))
    return hit
