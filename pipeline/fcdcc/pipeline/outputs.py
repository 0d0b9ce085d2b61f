"""What a job writes, and what ties it to what wrote it."""

from __future__ import annotations

import logging
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from fcdcc.coding import __version__
from fcdcc.storage import (
    Coordinate,
    DamageError,
    Fingerprint,
    ImageSource,
    Json,
    OutputArray,
    PredictionStore,
    Preparation,
    StoredRun,
    check_fingerprint,
    create_predictions,
    inspect_output,
    resize_predictions,
    set_aside,
)

from .errors import OptionError
from .network import Network
from .options import JobConfig
from .plans import Plan

__all__ = [
    "continued_plan",
    "create_output",
    "grow_output",
    "job_fingerprint",
    "make_room",
    "prediction_dims",
    "write",
]

logger = logging.getLogger(__name__)

CLASS_DIM = "class"


def job_fingerprint(
    network: Network, source: ImageSource, preparation: Preparation, config: JobConfig
) -> Fingerprint:
    """Return what determines the answers of a job; two runs that agree may share an output."""
    return Fingerprint.of(
        {
            "model": network.fingerprint,
            "input": source.identity,
            "preparation": preparation.as_json(),
            "dtype": config.dtype,
            "code": {"name": config.code, "n": config.n, "tolerate": config.tolerate},
            "store": "logits",
        }
    )


def continued_plan(run: StoredRun, config: JobConfig, fingerprint: Fingerprint) -> Plan:
    """Return the plan that an output was begun with, for this run to go on with.

    Raises
    ------
    OutputMismatchError
        If another job made the output.
    OptionError
        If the options ask for blocks of another size.
    """
    check_fingerprint(config.output, run, fingerprint)
    plan = Plan.from_json(str(run.plan))
    if config.batch not in (None, plan.batch):
        raise OptionError(
            f"--batch {config.batch} for an output that was begun with blocks of {plan.batch}: "
            "leave --batch out, or use another output"
        )
    return plan.with_run_options(config.redundancy, config.in_flight)


def create_output(
    config: JobConfig,
    source: ImageSource,
    fingerprint: Fingerprint,
    plan: Plan,
    prediction_shape: tuple[int, ...],
) -> PredictionStore:
    """Create the output of a job; ``prediction_shape`` is that of one image."""
    dims = prediction_dims(source.spatial_dims, prediction_shape)
    attributes: dict[str, Json] = {
        "model": config.model.rsplit("/", 1)[-1],
        "model_fingerprint": plan.network,
        "fingerprint": fingerprint.digest,
        "fcdcc_version": __version__,
        "store": "logits",
    }
    coordinates = _ids(source)
    for name, values in source.spatial_coords().items():
        if name in dims and prediction_shape[dims.index(name)] == len(values):
            coordinates.append(Coordinate(name, name, values))
    return create_predictions(
        config.output,
        images=source.images,
        batch=plan.batch,
        arrays=[OutputArray("prediction", prediction_shape, plan.dtype, dims)],
        fingerprint=fingerprint,
        dim=source.dims[0],
        attributes=attributes,
        coordinates=coordinates,
        plan=plan.to_json(),
    )


def make_room(config: JobConfig) -> None:
    """Put aside what another job left at the output, where the options say so."""
    if not config.restart:
        return
    with suppress(DamageError):
        if inspect_output(config.output) is None:
            return
    logger.warning("the output that was there is now %s", set_aside(config.output))


def grow_output(config: JobConfig, source: ImageSource) -> PredictionStore:
    """Bring an output that is there to the length of the input, and return it."""
    return resize_predictions(config.output, source.images, _ids(source))


def write(prediction: NDArray[np.floating], store: PredictionStore, block: int) -> None:
    """Write one block's predictions and its record; the task that completes the block."""
    start, stop = store.layout.bounds(block)
    store.write(block, prediction[: stop - start])


def _ids(source: ImageSource) -> list[Coordinate]:
    ids = source.ids()
    return [] if ids is None else [ids]


def prediction_dims(spatial: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Name the axes of one image's prediction.

    >>> prediction_dims(("y", "x"), (10,)), prediction_dims(("y", "x"), (21, 64, 64))
    (('class',), ('class', 'y', 'x'))
    """
    if len(shape) == 1 + len(spatial):
        return (CLASS_DIM, *spatial)
    return (CLASS_DIM, *(f"axis_{axis}" for axis in range(2, 1 + len(shape))))[: len(shape)]
