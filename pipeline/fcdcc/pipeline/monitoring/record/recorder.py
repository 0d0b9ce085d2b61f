"""The recorder of a run: reports to the scheduler what the run does, and writes its journal.

The journal is written every few seconds and at the end, also when the run is interrupted. If it
cannot be written, or the scheduler has no monitoring service, the run goes on; if the output is not
there any more, the run ends.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Client

from fcdcc.coding import __version__
from fcdcc.storage import Json, OutputGoneError, PredictionStore
from fcdcc.storage.journals import trim_journals, write_journal
from fcdcc.storage.locations import shown

from ...anyk.queries import RunTotals, anyk_report, cluster_workers
from ...anyk.state_machine.history import GroupRecord, ShareRecord
from ...errors import full_line
from ...options import JobConfig
from ...plans.forecast import WorkerPool
from ...plans.plan import LayerPlan, Plan
from ..dashboard.collector import RECORDS
from ..dashboard.service import EXCHANGE
from ..late_workers import LateWorker, LateWorkers
from ..progress import RunProgress
from ..summary import Summary
from .journal import RunJournal, finite
from .loss_cost import LOSSES, BlockTimes, WorkerLoss
from .work_counter import WorkCounter

logger = logging.getLogger(__name__)

WRITE_SECONDS = 5.0
"""Least time between two writings of the journal."""

MAX_WRITE_RATIO = 300.0
"""After a writing, at least this many times its duration pass before the next one."""

MAX_LAYERS = 500
"""Layers of the plan that are in the journal."""

LAST_STATUS_SECONDS = 1.0
"""How long a run that ends early waits until the scheduler has its last status."""

MAX_DRAIN_REQUESTS = 200
"""Most requests at the end of a run for the records that the scheduler still has."""

SHOWN_OPTIONS = ("output", "model", "n", "delta", "code", "redundancy", "workers", "may_be_lost")
"""Options of a run that the page shows."""

PACKAGES = ("dask", "distributed", "torch", "zarr", "numpy", "xarray", "numcodecs", "bokeh")
"""Packages whose versions are in the journal."""


@dataclass(frozen=True)
class RunUpdate:
    """What happened in a run since its last exchange with the scheduler.

    Parameters
    ----------
    shares, groups
        Records of the any-k history.
    settled
        Groups again, once the lateness of all their shares is known.
    events
        Events of late groups and of workers that left.
    ghosts
        Shares that were given up, with when their workers were free of them.
    tasks
        Tasks that are no shares: reads, parts, glue, writes.
    totals
        Counters of the whole run, and the workers and shares that it lost.
    seen
        How many records of each kind the run has now.
    more
        Whether there are more already.
    facts
        Sums over all records so far, if they were requested.
    slow
        The workers that are slow now, in words; '' if none is.
    silent
        Workers of the cluster that have not answered for some time and were not removed.
    clock_offset
        By how many seconds this process's clock is ahead of the scheduler's, about.
    """

    shares: tuple[ShareRecord, ...] = ()
    groups: tuple[GroupRecord, ...] = ()
    settled: tuple[GroupRecord, ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    ghosts: tuple[ShareRecord, ...] = ()
    tasks: tuple[ShareRecord, ...] = ()
    totals: RunTotals = field(
        default_factory=lambda: RunTotals(
            counters={}, workers_removed=[], workers_lost=[], corrupt=[]
        )
    )
    seen: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(RECORDS, 0))
    more: bool = False
    facts: dict[str, Any] | None = None
    slow: str = ""
    silent: tuple[WorkerLoss, ...] = ()
    clock_offset: float = 0.0

    def on_our_clock(self, loss: WorkerLoss) -> WorkerLoss:
        """Return a loss with times on this process's clock."""
        shift = self.clock_offset
        return loss._replace(heard=loss.heard + shift, gone=loss.gone + shift)


def exchange(
    client: Client,
    run: str,
    status: Mapping[str, Any],
    last: RunUpdate,
    *,
    summary: bool = False,
) -> RunUpdate:
    """Report the status of a run to the scheduler, and return what happened since ``last``.

    If the scheduler has no monitoring service, or one that fails, a second request returns the
    run's totals alone.

    Parameters
    ----------
    client
        A synchronous client.
    run
        The run's id.
    status
        What the page and the metrics show of the run.
    last
        The update before, or ``RunUpdate()``.
    summary
        Whether to request the sums over all records, which may be long.

    Raises
    ------
    OSError
        If the scheduler cannot be reached.
    """
    try:
        answer: Any = client.sync(_request, client, run, status, last, summary)
        if answer is not None:  # Dask answers None to a request that it does not know
            return _update(answer)
    except Exception as error:  # noqa: BLE001 - the run goes on without it
        logger.debug("the scheduler does not monitor run %s: %r", run, error)
    return RunUpdate(totals=anyk_report(client, run, timeline=False), seen=last.seen)


