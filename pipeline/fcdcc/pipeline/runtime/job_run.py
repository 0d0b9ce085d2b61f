"""The blocks of a job on a cluster: computed, recorded, and watched over."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from functools import partial
from math import ceil

from dask._task_spec import Task
from distributed import Client, span

from fcdcc.storage import InputError, Json, OutputError, OutputGoneError, PredictionStore
from fcdcc.storage.block_inputs import INPUT, BlockInput
from fcdcc.storage.input_state import InputState
from fcdcc.storage.locations import shown as shown_place
from fcdcc.storage.records import ABSENT

from ..anyk.client_loop import LOST
from ..anyk.keys import ASSEMBLY_SUFFIX, task_key
from ..anyk.queries import anyk_waiting, cluster_workers
from ..errors import ClusterLostError, PluginRefusedError
from ..formatting import counted
from ..graph import Block, StoreReader, build_block, build_retry
from ..halo import Rows
from ..monitoring.progress import RunProgress
from ..monitoring.record.loss_cost import WorkerLoss
from ..monitoring.record.recorder import RunRecorder, recording, starting
from ..monitoring.summary import Summary
from ..options import AUTO, JobConfig
from ..plans.forecast import WorkerPool
from ..plans.plan import Plan
from ..plans.row_layout import row_layout
from ..worker.executable import Executable
from ..worker.executable_plugin import (
    LATE_PATIENCE_SECONDS,
    SILENT_SECONDS,
    TASK_MODULES,
    ExecutablePlugin,
    SilentWorkers,
    install,
    uninstall,
)
from .block_runner import MAX_DEADLY_BLOCKS, BlockJob, BlockOutcome, failure_reason, run_blocks
from .checked_job import PlannedJob
from .cluster import Cluster, translate_connection_loss
from .job_plan import stored_chunks
from .output import how_made, write_block
from .plugins import register_plugins
from .retries import FIRST_ATTEMPT, Attempt, RetryPolicy
from .run_counters import RunCounters
from .run_steps import RunSteps
from .silence_watch import SilenceWatch
from .stall_guard import StallGuard, describe_stall, stall_patience_seconds
from .tiles.mosaic import Mosaic
from .worker_watch import WorkerWatch, worker_patience_seconds, worker_states

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Time after which the scheduler is polled even if no block has ended."""

MAX_FUTILE_RECONNECTS = 3
"""Reconnections in a row that bring no finished block, after which a lost scheduler ends a run."""


