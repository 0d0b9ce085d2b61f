"""Completion records: one per block, written after the block's chunks.

A record says which images the block holds, under which fingerprint they were made, and the
size and SHA-256 of each chunk as it was stored. A block without a valid record of the right
fingerprint and length is done again, whatever its chunks look like.

Records lie in ``.fcdcc/blocks``, each in a file of its own, which many workers can write
without meeting. :func:`compact` gathers them into segments of one record per line, so that a
later run lists and reads few files. A record in a file of its own is newer than one in a
segment, and a later segment is newer than an earlier one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .checksummed_json import Json, digest, seal, unseal
from .errors import DamageError
from .files import Folder

__all__ = [
    "RECORDS",
    "BlockRecord",
    "Chunk",
    "compact",
    "drop_unreadable",
    "read_record",
    "read_records",
    "record_name",
    "replace_record",
    "write_record",
]

RECORDS = ".fcdcc/blocks"
SCHEMA = 1

_SEGMENT_LIMIT = 32


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Chunk:
    """What a chunk file holds: its size in bytes and their SHA-256."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Chunk:
        """Return what there is to know about some contents."""
        return cls(len(data), digest(data))

    @classmethod
    def from_json(cls, entry: Json) -> Chunk:
        """Return what ``[size, sha256]`` says."""
        if not isinstance(entry, list):
            raise TypeError(f"{entry!r} is no chunk")
        return cls(_integer(entry[0]), str(entry[1]))


@dataclass(frozen=True)
class BlockRecord:
    """What became of one block.

    Parameters
    ----------
    block, start, stop
        The block and its images start … stop − 1.
    state
        ``"done"`` or ``"failed"``.
    fingerprint
        Digest of the fingerprint under which it was made.
    chunks
        Chunk files by name; empty where the block failed.
    reason
        Why it failed; empty where it is done.
    warnings
        What was noticed about the predictions, such as values that are no numbers.
    details
        Whatever else the run wants to keep: times, erasures, decodes.
    written
        When, ISO 8601 in UTC.
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
        """Return the record that :meth:`to_bytes` wrote, in this version or an older one.

        Raises
        ------
        DamageError
            If the bytes are not such a record.
        """
        members = unseal(data)
        try:
            return _record(members)
        except (LookupError, TypeError, ValueError) as error:
            raise DamageError(f"it is no record that this version can read: {error!r}") from error


def _record(members: Mapping[str, Json]) -> BlockRecord:
    schema, state = _integer(members["schema"]), members["state"]
    if schema > SCHEMA:
        raise ValueError(f"schema {schema}")
    if state not in ("done", "failed"):
        raise ValueError(f"state {state!r}")
    chunks, details = members["chunks"], members["details"]
    warnings = members["warnings"]
    if not (isinstance(chunks, dict) and isinstance(details, dict) and isinstance(warnings, list)):
        raise TypeError("chunks, details or warnings")
    return BlockRecord(
        block=_integer(members["block"]),
        start=_integer(members["start"]),
        stop=_integer(members["stop"]),
        state="done" if state == "done" else "failed",
        fingerprint=str(members["fingerprint"]),
        chunks={name: Chunk.from_json(entry) for name, entry in chunks.items()},
        reason=str(members["reason"]),
        warnings=tuple(str(text) for text in warnings),
        details=details,
        written=str(members["written"]),
    )


def _integer(value: Json) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no integer")
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
    """Store a record in place of whatever the block has; only for the holder of the lock."""
    folder.write(record_name(record.block), record.to_bytes() + b"\n")


def read_record(folder: Folder, block: int) -> BlockRecord | None:
    """Return the record that a block has in a file of its own; None without a valid one."""
    try:
        found = _parsed(folder.read(record_name(block)))
    except FileNotFoundError:
        return None
    return found if isinstance(found, BlockRecord) else None


def read_records(
    folder: Folder,
) -> Iterator[tuple[str, BlockRecord | DamageError]]:
    """Yield all records, the older of two of one block first, each with where it lies.

    What is no valid record is yielded as the error that says why.
    """
    own, segments = _listed(folder)
    for name, data in folder.read_many(segments):
        for number, line in enumerate(data.splitlines(keepends=True), start=1):
            yield f"{name}:{number}", _parsed(line)
    for name, data in folder.read_many(own):
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
    """Gather records that lie in files of their own into a segment; return how many.

    Nothing is done up to ``keep`` of them. Only for the holder of the output's lock. A run
    that dies in the middle leaves records twice, which says the same.
    """
    own, segments = _listed(folder)
    if len(own) <= keep:
        return 0
    lines: dict[str, bytes] = {}
    for name, data in folder.read_many(own):
        found = _parsed(data)
        # A failure may yet be replaced by the block's other writer.
        if isinstance(found, BlockRecord) and found.state == "done":
            lines[name] = data
    if lines:
        merged = segments if len(segments) >= _SEGMENT_LIMIT else []
        older = b"".join(data for _, data in folder.read_many(merged))
        last = int(segments[-1].rpartition("-")[2].removesuffix(".jsonl")) if segments else 0
        name = f"{RECORDS}/segment-{last + 1:06d}.jsonl"
        folder.write(name, older + b"".join(lines.values()))
        folder.delete([*lines, *merged])
    return len(lines)


def drop_unreadable(folder: Folder) -> None:
    """Remove what is no valid record, alone or in a segment; only for the holder of the lock."""
    own, segments = _listed(folder)
    for name, data in folder.read_many(own):
        if not isinstance(_parsed(data), BlockRecord):
            folder.delete([name])
    for name, data in folder.read_many(segments):
        lines = data.splitlines(keepends=True)
        whole = [line for line in lines if isinstance(_parsed(line), BlockRecord)]
        if len(whole) < len(lines):
            folder.write(name, b"".join(whole))


def _listed(folder: Folder) -> tuple[list[str], list[str]]:
    """Return the files that hold one record each, and the segments, oldest first."""
    names = sorted(folder.sizes(RECORDS))
    return (
        [name for name in names if name.endswith(".json")],
        [name for name in names if name.endswith(".jsonl")],
    )
