"""What ingested images were made from: the options, and the file of every image.

``.fcdcc/ingest.json`` has the options. ``.fcdcc/ingested`` has one record per chunk of images, with
the id of each image and the state that its file had when it was read. A record is written after its
chunk, so that it never names an image that is not there.

While images are taken out, chunks get other images than before. Then the record is written first,
with the checksums of the new chunk and with what the chunk held before: whatever happens in
between, the checksums tell which of both it holds.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import get_args

from .checksummed_json import Json, seal, unseal
from .errors import DamageError
from .files import Folder
from .fingerprint import Fingerprint
from .foreign_files import is_foreign
from .layout import MAX_BLOCKS
from .locations import shown
from .picture_folder import FileState
from .pictures import Colour, Depth, Fit, Interpolation, PictureForm
from .records import Chunk
from .runs import PRIVATE

__all__ = [
    "OPTIONS",
    "Entry",
    "StoredOptions",
    "delete_record",
    "options_file",
    "read_options",
    "read_records",
    "write_moving_record",
    "write_record",
]

OPTIONS = f"{PRIVATE}/ingest.json"
"""The file with the options that the images were made with."""

RECORDS = f"{PRIVATE}/ingested"
"""The folder of the records, one per chunk."""

SCHEMA = 2
"""Version of the format of both kinds of files; 1 had no states of files."""

MAX_SIZE = 2**30
"""Largest height or width of images."""

CHUNK_BYTES = 16 * 2**20
CHUNK_IMAGES = 1024
"""Largest chunk: in bytes before compression, and in images."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image, and the file that it was read from.

    Parameters
    ----------
    image
        Its id: the name of the file in the folder, and the page if the file has several.
    page
        The number of the page, from 1; None if the file is one picture.
    state
        Of the file when it was read; None if an older version did not record it.
    digest
        Of the contents of the file.
    settled
        Whether the file was old enough, when it was read, for a later change to show in its
        state: file systems record times with a limited precision.
    """

    image: str
    page: int | None = None
    state: FileState | None = None
    digest: str = ""
    settled: bool = False

    @property
    def file(self) -> str:
        """The name of the file in the folder."""
        return self.image if self.page is None else self.image.removesuffix(_suffix(self.page))

    @classmethod
    def of(cls, file: str, page: int | None, state: FileState, digest: str, settled: bool) -> Entry:
        """Return the entry of a page of a file, or of a file that is one picture."""
        image = file if page is None else file + _suffix(page)
        return cls(image, page, state, digest, settled)

    def as_json(self) -> Json:
        """Return what the record says beside the id."""
        state: Json = None if self.state is None else [*self.state]
        return [self.page, state, self.digest, self.settled]

    @classmethod
    def from_json(cls, image: Json, members: Json) -> Entry:
        """Return the entry that a record describes."""
        if not isinstance(image, str) or not isinstance(members, list):
            raise TypeError("an image")
        page, state, digest, settled = members
        if not isinstance(page, int | None) or not isinstance(state, list | None):
            raise TypeError("page or state")
        numbers = [number for number in state or () if isinstance(number, int)]
        found = None if state is None else FileState(*numbers)
        return cls(image, page, found, str(digest), bool(settled))


def _suffix(page: int) -> str:
    return f"#page={page}"


@dataclass(frozen=True)
class StoredOptions:
    """The options that images were made with.

    Parameters
    ----------
    form
        Of the images.
    by_folder
        Whether images have labels by their folders.
    pages
        Whether the pages of a file become images.
    chunk
        Images per chunk; 0 for the number that fits the form.
    classes
        The names of the classes in the order of their labels; new ones are added at the end.
    folder
        Absolute path of the folder that the latest call read; empty if an older version did not
        record it.
    """

    form: PictureForm
    by_folder: bool = False
    pages: bool = False
    chunk: int = 0
    classes: tuple[str, ...] = ()
    folder: str = ""

    def __post_init__(self) -> None:
        if self.chunk == 0:
            image_bytes = math.prod(self.form.shape) * self.form.depth // 8
            chunk = min(max(CHUNK_BYTES // image_bytes, 1), CHUNK_IMAGES)
            object.__setattr__(self, "chunk", chunk)

    @property
    def identity(self) -> Fingerprint:
        """What must be the same in every call."""
        return Fingerprint.of({"form": self.form.as_json(), "labels": self.by_folder})


def options_file(options: StoredOptions) -> bytes:
    """Return the contents of the file with the options."""
    members: dict[str, Json] = {
        **options.identity.fields,
        "schema": SCHEMA,
        "reduce": options.form.reduce,
        "pages": options.pages,
        "chunk": options.chunk,
        "classes": [*options.classes],
        "folder": options.folder,
    }
    return seal(members) + b"\n"


def read_options(out: Folder) -> StoredOptions | None:
    """Return the options that the images at a place were made with; None if there are none.

    Raises
    ------
    DamageError
        If the file is damaged, or a newer version wrote it.
    """
    try:
        members = _members(out, OPTIONS, out.read(OPTIONS))
    except FileNotFoundError:
        return None
    with _understood(out, OPTIONS):
        form, classes = members["form"], members.get("classes", [])
        if not isinstance(form, dict) or not isinstance(classes, list):
            raise TypeError("form or classes")
        _check_form(form)
        # Before schema 2 the form had the limit of pixels, and 16-bit pictures were scaled.
        known = {name: value for name, value in form.items() if name != "max_pixels"}
        reduce = bool(members.get("reduce", True))
        return StoredOptions(
            PictureForm(**known, reduce=reduce),  # type: ignore[arg-type] # as as_json gave it
            bool(members["labels"]),
            bool(members.get("pages", False)),
            int(str(members.get("chunk", 0))),
            tuple(map(str, classes)),
            str(members.get("folder", "")),
        )


def read_records(out: Folder) -> list[list[Entry]]:
    """Return the images of each chunk, in order.

    A chunk has none if its record is missing, or cannot tell what the chunk holds because it is of
    several files and not all were written. Their pictures are read again as new ones.

    Raises
    ------
    DamageError
        If a record is damaged, or a newer version wrote it.
    """
    found: list[list[Entry]] = []
    for name, data in out.read_many(_record_names(out)):
        members = _members(out, name, data)
        with _understood(out, name):
            number = int(name.removeprefix(f"{RECORDS}/").removesuffix(".json"))
            if not len(found) <= number < MAX_BLOCKS:
                raise ValueError(f"chunk {number}")
            found += [[] for _ in range(number - len(found))]
            found.append(_entries(_held(out, members)))
    return found


def _check_form(form: Mapping[str, Json]) -> None:
    """Check the values of a form, as :meth:`PictureForm.as_json` gives them."""
    for name in ("height", "width", "resize"):
        size = form.get(name)
        if size is None and name == "resize":
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_SIZE:
            raise ValueError(f"{name} {size!r:.40}")
    choices = {"fit": get_args(Fit), "colour": get_args(Colour), "depth": get_args(Depth)}
    choices["interpolation"] = get_args(Interpolation)
    for name, allowed in choices.items():
        if name in form and form[name] not in allowed:
            raise ValueError(f"{name} {form[name]!r:.40}")


def _record_names(out: Folder) -> list[str]:
    return sorted(name for name in out.sizes(RECORDS) if not is_foreign(name))


def _held(out: Folder, members: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the part of a record that is true: what was to be written, or what was before."""
    chunks, before = members.get("chunks"), members.get("before")
    if not isinstance(chunks, dict) or not isinstance(before, dict):
        return members
    stored = {name: Chunk.of(data) for name, data in out.read_many(chunks)}
    written = [stored.get(name) == Chunk.from_json(entry) for name, entry in chunks.items()]
    if all(written):
        return members
    return {"images": [], "files": []} if any(written) else before


