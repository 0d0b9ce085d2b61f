"""The output of a job: its arrays, coordinates and fingerprint, and the writing of a block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
from ..model.head_analysis import find_heads
from ..model.network import Network
from ..model.outputs import AUXILIARY, main_output
from ..options import JobConfig, PlanOptions
from ..plans.plan import LEFT_OUT, Plan
from ..stored_forms import StoredForm, class_names
from ..worker.share_checks import Finding
from .stored_outputs import StoredOutputs, named_output

logger = logging.getLogger(__name__)


FORMER_FINGERPRINT_FIELDS = ("code",)
"""What older versions counted as part of a job's identity, and this one does not."""


def job_fingerprint(
    network: Network,
    source: ImageSource,
    preparation: Preparation,
    config: JobConfig,
    stored: StoredOutputs,
    tiles: Json = None,
) -> Fingerprint:
    """Return the identity of a job's predictions; runs with the same one may share an output.

    How the predictions are computed is no part of it: another code, or other workers, give the
    same predictions up to rounding. ``tiles`` says how predictions are put together from those of
    tiles, if they are.
    """
    fields: dict[str, Json] = {
        "model": network.fingerprint,
        "input": source.identity,
        "preparation": preparation.as_json(),
        "dtype": config.dtype,
        "store": config.store,
    }
    if tiles is not None:
        fields["tiles"] = tiles
    return Fingerprint.of(fields | stored.identity(config.dtype))


def heads_of(
    model: Model, image_shape: tuple[int, ...], options: PlanOptions, classes: str | None = None
) -> dict[str, Head]:
    """Return what the outputs of a network are: as ``--head`` or its file says, or worked out.

    ``--head`` is for all outputs, and the file speaks of the main one. Where features were found
    there, and ``classes`` is a file of class names, or the model's file has such names, they are
    logits.

    Returns
    -------
    By the names of the outputs.

    Raises
    ------
    OptionError
        If an output cannot be what ``--head``, or the file, says.
    """
    found = find_heads(model.network, image_shape)
    main = main_output(found)
    if len(found) > 1 and options.head is not None:
        heads = {}
        for name, head in found.items():
            with named_output(name):
                heads[name] = head.named(options.head)
        return heads
    return found | {main: _main_head(found[main], model, options, classes)}


def _main_head(found: Head, model: Model, options: PlanOptions, classes: str | None) -> Head:
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


def outputs_in_words(heads: Mapping[str, Head], network: Network) -> str:
    """Return what a network predicts, a line for each output, and which outputs are left out."""
    if len(heads) == 1:
        lines = [str(head) for head in heads.values()]
    else:
        lines = [f"{name}: {head}{_advice_about(name, heads)}" for name, head in heads.items()]
    lines += [f"{LEFT_OUT}{name}: {reason}" for name, reason in network.left_out.items()]
    return "\n".join(lines)


