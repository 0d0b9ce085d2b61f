"""A job from end to end: images in, predictions out, continued where it stopped."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import numpy as np
from dask._task_spec import Task
from dask.typing import Key
from distributed import Client, span
from distributed.comm.core import CommClosedError

from fcdcc.storage import (
    DamageError,
    Fingerprint,
    ImageSource,
    OutputError,
    PredictionStore,
    Preparation,
    StoredRun,
    hold,
    inspect_output,
)

from ..anyk.client_loop import LOST
from ..anyk.keys import task_key
from ..errors import ClusterLostError
from ..graph import Block, build_block, build_retry
from ..halo import Rows
from ..model.interpreter import network_shapes
from ..model.network import Network
from ..monitoring.progress import RunProgress, Watcher, watch
from ..monitoring.record.recorder import keep
from ..monitoring.summary import Summary
from ..options import JobConfig
from ..planner.bands import reading_note, row_axis
from ..planner.cost.known_workers import KnownWorkers
from ..plans.plan import Plan
from ..plans.row_layout import analysed, row_layout
from ..prediction_format import StoredForm
from ..worker.executable import Executable
from ..worker.executable_plugin import ExecutablePlugin, install, uninstall
from ..worker.kernels import reading
from .block_runner import DEADLY, BlockJob, BlockOutcome, reason, run_blocks
from .cluster import Cluster, noticing_loss, open_cluster
from .job_plan import apply_saved_plan, calibrated, forecast_of_run, job_plan, open_job
from .output import (
    PredictionSpec,
    continued_plan,
    create_output,
    grow_output,
    job_fingerprint,
    make_room,
    write,
)
from .plugins import register_plugins
from .retries import Attempt, RetryPolicy
from .run_counters import RunCounters
from .stall_guard import StallGuard, describe, patience, waiting_tasks

logger = logging.getLogger(__name__)

TICK = 0.5
"""Seconds after which the state of the cluster is looked at even if no block was finished."""

FIRST = Attempt()

FUTILE = 3
"""Times that a scheduler may be lost without a block between, before a run ends with it."""


@dataclass(frozen=True)
class _Job:
    """A job that has been checked: nothing is written or started yet."""

    config: JobConfig
    network: Network
    source: ImageSource
    preparation: Preparation
    fingerprint: Fingerprint
    run: str


def run(config: JobConfig, watcher: Watcher | None = None) -> Summary:
    """Run a job, or continue it, and return what happened.

    Everything is checked before anything is written. Blocks that are recorded are not done
    again. Whatever ends a run, the next one goes on from the records.

    Raises
    ------
    ModelError, InputError, PreparationError, PlanError, OptionError
        If the model, the images or the options cannot be used.
    OutputError, OutputMismatchError, LockedError
        If the output cannot be written, is another job's, or another run is writing it.
    ClusterError
        If the scheduler does not answer, or went away.
    """
    if watcher is None:
        with watch(config.progress) as shown:
            return run(config, shown)
    watcher.step("reading the model")
    job = _check(apply_saved_plan(config))
    config = job.config
    before = _output_to_continue(job)
    with ExitStack() as stack:
        cluster = None
        if config.calibrate or (before is None and config.scheduler is not None):
            watcher.step("starting the cluster")
            cluster = stack.enter_context(open_cluster(config))
        workforce = calibrated(config, cluster, watcher)
        watcher.step("planning")
        plan = _plan(job, before, workforce)
        for warning in (*plan.warnings, reading_note(job.source, plan)):
            if warning is not None:
                logger.warning(warning)
        answers = _answers(job, plan)
        with hold(config.output):
            stored = _output_to_continue(job)
            if (stored is None) != (before is None):  # another run began or ended meanwhile
                plan = _plan(job, stored, workforce)
            store = None if stored is None else grow_output(config, job.source, answers)
            return _compute(job, plan, answers, store, watcher, cluster)


def _output_to_continue(job: _Job) -> StoredRun | None:
    """Return what is at the output; None where nothing is, or what is there makes room."""
    try:
        stored = inspect_output(job.config.output)
    except DamageError:
        if job.config.restart:
            return None
        raise
    if stored is not None and job.config.restart and stored.fingerprint != job.fingerprint:
        return None
    return stored


def _plan(job: _Job, stored: StoredRun | None, workforce: KnownWorkers) -> Plan:
    """Return the plan that the output was begun with, or a new one where there is none."""
    if stored is None:
        return job_plan(job.config, job.network, job.source, workforce)
    return continued_plan(stored, job.config, job.fingerprint)


def _answers(job: _Job, plan: Plan) -> PredictionSpec:
    """Return what is stored of the network's output."""
    network, image_shape = job.network, job.source.image_shape
    shape = network_shapes(network, (plan.batch, *image_shape))[network.output][1:]
    bands = None
    if plan.band is not None:
        bands = (row_axis(analysed(network, image_shape)), plan.band)
    return PredictionSpec.of(job.config, job.source, shape, plan.dtype, bands)


