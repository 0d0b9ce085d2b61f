"""The array of ingested images: appends, replaces and takes out images, with their ids.

An image and its id are in different files. So that every id belongs to its pixels whenever the
process is killed, the array is shown only as far as both are right: before images move to other
chunks its length is cut to the images that stay, and its length grows again after all chunks, and
then the ids, are written. Chunks whose images keep their places are replaced as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import OutputArray, decode, encode
from .errors import DamageError
from .files import Folder
from .fingerprint import Fingerprint
from .ingest_records import (
    OPTIONS,
    Entry,
    StoredOptions,
    delete_record,
    options_file,
    read_records,
    write_moving_record,
    write_record,
)
from .locations import shown
from .metadata import Coordinate, make_contents
from .runs import StoredRun

__all__ = ["IngestedImages", "class_of"]

ARRAY = "image"
DIM = "n"
IDS = "image_id"

COORDINATE_CHUNK = 65536
"""Values per chunk of ids and labels. It does not depend on the number of images, so that a chunk
can be written before the metadata that shows its last values."""

Pixels = NDArray[Any]


def class_of(image: str) -> str:
    """Return the class of an image by its id: the first folder of its path."""
    return image.split("/")[0]


class IngestedImages:
    """The images at a place; for the holder of its lock.

    Opening ends what an interrupted call began: images that were being moved are moved.

    Parameters
    ----------
    out
        The place, which has no images, or images made with these options.
    options
        Of the images.
    """

    def __init__(self, out: Folder, options: StoredOptions) -> None:
        self._out = out
        self._array = OutputArray(ARRAY, options.form.shape, options.form.dtype, ("y", "x", "c"))
        self._chunk = options.chunk
        self._pending: list[Pixels] = []
        self._blocks = read_records(out)
        """The images of each chunk; the last ones may not be written yet."""
        self._options = options
        self._add_classes(())
        self.images: set[str] = set()
        """The ids of all images."""
        self._take_out(self._repeated())

    def __len__(self) -> int:
        """Return the number of images, those that are not written yet among them."""
        return sum(map(len, self._blocks))

    @property
    def entries(self) -> Iterable[Entry]:
        """All images, in order."""
        return chain.from_iterable(self._blocks)

    @property
    def blocks(self) -> list[list[Entry]]:
        """The images of each chunk."""
        return self._blocks

    def replace(self, block: int, changed: Mapping[int, tuple[Entry, Pixels | None]]) -> list[str]:
        """Replace images of a chunk by others with the same ids.

        Parameters
        ----------
        changed
            By the position in the chunk: what the record says of the image from now on, and its
            pixels, None if they are those that are stored.

        Returns
        -------
        list of str
            Ids of the images whose pixels differ from those that were stored.
        """
        given = {row: pixels for row, (_, pixels) in changed.items() if pixels is not None}
        stored = self._read(block, self._blocks[block] if given else [])
        different = [row for row in given if not np.array_equal(stored[row], given[row])]
        for row in different:
            stored[row] = given[row]
        if different:
            files = self._encode(block, stored)
            if len(files) > 1:  # they are not replaced at once
                self.publish(block * self._chunk)
            self._write(files)
        for row, (entry, _) in changed.items():
            self._blocks[block][row] = entry
        write_record(self._out, block, self._blocks[block])
        return [self._blocks[block][row].image for row in different]

    def remove(self, images: Collection[str]) -> None:
        """Take images out; those after them move up. Not while images are not written yet."""
        self._take_out(
            {
                (block, row)
                for block, entries in enumerate(self._blocks)
                for row, entry in enumerate(entries)
                if entry.image in images
            }
        )

    def append(self, entry: Entry, pixels: Pixels) -> None:
        """Add one image; write the chunk if it is full."""
        if not self._blocks or len(self._blocks[-1]) == self._chunk:
            self._blocks.append([])
        if not self._pending and self._blocks[-1]:
            self._pending = [*self._read(len(self._blocks) - 1, self._blocks[-1])]
        self._blocks[-1].append(entry)
        self.images.add(entry.image)
        self._pending.append(pixels)
        if len(self._pending) == self._chunk:
            self._flush()

    def finish(self, classes: Iterable[str]) -> None:
        """Write what is not written yet, and show all images.

        Parameters
        ----------
        classes
            Names of classes in the order in which they get labels, if they have none yet.
        """
        if self._pending:
            self._flush()
        self._add_classes(classes)
        self._write_options()
        self.publish(len(self))

    def images_in_order(self) -> list[str]:
        """Return the ids of all images."""
        return [entry.image for entry in self.entries]

    @property
    def options(self) -> StoredOptions:
        """The options that the images are made with."""
        return self._options

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their labels."""
        return self._options.classes

    def _add_classes(self, classes: Iterable[str]) -> None:
        """Give labels to classes that have none: those given, then those of other images."""
        if self._options.by_folder:
            known = (*self._options.classes, *classes, *map(class_of, self.images_in_order()))
            self._options = replace(self._options, classes=tuple(dict.fromkeys(known)))

    def publish(self, count: int) -> None:
        """Show so many images, from the first: write metadata, ids and labels that differ."""
        stored = dict(self._out.read_many([f"{ARRAY}/zarr.json", f"{IDS}/zarr.json"]))
        length, _ = _length_and_chunk(stored.get(f"{ARRAY}/zarr.json"))
        _, id_chunk = _length_and_chunk(stored.get(f"{IDS}/zarr.json"))
        if count == length == 0:
            return
        names = list(islice(self.images_in_order(), count))
        labels = [Coordinate(IDS, DIM, np.array(names, dtype=object))]
        if self._options.by_folder:
            number = {name: label for label, name in enumerate(self.classes)}
            values = np.array([number[class_of(name)] for name in names], dtype=np.int32)
            labels.append(Coordinate("label", DIM, values))
            labels.append(Coordinate("class", "class", np.array(self.classes, dtype=object)))
        run = StoredRun(
            Fingerprint.of({}), (self._array,), self._chunk, DIM, {"made_by": "fcdcc ingest"}
        )
        _, files = make_contents(run, count, labels, coordinate_chunk=COORDINATE_CHUNK)
        if count < length:
            # The images are hidden before anything else. Ids and labels that are stored have the
            # same beginning, and stay for those who have opened the array before.
            same = id_chunk == COORDINATE_CHUNK
            kept = {n: d for n, d in files.items() if n.endswith("zarr.json") or not same}
            files = {f"{ARRAY}/zarr.json": files[f"{ARRAY}/zarr.json"]} | kept
        present = dict(self._out.read_many(files))
        self._write({name: data for name, data in files.items() if present.get(name) != data})

    def _flush(self) -> None:
        """Write the images of the last chunk, and its record."""
        self._write_options()
        block = len(self._blocks) - 1
        self._write(self._encode(block, np.stack(self._pending)))
        write_record(self._out, block, self._blocks[block])
        self._pending = []

    def _write_options(self) -> None:
        data = options_file(self._options)
        if dict(self._out.read_many([OPTIONS])).get(OPTIONS) != data:
            self._out.write(OPTIONS, data)

    def _encode(self, block: int, pixels: Pixels) -> dict[str, bytes]:
        return encode(self._array, block, self._chunk, pixels)

    def _write(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self._out.write(name, data)

    def _read(self, block: int, entries: Sequence[Entry]) -> Pixels:
        """Return the pixels of the images of a chunk as a new array."""
        shape = (len(entries), *self._options.form.shape)
        if not entries:
            return np.empty(shape, self._options.form.dtype)
        found = dict(self._out.read_many(self._array.chunk_names(block, self._chunk)))
        try:
            return np.array(decode(self._array, block, self._chunk, len(entries), found))
        except DamageError as error:
            raise DamageError(
                f"{shown(self._out.location)} is damaged ({error}): ingest into a new folder"
            ) from error

    def _repeated(self) -> set[tuple[int, int]]:
        """Return the places of images that stand in an earlier place, too.

        An interrupted call moved them there. This also collects the ids of all others.
        """
        repeated = set()
        for block, entries in enumerate(self._blocks):
            for row, entry in enumerate(entries):
                if entry.image in self.images:
                    repeated.add((block, row))
                self.images.add(entry.image)
        return repeated

    def _take_out(self, places: Collection[tuple[int, int]]) -> None:
        """Take out the images at places, and close all gaps between chunks."""
        gaps = [b for b, entries in enumerate(self._blocks[:-1]) if len(entries) < self._chunk]
        first = min([*gaps, *(block for block, _ in places)], default=None)
        if first is None:
            return
        self.publish(first * self._chunk)
        old, self._blocks = self._blocks, self._blocks[:first]
        entries: list[Entry] = []
        pixels: list[Pixels] = []
        for block in range(first, len(old)):
            stored = self._read(block, old[block])
            for row, entry in enumerate(old[block]):
                if (block, row) in places:
                    continue
                entries.append(entry)
                pixels.append(stored[row])
            while len(entries) >= self._chunk:
                self._move(entries[: self._chunk], pixels[: self._chunk], old)
                del entries[: self._chunk], pixels[: self._chunk]
        if entries:
            self._move(entries, pixels, old)
        for block in range(len(self._blocks), len(old)):
            delete_record(self._out, block)
            self._out.delete(self._array.chunk_names(block, self._chunk))
        self.images = set(self.images_in_order())

    def _move(
        self, entries: Sequence[Entry], pixels: Sequence[Pixels], old: Sequence[Sequence[Entry]]
    ) -> None:
        """Replace the next chunk by one with other images."""
        block = len(self._blocks)
        files = self._encode(block, np.stack(pixels))
        write_moving_record(self._out, block, entries, files, old[block])
        self._write(files)
        write_record(self._out, block, entries)
        self._blocks.append([*entries])


def _length_and_chunk(metadata: bytes | None) -> tuple[int, int]:
    """Return the length of an array along its first axis, and that of its chunks; 0 if absent."""
    if metadata is None:
        return 0, 0
    members = json.loads(metadata)
    return members["shape"][0], members["chunk_grid"]["configuration"]["chunk_shape"][0]
