"""Opens images: finds the arrays of a Zarr store and their axes, and checks them for a model."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import zarr

from .axes import Axes, Expected, find_axes, is_image_rank
from .checksummed_json import Json, canonical
from .coordinates import read_values
from .decoding import Decoding
from .errors import InputError
from .locations import normalise, shown
from .ome_zarr import OmeImage, images_inside, ome_image
from .sources import PIXEL_KINDS, ImageSource, StoredImages, sibling
from .stores import (
    ZarrArray,
    attributes_of,
    dimension_names,
    form_of,
    members_of,
    open_array,
    open_node,
)

__all__ = ["ImageSource", "channel_numbers", "open_identified_images", "open_images"]

IMAGE_ARRAY = "image"
"""The array that is read from a group unless another is named."""

IDS = "image_id"
"""The coordinate along n that is copied to the output, if there is one of this name."""

MAX_PATHS_NAMED = 20
"""Most images inside a store that a message names."""

_OUTPUT_NAMES = ("prediction", "class", "rank", "score")
"""Names of arrays and axes of the output, which a copied coordinate cannot have."""

MAX_PIXELS = 2**40
"""Most numbers of one image."""

_ID_KINDS = "biufMmOSUT"
"""NumPy kinds that image ids may have."""


def open_images(
    url: str | os.PathLike[str],
    array: str | Sequence[str] | None = None,
    *,
    channels: Sequence[str | int] | None = None,
    expect: Expected | None = None,
    limit: int | None = None,
) -> ImageSource:
    """Open Zarr arrays of images, alone or in a group, and check them.

    Parameters
    ----------
    url
        Local path or fsspec URL of an array or a group, Zarr v2 or v3, or the path of a zip file
        that holds one.
    array
        Path of the array in the group, or of an OME-Zarr image; several are stacked as channels.
        By default ``image``, or the only array of numbers that has 3 to 5 axes, or the only
        OME-Zarr image.
    channels
        The channels to use, in this order: numbers that count from 0, or names. By default all.
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
    paths = [array] if isinstance(array, str) else [*(array or (None,))]
    found = [_find_array(location, path) for path in paths]
    # The number of channels is checked once these are selected.
    selects = len(found) > 1 or channels is not None
    wanted = (expect[0], None, *expect[2:]) if selects and expect is not None else expect
    read = [(one, _axes_of(one, wanted)) for one in found]
    first, axes = read[0]
    parts = tuple(
        StoredImages(
            path=one.path,
            axes=own,
            channels=own.shape_of(one.array.shape)[1],
            form=form_of(location, one.array),
            decoding=Decoding.of(one.array),
        )
        for one, own in read
    )
    stored = axes.shape_of(first.array.shape)
    shape = (stored[0], sum(part.channels for part in parts), *stored[2:])
    if 0 in shape:
        raise InputError(f"{first.what} has shape {first.array.shape}; expected at least one image")
    if math.prod(shape[1:]) > MAX_PIXELS:
        raise InputError(
            f"{first.what} has shape {first.array.shape}; expected images of at most {MAX_PIXELS} "
            "numbers: cut them into pieces"
        )
    dtype = first.array.dtype.newbyteorder("=").name
    decoded = parts[0].decoding.dtype if parts[0].decoding else dtype
    _check_alike(read, parts, stored, decoded)
    chosen = None
    if channels is not None:
        names = _names_of_channels(location, read, parts)
        chosen = channel_numbers(channels, names, first.what)
        chosen = None if chosen == list(range(len(names))) else chosen
        shape = (shape[0], len(chosen or names), *shape[2:])
    if selects and expect is not None and expect[1] not in (None, shape[1]):
        raise InputError(
            f"{shape[1]} channels are selected and the model takes {expect[1]}: give as many "
            "(--channels, --input-array)"
        )
    source = ImageSource(
        url=location,
        parts=parts,
        shape=shape,
        dtype=decoded,
        dims=axes.names,
        stored_dtype=None if decoded == dtype else dtype,
        chosen=None if chosen is None else tuple(chosen),
        ids_name=_find_ids(location, first, axes),
        image_chunk=_chunk_along(first.array, axes.order[0]),
        row_chunk=_chunk_along(first.array, axes.order[2]),
        chunk_bytes=math.prod(first.array.chunks) * first.array.dtype.itemsize,
    )
    return source.with_limit(limit)


