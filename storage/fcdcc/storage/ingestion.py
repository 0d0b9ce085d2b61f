"""Brings a Zarr array of images up to date with a folder of pictures.

New pictures are appended, changed ones are read again into their place, and deleted ones are named
or taken out. Every file that did not come in has its reason.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from .errors import InputError, LocationError, OutputError
from .files import SCRATCH, Folder
from .foreign_files import is_foreign
from .ingest_records import OPTIONS, Entry, StoredOptions, read_options
from .ingested_images import IngestedImages, class_of
from .locations import is_local, normalise, shown
from .locking import hold
from .objects import open_folder
from .picture_files import FileRead, ReadRequest, read_files
from .picture_folder import Found, find_pictures
from .pictures import (
    NO_PICTURE,
    Colour,
    Depth,
    Fit,
    Interpolation,
    NoPictureError,
    Picture,
    PictureError,
    PictureForm,
    decode_picture,
    has_picture_suffix,
    is_picture,
    pillow_settings,
)
from .runs import PRIVATE

__all__ = ["Ingested", "NothingIngestedError", "SkippedFile", "ingest", "latest_folder"]

Labels = Literal["auto", "folders", "none"]
Progress = Callable[[int, int, int], None]
"""Called with how many pictures are done, how many there are, and how many are left out."""


@dataclass(frozen=True)
class SkippedFile:
    """A file, or a folder that was not entered, and why.

    Parameters
    ----------
    name
        In the folder.
    reason
        What is wrong.
    bad
        Whether it is, or may hold, a picture that should have come in.
    """

    name: str
    reason: str
    bad: bool = True


@dataclass(frozen=True)
class Ingested:
    """The result of :func:`ingest`.

    Parameters
    ----------
    images
        Number of images in the array: added, changed, unchanged, unchecked and missing ones.
    shape
        (height, width, channels) of one image.
    dtype
        ``uint8`` or ``uint16``.
    fit, resize
        How pictures were fitted (:class:`~fcdcc.storage.pictures.PictureForm`).
    added
        How many images this call appended.
    changed
        Ids of the images that were read again and have other pixels now.
    unchanged
        How many images are what their files are.
    unchecked
        Ids of the images whose files are there and could not be read this time.
    missing, removed
        Ids of the images whose files are no longer in the folder, and that this call left in the
        array or took out.
    skipped
        Files that did not come in.
    formats
        How many images came in from files of each format.
    classes
        Names of the class folders, in the order of their labels.
    compared
        How many images were read again because an older version did not record the states of
        their files.
    """

    images: int
    shape: tuple[int, int, int]
    dtype: str
    fit: Fit = "exact"
    resize: int | None = None
    added: int = 0
    changed: tuple[str, ...] = ()
    unchanged: int = 0
    unchecked: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    formats: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    compared: int = 0

    @property
    def bad(self) -> tuple[SkippedFile, ...]:
        """The files that should have come in."""
        return tuple(file for file in self.skipped if file.bad)


class NothingIngestedError(InputError):
    """No picture came in, and there are no images from an earlier call.

    Parameters
    ----------
    message
        What was given and expected.
    skipped
        The files of the folder, with their reasons.
    """

    def __init__(self, message: str, skipped: tuple[SkippedFile, ...] = ()) -> None:
        super().__init__(message)
        self.skipped = skipped

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.skipped)


def ingest(
    folder: str | os.PathLike[str],
    url: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    fit: Fit | None = None,
    resize: int | None = None,
    colour: Colour | None = None,
    depth: Depth | None = None,
    interpolation: Interpolation | None = None,
    max_pixels: int = 100_000_000,
    labels: Labels = "auto",
    pages: bool | None = None,
    follow_links: bool = False,
    remove_missing: bool = False,
    bad: Literal["skip", "fail"] = "skip",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Ingested:
    """Write the pictures of a folder to a Zarr group, or bring the group up to date with them.

    The group has ``image`` (n, y, x, c) of ``uint8`` or ``uint16``, ``image_id`` (n,), the file's
    name in the folder, and, with labels, ``label`` (n,) and the names of the classes. Options that
    are None are those that the images at ``url`` were made with.

    Parameters
    ----------
    folder
        Searched with its subfolders.
    url
        Local path or URL of the group.
    size
        (height, width) of the images; without it all pictures must have the size of the first.
    fit, resize, colour, interpolation, max_pixels
        See :class:`~fcdcc.storage.pictures.PictureForm`; ``crop``, ``rgb`` and ``bilinear`` by
        default.
    depth
        8: bytes, to which pictures of 16 bits per channel are scaled; 16: all bits are kept, and
        pictures of 8 bits are scaled; by default that of the first picture, and pictures of 16
        bits are bad if that has 8.
    labels
        ``folders``: the first folder below ``folder`` is a picture's class; ``auto``: the same
        if every picture is in such a folder; ``none``: no labels.
    pages
        Whether each page of a file becomes an image, with ``#page=`` and its number in its id;
        otherwise files with several pages are bad.
    follow_links
        Whether links that leave the folder, and links to folders, are followed.
    remove_missing
        Whether images whose files are no longer in the folder are taken out.
    bad
        Whether to skip a file that cannot be used, or to fail.
    threads
        Pictures that are decoded at a time; by default one per core.
    progress
        Called after each file.

    Raises
    ------
    InputError
        If there is no usable picture, or one is bad and ``bad`` is ``fail``, or all images would
        be taken out.
    OutputError
        If something else is at ``url``, or images made with other options, or it cannot be
        written.
    LockedError
        If another process is writing it.
    """
    root, location = Path(folder), normalise(url)
    output = Path(location) if is_local(location) else None
    wanted = _Wanted(size, fit, resize, colour, depth, interpolation, max_pixels, labels, pages)
    threads = threads or os.cpu_count() or 1
    with pillow_settings():
        found = list(find_pictures(root, follow_links=follow_links, output=output))
        update = _Update(root, found, bad == "fail", progress)
        out = open_folder(location)
        with _reported(location):
            _check_place(out)
            with hold(location), ThreadPoolExecutor(threads) as pool:
                out.delete(out.sizes(SCRATCH))  # of a call that was killed
                options = update.options(wanted, read_options(out), shown(location))
                images = IngestedImages(out, options)
                return update.run(images, partial(read_files, pool, threads, root), remove_missing)


def latest_folder(url: str | os.PathLike[str]) -> str | None:
    """Return the absolute path of the folder that images at a local path were last made from.

    None if it is not known: they are at a URL, were not ingested, or an older version did it, or
    its record cannot be read.
    """
    try:
        location = normalise(url)
        options = read_options(open_folder(location)) if is_local(location) else None
    except (LocationError, OSError):
        return None
    return None if options is None else options.folder or None


def _absolute(folder: Path) -> str:
    """Return the absolute path of a folder, without ``..`` where no link is in its way."""
    given = folder.absolute()
    short = Path(os.path.normpath(given))
    return str(short if short.exists() and short.samefile(given) else given)


@contextlib.contextmanager
def _reported(location: str) -> Iterator[None]:
    """Raise an OSError of the output as an OutputError; those of pictures are their reasons."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{shown(location)} cannot be written: {error.strerror or error}; make room or mend "
            "the store, and run the same command again to continue"
        ) from error