def _advice_about(name: str, heads: Mapping[str, Head]) -> str:
    """Return what may be done about an auxiliary head; empty if an output is none."""
    if not name.startswith(AUXILIARY):
        return ""
    main = main_output(heads)
    return f" (an auxiliary head, for training: --output {main} leaves it out)"


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
        The stored form of each output of the network.
    arrays
        The arrays of the output; ``prediction`` first, if the network has one output.
    names
        The names of the classes as a coordinate; None without ``--classes``.
    labels
        Other coordinates that do not come from the images.
    about
        What the attributes of the output say beside the form.
    """

    stored: StoredOutputs
    arrays: tuple[OutputArray, ...]
    names: Coordinate | None
    labels: tuple[Coordinate, ...] = ()
    about: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        config: JobConfig,
        source: ImageSource,
        stored: StoredOutputs,
        bands: tuple[int, int] | None = None,
    ) -> PredictionSpec:
        """Return what a job stores.

        Parameters
        ----------
        config, source
            Options and images of the job.
        stored
            From :func:`stored_outputs`.
        bands
            The axis of one image's prediction that is rows, and the rows of a block; None if
            blocks hold whole images.

        Raises
        ------
        OptionError
            If the options ask for something that the model does not predict.
        """
        arrays = stored.arrays(source.spatial_dims, source.image_shape[1:], bands)
        return cls.of_arrays(config, source, stored, arrays)

    @classmethod
    def of_arrays(
        cls,
        config: JobConfig,
        source: ImageSource,
        stored: StoredOutputs,
        arrays: Sequence[OutputArray],
    ) -> PredictionSpec:
        """Return what a job stores in given arrays; the others are as for :meth:`of`.

        Raises
        ------
        OptionError
            If the options ask for something that the model does not predict.
        """
        if any(array.name == source.dims[0] for array in arrays):
            raise OptionError(
                f"the network has an output {source.dims[0]!r}, which is the name of the axis of "
                "the images: give that axis another name, or choose other outputs with --output"
            )
        names = None
        if config.classes is not None:
            names = _class_names(config.classes, stored.head_of_classes)
        return cls(stored, tuple(arrays), names)

    @property
    def sizes(self) -> dict[str, int]:
        """The lengths of the axes of the arrays, without that of the images."""
        return {
            dim: size
            for array in self.arrays
            for dim, size in zip(array.dims, array.shape, strict=True)
        }


def stored_outputs(config: JobConfig, heads: Mapping[str, Head]) -> StoredOutputs:
    """Return what a job stores of outputs.

    Raises
    ------
    OptionError
        If an output has no such form.
    """
    return StoredOutputs.of(heads, StoredForm.parse(config.store), config.threshold)


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
    batch: int | None = None,
) -> PredictionStore:
    """Create the output of a job, in blocks of ``batch`` images, or as many as the plan's."""
    source = state.source
    attributes: dict[str, Json] = {
        "model": config.model.rsplit("/", 1)[-1],
        "model_fingerprint": plan.network,
        "fingerprint": fingerprint.digest,
        "fcdcc_version": __version__,
        "store": config.store,
        **spec.stored.attributes(),
        **spec.about,
    }
    return create_predictions(
        config.output,
        images=source.images,
        batch=plan.batch if batch is None else batch,
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


def images_stored(config: JobConfig, source: ImageSource) -> int | None:
    """Return how many images a stored output has; None if what describes it is damaged.

    Raises
    ------
    OutputError
        If ``--limit`` leaves out images that the output has.
    """
    try:
        stored = open_predictions(config.output).layout.images
    except DamageError:  # resizing mends it
        return None
    if stored > source.images and source.images < source.shape[0]:
        raise OutputError(
            f"{shown(normalise(config.output))} holds predictions for {stored} images and --limit "
            f"is {source.images}: raise --limit, or use another output"
        )
    return stored


def resize_output(
    config: JobConfig,
    state: InputState,
    spec: PredictionSpec,
    on_repair: Callable[[list[str]], None] | None = None,
) -> PredictionStore:
    """Bring a stored output to the length and the labels of the input, and return it.

    ``on_repair`` is called with the names of files that were damaged or missing, if there are any.
    """
    labels = _coordinates(state, spec)
    return resize_predictions(
        config.output, state.source.images, labels, may_shrink=True, on_repair=on_repair
    )


def write_block(
    prediction: NDArray[Any],
    store: PredictionStore,
    block: int,
    stored: StoredOutputs,
    details: Mapping[str, Json],
    notes: Sequence[str] = (),
    *findings: Finding,
) -> None:
    """Write one block's predictions and its record; the last task of the block.

    Parameters
    ----------
    prediction
        (images of the block, padded, …): output of the network, of its own type, or a bundle of
        several.
    store, block
        Where it is written.
    stored
        What is stored of the outputs.
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
    outputs = stored.outputs(prediction[: stop - start])
    where = "" if rows is None else f" in rows {rows[0]} to {rows[1] - 1}"
    warnings = [*notes, *(finding.warning for finding in findings if finding.wrong)]
    for name, values in outputs.items():
        rest = tuple(range(1, values.ndim))
        not_finite = int(np.count_nonzero(~np.isfinite(values).all(axis=rest)))
        what = "" if stored.is_single else f" in the output {name}"
        if not_finite:
            warnings.append(
                f"{not_finite} of {stop - start} images have values that are not finite{what}"
                f"{where}"
            )
    where_and_how = dict(details)
    if rows is not None:
        where_and_how["rows"] = [*rows]
    store.write(block, stored.apply(outputs), warnings=warnings, details=where_and_how)


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
    if mode in ("recheck", "uncoded") and plan.band is None:
        made["form"] = "gathered"
    if mode == "uncoded":
        made |= {"n": 1 if plan.band is None else plan.delta, "tolerate": 0, "code": "uncoded"}
    return made


def _coordinates(state: InputState, spec: PredictionSpec) -> list[Coordinate]:
    """Return the image ids, the class names and what labels time and space, as far as known."""
    arrays, sizes = spec.arrays, spec.sizes
    names = [] if spec.names is None else [spec.names]
    if not all(sizes.get(found.name, len(found.values)) == len(found.values) for found in names):
        names = []  # the axis of classes is that of another output
    taken = {array.name for array in arrays} | {CLASS_DIM}
    taken |= {found.name for found in (*names, *spec.labels)}
    others = {dim for array in arrays for dim in array.dims}
    coordinates = [
        found
        for found in state.source.coordinates(sizes, state.ids)
        if found.name not in taken and (found.name not in others or found.dims == (found.name,))
    ]
    return [*coordinates, *spec.labels, *names]