def _entries(members: Mapping[str, Json]) -> list[Entry]:
    images, files = members["images"], members.get("files")
    if not isinstance(images, list):
        raise TypeError("images")
    if files is None:  # of schema 1
        return [Entry(str(image)) for image in images]
    if not isinstance(files, list):
        raise TypeError("files")
    return list(starmap(Entry.from_json, zip(images, files, strict=True)))


def write_record(out: Folder, number: int, entries: Sequence[Entry]) -> None:
    """Write the record of a chunk that is written."""
    out.write(_name(number), seal({"schema": SCHEMA, **_as_json(entries)}) + b"\n")


def write_moving_record(
    out: Folder,
    number: int,
    entries: Sequence[Entry],
    chunks: Mapping[str, bytes],
    before: Sequence[Entry],
) -> None:
    """Write the record of a chunk that will be replaced by one with other images."""
    sums: dict[str, Json] = {}
    for name, data in chunks.items():
        chunk = Chunk.of(data)
        sums[name] = [chunk.size, chunk.sha256]
    members: dict[str, Json] = {"schema": SCHEMA, **_as_json(entries)}
    members |= {"chunks": sums, "before": _as_json(before)}
    out.write(_name(number), seal(members) + b"\n")


def delete_record(out: Folder, number: int) -> None:
    """Delete the record of a chunk that is no longer used."""
    out.delete([_name(number)])


def _as_json(entries: Sequence[Entry]) -> dict[str, Json]:
    return {
        "images": [entry.image for entry in entries],
        "files": [entry.as_json() for entry in entries],
    }


def _name(number: int) -> str:
    return f"{RECORDS}/{number:08d}.json"


def _members(out: Folder, name: str, data: bytes) -> dict[str, Json]:
    try:
        members = unseal(data.rstrip(b"\n"))
    except DamageError as error:
        raise DamageError(
            f"{name} in {shown(out.location)} is damaged ({error}): ingest into a new folder"
        ) from error
    schema = members.get("schema", 1)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise DamageError(
            f"{name} in {shown(out.location)} was written by a newer version (schema "
            f"{schema!r:.40}, this one reads up to {SCHEMA}): update fcdcc, or ingest into a new "
            "folder"
        )
    return members


@contextlib.contextmanager
def _understood(out: Folder, name: str) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise DamageError(
            f"{name} in {shown(out.location)} is not what ingest writes ({error!r}): ingest into a "
            "new folder"
        ) from error
