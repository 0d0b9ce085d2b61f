"""A folder of files in an object store, or at any other URL that fsspec supports."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .errors import OutputError
from .files import MAX_CHUNK_BYTES, Folder, LocalFolder, inside
from .locations import is_local, scrubbed, shown
from .reachability import as_unreachable

__all__ = ["ObjectFolder", "open_folder"]

_FILES_PER_READ = 1000
"""Files per request to the driver, which may fetch them concurrently."""

_DELETING_THREADS = 16
"""Files that are deleted at a time: a long run has thousands of records."""


class ObjectFolder(Folder):
    """A folder at a URL that fsspec supports; see :class:`Folder`.

    Raises
    ------
    OutputError
        If there is no driver for the URL.
    """

    def __init__(self, location: str) -> None:
        import fsspec  # this takes a while, and folders on disks do not need it

        super().__init__(location)
        try:
            files, root = fsspec.core.url_to_fs(location)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            raise OutputError(
                f"{shown(location)} cannot be reached: {scrubbed(str(error), location)}"
            ) from as_unreachable(error, location)
        self._files: Any = files  # fsspec publishes no types
        self._root = str(root).rstrip("/")

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Raise errors of the driver as OSError, without credentials in the message.

        A store that is out of reach is an UnreachableError.
        """
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            if (unreachable := as_unreachable(error, self.location)) is not None:
                raise unreachable from unreachable.__cause__  # else it shows its context
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OSError(scrubbed(reason, self.location)) from None

    def _path(self, name: str) -> str:
        return f"{self._root}/{inside(name)}"

    def read(
        self,
        name: str,
        max_bytes: int = MAX_CHUNK_BYTES,  # noqa: ARG002 - objects have a length
    ) -> bytes:
        """Return a file's contents."""
        with self._reported():
            return bytes(self._files.cat_file(self._path(name)))

    def read_many(
        self,
        names: Iterable[str],
        max_bytes: int = MAX_CHUNK_BYTES,  # noqa: ARG002 - objects have a length
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the contents of files."""
        batch: list[str] = []
        for name in names:
            batch.append(name)
            if len(batch) == _FILES_PER_READ:
                yield from self._read_batch(batch)
                batch = []
        yield from self._read_batch(batch)

    def _read_batch(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        paths = [self._path(name) for name in names]
        with self._reported():
            found: dict[str, Any] = self._files.cat(paths, on_error="return") if paths else {}
        for name, path in zip(names, paths, strict=True):
            data = found.get(path)
            if isinstance(data, bytes):
                yield name, data
            elif not isinstance(data, FileNotFoundError):
                # Read this file again, which succeeds or raises its own error.
                with contextlib.suppress(FileNotFoundError):
                    yield name, self.read(name)

    def write(self, name: str, data: bytes, *, exclusive: bool = False) -> bool:
        """Write a file."""
        path = self._path(name)
        with self._reported():
            if not exclusive:
                self._files.pipe_file(path, data)
                return True
            try:
                self._files.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except (TypeError, ValueError, NotImplementedError):  # no conditional writes
                if self.size(name) is not None:
                    return False
                self._files.pipe_file(path, data)
        return True

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, several at a time, since each takes a request."""
        listed = list(names)
        with ThreadPoolExecutor(min(_DELETING_THREADS, len(listed)) or 1) as pool:
            for _ in pool.map(self._delete, listed):
                pass

    def _delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._reported():
            self._files.rm_file(self._path(name))

    def sizes(self, folder: str) -> dict[str, int]:
        """List the files of a folder."""
        return {
            f"{folder}/{entry['name'].rpartition('/')[2]}": int(entry["size"] or 0)
            for entry in self._listing(self._path(folder)) or []
            if entry["type"] == "file"
        }

    def entries(self) -> list[str] | None:
        """List the top."""
        listing = self._listing(self._root)
        if listing is None:
            return None
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in listing)

    def _listing(self, path: str) -> list[dict[str, Any]] | None:
        try:
            with self._reported():
                self._files.invalidate_cache()  # another process may have written since
                return [dict(entry) for entry in self._files.ls(path, detail=True)]
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Return a file's size."""
        try:
            with self._reported():
                self._files.invalidate_cache()
                return int(self._files.info(self._path(name))["size"] or 0)
        except FileNotFoundError:
            return None

    def rename(self, location: str) -> None:
        """Move the folder."""
        import fsspec

        with self._reported():
            _, target = fsspec.core.url_to_fs(location)
            if self._files.exists(target):
                raise FileExistsError(errno.EEXIST, "already there", shown(location))
            # An object store cannot rename. All files are copied before any is removed, so
            # that an interruption leaves one complete folder.
            self._files.invalidate_cache()
            sources = sorted(self._files.find(self._root))
            self._files.copy(sources, [target + path[len(self._root) :] for path in sources])
            self._files.rm(sources)
            self._files.invalidate_cache()

    def remove(self) -> None:
        """Delete the folder."""
        with contextlib.suppress(FileNotFoundError), self._reported():
            self._files.invalidate_cache()
            self._files.rm(self._root, recursive=True)


def open_folder(location: str) -> Folder:
    """Return the folder at a normalised location, without creating or checking it.

    Raises
    ------
    OutputError
        If there is no driver for a URL.
    """
    return LocalFolder(location) if is_local(location) else ObjectFolder(location)
