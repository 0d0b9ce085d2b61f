"""Chunks of the images that are not stored: blocks that read them are made again later.

Zarr reads such a chunk as the fill value. Blank images are stored in this way on purpose, so it
is no error; but an upload may not be complete yet. The record of a block names the chunks that
were absent when it was made, and a later run makes the block again once one of them is there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from fcdcc.storage import BlockLayout, ImageSource, InputError, Progress
from fcdcc.storage.chunk_listing import AbsentChunks, ChunkListing, Region, list_chunks

logger = logging.getLogger(__name__)


def look_for_chunks(
    source: ImageSource, regions: Sequence[Region] | None = None
) -> ChunkListing | None:
    """Return which chunks are stored; None, with a line in the log, if that is not known.

    ``regions`` is what is looked at; by default everything.
    """
    try:
        found = list_chunks(source, regions)
    except InputError as error:
        logger.warning("%s; chunks that are not stored go unnoticed", error)
        return None
    if found is None:
        logger.warning(
            "the store of the images does not list its chunks; those that are not stored go "
            "unnoticed, and are read as the fill value"
        )
    return found


def regions_of(layout: BlockLayout, blocks: Iterable[int]) -> list[Region]:
    """Return the images of some blocks, as few runs of images as possible; rows are left out."""
    regions: list[Region] = []
    for start, stop in sorted({layout.bounds(block) for block in blocks}):
        if regions and regions[-1][1] >= start:
            regions[-1] = (regions[-1][0], max(stop, regions[-1][1]), None)
        else:
            regions.append((start, stop, None))
    return regions


def without_blocks_to_make_again(
    recorded: Progress, layout: BlockLayout, source: ImageSource, *, absence_fails: bool
) -> tuple[Progress, ChunkListing | None]:
    """Return which blocks stay done, and which chunks the other blocks find stored.

    Blocks whose absent chunks may be there now do not stay done; with ``absence_fails`` none does
    that was made without some of its chunks. The store is listed once, and only if there is a
    block that needs it; else, or if it cannot be listed, the listing is None.
    """
    made_without = {
        block: AbsentChunks.from_json(noted) for block, noted in recorded.provisional.items()
    }
    wanted = {*recorded.pending, *made_without}
    listing = look_for_chunks(source, regions_of(layout, wanted)) if wanted else None
    again = [
        block
        for block, chunks in made_without.items()
        if absence_fails or (listing is not None and listing.has_any(chunks))
    ]
    if again:
        logger.warning(
            "%d blocks are made again: chunks of their images were not stored%s",
            len(again), "" if absence_fails else ", and are now",
        )  # fmt: skip
    done = recorded.done.copy()
    done[again] = False
    kept = {block: noted for block, noted in recorded.provisional.items() if done[block]}
    return replace(recorded, done=done, provisional=kept), listing


def total_of(absent: Mapping[int, AbsentChunks]) -> int:
    """Return how many chunks are absent for some blocks altogether; several may need one."""
    chunks: dict[str, set[int]] = {}
    for found in absent.values():
        for path, runs in found.runs.items():
            for first, last in runs:
                chunks.setdefault(path, set()).update(range(first, last + 1))
    return sum(len(numbers) for numbers in chunks.values())


def absence_text(listing: ChunkListing) -> str:
    """Return a sentence about chunks that are not stored; empty if all are."""
    absent = listing.absent().count
    if not absent:
        return ""
    return (
        f"{absent} of {listing.total} chunks are not stored and are read as the fill value; blocks "
        "that need them are made again once they are there"
    )
