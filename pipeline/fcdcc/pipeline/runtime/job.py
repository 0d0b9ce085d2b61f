"""A job from end to end: images in, predictions out, continued where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fcdcc.storage import StoredRun, hold, predictions_of
from fcdcc.storage.input_state import InputState
from fcdcc.storage.locations import shown as shown_place

from ..errors import output_begun
from ..formatting import counted
from ..monitoring.progress import Watcher, watch
from ..monitoring.summary import Summary, input_lines
from ..options import JobConfig, called_from_python
from ..worker.memory import return_freed_memory
from .absence import absence_text
from .checked_job import (
    CheckedJob,
    PlannedJob,
    check_job,
    check_reachable_by_workers,
    find_stored_run,
    plan_job,
    prediction_spec,
    written_run,
)
from .cluster import opening_in_words
from .earlier_work import EarlierWork, look_at_earlier_work
from .image_sample import look_at_images
from .input_changes import look_at_input
from .job_plan import apply_saved_plan, forecast_of_run
from .job_run import JobRun
from .main_guard import check_main_guard
from .output import check_continued, check_stored, create_output, make_room
from .run_counters import RunCounters
from .run_steps import RunSteps
from .tiles.mosaic import Mosaic

logger = logging.getLogger(__name__)


@called_from_python()
def run(config: JobConfig, progress: Watcher | None = None) -> Summary:
    """Run a job, or continue it, and return what happened.

    Everything is checked before anything is written. Blocks that have a record are not computed
    again. However a run ends, the next one continues from the records.

    Raises
    ------
    ModelError, InputError, PreparationError, PlanError, OptionError
        If the model, the images or the options cannot be used.
    OutputError, OutputMismatchError, LockedError
        If the output cannot be written, belongs to another job, or another run is writing it.
    OutputGoneError
        If the output is moved or deleted during the run.
    ClusterError
        If the scheduler does not answer, or went away.
    NoWorkersError
        If there is no worker that takes tasks for too long.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from fcdcc.pipeline import JobConfig, run
    >>> job = JobConfig(
    ...     model="model.pt2", input="images.zarr", output=mkdtemp() + "/out.zarr",
    ...     processes=False, workers=2, dashboard_address=":0",
    ... )
    >>> summary = run(job)
    >>> summary.status, summary.images_done
    ('complete', 20)
    """
    with finished_run(config, progress) as summary:
        return summary


@contextmanager
def finished_run(
    config: JobConfig,
    progress: Watcher | None = None,
    began: float | None = None,
    say: Callable[[str], None] | None = None,
    show: Callable[[str], None] | None = None,
) -> Iterator[Summary]:
    """Run a job as :func:`run` does; its summary is there before its cluster is closed.

    In the context everything is recorded and the output's lock is released. The cluster is closed
    when the context ends. ``began`` and ``say`` are as for :class:`.run_steps.RunSteps`, and
    ``show`` as for :func:`..monitoring.progress.watch`.
    """
    with ExitStack() as clusters:
        if progress is None:
            with watch(config.progress, show) as shown:
                steps = RunSteps(shown, began, say)
                summary = _run(config, steps, clusters)
        else:
            steps = RunSteps(progress, began, say)
            summary = _run(config, steps, clusters)
        yield replace(summary, output=shown_place(config.output), phases=steps.phases)


def _run(config: JobConfig, progress: RunSteps, clusters: ExitStack) -> Summary:
    """Run a job; its cluster is still open at the end, and ``clusters`` closes it."""
    check_reachable_by_workers(config)
    if config.scheduler is None and config.processes:
        check_main_guard()
    progress.step("reading the model")
    job = check_job(apply_saved_plan(config))
    config = job.config
    logger.info(
        "%s with %s, for %s of shape %s", config.model,
        counted(len(job.network.convolutions), "convolution"),
        counted(job.source.images, "image" if job.mosaic is None else "tile"),
        job.source.image_shape,
    )  # fmt: skip
    if job.mosaic is not None:
        return _run_tiles(job, job.mosaic, progress, clusters)
    planned: PlannedJob | None = None
    if find_stored_run(job) is None:
        planned = plan_job(job, None, progress, clusters)
    with hold(config.output):
        stored = find_stored_run(job)
        earlier: EarlierWork | None = None
        progress.step("looking at the images")
        if stored is not None:
            check_continued(stored, config, job.fingerprint)
            earlier = look_at_earlier_work(config, job.source, stored, progress.say)
            if not earlier.recorded.pending:
                return _finish(job, stored, earlier)
        state = look_at_input(job.source, config) if earlier is None else earlier.state
        try:
            if planned is None or stored is not None:
                planned = plan_job(job, stored, progress, clusters, planned)
            return _run_pending_blocks(planned, earlier, state, progress)
        except BaseException:
            clusters.close()  # while the lock is held: tasks of this run may still write blocks
            raise


def _run_tiles(job: CheckedJob, mosaic: Mosaic, progress: RunSteps, clusters: ExitStack) -> Summary:
    """Run a job with tiles: compute those that are needed, and put the predictions together."""
    progress.say(str(job.opened.tiling))
    with hold(mosaic.config.output):
        progress.step("looking at the images")
        mosaic.look(progress.say)
        stored = None if mosaic.is_new else find_stored_run(job)
        earlier = None
        if stored is not None:
            check_continued(stored, job.config, job.fingerprint)
            earlier = look_at_earlier_work(job.config, job.source, stored, None)
        if not mosaic.pending:
            tiles = None if earlier is None else earlier.store
            mosaic.bring_up_to_date()
            with output_begun():
                mosaic.clean_up(tiles)
            layout = (tiles or mosaic.store).layout
            done = np.ones(layout.blocks, np.bool_)
            return mosaic.summary(RunCounters(mosaic.fingerprint.digest, layout, done).summary())
        state = earlier.state if earlier else look_at_input(job.source, job.config, logging.DEBUG)
        try:
            planned = plan_job(job, stored, progress, clusters)
            layout = planned.spec.arrays[0].layout(job.source.images, planned.plan.batch)
            needed = mosaic.blocks_needed(layout)
            if earlier is not None:
                earlier = earlier.only(needed)
            summary = _run_pending_blocks(planned, earlier, state, progress, needed)
            with output_begun():
                tiles = predictions_of(job.config.output, written_run(job), job.source.images)
                mosaic.clean_up(tiles)
            return summary
        except BaseException:
            clusters.close()  # while the lock is held: tasks of this run may still write blocks
            raise


def _finish(job: CheckedJob, stored: StoredRun, earlier: EarlierWork) -> Summary:
    """Mend what describes an output of which every block is done, and return the summary."""
    spec = prediction_spec(job, stored.arrays[0].band)
    spec = check_stored(stored, spec, stored.batch, job.config)
    counters = RunCounters(earlier.store.fingerprint, earlier.store.layout, earlier.recorded.done)
    earlier.count(counters)
    earlier.bring_up_to_date(job.config, spec, counters)
    return counters.summary()


def _run_pending_blocks(
    job: PlannedJob,
    earlier: EarlierWork | None,
    state: InputState,
    progress: RunSteps,
    needed: NDArray[np.bool_] | None = None,
) -> Summary:
    """Compute the blocks that have no record, and return what happened.

    Parameters
    ----------
    job
        With its plan.
    earlier
        What earlier runs made; None if the output must be created, which happens only once a
        cluster is there.
    state
        The images as they are now.
    progress
        Shows how far the run is.
    needed
        (blocks,) bool: which blocks are wanted; by default all.
    """
    layout = job.spec.arrays[0].layout(job.source.images, job.plan.batch)
    if earlier is None:
        done_before = np.zeros(layout.blocks, np.bool_) if needed is None else ~needed
        pending = [int(block) for block in np.flatnonzero(~done_before)]
        digest = job.fingerprint.digest
    else:  # blocks that failed come last, because they may kill workers again
        recorded = earlier.recorded
        pending = sorted(recorded.pending, key=recorded.failed.__contains__)
        done_before, digest = recorded.done, earlier.store.fingerprint
    unit = "image" if job.mosaic is None else "tile"
    counters = RunCounters(digest, layout, done_before, job.plan.in_flight, unit)
    if not pending and job.mosaic is None:
        return counters.summary()
    if earlier is not None:
        earlier.count(counters)
    if state.listing is not None and (text := absence_text(state.listing, job.config)):
        logger.warning("chunks of the images: %s", text)
    counters.sample = look_at_images(
        job.source.whole, job.preparation, job.network, state.listing, job.opened.origin
    )
    sample = "" if counters.sample is None else str(counters.sample)
    spec = job.spec if job.mosaic is None else job.mosaic.spec
    for line in input_lines(sample, str(spec.stored)):
        progress.say(line)
    if job.known is None:  # else it is open since the plan was made
        progress.step(opening_in_words(job.config))
    cluster = job.open_cluster(job.config)
    progress.step("opening the output")
    return_freed_memory()  # used to read the model and to plan: more than the run needs
    if job.mosaic is not None:
        job.mosaic.prepare(job.plan)
    if earlier is None:
        make_room(job.config)
        store = create_output(job.config, state, job.fingerprint, job.plan, job.spec)
    else:
        store = earlier.bring_up_to_date(job.config, job.spec, counters)
    with output_begun():
        if pending:
            counters.forecast = forecast_of_run(
                job.config, job.plan, job.network, cluster, job.source, layout, pending
            )
        summary = JobRun(job, store, cluster, counters, progress, state).complete(pending)
    store.compact()
    failed = counted(summary.blocks_failed, "block")
    logger.info("the run ends: %s, %s failed", summary.status, failed)
    return summary
