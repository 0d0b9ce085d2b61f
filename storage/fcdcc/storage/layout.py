"""The arithmetic of blocks: which images, which chunks, and what changes when images come.

Block b holds the images b·batch … (b+1)·batch − 1; the last may be shorter. Chunks of the
output along n are exactly as long as blocks, so that one block owns whole chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import OutputError

__all__ = ["CHUNK_LIMIT", "BlockLayout", "chunk_shape"]

CHUNK_LIMIT = 128 * 2**20
"""Largest chunk in bytes before compression, where the block's images allow it."""


@dataclass(frozen=True)
class BlockLayout:
    """So many images in blocks of ``batch``.

    >>> layout = BlockLayout(images=10, batch=4)
    >>> layout.blocks, layout.bounds(2)
    (3, (8, 10))
    >>> list(layout.changed_by(15))
    [2, 3]
    """

    images: int
    batch: int

    def __post_init__(self) -> None:
        if self.images < 0 or self.batch < 1:
            raise OutputError(
                f"{self.images} images in blocks of {self.batch}; expected no fewer than 0 "
                "images and at least 1 per block"
            )

    @property
    def blocks(self) -> int:
        """Number of blocks, the partial last one included."""
        return -(-self.images // self.batch)

    def bounds(self, block: int) -> tuple[int, int]:
        """Return (start, stop): the images of one block.

        Raises
        ------
        OutputError
            If there is no such block.
        """
        if not 0 <= block < self.blocks:
            raise OutputError(f"block {block} of an output with blocks 0 to {self.blocks - 1}")
        return block * self.batch, min((block + 1) * self.batch, self.images)

    def block_of(self, image: int) -> int:
        """Return the block that holds an image."""
        return image // self.batch

    def changed_by(self, images: int) -> range:
        """Return the blocks to be made when the number of images becomes ``images``.

        These are the new blocks and, where it was partial, the one that was the last.
        """
        return range(self.images // self.batch, BlockLayout(images, self.batch).blocks)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over (start, stop) of all blocks."""
        return (self.bounds(block) for block in range(self.blocks))


def chunk_shape(batch: int, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the chunk shape (batch, …) for predictions of ``shape`` per image.

    A block is one chunk unless that exceeded :data:`CHUNK_LIMIT`; then the leading axes of
    the prediction are split.

    >>> chunk_shape(32, (1000,), 4)
    (32, 1000)
    >>> chunk_shape(16, (21, 1024, 1024), 4)
    (16, 2, 1024, 1024)
    """
    chunks = list(shape)
    for axis, length in enumerate(shape):
        rest = batch * itemsize * math.prod(chunks[:axis]) * math.prod(chunks[axis + 1 :])
        if rest * length <= CHUNK_LIMIT:
            break
        chunks[axis] = max(1, CHUNK_LIMIT // max(rest, 1))
    return (batch, *chunks)
