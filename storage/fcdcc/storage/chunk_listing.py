"""Which chunks of stored images are there.

Zarr reads a chunk that is not stored as the fill value. That may be meant (blank images), or an
upload may not be complete. The store is listed, no chunk is read; a shard counts as one chunk.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import fsspec
import numpy as np
from numpy.typing import NDArray

from .checksummed_json import Json
from .locations import is_local
from .sources import ImageSource, opened
from .stores import ZarrArray, reported, zip_root

__all__ = ["AbsentChunks", "ChunkListing", "Region", "list_chunks"]

Region = tuple[int, int, "tuple[int, int] | None"]
"""Images from the first to the second number − 1, of these only some rows."""

MAX_RUNS_NAMED = 5
"""Most runs of chunks that a message names."""

_CANNOT_LIST = ("http", "https")
"""Protocols of stores that are read but not listed."""


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
    """Which chunks of a source's arrays were there when they were listed.

    Parameters
    ----------
    source
        The images.
    regions
        What was looked at; chunks elsewhere count as stored.
    grids
        For each array of the source that is read, by its number: (chunks along each axis) bool.
    """

    def __init__(
        self,
        source: ImageSource,
        regions: Sequence[Region],
        grids: dict[int, NDArray[np.bool_]],
    ) -> None:
        self._source = source
        self._regions = regions
        self._grids = grids

    @property
    def total(self) -> int:
        """Number of chunks that were looked for."""
        looked = {number: np.zeros(grid.shape, np.bool_) for number, grid in self._grids.items()}
        for number, grid in looked.items():
            for box in _boxes(self._source, number, self._regions):
                grid[box] = True
        return sum(int(grid.sum()) for grid in looked.values())

    def absent(self, regions: Iterable[Region] | None = None) -> AbsentChunks:
        """Return the chunks of some regions, by default of all, that are not there."""
        runs: dict[str, list[tuple[int, int]]] = {}
        grids: dict[str, tuple[int, ...]] = {}
        wanted = self._regions if regions is None else list(regions)
        for number, grid in self._grids.items():
            missing: set[int] = set()
            for box in _boxes(self._source, number, wanted):
                if grid[box].all():
                    continue
                places = np.argwhere(~grid[box]) + [part.start for part in box]
                numbers = np.ravel_multi_index(tuple(places.T), grid.shape)
                missing.update(int(index) for index in np.atleast_1d(numbers))
            if missing:
                path = self._source.parts[number].path
                runs[path] = _runs(sorted(missing))
                grids[path] = self._form(number)
        return AbsentChunks(runs, grids)

    def has_any(self, chunks: AbsentChunks) -> bool:
        """Return whether chunks that were absent before may be there now.

        If the array is stored in other chunks now, they may be.
        """
        by_path = {part.path: n for n, part in enumerate(self._source.parts) if n in self._grids}
        for path, runs in chunks.runs.items():
            if path not in by_path:
                return True
            grid = self._grids[by_path[path]]
            flat = grid.ravel()
            if self._form(by_path[path]) != chunks.grids[path]:
                return True
            if any(last >= flat.size or flat[first : last + 1].any() for first, last in runs):
                return True
        return False

    def _form(self, number: int) -> tuple[int, ...]:
        """Return what the numbers of chunks depend on, but for the length of the first axis."""
        array = opened(self._source, number)
        return (*(array.shards or array.chunks), *self._grids[number].shape[1:])


def list_chunks(
    source: ImageSource, regions: Sequence[Region] | None = None
) -> ChunkListing | None:
    """Return which chunks of images are stored; None if the store does not tell.

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
    grids: dict[int, NDArray[np.bool_]] = {}
    for number in source.parts_read:
        array = opened(source, number)
        chunks = array.shards or array.chunks
        shape = tuple(-(-size // chunk) for size, chunk in zip(array.shape, chunks, strict=True))
        is_stored: Callable[[str], bool]
        with reported(source.url, "does not list its chunks"):
            if is_local(source.url) and not Path(source.url).is_file():
                is_stored = _local_files(source.url, array)
            else:
                names = _stored_names(source.url, source.parts[number].path)
                if names is None:
                    return None
                is_stored = names.__contains__
        grid = np.ones(shape, dtype=np.bool_)
        encode = array.metadata.encode_chunk_key
        for box in _boxes(source, number, wanted):
            for place in product(*(range(part.start, part.stop) for part in box)):
                if not is_stored(encode(place)):
                    grid[place] = False
        grids[number] = grid
    return ChunkListing(source, wanted, grids)


def _boxes(
    source: ImageSource, number: int, regions: Iterable[Region]
) -> Iterator[tuple[slice, ...]]:
    """Yield the chunks of one array that regions touch, as a slice along each axis."""
    array, part = opened(source, number), source.parts[number]
    chunks = array.shards or array.chunks
    image_axis, channel_axis, row_axis = part.axes.order[:3]
    whole = [slice(0, -(-size // chunk)) for size, chunk in zip(array.shape, chunks, strict=True)]
    channels = source.channels_read(number)
    if channel_axis is None or channels is None:
        channel_runs = None
    else:
        channel_runs = _runs(sorted({channel // chunks[channel_axis] for channel in channels}))
    for start, stop, rows in regions:
        box = whole.copy()
        if image_axis is not None:
            box[image_axis] = _touched(start, stop, chunks[image_axis])
        if row_axis is not None and rows is not None:
            box[row_axis] = _touched(*rows, chunks[row_axis])
        if channel_axis is None or channel_runs is None:
            yield tuple(box)
            continue
        for first, last in channel_runs:
            box[channel_axis] = slice(first, last + 1)
            yield tuple(box)


def _touched(start: int, stop: int, chunk: int) -> slice:
    """Return the chunks along an axis that hold positions start … stop − 1."""
    return slice(start // chunk, max(start // chunk, -(-stop // chunk)))


def _local_files(url: str, array: ZarrArray) -> Callable[[str], bool]:
    """Return what says whether an array in a local folder has a file of this name.

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

    def is_stored(name: str) -> bool:
        entry, slash, _ = name.removeprefix(prefix).partition("/")
        return entry in entries and (not slash or os.path.exists(f"{folder}/{name}"))  # noqa: PTH110 - many

    return is_stored


def _stored_names(url: str, path: str) -> set[str] | None:
    """Return the names of an array's files, from its folder on; None if they cannot be listed."""
    if is_local(url):
        with zipfile.ZipFile(url) as archive:
            names = archive.namelist()
        prefix = "/".join(part for part in (zip_root(url), path) if part)
    else:
        if url.split("://", 1)[0].rpartition("::")[2] in _CANNOT_LIST:
            return None
        files, root = fsspec.core.url_to_fs(url)
        prefix = "/".join(part for part in (str(root).rstrip("/"), path) if part)
        files.invalidate_cache()
        names = files.find(prefix)
    start = f"{prefix}/" if prefix else ""
    found = {name[len(start) :] for name in names if name.startswith(start)}
    # A store whose listing lacks what was just read from it does not list.
    return found if found & {"zarr.json", ".zarray"} else None


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
