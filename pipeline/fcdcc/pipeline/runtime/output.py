"""What a job writes, and what ties it to what wrote it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

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

from ..errors import OptionError
from ..model.network import Network
from ..options import JobConfig
from ..plans.plan import Plan
from ..prediction_format import CLASS_DIM, StoredForm, class_names
from ..worker.share_checks import Finding

logger = logging.getLogger(__name__)


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
            "store": config.store,
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
    for name, asked, begun in (
        ("batch", config.batch, plan.batch),
        ("band", config.band, plan.band),
    ):
        if asked not in (None, begun):
            raise OptionError(
                f"--{name} {asked} for an output that was begun with blocks of "
                f"{'whole images' if begun is None else begun}: leave --{name} out, or use "
                "another output"
            )
    return plan.with_run_options(config.redundancy, config.in_flight, config.verify)


@dataclass(frozen=True)
class PredictionSpec:
    """What is stored for every image: the form, its arrays, and the names of the classes."""

    form: StoredForm
    arrays: tuple[OutputArray, ...]
    names: Coordinate | None

    @classmethod
    def of(
        cls,
        config: JobConfig,
        source: ImageSource,
        shape: tuple[int, ...],
        dtype: str,
        bands: tuple[int, int] | None = None,
    ) -> PredictionSpec:
        """Return what is stored where one image's prediction has this shape.

        ``bands`` are the axis of it that is rows, and the rows of a block; None where blocks
        hold whole images.

        Raises
        ------
        OptionError
            If the options ask for what the model does not give.
        """
        form = StoredForm.parse(config.store)
        arrays = form.arrays(shape, prediction_dims(source.spatial_dims, shape), dtype, bands)
        names = None
        if config.classes is not None:
            if not shape:
                raise OptionError("--classes for a model that gives one number per image")
            names = class_names(config.classes, shape[0])
        return cls(form, tuple(arrays), names)


def create_output(
    config: JobConfig,
    source: ImageSource,
    fingerprint: Fingerprint,
    plan: Plan,
    answers: PredictionSpec,
) -> PredictionStore:
    """Create the output of a job."""
    attributes: dict[str, Json] = {
        "model": config.model.rsplit("/", 1)[-1],
        "model_fingerprint": plan.network,
        "fingerprint": fingerprint.digest,
        "fcdcc_version": __version__,
        "store": config.store,
    }
    return create_predictions(
        config.output,
        images=source.images,
        batch=plan.batch,
        arrays=answers.arrays,
        fingerprint=fingerprint,
        dim=source.dims[0],
        attributes=attributes,
        coordinates=_labels(source, answers),
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


def grow_output(config: JobConfig, source: ImageSource, answers: PredictionSpec) -> PredictionStore:
    """Bring an output that is there to the length of the input, and return it."""
    return resize_predictions(config.output, source.images, _labels(source, answers))


def write(
    prediction: NDArray[np.floating],
    store: PredictionStore,
    block: int,
    form: StoredForm,
    notes: Sequence[str] = (),
    *findings: Finding,
) -> None:
    """Write one block's predictions and its record; the task that completes the block.

    Parameters
    ----------
    prediction, store, block, form
        What is written, where, and in which form.
    notes
        What the record is to say of how the block was made.
    findings
        What was found out about the shares of its layers; nothing is written before that.
    """
    start, stop = store.layout.bounds(block)
    rows = store.layout.rows_of(block)
    logits = prediction[: stop - start]
    rest = tuple(range(1, logits.ndim))
    odd = int(np.count_nonzero(~np.isfinite(logits).all(axis=rest)))
    where = "" if rows is None else f" in rows {rows[0]} to {rows[1] - 1}"
    warnings = [*notes, *(finding.in_words for finding in findings if finding.wrong)]
    if odd:
        warnings.append(f"{odd} of {stop - start} images have values that are not finite{where}")
    details: dict[str, Json] = {} if rows is None else {"rows": [*rows]}
    store.write(block, form.apply(logits), warnings=warnings, details=details)


def _labels(source: ImageSource, answers: PredictionSpec) -> list[Coordinate]:
    """Return the image ids, the names of the classes and where pixels lie, as far as known."""
    labels = [given for given in (source.ids(), answers.names) if given is not None]
    sizes = dict(zip(answers.arrays[0].dims, answers.arrays[0].shape, strict=True))
    for name, values in source.spatial_coords().items():
        if sizes.get(name) == len(values):
            labels.append(Coordinate(name, name, values))
    return labels


def prediction_dims(spatial: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Name the axes of one image's prediction.

    >>> prediction_dims(("y", "x"), (10,)), prediction_dims(("y", "x"), (21, 64, 64))
    (('class',), ('class', 'y', 'x'))
    """
    if len(shape) == 1 + len(spatial):
        return (CLASS_DIM, *spatial)
    return (CLASS_DIM, *(f"axis_{axis}" for axis in range(2, 1 + len(shape))))[: len(shape)]
