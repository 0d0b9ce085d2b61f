"""Predictions of one block to stored chunks and back, by Zarr's own codecs, in memory.

A block is encoded as an array of its own, whose chunks are then given the block's place in
the output. So the bytes are known before anything is stored: they can be checksummed,
flushed, and stored by the first of several writers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import default_buffer_prototype
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from .errors import DamageError, OutputError
from .layout import chunk_shape
from .sealed import Json

__all__ = ["OutputArray", "add_array", "check_name", "decode", "encode"]


@dataclass(frozen=True)
class OutputArray:
    """One array of predictions, without its length.

    Parameters
    ----------
    name
        ``"prediction"``, or what goes with it.
    shape
        Of one image's prediction: (classes,), (classes, H, W), () …
    dtype
        ``"float32"``, ``"int64"`` …
    dims
        Names of the axes of ``shape``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]

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

    @property
    def fill_value(self) -> float | int:
        """What an image reads as that has no prediction: NaN, −1, or the largest number."""
        kind = np.dtype(self.dtype).kind
        if kind == "f":
            return math.nan
        return -1 if kind == "i" else int(np.iinfo(self.dtype).max)

    def chunks(self, batch: int) -> tuple[int, ...]:
        """Return the chunk shape where blocks have ``batch`` images."""
        return chunk_shape(batch, self.shape, np.dtype(self.dtype).itemsize)

    def chunk_names(self, block: int, batch: int) -> list[str]:
        """Return the names of the chunk files of one block."""
        grid = [math.ceil(s / c) for s, c in zip(self.shape, self.chunks(batch)[1:], strict=True)]
        return [
            f"{self.name}/" + ".".join(["c", str(block), *map(str, position)])
            for position in np.ndindex(*grid)
        ]

    def as_json(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {
            "name": self.name,
            "shape": [*self.shape],
            "dtype": self.dtype,
            "dims": [*self.dims],
        }


def add_array(
    group: zarr.Group,
    array: OutputArray,
    images: int,
    batch: int,
    dim: str,
    attributes: Mapping[str, Json],
) -> zarr.Array[Any]:
    """Create an output array in a group, with all that is left to defaults elsewhere."""
    return group.create_array(
        array.name,
        shape=(images, *array.shape),
        chunks=array.chunks(batch),
        dtype=array.dtype,
        fill_value=array.fill_value,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        filters=[],
        dimension_names=(dim, *array.dims),
        # Keys like c.3.0: all chunks of an array in one folder, listed at once.
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
        (images of the block, *shape), of any type that casts to the array's without loss
        of kind.

    Raises
    ------
    OutputError
        If the values have another shape or kind.
    """
    if values.shape[1:] != array.shape or not 1 <= len(values) <= batch:
        raise OutputError(
            f"block {block}: predictions of shape {values.shape}; expected up to {batch} images "
            f"of {array.shape} for array {array.name!r}"
        )
    if not np.can_cast(values.dtype, array.dtype, casting="same_kind"):
        raise OutputError(
            f"block {block}: predictions of {values.dtype}; array {array.name!r} holds "
            f"{array.dtype}"
        )
    files, memory = _memory_array(array, len(values), batch)
    memory[...] = values.astype(array.dtype, copy=False)
    names = zip(array.chunk_names(0, batch), array.chunk_names(block, batch), strict=True)
    return {final: files[own].to_bytes() for own, final in names}


def decode(
    array: OutputArray, block: int, batch: int, length: int, chunks: Mapping[str, bytes]
) -> NDArray[Any]:
    """Return one block's predictions (length, *shape) from its chunk files.

    Raises
    ------
    DamageError
        If a chunk is missing or its checksum is wrong.
    """
    files, memory = _memory_array(array, length, batch)
    buffer = default_buffer_prototype().buffer
    for own, final in zip(
        array.chunk_names(0, batch), array.chunk_names(block, batch), strict=True
    ):
        if final not in chunks:
            raise DamageError(f"block {block}: chunk {final} is missing; run the job again")
        files[own] = buffer.from_bytes(chunks[final])
    try:
        return np.asarray(memory[...])
    except Exception as error:
        raise DamageError(
            f"block {block}: a chunk of {array.name!r} does not decode ({error}); verify the "
            "output and run the job again"
        ) from error


def check_name(name: str) -> None:
    """Raise OutputError unless an array may have this name."""
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
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files))
    return files, add_array(group, array, length, batch, "n", {})
