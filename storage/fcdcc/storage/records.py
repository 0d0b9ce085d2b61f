"""Completion records: one per block, written after the block's chunks.

A record has the images of the block, the fingerprint of the job, and the size and SHA-256 of each
chunk as it was stored. A block without a valid record with the right fingerprint and number of
images is computed again, whatever chunks it has.

Records are in ``.fcdcc/blocks``, each in a file of its own, so that many workers can write them
independently. :func:`compact` merges them into segments with one record per line, so that a later
run lists and reads few files. A record in its own file is newer than one in a segment, and a later
segment is newer than an earlier one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .checksummed_json import Json, digest, seal, unseal
from .errors import DamageError
from .files import MAX_RECORD_BYTES, Folder, inside
from .foreign_files import is_foreign
from .regular_files import NotRegularError

__all__ = [
    "ABSENT",
    "RECORDS",
    "BlockRecord",
    "Chunk",
    "compact",
    "drop_records",
    "drop_unreadable",
    "read_record",
    "read_records",
    "record_name",
    "replace_record",
    "write_record",
]

RECORDS = ".fcdcc/blocks"
ABSENT = "absent"
"""Member of a record's details: the chunks of the images that were not stored."""

SCHEMA = 1
"""Version of the format of records; this version reads records up to it."""

_MAX_SEGMENTS = 32
"""With so many segments, :func:`compact` merges them into the new one."""


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Chunk:
    """The size of a file in bytes, and the SHA-256 of its contents."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Chunk:
        """Return the size and checksum of some contents."""
        return cls(len(data), digest(data))

    @classmethod
    def from_json(cls, entry: Json) -> Chunk:
        """Return the chunk that ``[size, sha256]`` describes."""
        if not isinstance(entry, list):
            raise TypeError(f"{entry!r} is not a chunk")
        return cls(_integer(entry[0]), str(entry[1]))


@dataclass(frozen=True)
class BlockRecord:
    """The record of one block.

    Parameters
    ----------
    block, start, stop
        The block, and its images start … stop − 1.
    state
        ``"done"`` or ``"failed"``.
    fingerprint
        Digest of the fingerprint of the job.
    chunks
        Chunk files by name; empty if the block failed.
    reason
        Why the block failed; empty if it is done.
    warnings
        Warnings about the predictions, such as values that are not finite.
    details
        Further data of the run: times, erasures, decodes.
    written
        When the record was made, ISO 8601 in UTC.
    """

    block: int
    start: int
    stop: int
    state: Literal["done", "failed"]
    fingerprint: str
    chunks: Mapping[str, Chunk] = field(default_factory=dict)
    reason: str = ""
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Json] = field(default_factory=dict)
    written: str = field(default_factory=_now)

    def to_bytes(self) -> bytes:
        """Return the record as sealed JSON."""
        return seal(
            {
                "schema": SCHEMA,
                "block": self.block,
                "start": self.start,
                "stop": self.stop,
                "state": self.state,
                "fingerprint": self.fingerprint,
                "chunks": {name: [c.size, c.sha256] for name, c in self.chunks.items()},
                "reason": self.reason,
                "warnings": [*self.warnings],
                "details": dict(self.details),
                "written": self.written,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> BlockRecord:
        """Return the record that :meth:`to_bytes` of this or an older version returned.

        Raises
        ------
        DamageError
            If the bytes are not such a record.
        """
        members = unseal(data)
        try:
            return _record(members)
        except (LookupError, OSError, TypeError, ValueError) as error:
            raise DamageError(
                f"it is not a record that this version can read: {error!r}"
            ) from error


def _record(members: Mapping[str, Json]) -> BlockRecord:
    schema, state = _integer(members["schema"]), members["state"]
    if schema > SCHEMA:
        raise ValueError(f"schema {schema}")
    if state not in ("done", "failed"):
        raise ValueError(f"state {state!r}")
    chunks, details = members["chunks"], members["details"]
    warnings = members["warnings"]
    block, start, stop = (
        _integer(members["block"]), _integer(members["start"]), _integer(members["stop"])
    )  # fmt: skip
    if not (block >= 0 and 0 <= start <= stop):
        raise ValueError(f"block {block} with the images {start} to {stop}")
    if not (isinstance(chunks, dict) and isinstance(details, dict) and isinstance(warnings, list)):
        raise TypeError("chunks, details or warnings")
    return BlockRecord(
        block=block,
        start=start,
        stop=stop,
        state="done" if state == "done" else "failed",
        fingerprint=str(members["fingerprint"]),
        chunks={inside(name): Chunk.from_json(entry) for name, entry in chunks.items()},
        reason=str(members["reason"]),
        warnings=tuple(map(str, warnings)),
        details=details,
        written=str(members["written"]),
    )


def _integer(value: Json) -> int:
    if type(value) is not int or abs(value) >= 1 << 63:
        raise TypeError(f"{value!r} is not an integer")
    return value


def record_name(block: int) -> str:
    """Return the file name of a block's own record."""
    return f"{RECORDS}/{block:08d}.json"