def open_identified_images(identity: Mapping[str, Json]) -> ImageSource:
    """Open the images that an output was made from, by what it says of them.

    Parameters
    ----------
    identity
        :attr:`ImageSource.identity`, which has no credentials.

    Raises
    ------
    InputError
        If they are not there, or are read in another way now.
    """
    url, path, arrays = identity.get("url"), identity.get("array"), identity.get("arrays")
    shape, channels = identity.get("image_shape"), identity.get("channels")
    if not isinstance(url, str) or not isinstance(path, str) or not isinstance(shape, list):
        raise InputError("the output does not say where its images are")
    if "::" in url:  # such a driver may do more than read, and the output may be of anybody
        raise InputError(f"images at a chained URL ({url}) are only opened by a run")
    names = [str(name) for name in arrays] if isinstance(arrays, list) else [path]
    found = open_images(
        url,
        None if names == [""] else names,
        channels=[str(number) for number in channels] if isinstance(channels, list) else None,
        expect=(None, *(size if isinstance(size, int) else None for size in shape)),
    )
    if canonical(found.identity) != canonical({**identity}):
        raise InputError(f"{found!r} is read in another way than when the predictions were made")
    return found


@dataclass(frozen=True)
class _Found:
    """An array of images that was found, and what messages call it.

    ``ome`` is the OME-Zarr image that it belongs to, if any.
    """

    path: str
    array: ZarrArray
    what: str
    ome: OmeImage | None


def _find_array(location: str, name: str | None) -> _Found:
    """Return the array of a name, or the one that is read if none is named.

    Raises
    ------
    InputError
        If there is none, or several are possible.
    """
    node = open_node(location)
    if isinstance(node, zarr.Array):
        if name:
            raise InputError(f"{shown(location)} is an array; leave out the array name {name!r}")
        parent, _, last = location.rpartition("/")
        # An array of an OME-Zarr image may be named by its own path.
        ome = None if dimension_names(node) is not None else _ome_image_at(parent, "", last)
        return _found(location, "", node, ome)
    path = _default_path(location, node) if name is None else name.strip("/")
    found = open_node(location, path)
    if isinstance(found, zarr.Group):
        ome = ome_image(attributes_of(found))
        if ome is None:
            inside = _images_inside(location, path)
            if len(inside) == 1:
                return _find_array(location, f"{path}/{inside[0]}")
            raise InputError(
                f"{path!r} in {shown(location)} is a group; expected an array"
                + (f": {_listed_paths([f'{path}/{one}' for one in inside])}" if inside else "")
            )
        path = f"{path}/{ome.paths[0]}".strip("/")
        return _found(location, path, open_array(location, path), ome)
    group, _, last = path.rpartition("/")
    return _found(location, path, found, _ome_image_at(location, group, last))


def _found(location: str, path: str, array: ZarrArray, ome: OmeImage | None) -> _Found:
    what = shown(location) + (f", array {path!r}," if path else "")
    if array.dtype.kind not in PIXEL_KINDS:
        raise InputError(f"{what} holds {array.dtype}; expected integers or floats")
    return _Found(path, array, what, ome)


def _ome_image_at(location: str, group: str, last: str) -> OmeImage | None:
    """Return the OME-Zarr image in a group if one of its arrays is called ``last``."""
    attributes = _attributes_at(location, group)
    ome = None if attributes is None else ome_image(attributes)
    return ome if ome is not None and last in ome.paths else None


def _attributes_at(location: str, path: str) -> Mapping[str, Json] | None:
    """Return the attributes of a group; None if there is none."""
    try:
        node = open_node(location, path)
    except InputError:
        return None
    return attributes_of(node) if isinstance(node, zarr.Group) else None


def _images_inside(location: str, path: str = "") -> list[str]:
    """Return the paths of OME-Zarr images inside a plate, a well or a series."""
    where = f"{shown(location)}/{path}".rstrip("/")
    return images_inside(
        lambda inner: _attributes_at(location, f"{path}/{inner}".strip("/")),
        where,
        MAX_PATHS_NAMED + 1,
    )


def _default_path(location: str, group: zarr.Group) -> str:
    """Return the path of the array that is read from a group unless another is named."""
    if ome_image(attributes_of(group)) is not None:
        return ""
    arrays = members_of(location, group)
    candidates = [key for key, found in arrays.items() if _may_be_images(found)]
    if IMAGE_ARRAY in arrays:
        candidates = [IMAGE_ARRAY]
    if not candidates:
        candidates = _images_inside(location)
        if len(candidates) > 1:
            raise InputError(
                f"{shown(location)} holds several images: {_listed_paths(candidates)}; name the "
                f"one to read (--input-array {candidates[0]})"
            )
    if len(candidates) != 1:
        listed = ", ".join(f"{key} {arrays[key].shape}" for key in sorted(candidates or arrays))
        count = f"{len(candidates)} arrays" if candidates else "no array"
        raise InputError(
            f"the group {shown(location)} holds {count} that could be images "
            f"({listed or 'it has no arrays'}); name the one to read (--input-array), or several "
            "to stack them as channels"
        )
    return candidates[0]


