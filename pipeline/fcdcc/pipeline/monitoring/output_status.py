"""What an output holds: which blocks are done, and whether they still are what was written."""

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
    hold,
    open_predictions,
    salvage_predictions,
    verify,
)
from fcdcc.storage.errors import LockedError

from .summary import BlockFailure

MARK = "damaged: "
"""How the reason of a block begins that was done and is to be done again."""


@dataclass(frozen=True)
class OutputStatus:
    """Which blocks of an output are done.

    Parameters
    ----------
    status
        ``complete`` if every block has a prediction, else ``incomplete``.
    images, images_done
        In the output; of which all blocks are done.
    blocks_total, blocks_done, blocks_missing
        All; done; not tried, or tried without a trace.
    blocks_failed
        Tried in vain, or found damaged.
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
    failures: tuple[BlockFailure, ...]
    unreadable_records: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the status as plain values; ``images_total`` goes with ``blocks_total``."""
        return {**asdict(self), "images_total": self.images}


@dataclass(frozen=True)
class Verification:
    """What was found when an output was read again.

    Parameters
    ----------
    damage
        Each thing that is wrong.
    blocks
        Blocks that the next run does again because of it, ascending.
    marked
        Whether that is recorded: not where the output cannot be written.
    """

    damage: tuple[Damage, ...]
    blocks: tuple[int, ...]
    marked: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the verification as plain values."""
        return {"status": "damaged" if self.damage else "whole", **asdict(self)}


def read_status(output: str) -> OutputStatus:
    """Return which blocks of an output are done, by its records; no data is read.

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
        failures=tuple(BlockFailure(*item) for item in sorted(progress.failed.items())),
        unreadable_records=dict(progress.unreadable),
    )


def verify_output(output: str) -> Verification:
    """Read all of an output again, and have the next run do the damaged blocks again.

    Their records are replaced by ones that say what is wrong; no data is deleted. Blocks that
    an earlier verification has marked are reported until they are repaired. An output that
    cannot be written is only read.

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
    found = verify(output)
    try:
        store = _store_of(output, found)
    except DamageError:  # it no longer says of which run it is
        return Verification(tuple(found), (), marked=False)
    found += _marked_before(store.progress(), found)
    blocks = [block for block in damaged_blocks(found) if block < store.layout.blocks]
    if mark:
        _mark(store, blocks, found)
    return Verification(tuple(found), tuple(blocks), mark)


def _store_of(output: str, found: Iterable[Damage]) -> PredictionStore:
    """Return the output, with the blocks that damage was found in, if it does not say how many."""
    try:
        return open_predictions(output)
    except DamageError:
        return salvage_predictions(output, max(damaged_blocks(found), default=-1) + 1)


def _marked_before(progress: Progress, found: Iterable[Damage]) -> list[Damage]:
    """Return what an earlier verification found and no run has repaired."""
    seen = {damage.block for damage in found}
    return [
        Damage(f"block {block}", "changed", block, f"found before: {reason.removeprefix(MARK)}")
        for block, reason in sorted(progress.failed.items())
        if reason.startswith(MARK) and block not in seen
    ]


def _mark(store: PredictionStore, blocks: Iterable[int], found: Iterable[Damage]) -> None:
    """Record what is wrong with each block, in place of what was recorded of it."""
    reasons: dict[int | None, list[str]] = defaultdict(list)
    for damage in found:
        if not damage.detail.startswith("found before: "):
            reasons[damage.block].append(f"{damage.path}: {damage.detail}")
    for block in blocks:
        if reasons[block]:
            store.discard([block], MARK + "; ".join(reasons[block]))
