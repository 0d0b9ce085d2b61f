"""Bands: images too large to be computed at once, some rows of the prediction at a time.

A band is a run of rows of a dense prediction. The row arithmetic (:mod:`fcdcc.pipeline.halo`) finds
exactly which rows of every value it needs, back to the rows of the image that are read; rows that
two bands need are computed twice::

    image        ████████████████████████████████
    band 0       ▓▓▓▓▓▓▓▓▓▓▒▒                            ▓ rows of the prediction
    band 1               ▒▒▓▓▓▓▓▓▓▓▓▓▒▒                  ▒ further rows that its edges need
    band 2                         ▒▒▓▓▓▓▓▓▓▓▓▓

A band is a block: read, computed by strips that stay put (:mod:`fcdcc.pipeline.plans.row_layout`),
written and recorded by itself. So the memory of a worker is that of a band, however large the
image. A network with a stage that needs all rows has no bands: it takes whole images, and refuses
images that are too large for a worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from distributed import system

from fcdcc.storage import ImageSource

from ..errors import PlanError, PlanMemoryError
from ..halo import NetworkRows, Rows, ranges_for
from ..model.network import ConvStage
from ..options import JobConfig, PlanOptions
from ..plans.chunks import NOTED_READS, StoredChunks
from ..plans.plan import Plan

MAX_IMAGE_BYTES = 2 * 2**30
"""An image whose values take more than this at once is computed in bands, if it can be."""

MAX_BAND_BYTES = 2 * 2**30
"""Memory of a worker that bands may use, unless ``--memory`` is given."""

BAND_COPIES = 5
"""Copies of a band's values that a worker may hold at once, measured with parity that always runs:
values that it received, values that it joins and computes, and copies in other memory layouts
inside convolutions. Without redundancy it holds strips of them only."""

PROCESS_BYTES = 400 * 2**20
"""Memory of an idle worker process: Python, PyTorch, Dask."""

REPEATED_WORK_WARNING = 0.25
"""Part of the work that is done twice, for the edges of bands, above which the plan warns."""

BANDS_IN_FLIGHT = 2
"""Bands worked on at a time: one is computed while another is read or written."""


@dataclass(frozen=True)
class Bands:
    """The bands of an image.

    Parameters
    ----------
    band
        Rows of the prediction in a block; None where blocks hold whole images.
    work_part
        Multiply-adds of a block divided by those of its whole images. Rows at the edges of a
        band are computed for its neighbour, too.
    warnings
        What the user should know.
    """

    band: int | None = None
    work_part: float = 1.0
    warnings: tuple[str, ...] = ()


def plan_bands(found: NetworkRows, options: PlanOptions, batch: int, workers: int = 1) -> Bands:
    """Return the bands for images of one shape.

    Parameters
    ----------
    found
        The network, analysed for this shape.
    options
        ``band`` and ``memory``, and what bands do not go with.
    batch
        Images per block.
    workers
        How many workers share this machine, if a job starts them.

    Raises
    ------
    PlanMemoryError
        If an image does not fit a worker and cannot be cut into bands.
    PlanError
        If the options name a band where there are none.
    """
    # Images are too large if even the smallest block is, one image or one run of a fixed batch.
    fixed = found.network.fixed_batch
    single = 1 if fixed is None else fixed.images
    whole = peak_bytes_of_images(found, single, options.dtype)
    room = _room(options, workers)
    limit = (
        MAX_IMAGE_BYTES if options.memory is None or room is None else min(MAX_IMAGE_BYTES, room)
    )
    if options.band is None and whole <= limit:
        return Bands()
    why_not = barrier_in(found) or _refusal(options)
    if why_not is not None:
        return _whole_images(why_not, whole, room, options)
    rows = found.layouts[found.network.output].rows
    if options.band is not None:
        return _bands(found, min(options.band, rows), rows)
    band = _largest(found, options, batch, room)
    return _bands(found, -(-rows // -(-rows // band)), rows)


def barrier_in(found: NetworkRows) -> str | None:
    """Return why a network cannot be computed in bands, in words; None if it can."""
    if found.network.fixed_batch is not None:
        return "the model was exported with a fixed batch, and is run whole"
    if len(found.network.outputs) > 1:
        names = ", ".join(found.network.outputs)
        return f"it has several outputs ({names}), of which --output chooses one"
    for index, barriers in found.barriers.items():
        return f"stage {index} needs all rows of an image at once, {barriers[0]}"
    if found.layouts[found.network.output].axis is None:
        return "its prediction has no rows"
    return None


def row_axis(found: NetworkRows) -> int:
    """Return the axis of one image's prediction that is its rows: 1 for (classes, H, W)."""
    axis = found.layouts[found.network.output].axis
    if axis is None:
        raise PlanError("a prediction without rows in bands; expected a dense one")
    return axis - 1