def _listed_paths(paths: Sequence[str]) -> str:
    more = ", …" if len(paths) > MAX_PATHS_NAMED else ""
    return ", ".join(paths[:MAX_PATHS_NAMED]) + more


def _may_be_images(array: ZarrArray) -> bool:
    return is_image_rank(array.ndim) and array.dtype.kind in PIXEL_KINDS


def _axes_of(found: _Found, expect: Expected | None) -> Axes:
    """Return the axes of an array, by the metadata of its group if there is some."""
    array, ome = found.array, found.ome
    names, kinds = dimension_names(array), None
    if ome is not None and len(ome.axes) == array.ndim:
        names, kinds = ome.axes, ome.kinds
    return find_axes(array.shape, names, expect, found.what, kinds)


def _check_alike(
    read: Sequence[tuple[_Found, Axes]],
    parts: Sequence[StoredImages],
    shape: tuple[int, ...],
    dtype: str,
) -> None:
    """Raise InputError unless arrays that are stacked have the same images and type."""
    for (found, axes), part in zip(read, parts, strict=True):
        own = axes.shape_of(found.array.shape)
        stored = found.array.dtype.newbyteorder("=").name
        values = part.decoding.dtype if part.decoding else stored
        if (own[0], *own[2:]) != (shape[0], *shape[2:]) or values != dtype:
            raise InputError(
                f"{found.what} has shape {found.array.shape} and type {values}, and the first "
                f"array {read[0][0].array.shape} and {dtype}: expected the same images in each "
                "array that is stacked"
            )


def _names_of_channels(
    location: str, read: Sequence[tuple[_Found, Axes]], parts: Sequence[StoredImages]
) -> list[str | None]:
    """Return the name of each channel; None where there is none."""
    names: list[str | None] = []
    for (found, axes), part in zip(read, parts, strict=True):
        own = _own_channel_names(location, found, axes)
        if len(own) != part.channels:
            own = [found.path.rpartition("/")[2]] if part.channels == 1 else []
        names += own or [None] * part.channels
    return names


def _own_channel_names(location: str, found: _Found, axes: Axes) -> list[str]:
    if found.ome is not None and found.ome.channels:
        return [*found.ome.channels]
    axis, names = axes.order[1], dimension_names(found.array)
    if axis is None or names is None or names[axis] is None or not found.path:
        return []
    try:
        path = sibling(found.path, str(names[axis]))
        values = read_values(location, path, 0, found.array.shape[axis])
    except InputError:
        return []
    return [str(value) for value in values.tolist()]


def channel_numbers(
    channels: Sequence[str | int], names: Sequence[str | None], what: str
) -> list[int]:
    """Return the numbers of channels that are given by number or by name.

    Parameters
    ----------
    channels
        Numbers that count from 0, also as texts, and names.
    names
        The name of every channel; None for one without a name.
    what
        The images, as messages name them.

    Raises
    ------
    InputError
        If none is given, or there is no such channel.
    """
    if not channels:
        raise InputError("no channels are selected; expected one or more")
    return [_number_of(channel, names, what) for channel in channels]


def _number_of(channel: str | int, names: Sequence[str | None], what: str) -> int:
    text = str(channel).strip()
    if text.isdecimal():
        if int(text) < len(names):
            return int(text)
    else:
        lower = [None if name is None else name.lower() for name in names]
        for known, wanted in ((names, text), (lower, text.lower())):
            if known.count(wanted) == 1:
                return known.index(wanted)
    listed = ", ".join(f"{number} {name or ''}".strip() for number, name in enumerate(names))
    raise InputError(f"channel {text!r} of {what} is not there; expected some of: {listed}")


def _chunk_along(array: ZarrArray, axis: int | None) -> int:
    return 1 if axis is None else int(array.chunks[axis])


def _find_ids(location: str, found: _Found, axes: Axes) -> str | None:
    """Return the name of the coordinate along n in the array's group, if there is one.

    Coordinates whose names the output uses for something else are skipped.
    """
    axis, path, images = axes.order[0], found.path, found.array
    group = open_node(location, path.rpartition("/")[0]) if path and axis is not None else None
    if axis is None or not isinstance(group, zarr.Group):
        return None
    dims = axes.names
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
        if length >= images.shape[axis]:
            return name
        if name == IDS:
            raise InputError(
                f"{shown(location)} has {images.shape[axis]} images and {length} of {IDS!r}; "
                "expected one for each image"
            )
    return None


def _is_along(member: ZarrArray, dim: str | None) -> bool:
    """Return whether an array has one axis that may be that of the images."""
    if member.ndim != 1 or member.dtype.kind not in _ID_KINDS:
        return False
    names = dimension_names(member)
    return dim is None or names is None or names[0] in (dim, None)
