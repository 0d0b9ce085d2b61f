"""Blocks that an earlier run made from other images than there are now are made again.

The record of a block says what it was made from (:mod:`fcdcc.storage.block_inputs`). A run looks at
the images before it reads any, compares, and does the blocks that differ again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from fcdcc.storage import BlockLayout, ImageSource, InputError, PredictionStore, Progress
from fcdcc.storage.block_inputs import BlockInput
from fcdcc.storage.chunk_listing import AbsentChunks, ChunkListing, Tells
from fcdcc.storage.coordinates import read_values
from fcdcc.storage.input_state import Comparison, InputState, is_small

from ..formatting import counted, printable
from ..monitoring.summary import REASONS, Reason
from ..options import JobConfig
from .absence import look_for_chunks

logger = logging.getLogger(__name__)

MAX_NAMED_IMAGES = 3
"""Changed images that a line names."""


@dataclass(frozen=True)
class Redone:
    """Blocks that were done and are made again.

    Parameters
    ----------
    reasons
        Why, by block.
    renewed
        Blocks that stay, and whose records are brought up to date.
    """

    reasons: Mapping[int, Reason] = field(default_factory=dict)
    renewed: Mapping[int, BlockInput] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many blocks are made again for each reason that there is."""
        given = [*self.reasons.values()]
        return {reason: given.count(reason) for reason in REASONS if reason in given}


def look_at_input(
    source: ImageSource, config: JobConfig, level: int = logging.WARNING
) -> InputState:
    """Return what the images of a job are now; the log says what cannot be known of them.

    ``level`` is that of these lines, which need not be warnings a second time.
    """
    listing = look_at_chunks(source.whole, config, level)
    return InputState(source, listing, contents=config.compare == "contents")


def look_at_chunks(
    source: ImageSource, config: JobConfig, level: int = logging.WARNING
) -> ChunkListing | None:
    """Return what the store says of its chunks; the log says which changes go unnoticed."""
    needs_listing = config.compare == "listing" and not is_small(source)
    listing = look_for_chunks(source, changes_matter=needs_listing, level=level)
    if listing is not None and listing.tells is Tells.NOTHING and needs_listing:
        logger.log(
            level,
            "the store of the images says neither when its chunks were written nor what they hold; "
            "images that change and keep their size go unnoticed, unless --compare contents reads "
            "them",
        )
    return listing


def blocks_to_make_again(
    recorded: Progress,
    store: PredictionStore,
    state: InputState,
    *,
    absence_fails: bool,
    say: Callable[[str], None] | None,
) -> tuple[Progress, Redone]:
    """Return which blocks stay done, and why others do not.

    Parameters
    ----------
    recorded
        Which blocks are done by their records.
    store
        The output, with the images that there are now.
    state
        The images as they are now.
    absence_fails
        Whether no block stays done that was made without some of its chunks.
    say
        Called with a line for each reason for which blocks do not stay done; None if that was said
        before, of the images of which these are tiles.
    """
    level = logging.DEBUG if say is None else logging.WARNING
    reasons: dict[int, Reason] = {}
    for block, noted in recorded.provisional.items():
        chunks = AbsentChunks.from_json(noted)
        if absence_fails or (state.listing is not None and state.listing.has_any(chunks)):
            reasons[block] = "absent_chunks"
    for block in recorded.shorter:
        reasons[block] = "shorter"
    blocks = (block for block in _done(recorded) if block not in reasons)
    stored_ids = None if _all_known(recorded) else _ids_in(store, state.source)
    found = state.compare(recorded.inputs, store.layout, blocks, recorded.grown, stored_ids)
    for block, change in found.changed.items():
        reasons[block] = "image_ids" if change == "ids" else "images"
    if found.unknown:
        logger.log(
            level,
            "%s by an older version that did not record what a block was made from: whether "
            "images changed since is not known; use another output to make them again",
            counted(len(found.unknown), "block was made", "blocks were made"),
        )
    if found.unread and state.compares_pixels:
        logger.log(
            level,
            "%s by a run that did not read their images to compare them later: whether these "
            "changed since is not known",
            counted(len(found.unread), "block was made", "blocks were made"),
        )
    redone = Redone(reasons, found.renewed)
    if say is not None:
        by_reason: dict[Reason, list[int]] = {}
        for block in sorted(reasons):
            by_reason.setdefault(reasons[block], []).append(block)
        for reason, again in by_reason.items():
            say(_line(reason, again, found, store.layout, state, absence_fails=absence_fails))
    done = recorded.done.copy()
    done[[*reasons]] = False
    kept = {block: noted for block, noted in recorded.provisional.items() if done[block]}
    grown = {block: stop for block, stop in recorded.grown.items() if block not in reasons}
    return replace(recorded, done=done, provisional=kept, grown=grown), redone


def _line(
    reason: Reason,
    blocks: Sequence[int],
    found: Comparison,
    layout: BlockLayout,
    state: InputState,
    *,
    absence_fails: bool,
) -> str:
    """Return a line about the blocks that are made again for a reason, and their images."""
    images = count_images(blocks, layout)
    again = counted(len(blocks), "block is made again", "blocks are made again")
    again += f" ({counted(images, 'image')})"
    if reason == "image_ids":
        where = "it" if len(blocks) == 1 else "them"
        return f"{again}: images in {where} have other ids than before"
    if reason == "shorter":
        return f"{again}: {'it has' if len(blocks) == 1 else 'they have'} fewer images than before"
    if reason == "absent_chunks":
        now = "" if absence_fails else ", and are now"
        return f"{again}: chunks of these images were not stored{now}"
    known = [found.changed_images.get(block) for block in blocks]
    if None in known or state.source is not state.source.whole:
        which = "it" if len(blocks) == 1 else "each"
        return (
            f"{again}: at least one image in the stored chunks of {which} was changed, or written "
            "anew, since; --compare contents makes only blocks again whose own images changed"
        )
    changed = sorted({image for numbers in known for image in numbers or ()})
    were = counted(len(changed), "image was changed", "images were changed")
    return (
        f"{were} since ({_named(changed, state.ids)}): {again}, because blocks are made as a whole"
    )


def count_images(blocks: Sequence[int], layout: BlockLayout) -> int:
    """Return how many images some blocks have together, in ascending order.

    Bands are blocks, too, and several may be of the same image.
    """
    images = end = 0
    for start, stop in map(layout.bounds, blocks):
        images += max(0, stop - max(start, end))
        end = max(end, stop)
    return images


def _named(images: Sequence[int], ids: NDArray[Any] | None) -> str:
    """Return some images, by their ids if they have any, as a list in words."""
    named = [
        f"number {image}" if ids is None else printable(str(ids[image]))
        for image in images[:MAX_NAMED_IMAGES]
    ]
    more = len(images) - len(named)
    return ", ".join(named) + (f" and {counted(more, 'other')}" if more else "")


def _done(recorded: Progress) -> Iterator[int]:
    return (int(block) for block in recorded.done.nonzero()[0])


def _all_known(recorded: Progress) -> bool:
    known = recorded.inputs.known
    return bool(known[recorded.done].all()) and all(known[block] for block in recorded.grown)


def _ids_in(store: PredictionStore, source: ImageSource) -> NDArray[Any] | None:
    """Return the image ids in an output; None if there are none that can be read."""
    if source.ids_name is None:
        return None
    try:
        return read_values(store.url, source.ids_name, 0, source.images)
    except InputError:
        return None
