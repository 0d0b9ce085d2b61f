"""The tasks that read a block's images from a store, so that each stored chunk is unpacked once.

An array of images is stored in chunks of several images, and a chunk is unpacked whole. Blocks and
their parts begin and end where the plan says, which may be inside a chunk. A chunk that lies in one
part alone is read by the task that needs it. A chunk that several parts need is read by a task of
its own, and its images are cut out for each of them where it is::

    chunk of images 0 … 99 ─┬─ halo, images 0 … 63  ── block 0
                            └─ halo, images 64 … 99 ─┐
                                                     ├─ block 1
    chunk of images 100 … 199 ─┬─ halo, 100 … 127   ─┘
                               └─ …

The tasks of such a chunk have the same key in the graphs of all blocks that need it. The runner
keeps its result from one block to the next (:mod:`fcdcc.pipeline.runtime.block_runner`). A worker
that holds a chunk may stop: backups of the tasks that need it read the store again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dask._task_spec import GraphNode, Task, TaskRef
from dask.typing import Key

from fcdcc.storage import ImageSource, Preparation

from ..anyk import BackedUpTask
from ..anyk.keys import INPUT_LAYER, RawKey, task_key
from ..halo import Rows
from ..plans.chunks import StoredChunks
from ..plans.plan import Plan
from ..worker.kernels import reading, row_kernels
from ..worker.kernels.task_specs import CutRows, ReadChunk, ReadImages


@dataclass
class StoreReader:
    """Makes the tasks that read the images of one block.

    Parameters
    ----------
    source, preparation
        The images, and how they are prepared.
    run, block
        Of the task keys.
    start
        The first image of the block.
    batch, part_images
        Images of a full block, and of each of its parts.
    chunks
        How the images are stored.

    Attributes
    ----------
    tasks
        The tasks that read chunks for several parts, and that cut these.
    regions
        What the tasks read: images from the first to the second number − 1, and of these some
        rows or all.
    """

    source: ImageSource | None
    preparation: Preparation | None
    run: str
    block: int
    start: int
    batch: int
    part_images: int
    chunks: StoredChunks
    tasks: dict[Key, GraphNode] = field(default_factory=dict)
    regions: set[tuple[int, int, Rows | None]] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        source: ImageSource | None,
        preparation: Preparation | None,
        run: str,
        block: int,
        start: int,
        plan: Plan,
        chunks: StoredChunks,
    ) -> StoreReader:
        """Return the reader of a block of a plan; the parameters are those of the class."""
        return cls(source, preparation, run, block, start, plan.batch, plan.part_images, chunks)

    def __call__(
        self, key: Key | None, start: int, stop: int, pad_to: int, rows: Rows | None = None
    ) -> Task:
        """Return the task for images start … stop − 1 of the block; see ``ImageReader``."""
        first, last = self.start + start, self.start + stop
        self.regions.add((first, last, rows))
        if rows is not None or first == last:
            return self._read(key, ReadImages(first, last, pad_to, rows))
        own, pieces = self.chunks.whole_chunks(first, last), list[TaskRef]()
        position = start // max(pad_to, 1)
        for low, high in self.chunks.cut_from(first, last):
            pieces.append(self._cut(position, len(pieces), low, high))
        return self._read(key, ReadImages(first, last, pad_to, None, own), *pieces)

    def kept(self, images: int) -> list[Key]:
        """Return the chunk that the next block needs, too, of a block of so many images."""
        stop = self.start + images
        begin, end = self.chunks.bounds(stop - 1)
        key = self._chunk_key(begin)
        return [key] if end > stop and key in self.tasks else []

    def _read(self, key: Key | None, spec: ReadImages, *pieces: TaskRef) -> Task:
        arguments = reading.read, self.source, self.preparation
        if not pieces:
            return Task(key, *arguments, spec)
        return BackedUpTask(
            key, *arguments, spec, *pieces, backup=Task(key, *arguments, replace(spec, own=None))
        )

    def _cut(self, position: int, number: int, low: int, high: int) -> TaskRef:
        """Return images low … high − 1, cut out of the chunk that they are in."""
        begin, end = self.chunks.bounds(low)
        chunk_key = self._chunk_key(begin)
        size = (end - begin) * self.chunks.image_bytes
        self.tasks[chunk_key] = Task(
            chunk_key, reading.read_chunk, self.source, ReadChunk(begin, end, size)
        )
        key = task_key("halo", self.run, INPUT_LAYER, self.block, 2 * position + number)
        self.tasks[key] = BackedUpTask(
            key,
            row_kernels.cut,
            CutRows(0, low - begin, high - begin),
            TaskRef(chunk_key),
            backup=Task(key, reading.read_chunk, self.source, ReadChunk(low, high, size)),
        )
        return TaskRef(key)

    def _chunk_key(self, begin: int) -> RawKey:
        """Return the key of the chunk that begins with an image, in the graphs of all blocks.

        It has the number of the chunk in place of that of a block. Its position is that of the
        first part that needs the chunk, where it is read.
        """
        position = begin % self.batch // self.part_images
        return task_key("read", self.run, INPUT_LAYER, begin // self.chunks.images, position)
