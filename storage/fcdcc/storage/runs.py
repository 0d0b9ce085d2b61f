"""The description of an output: the job that made it, its arrays, and its files.

``.fcdcc/run.json`` has the fingerprint, stored plan, arrays and batch; it is written first and
never changed. ``.fcdcc/contents.json`` has the number of images and the contents of every file
that belongs to no block: the text of the ``zarr.json`` files, checksums of coordinates. It is
written before those files, so that after an interruption the next run can finish the change. Both
have a second copy, since they could not be reconstructed from other files.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from .checksummed_json import Json, seal, unseal
from .chunks import OutputArray
from .errors import DamageError, OutputError
from .files import MAX_RECORD_BYTES, Folder, inside
from .fingerprint import Fingerprint
from .layout import BlockLayout
from .locations import shown
from .records import Chunk
from .regular_files import NotRegularError

__all__ = [
    "CONTENTS",
    "PRIVATE",
    "RUN",
    "Contents",
    "StoredRun",
    "copies",
    "marker",
    "read_contents",
    "read_copies",
    "read_run",
    "write_copies",
]

PRIVATE = ".fcdcc"
"""Folder in the output for everything that is not Zarr."""

RUN = f"{PRIVATE}/run.json"
CONTENTS = f"{PRIVATE}/contents.json"

T = TypeVar("T")

_OUTPUT_ID = re.compile(r"[0-9a-zA-Z-]{1,80}")

_SCHEMA = 2
"""Latest version of the format of ``run.json`` and ``contents.json``: that of bands."""

_SCHEMA_WITHOUT_BANDS = 1
"""The version that files without bands have, which older versions of fcdcc read, too."""


@dataclass(frozen=True)
class StoredRun:
    """The job that an output belongs to.

    Parameters
    ----------
    fingerprint
        Of the job.
    arrays
        The arrays of the output; ``prediction`` first, if the network has one output.
    batch
        Images per block, and the length of chunks along n.
    dim
        Name of the first axis.
    attributes
        Of the Zarr group: how the output was made.
    plan
        The stored plan, any JSON.
    output
        A unique id of the output.
    created
        When the output was created, ISO 8601 in UTC.
    """

    fingerprint: Fingerprint
    arrays: tuple[OutputArray, ...]
    batch: int
    dim: str
    attributes: Mapping[str, Json] = field(default_factory=dict)
    plan: Json = None
    output: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: str = field(
        default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    )

    def layout(self, images: int) -> BlockLayout:
        """Return the blocks of so many images."""
        return self.arrays[0].layout(images, self.batch)

    def to_bytes(self) -> bytes:
        """Return the contents of ``run.json``."""
        members: dict[str, Json] = {
            "schema": _SCHEMA_WITHOUT_BANDS if self.arrays[0].band is None else _SCHEMA,
            "fingerprint": self.fingerprint.fields,
            "arrays": [array.as_json() for array in self.arrays],
            "batch": self.batch,
            "dim": self.dim,
            "attributes": dict(self.attributes),
            "plan": self.plan,
            "output": self.output,
            "created": self.created,
        }
        return seal(members) + b"\n"

    @classmethod
    def from_members(cls, members: Mapping[str, Json]) -> StoredRun:
        """Return the run that the members of ``run.json`` describe."""
        fields, arrays, attributes = (members[k] for k in ("fingerprint", "arrays", "attributes"))
        batch, output = members["batch"], str(members["output"])
        if not (
            isinstance(fields, dict)
            and isinstance(arrays, list)
            and isinstance(attributes, dict)
            and isinstance(batch, int)
        ):
            raise TypeError("fingerprint, arrays, attributes or batch")
        if _OUTPUT_ID.fullmatch(output) is None or not 1 <= batch < 1 << 63 or not arrays:
            raise ValueError(f"output {output!r:.80} with {len(arrays)} arrays, blocks of {batch}")
        return cls(
            fingerprint=Fingerprint.of(fields),
            arrays=tuple(_output_array(entry) for entry in arrays),
            batch=batch,
            dim=str(members["dim"]),
            attributes=attributes,
            plan=members["plan"],
            output=output,
            created=str(members["created"]),
        )


def _output_array(entry: Json) -> OutputArray:
    if not isinstance(entry, dict):
        raise TypeError("array")
    shape, dims = entry["shape"], entry["dims"]
    if not (isinstance(shape, list) and isinstance(dims, list)):
        raise TypeError("shape or dims of an array")
    if not all(isinstance(size, int) for size in shape):
        raise TypeError("shape of an array")
    sizes = tuple(size for size in shape if isinstance(size, int))
    row_axis, band = entry.get("row_axis"), entry.get("band")
    if not (isinstance(row_axis, int | None) and isinstance(band, int | None)):
        raise TypeError("bands of an array")
    names = tuple(map(str, dims))
    return OutputArray(str(entry["name"]), sizes, str(entry["dtype"]), names, row_axis, band)


@dataclass(frozen=True)
class Contents:
    """The contents of the files that belong to no block.

    Parameters
    ----------
    images
        Number of images in the output.
    texts
        The ``zarr.json`` files, name to text.
    chunks
        Chunk files of coordinates along the first axis, by name.
    blobs
        Contents of the chunk files of other coordinates, since later runs may not have their
        values.
    """

    images: int
    texts: Mapping[str, str]
    chunks: Mapping[str, Chunk]
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the contents of ``contents.json``."""
        members: dict[str, Json] = {
            "schema": _SCHEMA_WITHOUT_BANDS,
            "images": self.images,
            "texts": dict(self.texts),
            "chunks": {name: [chunk.size, chunk.sha256] for name, chunk in self.chunks.items()},
            "blobs": {name: b64encode(data).decode() for name, data in self.blobs.items()},
        }
        return seal(members) + b"\n"

    @classmethod
    def from_members(cls, members: Mapping[str, Json]) -> Contents:
        """Return what the members of ``contents.json`` describe."""
        images, blobs = members["images"], members["blobs"]
        texts, chunks = members["texts"], members["chunks"]
        if not (
            isinstance(images, int)
            and isinstance(texts, dict)
            and isinstance(chunks, dict)
            and isinstance(blobs, dict)
        ):
            raise TypeError("images, texts, chunks or blobs")
        return cls(
            images,
            {inside(name): _metadata_text(text) for name, text in texts.items()},
            {inside(name): Chunk.from_json(entry) for name, entry in chunks.items()},
            {inside(name): b64decode(str(data)) for name, data in blobs.items()},
        )

    @property
    def files(self) -> dict[str, Chunk]:
        """Size and checksum of every file that belongs to no block."""
        texts = {name: Chunk.of(text.encode()) for name, text in self.texts.items()}
        blobs = {name: Chunk.of(data) for name, data in self.blobs.items()}
        return texts | blobs | dict(self.chunks)


