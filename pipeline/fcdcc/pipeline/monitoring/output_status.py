"""The state of an output: which blocks are done, and whether they are still as written."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fcdcc.storage import (
    Damage,
    DamageError,
    InputError,
    OutputError,
    PredictionStore,
    Progress,
    damaged_blocks,
    find_foreign_files,
    hold,
    inspect_output,
    open_predictions,
    salvage_predictions,
    verify,
)
from fcdcc.storage.errors import LockedError
from fcdcc.storage.outputs import TILES, tiles_of

from ..formatting import counted
from .summary import BlockFailure

if TYPE_CHECKING:
    from fcdcc.storage import ImageSource

Compared = Literal["listing", "contents", "off"]
"""How an output is compared with its input."""

MAX_SILENT_SECONDS = 60
"""Time after which an input whose store does not answer counts as one that cannot be opened."""

DAMAGED = "damaged: "
"""How the reason begins for which a block that was done must be computed again."""

FOUND_BEFORE = "found before: "
"""How the description of damage begins that an earlier verification has marked."""

_NEXT_DAMAGE = re.compile(r"; (?=\S+: )")
"""What is between two damages in the reason of a record: each begins with its file."""


@dataclass(frozen=True)
class TileStatus:
    """Which blocks of tiles are done.

    Parameters
    ----------
    blocks_total, blocks_done, blocks_failed
        Blocks of tiles: all, of which only those are made that bands need; done; failed.
    failures
        Those that failed, each with its reason.
    """

    blocks_total: int
    blocks_done: int
    blocks_failed: int
    failures: tuple[BlockFailure, ...]


@dataclass(frozen=True)
class OutputStatus:
    """Which blocks of an output are done.

    Parameters
    ----------
    status
        ``complete`` if every block has a prediction, else ``incomplete``.
    images, images_done
        Of the output; those of them of which all blocks are done.
    blocks_total, blocks_done, blocks_missing
        All; done; without a record.
    blocks_failed
        Blocks that failed, or that were found damaged.
    blocks_provisional
        Blocks that are done although chunks of their images were not stored.
    failures
        All blocks that failed, or that were found damaged, each with its reason.
    unreadable_records
        Records that are damaged, each with what is wrong; their blocks count as missing.
    tiles
        Of an output that is not complete and is put together from tiles: their blocks. Its own
        blocks are then bands of the images.
    blocks_damaged
        Those of ``blocks_failed`` that were found damaged.
    blocks_not_full
        Those of ``blocks_missing`` that were done with fewer images than they have now.
    """

    status: Literal["complete", "incomplete"]
    images: int
    images_done: int
    blocks_total: int
    blocks_done: int
    blocks_missing: int
    blocks_failed: int
    blocks_provisional: int
    failures: tuple[BlockFailure, ...]
    unreadable_records: dict[str, str]
    tiles: TileStatus | None = None
    blocks_damaged: int = 0
    blocks_not_full: int = 0

    @property
    def in_words(self) -> str:
        """How many blocks are done, missing and failed, and damaged if any are."""
        failed = self.blocks_failed - self.blocks_damaged
        were = "it was" if self.blocks_not_full == 1 else "they were"
        again = f" ({self.blocks_not_full:,} to be made again: {were} not full)"
        again = again if self.blocks_not_full else ""
        damaged = f", {self.blocks_damaged:,} damaged" if self.blocks_damaged else ""
        return (
            f"{self.blocks_done:,} of {counted(self.blocks_total, 'block')} done "
            f"({self.images_done:,} of {counted(self.images, 'image')}), "
            f"{self.blocks_missing:,} missing{again}, {failed:,} failed{damaged}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the status as plain values; ``images_total`` goes with ``blocks_total``."""
        return {**asdict(self), "images_total": self.images}


@dataclass(frozen=True)
class Verification:
    """The result of reading an output again.

    Parameters
    ----------
    damage
        Each thing that is wrong.
    blocks
        Blocks that the next run computes again because of it, ascending.
    marked
        Whether that is recorded: it is not if the output cannot be written.
    foreign
        Files and folders that are no part of the output, and no damage.
    outdated
        Blocks that no longer belong to the input, by what differs: ``image_ids``, ``images``, or
        ``removed``, if the input no longer has their images.
    unknown
        What is not known about that, in words; empty if everything is.
    images_new
        Images at the end of the input that the output has no prediction of.
    images_total, images_read
        How many predictions the output has room for, and how many of them were read again and
        found to be as written.
    blocks_total, blocks_read
        The same of its blocks.
    """

    damage: tuple[Damage, ...]
    blocks: tuple[int, ...]
    marked: bool
    foreign: tuple[str, ...] = ()
    outdated: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unknown: str = ""
    images_new: int = 0
    images_total: int = 0
    images_read: int = 0
    blocks_total: int = 0
    blocks_read: int = 0

    @property
    def status(self) -> Literal["whole", "outdated", "damaged"]:
        """What is the matter with the output, the worst of it."""
        if self.damage:
            return "damaged"
        return "outdated" if self.outdated else "whole"

    def to_dict(self) -> dict[str, Any]:
        """Return the verification as plain values."""
        return {"status": self.status, **asdict(self)}


