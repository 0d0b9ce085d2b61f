"""Creates, opens, extends and puts aside outputs; never deletes one."""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .checksummed_json import Json
from .chunks import OutputArray
from .errors import DamageError, OutputError, OutputMismatchError
from .files import MAX_RECORD_BYTES, SCRATCH, Folder
from .fingerprint import Fingerprint
from .foreign_files import is_foreign
from .journals import damaged_journals
from .layout import BlockLayout
from .locations import normalise, shown
from .objects import open_folder
from .prediction_store import PredictionStore
from .records import Chunk
from .runs import (
    CONTENTS,
    PRIVATE,
    RUN,
    Contents,
    StoredRun,
    copies,
    marker,
    read_contents,
    read_run,
    write_copies,
)

if TYPE_CHECKING:
    from .metadata import Coordinate

__all__ = [
    "check_fingerprint",
    "check_is_output",
    "create_predictions",
    "inspect_output",
    "open_predictions",
    "predictions_of",
    "resize_predictions",
    "salvage_predictions",
    "set_aside",
    "tiles_of",
]

logger = logging.getLogger(__name__)

TILES = f"{PRIVATE}/tiles"
"""Folder in an output with the output of its tiles, from which its predictions are put together."""

ASIDE = ".aside-"
"""Follows the name of an output that is put aside, and precedes the time."""

MAX_DIFFERENCES = 12
"""Values in which two jobs differ that a message names."""


def inspect_output(url: str | os.PathLike[str]) -> StoredRun | None:
    """Return the run that the output at a location belongs to; None if there is no output.

    An empty folder counts as no output, and so does one whose ``run.json`` was not written yet.

    Raises
    ------
    OutputError
        If something else is there, or a newer version wrote it.
    DamageError
        If it is an output whose run cannot be read from it.
    """
    location = normalise(url)
    folder = open_folder(location)
    entries = [e for e in _entries(folder) or () if e == PRIVATE or not is_foreign(e)]
    if not entries:
        return None
    run = read_run(folder) if PRIVATE in entries else None
    if run is None and entries != [PRIVATE]:
        raise OutputError(
            f"{shown(location)} is not an output of fcdcc: it holds {', '.join(entries[:3])}"
            f"{', …' if len(entries) > 3 else ''}; expected a new or empty folder, or an output: "
            "choose another location"
        )
    return run


def tiles_of(url: str | os.PathLike[str]) -> str:
    """Return the location of the output of the tiles of an output, whether it is there or not."""
    return f"{normalise(url)}/{TILES}"


def remove_former_tiles(url: str | os.PathLike[str]) -> None:
    """Delete the outputs of tiles of an output that were put aside.

    Its predictions are put together from the tiles that took their place. Only for the holder of
    the output's lock, once it is complete. The log names those that cannot be deleted: the output
    is complete with them, too.

    Raises
    ------
    OutputError
        If the folder that they are in cannot be listed.
    """
    parent, _, name = tiles_of(url).rpartition("/")
    for entry in _entries(open_folder(parent)) or ():
        if entry.startswith(f"{name}{ASIDE}"):
            place = f"{parent}/{entry}"
            try:
                open_folder(place).remove()
            except OSError as error:
                reason = error.strerror or error
                logger.warning("%s cannot be deleted: %s; nothing needs it", shown(place), reason)


def create_predictions(
    url: str | os.PathLike[str],
    *,
    images: int,
    batch: int,
    arrays: Sequence[OutputArray],
    fingerprint: Fingerprint,
    dim: str = "n",
    attributes: Mapping[str, Json] | None = None,
    coordinates: Sequence[Coordinate] = (),
    plan: Json = None,
) -> PredictionStore:
    """Create an output: a Zarr v3 group with its arrays, and the run's own files.

    Everything is checked and made in memory first, so that nothing is written if that fails.
    ``run.json`` is written first, the group's metadata last.

    Parameters
    ----------
    url
        Local path or URL of a new or an empty folder.
    images, batch
        Number of images; images per block and per chunk.
    arrays
        The arrays: ``prediction``, or one for each output of a network with several.
    fingerprint
        Of the job.
    dim
        Name of the first axis.
    attributes
        Of the group: how the output was made.
    coordinates
        Labels along the axes, such as image ids.
    plan
        The plan, stored for later runs.

    Raises
    ------
    OutputError
        If something is there already, the values do not fit together, or it cannot be
        written.
    """
    from .metadata import make_contents  # it imports Zarr, which reading an output does not need

    location = normalise(url)
    if not arrays:
        raise OutputError("no arrays; expected one or more")
    layouts = {array.layout(images, batch) for array in arrays}
    if len(layouts) > 1:
        raise OutputError(
            f"arrays in different blocks ({', '.join(map(str, layouts))}); expected bands of as "
            "many rows for each"
        )
    run = StoredRun(fingerprint, tuple(arrays), batch, dim, dict(attributes or {}), plan)
    contents, files = make_contents(run, images, coordinates)
    if inspect_output(location) is not None:
        raise OutputError(f"{shown(location)} is an output already; continue it or choose another")
    folder = open_folder(location)
    try:
        folder.write(marker(run.output), b"")
        write_copies(folder, RUN, run.to_bytes())
        _write_contents(folder, contents, files)
    except OSError as error:
        raise _unwritable(location, error) from error
    return _store(location, run, run.layout(images))


