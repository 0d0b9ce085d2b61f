"""Finds the pictures in a folder, and gives the reason for every file that is none.

The folder is not trusted: links that leave it are not followed unless the caller says so, and only
regular files are opened. What is wrong with one entry is the reason of that entry and never an
exception.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .errors import InputError
from .foreign_files import is_foreign
from .pictures import has_picture_suffix

__all__ = ["FileState", "Found", "find_pictures"]

ZARR_METADATA = frozenset({"zarr.json", ".zgroup", ".zarray"})
"""A folder with one of these files is a Zarr store."""


class FileState(NamedTuple):
    """What a file system says about a file; it differs if the file was written in between.

    Parameters
    ----------
    size
        In bytes.
    modified_ns, changed_ns
        Times of the last change of its contents, which programs may set, and of the last change
        of any kind, which they may not; in nanoseconds.
    """

    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """Return the state that ``os.stat`` found."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of a folder.

    Parameters
    ----------
    name
        Path in the folder, with ``/``. Names that are not UTF-8 are escaped.
    state
        Of a file that may be a picture.
    problem
        Why the entry cannot be used; None for a file that may be a picture.
    bad
        Whether the entry is, or may hold, a picture that should have come in. Other entries with
        a problem belong to the system or to other programs.
    folder
        Whether the entry is a folder whose contents are unknown.
    """

    name: str
    state: FileState | None = None
    problem: str | None = None
    bad: bool = False
    folder: bool = False


def find_pictures(
    folder: Path, *, follow_links: bool = False, output: Path | None = None
) -> Iterator[Found]:
    """Yield every file under a folder, sorted by name, and every subfolder that is not entered.

    Parameters
    ----------
    follow_links
        Whether to follow links that leave the folder, and links to folders. Links to files inside
        the folder are always followed. Each folder is entered once, so that circles end.
    output
        A path in the folder that is left out because the images are written to it.

    Raises
    ------
    InputError
        If there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one with pictures")
    try:
        entries = _entries(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    walk = _Walk(folder.resolve(), follow_links, output)
    pending = [iter([(entry.name, entry) for entry in entries])]
    while pending:
        name, entry = next(pending[-1], (None, None))
        if name is None or entry is None:
            pending.pop()
            continue
        found = walk.look_at(name, entry)
        if isinstance(found, Found):
            yield found
        else:
            pending.append(iter([(f"{name}/{inner.name}", inner) for inner in found]))


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as scan:
        return sorted(scan, key=lambda entry: entry.name)


class _Walk:
    """Decides about one entry after another."""

    def __init__(self, root: Path, follow_links: bool, output: Path | None) -> None:
        self._root = root
        self._follow = follow_links
        self._output = output
        self._entered = {root}
        """The root, and the folders outside it that a link led to."""
        self._above = set(root.parents)
        """The folders that hold one of those."""

    def look_at(self, name: str, entry: os.DirEntry[str]) -> Found | list[os.DirEntry[str]]:
        """Return a file, a folder that is not entered, or the entries of one that is."""
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode("utf-8", "backslashreplace")
            return Found(shown, problem="its name is not UTF-8: rename it", bad=True)
        try:
            return self._look_at(name, entry)
        except (OSError, RuntimeError) as error:  # RuntimeError: links that form a circle
            bad = has_picture_suffix(name)
            reason = getattr(error, "strerror", None) or str(error)
            return Found(name, problem=f"it cannot be read: {reason}", bad=bad)

    def _look_at(self, name: str, entry: os.DirEntry[str]) -> Found | list[os.DirEntry[str]]:
        if entry.is_dir(follow_symlinks=False):
            return self._folder(name, entry)
        if problem := _problem_of_name(entry.name):
            return Found(name, problem=problem)
        is_folder = entry.is_dir()
        if entry.is_symlink() and (problem := self._problem_of_link(entry, is_folder)):
            return Found(name, problem=problem, bad=is_folder or has_picture_suffix(name))
        if is_folder:
            return self._folder(name, entry)
        found = entry.stat()
        if not stat.S_ISREG(found.st_mode):
            return Found(name, problem="it is not a regular file", bad=has_picture_suffix(name))
        return Found(name, FileState.of(found))

    def _folder(self, name: str, entry: os.DirEntry[str]) -> Found | list[os.DirEntry[str]]:
        if self._output is not None and Path(entry.path).resolve() == self._output:
            return Found(name, problem="the images are written to it")
        try:
            inner = _entries(entry.path)
        except OSError as error:
            reason = f"the folder cannot be read: {error.strerror or error}"
            return Found(name, problem=reason, bad=True, folder=True)
        if problem := _problem_of_name(entry.name):
            return Found(name, problem=problem)
        if any(member.name in ZARR_METADATA for member in inner):
            return Found(name, problem="it is a Zarr store")
        return inner

    def _problem_of_link(self, entry: os.DirEntry[str], is_folder: bool) -> str | None:
        """Return why a link is not followed; None if it is."""
        target = Path(entry.path).resolve()
        inside = target.is_relative_to(self._root)
        if not target.exists():
            return "it is a link to something that does not exist"
        if not is_folder:
            if inside or self._follow:
                return None
            return "it is a link that leaves the folder; --follow-links reads it"
        if not self._follow:
            return "it is a link to a folder, which is not followed; --follow-links reads it"
        if inside:
            return "it is a link to a folder that is read under its own name"
        if target in self._above or not self._entered.isdisjoint((target, *target.parents)):
            return "it is a link to a folder that is read already"
        self._entered.add(target)
        self._above.update(target.parents)
        return None


def _problem_of_name(name: str) -> str | None:
    """Return why entries of a name are left out; None if they are not."""
    if name.startswith("."):
        return "its name begins with a dot"
    return "it belongs to the operating system" if is_foreign(name) else None
