"""The state of an output: which blocks are done, and whether they are still as written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fcdcc.storage import (
    Damage,
    DamageError,
    OutputError,
    PredictionStore,
    Progress,
    damaged_blocks,
    find_foreign_files,
    hold,
    open_predictions,
    salvage_predictions,
    verify,
)
from fcdcc.storage.errors import LockedError

from .summary import BlockFailure

DAMAGED = "damaged: "
"""How the reason begins for which a block that was done must be computed again."""


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
        All of these, each with its reason.
    unreadable_records
        Records that are damaged, each with what is wrong; their blocks count as missing.
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
    """

    damage: tuple[Damage, ...]
    blocks: tuple[int, ...]
    marked: bool
    foreign: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the verification as plain values."""
        return {"status": "damaged" if self.damage else "whole", **asdict(self)}


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
    )


def verify_output(output: str) -> Verification:
    """Read all of an output again, and mark the damaged blocks for the next run.

    The records of these blocks are replaced by ones that say what is wrong; no data is deleted.
    Blocks that an earlier verification has marked are reported until they are repaired. An output
    that cannot be written is only read.

    Raises
    ------
    LockedError
        If a run is writing the output.
    OutputError
        If there is no output, or it cannot be read.
    """
    try:
        with hold(output):
            return _verify(output, mark=True)
    except LockedError:
        raise
    except OutputError:
        return _verify(output, mark=False)


def _verify(output: str, mark: bool) -> Verification:
    found, foreign = verify(output), tuple(find_foreign_files(output))
    try:
        store = _store_of(output, found)
    except DamageError:  # its layout is damaged
        return Verification(tuple(found), (), marked=False, foreign=foreign)
    found += _marked_before(store.progress(), found)
    blocks = [block for block in damaged_blocks(found) if block < store.layout.blocks]
    if mark:
        _mark(store, blocks, found)
    return Verification(tuple(found), tuple(blocks), mark, foreign)


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
        Damage(f"block {block}", "changed", block, f"found before: {reason.removeprefix(DAMAGED)}")
        for block, reason in sorted(progress.failed.items())
        if reason.startswith(DAMAGED) and block not in seen
    ]


def _mark(store: PredictionStore, blocks: Iterable[int], found: Iterable[Damage]) -> None:
    """Replace the record of each block by one that says what is wrong with it."""
    reasons: dict[int | None, list[str]] = defaultdict(list)
    for damage in found:
        if not damage.detail.startswith("found before: "):
            reasons[damage.block].append(f"{damage.path}: {damage.detail}")
    for block in blocks:
        if reasons[block]:
            store.discard([block], DAMAGED + "; ".join(reasons[block]))
