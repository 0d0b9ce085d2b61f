"""Which chunks of stored images are there, and what the store says of each.

Zarr reads a chunk that is not stored as the fill value. That may be meant (blank images), or an
upload may not be complete. The store is listed, no chunk is read; a shard counts as one chunk.

Of every chunk the listing has the size and a **mark**: a number that stands for what the store
says of its contents (ETag, checksum) or else for the time when it was written. A chunk with the
same size and mark as before has the same contents.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import fsspec
import numpy as np
from numpy.typing import NDArray

from .block_inputs import DIGEST_BYTES
from .checksummed_json import Json, canonical
from .locations import is_local
from .sources import ImageSource, opened
from .stores import ZarrArray, reported, zip_root

__all__ = ["AbsentChunks", "ChunkListing", "Region", "Tells", "list_chunks"]

Region = tuple[int, int, "tuple[int, int] | None"]
"""Images from the first to the second number − 1, of these only some rows."""

MAX_RUNS_NAMED = 5
"""Most runs of chunks that a message names."""

_CANNOT_LIST = ("http", "https")
"""Protocols of stores that are read but not listed."""

SETTLED_NS = 3_000_000_000
"""Age in ns from which the time of a chunk tells whether it was written again later: some file
systems record times in steps of two seconds."""

MAX_SECONDS = 1e11
"""A time since 1970 above this is in milliseconds."""

_CONTENT_NAMES = (
    *("ETag", "etag", "md5Hash", "content_md5", "crc32c", "generation"),
    *("VersionId", "version_id", "sha", "checksum"),
)
"""What drivers call that which changes with the contents of a file."""

_TIME_NAMES = (
    *("LastModified", "last_modified", "updated", "mtime", "modified", "modificationTime"),
    *("modify", "server_modified", "last_write_time"),
)
"""What drivers call the time of the last write."""

_NOT_STORED = -1
"""Size of a chunk that is not stored."""


class Tells(IntEnum):
    """What a store says of its files, beside their sizes, from the least to the most."""

    NOTHING = 0
    TIMES = 1
    CONTENTS = 2


class _Entry(NamedTuple):
    """What a store says of a chunk: bytes, mark, what the mark stands for.

    A fresh chunk was written so shortly before that its time does not tell whether it was written
    again.
    """

    size: int
    mark: int
    tells: Tells
    fresh: bool = False


class _ChunkGrid:
    """The chunks of one array.

    Parameters
    ----------
    source, number
        The array.

    Attributes
    ----------
    states
        (chunks along each axis, 2) int64: size and mark; the size is −1 where a chunk is not
        stored. Chunks that were not looked at count as stored.
    fresh
        (chunks along each axis) bool.
    """

    def __init__(self, source: ImageSource, number: int) -> None:
        array, self._part = opened(source, number), source.parts[number]
        self.chunks: tuple[int, ...] = array.shards or array.chunks
        self.shape = tuple(
            -(-size // chunk) for size, chunk in zip(array.shape, self.chunks, strict=True)
        )
        self._names_in = _namer(array)
        self._channel_runs = self._runs_of_channels(source.channels_read(number))
        self.states = np.zeros((*self.shape, 2), np.int64)
        self.fresh = np.zeros(self.shape, np.bool_)
        form: list[Json] = [self._part.path, [*self.chunks], array.dtype.str, str(array.fill_value)]
        self.head = canonical(form).encode()
        """What the meaning of the chunks depends on."""

    @property
    def form(self) -> tuple[int, ...]:
        """What the numbers of chunks depend on, but for the length of the first axis."""
        return (*self.chunks, *self.shape[1:])

    @property
    def stored(self) -> NDArray[np.bool_]:
        """(chunks along each axis) bool."""
        return np.not_equal(self.states[..., 0], _NOT_STORED)

    def boxes(self, regions: Iterable[Region]) -> Iterator[tuple[slice, ...]]:
        """Yield the chunks that regions touch, as a slice along each axis."""
        image_axis, channel_axis, row_axis = self._part.axes.order[:3]
        for start, stop, rows in regions:
            box = [slice(0, size) for size in self.shape]
            if image_axis is not None:
                box[image_axis] = _touched(start, stop, self.chunks[image_axis])
            if row_axis is not None and rows is not None:
                box[row_axis] = _touched(*rows, self.chunks[row_axis])
            if channel_axis is None or self._channel_runs is None:
                yield tuple(box)
                continue
            for first, last in self._channel_runs:
                box[channel_axis] = slice(first, last + 1)
                yield tuple(box)

    def _runs_of_channels(self, channels: Sequence[int] | None) -> list[tuple[int, int]] | None:
        """Return the chunks along the axis of channels that hold some of these; None for all."""
        axis = self._part.axes.order[1]
        if axis is None or channels is None:
            return None
        return _runs(sorted({channel // self.chunks[axis] for channel in channels}))

    def look(self, regions: Iterable[Region], find: Callable[[str], _Entry | None]) -> Tells:
        """Note what a store says of the chunks of regions; return the least that it says of one.

        Parameters
        ----------
        regions
            What is looked at.
        find
            Returns what the store says of a name; None if there is no such file.
        """
        least = Tells.CONTENTS
        absent = _Entry(_NOT_STORED, 0, Tells.CONTENTS)
        for box in self.boxes(regions):
            found = [find(name) or absent for name in self._names_in(box)]
            if found:
                least = min(least, min(entry.tells for entry in found))
                pairs = np.array([(entry.size, entry.mark) for entry in found], np.int64)
                self.states[box] = pairs.reshape(self.states[box].shape)
                fresh = np.array([entry.fresh for entry in found])
                self.fresh[box] = fresh.reshape(self.fresh[box].shape)
        return least


@dataclass(frozen=True)
class AbsentChunks:
    """Chunks that are not stored, as runs of their numbers.

    Parameters
    ----------
    runs
        For each array by its path: the first and the last number of each run. Chunks are counted
        in the order of the array's axes, the last axis fastest.
    grids
        For each of these arrays the shape of its chunks, and their number along its axes behind
        the first.
    """

    runs: dict[str, list[tuple[int, int]]]
    grids: dict[str, tuple[int, ...]]

    @property
    def count(self) -> int:
        """Number of chunks."""
        return sum(last - first + 1 for runs in self.runs.values() for first, last in runs)

    def __str__(self) -> str:
        runs = [
            f"{path} {first}" + (f" to {last}" if last > first else "")
            for path, runs in self.runs.items()
            for first, last in runs
        ]
        more = ", …" if len(runs) > MAX_RUNS_NAMED else ""
        return ", ".join(runs[:MAX_RUNS_NAMED]).strip() + more

    def as_json(self) -> dict[str, Json]:
        """Return the chunks as JSON, for a record."""
        return {
            path: {"runs": [[*run] for run in runs], "grid": [*self.grids[path]]}
            for path, runs in self.runs.items()
        }

    @classmethod
    def from_json(cls, value: Json) -> AbsentChunks:
        """Return the chunks that :meth:`as_json` returned; none if it is something else."""
        runs: dict[str, list[tuple[int, int]]] = {}
        grids: dict[str, tuple[int, ...]] = {}
        try:
            for path, entry in cast("dict[str, Any]", value).items():
                runs[path] = [(int(first), int(last)) for first, last in entry["runs"]]
                grids[path] = tuple(int(size) for size in entry["grid"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls({}, {})
        return cls(runs, grids)


class ChunkListing:
    """What a store said of the chunks of a source when it was listed.

    Parameters
    ----------
    source
        The images.
    regions
        What was looked at; chunks elsewhere count as stored.
    grids
        The chunks of each array of the source that is read, by its number.
    tells
        What the store says of every chunk that is stored.
    """

    def __init__(
        self,
        source: ImageSource,
        regions: Sequence[Region],
        grids: Mapping[int, _ChunkGrid],
        tells: Tells,
    ) -> None:
        self.tells = tells
        self._source = source
        self._regions = regions
        self._grids = grids

    @property
    def total(self) -> int:
        """Number of chunks that were looked for."""
        total = 0
        for grid in self._grids.values():
            looked = np.zeros(grid.shape, np.bool_)
            for box in grid.boxes(self._regions):
                looked[box] = True
            total += int(looked.sum())
        return total

    def absent(self, regions: Iterable[Region] | None = None) -> AbsentChunks:
        """Return the chunks of some regions, by default of all, that are not there."""
        runs: dict[str, list[tuple[int, int]]] = {}
        grids: dict[str, tuple[int, ...]] = {}
        wanted = self._regions if regions is None else list(regions)
        for number, grid in self._grids.items():
            missing: set[int] = set()
            for box in grid.boxes(wanted):
                absent = grid.states[box][..., 0] == _NOT_STORED
                if not absent.any():
                    continue
                places = np.argwhere(absent) + [part.start for part in box]
                numbers = np.ravel_multi_index(tuple(places.T), grid.shape)
                missing.update(int(index) for index in np.atleast_1d(numbers))
            if missing:
                path = self._source.parts[number].path
                runs[path] = _runs(sorted(missing))
                grids[path] = grid.form
        return AbsentChunks(runs, grids)

    def has_any(self, chunks: AbsentChunks) -> bool:
        """Return whether chunks that were absent before may be there now.

        If the array is stored in other chunks now, they may be.
        """
        by_path = {self._source.parts[n].path: grid for n, grid in self._grids.items()}
        for path, runs in chunks.runs.items():
            if path not in by_path or by_path[path].form != chunks.grids[path]:
                return True
            flat = by_path[path].stored.ravel()
            if any(last >= flat.size or flat[first : last + 1].any() for first, last in runs):
                return True
        return False

    def digest(self, region: Region) -> bytes:
        """Return a digest of what the store says of the chunks that a region touches.

        It is the same in another listing as long as none of these chunks is written, and the array
        is stored in the same chunks.
        """
        found = hashlib.sha256()
        for grid in self._grids.values():
            found.update(grid.head)
            for box in grid.boxes((region,)):
                found.update(grid.states[box].tobytes())
        return found.digest()[:DIGEST_BYTES]

    def is_fresh(self, region: Region) -> bool:
        """Return whether a chunk of a region was written shortly before the store was listed.

        Then it may be written again without a change of its time.
        """
        return any(
            bool(grid.fresh[box].any())
            for grid in self._grids.values()
            for box in grid.boxes((region,))
        )


def list_chunks(
    source: ImageSource, regions: Sequence[Region] | None = None
) -> ChunkListing | None:
    """Return what the store of images says of their chunks; None if it does not list them.

    Parameters
    ----------
    source
        The images.
    regions
        What is looked at; chunks elsewhere count as stored. By default everything.

    Raises
    ------
    InputError
        If the store cannot be listed now.
    """
    wanted: Sequence[Region] = [(0, source.images, None)] if regions is None else regions
    grids: dict[int, _ChunkGrid] = {}
    least = Tells.CONTENTS
    settled_ns = time.time_ns() - SETTLED_NS
    for number in source.parts_read:
        array = opened(source, number)
        find: Callable[[str], _Entry | None]
        grid = _ChunkGrid(source, number)
        with reported(source.url, "does not list its chunks"):
            if is_local(source.url) and not Path(source.url).is_file():
                find = _local_files(source.url, array, settled_ns)
            else:
                entries = _entries(source.url, source.parts[number].path, settled_ns)
                if entries is None:
                    return None
                find = entries.get
            least = min(least, grid.look(wanted, find))
        grids[number] = grid
    return ChunkListing(source, wanted, grids, least)


def _touched(start: int, stop: int, chunk: int) -> slice:
    """Return the chunks along an axis that hold positions start … stop − 1."""
    return slice(start // chunk, max(start // chunk, -(-stop // chunk)))


def _namer(array: ZarrArray) -> Callable[[Sequence[slice]], Iterator[str]]:
    """Return what yields the names of the chunks in a box, the last axis fastest.

    There may be a million: names that are the numbers of the chunk with one character between them
    are not made one by one by Zarr.
    """
    encode = array.metadata.encode_chunk_key
    example = tuple(range(1, array.ndim + 1))
    name = encode(example)
    for head, separator in product(("", "c/", "c."), "/."):
        if array.ndim and name == head + separator.join(map(str, example)):
            break
    else:
        return lambda box: map(encode, product(*(range(part.start, part.stop) for part in box)))

    def names(box: Sequence[slice]) -> Iterator[str]:
        numbers = [[str(place) for place in range(part.start, part.stop)] for part in box]
        numbers[0] = [head + number for number in numbers[0]]
        return map(separator.join, product(*numbers))

    return names


def _local_files(url: str, array: ZarrArray, settled_ns: int) -> Callable[[str], _Entry | None]:
    """Return what describes a file of an array in a local folder by its name.

    The folder of the chunks is listed, so that files are only looked for where there are any.
    """
    folder = os.path.join(url, array.path)  # noqa: PTH118 - called for a million chunks
    first = array.metadata.encode_chunk_key((0,) * array.ndim)
    prefix = "c/" if first.startswith("c/") else ""
    os.listdir(folder)  # noqa: PTH208 - an error if the array is gone
    try:
        entries = set(os.listdir(f"{folder}/{prefix}"))  # noqa: PTH208 - as above
    except FileNotFoundError:
        entries = set()  # no chunk was ever stored

    def find(name: str) -> _Entry | None:
        if name.removeprefix(prefix).partition("/")[0] not in entries:
            return None
        try:
            state = os.stat(f"{folder}/{name}")  # noqa: PTH116 - many
        except (FileNotFoundError, NotADirectoryError):
            return None
        written = state.st_mtime_ns
        return _Entry(state.st_size, written, Tells.TIMES, written > settled_ns)

    return find


def _entries(url: str, path: str, settled_ns: int) -> dict[str, _Entry] | None:
    """Return the files of an array by their names, from its folder on; None if there is no list."""
    found: dict[str, _Entry] = {}
    if is_local(url):
        with zipfile.ZipFile(url) as archive:
            files = {info.filename: info for info in archive.infolist()}
        start = _start("/".join(part for part in (zip_root(url), path) if part))
        for name, info in files.items():
            if name.startswith(start):
                found[name[len(start) :]] = _Entry(info.file_size, info.CRC, Tells.CONTENTS)
    else:
        protocol = url.split("://", 1)[0].rpartition("::")[2]
        if protocol in _CANNOT_LIST:
            return None
        store, root = fsspec.core.url_to_fs(url)
        prefix = "/".join(part for part in (str(root).rstrip("/"), path) if part)
        store.invalidate_cache()
        # A file in memory is made anew whenever it is written.
        times = (*_TIME_NAMES, "created") if protocol == "memory" else _TIME_NAMES
        start = _start(prefix)
        for name, details in store.find(prefix, detail=True).items():
            if name.startswith(start):
                found[name[len(start) :]] = _entry_of(details, times, settled_ns)
    # A store whose listing lacks what was just read from it does not list.
    return found if found.keys() & {"zarr.json", ".zarray"} else None


def _start(prefix: str) -> str:
    """Return how the names of files in a folder begin."""
    return f"{prefix}/" if prefix else ""


def _entry_of(details: Mapping[str, Any], times: Iterable[str], settled_ns: int) -> _Entry:
    """Return what a driver says of a file."""
    size = int(details.get("size") or 0)
    for name in _CONTENT_NAMES:
        if details.get(name):
            return _Entry(size, _mark(details[name]), Tells.CONTENTS)
    for name in times:
        written = details.get(name)
        if written:
            if isinstance(written, dt.datetime):
                written = written.timestamp()
            fresh = False
            if isinstance(written, int | float):
                seconds = written / 1000 if written > MAX_SECONDS else written
                fresh = 1e9 * seconds > settled_ns
            return _Entry(size, _mark(written), Tells.TIMES, fresh)
    return _Entry(size, 0, Tells.NOTHING)


def _mark(value: object) -> int:
    """Return a number of 64 bits that stands for a value."""
    found = hashlib.sha256(str(value).encode()).digest()
    return int.from_bytes(found[:8], "little", signed=True)


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as runs of consecutive ones.

    >>> _runs([2, 3, 4, 9])
    [(2, 4), (9, 9)]
    """
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs
