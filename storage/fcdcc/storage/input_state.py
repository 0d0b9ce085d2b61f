"""What the images of a job are now, and which blocks were made from something else.

A change is looked for in three places, from the cheapest to the surest: the image ids, what the
store says of its chunks, and the pixels. Pixels are read where that costs little and the store says
too little or too much: images that are appended change the last chunk of the array, which others
share. Small inputs are read whole.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .block_inputs import CHECKSUM_BYTES, DIGEST_BYTES, MAX_CHECKSUMS, BlockInput, RecordedInputs
from .checksummed_json import canonical
from .chunk_listing import ChunkListing, Tells
from .errors import InputError
from .layout import BlockLayout
from .locations import is_local
from .sources import ImageSource, opened

__all__ = ["Change", "Comparison", "InputState", "is_small"]

Change = Literal["ids", "images"]
"""What differs from what a block was made from."""

MAX_SMALL_BYTES = 64 * 2**20
"""Largest input, in bytes before compression, of which all pixels are read."""

MAX_SMALL_CHUNKS = 1000
"""Most chunks of such an input."""

MAX_HELD_BYTES = 128 * 2**20
"""Most pixels that are read at a time to compute digests, in bytes."""

MAX_LAST_CHUNK_BYTES = 128 * 2**20
"""Largest last chunk of which the pixels are read, so that images can be appended to it."""


@dataclass(frozen=True)
class Comparison:
    """Which blocks were made from what the images are now.

    Parameters
    ----------
    changed
        What differs, for blocks that were made from something else.
    changed_images
        The images that differ, for those of these blocks of which that is known.
    renewed
        Blocks that were made from the same pixels, which were written anew: what their records
        should say, so that these pixels are not read again the next time.
    unknown
        Blocks whose records do not say what they were made from.
    unread
        Blocks of which only the image ids could be compared: the store does not list its chunks,
        and the pixels were not read, when they were made or now.
    """

    changed: dict[int, Change] = field(default_factory=dict)
    changed_images: dict[int, tuple[int, ...]] = field(default_factory=dict)
    renewed: dict[int, BlockInput] = field(default_factory=dict)
    unknown: tuple[int, ...] = ()
    unread: tuple[int, ...] = ()


class InputState:
    """The images of a source as they are now: their ids, their chunks and, if need be, pixels.

    It has to be made before any image is read for a prediction: what changes later differs then
    from what is recorded, and is noticed by the next run.

    Parameters
    ----------
    source
        The images, or their tiles; then it is the images that are looked at.
    listing
        What their store says of its chunks; None if it does not list them.
    contents
        Whether all pixels are read and compared.

    Raises
    ------
    InputError
        If the image ids cannot be read.
    """

    def __init__(
        self, source: ImageSource, listing: ChunkListing | None, *, contents: bool = False
    ) -> None:
        self.source = source
        self.listing = listing
        tells = Tells.NOTHING if listing is None else listing.tells
        says_nothing = tells is Tells.NOTHING
        # Where a store far away tells ETags, no pixels need to be fetched.
        is_far = tells is Tells.CONTENTS and not is_local(source.url)
        whole = source.whole
        self._is_small = is_small(whole) and not is_far
        self.compares_pixels = contents or (self._is_small and says_nothing)
        """Whether all pixels are compared, not only those of chunks that were written again."""
        self.ids = whole.read_ids(0, whole.images)
        """The ids of all images; None if they have none."""
        self._pixels = _PixelDigests(whole)
        self._last_chunk = _start_of_last_chunk(whole)

    def block_input(self, start: int, stop: int, rows: tuple[int, int] | None = None) -> BlockInput:
        """Return what a block of images start … stop − 1, or of some of their rows, is made from.

        Pixels are read if the input is small or all are to be compared, if a chunk is so new that
        its time does not tell, or if the block needs the last chunk of the array while that is not
        full.
        """
        region = start, stop, rows = self.source.stored_region(start, stop, rows)
        chunks, fresh = b"", False
        if self.listing is not None:
            chunks, fresh = self.listing.digest(region), self.listing.is_fresh(region)
        pixels = each = b""
        if self._is_small or self.compares_pixels or fresh or stop > self._last_chunk:
            pixels = self._pixels.digest(start, stop, rows) or b""
            each = self._pixels.checksums(start, stop) if pixels and rows is None else b""
        return BlockInput(self._ids_digest(start, stop), chunks, pixels, fresh, rows, each)

    def compare(
        self,
        recorded: RecordedInputs,
        layout: BlockLayout,
        blocks: Iterable[int],
        grown: Mapping[int, int],
        stored_ids: NDArray[Any] | None = None,
    ) -> Comparison:
        """Compare the images with those that blocks were made from.

        Parameters
        ----------
        recorded
            What the records say.
        layout
            The blocks as they are now.
        blocks
            The blocks to compare, without those in ``grown``.
        grown
            Blocks that were made with fewer images than they have now: the image after their last.
            Of these only the ids are compared.
        stored_ids
            The ids in the output, for records without digests; None if there are none.
        """
        found = Comparison()
        unknown: list[int] = []
        unread: list[int] = []
        for block in sorted((*blocks, *grown)):
            start, stop = layout.bounds(block)
            start, stop, _ = self.source.stored_region(start, grown.get(block, stop))
            known = recorded.get(block)
            if known is None:
                unknown.append(block)
                if self._differ(stored_ids, start, stop):
                    found.changed[block] = "ids"
                continue
            ids = self._ids_digest(start, stop)
            if known.ids and ids and known.ids != ids:
                found.changed[block] = "ids"
            elif block not in grown and not self._compare_images(
                block, known, ids, (start, stop), found
            ):
                unread.append(block)
        return replace(found, unknown=tuple(unknown), unread=tuple(unread))

    def _compare_images(
        self,
        block: int,
        known: BlockInput,
        ids: bytes,
        images: tuple[int, int],
        result: Comparison,
    ) -> bool:
        """Compare the chunks and the pixels of one block, and add to the result what differs.

        Return whether that was possible.
        """
        region = (*images, known.rows)
        now = b"" if self.listing is None else self.listing.digest(region)
        can_tell = bool(known.chunks and now)
        is_same = can_tell and known.chunks == now
        if is_same and not known.fresh and not (self.compares_pixels and known.pixels):
            return True
        if not known.pixels or not (can_tell or self.compares_pixels):
            if can_tell and not is_same:
                result.changed[block] = "images"
            return can_tell
        pixels = self._pixels.digest(*region)
        if pixels != known.pixels and not (pixels is None and is_same):
            result.changed[block] = "images"
            each = self._pixels.checksums(*images) if pixels and known.each else b""
            if each:
                result.changed_images[block] = _differing(known.each, each, images[0])
        elif now:
            fresh = self.listing is not None and self.listing.is_fresh(region)
            found = replace(known, ids=ids, chunks=now, fresh=fresh)
            if found != known:
                result.renewed[block] = found
        return True

    def _ids_digest(self, start: int, stop: int) -> bytes:
        """Return the digest of some image ids; empty if the images have none."""
        if self.ids is None:
            return b""
        return hashlib.sha256(_as_bytes(self.ids[start:stop])).digest()[:DIGEST_BYTES]

    def _differ(self, stored_ids: NDArray[Any] | None, start: int, stop: int) -> bool:
        """Return whether images have other ids than those in the output."""
        if stored_ids is None or self.ids is None or len(stored_ids) < stop:
            return False
        return _as_bytes(stored_ids[start:stop]) != _as_bytes(self.ids[start:stop])


def _differing(before: bytes, now: bytes, first: int) -> tuple[int, ...]:
    """Return the images whose checksums differ; ``first`` is the number of the first image."""
    both = (np.frombuffer(sums, f"V{CHECKSUM_BYTES}") for sums in (before, now))
    images = zip(*both, strict=False)
    return tuple(first + place for place, (old, new) in enumerate(images) if old != new)


def _as_bytes(values: NDArray[Any]) -> bytes:
    """Return bytes that differ for different labels."""
    if values.dtype.kind in "iub":
        return values.astype("<i8").tobytes()
    if values.dtype.kind == "f":
        return values.astype("<f8").tobytes()
    if values.dtype.kind in "mM":
        return values.dtype.str.encode() + values.astype("<i8").tobytes()
    texts: Any = values.tolist()
    if values.dtype.kind not in "TU":
        texts = [str(value) for value in texts]
    return canonical(texts).encode()


def is_small(source: ImageSource) -> bool:
    """Return whether all images of a source can be read in no time."""
    if source.images * source.image_bytes > MAX_SMALL_BYTES:
        return False
    chunks = 0
    for number in source.parts_read:
        array = opened(source, number)
        grid = zip(array.shape, array.shards or array.chunks, strict=True)
        chunks += math.prod(-(-size // chunk) for size, chunk in grid)
    return chunks <= MAX_SMALL_CHUNKS


def _start_of_last_chunk(source: ImageSource) -> int:
    """Return the first image of the last chunk, if images that are appended would change it.

    Returned is the number of images if that chunk is full, or too large to read it for this.
    """
    number = source.parts_read[0]
    array, axis = opened(source, number), source.parts[number].axes.order[0]
    if axis is None:
        return source.images
    length = int((array.shards or array.chunks)[axis])
    start = array.shape[axis] // length * length
    too_large = (source.images - start) * source.image_bytes > MAX_LAST_CHUNK_BYTES
    return source.images if start >= source.images or too_large else start


class _PixelDigests:
    """Computes digests of pixels, which do not depend on the chunks in which they are stored.

    Images that were read with those of the last block are kept for the next.
    """

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self._head = f"{source.dtype} {source.image_shape} ".encode()
        self._start = 0
        self._held: NDArray[np.generic] = np.empty(0)

    def digest(self, start: int, stop: int, rows: tuple[int, int] | None) -> bytes | None:
        """Return the digest of some images, or of some of their rows; None if they cannot be read.

        The images start … stop − 1 follow each other; of each, the channels follow each other.
        """
        found = hashlib.sha256(self._head)
        try:
            if rows is None and self._source.image_bytes <= MAX_HELD_BYTES:
                place = start
                while place < stop:
                    part = self._images_from(place, stop)
                    found.update(part.data)
                    place += len(part)
            else:
                self._add_rows(found, start, stop, rows or (0, self._source.shape[2]))
        except InputError:
            return None
        return found.digest()[:DIGEST_BYTES]

    def checksums(self, start: int, stop: int) -> bytes:
        """Return the checksum of each of some images; empty if they are too many or too large."""
        size = (stop - start) * self._source.image_bytes
        if stop - start > MAX_CHECKSUMS or size > MAX_HELD_BYTES:
            return b""
        try:
            images = self._images_from(start, stop)
        except InputError:
            return b""
        if len(images) < stop - start:
            return b""
        return b"".join(zlib.crc32(image.data).to_bytes(CHECKSUM_BYTES) for image in images)

    def _images_from(self, place: int, stop: int) -> NDArray[np.generic]:
        """Return images from one on, at least one and at most up to ``stop``."""
        source = self._source
        if not self._start <= place < self._start + len(self._held):
            most = MAX_HELD_BYTES // source.image_bytes
            chunk = source.image_chunk
            first = place // chunk * chunk
            last = min(-(-stop // chunk) * chunk, source.images)
            if last - first > most:  # whole chunks are too many
                first, last = place, min(stop, place + most)
            self._held = source.read(first, last)
            self._start = first
        return self._held[place - self._start : stop - self._start]

    def _add_rows(self, found: Any, start: int, stop: int, rows: tuple[int, int]) -> None:
        """Add rows of images to a hash, in pieces that depend on the shape of images only."""
        source = self._source
        size = max(1, MAX_HELD_BYTES * source.shape[2] // source.image_bytes)
        for image in range(start, stop):
            for row in range(*rows, size):
                read = source.read_rows(image, image + 1, row, min(row + size, rows[1]))
                found.update(read.data)