def _check(config: JobConfig) -> _Job:
    """Open and check all that a job reads."""
    network, source = open_job(config)
    preparation = Preparation(config.scale, config.mean, config.std, config.dtype)
    preparation.check(source.channels)
    fingerprint = job_fingerprint(network, source, preparation, config)
    return _Job(config, network, source, preparation, fingerprint, _run_id())


def _run_id() -> str:
    """Return what tells the tasks of this run from those of others."""
    return uuid.uuid4().hex[:8]


def _compute(
    job: _Job,
    plan: Plan,
    answers: PredictionSpec,
    store: PredictionStore | None,
    watcher: Watcher,
    opened: Cluster | None,
) -> Summary:
    """Run the blocks that are not done; the output is created once the cluster is there."""
    layout = answers.arrays[0].layout(job.source.images, plan.batch)
    progress = None if store is None else store.progress()
    pending = list(range(layout.blocks))
    if progress is not None:  # what failed comes last: it may end workers again
        pending = sorted(progress.pending, key=progress.failed.__contains__)
    before = np.zeros(layout.blocks, np.bool_) if progress is None else progress.done
    tally = RunCounters(job.fingerprint.digest, layout, before, plan.in_flight)
    if not pending:
        return tally.summary()
    watcher.step("starting the cluster")
    with nullcontext(opened) if opened is not None else open_cluster(job.config) as cluster:
        if store is None or progress is None:
            make_room(job.config)
            store = create_output(job.config, job.source, job.fingerprint, plan, answers)
        else:
            store.clear(progress)
        tally.forecast = forecast_of_run(job.config, plan, job.network, cluster, job.source.images)
        summary = _run_through(job, plan, store, pending, cluster, tally, watcher)
    store.compact()
    logger.info("the run ends: %s, %d blocks failed", summary.status, summary.blocks_failed)
    return summary


def _run_through(
    job: _Job,
    plan: Plan,
    store: PredictionStore,
    pending: Sequence[int],
    cluster: Cluster,
    tally: RunCounters,
    watcher: Watcher,
) -> Summary:
    """Take the blocks through the cluster, however often its scheduler is started again."""
    left, futile = pending, 0
    tally.start()
    while True:
        before, workers = len(left), cluster.workers
        try:
            return _run_pending(job, plan, store, left, cluster, tally, watcher)
        except ClusterLostError as error:
            if cluster.local is not None or futile == FUTILE:
                raise
            logger.warning("%s", error)
            cluster.reconnect(max(workers, 1))
            done = store.progress().done
            tally.resume(block for block in pending if done[block])
            left = [b for b in pending if not done[b] and b not in tally.failed]
            futile = 0 if len(left) < before else futile + 1
            logger.warning(
                "going on with %d workers: %d blocks are left", cluster.workers, len(left)
            )
            # What the old run left on a scheduler that was not gone is none of the new one's.
            job = replace(job, run=_run_id())


def _run_pending(
    job: _Job,
    plan: Plan,
    store: PredictionStore,
    pending: Sequence[int],
    cluster: Cluster,
    tally: RunCounters,
    watcher: Watcher,
) -> Summary:
    """Take the blocks through the cluster, count what happens, and return it.

    Raises
    ------
    ClusterLostError
        If the scheduler went away.
    """
    client = cluster.client
    executable = Executable(job.network, plan)
    plugin = ExecutablePlugin(executable, job.run, job.config.torch_threads)
    with noticing_loss(client):
        _warn_of_few_workers(plan, cluster.workers)
        watcher.step("sending the model to the workers")
        with_plugin = _register(client)
        install(client, plugin)
    watcher.begin(job.run)
    logger.info(
        "run %s begins: %d of %d blocks are to be done, %d images each, %d at a time",
        job.run, len(pending), store.layout.blocks, plan.batch, plan.in_flight,
    )  # fmt: skip
    band_of = None if plan.band is None else partial(_band_of, job.network, plan, store)
    observed = time.monotonic()
    guard = StallGuard(patience(), observed)
    try:
        make = partial(_block_job, job, plan, store, executable)
        again = RetryPolicy(make, plan.tolerate > 1 and plan.band is None, cluster.addresses)
        jobs = _block_jobs(make, pending)
        with (
            noticing_loss(client),
            keep(client, store, job.run, job.config, plan, band_of) as keeper,
            span("fcdcc", job.run),
        ):
            for outcome in run_blocks(client, jobs, plan.in_flight, TICK, again, with_plugin):
                if outcome is not None:
                    tally.add(outcome)
                    _note(store, outcome)
                if outcome is None or time.monotonic() - observed > TICK:
                    tally.observe(keeper.observe(tally.advance(), tally.failed))
                    observed = time.monotonic()
                    cluster.replace(tally.take_removed())
                    cluster.tidy()
                    _tell_of_stall(guard, tally, cluster, job.run, observed)
                watcher.advance(tally.advance(keeper.ledger.extra_work, keeper.slow))
            _tell_of_rest(tally.advance())
            tally.observe(keeper.drain(tally.advance()))
            tally.finish(client)
            summary = tally.summary(keeper.ledger)
            keeper.finish(tally.advance(), summary, tally.failed)
            return summary
    finally:
        if client.status == "running":
            uninstall(client, plugin)