def _check_place(out: Folder) -> None:
    """Raise OutputError if something else is at the place."""
    entries = [entry for entry in out.entries() or () if entry == PRIVATE or not is_foreign(entry)]
    if not entries or out.size(OPTIONS) is not None:
        return
    if entries == [PRIVATE] and not out.sizes(PRIVATE):  # a call was killed in its first moment
        return
    raise OutputError(
        f"{shown(out.location)} holds other files ({', '.join(entries[:3])}); expected a new "
        "or empty folder, or images that were ingested: choose another one"
    )


@dataclass(frozen=True)
class _Wanted:
    """The options that a caller gave; see :func:`ingest`."""

    size: tuple[int, int] | None
    fit: Fit | None
    resize: int | None
    colour: Colour | None
    depth: Depth | None
    interpolation: Interpolation | None
    max_pixels: int
    labels: Labels
    pages: bool | None

    def new_form(self, first: Picture | None) -> PictureForm:
        """Return the form of new images; ``first`` is needed without a size or depth."""
        size = self.size or (first.size if first is not None else (0, 0))
        fit = self.fit or ("exact" if self.size is None else "crop")
        depth = self.depth or (first.depth if first is not None else 8)
        interpolation = self.interpolation or "bilinear"
        form = PictureForm(*size, fit, self.resize, self.colour or "rgb", depth, interpolation)
        return replace(form, reduce=self.depth == 8, max_pixels=self.max_pixels)

    def form_like(self, held: PictureForm) -> PictureForm:
        """Return the form that was given, the rest as in images that are there."""
        height, width = self.size or (held.height, held.width)
        given: dict[str, Any] = {"fit": self.fit, "resize": self.resize, "colour": self.colour}
        given |= {"interpolation": self.interpolation}
        given |= {"depth": self.depth, "reduce": True if self.depth == 8 else None}
        given = {name: value for name, value in given.items() if value is not None}
        return replace(held, height=height, width=width, max_pixels=self.max_pixels, **given)


