"""The coordinates of stored images: what labels them in time and space.

Coordinates are copied to the output as they are stored, with all their attributes, so that every
reader decodes them as it would decode the input: units and calendars of times, packed numbers,
and the description of the coordinate system that ``grid_mapping`` names.
"""

from __future__ import annotations

import base64
import logging
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from .checksummed_json import Json
from .decoding import fill_mark
from .errors import InputError
from .locations import shown
from .metadata import Coordinate, is_grid_mapping
from .stores import (
    ZarrArray,
    attributes_of,
    dimension_names,
    members_of,
    open_array,
    open_node,
    read_part,
)

__all__ = ["read_coordinate", "read_coordinates", "read_values"]

logger = logging.getLogger(__name__)

_LABEL_KINDS = "biufMmOSUT"
"""NumPy kinds of numbers and texts that can be labels."""

_MAX_BYTES = 2**24
"""Largest coordinate with two axes or more that is copied; it is stored within the metadata."""


def read_values(location: str, path: str, start: int, stop: int) -> NDArray[Any]:
    """Return values start … stop − 1 of a coordinate with one axis, as they are stored.

    Texts are NumPy's variable-length strings.

    Raises
    ------
    InputError
        If it has several axes, or cannot be read.
    """
    array = open_array(location, path)
    if array.ndim != 1:
        raise InputError(f"{path!r} in {shown(location)} is not a coordinate: expected one axis")
    return _as_text(read_part(location, array, (slice(start, stop),)))


def read_coordinate(
    location: str, path: str, dim: str, length: int, values: NDArray[Any] | None = None
) -> Coordinate:
    """Return the first values of a coordinate with one axis, for an output.

    Parameters
    ----------
    location, path
        The store, and the path of the coordinate.
    dim, length
        Name of its axis, and how many values are returned.
    values
        These values, if they were read already.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if values is None:
        values = read_values(location, path, 0, length)
    attributes = _attributes_for_output(open_array(location, path))
    return Coordinate(path.rpartition("/")[2], dim, values, attributes)


def read_coordinates(
    location: str,
    group_path: str,
    path: str,
    sizes: Mapping[str, int],
    taken: set[str],
    *,
    with_scalars: bool,
) -> list[Coordinate]:
    """Return the coordinates of images whose axes an output has.

    These are the coordinates called like their axis, those that the images name in
    ``coordinates``, and what ``grid_mapping`` names. A coordinate that cannot be read is left out.

    Parameters
    ----------
    location, group_path, path
        The store, the group, and the path of the images.
    sizes
        The axes with their lengths, that of the images first.
    taken
        Names of coordinates that are there already.
    with_scalars
        Whether coordinates without an axis are returned: single values, and the coordinate
        system.
    """
    group = open_node(location, group_path)
    if not isinstance(group, zarr.Group):
        return []
    try:
        members = members_of(location, group)
        attributes = attributes_of(open_array(location, path))
    except InputError:
        return []
    listed = str(attributes.get("coordinates", "")).split()
    mappings = _named_mappings(attributes)
    images = next(iter(sizes))
    found: list[Coordinate] = []
    for name, member in members.items():
        dims = _dims_of(member, name, sizes)
        wanted = name in listed or name in mappings or dims == (name,)
        if member.ndim == 0:
            wanted = with_scalars and (wanted or is_grid_mapping(attributes_of(member)))
        if name in taken or dims is None or not wanted or member.dtype.kind not in _LABEL_KINDS:
            continue
        place = f"{group_path}/{name}".strip("/")
        whole = open_array(location, place)  # the group's own metadata may be outdated
        if not _has_lengths(whole, dims, sizes, images):
            continue
        if member.ndim > 1 and whole.nbytes > _MAX_BYTES:
            logger.warning(
                "the coordinate %r of %s is not copied to the output: it has %.0f MiB, and the "
                "most is %.0f MiB", name, shown(location), whole.nbytes / 2**20, _MAX_BYTES / 2**20,
            )  # fmt: skip
            continue
        try:
            selection = tuple(slice(0, sizes[dim]) for dim in dims)
            values = _as_text(read_part(location, whole, selection))
        except InputError:
            continue
        found.append(Coordinate(name, dims, values, _attributes_for_output(whole)))
    return found


def _dims_of(member: ZarrArray, name: str, sizes: Mapping[str, int]) -> tuple[str, ...] | None:
    """Return the axes of a coordinate; None if the output lacks one of them."""
    names = dimension_names(member)
    if names is None and member.ndim == 1 and name in sizes:
        return (name,)
    if names is None:
        return () if member.ndim == 0 else None
    dims = tuple(dim for dim in names if dim is not None and dim in sizes)
    return dims if len(dims) == member.ndim and len(set(dims)) == len(dims) else None


def _has_lengths(
    array: ZarrArray, dims: tuple[str, ...], sizes: Mapping[str, int], images: str
) -> bool:
    return len(dims) == array.ndim and all(
        length >= sizes[dim] if dim == images else length == sizes[dim]
        for dim, length in zip(dims, array.shape, strict=True)
    )


def _named_mappings(attributes: Mapping[str, Json]) -> list[str]:
    """Return the names in ``grid_mapping``: one, or several as in "crs: x y other: lat lon"."""
    words = str(attributes.get("grid_mapping", "")).split()
    if len(words) == 1:
        return words
    return [word.rstrip(":") for word in words if word.endswith(":")]


def _attributes_for_output(array: ZarrArray) -> dict[str, Json]:
    """Return the attributes of a coordinate for an array in Zarr v3."""
    attributes = attributes_of(array)
    attributes.pop("_ARRAY_DIMENSIONS", None)
    mark = fill_mark(array)
    if mark is not None and np.isfinite(mark):
        # xarray stores fill values of floats in Zarr v3 as doubles in base64.
        packed = base64.b64encode(struct.pack("<d", mark)).decode()
        attributes["_FillValue"] = mark if isinstance(mark, int) else packed
    return attributes


def _as_text(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "OSU":
        return values
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.flat]
    return np.array(texts, dtype=np.dtypes.StringDType()).reshape(values.shape)