def _register(client: Client) -> bool:
    """Register the any-k plugin; where the scheduler does not take it, say so and return False."""
    try:
        register_plugins(client)
    except Exception as error:  # whatever hinders it, there is another way
        if client.status != "running" or isinstance(error, CommClosedError):
            raise
        logger.warning("the any-k plugin cannot be registered (%s): %s", error, LOST)
        return False
    return True


def _warn_of_few_workers(plan: Plan, workers: int) -> None:
    """Say what is protected where workers hold several shares of a group."""
    if plan.coded_layers and 0 < workers < plan.n:
        each = ceil(plan.n / workers)
        logger.warning(
            "%d workers for n = %d shares: one holds up to %d of a layer, so %d of them may be "
            "lost at a time; start %d workers for all of --tolerate %d",
            workers, plan.n, each, plan.tolerate // each, plan.n, plan.tolerate,
        )  # fmt: skip


def _tell_of_stall(
    guard: StallGuard, tally: RunCounters, cluster: Cluster, run: str, now: float
) -> None:
    """Say what a run waits for, if nothing has moved for long."""
    tasks = waiting_tasks(cluster.client, run) if guard.wants_tasks(now) else None
    still = guard.look(tally.movement, tasks, now)
    if still is not None:
        logger.warning("%s", describe(still, tasks or (), cluster.workers))


def _tell_of_rest(advance: RunProgress) -> None:
    """Say that blocks were given up, if some were."""
    left = advance.blocks_total - advance.blocks_done - advance.blocks_skipped
    left -= advance.blocks_failed
    if left:
        logger.error(
            "%d blocks are left: none could be made, and %d of them ended every worker that they "
            "were given to, even by themselves; use a smaller --batch, or workers with more memory",
            left, DEADLY,
        )  # fmt: skip


def _note(store: PredictionStore, outcome: BlockOutcome) -> None:
    """Tell of a finished block; record one that failed, for the next run to do it again."""
    start, stop = store.layout.bounds(outcome.block)
    rows = store.layout.rows_of(outcome.block)
    what = f"images {start} to {stop - 1}"
    if rows is not None:
        what += f", rows {rows[0]} to {rows[1] - 1}"
    if outcome.error is None:
        logger.info("block %d (%s) is done", outcome.block, what)
        return
    why = reason(outcome.error)
    logger.error("block %d (%s) failed: %s", outcome.block, what, why)
    try:
        store.record_failure(outcome.block, why)
    except OutputError as error:  # the disk is full, say: without any record it is done again
        logger.error("%s", error)


def _band_of(
    network: Network, plan: Plan, store: PredictionStore, block: int
) -> tuple[Plan, float]:
    """Return a plan as the band has it that a block is, and its part of the prediction."""
    rows = Rows(*(store.layout.rows_of(block) or (0, 1)))
    return row_layout(network, plan, rows).plan, rows.size / (store.layout.rows or 1)


def _block_jobs(make: Callable[[int], BlockJob], pending: Iterable[int]) -> Iterator[BlockJob]:
    """Yield the graphs of blocks, each when there is room for it."""
    for block in pending:
        logger.debug("block %d begins", block)
        yield make(block)


def _block_job(
    job: _Job,
    plan: Plan,
    store: PredictionStore,
    executable: Executable,
    block: int,
    trial: Attempt = FIRST,
) -> BlockJob:
    """Return the graph of one block, from reading its images to writing its record."""
    start, stop = store.layout.bounds(block)
    rows = store.layout.rows_of(block)
    band = None if rows is None else Rows(*rows)

    def reader(key: Key, first: int, last: int, pad_to: int, some: Rows | None = None) -> Task:
        where = (start + first, start + last, pad_to, some)
        return Task(key, reading.read, job.source, job.preparation, *where)

    held = replace(executable.ref, band=band)
    given = (job.network, plan, Block(held, job.run, block, stop - start, reader), band)
    if trial.manner is None:
        graph = build_block(*given)
    else:
        graph = build_retry(*given, trial.manner, trial.attempt, trial.allowed_workers)
    last = Task(
        task_key("write", job.run, len(job.network.stages), block, trial.attempt),
        write,
        graph.prediction,
        store,
        block,
        StoredForm.parse(job.config.store),
        trial.notes,
        *graph.checks,
    )
    return BlockJob(block, {**graph.tasks, last.key: last}, last.key)
