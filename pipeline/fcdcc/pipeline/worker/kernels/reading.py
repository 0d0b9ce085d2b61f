"""NEW."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from fcdcc.storage.images import ImageSource
from fcdcc.storage.preparation import Preparation

from ...anyk.worker import announce, here
from ..share_checks import is_finite
from .common import Array

logger = logging.getLogger(__name__)


def read(
    source: ImageSource,
    preparation: Preparation,
    start: int,
    stop: int,
    pad_to: int,
    rows: tuple[int, int] | None = None,
) -> Array:
    """Return images start … stop − 1 of a store, prepared, as (pad_to, C, *space).

    With ``rows`` only these, of the first spatial axis. Images that hold NaN or infinity are
    named in the log.
    """
    first, last = (0, source.shape[2]) if rows is None else rows
    prepared = prepare(source.read_rows(start, stop, first, last), preparation, pad_to)
    if not is_finite(prepared):
        odd = ~np.isfinite(prepared.reshape(len(prepared), -1)).all(axis=1)
        numbers = [start + int(i) for i in np.flatnonzero(odd)]
        logger.warning("images %s hold values that are not finite", _some(numbers))
        announce("not-finite", [(0, here())])
    return prepared


def prepare(images: Array, preparation: Preparation, pad_to: int) -> Array:
    """Return images (B, C, *space), prepared, with zeros behind them up to ``pad_to``.

    A network with a fixed batch gets a whole one for the last images, too.
    """
    prepared: Array = preparation.apply(images)
    missing = pad_to - len(prepared)
    if missing <= 0:
        return prepared
    return np.concatenate([prepared, np.zeros((missing, *prepared.shape[1:]), prepared.dtype)])


def prepare_some(
    images: Array,
    preparation: Preparation,
    start: int,
    stop: int,
    pad_to: int,
    rows: tuple[int, int] | None = None,
) -> Array:
    """Return images start … stop − 1 of an array, prepared; see :func:`read`."""
    chosen = images[start:stop] if rows is None else images[start:stop, :, slice(*rows)]
    return prepare(chosen, preparation, pad_to)


def _some(numbers: Sequence[int]) -> str:
    """Return some numbers in words, the first twenty of them."""
    return ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")
