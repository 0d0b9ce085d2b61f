"""Images as a small value that any process can read from.

An :class:`ImageSource` has the location of the images, their number and the order of their axes.
It holds no open file, so it can be sent to workers; each process opens the store at its first read
and keeps it open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .axes import Axes
from .checksummed_json import Json
from .coordinates import read_coordinate, read_coordinates, read_values
from .decoding import Decoding
from .errors import InputError
from .locations import shown
from .metadata import Coordinate
from .stores import ZarrArray, open_array, read_part

__all__ = ["PIXEL_KINDS", "ImageSource", "StoredImages", "opened", "sibling"]

PIXEL_KINDS = "buif"
"""NumPy kinds of numbers that can be pixels."""


@dataclass(frozen=True)
class StoredImages:
    """One Zarr array of images, or of some of their channels.

    Parameters
    ----------
    path
        Path of the array inside the group; empty for an array.
    axes
        How its axes become (n, c, *space).
    channels
        Number of channels that it has.
    form
        Digest of the array's metadata: if the array is replaced by one that is stored in
        another way, or in another zip file, sources of the new one do not use the open old one.
    decoding
        How its numbers are decoded; None if they are used as they are stored.
    """

    path: str
    axes: Axes
    channels: int
    form: str = ""
    decoding: Decoding | None = None


@dataclass(frozen=True)
class ImageSource:
    """Images in Zarr arrays, which each process opens when it first reads.

    Parameters
    ----------
    url
        Local path or URL of the Zarr array or group; may contain credentials.
    parts
        The arrays; the channels of several are behind each other.
    shape
        (n, c, *space) of the images.
    dtype
        Of the images as they are read, decoded, as NumPy writes it (``"uint8"``).
    dims
        Names of the axes in the order (n, c, *space).
    stored_dtype
        Of the stored arrays; None if it is ``dtype``.
    chosen
        The channels that are used, in this order; None for all.
    ids_name
        Name of the coordinate along n, None if there is none.
    limit
        Number of images, from the first, that are used; None for all.
    image_chunk, row_chunk, chunk_bytes
        Images and rows per stored chunk, and bytes of a chunk before compression.
    """

    url: str = field(repr=False)
    parts: tuple[StoredImages, ...]
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    stored_dtype: str | None = None
    chosen: tuple[int, ...] | None = None
    ids_name: str | None = None
    limit: int | None = None
    image_chunk: int = 1
    row_chunk: int = 1
    chunk_bytes: int = 0

    def __repr__(self) -> str:
        paths = ", ".join(part.path for part in self.parts)
        return (
            f"ImageSource({shown(self.url)!r}, path={paths!r}, images={self.images}, "
            f"shape={self.image_shape}, dtype={self.dtype!r}, dims={self.dims})"
        )

    @property
    def path(self) -> str:
        """Path of the array, of several the first, inside the group; empty for an array."""
        return self.parts[0].path

    @property
    def images(self) -> int:
        """Number of images, the limit taken into account."""
        return self.shape[0] if self.limit is None else min(self.limit, self.shape[0])

    @property
    def whole(self) -> ImageSource:
        """The images as they are stored: itself, or of tiles the images that they are cut from."""
        return self

    def stored_region(
        self, start: int, stop: int, rows: tuple[int, int] | None = None
    ) -> tuple[int, int, tuple[int, int] | None]:
        """Return what some rows of images start … stop − 1 are, in terms of :attr:`whole`."""
        return start, stop, rows

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(c, *space) of one image."""
        return self.shape[1:]

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as it is read, before compression."""
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
        """What identifies the input, without its length and any credentials.

        Plain images have five members; others say how they are read in further ones.
        """
        first = self.parts[0]
        members: dict[str, Json] = {
            "url": shown(self.url),
            "array": first.path,
            "dtype": self.stored_dtype or self.dtype,
            "image_shape": [*self.image_shape],
            "channels_last": first.axes.channels_last,
        }
        if len(self.parts) > 1:
            members["arrays"] = [part.path for part in self.parts]
        if self.chosen is not None:
            members["channels"] = [*self.chosen]
        image_axis = first.axes.order[0]
        if image_axis is not None and image_axis != min(_kept(first.axes)):
            members["image_axis"] = image_axis
        decoded = {part.path: part.decoding.members for part in self.parts if part.decoding}
        if decoded:
            members["decoding"] = {**decoded}
        return members

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
        """Return rows row_start … row_stop − 1 of images start … stop − 1, decoded.

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
        self._check_rows(start, stop, row_start, row_stop)
        rest = (slice(None),) * (len(self.shape) - 3)
        return self.read_part(slice(start, stop), (slice(row_start, row_stop), *rest))

    def _check_rows(self, start: int, stop: int, row_start: int, row_stop: int) -> None:
        """Raise InputError unless there are such images with such rows."""
        if not (0 <= start <= stop <= self.images and 0 <= row_start <= row_stop <= self.shape[2]):
            raise InputError(
                f"images {start} to {stop}, rows {row_start} to {row_stop} of {self!r}; expected "
                f"at most {self.images} images and {self.shape[2]} rows"
            )

    def read_sample(self, start: int, images: int, size: int) -> NDArray[np.generic]:
        """Return a part of a few images, decoded: one chunk in their middle.

        Parameters
        ----------
        start
            The first image.
        images
            Most images that are returned.
        size
            Most bytes that are returned, unless one chunk of one image is larger.

        Returns
        -------
        ndarray
            (1 or more, c, *some of space), C-contiguous.

        Raises
        ------
        InputError
            If the images cannot be read.
        """
        array, order = opened(self, 0), self.parts[0].axes.order
        space = []
        for axis, length in zip(order[2:], self.shape[2:], strict=True):
            chunk = length if axis is None else int(array.chunks[axis])
            first = (length // 2) // chunk * chunk
            space.append(slice(first, min(first + chunk, length)))
        pixels = math.prod(part.stop - part.start for part in space)
        most = size // max(1, pixels * self.channels * np.dtype(self.dtype).itemsize)
        in_chunk = self.image_chunk - start % self.image_chunk
        count = max(1, min(images, most, in_chunk, self.images - start))
        return self.read_part(slice(start, start + count), tuple(space))

    def read_part(self, images: slice, space: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return a part of some images with their chosen channels, (n, c, *space), decoded.

        Parameters
        ----------
        images
            Which images.
        space
            Which pixels, along each spatial axis; only chunks that hold some of them are read.

        Raises
        ------
        InputError
            If they cannot be read.
        """
        parts = self._channels_by_part.items()
        read = [_read_some(self, number, images, space, own) for number, own in parts]
        joined = read[0] if len(read) == 1 else np.concatenate(read, axis=1)
        if self._joined_order is not None:
            joined = joined[:, self._joined_order]
        return np.ascontiguousarray(joined)

    @cached_property
    def _channels_by_part(self) -> dict[int, tuple[int, ...] | None]:
        """The channels that are read of each array that is needed, ascending; None for all."""
        if self.chosen is None:
            return dict.fromkeys(range(len(self.parts)))
        needed: dict[int, tuple[int, ...] | None] = {}
        first = 0
        for number, part in enumerate(self.parts):
            own = {c - first for c in self.chosen if first <= c < first + part.channels}
            if own:
                needed[number] = tuple(sorted(own)) if len(own) < part.channels else None
            first += part.channels
        return needed

    @property
    def parts_read(self) -> list[int]:
        """The numbers of the arrays of which some channel is used."""
        return [*self._channels_by_part]

    def channels_read(self, number: int) -> tuple[int, ...] | None:
        """Return the channels that are read of one of these arrays, ascending; None for all."""
        return self._channels_by_part[number]

    @cached_property
    def _joined_order(self) -> list[int] | None:
        """Where each chosen channel is among those that are read; None if they are in order."""
        if self.chosen is None:
            return None
        ascending = sorted(set(self.chosen))
        order = [ascending.index(channel) for channel in self.chosen]
        return None if order == list(range(len(ascending))) else order

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
        return read_values(self.url, sibling(self.path, self.ids_name), start, stop)

    def ids(self, values: NDArray[Any] | None = None) -> Coordinate | None:
        """Return the labels of all images for the output; None if the input has none.

        Parameters
        ----------
        values
            What :meth:`read_ids` returned for all images, if they were read already.

        Raises
        ------
        InputError
            If the coordinate cannot be read.
        """
        if self.ids_name is None:
            return None
        path = sibling(self.path, self.ids_name)
        return read_coordinate(self.url, path, self.dims[0], self.images, values)

    def coordinates(
        self, sizes: Mapping[str, int], ids: NDArray[Any] | None = None
    ) -> list[Coordinate]:
        """Return what labels the axes of predictions: image ids, times, places.

        Parameters
        ----------
        sizes
            The axes of a prediction of one image, with their lengths. Coordinates along spatial
            axes are returned where these have the length that they have in the images; if all
            have, single values and the coordinate system are returned, too.
        ids
            What :meth:`read_ids` returned for all images, if they were read already.

        Raises
        ------
        InputError
            If the image ids cannot be read.
        """
        labels = self.ids(ids)
        found = [] if labels is None else [labels]
        if not self.path:
            return found
        space = zip(self.spatial_dims, self.shape[2:], strict=True)
        same = {name: length for name, length in space if sizes.get(name) == length}
        return found + read_coordinates(
            self.url,
            self.path.rpartition("/")[0],
            self.path,
            {self.dims[0]: self.images} | same,
            {coordinate.name for coordinate in found},
            with_scalars=len(same) == len(self.spatial_dims),
        )


def sibling(path: str, name: str) -> str:
    """Return the path of an array in the same group as another one."""
    parent, _, _ = path.rpartition("/")
    return f"{parent}/{name}" if parent else name


def _kept(axes: Axes) -> list[int]:
    return [axis for axis in axes.order if axis is not None]


def _read_some(
    source: ImageSource,
    number: int,
    images: slice,
    space: tuple[slice, ...],
    channels: tuple[int, ...] | None,
) -> NDArray[Any]:
    """Return some channels of a part of some images of one array, as (n, c, *space)."""
    part = source.parts[number]
    axes = part.axes
    image_axis, channel_axis = axes.order[:2]
    selection: list[slice | list[int]] = [slice(None)] * (len(_kept(axes)) + len(axes.dropped))
    if image_axis is not None:
        selection[image_axis] = images
    for axis, part_of_axis in zip(axes.order[2:], space, strict=True):
        if axis is not None:
            selection[axis] = part_of_axis
    if channel_axis is not None and channels is not None:
        first, last = channels[0], channels[-1]
        is_run = last - first == len(channels) - 1
        selection[channel_axis] = slice(first, last + 1) if is_run else list(channels)
    stored = read_part(source.url, opened(source, number), tuple(selection))
    if part.decoding is not None:
        stored = part.decoding.apply(stored)
    arranged = axes.arrange(stored)
    return arranged if image_axis is not None else arranged[images]


@lru_cache(maxsize=128)
def opened(source: ImageSource, number: int) -> ZarrArray:
    """Open one of a source's arrays, once per process.

    Raises
    ------
    InputError
        If it is not stored as it was when the source was made.
    """
    part = source.parts[number]
    found = open_array(source.url, part.path)
    axes = part.axes
    same_rank = found.ndim == len(_kept(axes)) + len(axes.dropped)
    shape = axes.shape_of(found.shape) if same_rank else (0,)
    if (
        shape[1:] != (part.channels, *source.shape[2:])
        or shape[0] < source.images
        or any(found.shape[axis] != 1 for axis in axes.dropped)
    ):
        raise InputError(
            f"{shown(source.url)} has shape {found.shape} now, which does not hold {source!r}: it "
            "was replaced during the run; run the job again"
        )
    return found