async def _request(
    client: Client, run: str, status: Mapping[str, Any], last: RunUpdate, summary: bool
) -> Any:
    """Send the status of a run; return the scheduler's answer, None if it knows no such request."""
    request = getattr(client.scheduler, EXCHANGE)
    return await request(run=run, status=dict(status), seen=dict(last.seen), summary=summary)


def _update(answer: Mapping[str, Any]) -> RunUpdate:
    return RunUpdate(
        shares=tuple(ShareRecord(*row) for row in answer["shares"]),
        groups=tuple(GroupRecord(*row) for row in answer["groups"]),
        settled=tuple(GroupRecord(*row) for row in answer["settled"]),
        events=tuple(answer["events"]),
        ghosts=tuple(ShareRecord(*row) for row in answer["ghosts"]),
        tasks=tuple(ShareRecord(*row) for row in answer["tasks"]),
        totals=answer["totals"],
        seen=answer["seen"],
        more=answer["more"],
        facts=answer["facts"],
        slow=answer["slow"],
        silent=tuple(WorkerLoss(*row) for row in answer.get("silent", ())),
        clock_offset=time.time() - answer["now"] if "now" in answer else 0.0,
    )


def _tell_last(
    client: Client, run: str, status: Mapping[str, Any], last: RunUpdate
) -> RunUpdate | None:
    """Send the scheduler the last status of a run; return None if it does not answer soon."""
    told = {name: finite(value) for name, value in status.items()} | {"is_over": True}
    if client.status == "running":
        with suppress(Exception):  # it may be gone, or not answer
            answer: Any = client.sync(
                _request, client, run, told, last, True, callback_timeout=LAST_STATUS_SECONDS
            )
            return None if answer is None else _update(answer)
    return None


def _state_after(error: BaseException) -> str:
    """Return the state of a run that an error has ended."""
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


