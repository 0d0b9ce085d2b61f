"""Shares that go wrong on their way: what a bad processor or bad memory does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from dask.context import thread_state
from numpy.typing import NDArray

from fcdcc.pipeline.anyk.keys import TaskKey, parse_key
from fcdcc.pipeline.anyk.worker import worker_address
from fcdcc.pipeline.worker import share_checks as checking
from fcdcc.pipeline.worker.kernels import gathered_kernels, image_kernels, row_kernels

Array: TypeAlias = NDArray[Any]
When: TypeAlias = Callable[[TaskKey, int, str], bool]
"""Given a task's key, the position of its share and its worker: whether it goes wrong."""


def scaled(values: Array) -> Array:
    """Return all values one per cent too large."""
    return values * values.dtype.type(1.01)


def flipped(values: Array) -> Array:
    """Return the largest value with its highest mantissa bit flipped."""
    wrong = values.copy()
    bits = wrong.reshape(-1).view(f"u{values.dtype.itemsize}")
    where = int(np.abs(wrong.reshape(-1)).argmax())
    bits[where] ^= bits.dtype.type(1 << (22 if values.dtype.itemsize == 4 else 51))
    return wrong


def spoil(
    patch: pytest.MonkeyPatch, when: When, how: Callable[[Array], Array] = scaled
) -> list[TaskKey]:
    """Let shares go wrong in this process; return the list that their keys are added to."""
    hit: list[TaskKey] = []
    original = checking.as_message

    def as_message(executable: Any, layer: int, position: int, values: Array, entering: Any) -> Any:
        key = parse_key(getattr(thread_state, "key", None))
        if key is not None and values.size and when(key, position, worker_address()):
            hit.append(key)
            values = how(values)
        return original(executable, layer, position, values, entering)

    for module in (gathered_kernels, image_kernels, row_kernels):
        patch.setattr(module, "as_message", as_message)
    return hit
