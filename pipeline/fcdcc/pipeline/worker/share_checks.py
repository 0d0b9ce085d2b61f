"""Check shares against each other, and for NaN and infinity.

With ``--verify spare`` or ``all``, each share carries the size that its rounding error is
proportional to, and the worker that computed it. A task that has more shares of a group than it
needs compares them (:mod:`fcdcc.coding.sketches`). Shares that contradict each other are not
decoded: the task fails, and the job computes the block again
(:mod:`fcdcc.pipeline.runtime.retries`).

Whatever ``--verify`` says, a share that is no array of the shape and type of its layer is never
used: one image more or less in it would move the predictions of all others.

A convolution keeps NaN and infinity within the image that has them. A code mixes images or
rows, so decoding would spread them. So shares with such values are never decoded; the block is
computed again without a code.
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

from ..anyk.worker import report_shares, worker_address
from ..errors import NotFiniteError, WrongSharesError
from .executable import Executable

logger = logging.getLogger(__name__)

Array: TypeAlias = NDArray[Any]


class CheckedShare(NamedTuple):
    """A share with what is needed to check it.

    ``scale`` is the size that its rounding error is proportional to, ``worker`` the address of
    the worker that computed it.
    """

    values: Array
    scale: float
    worker: str


ShareMessage: TypeAlias = "Array | CheckedShare"
"""A share as it travels between tasks."""


@dataclass(frozen=True)
class Finding:
    """The result of checking the shares of one layer of a block.

    ``wrong`` has the position and the worker of each share that was left out.
    """

    layer: int
    name: str
    wrong: tuple[tuple[int, str], ...] = ()

    @property
    def warning(self) -> str:
        """The warning about shares left out, for the record of the block."""
        return f"layer {self.layer} ({self.name}): {_share_list(self.wrong)} left out as wrong"


def share_values(share: ShareMessage) -> Array:
    """Return the values of a share that was sent with or without a check."""
    return share.values if isinstance(share, CheckedShare) else share


def as_message(
    executable: Executable, layer: int, position: int, values: Array, entering: Tensor | None
) -> ShareMessage:
    """Return a share as it travels: with what is needed to check it if shares are compared.

    Values that are not finite are logged and reported to the scheduler here, where they arise.

    Parameters
    ----------
    executable, layer, position
        Which share this is.
    values
        The share.
    entering
        The input of the convolution; None if nothing was convolved.
    """
    if not is_finite(values):
        report_shares("not-finite", [(position, worker_address())])
        logger.warning(
            "layer %d (%s): share %d has values that are not finite",
            layer, executable.plan.layer(layer).name, position,
        )  # fmt: skip
    if not executable.plan.compares_shares:
        return values
    scale = 0.0
    if entering is not None:
        plain = executable.coded(layer).is_plain(position)
        size = executable.filter_size(layer, None if plain else position)
        scale = convolution_scale(entering, size, executable.reduction(layer))
    return CheckedShare(values, scale, worker_address())


def worker_of(share: ShareMessage) -> str:
    """Return the worker that computed a share; '' if the share was sent without it."""
    return str(share.worker) if isinstance(share, CheckedShare) else ""


def malformed_shares(
    executable: Executable, layer: int, shares: Mapping[int, ShareMessage], entries: int
) -> dict[int, str]:
    """Return the shares that are no arrays of the shape and type of a layer, each with its form.

    Parameters
    ----------
    executable, layer
        Which layer this is.
    shares
        The shares that are done, by position.
    entries
        How long the first axis of the layer's input is for the block.
    """
    coded, found = executable.coded(layer), {}
    dtype = np.dtype(executable.plan.dtype)
    for position, share in shares.items():
        values = share_values(share)
        wanted = coded.share_shape(position, entries)
        # A strip may lack its last rows, which are zeros.
        rows = {wanted[2]}
        if coded.split == "rows" and coded.is_plain(position):
            rows.add(len(coded.rows_of(position)))
        if not isinstance(values, np.ndarray):
            found[position] = f"is a {type(values).__name__}"
        elif (
            values.dtype != dtype
            or values.shape[:2] + values.shape[3:] != wanted[:2] + wanted[3:]
            or values.shape[2] not in rows
        ):
            found[position] = f"has the shape {values.shape} in {values.dtype}"
    return found


def check_form(
    executable: Executable, layer: int, shares: Mapping[int, ShareMessage], entries: int
) -> None:
    """Check that shares are arrays of the shape and type of a layer.

    Raises
    ------
    WrongSharesError
        If one is not.
    """
    found = malformed_shares(executable, layer, shares, entries)
    if found:
        position, form = next(iter(found.items()))
        named = _share_list([(position, worker_of(shares[position]))])
        wanted = executable.coded(layer).share_shape(position, entries)
        report_shares("mismatch", [(p, worker_of(shares[p])) for p in found])
        raise WrongSharesError(
            f"layer {layer} ({executable.plan.layer(layer).name}): {named} {form}; expected "
            f"{wanted} in {executable.plan.dtype}: this worker computes or stores wrong values",
            filter(None, (worker_of(shares[p]) for p in found)),
        )


def compare_shares(
    executable: Executable,
    layer: int,
    shares: Mapping[int, ShareMessage],
    entries: int,
    with_bias: Collection[int] = (),
) -> Verdict:
    """Check the shares of a layer against each other.

    Parameters
    ----------
    executable, layer
        Which layer this is.
    shares
        The shares that are done, by position.
    entries
        How long the first axis of the layer's input is for the block.
    with_bias
        Positions of shares that contain the bias, and may lack rows that are zero.
    """
    coded, bias = executable.coded(layer), executable.bias(layer)
    sketches: dict[int, Tensor] = {}
    numbers = 0
    for position, share in shares.items():
        values = share_values(share)
        tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
        if bias is not None and position in with_bias:
            tensor = tensor - bias.reshape(-1, *[1] * (tensor.ndim - 2))
        rows = coded.all_outputs(tensor, position, entries)
        sketches[position], numbers = sketch(rows), rows[0].numel()
    scales = (share.scale for share in shares.values() if isinstance(share, CheckedShare))
    scale = bounded(scales)
    return check_sketches(coded.code, sketches, scale, executable.reduction(layer), numbers)


def raise_wrong_shares(
    executable: Executable, layer: int, shares: Mapping[int, ShareMessage], verdict: Verdict
) -> NoReturn:
    """Raise the error for shares that contradict each other.

    Raises
    ------
    NotFiniteError
        If shares hold NaN or infinity in the pattern that the images would cause.
    WrongSharesError
        Otherwise: at least one of the shares is wrong.
    """
    not_finite = [p for p, share in shares.items() if not is_finite(share_values(share))]
    if _is_caused_by_input(executable, layer, not_finite, shares):
        raise_not_finite(executable, layer, not_finite)
    sources = [
        (p, s.worker if isinstance(s, CheckedShare) else "") for p, s in sorted(shares.items())
    ]
    report_shares("mismatch", sources)
    raise WrongSharesError(
        f"layer {layer} ({executable.plan.layer(layer).name}): {_share_list(sources)} contradict "
        f"each other (by {verdict.syndrome:.2g} of their size); expected no more than rounding: "
        "one of these workers computes or stores wrong values",
        (worker for _, worker in sources if worker),
    )


def raise_not_finite(executable: Executable, layer: int, positions: Iterable[int]) -> NoReturn:
    """Raise the error for shares that must not be decoded because they hold NaN or infinity.

    Raises
    ------
    NotFiniteError
        Always.
    """
    raise NotFiniteError(
        f"layer {layer} ({executable.plan.layer(layer).name}): shares {sorted(positions)} hold "
        "values that are not finite, which decoding would spread to other images; look for NaN, "
        "infinity or very large numbers in the images"
    )


def _is_caused_by_input(
    executable: Executable,
    layer: int,
    not_finite: Collection[int],
    shares: Mapping[int, ShareMessage],
) -> bool:
    """Return whether shares may be not finite because the input of the layer is.

    Parity mixes all parts: if the input of one plain share is not finite, all parity is not
    finite either, even if that plain share is missing. So one share alone, among several, is
    not finite for another reason: it is wrong.

    Parameters
    ----------
    executable, layer
        Which layer this is.
    not_finite
        Positions of the shares that are not finite.
    shares
        All shares that are done, by position.
    """
    planned = executable.plan.layer(layer)
    parity = planned.parity
    if not parity:
        return len(not_finite) > 1 or (len(not_finite) == 1 == len(shares))
    if planned.uncoded <= shares.keys():
        return bool(parity.intersection(not_finite)) and bool(set(not_finite) - parity)
    return parity.intersection(shares) <= set(not_finite)


def is_finite(values: Array) -> bool:
    """Return whether all values are finite.

    Fast path: the sum of squares is finite. If it is not, it may have overflowed, and every
    value is checked.
    """
    flat = values.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(values).all())


def _share_list(shares: Iterable[tuple[int, str]]) -> str:
    """Return positions and workers of shares as a list for messages."""
    return ", ".join(
        f"share {position}" + (f" from {worker}" if worker else "") for position, worker in shares
    )
