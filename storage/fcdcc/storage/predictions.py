"""Predictions out: whole blocks, written once, read back, and known by their records.

A :class:`PredictionStore` is a small value that travels to workers. Writing a block stores
its chunks and then its record; of two workers that write the same block, the first wins, so
that a block keeps its bytes from the moment it is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import OutputArray, decode, encode
from .errors import DamageError, OutputError
from .files import Folder, open_folder
from .layout import BlockLayout
from .locations import shown
from .progress import Progress, read_progress
from .records import (
    BlockRecord,
    Chunk,
    compact,
    read_record,
    record_name,
    replace_record,
    write_record,
)
from .runs import marker
from .sealed import Json

__all__ = ["PredictionStore", "Values"]

Values = NDArray[Any] | Mapping[str, NDArray[Any]]
"""Predictions of a block: one array, or one for each array of the output by name."""


@dataclass(frozen=True)
class PredictionStore:
    """The arrays of an output, block by block.

    Parameters
    ----------
    url
        Local path or URL; may hold credentials.
    arrays
        What is stored, ``prediction`` first.
    layout
        How many images there are, and how many in a block.
    fingerprint
        Digest of the fingerprint, kept in every record.
    output
        The id of the output: a worker of a run that has been put aside writes nothing into
        the output that took its place.
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

        A block that has been recorded already keeps its bytes: then its record is returned
        and nothing written.

        Parameters
        ----------
        values
            (images of the block, *shape), or a mapping from array names to these.
        warnings, details
            Kept in the record.

        Raises
        ------
        OutputError
            If the values have the wrong shape, or cannot be stored (a full disk): there is
            no record then, and the block is done again by the next run.
        """
        start, stop = self.layout.bounds(block)
        folder = self.folder
        files = self._encode(block, stop - start, values)
        try:
            self._check_place(folder)
            present = read_record(folder, block)
            if present is not None and self._completes(present):
                return present
            chunks = {name: self._store(folder, block, name, data) for name, data in files.items()}
            record = BlockRecord(
                block, start, stop, "done", self.fingerprint, chunks,
                warnings=tuple(warnings), details=details or {},
            )  # fmt: skip
            write_record(folder, record)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                f"block {block} of {shown(self.url)} could not be written: "
                f"{error.strerror or error}; make room or mend the store and run the job again"
            ) from error
        return record

    def record_failure(
        self, block: int, reason: str, *, details: Mapping[str, Json] | None = None
    ) -> BlockRecord:
        """Record that a block could not be made; a block that is done stays done.

        Raises
        ------
        OSError
            If the record cannot be stored.
        """
        start, stop = self.layout.bounds(block)
        record = BlockRecord(
            block, start, stop, "failed", self.fingerprint, reason=reason, details=details or {}
        )
        self._check_place(self.folder)
        write_record(self.folder, record)
        return record

    def read(self, block: int, array: str = "prediction") -> NDArray[Any]:
        """Return one block's predictions (images, *shape).

        Raises
        ------
        OutputError
            If there is no such array.
        DamageError
            If a chunk is missing or damaged.
        """
        chosen = self._array(array)
        start, stop = self.layout.bounds(block)
        names = chosen.chunk_names(block, self.layout.batch)
        found = dict(self.folder.read_many(names))
        return decode(chosen, block, self.layout.batch, stop - start, found)

    def progress(self) -> Progress:
        """Return which blocks are done, by their records and the sizes of their chunks."""
        return read_progress(
            self.folder, self.layout, self.fingerprint, [array.name for array in self.arrays]
        )

    def clear(self, blocks: Iterable[int]) -> None:
        """Remove what is left of blocks that are to be done again: records, then chunks.

        Only for the holder of the output's lock, before the blocks are computed.
        """
        folder = self.folder
        stored = {name for array in self.arrays for name in folder.sizes(array.name)}
        wanted = list(blocks)
        folder.delete(map(record_name, wanted))
        for array in self.arrays:
            for block in wanted:
                folder.delete(
                    name for name in array.chunk_names(block, self.layout.batch) if name in stored
                )

    def discard(self, blocks: Iterable[int], reason: str) -> None:
        """Record that blocks are damaged, so that the next run does them again.

        Only for the holder of the output's lock. Nothing is deleted.
        """
        for block in blocks:
            start, stop = self.layout.bounds(block)
            replace_record(
                self.folder,
                BlockRecord(block, start, stop, "failed", self.fingerprint, reason=reason),
            )

    def compact(self, *, keep: int = 256) -> int:
        """Gather the records of completed blocks into few files; return how many.

        Only for the holder of the output's lock; at the end of a run, and every thousand
        blocks or so of a long one.
        """
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
            if len(part) != images:
                raise OutputError(
                    f"block {block}: predictions for {len(part)} images; expected {images}"
                )
            files |= encode(array, block, self.layout.batch, part)
        return files

    def _check_place(self, folder: Folder) -> None:
        if not folder.exists(marker(self.output)):
            raise OutputError(
                f"{shown(self.url)} is no longer the output that this run began: it was moved, "
                "put aside or deleted meanwhile"
            )

    def _completes(self, record: BlockRecord) -> bool:
        return (
            record.state == "done"
            and record.fingerprint == self.fingerprint
            and (record.start, record.stop) == self.layout.bounds(record.block)
        )

    def _store(self, folder: Folder, block: int, name: str, data: bytes) -> Chunk:
        """Store a chunk unless another writer of the same block has; return what is stored."""
        if folder.write(name, data, exclusive=True):
            return Chunk.of(data)
        present = folder.read(name)
        if present != data and not self._is_whole(block, name, present, data):
            folder.write(name, data)
            present = data
        return Chunk.of(present)

    def _is_whole(self, block: int, name: str, present: bytes, ours: bytes) -> bool:
        """Return whether a chunk that is already there has predictions wherever ours has.

        It has not if it was written before images were appended, by a worker that outlived
        its run.
        """
        array = self._array(name.split("/")[0])
        start, stop = self.layout.bounds(block)
        others = array.chunk_names(block, self.layout.batch)
        decoded = []
        for data in (present, ours):
            try:
                values = decode(
                    array, block, self.layout.batch, stop - start, dict.fromkeys(others, data)
                )
            except DamageError:
                return False
            decoded.append(_filled(values, array.fill_value))
        return bool(np.all(decoded[0] >= decoded[1]))


def _filled(values: NDArray[Any], fill_value: float) -> NDArray[np.bool_]:
    """Return for each image whether it has any value that is not the fill value."""
    empty = np.isnan(values) if fill_value != fill_value else values == fill_value
    filled: NDArray[np.bool_] = ~empty.reshape(len(values), -1).all(axis=1)
    return filled
