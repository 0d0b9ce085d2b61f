"""Opens images: finds the array of a Zarr group and its axes, and checks that they fit a model."""

from __future__ import annotations

import math
import os

import zarr

from .axes import Expected, find_axes, is_image_rank
from .errors import InputError
from .locations import normalise, shown
from .ome_zarr import full_resolution
from .sources import PIXEL_KINDS, ImageSource, sibling
from .stores import (
    ZarrArray,
    attributes_of,
    dimension_names,
    form_of,
    members_of,
    open_array,
    open_node,
)

__all__ = ["ImageSource", "open_images"]

IMAGE_ARRAY = "image"
"""The array that is read from a group unless another is named."""

IDS = "image_id"
"""The coordinate along n that is copied to the output, if there is one of this name."""

_OUTPUT_NAMES = ("prediction", "class", "rank", "score")
"""Names of arrays and axes of the output, which a copied coordinate cannot have."""

MAX_PIXELS = 2**40
"""Most numbers of one image."""

_ID_KINDS = "biufMmOSUT"
"""NumPy kinds that image ids may have."""


def open_images(
    url: str | os.PathLike[str],
    array: str | None = None,
    *,
    expect: Expected | None = None,
    limit: int | None = None,
) -> ImageSource:
    """Open a Zarr array of images, alone or in a group, and check it.

    Parameters
    ----------
    url
        Local path or fsspec URL of an array or a group, Zarr v2 or v3, or of one OME-Zarr
        image with the axes (c, y, x), which is a batch of one.
    array
        Name of the array in the group; by default ``image``, or the only array of numbers that
        has 3 to 5 axes.
    expect
        The model's input shape (batch, C, *space), None for an axis of any size. The batch
        size is not checked.
    limit
        Number of images, from the first, to use; by default all.

    Raises
    ------
    InputError
        If there is no such array, several are possible, or it does not fit ``expect``.

    Examples
    --------
    >>> import numpy as np, zarr
    >>> stored = zarr.create_array("memory://doc.zarr", shape=(10, 28, 28, 1), dtype="uint8")
    >>> source = open_images("memory://doc.zarr", expect=(None, 1, 28, 28))
    >>> source.shape, source.read(2, 4).shape
    ((10, 1, 28, 28), (2, 1, 28, 28))
    """
    location = normalise(url)
    path, found, single = _find_array(location, array)
    what = shown(location) + (f", array {path!r}," if path else "")
    if found.dtype.kind not in PIXEL_KINDS:
        raise InputError(f"{what} holds {found.dtype}; expected integers or floats")
    names = ("n", "c", "y", "x") if single else dimension_names(found)
    stored_shape = (1, *found.shape) if single else found.shape
    axes = find_axes(stored_shape, names, expect, what)
    shape = tuple(stored_shape[axis] for axis in axes.order)
    if 0 in shape:
        raise InputError(f"{what} has shape {found.shape}; expected at least one image")
    if math.prod(shape[1:]) > MAX_PIXELS:
        raise InputError(
            f"{what} has shape {found.shape}; expected images of at most {MAX_PIXELS} numbers: cut "
            "them into pieces"
        )
    source = ImageSource(
        url=location,
        path=path,
        shape=shape,
        dtype=found.dtype.newbyteorder("=").name,
        order=axes.order,
        dims=axes.names,
        ids_name=None if single else _find_ids(location, path, found, axes.names),
        form=form_of(found),
        single=single,
        image_chunk=1 if single else int(found.chunks[axes.order[0]]),
        row_chunk=int(found.chunks[axes.order[2] - single]),
        chunk_bytes=math.prod(found.chunks) * found.dtype.itemsize,
    )
    return source.with_limit(limit)


def _find_array(location: str, name: str | None) -> tuple[str, ZarrArray, bool]:
    """Return the path of the array, the array, and whether it is a single image."""
    node = open_node(location)
    if isinstance(node, zarr.Array):
        if name:
            raise InputError(f"{shown(location)} is an array; leave out the array name {name!r}")
        return "", node, False
    if name:
        return name.strip("/"), open_array(location, name.strip("/")), False
    single = full_resolution(attributes_of(node), shown(location))
    if single is not None:
        return single, open_array(location, single), True
    arrays = members_of(location, node)
    candidates = [key for key, found in arrays.items() if _may_be_images(found)]
    if IMAGE_ARRAY in arrays:
        candidates = [IMAGE_ARRAY]
    if len(candidates) != 1:
        listed = ", ".join(f"{key} {arrays[key].shape}" for key in sorted(candidates or arrays))
        count = f"{len(candidates)} arrays" if candidates else "no array"
        raise InputError(
            f"the group {shown(location)} holds {count} that could be images "
            f"({listed or 'it has no arrays'}); name the one to read (--input-array)"
        )
    return candidates[0], open_array(location, candidates[0]), False


def _may_be_images(array: ZarrArray) -> bool:
    return is_image_rank(array.ndim) and array.dtype.kind in PIXEL_KINDS


def _find_ids(location: str, path: str, images: ZarrArray, dims: tuple[str, ...]) -> str | None:
    """Return the name of the coordinate along n in the array's group, if there is one.

    ``dims`` are the names of the axes in the order (n, c, *space). Coordinates whose names the
    output uses for something else are skipped.
    """
    group = open_node(location, path.rpartition("/")[0]) if path else None
    if not isinstance(group, zarr.Group):
        return None
    dim = dims[0] if dimension_names(images) else None
    coordinates = str(attributes_of(images).get("coordinates", "")).split()
    along = [
        name
        for name, member in members_of(location, group).items()
        if _is_along(member, dim) and name not in (*dims[1:], *_OUTPUT_NAMES)
    ]
    along.sort(key=lambda name: (name != IDS, name != dim, name not in coordinates, name))
    for name in along:
        length = open_array(location, sibling(path, name)).shape[0]
        if length >= images.shape[0]:
            return name
        if name == IDS:
            raise InputError(
                f"{shown(location)} has {images.shape[0]} images and {length} of {IDS!r}; "
                "expected one for each image"
            )
    return None


def _is_along(member: ZarrArray, dim: str | None) -> bool:
    """Return whether an array has one axis that may be that of the images."""
    if member.ndim != 1 or member.dtype.kind not in _ID_KINDS:
        return False
    names = dimension_names(member)
    return dim is None or names is None or names[0] in (dim, None)
