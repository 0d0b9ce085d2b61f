"""Images in: a Zarr array of images as a small value that any process can read from.

An :class:`ImageSource` says where the images are, how many there are and how their axes
lie. It holds no open file, so it travels to workers as it is; each process opens the store
at its first read and keeps it open.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from .axes import Expected, find_axes, is_image_rank
from .errors import InputError
from .locations import normalise, shown
from .metadata import Coordinate
from .sealed import Json
from .stores import (
    ZarrArray,
    attributes_of,
    dimension_names,
    form_of,
    members_of,
    open_array,
    open_node,
    read_part,
)

__all__ = ["ImageSource", "open_images"]

IMAGE_ARRAY = "image"
"""The array that is read from a group unless another is named."""

IDS = "image_id"
"""The coordinate along n that is copied to the output, where there is one of this name."""

_READABLE = "buif"
"""NumPy kinds of numbers that can be pixels."""

_LABELS = "biufMmOSUT"
"""NumPy kinds of what can be an image id."""


@dataclass(frozen=True)
class ImageSource:
    """Images in a Zarr array, opened by whoever reads.

    Parameters
    ----------
    url
        Local path or URL of the Zarr array or group; may hold credentials.
    path
        Path of the array inside the group; empty for an array.
    shape
        (n, c, *space) of what is stored.
    dtype
        Of what is stored, as NumPy writes it (``"uint8"``).
    order
        Axes of the stored array in the order (n, c, *space).
    dims
        Names of the axes in the order (n, c, *space).
    chunk
        Length of the stored chunks (or shards) along n.
    ids_name
        Name of the coordinate along n, None where there is none.
    limit
        Only the first so many images count.
    form
        Digest of how the array is stored, so that an array that has been replaced is opened
        anew.
    """

    url: str = field(repr=False)
    path: str
    shape: tuple[int, ...]
    dtype: str
    order: tuple[int, ...]
    dims: tuple[str, ...]
    chunk: int
    ids_name: str | None = None
    limit: int | None = None
    form: str = ""

    def __repr__(self) -> str:
        return (
            f"ImageSource({shown(self.url)!r}, path={self.path!r}, images={self.images}, "
            f"shape={self.image_shape}, dtype={self.dtype!r}, dims={self.dims})"
        )

    @property
    def images(self) -> int:
        """Number of images, the limit taken into account."""
        return self.shape[0] if self.limit is None else min(self.limit, self.shape[0])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(c, *space) of one image."""
        return self.shape[1:]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[1]

    @property
    def spatial_dims(self) -> tuple[str, ...]:
        """Names of the spatial axes."""
        return self.dims[2:]

    @property
    def identity(self) -> dict[str, Json]:
        """What identifies the input, its length and any credentials left out."""
        return {
            "url": shown(self.url),
            "array": self.path,
            "dtype": self.dtype,
            "image_shape": [*self.image_shape],
            "channels_last": self.order[1] != 1,
        }

    def with_limit(self, limit: int | None) -> ImageSource:
        """Return the same images, only the first ``limit`` of them.

        Raises
        ------
        InputError
            If the limit is below 1.
        """
        if limit is not None and limit < 1:
            raise InputError(f"limit {limit}; expected 1 or more images")
        return replace(self, limit=limit)

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        """Return images start … stop − 1 as (n, c, *space), C-contiguous, native byte order.

        Raises
        ------
        InputError
            If there are no such images, or they cannot be read.
        """
        return self.read_rows(start, stop, 0, self.shape[2])

    def read_rows(
        self, start: int, stop: int, row_start: int, row_stop: int
    ) -> NDArray[np.generic]:
        """Return rows row_start … row_stop − 1 of images start … stop − 1.

        Rows are positions along the first spatial axis; only chunks that hold some of them
        are read.

        Returns
        -------
        ndarray
            (stop − start, c, row_stop − row_start, *rest), C-contiguous.

        Raises
        ------
        InputError
            If there are no such images or rows, or they cannot be read.
        """
        if not (0 <= start <= stop <= self.images and 0 <= row_start <= row_stop <= self.shape[2]):
            raise InputError(
                f"images {start} to {stop}, rows {row_start} to {row_stop} of {self!r}; expected "
                f"at most {self.images} images and {self.shape[2]} rows"
            )
        selection = [slice(None)] * len(self.shape)
        selection[0] = slice(start, stop)
        selection[self.order[2]] = slice(row_start, row_stop)
        stored = read_part(self.url, _stored(self), tuple(selection))
        return np.ascontiguousarray(stored.transpose(self.order))

    def read_ids(self, start: int, stop: int) -> NDArray[Any] | None:
        """Return the coordinate along n for images start … stop − 1; None where there is none.

        Numbers as they are stored, texts as NumPy's variable-length strings.

        Raises
        ------
        InputError
            If the coordinate cannot be read.
        """
        if self.ids_name is None:
            return None
        values = _read_coordinate(self.url, _sibling(self.path, self.ids_name), start, stop)
        return _as_text(values) if values.dtype.kind in "OSU" else values

    def ids(self) -> Coordinate | None:
        """Return the labels of all images for the output; None where the input has none.

        Raises
        ------
        InputError
            If the coordinate cannot be read.
        """
        values = self.read_ids(0, self.images)
        if values is None or self.ids_name is None:
            return None
        attributes = attributes_of(open_node(self.url, _sibling(self.path, self.ids_name)))
        attributes.pop("_ARRAY_DIMENSIONS", None)
        return Coordinate(self.ids_name, self.dims[0], values, attributes)

    def spatial_coords(self) -> dict[str, NDArray[Any]]:
        """Return the coordinates of the spatial axes that the group holds, by axis name."""
        if not self.path:
            return {}
        coords: dict[str, NDArray[Any]] = {}
        for name, length in zip(self.spatial_dims, self.shape[2:], strict=True):
            try:
                values = _read_coordinate(self.url, _sibling(self.path, name), 0, length)
            except InputError:
                continue
            if values.shape == (length,) and values.dtype.kind in _READABLE:
                coords[name] = values
        return coords


