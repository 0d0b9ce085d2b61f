"""The output of a job: its arrays, coordinates and fingerprint, and the writing of a block."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

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
    OutputError,
    PredictionStore,
    Preparation,
    StoredRun,
    check_fingerprint,
    create_predictions,
    inspect_output,
    open_predictions,
    resize_predictions,
    set_aside,
)
from fcdcc.storage.input_state import InputState
from fcdcc.storage.locations import normalise, shown

from ..errors import OptionError
from ..graph import RetryMode
from ..heads import CLASS_DIM, Head
from ..model import Model
from ..model.head_analysis import find_head
from ..model.network import Network
from ..options import JobConfig, PlanOptions
from ..plans.plan import Plan
from ..stored_forms import StoredForm, StoredPrediction, class_names
from ..worker.share_checks import Finding

logger = logging.getLogger(__name__)


FORMER_FINGERPRINT_FIELDS = ("code",)
"""What older versions counted as part of a job's identity, and this one does not."""


def job_fingerprint(
    network: Network,
    source: ImageSource,
    preparation: Preparation,
    config: JobConfig,
    stored: StoredPrediction,
) -> Fingerprint:
    """Return the identity of a job's predictions; runs with the same one may share an output.

    How the predictions are computed is no part of it: another code, or other workers, give the
    same predictions up to rounding.
    """
    fields: dict[str, Json] = {
        "model": network.fingerprint,
        "input": source.identity,
        "preparation": preparation.as_json(),
        "dtype": config.dtype,
        "store": config.store,
    }
    prediction = stored.identity(config.dtype)
    if prediction is not None:
        fields["prediction"] = prediction
    return Fingerprint.of(fields)


def head_of(
    model: Model, image_shape: tuple[int, ...], options: PlanOptions, classes: str | None = None
) -> Head:
    """Return what the output of a network is: as ``--head`` or its file says, or worked out.

    Where features were found, and ``classes`` is a file of class names, or the model's file has
    such names, they are logits.

    Raises
    ------
    OptionError
        If the output cannot be what ``--head``, or the file, says.
    """
    found = find_head(model.network, image_shape)
    if options.head is not None:
        return found.named(options.head)
    says = model.description
    declared = None if says is None else says.output
    if declared is not None:
        return found.named(declared, model.source)
    named = classes is not None or (says is not None and says.class_names is not None)
    if named and found.kind == "embedding" and len(found.shape) == 1:
        return replace(found.named("logits"), given=False, reason="there are names of its classes")
    return found


def is_same_job(run: StoredRun, fingerprint: Fingerprint) -> bool:
    """Return whether a stored output belongs to the job with this fingerprint."""
    former = FORMER_FINGERPRINT_FIELDS
    return run.fingerprint.without(*former) == fingerprint.without(*former)


def check_continued(run: StoredRun, config: JobConfig, fingerprint: Fingerprint) -> None:
    """Check that a job may continue a stored output.

    Raises
    ------
    OutputMismatchError
        If the output belongs to another job.
    OptionError
        If the options ask for blocks of another size.
    """
    check_fingerprint(config.output, run, fingerprint, FORMER_FINGERPRINT_FIELDS)
    for name, given, stored in (
        ("batch", config.batch, run.batch),
        ("band", config.band, run.arrays[0].band),
    ):
        if given not in (None, stored):
            raise OptionError(
                f"--{name} {given} for an output that was created with blocks of "
                f"{'whole images' if stored is None else stored}: leave --{name} out, or use "
                "another output"
            )


def check_stored(
    run: StoredRun, spec: PredictionSpec, batch: int, config: JobConfig
) -> PredictionSpec:
    """Check that the arrays of a stored output are those that a job writes in its blocks.

    Returns
    -------
    What the job stores, with the names of axes that the output has: older versions named
    some axes in another way.

    Raises
    ------
    DamageError
        If they are not, although the output has the fingerprint of the job.
    """

    def form(array: OutputArray) -> tuple[object, ...]:
        return array.name, array.shape, array.dtype, array.row_axis, array.band

    if run.batch != batch or [*map(form, run.arrays)] != [*map(form, spec.arrays)]:
        raise DamageError(
            f"{config.output} has the fingerprint of this job, and arrays or blocks that it does "
            "not write: something has changed it; use another output"
        )
    return replace(spec, arrays=run.arrays)


@dataclass(frozen=True)
class PredictionSpec:
    """What a job stores of every image.

    Parameters
    ----------
    stored
        The stored form of what the network predicts.
    arrays
        The arrays of the output, ``prediction`` first.
    names
        The names of the classes as a coordinate; None without ``--classes``.
    """

    stored: StoredPrediction
    arrays: tuple[OutputArray, ...]
    names: Coordinate | None

    @classmethod
    def of(
        cls,
        config: JobConfig,
        source: ImageSource,
        stored: StoredPrediction,
        bands: tuple[int, int] | None = None,
    ) -> PredictionSpec:
        """Return what a job stores.

        Parameters
        ----------
        config, source
            Options and images of the job.
        stored
            From :func:`stored_prediction`.
        bands
            The axis of one image's prediction that is rows, and the rows of a block; None if
            blocks hold whole images.

        Raises
        ------
        OptionError
            If the options ask for something that the model does not predict.
        """
        arrays = stored.arrays(source.spatial_dims, bands)
        names = None if config.classes is None else _class_names(config.classes, stored.head)
        return cls(stored, tuple(arrays), names)


