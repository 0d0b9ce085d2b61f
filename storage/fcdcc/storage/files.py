"""A folder of small files, local or in an object store, with whole-file operations only.

What a run writes, it writes through a :class:`Folder`: a file is there completely or not at
all, and with ``exclusive`` the first of several writers wins. A local file is flushed to
disk before it gets its name, so that what is recorded as written survives a loss of power.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec

from .locations import is_local, shown

__all__ = ["SCRATCH", "Folder", "open_folder"]

SCRATCH = ".fcdcc/tmp"
"""Where a local folder keeps files that are being written."""


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
    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""

    @abstractmethod
    def rename(self, location: str) -> None:
        """Move the whole folder to another location of the same kind, which must be free."""

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the contents of files, in order; those that are not there are left out."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, self.read(name)


class _LocalFolder(Folder):
    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._root = Path(location)

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def write(self, name: str, data: bytes, *, exclusive: bool = False) -> bool:
        target = self._root / name
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
        _flush_folder(target.parent)
        return won

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    def sizes(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._root / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file():
                        found[f"{folder}/{entry.name}"] = entry.stat().st_size
        return found

    def entries(self) -> list[str] | None:
        try:
            return sorted(path.name for path in self._root.iterdir())
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        return (self._root / name).exists()

    def rename(self, location: str) -> None:
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


def _flush_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _ObjectFolder(Folder):
    def __init__(self, location: str) -> None:
        super().__init__(location)
        files, root = fsspec.core.url_to_fs(location)
        self._files: Any = files  # fsspec publishes no types
        self._root = str(root).rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def read(self, name: str) -> bytes:
        return bytes(self._files.cat_file(self._path(name)))

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        batch: list[str] = []
        for name in names:
            batch.append(name)
            if len(batch) == 1000:
                yield from self._read_batch(batch)
                batch = []
        yield from self._read_batch(batch)

    def _read_batch(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        paths = [self._path(name) for name in names]
        # One request for all of them: drivers that can, fetch them concurrently.
        found: dict[str, Any] = self._files.cat(paths, on_error="return") if paths else {}
        for name, path in zip(names, paths, strict=True):
            data = found.get(path, found.get(path.lstrip("/")))
            if isinstance(data, bytes):
                yield name, data
            elif isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                raise data

    def write(self, name: str, data: bytes, *, exclusive: bool = False) -> bool:
        path = self._path(name)
        if not exclusive:
            self._files.pipe_file(path, data)
            return True
        try:
            self._files.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except (TypeError, ValueError, NotImplementedError):  # no conditional writes
            if self.exists(name):
                return False
            self._files.pipe_file(path, data)
        return True

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._path(name))

    def sizes(self, folder: str) -> dict[str, int]:
        return {
            f"{folder}/{entry['name'].rpartition('/')[2]}": int(entry["size"] or 0)
            for entry in self._listing(self._path(folder)) or []
            if entry["type"] == "file"
        }

    def entries(self) -> list[str] | None:
        listing = self._listing(self._root)
        if listing is None:
            return None
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in listing)

    def _listing(self, path: str) -> list[dict[str, Any]] | None:
        self._files.invalidate_cache()  # another process may have written since
        try:
            return [dict(entry) for entry in self._files.ls(path, detail=True)]
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        return bool(self._files.exists(self._path(name)))

    def rename(self, location: str) -> None:
        _, target = fsspec.core.url_to_fs(location)
        if self._files.exists(target):
            raise FileExistsError(errno.EEXIST, "already there", shown(location))
        self._files.mv(self._root, target, recursive=True)


def open_folder(location: str) -> Folder:
    """Return the folder at a normalised location; nothing is made or checked yet."""
    return _LocalFolder(location) if is_local(location) else _ObjectFolder(location)
