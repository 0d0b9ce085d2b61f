"""How the images of a block are read and prepared for the network."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from fcdcc.storage.images import ImageSource
from fcdcc.storage.preparation import Preparation

from ...anyk.worker import report_shares, worker_address
from ..share_checks import is_finite
from .common import Array
from .task_specs import ReadChunk, ReadImages

logger = logging.getLogger(__name__)

MAX_IMAGES_NAMED = 20
"""Images that a line of the log names; it says whether there are more."""


def read(source: ImageSource, preparation: Preparation, spec: ReadImages, *pieces: Array) -> Array:
    """Return images of a store, prepared, as (pad_to, C, *space).

    ``pieces`` are the images before and behind ``spec.own``, as they are stored. A line of the log
    names images that hold NaN or infinity.
    """
    prepared = prepare(_stored(source, spec, pieces), preparation, spec.pad_to)
    if not is_finite(prepared):
        odd = ~np.isfinite(prepared.reshape(len(prepared), -1)).all(axis=1)
        numbers = [spec.start + int(i) for i in np.flatnonzero(odd)]
        logger.warning("images %s hold values that are not finite", _named(numbers))
        report_shares("not-finite", [(0, worker_address())])
    return prepared


def read_chunk(source: ImageSource, spec: ReadChunk) -> Array:
    """Return images as they are stored, (images, C, *space), for several tasks."""
    return source.read(spec.start, spec.stop)


def _stored(source: ImageSource, spec: ReadImages, pieces: Sequence[Array]) -> Array:
    """Return images as they are stored, from the store and from pieces."""
    start, stop = spec.own or (spec.start, spec.stop)
    if start == stop and pieces:
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    first, last = (0, source.shape[2]) if spec.rows is None else spec.rows
    own = source.read_rows(start, stop, first, last)
    if not pieces:
        return own
    before = int(start > spec.start)
    return np.concatenate([*pieces[:before], own, *pieces[before:]])


def prepare(images: Array, preparation: Preparation, pad_to: int) -> Array:
    """Return images (B, C, *space), prepared, with zeros behind them up to ``pad_to``."""
    prepared: Array = preparation.apply(images)
    missing = pad_to - len(prepared)
    if missing <= 0:
        return prepared
    return np.concatenate([prepared, np.zeros((missing, *prepared.shape[1:]), prepared.dtype)])


def prepare_some(images: Array, preparation: Preparation, spec: ReadImages) -> Array:
    """Return images of an array, prepared; see :func:`read`."""
    chosen = images[spec.start : spec.stop]
    if spec.rows is not None:
        chosen = chosen[:, :, slice(*spec.rows)]
    return prepare(chosen, preparation, spec.pad_to)


def _named(numbers: Sequence[int]) -> str:
    """Return the first numbers in words."""
    more = ", …" if len(numbers) > MAX_IMAGES_NAMED else ""
    return ", ".join(map(str, numbers[:MAX_IMAGES_NAMED])) + more