def read_status(output: str) -> OutputStatus:
    """Return which blocks of an output are done, by its records, without reading data.

    Raises
    ------
    OutputError
        If there is no output, or it cannot be read.
    """
    store = open_predictions(output)
    progress = store.progress()
    total, done = store.layout.blocks, int(progress.done.sum())
    return OutputStatus(
        status="complete" if progress.complete else "incomplete",
        images=store.layout.images,
        images_done=store.layout.images_in(progress.done),
        blocks_total=total,
        blocks_done=done,
        blocks_missing=total - done - len(progress.failed),
        blocks_failed=len(progress.failed),
        blocks_provisional=len(progress.provisional),
        failures=tuple(BlockFailure(*item) for item in sorted(progress.failed.items())),
        unreadable_records=dict(progress.unreadable),
        tiles=None if progress.complete else _tile_status(output),
        blocks_damaged=sum(map(is_damage, progress.failed.values())),
        blocks_not_full=len(progress.grown),
    )


def _tile_status(output: str) -> TileStatus | None:
    """Return which blocks of an output's tiles are done; None if it has no tiles."""
    tiles = _tiles_in(output)
    if tiles is None:
        return None
    progress = tiles.progress()
    failed = sorted(progress.failed.items())
    return TileStatus(
        blocks_total=tiles.layout.blocks,
        blocks_done=int(progress.done.sum()),
        blocks_failed=len(failed),
        failures=tuple(BlockFailure(*item) for item in failed),
    )


def _tiles_in(output: str) -> PredictionStore | None:
    """Return the output of an output's tiles; None if there is none, or it cannot be read."""
    try:
        return open_predictions(tiles_of(output))
    except OutputError:
        return None


def is_damage(reason: str) -> bool:
    """Return whether a block's record says that it was found damaged, not that it failed."""
    return reason.startswith(DAMAGED)


def failure_line(block: int, reason: str) -> str:
    """Return a line on a block that failed or was found damaged."""
    if is_damage(reason):
        return f"block {block} is damaged: {reason.removeprefix(DAMAGED)}"
    return f"block {block} failed: {reason}"


def verify_output(output: str, compare: Compared = "listing") -> Verification:
    """Read all of an output again, mark the damaged blocks, and compare it with its input.

    The records of damaged blocks are replaced by ones that say what is wrong; no data is deleted.
    Blocks that an earlier verification has marked are reported until they are repaired. An output
    that cannot be written is only read.

    Parameters
    ----------
    output
        Its location.
    compare
        How blocks are found that no longer belong to the input: by what its store lists, by its
        contents, where the run recorded these, or not at all.

    Raises
    ------
    LockedError
        If a run is writing the output.
    OutputError
        If there is no output, or it cannot be read.
    """
    try:
        with hold(output):
            return _verify(output, compare, mark=True)
    except LockedError:
        raise
    except OutputError:
        return _verify(output, compare, mark=False)


def _verify(output: str, compare: Compared, mark: bool) -> Verification:
    found, foreign = verify(output), tuple(find_foreign_files(output))
    try:
        store = _store_of(output, found)
    except DamageError:  # its layout is damaged
        return Verification(tuple(found), (), marked=False, foreign=foreign)
    progress = store.progress()
    found += _marked_before(progress, found)
    blocks = [block for block in damaged_blocks(found) if block < store.layout.blocks]
    is_whole = progress.done.copy()
    is_whole[blocks] = False
    compared = _ComparedInput()
    if compare != "off":
        done = {int(block) for block in np.flatnonzero(is_whole)}
        compared = _compare_with_input(store, progress, done, compare)
    if mark:
        _mark(store, blocks, found)
    found += _damage_of_tiles(output, mark)
    return Verification(
        tuple(found), tuple(blocks), mark, foreign,
        compared.outdated, compared.unknown, compared.images_new,
        images_total=store.layout.images, images_read=store.layout.images_in(is_whole),
        blocks_total=store.layout.blocks, blocks_read=int(is_whole.sum()),
    )  # fmt: skip


