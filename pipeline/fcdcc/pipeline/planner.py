"""From a network, the shape of its images and options to a :class:`Plan`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

import numpy as np
import torch

from fcdcc.coding import ConvGeometry
from fcdcc.coding.conditioning import check_tolerance, condition_limit, measure
from fcdcc.coding.cost import cheapest
from fcdcc.coding.partitions import code_partitions

from .bands import BANDS_IN_FLIGHT, Bands, plan_bands
from .errors import PlanError
from .model.interpreter import network_shapes
from .model.network import ConvStage, Network
from .options import PlanOptions
from .plans import CodeSpec, LayerPlan, Placement, Plan, Split
from .strips import analysed

__all__ = ["check_images", "fits", "make_plan"]

BLOCK_BYTES = 64 * 2**20
"""The largest value of the network, for a whole block, should not exceed this."""

BATCH_LIMIT = 64
"""A planned block has no more images than this, so that work done is recorded often."""

IN_FLIGHT = 4
"""Blocks in flight unless told: enough that workers find work while a block is decoded."""


def check_images(network: Network, image_shape: tuple[int, ...]) -> None:
    """Check that a network takes images of this shape, (C, *space).

    Raises
    ------
    PlanError
        If it does not.
    """
    if not fits(network.input_shape, image_shape):
        wanted = ", ".join("any" if size is None else str(size) for size in network.input_shape[1:])
        raise PlanError(
            f"images of shape {image_shape} for a model that takes ({wanted}), channels first: "
            "resize the images or use another model"
        )


def fits(input_shape: tuple[int | None, ...], image_shape: tuple[int, ...]) -> bool:
    """Return whether images (C, *space) fit an input (batch, C, *space), None being any size.

    >>> fits((None, 3, None, 32), (3, 7, 32)), fits((None, 3, None, 32), (1, 7, 32))
    (True, False)
    """
    expected = input_shape[1:]
    return len(image_shape) == len(expected) and all(
        want is None or want == size for want, size in zip(expected, image_shape, strict=True)
    )


RUNS = 4
"""Runs of images in one share: four, for the quaternions of its parity."""

SHARE_WORK = 1.5e9
"""Multiply-adds of a share that make the overhead of its tasks, a few milliseconds, small."""


REAL_LIMIT = 100.0
"""Real parity serves strips of rows up to this condition number."""


def make_plan(
    network: Network,
    image_shape: tuple[int, ...],
    options: PlanOptions,
    images: int | None = None,
    *,
    in_bands: bool = True,
) -> Plan:
    """Return the plan for images of shape (C, *space).

    Parameters
    ----------
    network, image_shape, options
        What is run, on what, and how.
    images
        How many images there are, if that is known: few are better split by rows.
    in_bands
        Whether images that are too large to be computed at once may be cut.

    Raises
    ------
    PlanError
        If the images do not fit the network or a worker, or the code loses too many digits.
    """
    check_images(network, image_shape)
    fixed = network.input_shape[0]
    if fixed is not None and options.batch not in (None, fixed):
        raise PlanError(
            f"--batch {options.batch} for a model that was exported with a fixed batch of {fixed}: "
            "leave --batch out, or export the model with a dynamic batch"
        )
    shapes = network_shapes(network, (fixed or 1, *image_shape))
    batch = fixed or options.batch or _planned_batch(shapes, options.dtype)
    bands = Bands()
    if in_bands and network.convolutions:
        bands = plan_bands(analysed(network, image_shape), options, batch)
    split = "rows" if bands.band else _split(options, fixed, batch, images)
    if split == "images":
        batch = options.batch or _in_whole_runs(batch, options.delta)
        layers = tuple(_plan_by_images(network, shapes, options, batch))
    else:
        layers = tuple(_plan_by_rows(network, shapes, options, batch * bands.part, image_shape))
    warnings = [*bands.warnings, *_check_codes(layers, options.dtype), *_odd_filters(network)]
    if not layers:
        warnings.append("the model has no convolution: nothing is coded")
    return Plan(
        network=network.fingerprint,
        image_shape=image_shape,
        n=options.n,
        tolerate=options.n - options.delta,
        code=options.code,
        split=split,
        redundancy=options.redundancy,
        dtype=options.dtype,
        batch=batch,
        fixed_batch=fixed is not None,
        in_flight=options.in_flight or (BANDS_IN_FLIGHT if bands.band else IN_FLIGHT),
        layers=layers,
        placement=Placement(tuple(range(options.n))),
        warnings=tuple(warnings),
        band=bands.band,
        verify=options.verify,
    )


def _split(options: PlanOptions, fixed: int | None, batch: int, images: int | None) -> Split:
    """Return what the parts of a block are.

    Raises
    ------
    PlanError
        If the block is to be split by images and cannot be.
    """
    if options.split == "auto":
        enough = min(batch, batch if images is None else images) >= RUNS * options.delta
        by_images = enough and fixed is None and options.code == "systematic"
        return "images" if by_images else "rows"
    if options.split == "rows":
        return "rows"
    if options.code != "systematic":
        raise PlanError(
            f"--split images with --code {options.code}: only the systematic code leaves runs of "
            "images whole; take --code systematic, or --split rows"
        )
    if fixed is not None:
        raise PlanError(
            f"--split images for a model with a fixed batch of {fixed}: export it with a dynamic "
            "batch, or take --split rows"
        )
    if batch < options.delta:
        raise PlanError(
            f"--split images with blocks of {batch}: expected at least {options.delta} images, one "
            "for each share that does not hold parity; raise --batch, or take --split rows"
        )
    return "images"


def _in_whole_runs(batch: int, delta: int) -> int:
    """Return a batch near this one of which no share has images of zeros."""
    return max(1, round(batch / (RUNS * delta))) * RUNS * delta


def _planned_batch(shapes: dict[str, tuple[int, ...]], dtype: str) -> int:
    """Return images per block: as many as keep the largest value within its bytes."""
    largest = max(prod(shape) for shape in shapes.values()) * np.dtype(dtype).itemsize
    return int(np.clip(BLOCK_BYTES // largest, 1, BATCH_LIMIT))


def _plan_by_rows(
    network: Network,
    shapes: dict[str, tuple[int, ...]],
    options: PlanOptions,
    batch: float,
    image_shape: tuple[int, ...],
) -> Iterator[LayerPlan]:
    """Yield the plan of every convolution: in place with the systematic code, else gathered."""
    if options.code == "systematic":
        yield from _plan_in_place(network, shapes, options, batch, image_shape)
        return
    partitions = code_partitions(options.code, options.n, options.delta)
    for stage in network.convolutions:
        geometry = _geometry(stage, network, shapes)
        k_a, k_b, *_ = cheapest(geometry, partitions)
        spec = CodeSpec(options.code, options.n, k_a, k_b)
        yield LayerPlan(stage.index, stage.name, geometry, spec)


def _plan_in_place(
    network: Network,
    shapes: dict[str, tuple[int, ...]],
    options: PlanOptions,
    batch: float,
    image_shape: tuple[int, ...],
) -> Iterator[LayerPlan]:
    """Yield the plan of every convolution: its strips stay put, some of them are coded.

    What was said of images holds of rows, too: a convolution is coded when enough work has
    come together since the last one that was. Those between are done twice for the rows that
    two strips need, so they are few.
    """
    spec = _code_of_strips(options)
    found = analysed(network, image_shape)
    gathered = 0.0
    for stage in network.convolutions:
        geometry = _geometry(stage, network, shapes)
        if found.layouts[stage.output].axis is None:
            reason = "its input has no rows to split: run whole"
            yield LayerPlan(stage.index, stage.name, geometry, None, "rows", reason)
            continue
        gathered += geometry.multiply_adds * batch / options.delta
        coded = gathered >= SHARE_WORK or stage is network.convolutions[-1]
        gathered = 0.0 if coded else gathered
        reason = "" if coded else "part of the share of the next coded layer"
        code = spec if coded else None
        yield LayerPlan(stage.index, stage.name, geometry, code, "rows", reason, in_place=coded)


def _code_of_strips(options: PlanOptions) -> CodeSpec:
    """Return the code of strips of rows: real parity, where that is well conditioned.

    With real parity there are δ strips, with quaternions 4 δ, of which each share has four;
    so fewer rows are padding with real parity.
    """
    n, delta = options.n, options.delta
    real = CodeSpec("systematic", n, delta, 1, "real")
    if measure(real.code).worst <= REAL_LIMIT:
        return real
    return CodeSpec("systematic", n, RUNS * delta, 1)


def _plan_by_images(
    network: Network, shapes: dict[str, tuple[int, ...]], options: PlanOptions, batch: int
) -> Iterator[LayerPlan]:
    """Yield the plan of every convolution: all of them local, some of them coded.

    A coded convolution ends a task, and a task should be worth its overhead; so a convolution
    is coded when enough work has come together since the last one that was.
    """
    spec = CodeSpec(options.code, options.n, RUNS * options.delta, 1)
    images = batch / options.delta
    gathered = 0.0
    for stage in network.convolutions:
        geometry = _geometry(stage, network, shapes)
        gathered += geometry.multiply_adds * images
        coded = gathered >= SHARE_WORK or stage is network.convolutions[-1]
        gathered = 0.0 if coded else gathered
        reason = "" if coded else "part of the share of the next coded layer"
        yield LayerPlan(
            stage.index, stage.name, geometry, spec if coded else None, "images", reason
        )


def _geometry(
    stage: ConvStage, network: Network, shapes: dict[str, tuple[int, ...]]
) -> ConvGeometry:
    """Return the shapes of a convolution for one image."""
    weight = network.tensors[stage.weight]
    return ConvGeometry(
        in_channels=shapes[stage.input][1],
        out_channels=weight.shape[0],
        spatial=shapes[stage.input][2:],
        kernel=tuple(weight.shape[2:]),
        stride=stage.stride,
        padding=stage.padding,
        dilation=stage.dilation,
        groups=stage.groups,
    )


def _odd_filters(network: Network) -> Iterator[str]:
    """Yield a warning for each convolution with filters that are not finite."""
    for stage in network.convolutions:
        filters = [network.tensors[name] for name in (stage.weight, stage.bias) if name]
        odd = sum(int((~torch.isfinite(values)).sum()) for values in filters)
        if odd:
            yield (
                f"layer {stage.index} ({stage.name}): {odd} of its filters' values are not finite, "
                "and neither are its answers; a block that would have to decode them is done "
                "without a code"
            )


def _check_codes(layers: Iterable[LayerPlan], dtype: str) -> Iterator[str]:
    """Refuse codes that lose too many digits, and yield a warning for each that may lose some.

    Raises
    ------
    IllConditionedError
        If a loss that is to be tolerated leaves too few digits of this dtype.
    """
    limit = condition_limit(getattr(torch, dtype))
    for spec in {layer.code: None for layer in layers if layer.code is not None}:
        worst = check_tolerance(spec.code, getattr(torch, dtype)).worst
        if worst > limit:
            yield (
                f"{spec.name} with n = {spec.n}, k_a = {spec.k_a}, k_b = {spec.k_b}: the worst "
                f"loss leaves a condition number of {worst:.3g}, above {limit:.0e} for {dtype}: "
                "a layer that loses these shares waits for one more"
            )
