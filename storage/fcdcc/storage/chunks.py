"""Encoding of one block's predictions as chunk files, and decoding, by Zarr's codecs in memory.

A block is encoded as an array of its own, whose chunks then get the names that belong to the
block's place in the output. So the bytes are known before anything is stored: they can be
checksummed, flushed, and stored by only the first of several writers.

Zarr is imported when a chunk is encoded or decoded: ``fcdcc status`` does neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .checksummed_json import Json
from .errors import DamageError, OutputError
from .layout import BlockLayout, chunk_shape

if TYPE_CHECKING:
    import zarr

__all__ = ["OutputArray", "add_array", "check_name", "decode", "encode"]

MAX_ELEMENTS = 2**40
"""Most numbers of the prediction of one image."""


@dataclass(frozen=True)
class OutputArray:
    """One array of an output, without its length.

    Parameters
    ----------
    name
        ``"prediction"``, or that of another array beside it.
    shape
        Of one image's prediction: (classes,), (classes, H, W), () …
    dtype
        ``"float32"``, ``"int64"`` …
    dims
        Names of the axes of ``shape``.
    row_axis, band
        Which axis of ``shape`` is cut into bands, and the rows of one; None if blocks hold
        whole images.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    row_axis: int | None = None
    band: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "dims", tuple(self.dims))
        if not _is_number(self.dtype):
            raise OutputError(f"array {self.name!r} of {self.dtype!r}; expected integers or floats")
        if len(self.shape) != len(self.dims) or len(set(self.dims)) != len(self.dims):
            raise OutputError(
                f"array {self.name!r} has shape {self.shape} per image and the axes {self.dims}; "
                "expected one name for each axis, all different"
            )
        if not all(size > 0 for size in self.shape):
            raise OutputError(f"array {self.name!r} has shape {self.shape}; expected sizes above 0")
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise OutputError(
                f"array {self.name!r} has shape {self.shape} per image; expected at most "
                f"{MAX_ELEMENTS} numbers"
            )
        whole = self.row_axis is None and self.band is None
        if not whole and not (
            self.row_axis in range(len(self.shape)) and self.band is not None and self.band > 0
        ):
            raise OutputError(
                f"array {self.name!r} of shape {self.shape} in bands of {self.band} along axis "
                f"{self.row_axis}; expected 1 row or more along one of its axes, or None for both"
            )

    @property
    def fill_value(self) -> float | int:
        """The stored value of an image without a prediction: NaN, −1, or the largest number."""
        kind = np.dtype(self.dtype).kind
        if kind == "f":
            return math.nan
        return -1 if kind == "i" else int(np.iinfo(self.dtype).max)

    def chunks(self, batch: int) -> tuple[int, ...]:
        """Return the shape of chunks if blocks have ``batch`` images."""
        shape = self.shape if self.band is None else self._with_rows(self.band)
        return chunk_shape(batch, shape, np.dtype(self.dtype).itemsize, self.row_axis)

    @property
    def rows(self) -> int | None:
        """Rows of a prediction; None if it is not cut into bands."""
        return None if self.row_axis is None else self.shape[self.row_axis]

    def layout(self, images: int, batch: int) -> BlockLayout:
        """Return the blocks of so many images."""
        return BlockLayout(images, batch, self.rows, self.band)

    def chunk_names(self, block: int, batch: int) -> list[str]:
        """Return the names of the chunk files of one block."""
        first, band = divmod(block, self.layout(0, batch).bands)
        names = []
        for position in np.ndindex(*self._grid(batch)):
            place = list(position)
            if self.row_axis is not None:
                place[self.row_axis] = band
            names.append(f"{self.name}/" + ".".join(["c", str(first), *map(str, place)]))
        return names

    def chunks_per_block(self, batch: int) -> int:
        """Return how many chunk files each block has."""
        return math.prod(self._grid(batch))

    def _grid(self, batch: int) -> list[int]:
        """Return how many chunks a block has along each axis of ``shape``."""
        grid = [-(-s // c) for s, c in zip(self.shape, self.chunks(batch)[1:], strict=True)]
        if self.row_axis is not None:
            grid[self.row_axis] = 1
        return grid

    def block_of(self, name: str, batch: int) -> int | None:
        """Return the block that a chunk file belongs to; None if it is not the name of a chunk."""
        place = name.removeprefix(f"{self.name}/c.").split(".")
        if len(place) != 1 + len(self.shape) or not all(text.isdecimal() for text in place):
            return None
        band = 0 if self.row_axis is None else int(place[1 + self.row_axis])
        return int(place[0]) * self.layout(0, batch).bands + band

    def of_block(self, block: int, batch: int) -> OutputArray:
        """Return the same array, but with the rows of one block only."""
        rows = self.layout(0, batch).rows_of(block)
        return self if rows is None else replace(self, shape=self._with_rows(rows[1] - rows[0]))

    def _with_rows(self, rows: int) -> tuple[int, ...]:
        """Return the shape of a prediction with so many rows."""
        return tuple(rows if i == self.row_axis else size for i, size in enumerate(self.shape))

    def as_json(self) -> dict[str, Json]:
        """Return the array as JSON."""
        members: dict[str, Json] = {
            "name": self.name,
            "shape": [*self.shape],
            "dtype": self.dtype,
            "dims": [*self.dims],
        }
        if self.band is not None:
            members |= {"row_axis": self.row_axis, "band": self.band}
        return members


def add_array(
    group: zarr.Group,
    array: OutputArray,
    images: int,
    batch: int,
    dim: str,
    attributes: Mapping[str, Json],
) -> zarr.Array[Any]:
    """Create an output array in a group."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return group.create_array(
        array.name,
        shape=(images, *array.shape),
        chunks=array.chunks(batch),
        dtype=array.dtype,
        fill_value=array.fill_value,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        filters=[],
        dimension_names=(dim, *array.dims),
        # Keys like c.3.0 put all chunks of an array into one folder, which is listed at once.
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes=dict(attributes),
        config={"write_empty_chunks": True},
    )


def encode(
    array: OutputArray, block: int, batch: int, values: NDArray[np.generic]
) -> dict[str, bytes]:
    """Return the chunk files, name to contents, of one block's predictions.

    Parameters
    ----------
    values
        (images of the block, *shape), only the block's rows, of a type that NumPy casts to the
        array's as "same_kind".

    Raises
    ------
    OutputError
        If the values have another shape or kind.
    """
    own = array.of_block(block, batch)
    if values.shape[1:] != own.shape or not 1 <= len(values) <= batch:
        raise OutputError(
            f"block {block}: predictions of shape {values.shape}; expected up to {batch} images "
            f"of {own.shape} for array {array.name!r}"
        )
    if not np.can_cast(values.dtype, array.dtype, casting="same_kind"):
        raise OutputError(
            f"block {block}: predictions of {values.dtype}; array {array.name!r} holds "
            f"{array.dtype}"
        )
    files, memory = _memory_array(own, len(values), batch)
    memory[...] = values.astype(array.dtype, copy=False)
    names = zip(own.chunk_names(0, batch), array.chunk_names(block, batch), strict=True)
    return {final: files[here].to_bytes() for here, final in names}


def decode(
    array: OutputArray, block: int, batch: int, length: int, chunks: Mapping[str, bytes]
) -> NDArray[Any]:
    """Return one block's predictions (length, *shape), only its rows, from its chunk files.

    Raises
    ------
    DamageError
        If a chunk is missing or its checksum is wrong.
    """
    from zarr.buffer import default_buffer_prototype

    own = array.of_block(block, batch)
    files, memory = _memory_array(own, length, batch)
    buffer = default_buffer_prototype().buffer
    for here, final in zip(own.chunk_names(0, batch), array.chunk_names(block, batch), strict=True):
        if final not in chunks:
            raise DamageError(f"block {block}: chunk {final} is missing; run the job again")
        files[here] = buffer.from_bytes(chunks[final])
    try:
        return np.asarray(memory[...])
    except Exception as error:
        raise DamageError(
            f"block {block}: a chunk of {array.name!r} does not decode ({error}); verify the "
            "output and run the job again"
        ) from error


def check_name(name: str) -> None:
    """Raise OutputError if an array may not have this name."""
    if not name or "/" in name or name.startswith((".", "__")):
        raise OutputError(
            f"array name {name!r}; expected one without '/' that begins with neither '.' nor '__'"
        )


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "iuf"
    except TypeError:
        return False


def _memory_array(
    array: OutputArray, length: int, batch: int
) -> tuple[dict[str, Any], zarr.Array[Any]]:
    import zarr
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files))
    return files, add_array(group, array, length, batch, "n", {})
