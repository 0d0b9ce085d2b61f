"""Converts a folder of pictures to a Zarr array of images, and appends new pictures later.

Chunks of images are written whole, each followed by a record of the pictures in it, so that
after an interruption the next call continues after the last record. The array's metadata is
written last. Pictures that were added to the folder since then are appended, and a job finds
them as new images.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .checksummed_json import Json, seal, unseal
from .chunks import OutputArray, decode, encode
from .errors import DamageError, InputError, OutputError
from .files import Folder
from .fingerprint import Fingerprint
from .locations import normalise, shown
from .locking import hold
from .metadata import Coordinate, make_contents
from .objects import open_folder
from .pictures import (
    Colour,
    Fit,
    Found,
    PictureError,
    PictureForm,
    find_pictures,
    picture_size,
    read_picture,
)
from .runs import PRIVATE, StoredRun

__all__ = ["BadPicture", "Ingested", "ingest"]

CHUNK_BYTES = 16 * 2**20
CHUNK_IMAGES = 1024
"""Largest chunk: in bytes before compression, and in images."""

READ_AHEAD_PER_THREAD = 4
"""Pictures per thread that are decoded before they are written."""

FORM = f"{PRIVATE}/ingest.json"
"""The file with the options that the images were made with."""

RECORDS = f"{PRIVATE}/ingested"
"""The folder of the records, one per chunk."""

Labels = Literal["auto", "folders", "none"]
Progress = Callable[[int, int, int], None]
"""Called with how many pictures are done, how many there are, and how many are bad."""


@dataclass(frozen=True)
class BadPicture:
    """A file that was skipped, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Ingested:
    """The result of :func:`ingest`.

    Parameters
    ----------
    images, added
        Number of images in the array, and how many of them this call added.
    shape
        (height, width, channels) of one image.
    classes
        Names of the class folders, in the order of their labels.
    bad
        Files that were skipped.
    """

    images: int
    added: int
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    bad: tuple[BadPicture, ...]


