"""Writes and reads predictions in whole blocks, each with a completion record.

A :class:`PredictionStore` is a small value that is sent to workers. Writing a block stores its
chunks and then its record; if two workers write the same block, the first wins, so that the bytes
of a block do not change once it is recorded.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .block_inputs import INPUT, BlockInput
from .block_status import Progress, read_progress
from .checksummed_json import Json
from .chunks import OutputArray, decode, encode
from .errors import DamageError, OutputError, OutputGoneError
from .files import Folder
from .layout import BlockLayout
from .locations import shown
from .objects import open_folder
from .records import (
    BlockRecord,
    Chunk,
    compact,
    drop_records,
    drop_unreadable,
    read_record,
    read_records,
    replace_record,
    write_record,
)
from .runs import marker

__all__ = ["PredictionStore", "Values"]

Values = NDArray[Any] | Mapping[str, NDArray[Any]]
"""Predictions of a block: one array, or one for each array of the output by name."""


@dataclass(frozen=True)
class PredictionStore:
    """The arrays of an output, block by block.

    Parameters
    ----------
    url
        Local path or URL; may contain credentials.
    arrays
        The arrays; ``prediction`` first, if the network has one output.
    layout
        Number of images, and of images per block.
    fingerprint
        Digest of the fingerprint, stored in every record.
    output
        The id of the output. If the output is put aside, a worker of its run writes nothing
        into the output that took its place.
    """

    url: str = field(repr=False)
    arrays: tuple[OutputArray, ...]
    layout: BlockLayout
    fingerprint: str
    output: str

    def __repr__(self) -> str:
        return f"PredictionStore({shown(self.url)!r}, {self.layout}, arrays={self.arrays})"

    @property
    def folder(self) -> Folder:
        """The files of the output."""
        return open_folder(self.url)

    def write(
        self,
        block: int,
        values: Values,
        *,
        warnings: Sequence[str] = (),
        details: Mapping[str, Json] | None = None,
    ) -> BlockRecord:
        """Store a block's predictions and then its record, and return the record.

        If the block is done already, nothing is written and its record returned.

        Parameters
        ----------
        block
            Number of the block.
        values
            (images of the block, *shape), or a mapping from array names to these; if the block
            is a band, only its rows.
        warnings, details
            Stored in the record.

        Raises
        ------
        OutputError
            If the values have the wrong shape, or cannot be stored (a full disk): then there is
            no record, and the next run computes the block again.
        OutputGoneError
            As for :meth:`check_place`.
        """
        start, stop = self.layout.bounds(block)
        files = self._encode(block, stop - start, values)
        kept = _finite(dict(details or {}))
        folder = self.folder
        with _reported(f"block {block} of {shown(self.url)}", "written"):
            self._check_place(folder)
            present = read_record(folder, block)
            if present is not None and self._completes(folder, present):
                return present
            chunks = {name: self._store(folder, block, name, data) for name, data in files.items()}
            record = BlockRecord(
                block, start, stop, "done", self.fingerprint, chunks, "", tuple(warnings), kept
            )
            write_record(folder, record)
        return record

    def record_failure(
        self, block: int, reason: str, *, details: Mapping[str, Json] | None = None
    ) -> BlockRecord:
        """Record that a block failed; a block that is done stays done.

        Raises
        ------
        OutputError
            If the record cannot be stored.
        OutputGoneError
            As for :meth:`check_place`.
        """
        start, stop = self.layout.bounds(block)
        kept = _finite(dict(details or {}))
        record = BlockRecord(
            block, start, stop, "failed", self.fingerprint, {}, reason, details=kept
        )
        with _reported(f"the failure of block {block} of {shown(self.url)}", "recorded"):
            self._check_place(self.folder)
            write_record(self.folder, record)
        return record

    def check_place(self) -> None:
        """Check that the output is still where the run began it.

        Raises
        ------
        OutputGoneError
            If it was moved, replaced or deleted: whatever is written there now is lost.
        OutputError
            If its place cannot be read.
        """
        with _reported(f"the place of {shown(self.url)}", "read"):
            self._check_place(self.folder)

    def read(self, block: int, array: str | None = None) -> NDArray[Any]:
        """Return one block's predictions (images, *shape); of a band only its rows.

        Without a name they are those of the first array.

        Raises
        ------
        OutputError
            If there is no such array.
        DamageError
            If a chunk is missing or damaged.
        """
        chosen = self.arrays[0] if array is None else self._array(array)
        start, stop = self.layout.bounds(block)
        names = chosen.chunk_names(block, self.layout.batch)
        with _reported(f"block {block} of {shown(self.url)}", "read"):
            found = dict(self.folder.read_many(names))
        return decode(chosen, block, self.layout.batch, stop - start, found)

    def progress(self) -> Progress:
        """Return which blocks are done, from their records and the sizes of their chunks.

        Raises
        ------
        OutputError
            If the records cannot be read.
        """
        with _reported(f"the records of {shown(self.url)}", "read"):
            return read_progress(self.folder, self.layout, self.fingerprint, self.arrays)

    def clear(self, progress: Progress) -> None:
        """Remove records and chunks of earlier attempts at the blocks that are not done.

        Records are removed before chunks. A block that was done with fewer images keeps both
        until it is written again, so that its predictions stay readable. Blocks behind the last
        image, of an output that had more, are removed as well. Only for the holder of the output's
        lock, before anything is computed.

        Raises
        ------
        OutputError
            If the files cannot be removed.
        """
        folder, blocks = self.folder, self.layout.blocks
        wanted = {block for block in progress.pending if block not in progress.grown}
        with _reported(f"what is left of earlier tries in {shown(self.url)}", "removed"):
            if progress.unreadable:
                drop_unreadable(folder)
            drop_records(folder, lambda block: block in wanted or block >= blocks)
            for array in self.arrays:
                owners = {n: array.block_of(n, self.layout.batch) for n in folder.sizes(array.name)}
                folder.delete(
                    name
                    for name, block in owners.items()
                    if block is not None and (block in wanted or block >= blocks)
                )

    def renew(self, inputs: Mapping[int, BlockInput]) -> None:
        """Change what the records of some blocks say that these were made from.

        Only for the holder of the output's lock, who knows that it is the same.

        Raises
        ------
        OutputError
            If the records cannot be read or stored.
        """
        if not inputs:
            return
        with _reported(f"the records of {shown(self.url)}", "renewed"):
            latest: dict[int, BlockRecord] = {}
            for _, record in read_records(self.folder):
                if isinstance(record, BlockRecord) and record.block in inputs:
                    latest[record.block] = record
            for block, record in latest.items():
                details = {**record.details, INPUT: inputs[block].as_json()}
                replace_record(self.folder, replace(record, details=details))

    def discard(self, blocks: Iterable[int], reason: str) -> None:
        """Record that blocks are damaged, so that the next run computes them again.

        Only for the holder of the output's lock. No data is deleted.

        Raises
        ------
        OutputError
            If the records cannot be stored.
        """
        for block in blocks:
            start, stop = self.layout.bounds(block)
            record = BlockRecord(block, start, stop, "failed", self.fingerprint, {}, reason)
            with _reported(f"the damage to block {block} of {shown(self.url)}", "recorded"):
                replace_record(self.folder, record)

    def compact(self, *, keep: int = 4096) -> int:
        """Merge the records of completed blocks into few files; return how many were merged.

        Does nothing if there are at most ``keep``, which are read in well under a second. Only
        for the holder of the output's lock, best in a thread of its own: removing files that
        were flushed to disk takes about as long as writing them.

        Raises
        ------
        OutputError
            If the records cannot be read or stored.
        """
        with _reported(f"the records of {shown(self.url)}", "gathered"):
            return compact(self.folder, keep=keep)

    def _array(self, name: str) -> OutputArray:
        for array in self.arrays:
            if array.name == name:
                return array
        listed = ", ".join(array.name for array in self.arrays)
        raise OutputError(f"array {name!r}; expected one of {listed}")

    def _encode(self, block: int, images: int, values: Values) -> dict[str, bytes]:
        given = values if isinstance(values, Mapping) else {self.arrays[0].name: values}
        if given.keys() != {array.name for array in self.arrays}:
            raise OutputError(
                f"block {block}: predictions for {sorted(given)}; expected "
                f"{sorted(array.name for array in self.arrays)}"
            )
        files: dict[str, bytes] = {}
        for array in self.arrays:
            part = np.asarray(given[array.name])
            if part.shape[:1] != (images,):
                raise OutputError(
                    f"block {block}: predictions of shape {part.shape}; expected {images} images"
                )
            files |= encode(array, block, self.layout.batch, part)
        return files

    def _check_place(self, folder: Folder) -> None:
        if folder.size(marker(self.output)) is None:
            raise OutputGoneError(
                f"{shown(self.url)} is no longer the output that this run began: it was moved, "
                "put aside or deleted by another process; move it back and run again to continue, "
                "or run again to begin anew"
            )

    def _completes(self, folder: Folder, record: BlockRecord) -> bool:
        start, stop = self.layout.bounds(record.block)
        # The record may have more images than this writer knows of: images were appended, and
        # the writer belongs to an earlier run.
        return (
            record.state == "done"
            and record.fingerprint == self.fingerprint
            and record.start == start
            and record.stop >= stop
            and all(folder.size(name) == chunk.size for name, chunk in record.chunks.items())
        )

    def _store(self, folder: Folder, block: int, name: str, data: bytes) -> Chunk:
        """Store a chunk unless another writer stored it; return the stored chunk's checksum."""
        if folder.write(name, data, exclusive=True):
            return Chunk.of(data)
        present = folder.read(name)
        if present != data and not self._is_whole(block, name, present, data):
            folder.write(name, data)
            present = data
        return Chunk.of(present)

    def _is_whole(self, block: int, name: str, present: bytes, ours: bytes) -> bool:
        """Return whether a stored chunk has predictions for all images for which ours has.

        It lacks some if it was written before images were appended.
        """
        array = self._array(name.split("/")[0])
        start, stop = self.layout.bounds(block)
        # decode() takes the chunks of a whole block: this chunk stands for all of them.
        names = array.chunk_names(block, self.layout.batch)
        filled = []
        for data in (present, ours):
            try:
                values = decode(
                    array, block, self.layout.batch, stop - start, dict.fromkeys(names, data)
                )
            except DamageError:
                return False
            filled.append(_filled(values, array.fill_value))
        return bool(np.all(filled[0] >= filled[1]))


@contextlib.contextmanager
def _reported(what: str, done: str) -> Iterator[None]:
    """Raise OSError as an OutputError that says what could not be done."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{what} could not be {done}: {error.strerror or error}; make room or mend the store "
            "and run the job again"
        ) from error


def _finite(details: dict[str, Json]) -> dict[str, Json]:
    """Return JSON with texts in place of NaN and infinities, which JSON does not have.

    Raises
    ------
    OutputError
        If the value is not JSON.
    """
    try:
        kept: dict[str, Json] = json.loads(json.dumps(details), parse_constant=str)
    except (TypeError, ValueError) as error:
        raise OutputError(f"details {details!r} are not JSON: {error}") from None
    return kept


def _filled(values: NDArray[Any], fill_value: float) -> NDArray[np.bool_]:
    """Return for each image whether it has any value that is not the fill value."""
    empty = np.isnan(values) if np.isnan(fill_value) else values == fill_value
    return np.asarray([not image.all() for image in empty], dtype=np.bool_)