class RunRecorder:
    """Reports a run to the scheduler and keeps its journal.

    Parameters
    ----------
    client
        Of the run's cluster.
    store
        Its output.
    journal
        What it leaves; filled here.
    plan
        How it computes.
    progress
        Returns how far it is now; called if the run ends early.
    band_of
        As for :class:`.work_counter.WorkCounter`.
    place
        The output that has the journal; by default the run's own.
    blocks
        When blocks began and ended, on this process's clock; losses of workers are noted in it.
    """

    def __init__(
        self,
        client: Client,
        store: PredictionStore,
        journal: RunJournal,
        plan: Plan,
        progress: Callable[[], RunProgress],
        band_of: Callable[[int], tuple[Plan, float]] | None = None,
        place: PredictionStore | None = None,
        blocks: BlockTimes | None = None,
    ) -> None:
        self.journal = journal
        self._blocks = blocks or BlockTimes()
        self._progress = progress
        self.work = WorkCounter(plan, self._images_of, band_of)
        self._client = client
        self._layout = store.layout
        self._place = place or store
        self._last = RunUpdate()
        self._late = LateWorkers()
        self._next_write = 0.0
        names = {str(layer.layer): layer.name for layer in plan.layers[:MAX_LAYERS]}
        self._constant: dict[str, Any] = {
            "layers": names,
            "condition_limit": self.work.condition_limit,
            **{name: journal.about.get(name) for name in SHOWN_OPTIONS},
        }
        _trim_journals(self._place)

    def observe(self, progress: RunProgress, failures: Mapping[int, str]) -> RunTotals:
        """Report progress to the scheduler and record what happened; return the run's totals.

        This is the one request of a run to the scheduler per tick. The journal is written every
        few seconds.
        """
        write = time.monotonic() >= self._next_write
        self._exchange(progress, "running", summary=write)
        self.journal.failures = dict(failures)
        if write:
            self.write()
        return self._last.totals

    def drain(self, progress: RunProgress) -> RunTotals:
        """Record all that the scheduler still has of the run, which is over; return its totals."""
        for _ in range(MAX_DRAIN_REQUESTS):
            self._exchange(progress, "running", {"is_over": True}, summary=True)
            if not self._last.more:
                break
        self.work.close()
        return self._last.totals

    @property
    def slow(self) -> str:
        """The workers that are slow, in words; '' if none is."""
        return self._last.slow

    @property
    def waiting_saved(self) -> float:
        """Seconds in which some group would have waited for a share that was given up."""
        return round(float(self.journal.facts.get("saved_at_once", 0.0)), 3)

    @property
    def worker_loss(self) -> dict[str, Any] | None:
        """What workers that were lost or did not answer cost; see :class:`.loss_cost.LossCost`."""
        cost = self._blocks.cost(time.time(), self.silent)
        return None if cost is None else cost.to_dict()

    @property
    def silent(self) -> tuple[WorkerLoss, ...]:
        """Workers that do not answer and were not removed, with times on this process's clock."""
        return tuple(map(self._last.on_our_clock, self._last.silent))

    @property
    def late_workers(self) -> tuple[LateWorker, ...]:
        """The workers whose tasks were started again elsewhere, those with the most first."""
        return self._late.found(self.journal.facts.get("workers", ()), self._last.silent)

    @property
    def tasks_waiting(self) -> int:
        """Late tasks that may have been late because another worker did not answer."""
        return self._late.waiting(self._last.silent)

    @property
    def workers_silent(self) -> tuple[str, ...]:
        """Addresses of workers that do not answer any more and were not removed."""
        lost = set(self._last.totals["workers_lost"])
        return tuple(loss.worker for loss in self._last.silent if loss.worker not in lost)

    def finish(self, progress: RunProgress, summary: Summary, failures: Mapping[int, str]) -> None:
        """Report how the run ended, and write its journal for the last time."""
        self.journal.failures = dict(failures)
        self.journal.summary = summary.to_dict()
        self.journal.state = summary.status
        final = {
            "extra_work": summary.extra_work,
            "corrupt_shares": len(summary.corrupt_shares),
            "seconds": summary.seconds,
            "work_seconds": summary.phases.get("work"),
            "waiting_saved": summary.waiting_saved,
            "is_over": True,
        }
        try:
            self._exchange(progress, summary.status, final, summary=True)
        except OSError as error:  # all blocks are done: nothing more is needed of the scheduler
            logger.info("the scheduler cannot show how run %s ended: %s", self.journal.run, error)
        self.write()

    def give_up(self, error: BaseException) -> None:
        """Write why the run ended early; the scheduler is told if it answers within a second."""
        self.journal.state = _state_after(error)
        self.journal.error = "" if self.journal.state == "interrupted" else full_line(error)
        status = self._status(replace(self._progress(), blocks_in_flight=0))
        known = {name: value for name, value in self._constant.items() if name != "layers"}
        self.journal.status = {**known, **status, "state": self.journal.state}
        with suppress(OutputGoneError):
            self.write()  # now already: the scheduler may not answer
            if self._tell_state():
                self.write()

    def _tell_state(self) -> bool:
        """Send the scheduler the last status, for its page; return whether it answered.

        It answers with the sums over all records, so that they are as new as the number of blocks.
        """
        status = {**self._constant, **self.journal.status}
        update = _tell_last(self._client, self.journal.run, status, self._last)
        if update is None:
            return False
        self._take(update)
        return True

    def write(self) -> None:
        """Write the journal as it is.

        Raises
        ------
        OutputGoneError
            If the output is not where it was; nothing is written in its place then.
        """
        before, promised = time.monotonic(), self.journal.every
        self.journal.updated = time.time()
        self.journal.worker_loss = self.worker_loss
        try:
            self._place.check_place()
            write_journal(self._place.folder, self.journal.name, self.journal.members())
        except OutputGoneError:
            raise
        except OSError as error:
            logger.warning("what happened in this run cannot be kept for the report: %s", error)
        after = time.monotonic()
        self.journal.every = max(WRITE_SECONDS, MAX_WRITE_RATIO * (after - before))
        self._next_write = after + promised  # as the journal that was written says

    def _exchange(
        self,
        progress: RunProgress,
        state: str,
        final: Mapping[str, Any] | None = None,
        *,
        summary: bool = False,
    ) -> None:
        """Report the status of the run, and record what happened since the last time."""
        status = {**self._constant, **self._status(progress), "state": state, **(final or {})}
        self.journal.status = {name: value for name, value in status.items() if name != "layers"}
        plain = {name: finite(value) for name, value in status.items()}
        self._take(exchange(self._client, self.journal.run, plain, self._last, summary=summary))

    def _take(self, update: RunUpdate) -> None:
        """Record what happened since the last exchange."""
        self._last = update
        self.work.take(update.shares, update.groups)
        self.journal.add_shares(update.shares)
        self.journal.add_groups(update.settled)
        self.journal.add_ghosts(update.ghosts)
        self.journal.add_tasks(update.tasks)
        self.journal.events.extend(update.events)
        for event in update.events:
            self._late.add(event)
            if (how := event.get("event")) in LOSSES:
                gone = float(event["time"])
                heard = float(event.get("heard", gone))
                loss = WorkerLoss(str(event["worker"]), heard, gone, str(how))
                self._blocks.note_loss(update.on_our_clock(loss))
        if update.facts is not None:
            self.journal.facts = update.facts

    def _status(self, progress: RunProgress) -> dict[str, Any]:
        return {
            "blocks_total": progress.blocks_total,
            "blocks_done": progress.blocks_done,
            "blocks_skipped": progress.blocks_skipped,
            "blocks_failed": progress.blocks_failed,
            "blocks_in_flight": progress.blocks_in_flight,
            "images_done": progress.images_done,
            "seconds": progress.seconds,
            "seconds_planned": progress.seconds_planned,
            "is_plan_rough": progress.is_plan_rough,
            "work_seconds": progress.work_seconds,
            "seconds_left": progress.seconds_left,
            "extra_work": self.work.extra_work,
            "max_condition_number": self.work.max_condition_number,
            "conditions": [*self.work.recent_conditions],
            "corrupt_shares": progress.corrupt_shares,
        }

    def _images_of(self, block: int) -> int:
        start, stop = self._layout.bounds(block)
        return stop - start


