"""Encoding and decoding that go wrong in this process, below whatever checks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from torch import Tensor

from fcdcc.coding import CodedConv, Decoder
from fcdcc.pipeline.anyk.worker import worker_address

from .bad_convolutions import one_wrong_element

Combined = Literal["input", "filters", "decoded"]


def spoil_combinations(
    patch: pytest.MonkeyPatch, what: Combined, when: Callable[[str], bool]
) -> list[str]:
    """Let one element go wrong of what is encoded or decoded.

    Parameters
    ----------
    patch
        Undoes it.
    what
        Coded inputs, coded filters, or products that are solved for.
    when
        Called each time with the address of the worker: whether it goes wrong.

    Returns
    -------
    The workers whose results went wrong, in order.
    """
    hit: list[str] = []

    def spoiled(made: Tensor) -> Tensor:
        worker = worker_address()
        if not made.numel() or not when(worker):
            return made
        hit.append(worker)
        return one_wrong_element(made)

    if what == "decoded":
        solve = Decoder.solve
        patch.setattr(Decoder, "solve", lambda *given: spoiled(solve(*given)))
        return hit
    name, run = {
        "input": ("encode_input", "input_run"),
        "filters": ("encode_filters", "filter_run"),
    }[what]
    encode = getattr(CodedConv, name)

    def call(coded: CodedConv, value: Tensor, share: int) -> Any:
        made = encode(coded, value, share)
        return made if getattr(coded.code, run)(share) is not None else spoiled(made)

    patch.setattr(CodedConv, name, call)
    return hit