def stored_prediction(config: JobConfig, head: Head) -> StoredPrediction:
    """Return what a job stores of an output.

    Raises
    ------
    OptionError
        If such an output has no such form.
    """
    return StoredForm.parse(config.store).of(head, config.threshold)


def _class_names(path: str, head: Head) -> Coordinate:
    """Return the names of the classes of an output."""
    if not head.has_classes:
        raise OptionError(
            f"--classes {path} for a network that predicts {head}: leave --classes out, or give "
            "--head logits if these are classes"
        )
    return class_names(path, head.classes)


def create_output(
    config: JobConfig,
    state: InputState,
    fingerprint: Fingerprint,
    plan: Plan,
    spec: PredictionSpec,
) -> PredictionStore:
    """Create the output of a job."""
    source = state.source
    attributes: dict[str, Json] = {
        "model": config.model.rsplit("/", 1)[-1],
        "model_fingerprint": plan.network,
        "fingerprint": fingerprint.digest,
        "fcdcc_version": __version__,
        "store": config.store,
        "head": spec.stored.head.kind,
    }
    if spec.stored.decision == "threshold":
        attributes["threshold"] = spec.stored.threshold
    return create_predictions(
        config.output,
        images=source.images,
        batch=plan.batch,
        arrays=spec.arrays,
        fingerprint=fingerprint,
        dim=source.dims[0],
        attributes=attributes,
        coordinates=_coordinates(state, spec),
        plan=plan.to_json(),
    )


def make_room(config: JobConfig) -> None:
    """With ``--restart``, rename an existing output, so that its name is free for a new one."""
    if not config.restart:
        return
    with suppress(DamageError):
        if inspect_output(config.output) is None:
            return
    logger.warning("the earlier output was renamed to %s", set_aside(config.output))


def images_to_remove(config: JobConfig, source: ImageSource) -> int:
    """Return how many images at the end of a stored output the input no longer has.

    Raises
    ------
    OutputError
        If ``--limit`` leaves out images that the output has.
    """
    try:
        stored = open_predictions(config.output).layout.images
    except DamageError:  # resizing mends it
        return 0
    if stored > source.images and source.images < source.shape[0]:
        raise OutputError(
            f"{shown(normalise(config.output))} holds predictions for {stored} images and --limit "
            f"is {source.images}: raise --limit, or use another output"
        )
    return max(0, stored - source.images)


def resize_output(config: JobConfig, state: InputState, spec: PredictionSpec) -> PredictionStore:
    """Bring a stored output to the length and the labels of the input, and return it."""
    labels = _coordinates(state, spec)
    return resize_predictions(config.output, state.source.images, labels, may_shrink=True)


def write_block(
    prediction: NDArray[Any],
    store: PredictionStore,
    block: int,
    stored: StoredPrediction,
    details: Mapping[str, Json],
    notes: Sequence[str] = (),
    *findings: Finding,
) -> None:
    """Write one block's predictions and its record; the last task of the block.

    Parameters
    ----------
    prediction
        (images of the block, padded, …): output of the network, of its own type.
    store, block
        Where it is written.
    stored
        What is stored of the output.
    details
        For the record: how the block was made, and what of its images was not stored.
    notes
        Warnings for the record about earlier attempts at the block.
    findings
        Results of the checks of its shares. The task depends on them, so nothing is written
        before all checks have passed.
    """
    start, stop = store.layout.bounds(block)
    rows = store.layout.rows_of(block)
    values = prediction[: stop - start]
    rest = tuple(range(1, values.ndim))
    not_finite = int(np.count_nonzero(~np.isfinite(values).all(axis=rest)))
    where = "" if rows is None else f" in rows {rows[0]} to {rows[1] - 1}"
    warnings = [*notes, *(finding.warning for finding in findings if finding.wrong)]
    if not_finite:
        warnings.append(
            f"{not_finite} of {stop - start} images have values that are not finite{where}"
        )
    where_and_how = dict(details)
    if rows is not None:
        where_and_how["rows"] = [*rows]
    store.write(block, stored.apply(values), warnings=warnings, details=where_and_how)


def how_made(plan: Plan, mode: RetryMode | None = None) -> dict[str, Json]:
    """Return how a block is made, for its record.

    Parameters
    ----------
    plan
        The plan of the run.
    mode
        As for :func:`fcdcc.pipeline.graph.build_retry`; None for a block that is made by the plan.
    """
    made: dict[str, Json] = {
        "n": plan.n,
        "tolerate": plan.tolerate,
        "code": plan.code,
        "split": plan.split,
        "form": plan.form,
    }
    if mode is not None and plan.band is None:
        made["form"] = "gathered"
    if mode == "uncoded":
        made |= {"n": 1 if plan.band is None else plan.delta, "tolerate": 0, "code": "uncoded"}
    return made


def _coordinates(state: InputState, spec: PredictionSpec) -> list[Coordinate]:
    """Return the image ids, the class names and what labels time and space, as far as known."""
    arrays = spec.arrays
    sizes = dict(zip(arrays[0].dims, arrays[0].shape, strict=True))
    names = [] if spec.names is None else [spec.names]
    taken = {array.name for array in arrays} | {found.name for found in names} | {CLASS_DIM}
    others = {dim for array in arrays for dim in array.dims}
    coordinates = [
        found
        for found in state.source.coordinates(sizes, state.ids)
        if found.name not in taken and (found.name not in others or found.dims == (found.name,))
    ]
    return [*coordinates, *names]