class _Update:
    """One call of :func:`ingest`: what to do with each file, and what came of it.

    Parameters
    ----------
    root
        The folder.
    found
        Its files.
    fail
        Whether a bad file ends the call.
    progress
        Called after each file.
    """

    def __init__(
        self, root: Path, found: Sequence[Found], fail: bool, progress: Progress | None
    ) -> None:
        self._root = root
        self._found = found
        self._fail = fail
        self._progress = progress
        self._done = self._total = 0
        self._skipped: list[SkippedFile] = []
        self._came_in: set[str] = set()
        """Names of files of which an image was added."""
        for file in found:
            if file.problem is not None:
                self._skip(file.name, file.problem, file.bad)
        self._files = {file.name: file for file in found if file.problem is None}
        self._changed: list[str] = []
        self._unchecked: list[str] = []
        self._missing: list[str] = []
        self._unchanged = self._compared = 0
        self._formats: Counter[str] = Counter()

    def options(self, wanted: _Wanted, held: StoredOptions | None, place: str) -> StoredOptions:
        """Return the options of the images: those that were given, the rest as before.

        Raises
        ------
        InputError
            If the form depends on the first picture and there is none.
        OutputError
            If images were made with other options.
        """
        if held is None:
            first = None
            if wanted.size is None or wanted.depth is None:
                first = self._first_picture(wanted.max_pixels, bool(wanted.pages))
            by_folder = wanted.labels == "folders"
            if wanted.labels == "auto":
                by_folder = self._all_in_folders()
            form = wanted.new_form(first)
            return StoredOptions(form, by_folder, bool(wanted.pages), folder=_absolute(self._root))
        form = wanted.form_like(held.form)
        by_folder = held.by_folder if wanted.labels == "auto" else wanted.labels == "folders"
        pages = held.pages if wanted.pages is None else wanted.pages
        options = replace(
            held, form=form, by_folder=by_folder, pages=pages, folder=_absolute(self._root)
        )
        if options.identity != held.identity:
            found = options.identity.differences(held.identity)
            differences = "; ".join(line.removeprefix("form.") for line in found)
            raise OutputError(
                f"{place} was made with other options ({differences}): choose another folder"
            )
        return options

    def _first_picture(self, max_pixels: int, pages: bool) -> Picture:
        """Return the first picture that can be read."""
        problems: dict[str, PictureError] = {}
        for name in self._files:
            try:
                return decode_picture(self._root / name, max_pixels, several=pages)
            except PictureError as error:
                problems[name] = error
        for name, problem in problems.items():
            self._skip_picture(name, problem)
        raise self._nothing()

    def _all_in_folders(self) -> bool:
        """Return whether every picture is in a folder."""
        return not any(
            has_picture_suffix(file.name)
            or (file.problem is None and is_picture(self._root / file.name))
            for file in self._found
            if "/" not in file.name and (file.bad or file.problem is None)
        )

    def run(self, images: IngestedImages, read: _Reader, remove_missing: bool) -> Ingested:
        """Bring the images up to date.

        Raises
        ------
        InputError
            If there is no image in the end, or all would be taken out, or one is bad and that
            ends the call.
        """
        options = images.options
        if options.by_folder:
            self._skip_files_without_class()
        if not self._files:
            raise self._nothing(len(images))
        compare = self._look_at_stored(images)
        if remove_missing and len(self._missing) == len(images) > 0:
            raise InputError(
                f"{self._root} has no file of the {len(images)} images: is it the right folder? "
                "Nothing was taken out"
            )
        fresh = [name for name in self._files if name not in compare]
        compare = {name: places for name, places in compare.items() if places}
        self._total = len(compare) + len(fresh)
        fresh += self._compare(images, read, compare)
        removed = self._missing if remove_missing else []
        images.remove(frozenset(removed))
        self._append(images, read, fresh)
        if not len(images):
            raise self._nothing()
        images.finish(self._classes())
        return Ingested(
            images=len(images),
            shape=options.form.shape,
            dtype=options.form.dtype,
            fit=options.form.fit,
            resize=options.form.resize,
            added=sum(self._formats.values()),
            changed=tuple(self._changed),
            unchanged=self._unchanged,
            unchecked=tuple(self._unchecked),
            missing=() if remove_missing else tuple(self._missing),
            removed=tuple(removed),
            skipped=tuple(self._skipped),
            formats=dict(self._formats.most_common()),
            classes=images.classes,
            compared=self._compared,
        )

    def _skip_files_without_class(self) -> None:
        for name in [name for name in self._files if "/" not in name]:
            del self._files[name]
            if has_picture_suffix(name) or is_picture(self._root / name):
                self._skip(name, "it is in no class folder; --labels none reads it", bad=True)
            else:
                self._skip(name, NO_PICTURE, bad=False)

    def _look_at_stored(self, images: IngestedImages) -> dict[str, list[_Place]]:
        """Return the files of the images, each with the images that must be compared with it."""
        stored: dict[str, list[_Place]] = defaultdict(list)
        troubled = {file.name for file in self._found if file.name not in self._files}
        closed = tuple(f"{file.name}/" for file in self._found if file.folder)
        for block, entries in enumerate(images.blocks):
            for row, entry in enumerate(entries):
                file = self._files.get(entry.file)
                places = stored[entry.file]
                if file is None:
                    known = entry.file in troubled or entry.file.startswith(closed)
                    (self._unchecked if known else self._missing).append(entry.image)
                elif entry.settled and entry.state == file.state:
                    self._unchanged += 1
                else:
                    places.append(_Place(block, row, entry))
                    self._compared += entry.state is None
        return dict(stored)

    def _compare(
        self, images: IngestedImages, read: _Reader, compare: Mapping[str, Sequence[_Place]]
    ) -> list[str]:
        """Compare images with their files, and replace those that differ.

        Returns
        -------
        list of str
            The files with pages of which there are no images yet.
        """
        changes = _Changes(images)
        grown: dict[str, None] = {}
        open_places: dict[int | None, _Place] = {}
        """The images of a file whose pages were not read yet."""
        requests = (
            ReadRequest(name, _may_have_pages(places, images.options), _known_digest(places))
            for name, places in compare.items()
        )
        begun = ""
        for file in read(images.options.form, requests):
            places = compare[file.name]
            if file.name != begun:
                begun, open_places = file.name, {place.entry.page: place for place in places}
                self._count(changes.write_before(places[0].block))
            if file.problem is not None:
                self._keep(file.name, file.problem, [p.entry.image for p in open_places.values()])
                open_places = {}
            if file.same:
                for place in open_places.values():
                    entry = replace(place.entry, state=file.state, settled=file.settled)
                    changes.add(place, entry, None)
                open_places = {}
            for page, pixels in file.pages:
                if page not in open_places:
                    grown[file.name] = None
                    continue
                place = open_places.pop(page)
                if isinstance(pixels, PictureError):
                    self._keep(place.entry.image, pixels, [place.entry.image])
                else:
                    changes.add(place, file.entry(page), pixels)
            if file.next_page is None:
                self._missing += [place.entry.image for place in open_places.values()]
                self._step()
        self._count(changes.write_before(None))
        return [*grown]

    def _append(self, images: IngestedImages, read: _Reader, names: Sequence[str]) -> None:
        """Append the images of files, those that are there already left out."""
        pages = images.options.pages
        there = {entry.image: entry.file for entry in images.entries if entry.page is not None}
        grown = frozenset(there.values())
        requests = (ReadRequest(name, pages or name in grown) for name in names)
        for file in read(images.options.form, requests):
            if file.problem is not None:
                self._skip_picture(file.name, file.problem)
            for page, pixels in file.pages:
                entry = file.entry(page)
                if isinstance(pixels, PictureError):
                    self._skip_picture(entry.image, pixels)
                elif entry.image not in images.images:
                    images.append(entry, pixels)
                    self._formats[file.format] += 1
                    self._came_in.add(file.name)
                elif there.get(entry.image) != file.name:
                    self._skip(entry.image, "another image has this id: rename it", bad=True)
            if file.next_page is None:
                self._step()

    def _count(self, written: tuple[list[str], int]) -> None:
        changed, unchanged = written
        self._changed += changed
        self._unchanged += unchanged

    def _keep(self, name: str, problem: PictureError, images: Sequence[str]) -> None:
        """Leave images as they are because their file cannot be read."""
        self._skip_picture(name, PictureError(f"{problem}; its earlier image stays"))
        self._unchecked += images

    def _skip_picture(self, name: str, problem: PictureError) -> None:
        known = not isinstance(problem, NoPictureError)
        self._skip(name, str(problem), known or has_picture_suffix(name))

    def _skip(self, name: str, reason: str, bad: bool) -> None:
        """Note why a file did not come in, or end the call."""
        if bad and self._fail:
            raise InputError(f"{self._root / name}: {reason}")
        self._skipped.append(SkippedFile(name, reason, bad))

    def _step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total, len(self._skipped))

    def _classes(self) -> Iterator[str]:
        """Yield the class of every picture in the folder, whether it came in or not.

        So the labels of other classes do not depend on whether the pictures of one can be read.
        """
        for file in self._found:
            if file.folder or ("/" in file.name and self._is_meant_as_picture(file)):
                yield class_of(file.name)

    def _is_meant_as_picture(self, file: Found) -> bool:
        if file.problem is not None and not file.bad:
            return False
        return has_picture_suffix(file.name) or file.name in self._came_in

    def _nothing(self, held: int = 0) -> NothingIngestedError:
        """Return the error that says that no picture came in."""
        files = "1 file" if len(self._skipped) == 1 else f"{len(self._skipped)} files"
        left_out = f" ({files} left out)" if self._skipped else ""
        images = "image that is there stays" if held == 1 else f"{held} images that are there stay"
        stay = f"; the {images}" if held else ""
        return NothingIngestedError(
            f"{self._root} holds no picture that can be read{left_out}; expected files that Pillow "
            f"reads, such as JPEG, PNG, TIFF or WebP{stay}",
            tuple(self._skipped),
        )