def open_images(
    url: str | os.PathLike[str],
    array: str | None = None,
    *,
    expect: Expected | None = None,
    limit: int | None = None,
) -> ImageSource:
    """Open a Zarr array of images, or the one in a group, and check it.

    Parameters
    ----------
    url
        Local path or fsspec URL of an array or a group, Zarr v2 or v3.
    array
        Name of the array in the group; without it ``image``, or the only array that has 3 to
        5 axes and holds numbers.
    expect
        The model's input shape (batch, C, *space), None for what may have any size. The
        batch size is not checked.
    limit
        Only the first so many images.

    Raises
    ------
    InputError
        If there is no such array, several could be meant, or it does not fit ``expect``.

    Examples
    --------
    >>> import numpy as np, zarr
    >>> stored = zarr.create_array("memory://doc.zarr", shape=(10, 28, 28, 1), dtype="uint8")
    >>> source = open_images("memory://doc.zarr", expect=(None, 1, 28, 28))
    >>> source.shape, source.read(2, 4).shape
    ((10, 1, 28, 28), (2, 1, 28, 28))
    """
    location = normalise(url)
    path, found = _find_array(location, array)
    what = shown(location) + (f", array {path!r}," if path else "")
    if found.dtype.kind not in _READABLE:
        raise InputError(f"{what} holds {found.dtype}; expected integers or floats")
    names = dimension_names(found)
    axes = find_axes(found.shape, names, expect, what)
    shape = tuple(found.shape[axis] for axis in axes.order)
    if 0 in shape:
        raise InputError(f"{what} has shape {found.shape}; expected at least one image")
    source = ImageSource(
        url=location,
        path=path,
        shape=shape,
        dtype=found.dtype.newbyteorder("=").name,
        order=axes.order,
        dims=axes.names,
        chunk=int((found.shards or found.chunks)[0]),
        ids_name=_find_ids(location, path, found, names),
        form=form_of(found),
    )
    return source.with_limit(limit)