def reading_note(source: ImageSource, chunks: StoredChunks, plan: Plan) -> str | None:
    """Return what is wrong with how the images are stored, in words, if anything is.

    A band reads the chunks that hold its rows, and chunks are unpacked whole.
    """
    if plan.band is None:
        reads = chunks.reads(plan.batch, plan.part_images)
        if reads <= NOTED_READS:
            return None
        size = chunks.images * chunks.image_bytes
        return (
            f"the images are stored in chunks of {chunks.images}, {_gib(size)} each, which is too "
            f"much for a worker to keep for several shares: every chunk is unpacked {reads:.1f} "
            f"times; store them in chunks of {plan.part_images} images, or take a larger --batch"
        )
    chunk, rows = source.row_chunk, source.shape[2]
    if chunk <= max(2 * plan.band, 1):
        return None
    return (
        f"the images are stored in chunks of {chunk} of their {rows} rows, "
        f"{_gib(source.chunk_bytes)} each, and every band unpacks whole chunks: store them in "
        f"chunks of about {plan.band} rows"
    )


def peak_bytes_of_images(found: NetworkRows, images: int, dtype: str) -> int:
    """Return the most bytes that the values of whole images take at once; see peak_bytes."""
    return peak_bytes(found, _all_rows(found), images, dtype)


def peak_bytes(found: NetworkRows, rows: Mapping[str, Rows], batch: int, dtype: str) -> int:
    """Return the most bytes that values take at once where a network is run in one place.

    Parameters
    ----------
    found
        The network.
    rows
        The rows that are computed of each value; see :func:`~fcdcc.pipeline.halo.ranges_for`.
    batch, dtype
        Images, and the type of their values.

    Every result counts as a separate tensor, even a view, and is freed after its last use.
    """
    # Between tasks, values of bfloat16 are float32.
    scale = batch * np.dtype("float32" if dtype == "bfloat16" else dtype).itemsize
    steps = list(_steps(found, rows))
    last = {name: number for number, (reads, _) in enumerate(steps) for name in reads}
    last[found.network.output] = len(steps)
    kept: dict[str, float] = {found.network.input: _values_of(found, rows, found.network.input, ())}
    peak = 0.0
    for number, (_, made) in enumerate(steps):
        kept |= made
        peak = max(peak, sum(kept.values()))
        kept = {name: size for name, size in kept.items() if last.get(name, -1) > number}
    return int(peak * scale)


def _all_rows(found: NetworkRows) -> dict[str, Rows]:
    return {name: Rows(0, layout.rows) for name, layout in found.layouts.items()}


def _steps(
    found: NetworkRows, rows: Mapping[str, Rows]
) -> Iterator[tuple[tuple[str, ...], dict[str, float]]]:
    """Yield what each step reads, and what it makes with its size in numbers per image."""
    for stage in found.network.stages:
        if isinstance(stage, ConvStage):
            yield (stage.input,), {stage.output: _values_of(found, rows, stage.output, ())}
            continue
        layouts = found.stages[stage.index].layouts
        for step in stage.steps:
            shape = layouts[step.name].shape if step.name in layouts else (0,)
            size = _values_of(found, rows, step.name, shape, stage.outputs)
            yield step.references, {step.name: size}


def _values_of(
    found: NetworkRows,
    rows: Mapping[str, Rows],
    name: str,
    shape: tuple[int, ...],
    outputs: tuple[str, ...] = (),
) -> float:
    """Return how many numbers a value has per image, in the rows that are computed.

    A value inside a stage has as large a part of its rows as the stage's outputs have.
    """
    layout = found.layouts.get(name)
    names = outputs if layout is None else (name,)
    parts = [
        rows[n].size / found.layouts[n].rows
        for n in names
        if n in found.layouts and found.layouts[n].rows and rows.get(n)
    ]
    whole = layout.shape if layout is not None else shape
    return math.prod(whole) / max(whole[0], 1) * max(parts, default=1.0) if whole else 0.0


