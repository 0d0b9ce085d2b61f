"""Reads Zarr arrays and groups, v2 or v3, at a local path or a URL.

Errors of a store or its driver are raised as :class:`~fcdcc.storage.errors.InputError`, with a
message of one line without credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.storage import LocalStore, ZipStore

from .checksummed_json import Json, canonical, digest
from .errors import InputError
from .locations import has_secrets, is_local, scrubbed, shown
from .reachability import as_unreachable
from .regular_files import NotRegularError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = [
    "ZarrArray",
    "attributes_of",
    "dimension_names",
    "form_of",
    "members_of",
    "open_array",
    "open_node",
    "read_part",
    "zip_root",
]

ZarrArray = zarr.Array[Any]

_METADATA = ("zarr.json", ".zgroup", ".zarray")

MAX_METADATA_BYTES = 2**26
"""Largest file with the metadata of an array or a group that is read."""

MAX_CHUNK_BYTES = 2**36
"""Largest chunk, before compression, of an array that is read: a worker holds whole chunks."""

METADATA_FILES = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})


class _LocalFiles(LocalStore):
    """A folder of which only regular files are read.

    A device or a pipe in place of a chunk would fill the memory, or never be read to its end.
    """

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        await asyncio.to_thread(_check_regular, self.root / key)
        return await super().get(key, prototype, byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        _check_regular(self.root / key)
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)


def _check_regular(path: Path) -> None:
    """Raise NotRegularError for a device or a pipe, and for metadata that are too large."""
    try:
        found = path.stat()
    except OSError:  # what is missing is the array's fill value
        return
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise NotRegularError(errno.EINVAL, "it is not a regular file", str(path))
    if path.name in METADATA_FILES and found.st_size > MAX_METADATA_BYTES:
        reason = f"it has more than {MAX_METADATA_BYTES} bytes"
        raise NotRegularError(errno.EFBIG, reason, str(path))


@contextlib.contextmanager
def reported(location: str, problem: str) -> Iterator[None]:
    """Raise what goes wrong with a store as an :class:`InputError`, without credentials."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a driver or codec may raise anything
        text = " ".join(str(error).split()) or type(error).__name__
        if (unreachable := as_unreachable(error, location)) is not None:
            text = str(unreachable)
        elif isinstance(error, FileNotFoundError):  # zarr's own message names its classes
            text = "it does not exist"
            if is_local(location) and Path(location).is_dir():
                text = (
                    "the folder holds none there; of a folder of pictures, fcdcc ingest FOLDER "
                    "OUT.zarr makes one"
                )
        message = f"{shown(location)} {problem}: {scrubbed(text, location)}"
        raise InputError(message) from _cause(error, location)


def _cause(error: Exception, location: str) -> Exception | None:
    """Return what an error of a store is chained to: with credentials not to the driver's own."""
    # A chained error would show the location in a traceback.
    return as_unreachable(error, location) or (None if has_secrets(location) else error)


def open_node(location: str, path: str = "") -> ZarrArray | zarr.Group:
    """Return the array or group at a path of a store; the store may be a zip file.

    Raises
    ------
    InputError
        If there is none, it cannot be read, or its chunks are too large.
    """
    what = f"array {path!r} " if path else ""
    with reported(location, f"{what}cannot be opened as a Zarr array or group"):
        store: Store | str = location
        if is_local(location) and Path(location).is_file():
            store, root = _zip_store(location)
            path = f"{root}/{path}".strip("/")
        elif is_local(location):
            store = _LocalFiles(location, read_only=True)
        found = zarr.open(store=store, path=path or None, mode="r")
    if isinstance(found, zarr.Array):
        size = math.prod(found.chunks) * found.dtype.itemsize
        if size > MAX_CHUNK_BYTES or (found.chunks and min(found.chunks) < 1):
            raise InputError(
                f"{shown(location)} {what}has chunks of shape {found.chunks}, {size} bytes; "
                f"expected 1 or more along each axis, and at most {MAX_CHUNK_BYTES} bytes: store "
                "it in other chunks"
            )
    return found


def _zip_store(location: str) -> tuple[Store, str]:
    """Return the store in a zip file, and the folder in it that is its root."""
    return _open_zip(location, (*_version_of_zip(location), os.getpid()))


def _version_of_zip(location: str) -> tuple[int, int]:
    """Return what changes when a zip file is written again."""
    state = Path(location).stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=8)