class JobRun:
    """Computes blocks of a job on a cluster, records them, and watches over the cluster.

    Parameters
    ----------
    job
        With its plan.
    store
        The output, which exists.
    cluster
        Where the blocks are computed; after a lost connection the run reconnects it.
    counters
        Count what happens, over all reconnections.
    progress
        Shows how far the run is.
    state
        The images as they were before any was read.
    """

    def __init__(
        self,
        job: PlannedJob,
        store: PredictionStore,
        cluster: Cluster,
        counters: RunCounters,
        progress: RunSteps,
        state: InputState,
    ) -> None:
        self._job = job
        self._store = store
        self._cluster = cluster
        self._counters = counters
        self._progress = progress
        self._executable = Executable(job.network, job.plan, job.config.engine)
        self._chunks = stored_chunks(job.config, job.source, job.plan)
        self._has_plugin = True
        self._state = state
        self._inputs: dict[int, BlockInput] = {}
        """What blocks that have not ended are made from, as it was before their first attempt."""
        self._id = _new_run_id()
        self._silent: SilentWorkers | None = None
        """Workers that were silent when the executable was sent."""
        self._silence = SilenceWatch()
        self._unit = "image" if job.mosaic is None else "tile"

    def complete(self, pending: Sequence[int]) -> Summary:
        """Compute blocks, reconnecting whenever the scheduler is lost; return the summary.

        Raises
        ------
        ClusterLostError
            If a local cluster is lost, or a running one does not come back or is lost again
            and again without any block finished in between.
        NoWorkersError
            If there is no worker that takes tasks for too long.
        OutputGoneError
            If the output is not where it was.
        """
        left, futile_reconnects = pending, 0
        self._counters.start()
        while True:
            workers = self._cluster.workers
            try:
                return self._compute(left)
            except ClusterLostError as error:
                is_local = self._cluster.local is not None
                if is_local or futile_reconnects == MAX_FUTILE_RECONNECTS:
                    raise
                logger.warning("%s", error)
                self._cluster.reconnect(max(workers, 1))
            done = self._store.progress().done
            self._counters.resume(block for block in pending if done[block])
            failed = self._counters.failed
            before, left = left, [b for b in pending if not done[b] and b not in failed]
            futile_reconnects = 0 if len(left) < len(before) else futile_reconnects + 1
            logger.warning(
                "going on with %s: %s left", counted(self._cluster.workers, "worker"),
                counted(len(left), "block is", "blocks are"),
            )  # fmt: skip
            # A scheduler that was not gone may still have tasks of the old run id.
            self._id = _new_run_id()

    def _compute(self, pending: Sequence[int]) -> Summary:
        """Compute blocks until all have ended, and return the summary.

        Raises
        ------
        ClusterLostError
            If the scheduler went away.
        """
        client, job, plan = self._cluster.client, self._job, self._job.plan
        modules = (*TASK_MODULES, write_block.__module__)
        plugin = ExecutablePlugin(self._executable, self._id, job.config.torch_threads, modules)
        with translate_connection_loss(client):
            is_automatic = job.config.n == AUTO and job.config.tolerate == AUTO
            planned_for = 0 if plan.forecast is None else plan.forecast.workers.count
            if not is_automatic or planned_for > self._cluster.workers:
                _warn_of_few_workers(plan, self._cluster.workers)
            self._progress.step("sending the model to the workers")
            self._has_plugin = _has_plugins(client)
            is_local = self._cluster.local is not None
            with ExitStack() as stack:
                if self._has_plugin:
                    stack.enter_context(starting(client, self._id, self._recorded_config, plan))
                if self._has_plugin and self._cluster.page is not None:
                    self._progress.say(f"the dashboard is at {self._cluster.page}")
                silent = install(client, plugin, same_machine=is_local)
                self._cluster.warn_of_silent(silent)
                self._silent = SilentWorkers(client, plugin, silent)
                self._silence = SilenceWatch(a for a, s in silent.items() if s > SILENT_SECONDS)
                if not is_local:
                    self._cluster.note_names()
        if not self._has_plugin:  # the loop in the client keeps nothing from one block to the next
            self._chunks = replace(self._chunks, shared=False)
        self._progress.begin(self._id)
        self._counters.begin_work()
        logger.info(
            "run %s begins: %d of %s to be computed, %s each, %d at a time", self._id, len(pending),
            counted(self._store.layout.blocks, "block is", "blocks are"),
            counted(plan.batch, self._unit), plan.in_flight,
        )  # fmt: skip
        band_plan = None if plan.band is None else self._band_plan
        began = time.monotonic()
        watch = WorkerWatch(worker_patience_seconds(), began)
        guard = StallGuard(stall_patience_seconds(), began)
        try:
            can_locate = plan.tolerate > 1 and plan.band is None
            addresses, can_compare = self._cluster.addresses, plan.compares_shares
            retry = RetryPolicy(self._block_job, can_locate, addresses, can_compare)
            jobs = self._block_jobs(pending)
            outcomes = run_blocks(
                client, jobs, plan.in_flight, POLL_SECONDS, retry, self._has_plugin
            )
            with (
                translate_connection_loss(client),
                self._recording(client, band_plan) as recorder,
                span("fcdcc", self._id),
            ):
                with closing(outcomes):  # cancels the blocks in flight if the run is interrupted
                    self._follow(outcomes, self._block_ended, recorder, watch, guard)
                if job.mosaic is not None:
                    self._put_together(job.mosaic, recorder, watch, guard)
                return self._finish(recorder)
        except KeyboardInterrupt as interruption:
            progress = self._counters.progress()
            done = progress.blocks_done + progress.blocks_skipped
            if done and job.mosaic is None:  # else the blocks are of tiles
                total = counted(progress.blocks_total, "block")
                interruption.add_note(f"at least {done:,} of {total} done")
            raise
        finally:
            # A local cluster is closed at the end of the run, whose workers need no cleaning.
            if self._cluster.local is None and client.status == "running":
                uninstall(client, plugin)

    def _recording(
        self, client: Client, band_plan: Callable[[int], tuple[Plan, float]] | None
    ) -> AbstractContextManager[RunRecorder]:
        """Return what records the run, in the output that the user named."""
        place = None if self._job.mosaic is None else self._job.mosaic.store
        return recording(
            client, self._store, self._id, self._recorded_config, self._job.plan,
            self._counters.progress, band_plan, place, self._counters.times,
        )  # fmt: skip

    @property
    def _recorded_config(self) -> JobConfig:
        """The job as the user gave it: with tiles, its output is not the one that is written to."""
        return self._job.config if self._job.mosaic is None else self._job.mosaic.config

    def _put_together(
        self, mosaic: Mosaic, recorder: RunRecorder, watch: WorkerWatch, guard: StallGuard
    ) -> None:
        """Make the bands of images whose tiles are done."""
        self._progress.say("putting the predictions of the tiles together")
        jobs = mosaic.jobs(self._store, self._id + ASSEMBLY_SUFFIX, self._job.plan)
        outcomes = run_blocks(
            self._cluster.client, jobs, max(1, self._cluster.workers), POLL_SECONDS,
            with_plugin=self._has_plugin,
        )  # fmt: skip
        with closing(outcomes):
            self._follow(outcomes, partial(mosaic.ended, tiles=self._store), recorder, watch, guard)

    def _follow(
        self,
        outcomes: Iterable[BlockOutcome | None],
        ended: Callable[[BlockOutcome], None],
        recorder: RunRecorder,
        watch: WorkerWatch,
        guard: StallGuard,
    ) -> None:
        """Call ``ended`` with every block that ends, and poll the scheduler regularly."""
        polled = time.monotonic()
        for outcome in outcomes:
            if outcome is not None:
                ended(outcome)
            if outcome is None or time.monotonic() - polled > POLL_SECONDS:
                progress = self._counters.progress()
                self._counters.observe(recorder.observe(progress, self._counters.failed))
                polled = time.monotonic()
                removed = self._counters.take_removed()
                self._cluster.replace_workers(removed)
                self._cluster.warn_of_removed(removed)
                self._warn_of_silent(recorder.silent)
                self._cluster.trim_key_cache()
                if self._silent is not None:
                    self._silent.look()
                self._check_movement(watch, guard, polled)
            extra_work, slow = recorder.work.extra_work, recorder.slow
            self._progress.advance(self._counters.progress(extra_work, slow))

    def _warn_of_silent(self, silent: Sequence[WorkerLoss]) -> None:
        """Warn of workers that have fallen silent, of each once."""
        if self._silence.is_due(silent, now := time.time()):
            workers = cluster_workers(self._cluster.client)
            fresh = self._silence.fresh(silent, workers, now)
            self._cluster.warn_of_silent(fresh, at_start=False)

    def _block_ended(self, outcome: BlockOutcome) -> None:
        """Count and record how a block ended."""
        self._inputs.pop(outcome.block, None)
        self._counters.add(outcome)
        self._log_and_record(outcome)

    def _finish(self, recorder: RunRecorder) -> Summary:
        """Complete the counters and the record of the run, and return its summary."""
        counters = self._counters
        self._progress.end()
        _log_given_up_blocks(counters.progress())
        counters.observe(recorder.drain(counters.progress()))
        self._cluster.warn_of_removed(counters.take_removed())
        counters.finish(self._cluster.client)
        summary = replace(
            counters.summary(recorder.work),
            run=self._id,
            output=shown_place(self._job.config.output),
            prediction=str(self._job.spec.stored),
            dashboard=self._cluster.page,
            phases=self._progress.phases,
            insured=_insured(self._job.plan),
            waiting_saved=recorder.waiting_saved,
            worker_loss=recorder.worker_loss,
            late_workers=recorder.late_workers,
            tasks_waiting=recorder.tasks_waiting,
            workers_silent=recorder.workers_silent,
        )
        if self._job.mosaic is not None:
            summary = self._job.mosaic.summary(summary)
        recorder.finish(counters.progress(), summary, counters.failed)
        return summary

    def _log_and_record(self, outcome: BlockOutcome) -> None:
        """Log how a block ended; record a failure, so that the next run retries the block."""
        layout = self._store.layout
        start, stop = layout.bounds(outcome.block)
        rows = layout.rows_of(outcome.block)
        content = f"{self._unit}s {start} to {stop - 1}"
        if rows is not None:
            content += f", rows {rows[0]} to {rows[1] - 1}"
        if outcome.error is None:
            logger.info("block %d (%s) is done", outcome.block, content)
            return
        reason = failure_reason(outcome.error)
        logger.error("block %d (%s) failed: %s", outcome.block, content, reason)
        try:
            self._store.record_failure(outcome.block, reason)
        except OutputGoneError:  # no other block can be written either
            raise
        except OutputError as error:  # a full disk, say; the next run retries it anyway
            logger.error("%s", error)

    def _check_movement(self, watch: WorkerWatch, guard: StallGuard, now: float) -> None:
        """Log what the run waits for, if nothing has moved for a long time.

        Raises
        ------
        NoWorkersError
            If there is no worker that takes tasks for too long.
        """
        movement = self._counters.movement
        if self._job.mosaic is not None:
            movement = movement, self._job.mosaic.movement
        if watch.wants_workers(movement, now):
            message = watch.check(worker_states(self._cluster.client), now)
            if message is not None:
                logger.warning("%s", message)
        if watch.is_waiting:
            return
        tasks, noted = None, None
        if guard.wants_tasks(now):
            tasks = anyk_waiting(self._cluster.client, self._id) if self._has_plugin else None
            noted = tasks or ()
        still_seconds = guard.check(movement, noted, now)
        if still_seconds is not None:
            last = max((layer.layer for layer in self._job.plan.layers), default=None)
            logger.warning("%s", describe_stall(still_seconds, tasks, self._cluster.workers, last))

    def _band_plan(self, block: int) -> tuple[Plan, float]:
        """Return the plan of the band that a block is, and its fraction of the prediction."""
        layout = self._store.layout
        rows = Rows(*(layout.rows_of(block) or (0, 1)))
        plan = row_layout(self._job.network, self._job.plan, rows).plan
        return plan, rows.size / (layout.rows or 1)

    def _block_jobs(self, pending: Iterable[int]) -> Iterator[BlockJob]:
        """Yield the graphs of blocks; each is built when the runner takes it.

        With ``--absent fail``, blocks that need chunks that are not stored fail here.
        """
        for block in pending:
            logger.debug("block %d begins", block)
            job = self._block_job(block)
            absent = self._counters.absent.get(block)
            if absent is None or self._job.config.absent == "redo":
                self._counters.times.begin(block, time.time())
                yield job
                continue
            error = InputError(
                f"chunks of its images are not stored ({absent}); run the job again when these are "
                "there, or with --absent redo"
            )
            outcome = BlockOutcome(block, error)
            self._counters.add(outcome, was_begun=False)
            self._log_and_record(outcome)

    def _block_job(self, block: int, attempt: Attempt = FIRST_ATTEMPT) -> BlockJob:
        """Return the graph of one block, from reading its images to writing its record."""
        job, layout = self._job, self._store.layout
        start, stop = layout.bounds(block)
        rows = layout.rows_of(block)
        band = None if rows is None else Rows(*rows)
        chunks = self._chunks
        if attempt.mode is not None:  # it runs alone, and reads its images once more
            chunks = replace(chunks, shared=False)
        read = StoreReader.of(job.source, job.preparation, self._id, block, start, job.plan, chunks)
        patience = LATE_PATIENCE_SECONDS if self._silent and self._silent.addresses else 0.0
        executable = replace(self._executable.ref, band=band, patience_seconds=patience)
        content = Block(executable, self._id, block, stop - start, read)
        if attempt.mode is None:
            graph = build_block(job.network, job.plan, content, band)
        else:
            graph = build_retry(
                job.network, job.plan, content, band,
                attempt.mode, attempt.number, attempt.allowed_workers,
            )  # fmt: skip
        if block not in self._inputs:
            self._inputs[block] = self._state.block_input(start, stop, _rows_read(read, band))
        details: dict[str, Json] = {
            "made": how_made(job.plan, attempt.mode),
            INPUT: self._inputs[block].as_json(),
        }
        listing = self._state.listing
        regions = [job.source.stored_region(*region) for region in read.regions]
        absent = None if listing is None else listing.absent(regions)
        if absent is not None and absent.count:
            self._counters.absent[block] = absent
            details[ABSENT] = absent.as_json()
        write = Task(
            task_key("write", self._id, len(job.network.stages), block, attempt.number),
            write_block,
            graph.prediction,
            self._store,
            block,
            job.stored,
            details,
            attempt.notes,
            *graph.checks,
        )
        kept = tuple(read.kept(stop - start)) if attempt.mode is None else None
        return BlockJob(block, {**read.tasks, **graph.tasks, write.key: write}, write.key, kept)


