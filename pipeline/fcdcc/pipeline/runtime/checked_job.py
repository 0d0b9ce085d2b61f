"""A job before it runs: its checked model, images and options, and its plan."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from fcdcc.storage import (
    DamageError,
    Fingerprint,
    ImageSource,
    OutputGoneError,
    Preparation,
    StoredRun,
    inspect_output,
)
from fcdcc.storage.locations import shown as shown_place

from ..errors import OptionError
from ..model.network import Network
from ..options import JobConfig
from ..planner.bands import row_axis
from ..planner.cost.known_workers import SPEEDS_SAVED, calibration_file
from ..plans.plan import Plan
from ..plans.row_layout import analysed
from .class_order import class_order_warning
from .cluster import Cluster, cluster_started_early, open_cluster, opening_in_words
from .job_plan import OpenedJob, job_plan, known_workers, open_job, preparation_of
from .model_preparation import with_model_classes
from .output import (
    PredictionSpec,
    check_stored,
    heads_of,
    is_same_job,
    job_fingerprint,
    outputs_in_words,
    stored_outputs,
)
from .run_steps import RunSteps
from .stored_outputs import StoredOutputs
from .tiles.mosaic import Mosaic

logger = logging.getLogger(__name__)

MEMORY = "memory:"
"""How the URLs begin of what fsspec keeps in the memory of a process."""


@dataclass(frozen=True)
class CheckedJob:
    """A job whose model, images and options are checked; nothing is written or started yet.

    With tiles it is the job of the tiles, and ``mosaic`` what becomes of their predictions.
    """

    config: JobConfig
    opened: OpenedJob
    network: Network
    source: ImageSource
    preparation: Preparation
    stored: StoredOutputs
    fingerprint: Fingerprint
    mosaic: Mosaic | None


@dataclass(frozen=True)
class PlannedJob(CheckedJob):
    """A checked job with its plan, with what it stores of every image, and with its cluster.

    ``known`` is the cluster if the plan is for its workers. ``open_cluster`` returns the cluster
    once it has started, for the options that the plan has changed.
    """

    plan: Plan
    spec: PredictionSpec
    known: Cluster | None
    open_cluster: Callable[[JobConfig], Cluster]


def check_reachable_by_workers(config: JobConfig) -> None:
    """Check that the output is not in the memory of this process if workers are others.

    Raises
    ------
    OptionError
        If it is.
    """
    if config.scheduler is None:
        is_here = not config.processes
    else:
        is_here = config.scheduler.startswith("inproc:")
    if not is_here and shown_place(config.output).startswith(MEMORY):
        raise OptionError(
            f"the output {shown_place(config.output)} would be in the memory of one process, and "
            "the workers of this job are processes of their own, each with a memory of its own: "
            "give a path or the URL of a store that all of them reach, or --threads (in Python "
            "processes=False), so that the workers are threads of this process"
        )


def check_job(config: JobConfig) -> CheckedJob:
    """Open and check the model and the images of a job."""
    opened = open_job(config)
    config, network, source = opened.config, opened.network, opened.source
    preparation = preparation_of(config, source)
    heads = heads_of(opened.model, source.image_shape, config, config.classes)
    mosaic = None
    if opened.tiling is not None:
        mosaic = Mosaic.of(config, opened.model, source.whole, opened.tiling, preparation)
        config = mosaic.config_of_tiles
    stored = stored_outputs(config, heads)
    fingerprint = job_fingerprint(network, source, preparation, config, stored)
    return CheckedJob(config, opened, network, source, preparation, stored, fingerprint, mosaic)


def find_stored_run(job: CheckedJob) -> StoredRun | None:
    """Return the stored output that this run continues; None if it creates a new output.

    With ``--restart`` another job's output, or a damaged one, makes room for a new output.
    """
    try:
        stored = inspect_output(job.config.output)
    except DamageError:
        if job.config.restart:
            return None
        raise
    if stored is not None and job.config.restart and not is_same_job(stored, job.fingerprint):
        return None
    return stored


def plan_job(
    job: CheckedJob,
    stored: StoredRun | None,
    progress: RunSteps,
    clusters: ExitStack,
    before: PlannedJob | None = None,
) -> PlannedJob:
    """Return a job with its plan, and log the warnings of the plan.

    Parameters
    ----------
    job
        The job.
    stored
        The output that it continues; None if it creates one.
    progress
        Shows what is done.
    clusters
        Closes a cluster that is opened here: a running one, whose workers the plan is for, or a
        local one, which starts while the plan is made.
    before
        The job as it was planned before another run created its output.
    """
    config = job.config
    cluster: Callable[[JobConfig], Cluster]
    if before is not None:
        known, cluster = before.known, before.open_cluster
    elif config.calibrate or config.scheduler is not None:
        progress.step(opening_in_words(config))
        known = opened = clusters.enter_context(open_cluster(config))

        def running(_: JobConfig) -> Cluster:
            return opened

        cluster = running
    else:
        known, cluster = None, clusters.enter_context(cluster_started_early(config))
    workers = known_workers(config, known, progress)
    if config.calibrate and calibration_file().exists():
        progress.say(SPEEDS_SAVED % calibration_file())
    progress.step("planning", "plan")
    plan = job_plan(config, job.network, job.source, workers, stored)
    heads = {name: stored_form.head for name, stored_form in job.stored.members}
    plan = replace(plan, prediction=outputs_in_words(heads, job.network))
    for warning in plan.warnings:
        logger.warning(warning)
    logger.debug("the plan: %s", plan)
    if known is None and plan.forecast is not None:
        config = config.model_copy(update={"workers": plan.forecast.workers.count})
    spec = prediction_spec(job, plan.band)
    if warning := class_order_warning(job.source, spec):
        logger.warning(warning)
    spec.arrays[0].layout(job.source.images, plan.batch)  # an error if there are too many blocks
    if stored is not None:
        spec = check_stored(stored, spec, plan.batch, config)
    return PlannedJob(
        config, job.opened, job.network, job.source, job.preparation, job.stored, job.fingerprint,
        job.mosaic, plan, spec, known, cluster,
    )  # fmt: skip


def prediction_spec(job: CheckedJob, band: int | None) -> PredictionSpec:
    """Return what a job stores of every image, in blocks of bands of this size."""
    image_shape = job.source.image_shape
    bands = None if band is None else (row_axis(analysed(job.network, image_shape)), band)
    spec = PredictionSpec.of(job.config, job.source, job.stored, bands)
    return with_model_classes(spec, job.opened.model)


def written_run(job: CheckedJob) -> StoredRun:
    """Return the output that this run has created or continued.

    Raises
    ------
    OutputGoneError
        If it is not there any more.
    """
    stored = inspect_output(job.config.output)
    if stored is None:
        raise OutputGoneError(
            f"{shown_place(job.config.output)} is not there any more: run again to begin anew"
        )
    return stored
