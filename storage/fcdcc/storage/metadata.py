"""The files of an output that belong to no block: ``zarr.json`` files and coordinates.

All of them are made in memory, by zarr itself, before anything is stored. The group's metadata is
consolidated here and not by ``zarr.consolidate_metadata``, so that it agrees with the arrays from
the moment when it is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from .checksummed_json import Json
from .chunks import add_array, check_name
from .errors import OutputError
from .records import Chunk
from .runs import Contents, StoredRun

__all__ = ["Coordinate", "is_grid_mapping", "make_contents"]

_GRID_MAPPING = ("grid_mapping_name", "crs_wkt", "spatial_ref", "GeoTransform")

_COORDINATE_CHUNK = 65536
"""Values per chunk of a coordinate."""


@dataclass(frozen=True, eq=False)
class Coordinate:
    """Labels along one axis of the output, along several, or one value for all of it.

    Parameters
    ----------
    name
        Of the array; if it equals ``dim``, xarray makes it an index.
    dim
        The axis that it labels, or several, or none.
    values
        One per position: numbers or texts.
    attributes
        Attributes of the array, such as units of time.
    """

    name: str
    dim: str | tuple[str, ...]
    values: NDArray[Any]
    attributes: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        values = np.asarray(self.values)
        if values.ndim != len(self.dims) or values.dtype.kind not in "biufTUOMm":
            expected = {1: "one axis"}.get(len(self.dims), f"{len(self.dims)} axes")
            raise OutputError(
                f"coordinate {self.name!r} has shape {values.shape} and type {values.dtype}; "
                f"expected {expected} of numbers or texts"
            )
        if values.dtype.kind in "UO":
            texts = [str(v) for v in values.flat]
            values = np.array(texts, dtype=np.dtypes.StringDType()).reshape(values.shape)
        object.__setattr__(self, "values", values)

    @property
    def dims(self) -> tuple[str, ...]:
        """The axes that it labels."""
        return (self.dim,) if isinstance(self.dim, str) else self.dim


def is_grid_mapping(attributes: Mapping[str, Json]) -> bool:
    """Return whether an array with these attributes describes a coordinate system (CF)."""
    return any(name in attributes for name in _GRID_MAPPING)


def make_contents(
    run: StoredRun,
    images: int,
    coordinates: Sequence[Coordinate],
    kept: Contents | None = None,
    coordinate_chunk: int | None = None,
) -> tuple[Contents, dict[str, bytes]]:
    """Return the files of an output with so many images that belong to no block.

    Parameters
    ----------
    run
        The job, with its arrays.
    images
        Number of images.
    coordinates
        Labels; those along ``run.dim`` need ``images`` values or more, further ones are cut off.
    kept
        The contents of the output before: its coordinates stay, unless they are given again
        or lie along ``run.dim``.
    coordinate_chunk
        Values per chunk of a coordinate; by default all, up to a limit.

    Returns
    -------
    (Contents, dict)
        The dict maps names to bytes in the order in which to write the files, the group's
        ``zarr.json`` last.

    Raises
    ------
    OutputError
        If a coordinate does not fit the arrays.
    """
    sizes = _sizes(run, images)
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), attributes=dict(run.attributes))
    _add_coordinates(group, run, sizes, coordinates, coordinate_chunk)
    kept_texts, kept_blobs = _kept(run, kept, coordinates)
    labels = {c.name for c in coordinates} | {_array_of(name) for name in kept_texts}
    mapping = _grid_mapping(coordinates, kept_texts)
    for array in run.arrays:
        apart = sorted(labels - {run.dim, *array.dims})
        attributes: dict[str, Json] = {"coordinates": " ".join(apart)} if apart else {}
        if mapping is not None:
            attributes["grid_mapping"] = mapping
        add_array(group, array, images, run.batch, run.dim, attributes)
    made = {name: buffer.to_bytes() for name, buffer in files.items()}
    texts = {n: data.decode() for n, data in made.items() if n.endswith("zarr.json")} | kept_texts
    texts["zarr.json"] = _consolidated(texts)
    along_n = {c.name for c in coordinates if run.dim in c.dims}
    chunks = {name: data for name, data in made.items() if name not in texts}
    blobs = {n: data for n, data in chunks.items() if _array_of(n) not in along_n} | kept_blobs
    sums = {n: Chunk.of(data) for n, data in chunks.items() if n not in blobs}
    ordered = chunks | blobs
    ordered |= {name: text.encode() for name, text in texts.items() if name != "zarr.json"}
    ordered["zarr.json"] = texts["zarr.json"].encode()
    return Contents(images, texts, sums, blobs), ordered


def _array_of(name: str) -> str:
    """Return the array that a file belongs to."""
    return name.partition("/")[0]


def _sizes(run: StoredRun, images: int) -> dict[str, int]:
    """Return the length of every axis; OutputError if the arrays do not fit together."""
    names = [array.name for array in run.arrays]
    if len(set(names)) < len(names):
        raise OutputError(f"two arrays with one name among {names}; rename one")
    sizes = {run.dim: images}
    for array in run.arrays:
        for dim, size in zip(array.dims, array.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise OutputError(
                    f"axis {dim!r} has length {size} in array {array.name!r} and {sizes[dim]} "
                    "elsewhere; expected one length for each name"
                )
    return sizes


def _add_coordinates(
    group: zarr.Group,
    run: StoredRun,
    sizes: Mapping[str, int],
    coordinates: Sequence[Coordinate],
    chunk: int | None,
) -> None:
    taken = {array.name for array in run.arrays}
    for coordinate in coordinates:
        if coordinate.name in taken:
            raise OutputError(f"two arrays with the name {coordinate.name!r}; rename a coordinate")
        taken.add(coordinate.name)
        if coordinate.name in sizes and coordinate.dims != (coordinate.name,):
            raise OutputError(
                f"coordinate {coordinate.name!r} along {coordinate.dim!r} has the name of another "
                "axis; rename it"
            )
        values = coordinate.values
        for axis, dim in enumerate(coordinate.dims):
            length = values.shape[axis]
            # An axis that no array has: the names of classes, if the arrays hold class numbers.
            size = sizes.get(dim, length if coordinate.name == dim else -1)
            if not (length == size or (dim == run.dim and length > size)):
                raise OutputError(
                    f"coordinate {coordinate.name!r} has {length} values along {dim!r}; expected "
                    f"{size if size >= 0 else 'no such axis'}"
                )
            values = values.take(range(size), axis=axis) if length > size else values
        stored = group.create_array(
            coordinate.name,
            shape=values.shape,
            chunks=tuple(chunk or min(_COORDINATE_CHUNK, length) for length in values.shape),
            dtype=str if values.dtype.kind == "T" else values.dtype,
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            dimension_names=coordinate.dims,
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes=dict(coordinate.attributes),
            config={"write_empty_chunks": True},
        )
        stored[...] = values


def _kept(
    run: StoredRun, kept: Contents | None, given: Sequence[Coordinate]
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return metadata and chunks of the coordinates that stay."""
    if kept is None:
        return {}, {}
    replaced = {coordinate.name for coordinate in given} | {array.name for array in run.arrays}
    blobs = {n: data for n, data in kept.blobs.items() if _array_of(n) not in replaced}
    stay = {_array_of(name) for name in blobs}
    return {n: text for n, text in kept.texts.items() if _array_of(n) in stay}, blobs


def _grid_mapping(coordinates: Sequence[Coordinate], kept_texts: Mapping[str, str]) -> str | None:
    """Return the name of the coordinate that describes the coordinate system; None without one."""
    attributes = {c.name: c.attributes for c in coordinates if not c.dims}
    for name, text in kept_texts.items():
        metadata = json.loads(text)
        if metadata.get("shape") == []:
            attributes[_array_of(name)] = metadata.get("attributes", {})
    return next((name for name, own in attributes.items() if is_grid_mapping(own)), None)


def _consolidated(texts: Mapping[str, str]) -> str:
    root = json.loads(texts["zarr.json"])
    root["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": {
            name.removesuffix("/zarr.json"): json.loads(text)
            for name, text in sorted(texts.items())
            if name != "zarr.json"
        },
    }
    return json.dumps(root, indent=2)