_Reader = Callable[[PictureForm, Iterable[ReadRequest]], Iterator[FileRead]]


class _Place(NamedTuple):
    """The place of an image in the array, and its entry."""

    block: int
    row: int
    entry: Entry


class _Changes:
    """Collects changes of images by chunk, so that each chunk is written once."""

    def __init__(self, images: IngestedImages) -> None:
        self._images = images
        self._by_block: dict[int, dict[int, tuple[Entry, NDArray[Any] | None]]] = {}

    def add(self, place: _Place, entry: Entry, pixels: NDArray[Any] | None) -> None:
        """Add the new entry of an image, and its pixels unless they are the same."""
        self._by_block.setdefault(place.block, {})[place.row] = (entry, pixels)

    def write_before(self, block: int | None) -> tuple[list[str], int]:
        """Write the chunks before one, or all.

        Returns
        -------
        (list of str, int)
            Ids of images that have other pixels now, and the number of those that have not.
        """
        changed: list[str] = []
        unchanged = 0
        for number in sorted(self._by_block):
            if block is None or number < block:
                rows = self._by_block.pop(number)
                different = self._images.replace(number, rows)
                changed += different
                unchanged += len(rows) - len(different)
        return changed, unchanged


def _may_have_pages(places: Sequence[_Place], options: StoredOptions) -> bool:
    return options.pages or any(place.entry.page is not None for place in places)


def _known_digest(places: Sequence[_Place]) -> str:
    """Return the digest of the contents that all images of a file were made from."""
    digests = {place.entry.digest for place in places}
    return digests.pop() if len(digests) == 1 else ""