def _damage_of_tiles(output: str, mark: bool) -> list[Damage]:
    """Return what is damaged of an output's tiles, as damage of no block, and mark their blocks."""
    tiles = _tiles_in(output)
    if tiles is None:
        return []
    found = verify(tiles.url)
    if mark:
        blocks = [block for block in damaged_blocks(found) if block < tiles.layout.blocks]
        _mark(tiles, blocks, found)
    return [replace(damage, path=f"{TILES}/{damage.path}", block=None) for damage in found]


@dataclass(frozen=True)
class _ComparedInput:
    """How an output differs from its input; the members are those of :class:`Verification`."""

    outdated: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unknown: str = ""
    images_new: int = 0


def _compare_with_input(
    store: PredictionStore, progress: Progress, done: set[int], compare: Compared
) -> _ComparedInput:
    """Return which blocks no longer belong to the input, and what is not known of that."""
    known = {block for block in done if block in progress.inputs}
    if not known:
        return _ComparedInput(unknown=_unrecorded(len(done)) if done else "")
    # They import Zarr, which an output without such records does not need.
    from fcdcc.storage.chunk_listing import list_chunks
    from fcdcc.storage.images import open_identified_images
    from fcdcc.storage.input_state import InputState

    try:
        run = inspect_output(store.url)
        identity = {} if run is None else run.fingerprint.fields.get("input")
        known_as = identity if isinstance(identity, dict) else {}
        source = _in_time(lambda: open_identified_images(known_as))
        images_new = max(0, source.images - store.layout.images)
        removed = {block for block in known if store.layout.bounds(block)[1] > source.images}
        source = source.with_limit(min(store.layout.images, source.images))
        state = InputState(source, list_chunks(source), contents=compare == "contents")
        result = state.compare(progress.inputs, store.layout, known - removed, {})
    except InputError as error:
        what = "whether the blocks still belong to the input is not known"
        return _ComparedInput(unknown=f"{what}: {error}")
    by_change = {"image_ids": "ids", "images": "images"}
    outdated = {
        name: tuple(sorted(block for block, found in result.changed.items() if found == change))
        for name, change in by_change.items()
    } | {"removed": tuple(sorted(removed))}
    return _ComparedInput(
        {name: blocks for name, blocks in outdated.items() if blocks},
        _unrecorded(len(done) - len(known)) if len(known) < len(done) else "",
        images_new,
    )


def _in_time(open_input: Callable[[], ImageSource]) -> ImageSource:
    """Return the images of an input; an InputError if their store does not answer."""
    opened: Future[ImageSource] = Future()

    def work() -> None:
        try:
            opened.set_result(open_input())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            opened.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return opened.result(MAX_SILENT_SECONDS)
    except TimeoutError:
        raise InputError(
            f"its store has not answered for {MAX_SILENT_SECONDS} s; --compare off leaves it alone"
        ) from None


def _unrecorded(blocks: int) -> str:
    return (
        f"whether {counted(blocks, 'block still belongs', 'blocks still belong')} to the input is "
        "not known: an older version made them"
    )


def _store_of(output: str, found: Iterable[Damage]) -> PredictionStore:
    """Return the output; if its number of blocks is damaged, one with all damaged blocks."""
    try:
        return open_predictions(output)
    except DamageError:
        return salvage_predictions(output, max(damaged_blocks(found), default=-1) + 1)


def _marked_before(progress: Progress, found: Iterable[Damage]) -> list[Damage]:
    """Return the damage that an earlier verification found and no run has repaired."""
    seen = {damage.block for damage in found}
    return [
        _damage_of(text, block)
        for block, reason in sorted(progress.failed.items())
        if is_damage(reason) and block not in seen
        for text in _NEXT_DAMAGE.split(reason.removeprefix(DAMAGED))
    ]


def _damage_of(text: str, block: int) -> Damage:
    """Return damage that the record of a block tells of: a file, and what is wrong with it."""
    path, _, detail = text.partition(": ")
    return Damage(path, "changed", block, FOUND_BEFORE + detail)


def _mark(store: PredictionStore, blocks: Iterable[int], found: Iterable[Damage]) -> None:
    """Replace the record of each block by one that says what is wrong with it."""
    reasons: dict[int | None, list[str]] = defaultdict(list)
    for damage in found:
        if not damage.detail.startswith(FOUND_BEFORE):
            reasons[damage.block].append(f"{damage.path}: {damage.detail}")
    for block in blocks:
        if reasons[block]:
            store.discard([block], DAMAGED + "; ".join(reasons[block]))
