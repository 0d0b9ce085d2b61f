"""Which blocks of an output are done, according to its records and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .block_inputs import INPUT, BlockInput, RecordedInputs
from .checksummed_json import Json
from .chunks import OutputArray
from .files import Folder
from .layout import BlockLayout
from .records import ABSENT, BlockRecord, read_records

__all__ = ["Progress", "read_progress"]


@dataclass(frozen=True, eq=False)
class Progress:
    """Which blocks are done.

    Parameters
    ----------
    done
        (blocks,) bool.
    failed
        Reasons why blocks failed, by block.
    grown
        Blocks that were done with fewer images than they have now: the image after the last.
    shorter
        Blocks that were done with more images than they have now.
    unreadable
        Damaged records: what is wrong with each, by file name (and line).
    provisional
        Blocks that are done, and for which some chunks of the images were not stored: what their
        records say of these.
    inputs
        What the blocks that are done, or were done with fewer images, were made from.
    """

    done: NDArray[np.bool_]
    failed: Mapping[int, str]
    grown: Mapping[int, int]
    unreadable: Mapping[str, str]
    provisional: Mapping[int, Json] = field(default_factory=dict)
    inputs: RecordedInputs = field(default_factory=lambda: RecordedInputs(0))
    shorter: frozenset[int] = frozenset()

    @property
    def pending(self) -> list[int]:
        """Blocks that are not done, failed ones included, ascending."""
        return [int(block) for block in np.flatnonzero(~self.done)]

    @property
    def complete(self) -> bool:
        """Whether every block is done."""
        return bool(self.done.all())


def read_progress(
    folder: Folder, layout: BlockLayout, fingerprint: str, arrays: Sequence[OutputArray]
) -> Progress:
    """Return which blocks are done: those with a valid record and chunks of the recorded sizes.

    A record is valid if it is undamaged, has this fingerprint, names as many chunks as a block
    has, and is of exactly the images that the block has now.
    """
    sizes: dict[str, int] = {}
    for array in arrays:
        sizes |= folder.sizes(array.name)
    chunks = sum(array.chunks_per_block(layout.batch) for array in arrays)
    done = np.zeros(layout.blocks, dtype=np.bool_)
    failed: dict[int, str] = {}
    grown: dict[int, int] = {}
    unreadable: dict[str, str] = {}
    provisional: dict[int, Json] = {}
    shorter: set[int] = set()
    inputs = RecordedInputs(layout.blocks)
    for name, record in read_records(folder):
        if not isinstance(record, BlockRecord):
            unreadable[name] = str(record)
            continue
        block = record.block
        failed.pop(block, None)
        grown.pop(block, None)
        provisional.pop(block, None)
        shorter.discard(block)
        if not 0 <= block < layout.blocks:
            continue
        if done[block] or inputs.known[block]:  # by an older record
            done[block] = False
            inputs.note(block, None)
        start, stop = layout.bounds(block)
        if record.fingerprint != fingerprint or record.start != start:
            continue
        if record.stop > stop:
            if record.state == "done":
                shorter.add(block)
            continue
        if record.state == "failed":
            failed[block] = record.reason
        elif len(record.chunks) == chunks and all(
            sizes.get(name) == chunk.size for name, chunk in record.chunks.items()
        ):
            done[block] = record.stop == stop
            inputs.note(block, BlockInput.from_json(record.details.get(INPUT)))
            if record.stop < stop:
                grown[block] = record.stop
            elif record.details.get(ABSENT):
                provisional[block] = record.details[ABSENT]
    return Progress(done, failed, grown, unreadable, provisional, inputs, frozenset(shorter))