def _room(options: PlanOptions, workers: int) -> int | None:
    """Return the bytes that a worker has for values; None if unknown."""
    memory = options.memory
    if memory is None and isinstance(options, JobConfig) and options.scheduler is None:
        memory = int(system.MEMORY_LIMIT) // workers
    return None if memory is None else max(memory - PROCESS_BYTES, 0)


def _refusal(options: PlanOptions) -> str | None:
    """Return why the options rule bands out, in words."""
    if options.code != "systematic":
        return f"--code {options.code} gathers every layer on one worker; take --code systematic"
    if options.split == "images":
        return "--split images leaves images whole; take --split rows"
    return None


def _whole_images(why_not: str, whole: int, room: int | None, options: PlanOptions) -> Bands:
    """Return the bands of whole images (none), if they fit.

    Raises
    ------
    PlanMemoryError
        If they do not.
    PlanError
        If the options name a band.
    """
    if options.band is not None:
        raise PlanError(f"--band {options.band}: blocks hold whole images here: {why_not}")
    if room is not None and whole > room:
        raise PlanMemoryError(
            f"an image takes {_gib(whole)} at once and a worker has {_gib(room)} for it; it "
            f"cannot be computed in bands: {why_not}. Use workers with more memory (--memory), "
            "smaller images, or a network that looks at a part of the image at a time",
            needed=whole + PROCESS_BYTES,
        )
    return Bands(
        warnings=(f"every worker needs {_gib(whole)} for an image, which stays whole: {why_not}",)
    )


def _largest(found: NetworkRows, options: PlanOptions, batch: int, room: int | None) -> int:
    """Return the most rows of the prediction that fit a worker.

    Raises
    ------
    PlanMemoryError
        If not even one does.
    """
    rows = found.layouts[found.network.output].rows
    in_flight = options.in_flight or BANDS_IN_FLIGHT
    budget = MAX_BAND_BYTES if room is None else room
    if options.memory is None:
        budget = min(budget, MAX_BAND_BYTES)

    def need(band: int) -> float:
        # Of each band in flight a worker holds a strip (1/δ of the band) twice: as it received it
        # and as it computes with it. It also holds one whole band: one copy for the
        # prediction, or BAND_COPIES copies if parity may run.
        middle = (rows - band) // 2
        peak = peak_bytes(found, _needed(found, middle, middle + band), batch, options.dtype)
        whole = 1 if options.redundancy == "off" else BAND_COPIES
        return peak * (whole + 2 * in_flight / options.delta)

    low, high = 0, rows
    while low < high:
        band = (low + high + 1) // 2
        low, high = (band, high) if need(band) <= budget else (low, band - 1)
    if low:
        return low
    raise PlanMemoryError(
        f"one row of the prediction takes {_gib(need(1))} of a worker and {_gib(budget)} are "
        "allowed: raise --memory, take fewer workers on a machine, or say --band yourself",
        needed=need(1) + PROCESS_BYTES,
    )


def _needed(found: NetworkRows, start: int, stop: int) -> dict[str, Rows]:
    needed = ranges_for(found, {found.network.output: Rows(start, stop)})
    return {name: rows or Rows(0, 0) for name, rows in needed.items()}


def _bands(found: NetworkRows, band: int, rows: int) -> Bands:
    """Return bands of ``band`` rows, with the work of one in the middle."""
    middle = (rows - band) // 2
    needed = _needed(found, middle, middle + band)
    whole = made = 0.0
    for stage in found.network.convolutions:
        layout = found.layouts[stage.output]
        weight = found.network.tensors[stage.weight].shape
        work = math.prod(weight[1:]) * math.prod(layout.shape[1:])
        whole += work
        made += work * needed.get(stage.output, Rows(0, 0)).size / max(layout.rows, 1)
    repeated = made / whole * rows / band - 1
    warning = (
        f"bands of {band} of {rows} rows are {repeated:.0%} more work, for rows that two of them "
        "need: larger bands need more memory (--band, --memory)"
    )
    return Bands(band, made / whole, (warning,) if repeated > REPEATED_WORK_WARNING else ())


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
