"""How the images of a job are stored, as far as reading them depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fcdcc.storage import ImageSource

MAX_SHARED_CHUNK_BYTES = 512 * 2**20
"""The largest chunk, before compression, that one task reads for several parts of blocks."""

MAX_SHARED_MEMORY_PART = 0.125
"""Part of a worker's memory that such a chunk may take."""

MAX_IMAGES_COUNTED = 20_000
"""Images from the first on for which it is counted what is sent; the others are like them."""

NOTED_READS = 1.1
"""How often a chunk is unpacked on average, from which on a plan warns."""


@dataclass(frozen=True)
class StoredChunks:
    """The chunks of stored images along their first axis.

    Parameters
    ----------
    images
        Images of a chunk.
    image_bytes
        Bytes of an image, before compression.
    total
        Number of images.
    shared
        Whether a chunk that several parts need is read once, by a task of its own.
    """

    images: int
    image_bytes: int
    total: int
    shared: bool = True

    @classmethod
    def of(cls, source: ImageSource, memory: float | None) -> StoredChunks:
        """Return the chunks of a source, for workers with so many bytes of memory, if known."""
        most = MAX_SHARED_CHUNK_BYTES
        if memory is not None:
            most = min(most, int(MAX_SHARED_MEMORY_PART * memory))
        images = min(source.image_chunk, source.shape[0])
        fits = images * source.image_bytes <= most
        return cls(images, source.image_bytes, source.images, fits)

    def reads(self, batch: int, part_images: int) -> float:
        """Return how often a chunk is unpacked on average, by the parts of blocks.

        >>> StoredChunks(10, 1, 40, shared=False).reads(batch=4, part_images=2)
        5.0
        >>> StoredChunks(10, 1, 40).reads(batch=4, part_images=2)
        1.0
        """
        if self.shared or self.images == 1:
            return 1.0
        total = min(self.total, self.images * batch)  # afterwards it repeats
        unpacked = 0
        for start in range(0, total, batch):
            stop = min(start + batch, total)
            for first in range(start, stop, part_images):
                last = min(first + part_images, stop)
                unpacked += (last - 1) // self.images - first // self.images + 1
        return unpacked / -(-total // self.images)

    def bytes_sent(self, batch: int, part_images: int, workers: int) -> float:
        """Return the bytes that go from worker to worker for a block, on average.

        A chunk that several parts need is read on the worker of the first of them, and the others
        get their images from there. Part p of block b is taken to be on worker p + b, modulo their
        number.

        >>> StoredChunks(10, 1, 40).bytes_sent(batch=10, part_images=5, workers=2)
        5.0
        >>> StoredChunks(5, 1, 40).bytes_sent(batch=10, part_images=5, workers=2)
        0.0
        """
        total = min(self.total, self.images * batch, MAX_IMAGES_COUNTED)
        blocks = ((start, min(start + batch, total)) for start in range(0, total, batch))
        sent = self.bytes_sent_to(blocks, batch, part_images, workers, lambda _: part_images)
        return sent * batch / max(total, 1)

    def bytes_sent_to(
        self,
        blocks: Iterable[tuple[int, int]],
        batch: int,
        part_images: int,
        workers: int,
        part_images_of: Callable[[int], int],
    ) -> float:
        """Return the bytes that go from worker to worker for these blocks, as :meth:`bytes_sent`.

        Parameters
        ----------
        blocks
            The images of each, first and last + 1.
        batch, part_images
            Images of a full block, and of each of its parts.
        workers
            Their number.
        part_images_of
            Returns how many images a part has of a block of so many images.

        Examples
        --------
        >>> chunks = StoredChunks(10, 1, 24)
        >>> chunks.bytes_sent_to([(0, 10), (20, 24)], 10, 5, 2, lambda images: images // 2)
        7.0
        """
        sent = 0
        for first, stop in blocks if self.shared and workers > 1 else ():
            part = part_images_of(stop - first)
            for start in range(first, stop, part):
                seat = first // batch + (start - first) // part
                for low, high in self.cut_from(start, min(start + part, stop)):
                    begin = self.bounds(low)[0]
                    read_at = begin // batch + begin % batch // part_images
                    sent += (high - low) * ((seat - read_at) % workers != 0)
        return float(sent * self.image_bytes)

    def bounds(self, image: int) -> tuple[int, int]:
        """Return (start, stop): the images of the chunk that holds one."""
        start = image // self.images * self.images
        return start, min(start + self.images, self.total)

    def whole_chunks(self, first: int, last: int) -> tuple[int, int]:
        """Return (start, stop) of the images of a part that the part reads itself.

        These are all of its images, if chunks are not shared; else those of the chunks that lie
        in the part as a whole.

        >>> StoredChunks(10, 1, 100).whole_chunks(5, 33)
        (10, 30)
        >>> StoredChunks(10, 1, 100).whole_chunks(5, 8)
        (8, 8)
        """
        if not self.shared:
            return first, last
        start = -(-first // self.images) * self.images
        stop = last if last >= self.total else last // self.images * self.images
        return (start, stop) if start < stop else (last, last)

    def cut_from(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of a part's images in each chunk that other parts need, too.

        >>> list(StoredChunks(10, 1, 100).cut_from(5, 33))
        [(5, 10), (30, 33)]
        >>> list(StoredChunks(10, 1, 100).cut_from(5, 8))
        [(5, 8)]
        """
        start, stop = self.whole_chunks(first, last)
        place = first
        while place < last:
            if place == start < stop:
                place = stop
                continue
            end = min(self.bounds(place)[1], last)
            yield place, end
            place = end
