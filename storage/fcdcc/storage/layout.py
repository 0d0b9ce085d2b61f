"""The arithmetic of blocks: which images, rows and chunks belong to which block.

Block b holds the images b·batch … (b+1)·batch − 1; the last may be shorter. Chunks of the
output along n are exactly as long as blocks, so that a chunk belongs to one block.

Predictions that are too large for one block are cut along their rows, too: a block is then a
*band*, a run of rows of a run of images. The bands of the first images come first, from top to
bottom; chunks along the rows are then exactly as long as bands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import OutputError

__all__ = ["CHUNK_LIMIT", "MAX_BLOCKS", "BlockLayout", "chunk_shape"]

CHUNK_LIMIT = 128 * 2**20
"""Largest chunk in bytes before compression, unless one row of one block is larger."""

MAX_BLOCKS = 2**24
"""Most blocks of an output: a run and its reports keep a few dozen bytes for each in memory."""


@dataclass(frozen=True)
class BlockLayout:
    """So many images in blocks of ``batch``, cut into bands where ``band`` is given.

    Parameters
    ----------
    images, batch
        Number of images; images per block.
    rows, band
        Rows of a prediction; rows per block. None if blocks hold whole images.

    Examples
    --------
    >>> layout = BlockLayout(images=10, batch=4)
    >>> layout.blocks, layout.bounds(2)
    (3, (8, 10))
    >>> layout = BlockLayout(images=2, batch=1, rows=100, band=40)
    >>> layout.blocks, layout.bounds(5), layout.rows_of(5)
    (6, (1, 2), (80, 100))
    """

    images: int
    batch: int
    rows: int | None = None
    band: int | None = None

    def __post_init__(self) -> None:
        if self.images < 0 or self.batch < 1:
            raise OutputError(
                f"{self.images} images in blocks of {self.batch}; expected no fewer than 0 "
                "images and at least 1 per block"
            )
        cut = (self.rows, self.band)
        if cut != (None, None) and (None in cut or min(size or 0 for size in cut) < 1):
            raise OutputError(
                f"{self.rows} rows in bands of {self.band}; expected both to be 1 or more, or None"
            )
        if self.blocks > MAX_BLOCKS:
            raise OutputError(
                f"{self.images} images in blocks of {self.batch} are {self.blocks} blocks; "
                f"expected at most {MAX_BLOCKS}: take a larger --batch, or a smaller --limit"
            )

    @property
    def bands(self) -> int:
        """Bands of one image: 1 if blocks hold whole images."""
        if self.rows is None or self.band is None:
            return 1
        return -(-self.rows // self.band)

    @property
    def blocks(self) -> int:
        """Number of blocks, the partial last one included."""
        return -(-self.images // self.batch) * self.bands

    def bounds(self, block: int) -> tuple[int, int]:
        """Return (start, stop): the images of one block.

        Raises
        ------
        OutputError
            If there is no such block.
        """
        start = block // self.bands * self.batch
        if not 0 <= start < self.images:
            raise OutputError(f"block {block} of an output with blocks 0 to {self.blocks - 1}")
        return start, min(start + self.batch, self.images)

    def sizes(self, blocks: Sequence[int]) -> NDArray[np.int64]:
        """Return how many images each of some blocks has.

        >>> BlockLayout(images=10, batch=4).sizes([0, 2]).tolist()
        [4, 2]
        """
        starts = np.asarray(blocks, np.int64) // self.bands * self.batch
        return np.minimum(self.batch, self.images - starts)

    def rows_of(self, block: int) -> tuple[int, int] | None:
        """Return (start, stop): the rows of one block; None if it holds whole images."""
        if self.rows is None or self.band is None:
            return None
        start = block % self.bands * self.band
        return start, min(start + self.band, self.rows)

    def block_of(self, image: int) -> int:
        """Return the block that holds an image, the first one if it is cut into bands."""
        return image // self.batch * self.bands

    def beside(self, block: int) -> range:
        """Return the blocks that hold the same images as one block, itself included."""
        first = block // self.bands * self.bands
        return range(first, first + self.bands)

    def images_in(self, done: NDArray[np.bool_]) -> int:
        """Return how many images are completely done, given which blocks are, (blocks,) bool."""
        runs = np.flatnonzero(done.reshape(-1, self.bands).all(axis=1))
        short = self.blocks // self.bands * self.batch - self.images
        last = bool(len(runs)) and int(runs[-1]) == self.blocks // self.bands - 1
        return len(runs) * self.batch - (short if last else 0)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over (start, stop) of all blocks."""
        return (self.bounds(block) for block in range(self.blocks))


def chunk_shape(
    batch: int, shape: tuple[int, ...], itemsize: int, kept: int | None = None
) -> tuple[int, ...]:
    """Return the chunk shape (batch, …) for predictions of ``shape`` per image.

    A block is one chunk unless that would exceed :data:`CHUNK_LIMIT`; then the leading axes of
    the prediction are split, except the axis ``kept``.

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
        if axis == kept:
            continue
        chunks[axis] = max(1, CHUNK_LIMIT // max(rest, 1))
    return (batch, *chunks)
