"""A folder of files with whole-file operations, and its implementation on local disks.

A run writes its output through a :class:`Folder`: a file exists completely or not at all, and
with ``exclusive`` the first of several writers wins. A local file is flushed to disk before it
gets its name, but its directory entry is not: after a loss of power the last few files may be
missing, but no file is partial. :mod:`fcdcc.storage.objects` has the implementation for object
stores.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from .locations import shown
from .regular_files import read_regular

__all__ = ["MAX_CHUNK_BYTES", "MAX_RECORD_BYTES", "SCRATCH", "Folder", "LocalFolder", "inside"]

SCRATCH = ".fcdcc/tmp"
"""Subfolder of a local folder for files that are being written."""

MAX_CHUNK_BYTES = 2**34
"""Largest chunk file that is read."""

MAX_RECORD_BYTES = 2**28
"""Largest record, journal or description of an output that is read."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""Names that certainly stay in their folder."""


def inside(name: str) -> str:
    """Return a file name if it stays in its folder: names in records are not trusted.

    Raises
    ------
    OSError
        If it is absolute, contains ``..``, or is not a valid name.
    """
    if _PLAIN_NAME.fullmatch(name):  # nearly all, and there may be a million
        return name
    parts = name.split("/")
    if (
        "\\" in name
        or "\0" in name
        or any(part in ("", ".", "..") for part in parts)
        or any("\ud800" <= character <= "\udfff" for character in name)  # halves of characters
    ):
        raise OSError(errno.EINVAL, "not the name of a file in the folder", name[:200])
    return name


class Folder(ABC):
    """Whole-file operations on the files under one location.

    Names are relative to the location, with ``/`` between their parts. Every operation raises
    OSError if it fails.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self.location)!r})"

    @abstractmethod
    def read(self, name: str, max_bytes: int = MAX_CHUNK_BYTES) -> bytes:
        """Return a file's contents; FileNotFoundError if there is no such file.

        On local disks only regular files of at most ``max_bytes`` are read, others are a
        NotRegularError; a file that another program replaced may be a pipe or never end.
        """

    @abstractmethod
    def write(self, name: str, data: bytes, *, exclusive: bool = False) -> bool:
        """Write a file completely or not at all; return whether it was written.

        With ``exclusive`` an existing file stays, and the result is False. In object stores
        without conditional writes this is a check before the write.
        """

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are skipped."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files directly in a subfolder: full name to size in bytes."""

    @abstractmethod
    def entries(self) -> list[str] | None:
        """Return the names of files and folders at the top; None if there is no such folder."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if there is no such file."""

    @abstractmethod
    def rename(self, location: str) -> None:
        """Move the whole folder to another location of the same kind, which must be free."""

    @abstractmethod
    def remove(self) -> None:
        """Delete the whole folder; nothing happens if there is none."""

    def read_many(
        self, names: Iterable[str], max_bytes: int = MAX_CHUNK_BYTES
    ) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of files, in order; those that do not exist are skipped."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, self.read(name, max_bytes)


class LocalFolder(Folder):
    """A folder of the local file system; see :class:`Folder`."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._root = Path(location)

    def _path(self, name: str) -> Path:
        """Return the path of a file."""
        return self._root / inside(name)

    def _own(self, name: str) -> Path:
        """Return the path of a file to change; an error if a link leads out of the folder."""
        path = self._path(name)
        root, parent = os.path.realpath(self._root), os.path.realpath(path.parent)
        if parent != root and not parent.startswith(root.rstrip(os.sep) + os.sep):
            raise OSError(errno.EPERM, "a link leads out of the folder", str(path.parent))
        return path

    def read(self, name: str, max_bytes: int = MAX_CHUNK_BYTES) -> bytes:
        """Return a file's contents."""
        return read_regular(self._path(name), max_bytes)

    def write(self, name: str, data: bytes, *, exclusive: bool = False) -> bool:
        """Write a file."""
        target = self._own(name)
        partial = self._root / SCRATCH / f"{uuid.uuid4().hex}.partial"
        partial.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if exclusive:
                won = _link(partial, target)
            else:
                partial.replace(target)
                won = True
        finally:
            partial.unlink(missing_ok=True)
        return won

    def delete(self, names: Iterable[str]) -> None:
        """Delete files."""
        for name in names:
            self._own(name).unlink(missing_ok=True)

    def sizes(self, folder: str) -> dict[str, int]:
        """List the files of a folder."""
        found: dict[str, int] = {}
        missing = contextlib.suppress(FileNotFoundError, NotADirectoryError)
        with missing, os.scandir(self._path(folder)) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file():
                        found[f"{folder}/{entry.name}"] = entry.stat().st_size
        return found

    def entries(self) -> list[str] | None:
        """List the top."""
        try:
            return sorted(path.name for path in self._root.iterdir())
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Return a file's size."""
        try:
            return self._path(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def rename(self, location: str) -> None:
        """Move the folder."""
        target = Path(location)
        if target.exists():
            raise FileExistsError(errno.EEXIST, "already there", location)
        self._root.rename(target)

    def remove(self) -> None:
        """Delete the folder; links in it are deleted, not followed."""
        if sys.version_info >= (3, 12):
            shutil.rmtree(self._root, onexc=lambda *found: _raise_unless_gone(found[2]))
        else:
            shutil.rmtree(self._root, onerror=lambda *found: _raise_unless_gone(found[2][1]))


def _raise_unless_gone(error: BaseException) -> None:
    """Raise an error, unless it says that a file is not there."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _link(partial: Path, target: Path) -> bool:
    """Give a finished file its name unless a file has it; return whether that was so."""
    try:
        target.hardlink_to(partial)
    except FileExistsError:
        return False
    except OSError as error:
        # Some network and FUSE file systems have no hard links.
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if target.exists():
            return False
        partial.replace(target)
    return True
