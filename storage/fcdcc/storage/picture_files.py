"""Reads many picture files in threads, with what is needed to see later whether one changed."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .ingest_records import Entry
from .picture_folder import FileState
from .pictures import PictureError, PictureForm, read_pages
from .regular_files import open_regular

__all__ = ["FileRead", "ReadRequest", "read_files"]

READ_AHEAD_PER_THREAD = 4
"""Files per thread that are decoded before their pixels are used."""

SETTLED_NS = 3_000_000_000
"""Age from which a file's times tell whether it changed later: some file systems record them in
steps of two seconds."""


UNKNOWN = FileState(0, 0, 0)
"""The state of a file that was not read."""


@dataclass(frozen=True)
class ReadRequest:
    """A file to read.

    Parameters
    ----------
    name
        In the folder.
    several
        Whether it may have several pages.
    known
        The digest with which it needs no decoding; empty if there is none.
    """

    name: str
    several: bool = False
    known: str = ""


@dataclass(frozen=True)
class FileRead:
    """A file, or some of its pages, with its state when it was read.

    Parameters
    ----------
    name
        In the folder.
    problem
        Why it cannot be read; the other values have no meaning then.
    same
        Whether it has the contents that were known, and was not decoded.
    pages
        Numbers of pages, None for the only one, with pixels or an error.
    format
        Pillow's name of the format, in lower case.
    next_page
        The first page that is not among ``pages``, None if there is none.
    state, digest, settled
        As in :class:`~fcdcc.storage.ingest_records.Entry`.
    """

    name: str
    problem: PictureError | None = None
    same: bool = False
    pages: tuple[tuple[int | None, NDArray[Any] | PictureError], ...] = ()
    format: str = ""
    next_page: int | None = None
    state: FileState = UNKNOWN
    digest: str = ""
    settled: bool = False

    def entry(self, page: int | None) -> Entry:
        """Return the entry of the image of a page."""
        return Entry.of(self.name, page, self.state, self.digest, self.settled)


def read_files(
    pool: ThreadPoolExecutor,
    threads: int,
    root: Path,
    form: PictureForm,
    requests: Iterable[ReadRequest],
) -> Iterator[FileRead]:
    """Yield files in order, those with many pages in parts, decoded in the threads of a pool."""
    waiting: deque[tuple[ReadRequest, Future[FileRead]]] = deque()
    remaining = iter(requests)
    try:
        while True:
            while len(waiting) < READ_AHEAD_PER_THREAD * threads:
                request = next(remaining, None)
                if request is None:
                    break
                waiting.append((request, pool.submit(_read, root, form, request, None)))
            if not waiting:
                return
            request, future = waiting.popleft()
            done = future.result()
            if done.next_page is not None:
                waiting.appendleft((request, pool.submit(_read, root, form, request, done)))
            yield done
    finally:
        for _, future in waiting:
            future.cancel()


def _read(root: Path, form: PictureForm, request: ReadRequest, before: FileRead | None) -> FileRead:
    """Read a file, or the pages that follow those that were read before."""
    name, path = request.name, root / request.name
    try:
        now_ns, state, first = time.time_ns(), FileState.of(path.stat()), 1
        digest = _digest(path) if before is None else before.digest
        same = before is None and digest == request.known
        pages: list[tuple[int | None, NDArray[Any] | PictureError]] = []
        kind, next_page = "", None
        if before is not None:
            state, first = before.state, before.next_page or 1
        if not same:
            pages, kind, next_page = read_pages(path, form, first, several=request.several)
        settled = (
            state == FileState.of(path.stat())
            and max(state.modified_ns, state.changed_ns) + SETTLED_NS < now_ns
        )
    except PictureError as error:
        return FileRead(name, error)
    except OSError as error:
        return FileRead(name, PictureError(f"it cannot be read: {error.strerror or error}"))
    return FileRead(
        name,
        same=same,
        pages=tuple(pages),
        format=kind,
        next_page=next_page,
        state=state,
        digest=digest,
        settled=settled,
    )


def _digest(path: Path) -> str:
    """Return 32 hexadecimal digits that stand for the contents of a file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