def write_record(folder: Folder, record: BlockRecord) -> None:
    """Store a record in a file of its own; a failure does not replace a completed block's."""
    name, data = record_name(record.block), record.to_bytes() + b"\n"
    if record.state == "done" or not folder.write(name, data, exclusive=True):
        present = None if record.state == "done" else read_record(folder, record.block)
        if present is None or present.state == "failed":
            folder.write(name, data)


def replace_record(folder: Folder, record: BlockRecord) -> None:
    """Store a record in place of any other of the block; only for the holder of the lock."""
    folder.write(record_name(record.block), record.to_bytes() + b"\n")


def read_record(folder: Folder, block: int) -> BlockRecord | None:
    """Return the record that a block has in its own file; None if there is no valid one."""
    try:
        found = _parsed(folder.read(record_name(block), MAX_RECORD_BYTES))
    except (FileNotFoundError, NotRegularError):
        return None
    return found if isinstance(found, BlockRecord) else None


def read_records(
    folder: Folder,
) -> Iterator[tuple[str, BlockRecord | DamageError]]:
    """Yield all records with the names of their files, older ones of a block before newer ones.

    For an invalid record, the error is yielded.
    """
    own, segments = _listed(folder)
    for name, data in folder.read_many(segments):
        for number, line in enumerate(data.splitlines(keepends=True), start=1):
            yield f"{name}:{number}", _parsed(line)
    for name, data in folder.read_many(own, MAX_RECORD_BYTES):
        found = _parsed(data)
        if isinstance(found, BlockRecord) and record_name(found.block) != name:
            found = DamageError(f"it is the record of block {found.block}")
        yield name, found


def _parsed(line: bytes) -> BlockRecord | DamageError:
    if not line.endswith(b"\n"):
        return DamageError("it is cut off")
    try:
        return BlockRecord.from_bytes(line[:-1])
    except DamageError as error:
        return error


def compact(folder: Folder, *, keep: int = 4096) -> int:
    """Merge records that are in files of their own into a segment; return how many.

    Does nothing if there are at most ``keep``. Only for the holder of the output's lock. If the
    process ends in the middle, some records exist twice, which does no harm.
    """
    own, segments = _listed(folder)
    if len(own) <= keep:
        return 0
    lines: dict[str, bytes] = {}
    for name, data in folder.read_many(own, MAX_RECORD_BYTES):
        found = _parsed(data)
        # A failure stays in its own file: another writer of the block may still replace it.
        if isinstance(found, BlockRecord) and found.state == "done":
            lines[name] = data
    if lines:
        merged = segments if len(segments) >= _MAX_SEGMENTS else []
        older = b"".join(data for _, data in folder.read_many(merged))
        last = int(segments[-1].rpartition("-")[2].removesuffix(".jsonl")) if segments else 0
        name = f"{RECORDS}/segment-{last + 1:06d}.jsonl"
        folder.write(name, older + b"".join(lines.values()))
        folder.delete([*lines, *merged])
    return len(lines)


def drop_records(folder: Folder, is_dropped: Callable[[int], bool]) -> None:
    """Remove the records of some blocks, in files of their own and in segments; only with the lock.

    Invalid records stay.
    """
    own, segments = _listed(folder)
    numbers = {name: name.removeprefix(f"{RECORDS}/").removesuffix(".json") for name in own}
    folder.delete(n for n, text in numbers.items() if text.isdecimal() and is_dropped(int(text)))
    _keep_lines(
        folder,
        segments,
        lambda found: isinstance(found, DamageError) or not is_dropped(found.block),
    )


def drop_unreadable(folder: Folder) -> None:
    """Remove invalid records, in files of their own and in segments; only with the lock."""
    own, segments = _listed(folder)
    for name, data in folder.read_many(own, MAX_RECORD_BYTES):
        if not isinstance(_parsed(data), BlockRecord):
            folder.delete([name])
    _keep_lines(folder, segments, lambda found: isinstance(found, BlockRecord))


def _keep_lines(
    folder: Folder, segments: list[str], is_kept: Callable[[BlockRecord | DamageError], bool]
) -> None:
    """Write those segments again that have records that are not kept."""
    for name, data in folder.read_many(segments):
        lines = data.splitlines(keepends=True)
        kept = [line for line in lines if is_kept(_parsed(line))]
        if len(kept) < len(lines):
            folder.write(name, b"".join(kept))


def _listed(folder: Folder) -> tuple[list[str], list[str]]:
    """Return the files with one record each, and the segments, oldest first."""
    names = sorted(name for name in folder.sizes(RECORDS) if not is_foreign(name))
    return (
        [name for name in names if name.endswith(".json")],
        [name for name in names if name.endswith(".jsonl")],
    )