@contextmanager
def starting(client: Client, run: str, config: JobConfig, plan: Plan) -> Iterator[None]:
    """Tell the scheduler, for its page, that a run starts, and if the body ends it early."""
    known = about(config, plan, client)
    status = {name: known.get(name) for name in SHOWN_OPTIONS}
    try:
        exchange(client, run, {**status, "state": "starting"}, RunUpdate())
        yield
    except BaseException as error:
        _tell_last(client, run, {**status, "state": _state_after(error)}, RunUpdate())
        raise


@contextmanager
def recording(
    client: Client,
    store: PredictionStore,
    run: str,
    config: JobConfig,
    plan: Plan,
    progress: Callable[[], RunProgress],
    band_of: Callable[[int], tuple[Plan, float]] | None = None,
    place: PredictionStore | None = None,
    blocks: BlockTimes | None = None,
) -> Iterator[RunRecorder]:
    """Record a run while the body runs; its journal is written however the body ends.

    ``progress``, ``band_of``, ``place`` and ``blocks`` are as for :class:`RunRecorder`.
    """
    told = {**about(config, plan, client), "unit": progress().unit}
    journal = RunJournal(run, time.time(), told, _layers(plan))
    recorder = RunRecorder(client, store, journal, plan, progress, band_of, place, blocks)
    recorder.write()
    try:
        yield recorder
    except BaseException as error:
        recorder.give_up(error)
        raise


def about(config: JobConfig, plan: Plan, client: Client) -> dict[str, Json]:
    """Return names, options and versions of a run, without credentials."""
    versions: dict[str, Json] = {"fcdcc": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    workers = len(cluster_workers(client))
    return {
        "model": os.path.basename(shown(config.model)),  # noqa: PTH119 - it may be a URL
        "input": shown(config.input),
        "output": shown(config.output),
        "n": plan.n,
        "delta": plan.delta,
        "tolerate": plan.tolerate,
        "code": plan.code,
        "split": plan.split,
        "redundancy": plan.redundancy,
        "verify": plan.verify,
        "dtype": plan.dtype,
        "batch": plan.batch,
        "band": plan.band,
        "in_flight": plan.in_flight,
        "store": config.store,
        "workers": workers,
        "may_be_lost": _may_be_lost(plan, workers),
        "speeds": None if plan.forecast is None else plan.forecast.speeds.source,
        "versions": versions,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _may_be_lost(plan: Plan, workers: int) -> int | None:
    """Return how many workers may be lost at a time; None where that is not a number of workers.

    Nothing may be coded, and threads of one process are not lost one by one.
    """
    is_one_process = plan.forecast is not None and plan.forecast.workers.in_one_process
    if not plan.protected_layers or is_one_process:
        return None
    return WorkerPool(workers).lost(plan.n, plan.tolerate) if workers else 0


def _layers(plan: Plan) -> list[Json]:
    """Return a row per convolution of the plan."""
    total = plan.multiply_adds
    return [_layer(layer, total) for layer in plan.layers[:MAX_LAYERS]]


def _layer(layer: LayerPlan, total: int) -> dict[str, Json]:
    geometry, code = layer.geometry, layer.code
    size = "×".join(map(str, geometry.spatial))
    return {
        "layer": layer.layer,
        "name": layer.name,
        "shape": f"{geometry.in_channels}→{geometry.out_channels}, {size}",
        "code": None if code is None else code.name,
        "k_a": None if code is None else code.k_a,
        "k_b": None if code is None else code.k_b,
        "split": layer.split,
        "reason": layer.reason,
        "multiply_adds": layer.multiply_adds,
        "part": layer.multiply_adds / total if total else 0.0,
    }


def _trim_journals(store: PredictionStore) -> None:
    """Remove the journals of the oldest runs, if that is possible."""
    try:
        trim_journals(store.folder)
    except OSError as error:
        logger.info("old journals cannot be removed: %s", error)