def open_predictions(url: str | os.PathLike[str]) -> PredictionStore:
    """Return the output at a location, to read or to continue it.

    Raises
    ------
    OutputError
        If there is none.
    DamageError
        If the files that describe it are damaged.
    """
    location = normalise(url)
    folder = open_folder(location)
    check_is_output(folder)
    run = inspect_output(location)
    if run is None:
        raise OutputError(f"{shown(location)} is not an output of fcdcc yet; run the job")
    contents = read_contents(folder)
    return _store(location, run, run.layout(contents.images if contents else 0))


def predictions_of(url: str | os.PathLike[str], run: StoredRun, images: int) -> PredictionStore:
    """Return an output with so many images, whatever it has now, to see which blocks are left.

    Parameters
    ----------
    url
        Its location.
    run
        From :func:`inspect_output`.
    images
        How many images it has, or will have.
    """
    return _store(normalise(url), run, run.layout(images))


def salvage_predictions(url: str | os.PathLike[str], blocks: int) -> PredictionStore:
    """Return an output whose ``contents.json`` is damaged, to record other damage in it.

    Parameters
    ----------
    url
        Its location.
    blocks
        Number of blocks, as far as the caller knows it; the output has no record of it.

    Raises
    ------
    OutputError
        If there is none.
    DamageError
        If its ``run.json`` is damaged, too.
    """
    location = normalise(url)
    run = inspect_output(location)
    if run is None:
        raise OutputError(f"{shown(location)} is not an output of fcdcc yet; run the job")
    runs = -(-blocks // run.layout(0).bands)
    return _store(location, run, run.layout(runs * run.batch))


def check_is_output(folder: Folder) -> None:
    """Raise OutputError, with a message for a reader, unless a folder is an output."""
    expected = "expected the folder that a job has written"
    try:
        entries = folder.entries()
    except OSError as error:
        raise OutputError(
            f"{shown(folder.location)} cannot be read: {error.strerror or error}; {expected}"
        ) from error
    if not entries:
        raise OutputError(
            f"{shown(folder.location)} is not an output of fcdcc: it is empty or does not exist; "
            f"{expected}"
        )
    # Ingested images have the same private folder, with other files in it.
    ours = ("run.", "contents.", "output-")
    if not any(name.removeprefix(f"{PRIVATE}/").startswith(ours) for name in folder.sizes(PRIVATE)):
        raise OutputError(
            f"{shown(folder.location)} is not an output of fcdcc: it holds {', '.join(entries[:3])}"
            f"{', …' if len(entries) > 3 else ''}; {expected}"
        )


def resize_predictions(
    url: str | os.PathLike[str],
    images: int,
    coordinates: Sequence[Coordinate] = (),
    *,
    may_shrink: bool = False,
    on_repair: Callable[[list[str]], None] | None = None,
) -> PredictionStore:
    """Change the number of images of an output, repair its metadata, and return it.

    Only for the holder of the output's lock. Files that are right are not written again.
    Chunks and records of blocks stay; the record of a partial last block that gets more or fewer
    images is no longer valid. An interrupted creation or change is finished, and damaged metadata
    written again.

    Parameters
    ----------
    images
        The new number of images.
    coordinates
        Labels along the axes, those along the first axis for all images; stored ones that are
        not given stay.
    may_shrink
        Whether there may be fewer images than before. The blocks that are too many must have been
        removed (:meth:`PredictionStore.clear`).
    on_repair
        Called with the names of the files that were damaged or missing and have been written again,
        and of damaged journals, which are removed; not called if there are none.

    Raises
    ------
    OutputError
        If there are fewer images than before although there may not be, or the files cannot be
        written.
    """
    from .metadata import make_contents

    location = normalise(url)
    folder = open_folder(location)
    run = inspect_output(location)
    if run is None:
        raise OutputError(
            f"{shown(location)} is not an output of fcdcc: it is empty or does not exist; run the "
            "job"
        )
    unknown: list[str] = []
    try:
        contents = read_contents(folder)
    except DamageError:  # both copies are damaged; the arguments replace them
        contents, unknown = None, [*copies(CONTENTS)]
    if contents is not None and images < contents.images and not may_shrink:
        raise OutputError(
            f"{shown(location)} holds predictions for {contents.images} images and there are "
            f"{images} now; expected no fewer: raise --limit, or use another output"
        )
    try:
        folder.delete(folder.sizes(SCRATCH))
        journals = damaged_journals(folder)
        folder.delete(journals)
        repaired = [*_mend_copies(folder, run, contents), *journals]
        wanted, files = make_contents(run, images, coordinates, kept=contents)
        changed = _changed(folder, wanted if contents is None else contents)
        if (
            contents is None
            or contents.images != images
            or _has_other_labels(contents, wanted)
            or changed
        ):
            _write_contents(folder, wanted, files)
        if contents is not None or unknown:  # without any, its creation was interrupted
            repaired += [*unknown, *changed]
        if repaired and on_repair is not None:
            on_repair(repaired)
    except OSError as error:
        raise _unwritable(location, error) from error
    return _store(location, run, run.layout(images))


def check_fingerprint(
    url: str | os.PathLike[str], run: StoredRun, ours: Fingerprint, ignored: Sequence[str] = ()
) -> None:
    """Raise OutputMismatchError, which names the differences, unless the fingerprints agree.

    The named values in ``ignored`` may differ.
    """
    differences = ours.without(*ignored).differences(run.fingerprint.without(*ignored))
    more = len(differences) - MAX_DIFFERENCES
    if more > 0:
        differences = [*differences[:MAX_DIFFERENCES], f"and {more} more"]
    if differences:
        raise OutputMismatchError(
            f"{shown(normalise(url))} was made by another job ({'; '.join(differences)}): use "
            "another output, or --restart to put this one aside and begin a new one"
        )


def set_aside(url: str | os.PathLike[str]) -> str:
    """Rename an output, so that another can take its place; return its new location.

    Only for the holder of the output's lock.

    Raises
    ------
    OutputError
        If it is not an output of fcdcc, or cannot be renamed.
    """
    location = normalise(url)
    folder = open_folder(location)
    entries = _entries(folder)
    if not entries or PRIVATE not in entries:
        raise OutputError(f"{shown(location)} is not an output of fcdcc; it was not moved")
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
    taken = 0
    while True:
        target = f"{location}{ASIDE}{stamp}" + (f"-{taken}" if taken else "")
        if open_folder(target).entries() is None:
            break
        taken += 1
    try:
        folder.rename(target)
    except OSError as error:
        raise OutputError(
            f"{shown(location)} cannot be put aside as {shown(target)}: {error.strerror or error}"
        ) from error
    return target


def _store(location: str, run: StoredRun, layout: BlockLayout) -> PredictionStore:
    return PredictionStore(location, run.arrays, layout, run.fingerprint.digest, run.output)


def _entries(folder: Folder) -> list[str] | None:
    try:
        return folder.entries()
    except OSError as error:
        raise OutputError(
            f"{shown(folder.location)} cannot be an output: {error.strerror or error}; expected a "
            "folder that can be written"
        ) from error


def _write_contents(folder: Folder, contents: Contents, files: Mapping[str, bytes]) -> None:
    write_copies(folder, CONTENTS, contents.to_bytes())
    for name, data in files.items():
        folder.write(name, data)


def _mend_copies(folder: Folder, run: StoredRun, contents: Contents | None) -> list[str]:
    """Rewrite damaged copies of ``run.json`` and ``contents.json``, and a missing marker.

    Return the names of the files that were damaged or missing. Copies that are the same and have
    the form of an older version are rewritten, too, but they are not damaged.
    """
    wanted = {RUN: run.to_bytes()} | ({CONTENTS: contents.to_bytes()} if contents else {})
    repaired = []
    for name, data in wanted.items():
        present = _present(folder, name)
        if any(found != data for found in present):
            write_copies(folder, name, data)
        if len(set(present)) > 1:
            named = zip(copies(name), present, strict=True)
            repaired += [copy for copy, found in named if found != data]
    if folder.size(marker(run.output)) is None:
        folder.write(marker(run.output), b"")
        repaired.append(marker(run.output))
    return repaired


def _present(folder: Folder, name: str) -> list[bytes | None]:
    found = dict(folder.read_many(copies(name), MAX_RECORD_BYTES))
    return [found.get(copy) for copy in copies(name)]


def _changed(folder: Folder, contents: Contents) -> list[str]:
    """Return the files that belong to no block and are missing or differ from their record."""
    wanted = contents.files
    found = {name: Chunk.of(data) for name, data in folder.read_many(wanted)}
    return [name for name, chunk in wanted.items() if found.get(name) != chunk]


def _has_other_labels(stored: Contents, wanted: Contents) -> bool:
    """Return whether labels that are given differ from those that are stored."""
    return any(stored.chunks.get(name) != chunk for name, chunk in wanted.chunks.items()) or any(
        stored.blobs.get(name) != data for name, data in wanted.blobs.items()
    )


def _unwritable(location: str, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(
        f"{shown(location)} cannot be written: {error.strerror or error}; expected a folder that "
        "can be written, with room in it"
    )