def _open_zip(location: str, version: tuple[int, ...]) -> tuple[Store, str]:  # noqa: ARG001 - cache key
    """Open a zip file once per process and version: its directory may be long."""
    try:
        root = zip_root(location)
    except zipfile.BadZipFile:
        raise ValueError("it is a file; expected a folder, or a Zarr store in a zip file") from None
    return ZipStore(location, mode="r", read_only=True), root


def zip_root(location: str) -> str:
    """Return the folder of a zip file that holds the Zarr store; often it is the only one."""
    with zipfile.ZipFile(location) as archive:
        names = archive.namelist()
    if any(name in _METADATA for name in names):
        return ""
    tops = {name.partition("/")[0] for name in names if name.partition("/")[2] in _METADATA}
    return tops.pop() if len(tops) == 1 else ""


def open_array(location: str, path: str) -> ZarrArray:
    """Return the array at a path of a store, from its own metadata.

    A group's consolidated metadata may be outdated if images were appended.

    Raises
    ------
    InputError
        If there is no such array.
    """
    found = open_node(location, path)
    if not isinstance(found, zarr.Array):
        raise InputError(f"{path!r} in {shown(location)} is a group; expected an array")
    return found


def members_of(location: str, group: zarr.Group) -> dict[str, ZarrArray]:
    """Return the arrays directly in a group, by name; their shapes may be outdated.

    They are sorted by their names: the order in which a store lists them differs from one time
    to the next.

    Raises
    ------
    InputError
        If the store cannot list them.
    """
    problem = (
        "has arrays that cannot be listed; name the one to read (--input-array) or consolidate "
        "the group's metadata"
    )
    with reported(location, problem), warnings.catch_warnings():
        # Zarr warns about other files in a group.
        warnings.simplefilter("ignore")
        return dict(sorted(group.arrays()))


def attributes_of(node: ZarrArray | zarr.Group) -> dict[str, Json]:
    """Return attributes as JSON, other values as text."""
    attributes: dict[str, Json] = json.loads(json.dumps(node.attrs.asdict(), default=str))
    return attributes


def dimension_names(array: ZarrArray) -> tuple[str | None, ...] | None:
    """Return the names of an array's axes: Zarr v3's, or xarray's convention for v2."""
    stored: object = getattr(array.metadata, "dimension_names", None)
    if stored is None:
        stored = attributes_of(array).get("_ARRAY_DIMENSIONS")
    if not isinstance(stored, (list, tuple)) or len(stored) != array.ndim:
        return None
    return tuple(name if isinstance(name, str) else None for name in stored)


def form_of(location: str, array: ZarrArray) -> str:
    """Return a digest of an array's metadata without its length and attributes.

    Arrays with the same digest at the same place are stored in the same way, and an open one still
    reads what is stored there: the digest of one in a zip file depends on the file.
    """
    metadata = json.loads(json.dumps(array.metadata.to_dict(), default=str))
    metadata.pop("attributes", None)
    metadata["shape"] = metadata.get("shape", [0])[1:]
    if is_local(location) and Path(location).is_file():
        metadata["zip file"] = [*_version_of_zip(location)]
    return digest(canonical(metadata).encode())[:16]


def read_part(
    location: str, array: ZarrArray, selection: tuple[slice | list[int], ...]
) -> NDArray[Any]:
    """Return a part of an array in native byte order.

    The selection has a slice, or ascending positions, for every axis.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        chosen: Any = selection  # zarr's types do not have tuples of both
        is_plain = all(isinstance(part, slice) for part in selection)
        values = np.asarray(array[chosen] if is_plain else array.oindex[chosen])
    except Exception as error:  # noqa: BLE001 - a driver or codec may raise anything
        text = " ".join(str(error).split()) or type(error).__name__
        where = f"{shown(location)}, array {array.path!r}" if array.path else shown(location)
        part = ", ".join(
            f"{s.start or 0}:{s.stop}" if isinstance(s, slice) else str(s)
            for s in selection
            if s != slice(None)
        )
        message = f"{where} cannot be read at [{part}]: {scrubbed(text, location)}"
        raise InputError(message) from _cause(error, location)
    if values.dtype.isnative:  # texts are native, and newbyteorder does not support them
        return values
    return values.astype(values.dtype.newbyteorder("="))