def ingest(
    folder: str | os.PathLike[str],
    url: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    fit: Fit = "crop",
    resize: int | None = None,
    colour: Colour = "rgb",
    max_pixels: int = 100_000_000,
    labels: Labels = "auto",
    bad: Literal["skip", "fail"] = "skip",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Ingested:
    """Write the pictures of a folder to a Zarr group, or append those that it lacks.

    The group has ``image`` (n, y, x, c) of bytes, ``image_id`` (n,), the file's name in the
    folder, and, with labels, ``label`` (n,) and the names of the classes.

    Parameters
    ----------
    folder
        Searched with its subfolders for JPEG, PNG and TIFF files.
    url
        Local path or URL of the group.
    size
        (height, width) of the images; without it all pictures must have the size of the first.
    fit, resize, colour, max_pixels
        See :class:`~fcdcc.storage.pictures.PictureForm`.
    labels
        ``folders``: the first folder below ``folder`` is a picture's class; ``auto``: the same
        if every picture is in such a folder; ``none``: no labels.
    bad
        Whether to skip a file that cannot be used, or to fail.
    threads
        Pictures that are decoded at a time; by default one per core.
    progress
        Called after each picture.

    Raises
    ------
    InputError
        If there is no usable picture, or one is bad and ``bad`` is ``fail``.
    OutputError
        If something else is at ``url``, or images made with other options, or it cannot be
        written.
    LockedError
        If another process is writing it.
    """
    root, location = Path(folder), normalise(url)
    found = list(find_pictures(root))
    out = open_folder(location)
    _check_place(out)
    if not found:
        raise InputError(f"{root} holds no pictures; expected JPEG, PNG or TIFF files")
    held = _held(out)
    if size is None and held is not None:
        size, fit, resize = (held[0].height, held[0].width), held[0].fit, held[0].resize
    form = _form(root, found, size, fit, resize, colour, max_pixels)
    by_folder = labels == "folders"
    if labels == "auto":
        by_folder = held[1] if held is not None else all("/" in picture.name for picture in found)
    if by_folder:
        found = [_in_class(picture) for picture in found]
    kept = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # max_pixels is the limit, and exceeding it is an error
    try:
        with hold(location), ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            writer = _Writer.open(out, form, by_folder, held)
            fresh = [picture for picture in found if picture.name not in writer.names]
            ahead = READ_AHEAD_PER_THREAD * (threads or os.cpu_count() or 1)
            refused: list[BadPicture] = []
            for done, (picture, pixels) in enumerate(_read(pool, root, fresh, form, ahead), 1):
                if isinstance(pixels, PictureError):
                    if bad == "fail":
                        raise InputError(f"{root / picture.name}: {pixels}") from pixels
                    refused.append(BadPicture(picture.name, str(pixels)))
                else:
                    writer.add(picture.name, pixels)
                if progress is not None:
                    progress(done, len(fresh), len(refused))
            added = writer.finish()
    finally:
        Image.MAX_IMAGE_PIXELS = kept
    return Ingested(len(writer.images), added, form.shape, writer.classes, tuple(refused))


def _form(
    root: Path,
    found: Iterable[Found],
    size: tuple[int, int] | None,
    fit: Fit,
    resize: int | None,
    colour: Colour,
    max_pixels: int,
) -> PictureForm:
    """Return the form of the images: with the given size, or that of the first picture."""
    if size is None:
        size, fit = _first_size(root, found), "exact"
    return PictureForm(*size, fit=fit, resize=resize, colour=colour, max_pixels=max_pixels)


def _first_size(root: Path, found: Iterable[Found]) -> tuple[int, int]:
    for picture in found:
        if picture.problem is None:
            try:
                return picture_size(root / picture.name)
            except PictureError:
                continue
    raise InputError(f"{root} holds no picture that can be read; expected JPEG, PNG or TIFF files")


def _read(
    pool: ThreadPoolExecutor, root: Path, fresh: Iterable[Found], form: PictureForm, ahead: int
) -> Iterator[tuple[Found, NDArray[np.uint8] | PictureError]]:
    """Yield pictures in order, decoded by the pool, at most ``ahead`` of them in advance."""
    waiting: deque[tuple[Found, Future[NDArray[np.uint8] | PictureError]]] = deque()
    for picture in fresh:
        waiting.append((picture, pool.submit(_try, root, picture, form)))
        if len(waiting) >= ahead:
            oldest, future = waiting.popleft()
            yield oldest, future.result()
    for oldest, future in waiting:
        yield oldest, future.result()


def _try(root: Path, picture: Found, form: PictureForm) -> NDArray[np.uint8] | PictureError:
    if picture.problem is not None:
        return PictureError(picture.problem)
    try:
        return read_picture(root / picture.name, form)
    except PictureError as error:
        return error


def _check_place(out: Folder) -> None:
    """Raise OutputError if something else is at the place."""
    entries = out.entries() or []
    if entries and out.size(FORM) is None:
        raise OutputError(
            f"{shown(out.location)} holds other files ({', '.join(entries[:3])}); expected a new "
            "or empty folder, or images that were ingested: choose another one"
        )


def _held(out: Folder) -> tuple[PictureForm, bool] | None:
    """Return the options that the images at a place were made with; None if there are none."""
    try:
        members = unseal(out.read(FORM).rstrip(b"\n"))
    except FileNotFoundError:
        return None
    form = members["form"]
    if not isinstance(form, dict):
        raise DamageError(f"{FORM} in {shown(out.location)} is damaged: ingest into a new folder")
    return PictureForm(**form), bool(members["labels"])  # type: ignore[arg-type] # as asdict gave it


def _in_class(picture: Found) -> Found:
    """Return a picture, with a problem if it is in no class folder."""
    if "/" in picture.name or picture.problem is not None:
        return picture
    return Found(picture.name, "it is in no class folder")


class _Writer:
    """Writes chunks of images, one after another, and their records."""

    def __init__(self, out: Folder, form: PictureForm, by_folder: bool, images: list[str]) -> None:
        self.images = images
        self.names = set(images)
        self._out = out
        self._by_folder = by_folder
        self._array = OutputArray("image", form.shape, "uint8", ("y", "x", "c"))
        self._chunk = int(np.clip(CHUNK_BYTES // np.prod(form.shape), 1, CHUNK_IMAGES))
        self._before = len(images)
        self._pixels = self._partial()

    @classmethod
    def open(
        cls, out: Folder, form: PictureForm, by_folder: bool, held: tuple[PictureForm, bool] | None
    ) -> _Writer:
        """Return a writer that begins, or continues after the last record."""
        wanted: dict[str, Json] = {"form": asdict(form), "labels": by_folder}
        if held is None:
            out.write(FORM, seal(wanted) + b"\n")
            return cls(out, form, by_folder, [])
        if held != (form, by_folder):
            theirs = Fingerprint.of({"form": asdict(held[0]), "labels": held[1]})
            differences = "; ".join(Fingerprint.of(wanted).differences(theirs))
            raise OutputError(
                f"{shown(out.location)} was made with other options ({differences}): choose "
                "another folder"
            )
        return cls(out, form, by_folder, list(_recorded(out)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders by first appearance: later ones do not change labels."""
        return tuple(dict.fromkeys(map(_class_of, self.images))) if self._by_folder else ()

    def add(self, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add one picture; write the chunk if it is full."""
        self.images.append(name)
        self.names.add(name)
        self._pixels.append(pixels)
        if len(self._pixels) == self._chunk:
            self._flush()

    def finish(self) -> int:
        """Write the last chunk and the metadata; return how many pictures were added."""
        if not self.images:
            raise InputError(f"no picture for {shown(self._out.location)} could be read")
        if self._pixels and len(self.images) > self._before:
            self._flush()
        if len(self.images) == self._before and self._out.size("zarr.json") is not None:
            return 0
        run = StoredRun(
            Fingerprint.of({}), (self._array,), self._chunk, "n", {"made_by": "fcdcc ingest"}
        )
        labels = [Coordinate("image_id", "n", np.array(self.images, dtype=object))]
        if self._by_folder:
            classes = self.classes
            number = {name: label for label, name in enumerate(classes)}
            values = np.array([number[_class_of(name)] for name in self.images], dtype=np.int32)
            labels.append(Coordinate("label", "n", values))
            labels.append(Coordinate("class", "class", np.array(classes, dtype=object)))
        _, files = make_contents(run, len(self.images), labels)
        for name, data in files.items():
            self._out.write(name, data)
        return len(self.images) - self._before

    def _flush(self) -> None:
        """Write the images since the last chunk as one chunk, and its record."""
        block = (len(self.images) - 1) // self._chunk
        files = encode(self._array, block, self._chunk, np.stack(self._pixels))
        for name, data in files.items():
            self._out.write(name, data)
        record: dict[str, Json] = {"images": [*self.images[block * self._chunk :]]}
        self._out.write(f"{RECORDS}/{block:08d}.json", seal(record) + b"\n")
        self._pixels = []

    def _partial(self) -> list[NDArray[np.uint8]]:
        """Return the images of a last chunk that is not full, to which more are added."""
        rest = len(self.images) % self._chunk
        if not rest:
            return []
        block = len(self.images) // self._chunk
        names = self._array.chunk_names(block, self._chunk)
        found = dict(self._out.read_many(names))
        return list(decode(self._array, block, self._chunk, rest, found))


def _recorded(out: Folder) -> Iterator[str]:
    """Yield the names of the pictures that are written, in order."""
    for number, (name, data) in enumerate(out.read_many(sorted(out.sizes(RECORDS)))):
        members = unseal(data.rstrip(b"\n"))
        images = members.get("images")
        if not isinstance(images, list) or not name.endswith(f"{number:08d}.json"):
            raise DamageError(
                f"{name} in {shown(out.location)} is not a record: ingest into a new folder"
            )
        yield from map(str, images)


def _class_of(name: str) -> str:
    return name.split("/")[0]
