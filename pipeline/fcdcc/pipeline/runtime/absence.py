"""Chunks of the images that are not stored: blocks that read them are made again later.

Zarr reads such a chunk as the fill value. Blank images are stored in this way on purpose, so it
is no error; but an upload may not be complete yet. The record of a block names the chunks that
were absent when it was made, and a later run makes the block again once one of them is there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fcdcc.storage import ImageSource, InputError
from fcdcc.storage.chunk_listing import AbsentChunks, ChunkListing, list_chunks

from ..formatting import count, counted
from ..options import JobConfig

logger = logging.getLogger(__name__)


def look_for_chunks(
    source: ImageSource, *, changes_matter: bool = False, level: int = logging.WARNING
) -> ChunkListing | None:
    """Return which chunks are stored; None, with a line in the log, if that is not known.

    With ``changes_matter`` the line says that changes of the images are not known, either;
    ``level`` is that of the line.
    """
    changes = ", and so do images that change, unless --compare contents reads them"
    also = changes if changes_matter else ""
    try:
        found = list_chunks(source)
    except InputError as error:
        logger.log(level, "%s; chunks that are not stored go unnoticed%s", error, also)
        return None
    if found is None:
        logger.log(
            level,
            "the store of the images does not list its chunks; those that are not stored are read "
            "as the fill value and go unnoticed%s",
            also,
        )
    return found


def total_of(absent: Mapping[int, AbsentChunks]) -> int:
    """Return how many chunks are absent for some blocks altogether; several may need one."""
    chunks: dict[str, set[int]] = {}
    for found in absent.values():
        for path, runs in found.runs.items():
            for first, last in runs:
                chunks.setdefault(path, set()).update(range(first, last + 1))
    return sum(len(numbers) for numbers in chunks.values())


def absence_text(listing: ChunkListing, config: JobConfig) -> str:
    """Return a sentence about chunks that are not stored; empty if all are."""
    absent = listing.absent().count
    if not absent:
        return ""
    if config.absent == "fail":
        are = "is" if absent == 1 else "are"
        some = f"{count(absent)} of {counted(listing.total, 'chunk')}"
        return f"{some} {are} not stored, and blocks that need what is missing fail (--absent fail)"
    return (
        f"{absent_chunks(absent, listing.total)}; blocks that need what is missing are made again "
        "once it is there"
    )


def absent_chunks(absent: int, total: int) -> str:
    """Return how many of some chunks are not stored, in words."""
    are = "is not stored and is" if absent == 1 else "are not stored and are"
    return f"{count(absent)} of {counted(total, 'chunk')} {are} read as the fill value"
