"""Images as a small value that any process can read from.

An :class:`ImageSource` has the location of the images, their number and the order of their axes.
It holds no open file, so it can be sent to workers; each process opens the store at its first read
and keeps it open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checksummed_json import Json
from .errors import InputError
from .locations import shown
from .metadata import Coordinate
from .stores import ZarrArray, attributes_of, open_array, open_node, read_part

__all__ = ["PIXEL_KINDS", "ImageSource", "sibling"]

PIXEL_KINDS = "buif"
"""NumPy kinds of numbers that can be pixels."""


@dataclass(frozen=True)
class ImageSource:
    """Images in a Zarr array, which each process opens when it first reads.

    Parameters
    ----------
    url
        Local path or URL of the Zarr array or group; may contain credentials.
    path
        Path of the array inside the group; empty for an array.
    shape
        (n, c, *space) of the stored array.
    dtype
        Of the stored array, as NumPy writes it (``"uint8"``).
    order
        Axes of the stored array in the order (n, c, *space).
    dims
        Names of the axes in the order (n, c, *space).
    ids_name
        Name of the coordinate along n, None if there is none.
    limit
        Number of images, from the first, that are used; None for all.
    form
        Digest of the array's metadata: if the array is replaced by one that is stored in
        another way, sources of the new one do not use the open old one.
    single
        Whether the stored array is one image, without the axis n.
    image_chunk, row_chunk, chunk_bytes
        Images and rows per stored chunk, and bytes of a chunk before compression.
    """

    url: str = field(repr=False)
    path: str
    shape: tuple[int, ...]
    dtype: str
    order: tuple[int, ...]
    dims: tuple[str, ...]
    ids_name: str | None = None
    limit: int | None = None
    form: str = ""
    single: bool = False
    image_chunk: int = 1
    row_chunk: int = 1
    chunk_bytes: int = 0

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
    def image_bytes(self) -> int:
        """Bytes of one image as it is stored, before compression."""
        return math.prod(self.image_shape) * np.dtype(self.dtype).itemsize

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
        """What identifies the input, without its length and any credentials."""
        return {
            "url": shown(self.url),
            "array": self.path,
            "dtype": self.dtype,
            "image_shape": [*self.image_shape],
            "channels_last": self.order[1] != 1,
        }

    def with_limit(self, limit: int | None) -> ImageSource:
        """Return a source of the first ``limit`` images.

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
        if self.single:
            stored = read_part(self.url, _stored(self), tuple(selection[1:]))[np.newaxis]
            stored = stored[start:stop]
        else:
            stored = read_part(self.url, _stored(self), tuple(selection))
        return np.ascontiguousarray(stored.transpose(self.order))

    def read_ids(self, start: int, stop: int) -> NDArray[Any] | None:
        """Return the coordinate along n for images start … stop − 1; None if there is none.

        Numbers as they are stored, texts as NumPy's variable-length strings.

        Raises
        ------
        InputError
            If the coordinate cannot be read.
        """
        if self.ids_name is None:
            return None
        values = _read_coordinate(self.url, sibling(self.path, self.ids_name), start, stop)
        return _as_text(values) if values.dtype.kind in "OSU" else values

    def ids(self) -> Coordinate | None:
        """Return the labels of all images for the output; None if the input has none.

        Raises
        ------
        InputError
            If the coordinate cannot be read.
        """
        values = self.read_ids(0, self.images)
        if values is None or self.ids_name is None:
            return None
        attributes = attributes_of(open_node(self.url, sibling(self.path, self.ids_name)))
        attributes.pop("_ARRAY_DIMENSIONS", None)
        return Coordinate(self.ids_name, self.dims[0], values, attributes)

    def spatial_coords(self) -> dict[str, NDArray[Any]]:
        """Return the coordinates of the spatial axes that the group holds, by axis name."""
        if not self.path:
            return {}
        coords: dict[str, NDArray[Any]] = {}
        for name, length in zip(self.spatial_dims, self.shape[2:], strict=True):
            try:
                values = _read_coordinate(self.url, sibling(self.path, name), 0, length)
            except InputError:
                continue
            if values.shape == (length,) and values.dtype.kind in PIXEL_KINDS:
                coords[name] = values
        return coords


@lru_cache(maxsize=32)
def _stored(source: ImageSource) -> ZarrArray:
    """Open a source's array, once per process.

    Raises
    ------
    InputError
        If it is not stored as it was when the source was made.
    """
    found = open_array(source.url, source.path)
    stored = (1, *found.shape) if source.single else found.shape
    same_rank = len(stored) == len(source.order)
    shape = tuple(stored[axis] for axis in source.order) if same_rank else (0,)
    if shape[1:] != source.image_shape or shape[0] < source.images:
        raise InputError(
            f"{shown(source.url)} has shape {found.shape} now, which does not hold {source!r}: it "
            "was replaced during the run; run the job again"
        )
    return found


def sibling(path: str, name: str) -> str:
    """Return the path of an array in the same group as another one."""
    parent, _, _ = path.rpartition("/")
    return f"{parent}/{name}" if parent else name


def _read_coordinate(location: str, path: str, start: int, stop: int) -> NDArray[Any]:
    array = open_array(location, path)
    if array.ndim != 1:
        raise InputError(f"{path!r} in {shown(location)} is not a coordinate: expected one axis")
    return read_part(location, array, (slice(start, stop),))


def _as_text(values: NDArray[Any]) -> NDArray[Any]:
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
    return np.array(texts, dtype=np.dtypes.StringDType())
