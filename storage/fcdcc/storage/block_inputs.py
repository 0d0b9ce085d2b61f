"""What blocks were made from, as their records say it.

The record of a block has digests of the image ids of its rows and of what the store said of the
chunks that hold them, before any was read. Where a change might not show in these, it has a digest
of the pixels, too, and a checksum of each image, which tells which of them changed. Digests are
16 bytes, checksums 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .checksummed_json import Json

__all__ = [
    "CHECKSUM_BYTES",
    "DIGEST_BYTES",
    "INPUT",
    "MAX_CHECKSUMS",
    "BlockInput",
    "RecordedInputs",
]

INPUT = "input"
"""Member of a record's details: what the block was made from."""

DIGEST_BYTES = 16
"""Length of a digest."""

CHECKSUM_BYTES = 4
"""Length of the checksum of an image."""

MAX_CHECKSUMS = 4096
"""Most images of a block of which each has a checksum."""


@dataclass(frozen=True)
class BlockInput:
    """What one block was made from.

    Parameters
    ----------
    ids
        Digest of the image ids; empty if the images have none.
    chunks
        Digest of what the store said of the chunks; empty if it does not list them.
    pixels
        Digest of the pixels as they are stored; empty if they were not read for it.
    fresh
        Whether chunks were so new that a change right after may not show in ``chunks``.
    rows
        The rows of the images that the block needs, first and last + 1; None for all.
    each
        The checksums of the pixels of each image, one behind the other; empty if there are none.
    """

    ids: bytes = b""
    chunks: bytes = b""
    pixels: bytes = b""
    fresh: bool = False
    rows: tuple[int, int] | None = None
    each: bytes = b""

    def as_json(self) -> dict[str, Json]:
        """Return the members that a record has."""
        digests = {
            "ids": self.ids, "chunks": self.chunks, "pixels": self.pixels, "each": self.each,
        }  # fmt: skip
        members: dict[str, Json] = {n: value.hex() for n, value in digests.items() if value}
        if self.fresh:
            members["fresh"] = True
        if self.rows is not None:
            members["rows"] = [*self.rows]
        return members

    @classmethod
    def from_json(cls, value: Json) -> BlockInput | None:
        """Return what :meth:`as_json` returned; None if it is something else."""
        if not isinstance(value, dict):
            return None
        try:
            ids, chunks, pixels, each = (
                bytes.fromhex(str(value.get(name, "")))
                for name in ("ids", "chunks", "pixels", "each")
            )
        except ValueError:
            return None
        if any(digest and len(digest) != DIGEST_BYTES for digest in (ids, chunks, pixels)):
            return None
        if len(each) % CHECKSUM_BYTES or len(each) > CHECKSUM_BYTES * MAX_CHECKSUMS:
            return None
        rows = value.get("rows")
        if rows is None:
            return cls(ids, chunks, pixels, bool(value.get("fresh")), None, each)
        numbers = [row for row in rows if isinstance(row, int)] if isinstance(rows, list) else []
        if len(numbers) != 2 or not 0 <= numbers[0] < numbers[1]:
            return None
        return cls(ids, chunks, pixels, bool(value.get("fresh")), (numbers[0], numbers[1]), each)


_NO_DIGEST = bytes(DIGEST_BYTES)


class RecordedInputs(Mapping[int, BlockInput]):
    """What the records of many blocks say, by block; few bytes for each.

    Parameters
    ----------
    blocks
        Number of blocks.
    """

    def __init__(self, blocks: int) -> None:
        self._known = np.zeros(blocks, np.bool_)
        self._plain = bytearray(2 * DIGEST_BYTES * blocks)
        """The ids and the chunks of each block, with zeros for no digest."""
        self._others: dict[int, BlockInput] = {}

    def note(self, block: int, found: BlockInput | None) -> None:
        """Note what the latest record of a block says; None if it says nothing."""
        self._others.pop(block, None)
        self._known[block] = found is not None
        if found is None:
            return
        if found.pixels or found.fresh or found.rows is not None:
            self._others[block] = found
            return
        place = 2 * DIGEST_BYTES * block
        digests = (found.ids or _NO_DIGEST) + (found.chunks or _NO_DIGEST)
        self._plain[place : place + 2 * DIGEST_BYTES] = digests

    def __getitem__(self, block: int) -> BlockInput:
        if not 0 <= block < len(self._known) or not self._known[block]:
            raise KeyError(block)
        if block in self._others:
            return self._others[block]
        place = 2 * DIGEST_BYTES * block
        ids = bytes(self._plain[place : place + DIGEST_BYTES])
        chunks = bytes(self._plain[place + DIGEST_BYTES : place + 2 * DIGEST_BYTES])
        return BlockInput(
            b"" if ids == _NO_DIGEST else ids, b"" if chunks == _NO_DIGEST else chunks
        )

    def __iter__(self) -> Iterator[int]:
        return (int(block) for block in np.flatnonzero(self._known))

    def __len__(self) -> int:
        return int(self._known.sum())

    @property
    def known(self) -> NDArray[np.bool_]:
        """(blocks,) bool: which blocks have a record that says what they were made from."""
        return self._known