@lru_cache(maxsize=32)
def _stored(source: ImageSource) -> ZarrArray:
    """Open a source's array, once per process.

    Raises
    ------
    InputError
        If it is stored otherwise than when the source was made.
    """
    found = open_array(source.url, source.path)
    shape = (
        tuple(found.shape[axis] for axis in source.order) if found.ndim == len(source.order) else ()
    )
    if shape[1:] != source.image_shape or shape[0] < source.images:
        raise InputError(
            f"{shown(source.url)} has shape {found.shape} now, which does not hold {source!r}: it "
            "was replaced meanwhile; run the job again"
        )
    return found


def _find_array(location: str, name: str | None) -> tuple[str, ZarrArray]:
    """Return the path and the array that is meant."""
    node = open_node(location)
    if isinstance(node, zarr.Array):
        if name:
            raise InputError(f"{shown(location)} is an array; leave out the array name {name!r}")
        return "", node
    if name:
        return name.strip("/"), open_array(location, name.strip("/"))
    arrays = members_of(location, node)
    candidates = [key for key, found in arrays.items() if _may_be_images(found)]
    if IMAGE_ARRAY in arrays:
        candidates = [IMAGE_ARRAY]
    if len(candidates) != 1:
        listed = ", ".join(f"{key} {arrays[key].shape}" for key in sorted(candidates or arrays))
        count = f"{len(candidates)} arrays" if candidates else "no array"
        raise InputError(
            f"the group {shown(location)} holds {count} that could be images "
            f"({listed or 'nothing at all'}); name the one to read (--input-array)"
        )
    return candidates[0], open_array(location, candidates[0])


def _may_be_images(array: ZarrArray) -> bool:
    return is_image_rank(array.ndim) and array.dtype.kind in _READABLE


def _find_ids(
    location: str, path: str, images: ZarrArray, names: tuple[str | None, ...] | None
) -> str | None:
    """Return the name of the coordinate along n beside an array, if there is one."""
    group = open_node(location, path.rpartition("/")[0]) if path else None
    if not isinstance(group, zarr.Group):
        return None
    dim = names[0] if names else None
    coordinates = str(attributes_of(images).get("coordinates", "")).split()
    along = [name for name, member in members_of(location, group).items() if _is_along(member, dim)]
    along.sort(key=lambda name: (name != IDS, name != dim, name not in coordinates, name))
    for name in along:
        length = open_array(location, _sibling(path, name)).shape[0]
        if length >= images.shape[0]:
            return name
        if name == IDS:
            raise InputError(
                f"{shown(location)} has {images.shape[0]} images and {length} of {IDS!r}; "
                "expected one for each image"
            )
    return None


def _is_along(member: ZarrArray, dim: str | None) -> bool:
    """Return whether an array has one axis, which may be that of the images."""
    if member.ndim != 1 or member.dtype.kind not in _LABELS:
        return False
    names = dimension_names(member)
    return dim is None or names is None or names[0] in (dim, None)


def _sibling(path: str, name: str) -> str:
    parent, _, _ = path.rpartition("/")
    return f"{parent}/{name}" if parent else name


def _read_coordinate(location: str, path: str, start: int, stop: int) -> NDArray[Any]:
    array = open_array(location, path)
    if array.ndim != 1:
        raise InputError(f"{path!r} in {shown(location)} is no coordinate: expected one axis")
    return read_part(location, array, (slice(start, stop),))


def _as_text(values: NDArray[Any]) -> NDArray[Any]:
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
    return np.array(texts, dtype=np.dtypes.StringDType())
