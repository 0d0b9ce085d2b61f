"""The cost forecast of a plan and the workers that it is for: values that are saved with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Annotated, Literal

from dask import system
from pydantic import Field

from ..anyk.state_machine.seats import most_lost


@dataclass(frozen=True)
class Work:
    """The work of a task or a stage.

    Parameters
    ----------
    multiply_adds
        Of convolutions and matrix products.
    touched
        Bytes of values that are read and written.
    fixed
        Bytes of weights that are read and written, however many images there are.
    """

    multiply_adds: float = 0.0
    touched: float = 0.0
    fixed: float = 0.0

    def times(self, factor: float) -> Work:
        """Return the work for ``factor`` images, or for this part of the rows."""
        return Work(self.multiply_adds * factor, self.touched * factor, self.fixed)

    def __add__(self, other: Work) -> Work:
        return Work(
            self.multiply_adds + other.multiply_adds,
            self.touched + other.touched,
            self.fixed + other.fixed,
        )


def convolution_work(multiply_adds: float, values: float, weights: float) -> Work:
    """Return the work of a convolution with ``values`` bytes of inputs and outputs.

    A convolution copies inputs, outputs and weights (``weights`` bytes) into another memory layout:
    values are touched twice, weights are read, written and read (benchmarks/operations.py).
    """
    return Work(multiply_adds, 2 * values, 3 * weights)


MEASURED_DTYPE_BYTES = 4
"""Rates are those of float32; twice the bytes take twice the time."""


@dataclass(frozen=True)
class Speeds:
    """How fast the workers of a cluster are.

    Parameters
    ----------
    multiply_adds
        Multiply-adds of a convolution per second in float32, of one task while no other runs.
    touched
        Bytes per second that an operation reads and writes; adds to the time of multiply-adds.
    task
        Seconds of a core that a task costs in addition to its work, including the scheduler's if
        it is on the machine of the workers.
    scheduler
        Seconds that a task costs the scheduler, which handles one at a time.
    fetch
        Seconds of a core for each value that is fetched from another worker, whatever its size,
        summed over sender and receiver.
    copied
        Bytes sent between workers per second of core time, of sender and receiver together.
    link
        Bytes per second between two workers while all of them send.
    hop
        Latency in seconds of a value between two workers, in addition to the time of cores.
    parallel
        How many tasks run at once, each as fast as one alone: the number of slots, or of cores if
        there are fewer.
    memory_at_rest
        Bytes of a worker process that is idle.
    source
        Where the numbers are from.
    """

    multiply_adds: float = 3e10
    touched: float = 1e10
    task: float = 1.5e-3
    scheduler: float = 7e-4
    fetch: float = 1e-3
    copied: float = 1e9
    link: float = 5e8
    hop: float = 3e-3
    parallel: float = 6.0
    memory_at_rest: float = 3.5e8
    source: Literal["default", "measured"] = "default"

    def seconds(self, work: Work, itemsize: int) -> float:
        """Return the seconds that work takes on a core while no other task runs."""
        slower = itemsize / MEASURED_DTYPE_BYTES
        moved = work.touched + work.fixed
        return slower * work.multiply_adds / self.multiply_adds + moved / self.touched

    def fetching(self, values: int, size: float) -> float:
        """Return the seconds of a core for fetching ``values`` values of ``size`` bytes in all."""
        return values * self.fetch + size / self.copied

    def travelling(self, size: float) -> float:
        """Return the seconds that values of ``size`` bytes are on the link between two workers."""
        return self.hop + size / self.link


DEFAULTS = Speeds()
"""One core of a server, and a network of ten gigabits per second of which Dask uses half."""


def on_this_machine(tasks_at_a_time: int) -> Speeds:
    """Return the defaults for workers that all share the cores of this process."""
    return replace(DEFAULTS, parallel=float(min(tasks_at_a_time, system.CPU_COUNT)))


@dataclass(frozen=True)
class WorkerPool:
    """The workers that a plan is for.

    Parameters
    ----------
    count
        How many.
    slots
        Tasks that each runs at a time.
    hosts
        Machines that they are on.
    memory
        Bytes that each may use; None if that is unknown.
    in_one_process
        Whether they are threads of one process and share its memory.
    """

    count: Annotated[int, Field(ge=1)]
    slots: Annotated[int, Field(ge=1)] = 1
    hosts: Annotated[int, Field(ge=1)] = 1
    memory: int | None = None
    in_one_process: bool = False

    def lost(self, shares: int, tolerate: int) -> int:
        """Return how many workers may be lost if a group has ``shares`` shares.

        >>> [WorkerPool(count).lost(6, 2) for count in (12, 6, 5, 3, 2)]
        [2, 2, 1, 1, 0]
        """
        return most_lost(self.count, shares, tolerate)

    def hosts_lost(self, shares: int, tolerate: int) -> int:
        """Return how many machines may be lost: none where all workers are on one."""
        return most_lost(self.hosts, shares, tolerate) if self.hosts > 1 else 0


@dataclass(frozen=True)
class LayerForecast:
    """What one convolution costs in a block on a healthy cluster.

    Parameters
    ----------
    layer
        Its number.
    multiply_adds
        Of the shares that start, or of the convolution where it is not coded.
    bytes_sent
        Bytes that its tasks fetch from other workers.
    memory
        Bytes of its largest task: its result, and its workspace.
    condition
        The worst condition number that a tolerated loss leaves; None where nothing is coded.
    """

    layer: int
    multiply_adds: float
    bytes_sent: float
    memory: float
    condition: float | None = None


@dataclass(frozen=True)
class Forecast:
    """What a plan costs on some workers, by the model of :mod:`fcdcc.pipeline.planner.cost`.

    Parameters
    ----------
    workers
        The workers.
    speeds
        Their speeds.
    images
        How many images there are; None if that is unknown.
    ends
        Seconds after which the first blocks are done, one after the other.
    block_seconds
        Seconds for each block after these.
    block_bytes
        Bytes that go from worker to worker for a block, without those of stored images.
    block_multiply_adds
        Of a block: all shares that start, and what is not coded.
    extra_work
        (multiply-adds of the plan − uncoded) / uncoded.
    peak_memory
        Bytes of the process of the worker that needs most.
    plain_seconds
        Seconds that plain data-parallel inference takes for the images of a plan on the same
        workers; for as many blocks as there are workers if their number is unknown.
    tasks
        Tasks of a block.
    layers
        Each convolution.
    bands
        Number of blocks that hold the same images, each for another band of rows.
    parity_memory
        Bytes that a worker needs in addition while it computes a share of parity on standby,
        which it does when another share is late or lost.
    read_bytes
        Bytes of stored images that go from worker to worker for a block, since one task reads a
        chunk for all parts of blocks that need it; 0 in plans of older versions, and where it is
        not known how images are stored.
    """

    workers: WorkerPool
    speeds: Speeds
    images: Annotated[int, Field(ge=1, lt=2**63)] | None
    ends: Annotated[tuple[float, ...], Field(min_length=1)]
    block_seconds: float
    block_bytes: float
    block_multiply_adds: float
    extra_work: float
    peak_memory: float
    plain_seconds: float
    tasks: int
    layers: tuple[LayerForecast, ...]
    bands: Annotated[int, Field(ge=1, lt=2**31)] = 1
    parity_memory: float = 0.0
    read_bytes: float = 0.0

    @property
    def bytes_sent(self) -> float:
        """All bytes that go from worker to worker for a block."""
        return self.block_bytes + self.read_bytes

    def blocks(self, images: int, batch: int) -> int:
        """Return the number of blocks of a run over ``images`` images."""
        return -(-images // batch) * self.bands

    def seconds(self, blocks: float) -> float:
        """Return the seconds for a number of blocks; a fraction is a smaller last block.

        >>> made = Forecast(WorkerPool(2), Speeds(), None, (2.0, 2.5), 1.0, 0, 0, 0, 0, 0, 0, ())
        >>> made.seconds(0), made.seconds(1), made.seconds(4), made.seconds(3.5)
        (0.0, 2.0, 4.5, 4.0)
        """
        if blocks <= len(self.ends):
            return self.ends[ceil(blocks) - 1] if blocks else 0.0
        return self.ends[-1] + (blocks - len(self.ends)) * self.block_seconds

    def seconds_of(self, images: int, batch: int) -> float:
        """Return the seconds for ``images`` images in blocks of ``batch``."""
        return self.seconds(images / batch * self.bands)


MIN_ROUNDS = 2
"""A forecast is rough for fewer blocks than so many for each block in flight: how long those take
depends on how the first and the last blocks share the cores."""


@dataclass(frozen=True)
class RunForecast:
    """What a plan costs for the blocks that one run computes.

    Parameters
    ----------
    forecast
        Of these blocks, by the model of :mod:`fcdcc.pipeline.planner.cost`.
    blocks
        Their number.
    work_in_blocks
        Their work, in that of the largest: a block with half the images counts half.
    in_flight
        How many are computed at a time.
    read_bytes
        Bytes of stored images that go from worker to worker for all of them.

    Examples
    --------
    >>> made = Forecast(WorkerPool(2), Speeds(), 9, (2.0, 2.5), 1.0, 100, 0, 0.1, 500, 3.0, 9, ())
    >>> RunForecast(made, blocks=2, work_in_blocks=1.5, in_flight=2, read_bytes=30.0).seconds
    2.5
    >>> RunForecast(made, blocks=5, work_in_blocks=4.5, in_flight=2, read_bytes=30.0).seconds
    5.0
    """

    forecast: Forecast
    blocks: int
    work_in_blocks: float
    in_flight: int
    read_bytes: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds for all blocks."""
        made = self.forecast
        if self.blocks <= len(made.ends):
            return made.ends[self.blocks - 1]
        return made.ends[-1] + max(0.0, self.work_in_blocks - len(made.ends)) * made.block_seconds

    @property
    def bytes_sent(self) -> float:
        """Bytes that go from worker to worker for all blocks."""
        made = self.forecast
        blocks = self.blocks if self.blocks <= len(made.ends) else self.work_in_blocks
        return made.block_bytes * blocks + self.read_bytes

    def is_rough(self, done: int) -> bool:
        """Return whether ``done`` blocks are too few for their time to be known well."""
        return done < MIN_ROUNDS * self.in_flight

    def expected(self, done: int) -> dict[str, float]:
        """Return what is expected of the ``done`` blocks that a run made, as its summary has it."""
        part, made = done / self.blocks, self.forecast
        return {
            "seconds": round(self.seconds * part, 3),
            "plain_seconds": round(made.plain_seconds * part, 3),
            "is_rough": self.is_rough(done),
            "bytes_sent": round(self.bytes_sent * part),
            "extra_work": round(made.extra_work, 6),
            "peak_memory": round(made.peak_memory),
            "parity_memory": round(made.parity_memory),
        }