def _rows_read(read: StoreReader, band: Rows | None) -> tuple[int, int] | None:
    """Return the rows of the images that a block needs, first and last + 1; None for all."""
    rows = [rows for _, _, rows in read.regions if rows is not None]
    if band is None or len(rows) < len(read.regions) or not rows:
        return None
    return min(part.start for part in rows), max(part.stop for part in rows)


def _insured(plan: Plan) -> dict[str, Json]:
    """Return what the summary says of what could be lost."""
    return {
        "n": plan.n,
        "delta": plan.delta,
        "redundancy": plan.redundancy,
        "convolutions": len(plan.layers),
        "protected": len(plan.protected_layers),
        "points": len(plan.coded_layers),
    }


def _new_run_id() -> str:
    """Return an id for task keys, by which the tasks of runs are distinguished."""
    return uuid.uuid4().hex[:8]


def _has_plugins(client: Client) -> bool:
    """Register the scheduler plugins; return False, with a warning, if the scheduler refuses."""
    try:
        register_plugins(client)
    except PluginRefusedError as error:
        logger.warning("%s: %s", error, LOST)
        return False
    return True


def _warn_of_few_workers(plan: Plan, workers: int) -> None:
    """Warn if workers hold several shares of a group, and say how many workers may be lost."""
    if plan.coded_layers and 0 < workers < plan.n:
        each = ceil(plan.n / workers)
        logger.warning(
            "%s for n = %d shares: one worker holds up to %d shares of a layer, so %d of "
            "the workers may be lost at a time; start %d workers to use --tolerate %d in full",
            counted(workers, "worker"), plan.n, each,
            WorkerPool(workers).lost(plan.n, plan.tolerate), plan.n, plan.tolerate,
        )  # fmt: skip


def _log_given_up_blocks(progress: RunProgress) -> None:
    """Log how many blocks were given up, if any."""
    ended = progress.blocks_done + progress.blocks_skipped + progress.blocks_failed
    left = progress.blocks_total - ended
    if left:
        logger.error(
            "%s left: none could be made, and %d of them killed every worker that ran "
            "them, even alone; use a smaller --batch, or workers with more memory",
            counted(left, "block is", "blocks are"), MAX_DEADLY_BLOCKS,
        )  # fmt: skip
