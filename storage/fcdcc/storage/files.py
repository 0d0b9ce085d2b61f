"""A folder of small files with whole-file operations only, and its form on local disks.

What a run writes, it writes through a :class:`Folder`: a file is there completely or not at
all, and with ``exclusive`` the first of several writers wins. A local file is flushed to
disk before it gets its name. Its name itself is not: after a loss of power the last few
files may be gone, and no file is there in part.
:mod:`fcdcc.storage.objects` has the form for object stores.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from .locations import shown

__all__ = ["SCRATCH", "Folder", "LocalFolder", "inside"]

SCRATCH = ".fcdcc/tmp"
"""Where a local folder keeps files that are being written."""


def inside(name: str) -> str:
    """Return a name if it stays in its folder: records may come from anywhere.

    Raises
    ------
    OSError
        If it is absolute, or has ``..`` in it, or is none at all.
    """
    parts = name.split("/")
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise OSError(errno.EINVAL, "not the name of a file in the folder", name[:200])
    return name


class Folder(ABC):
    """Whole-file operations on the files under one location.

    Names are relative to the location, with ``/`` between their parts. Every operation
    raises OSError (or what the object store's driver raises) when it cannot be done.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self.location)!r})"

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's contents; FileNotFoundError where there is none."""

    @abstractmethod
    def write(self, name: str, data: bytes, *, exclusive: bool = False) -> bool:
        """Write a file, all of it or nothing.

        With ``exclusive`` a file that is already there stays, and the answer is False. In
        object stores that know no conditional writes this is a check before the write.
        """

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are passed over."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files that lie directly in a folder: full name to size in bytes."""

    @abstractmethod
    def entries(self) -> list[str] | None:
        """Return what lies at the top: names of files and folders; None where nothing is."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None where there is none."""

    @abstractmethod
    def rename(self, location: str) -> None:
        """Move the whole folder to another location of the same kind, which must be free."""

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the contents of files, in order; those that are not there are left out."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, self.read(name)


class LocalFolder(Folder):
    """A folder of the file system; see :class:`Folder`."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._root = Path(location)

    def _path(self, name: str) -> Path:
        """Return where a file is, by its name alone."""
        return self._root / inside(name)

    def _own(self, name: str) -> Path:
        """Return where a file is that is to be changed: no link may lead out of the folder."""
        path = self._path(name)
        root, parent = os.path.realpath(self._root), os.path.realpath(path.parent)
        if parent != root and not parent.startswith(root.rstrip(os.sep) + os.sep):
            raise OSError(errno.EPERM, "a link leads out of the folder", str(path.parent))
        return path

    def read(self, name: str) -> bytes:
        """Return a file's contents."""
        return self._path(name).read_bytes()

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
        with contextlib.suppress(FileNotFoundError), os.scandir(self._path(folder)) as entries:
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


def _link(partial: Path, target: Path) -> bool:
    """Give a finished file its name unless the name is taken; return whether it was free."""
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
