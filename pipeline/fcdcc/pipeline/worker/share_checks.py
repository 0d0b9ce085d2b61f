"""Shares that are checked: against each other, and for numbers that are none.

Where shares are to be checked (``--verify``), each carries the size that its rounding is
proportional to and the worker that it comes from. Whoever has more of a group than are needed
compares them (:mod:`fcdcc.coding.sketches`). What contradicts itself is not decoded: the task
fails, and the job does the block again (:mod:`.second_tries`).

NaN and infinity are ordinary numbers to a convolution, and stay with their image. A code mixes
images, or rows: so nothing is decoded from shares that hold any, and the block is done again
without a code.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcdcc.coding.integrity import Verdict
from fcdcc.coding.sketches import bounded, check_sketches, convolution_scale, sketch

from ..anyk.worker import announce, here
from ..errors import NotFiniteError, WrongSharesError
from .executable import Executable

logger = logging.getLogger(__name__)

Array: TypeAlias = NDArray[Any]


class CheckedShare(NamedTuple):
    """A share that will be checked.

    ``scale`` is the size that its rounding is proportional to, ``worker`` where it was made.
    """

    values: Array
    scale: float
    worker: str


ShareMessage: TypeAlias = "Array | CheckedShare"
"""A share as it travels between tasks."""


@dataclass(frozen=True)
class Finding:
    """What was found out about the shares of one layer of a block.

    ``wrong`` has the position and the worker of each share that was left out.
    """

    layer: int
    name: str
    wrong: tuple[tuple[int, str], ...] = ()

    @property
    def in_words(self) -> str:
        """Return it as a block's record says it."""
        return f"layer {self.layer} ({self.name}): {_named(self.wrong)} left out as wrong"


def share_values(share: ShareMessage) -> Array:
    """Return the values of a share."""
    return share.values if isinstance(share, CheckedShare) else share


def as_message(
    executable: Executable, layer: int, position: int, values: Array, entering: Tensor | None
) -> ShareMessage:
    """Return a share as it travels: as it is, or with what is needed to check it.

    NaN and infinity are told of where they arise.

    Parameters
    ----------
    held, layer, position
        Which share of what.
    values
        The share.
    entering
        What was convolved; None if nothing was.
    """
    if not is_finite(values):
        announce("not-finite", [(position, here())])
        logger.warning(
            "layer %d (%s): share %d has values that are not finite",
            layer, executable.plan.layer(layer).name, position,
        )  # fmt: skip
    if executable.plan.verify == "off":
        return values
    scale = 0.0
    if entering is not None:
        plain = executable.coded(layer).is_plain(position)
        size = executable.filter_size(layer, None if plain else position)
        scale = convolution_scale(entering, size, executable.reduction(layer))
    return CheckedShare(values, scale, here())


def examine(
    executable: Executable,
    layer: int,
    shares: Mapping[int, ShareMessage],
    images: int,
    with_bias: Collection[int] = (),
) -> Verdict:
    """Check the shares of a layer against each other.

    Parameters
    ----------
    held, layer
        Which layer of what.
    shares
        What is there, by position.
    images
        Of the block.
    with_bias
        Positions that have the bias in them, and may lack rows that are zero.
    """
    coded, bias = executable.coded(layer), executable.bias(layer)
    sketches: dict[int, Tensor] = {}
    entries = 0
    for position, share in shares.items():
        values = share_values(share)
        tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
        if bias is not None and position in with_bias:
            tensor = tensor - bias.reshape(-1, *[1] * (tensor.ndim - 2))
        rows = coded.all_outputs(tensor, position, images)
        sketches[position], entries = sketch(rows), rows[0].numel()
    scales = (share.scale for share in shares.values() if isinstance(share, CheckedShare))
    scale = bounded(scales)
    return check_sketches(coded.code, sketches, scale, executable.reduction(layer), entries)


def raise_wrong_shares(
    executable: Executable, layer: int, shares: Mapping[int, ShareMessage], verdict: Verdict
) -> NoReturn:
    """Say that shares contradict each other, or what else is the matter with them.

    Raises
    ------
    NotFiniteError
        If plain shares and parity hold NaN or infinity, as they do if the images led to them.
    WrongSharesError
        If any of them must be wrong.
    """
    odd = [position for position, share in shares.items() if not is_finite(share_values(share))]
    if _came_in(executable, layer, odd, shares):
        raise_not_finite(executable, layer, odd)
    found = [
        (p, s.worker if isinstance(s, CheckedShare) else "") for p, s in sorted(shares.items())
    ]
    announce("mismatch", found)
    raise WrongSharesError(
        f"layer {layer} ({executable.plan.layer(layer).name}): {_named(found)} contradict each "
        f"other (by {verdict.syndrome:.2g} of their size); expected no more than rounding: one of "
        "these workers computes or remembers wrongly",
        (worker for _, worker in found if worker),
    )


def raise_not_finite(executable: Executable, layer: int, odd: Iterable[int]) -> NoReturn:
    """Say that shares hold values that are not finite and are not decoded.

    Raises
    ------
    NotFiniteError
        Always.
    """
    raise NotFiniteError(
        f"layer {layer} ({executable.plan.layer(layer).name}): shares {sorted(odd)} hold values "
        "that are not finite, which decoding would bring into other images; look for NaN, infinity "
        "or very large numbers in the images"
    )


def _came_in(
    executable: Executable, layer: int, odd: Collection[int], shares: Mapping[int, ShareMessage]
) -> bool:
    """Return whether shares are odd because what they were made from is.

    Parity mixes all parts: what enters a plain share enters all parity, too, and the plain share
    may be the one that is not there. One share alone is not odd for that reason.
    """
    planned = executable.plan.layer(layer)
    parity = planned.parity
    if not parity:
        return len(odd) > 1 or (len(odd) == 1 == len(shares))
    if planned.uncoded <= shares.keys():
        return bool(parity.intersection(odd)) and bool(set(odd) - parity)
    return parity.intersection(shares) <= set(odd)


def is_finite(values: Array) -> bool:
    """Return whether all values are finite; the sum of their squares says so in no time.

    Unless it overflows: then all are looked at.
    """
    flat = values.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(values).all())


def _named(shares: Iterable[tuple[int, str]]) -> str:
    """Return shares and their workers in words."""
    return ", ".join(
        f"share {position}" + (f" from {worker}" if worker else "") for position, worker in shares
    )