def _metadata_text(text: Json) -> str:
    """Return the text of a ``zarr.json`` file, after a check that it is one."""
    if not isinstance(text, str) or not isinstance(json.loads(text.encode()), dict):
        raise TypeError("the text of a zarr.json file")
    return text


def copies(name: str) -> tuple[str, str]:
    """Return the names of both copies of ``run.json`` or ``contents.json``."""
    return name, name.removesuffix(".json") + ".copy.json"


def write_copies(folder: Folder, name: str, data: bytes) -> None:
    """Write both copies of a file."""
    for copy in copies(name):
        folder.write(copy, data)


def read_copies(folder: Folder, name: str) -> dict[str, Json] | None:
    """Return the members of a file from the first of its copies that is undamaged.

    None if neither copy exists.

    Raises
    ------
    DamageError
        If no copy is undamaged.
    OutputError
        If a newer version wrote it.
    """
    damaged: list[str] = []
    for copy in copies(name):
        try:
            data = folder.read(copy, MAX_RECORD_BYTES)
            if not data.endswith(b"\n"):
                raise DamageError("it is cut off")
            members = unseal(data[:-1])
        except FileNotFoundError:
            continue
        except DamageError as error:
            damaged.append(f"{copy}: {error}")
            continue
        except NotRegularError as error:
            damaged.append(f"{copy}: {error.strerror}")
            continue
        except OSError as error:
            raise OutputError(
                f"{shown(folder.location)} cannot be read: {error.strerror or error}"
            ) from error
        schema = members.get("schema")
        if not isinstance(schema, int) or schema > _SCHEMA:
            raise OutputError(
                f"{shown(folder.location)} was written by a newer version (schema {schema!r:.40}, "
                f"this one reads up to {_SCHEMA}): update fcdcc, or use another output"
            )
        return members
    if damaged:
        raise DamageError(
            f"{shown(folder.location)} is damaged ({'; '.join(damaged)}): put it aside with "
            "--restart and run the job again"
        )
    return None


def marker(output: str) -> str:
    """Return the name of the empty file that identifies the output at a location."""
    return f"{PRIVATE}/output-{output}"


def read_run(folder: Folder) -> StoredRun | None:
    """Return the run that an output belongs to; None if there is no ``run.json``.

    Raises
    ------
    DamageError, OutputError
        As :func:`read_copies`.
    """
    members = read_copies(folder, RUN)
    return None if members is None else _understood(folder, members, StoredRun.from_members)


def read_contents(folder: Folder) -> Contents | None:
    """Return an output's ``contents.json``; None if there is none.

    Raises
    ------
    DamageError, OutputError
        As :func:`read_copies`.
    """
    members = read_copies(folder, CONTENTS)
    return None if members is None else _understood(folder, members, Contents.from_members)


def _understood(
    folder: Folder, members: Mapping[str, Json], make: Callable[[Mapping[str, Json]], T]
) -> T:
    """Return an object made from members; DamageError if they are not what a run writes."""
    try:
        return make(members)
    except OutputError:
        raise
    except (LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise DamageError(
            f"{shown(folder.location)} has a description that no run writes ({error!r}): put it "
            "aside with --restart and run the job again"
        ) from error
