"""The scheduler plugin: passes what happens on to the state machine, and carries out its answers.

All decisions are made in :mod:`..state_machine.state`, all changes of Dask's own state are made in
:mod:`.graph_edits`. This module decides when they are called::

    Dask's scheduler ── hooks ──▶ plugin ── events ──▶ state machine
           ▲                        │ ▲                     │
           └──── graph edits ───────┘ └──── instructions ───┘

The hooks run in the middle of the scheduler's transitions, where nothing but the placement of tasks
may be changed. Everything else is decided and done in a callback of the event loop, when the
scheduler has finished.

A change of a task is only put into a list at first, because handing over many changes at once is
much cheaper than one by one. The list is handed to the state machine before any other event,
decision or answer, and at the latest at the next tick.
"""

from __future__ import annotations

import itertools
import logging
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import dask.config
from dask.utils import parse_timedelta
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.metrics import time
from distributed.scheduler import heartbeat_interval
from tornado.ioloop import PeriodicCallback

from fcdcc.pipeline.anyk.keys import parse_key

from ..queries import SchedulerRPC
from ..state_machine import events
from ..state_machine.invariants import check_state
from ..state_machine.silence_rules import FixedSilence, LearnedSilence, SilenceRule
from ..state_machine.state import AnyKState
from ..tasks import AnyK
from ..worker import READY, TOPIC, parse_notice
from . import graph_edits
from .dask_contract import NEWEST, check_contract, is_untested
from .fetches import Fetches
from .groups import find_groups, place_glue, place_lane
from .transfers import Transfers
from .transitions import (
    Change,
    current_events,
    ignore_removed_workers,
    ignore_stale,
    task_event,
)

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Recs, Scheduler, TaskState, WorkerState


logger = logging.getLogger(__name__)

NAME = "fcdcc-anyk"

CLOCK_SECONDS = 0.25
"""Seconds between two ticks in clusters of up to 750 workers, at most."""

MIN_CLOCK_SECONDS = 0.1
"""Seconds between two ticks, at least."""

CLOCK_SECONDS_PER_WORKER = 0.0002
"""Seconds that every worker adds to :data:`MIN_CLOCK_SECONDS`, because a tick costs some
microseconds for each."""

IDLE_SECONDS = 0.75
"""Seconds between two looks at the workers while nothing is waited for, at least."""

MAX_TRACEBACKS = 20
"""Number of tracebacks of errors inside the plugin that are kept, the latest."""

_UNEXPECTED = ("handle-worker-cleanup", "worker-send-comm-fail", "send-all-comm-fail")
"""How Dask's stimulus ids begin when a worker left unexpectedly."""


class Failures:
    """Errors inside the plugin, which Dask would only log.

    They do not reach the scheduler; they are logged, counted, and reported to clients. ``texts``
    has the latest tracebacks.
    """

    def __init__(self) -> None:
        self.count = 0
        self.texts: deque[str] = deque(maxlen=MAX_TRACEBACKS)

    def caught(self, where: object) -> _Catching:
        """Return a context in which an error is noted instead of raised."""
        return _Catching(self, where)

    def note(self, where: object) -> None:
        """Note the error that is being handled."""
        self.count += 1
        self.texts.append(f"in {where}: {traceback.format_exc()}")
        logger.exception("the any-k plugin failed in %s", where)


class _Catching:
    """Not a ``contextlib`` generator, which would cost more than most hooks do."""

    def __init__(self, failures: Failures, where: object) -> None:
        self._failures, self._where = failures, where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        if kind is None or not issubclass(kind, Exception):
            return False
        self._failures.note(self._where)
        return True


class AnyKPlugin(SchedulerPlugin):
    """Runs any-k nodes as soon as they have enough: ``client.register_plugin(AnyKPlugin())``.

    Registering it again, by any client, changes nothing. Without it any-k nodes wait for all
    their shares.

    Parameters
    ----------
    silent_after
        Seconds of silence after which a worker that a run needs counts as gone; by default the
        configuration value ``fcdcc.anyk.silent-after``. Without either the time is learned from
        how regularly heartbeats arrive, and is at least 3 s.
    grace
        The same for a worker that has not returned any result yet, which may be importing
        libraries. It is also the most that is learned. By default ``fcdcc.anyk.grace``, or 15 s.

    A worker that was removed does not come back: when it answers again it learns that the
    scheduler does not know it, and shuts down. A worker that runs or holds something that is not of
    a graph with any-k nodes is never removed.

    Examples
    --------
    >>> from fcdcc.pipeline.anyk import Share, any_k
    >>> _ = client.register_plugin(AnyKPlugin())  # client: a distributed.Client
    >>> graph = {key: Share(key, abs, -1) for key in ("a", "b", "c")}
    >>> graph["some"] = any_k("some", len, ["a", "b", "c"], 2)
    >>> client.get(graph, "some") >= 2
    True
    """

    name = NAME
    idempotent = True

    def __init__(
        self, silent_after: float | str | None = None, grace: float | str | None = None
    ) -> None:
        self.rule = _silence_rule(silent_after, grace)

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to work for a scheduler, with the tasks that it has already.

        Raises
        ------
        UnsupportedDaskError
            If the scheduler differs from what the plugin relies on.
        """
        check_contract()
        if is_untested(version("distributed")):
            logger.warning(
                "distributed %s is newer than %s, the newest that the any-k plugin was tested "
                "with; all that it relies on looks as it should",
                version("distributed"), NEWEST,
            )  # fmt: skip
        if scheduler.no_workers_timeout:
            logger.warning(
                "distributed.scheduler.no-workers-timeout is set: a share on standby that is not "
                "needed within %s seconds will fail; set it to null",
                scheduler.no_workers_timeout,
            )
        self.scheduler = scheduler
        self.state = AnyKState(self.rule)
        self.failures = Failures()
        self._guarded: set[Key] = set()
        """The tasks of graphs with any-k nodes."""
        self._result_times: dict[str, float] = {}
        """When the last result of any task arrived from each worker."""
        self._block_numbers = itertools.count()
        self._changes: list[Change] = []
        self._settling = False
        self._last_look = 0.0
        """When the workers were last looked at."""
        if NAME in scheduler.periodic_callbacks:  # of a plugin that was unregistered
            scheduler.periodic_callbacks[NAME].stop()
        self._clock = PeriodicCallback(self._tick, CLOCK_SECONDS * 1000)
        for address in scheduler.workers:
            self.add_worker(scheduler, address)
        self._take_graph(list(scheduler.tasks))
        rpc = SchedulerRPC(self.state, self._guarded, self.failures.texts, self.catch_up)
        rpc.install(scheduler)
        ignore_stale(scheduler, self._guarded)
        ignore_removed_workers(scheduler)
        self._fetches = Fetches(scheduler)
        self._transfers = Transfers(scheduler)
        scheduler.periodic_callbacks[NAME] = self._clock
        self._clock.start()

    # -------------------------------------------------------------------- hooks

    def update_graph(
        self,
        scheduler: Scheduler,  # noqa: ARG002 - the hook's signature
        *,
        tasks: list[Key],
        **kwargs: Any,  # noqa: ARG002 - the hook's signature
    ) -> None:
        """Look for any-k nodes in a graph that arrived."""
        with self.failures.caught("update_graph"):
            self._take_graph(tasks)

    def transition(
        self,
        key: Key,
        start: str,
        finish: str,
        *args: Any,  # noqa: ARG002 - the hook's signature
        stimulus_id: str,
        **kwargs: Any,
    ) -> None:
        """Put a task's change into the list; this runs for every task, several times."""
        now, worker = time(), ""
        if finish == "memory" and "worker" in kwargs:
            worker = kwargs["worker"]
            self._result_times[worker] = now
        if key not in self._guarded:
            return
        if finish == "processing":
            task = self.scheduler.tasks[key]
            worker = "" if task.processing_on is None else task.processing_on.address
            if parse_key(key) is not None:
                graph_edits.forbid_stealing(self.scheduler, task)
        elif finish == "released" and (start == "processing" or self._lacks_workers(key)):
            self._report_departures(key, stimulus_id)
        elif finish == "forgotten":
            self._guarded.discard(key)
        elif worker and self.state.knows_node(key):  # before its glue is assigned
            with self.failures.caught("place glue"):
                place_glue(self.scheduler.tasks[key], worker)
        self._changes.append(Change(now, key, finish, worker, kwargs.get("startstops", ())))
        if not self._settling and self._may_decide(key, finish):
            self._settle_soon()

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Take note of a worker that joined."""
        with self.failures.caught("add_worker"):
            known = scheduler.workers[worker]
            running = known in scheduler.running
            self._handle(events.WorkerJoined(time(), worker, known.host, known.nthreads, running))

    def remove_worker(
        self,
        scheduler: Scheduler,  # noqa: ARG002 - the hook's signature
        worker: str,
        *,
        stimulus_id: str,
        **kwargs: Any,  # noqa: ARG002 - the hook's signature
    ) -> None:
        """Take note that a worker is gone."""
        with self.failures.caught("remove_worker"):
            self._result_times.pop(worker, None)
            self._handle(events.WorkerLeft(time(), worker, _left_as_expected(stimulus_id)))
            self._transfers.abort_later(worker, time())

    def log_event(self, topic: str, msg: Any) -> None:
        """Take note of what a task has found out about shares."""
        if topic == TOPIC and isinstance(msg, dict):
            with self.failures.caught("log_event"):
                notice = parse_notice(time(), msg)
                if notice is not None:
                    self._handle(notice)

    def valid_workers_downscaling(
        self,
        scheduler: Scheduler,  # noqa: ARG002 - the hook's signature
        workers: list[WorkerState],
    ) -> list[WorkerState]:
        """Return the workers that adaptive scaling may take: those that no run needs."""
        with self.failures.caught("valid_workers_downscaling"):
            return [worker for worker in workers if not self._is_needed(worker.address)]
        return workers

    def catch_up(self) -> None:
        """Hand the list of changes to the state machine."""
        changes, self._changes = self._changes, []
        for change in changes:
            try:
                event = self._event_of(change)
                if event is not None:
                    self.state.handle(event)  # never answered with instructions at once
            except Exception:  # noqa: BLE001 - as in Failures.caught, which would cost too much
                self.failures.note("transition")
        if self.state.unsettled:
            self._settle_soon()

    def _may_decide(self, key: Key, finish: str) -> bool:
        """Return whether a node, a lost share or a backup task may have waited for a change."""
        if finish in ("memory", "waiting") and self.state.knows_share(key):
            return True
        if finish == "waiting" and self.state.knows_node(key):
            return True
        return self.state.backup_tasks.knows(key)

    def _event_of(self, change: Change) -> events.Event | None:
        """Return what a change means to the state machine, if anything."""
        if self.state.knows_share(change.key):
            return task_event(change, "share")
        if self.state.knows_node(change.key):
            return task_event(change, "node")
        if change.state == "processing" or self.state.tracks(change.key):
            return task_event(change, "task")
        return None

    # ------------------------------------------------------------------- graphs

    def _take_graph(self, keys: Iterable[Key]) -> None:
        """Add the groups of the any-k nodes among some tasks."""
        tasks = [self.scheduler.tasks[key] for key in keys]
        specs = [task.run_spec for task in tasks]
        nodes = [spec for spec in specs if isinstance(spec, AnyK)]
        if not nodes:
            return
        self.catch_up()
        if not self._guarded:
            self._look_idle(time())
        self._guarded.update(task.key for task in tasks)
        self._update_running_workers()
        fresh = [node for node in nodes if not self.state.knows_node(node.key)]
        groups = find_groups(fresh, self._needed_otherwise(fresh), self._block_numbers)
        for group in groups:
            self._defer_shares(group, len(tasks))
        self._handle(events.GroupsAdded(time(), groups))
        for group in groups:
            self._guarded.update(share.key for share in group.shares)  # some may be older
            for share in group.shares:
                for event in current_events(self.scheduler.tasks[share.key], "share"):
                    self._handle(event)
            for node in group.nodes:
                for event in current_events(self.scheduler.tasks[node.key], "node"):
                    self._handle(event)
        if len(fresh) < len(nodes):
            self.scheduler.loop.add_callback(self._forget_orphans, tasks)

    def _defer_shares(self, group: events.GroupSpec, number: int) -> None:
        """Let a worker compute a group's shares after everything else of the graph.

        Only shares can be given up, so a slow one must not be in front of what other workers wait
        for. Tasks that serve parity alone come after those that serve other shares, too. ``number``
        is the number of tasks in the graph.
        """
        for spec in group.shares:
            share = self.scheduler.tasks[spec.key]
            graph_edits.defer(share, 2 * number)
            known = parse_key(spec.key)
            if known is not None and known.stage == "parity":
                for other in share.dependencies:
                    if len(other.dependents) == 1:
                        graph_edits.defer(other, number)

    def _needed_otherwise(self, nodes: Iterable[AnyK]) -> set[Key]:
        """Return the standby shares that clients or tasks other than any-k nodes need."""
        shares = {key for node in nodes for p, key in node.shares.items() if p in node.standby}
        tasks = (self.scheduler.tasks[key] for key in shares)
        return {
            task.key
            for task in tasks
            if task.who_wants or not all(isinstance(d.run_spec, AnyK) for d in task.dependents)
        }

    def _forget_orphans(self, tasks: Iterable[TaskState]) -> None:
        with self.failures.caught("orphans"):
            known = (task for task in tasks if self.scheduler.tasks.get(task.key) is task)
            self._follow(graph_edits.forget_orphans(known), "orphans")

    # ------------------------------------------------------------------ workers

    def _update_running_workers(self) -> None:
        """Report workers that have begun to take tasks, or ceased to."""
        for address, known in self.state.workers.by_address.items():
            running = self.scheduler.workers.get(address) in self.scheduler.running
            if running != known.running:
                self._handle(events.WorkerStatus(time(), address, running))

    def _report_departures(self, key: Key, stimulus_id: str) -> None:
        """Report workers that left, before Dask calls the hook and places their shares anew."""
        with self.failures.caught("transition"):
            if self.state.knows_share(key):
                known = self.state.workers.by_address
                for address in [a for a in known if a not in self.scheduler.workers]:
                    expected = _left_as_expected(stimulus_id)
                    self._handle(events.WorkerLeft(time(), address, expected))

    def _lacks_workers(self, key: Key) -> bool:
        """Return whether a departure is not reported yet: quick, for every result.

        It may be that of the worker that has a share. Numbers of workers do not tell that, where
        another worker has joined.
        """
        known, present = self.state.workers.by_address, self.scheduler.workers
        share = self.state.registry.shares.get(key)
        has_left = share is not None and share.worker in known and share.worker not in present
        return has_left or len(known) > len(present)

    def _is_needed(self, address: str) -> bool:
        """Return whether a worker runs or holds anything of a graph with any-k nodes."""
        return any(task.key in self._guarded for task in self._tasks_of(address))

    def _is_shared(self, address: str) -> bool:
        """Return whether a worker runs or holds anything else."""
        return any(task.key not in self._guarded for task in self._tasks_of(address))

    def _held_by(self, address: str) -> list[Key]:
        """Return the results of graphs with any-k nodes that a worker holds."""
        worker = self.scheduler.workers.get(address)
        held = () if worker is None else worker.has_what
        return [task.key for task in held if task.key in self._guarded]

    def _tasks_of(self, address: str) -> Iterator[TaskState]:
        """Yield the tasks that a worker runs, and those of which it has the results."""
        worker = self.scheduler.workers[address]
        return itertools.chain(worker.processing, worker.has_what)

    # -------------------------------------------------------------------- clock

    def _tick(self) -> None:
        with self.failures.caught("tick"):
            self.catch_up()
            now = time()
            self._transfers.abort_due(now, self.state.workers.answers)
            if not self._guarded:
                if now - self._last_look >= IDLE_SECONDS:
                    self._look_idle(now)
                return
            self._update_running_workers()
            self._last_look = now
            interval = heartbeat_interval(len(self.scheduler.workers))
            workers = tuple(self._observations(now, interval))
            expected = self._clock.callback_time / 1000
            self._carry_out(self.state.handle(events.Tick(now, expected, interval, workers)))
            self._follow(graph_edits.run_stranded(self.scheduler, self._guarded), "stranded")
            self._clock.callback_time = 1000 * self._seconds_to_next_tick()

    def _look_idle(self, now: float) -> None:
        """Have the state machine note which workers answer, although nothing is waited for."""
        self._last_look = now
        expected = IDLE_SECONDS + self._clock.callback_time / 1000
        interval = heartbeat_interval(len(self.scheduler.workers))
        workers = tuple(self._observations(now, interval))
        self.state.handle(events.Idle(now, expected, interval, workers))

    def _seconds_to_next_tick(self) -> float:
        """Return the seconds to the next tick: fewer for short shares, more for many workers."""
        least = MIN_CLOCK_SECONDS + CLOCK_SECONDS_PER_WORKER * len(self.scheduler.workers)
        return max(least, min(CLOCK_SECONDS, self.state.lateness.shortest / 4))

    def _observations(self, now: float, interval: float) -> Iterator[events.WorkerObservation]:
        for address, worker in self.scheduler.workers.items():
            result = self._result_times.get(address, 0.0)
            silence = now - max(worker.last_seen, result)
            silent = silence > interval
            needed, shared = (
                silent and bool(self._guarded) and self._is_needed(address),
                silent and self._is_shared(address),
            )
            metrics = worker.metrics or {}
            cancelled = metrics.get("task_counts", {}).get("cancelled", 0)
            processing = len(worker.processing)
            yield events.WorkerObservation(
                address, worker.last_seen, result, cancelled, needed, processing, shared,
                ready=READY in metrics,
            )  # fmt: skip

    # ------------------------------------------------------- events and instructions

    def _handle(self, event: events.Event) -> None:
        """Hand an event to the state machine, place the shares that it says, and settle later."""
        self.catch_up()
        for instruction in self.state.handle(event):
            if isinstance(instruction, events.PlaceShare):
                self._place(instruction)
            elif isinstance(instruction, events.HoldShare):
                graph_edits.hold_back(self.scheduler.tasks[instruction.share])
        if self.state.unsettled:
            self._settle_soon()

    def _settle_soon(self) -> None:
        """Let the state machine decide when the scheduler has finished what it is doing."""
        if not self._settling:
            self._settling = True
            self.scheduler.loop.add_callback(self._settle)

    def _settle(self) -> None:
        self.catch_up()
        self._settling = False
        if self.state.unsettled:
            with self.failures.caught("settle"):
                self._carry_out(self.state.handle(events.Settle(time())))

    def _carry_out(self, instructions: Iterable[events.Instruction]) -> None:
        """Carry out instructions; the scheduler is not in the middle of anything."""
        recommendations: Recs = {}
        ended_backups: list[Key] = []
        bypassed: dict[str, list[Key]] = {}
        for instruction in instructions:
            with self.failures.caught(instruction):
                if isinstance(instruction, events.UseBackup | events.CancelBackup):
                    ended_backups.append(instruction.backup)
                elif isinstance(instruction, events.BypassWorker):
                    bypassed[instruction.worker] = self._held_by(instruction.worker)
                recommendations |= self._edit(instruction)
        self._follow(recommendations, "settle")
        for worker, held in bypassed.items():
            self._transfers.abort(worker, time())
            self._fetches.begin_anew(held)
        for backup in ended_backups:  # one that is used is needed by its task now
            graph_edits.release_backup(self.scheduler, backup, f"{NAME}-backup-{time()}")
        if self.scheduler.validate:
            check_state(self.state)

    def _edit(self, instruction: events.Instruction) -> Recs:
        """Carry out one instruction and return Dask's recommendations for what follows."""
        tasks = self.scheduler.tasks
        if isinstance(instruction, events.DisconnectNode):
            shares = [tasks[key] for key in instruction.shares]
            return graph_edits.disconnect(tasks[instruction.node], shares)
        if isinstance(instruction, events.StartShare):
            return graph_edits.start_held(tasks[instruction.share], instruction.worker)
        if isinstance(instruction, events.StartBackup):
            self._guarded.add(instruction.backup)
            task, backup = tasks[instruction.task], instruction.backup
            return graph_edits.start_backup(self.scheduler, task, backup, instruction.worker)
        if isinstance(instruction, events.UseBackup):
            return graph_edits.use_backup_result(tasks[instruction.task], tasks[instruction.backup])
        if isinstance(instruction, events.PlaceShare):
            self._place(instruction)
        if isinstance(instruction, events.RemoveWorker):
            logger.warning("%s: removing it", instruction.reason)
            self.scheduler.log_event(NAME, {"event": "remove-worker", "worker": instruction.worker})
            self.scheduler.loop.add_callback(self._remove, instruction.worker)
        if isinstance(instruction, events.BypassWorker):
            logger.warning(
                "%s: it has tasks of others and stays; what it has of coded graphs is computed "
                "elsewhere", instruction.reason,
            )  # fmt: skip
            self.scheduler.log_event(NAME, {"event": "bypass-worker", "worker": instruction.worker})
            return graph_edits.bypass(
                self.scheduler, instruction.worker, self._guarded, f"{NAME}-bypass-{time()}"
            )
        if isinstance(instruction, events.StopUsingWorker):
            logger.warning(
                "worker %s returned wrong shares %d times and gets no more tasks; check its "
                "memory and processor, and restart it",
                instruction.worker, instruction.offences,
            )  # fmt: skip
            graph_edits.pause_worker(
                self.scheduler, instruction.worker, f"{NAME}-distrust-{time()}"
            )
            self._update_running_workers()
        return {}

    def _place(self, instruction: events.PlaceShare) -> None:
        share = self.scheduler.tasks.get(instruction.share)
        if share is not None:
            place_lane(share, instruction.worker, self.scheduler.tasks)

    def _follow(self, recommendations: Recs, what: str) -> None:
        if recommendations:
            stimulus_id = f"{NAME}-{what}-{time()}"
            self.scheduler.transitions(recommendations, stimulus_id)
            self.scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=stimulus_id)

    async def _remove(self, worker: str) -> None:
        with self.failures.caught("remove"):
            stimulus_id, held = f"{NAME}-silent-{time()}", self._held_by(worker)
            await self.scheduler.remove_worker(worker, close=False, stimulus_id=stimulus_id)
            self._fetches.begin_anew(held)


def _left_as_expected(stimulus_id: str) -> bool:
    """Return whether a worker left in order, by the stimulus id that Dask gives."""
    return not stimulus_id.startswith(_UNEXPECTED)


def _silence_rule(silent_after: float | str | None, grace: float | str | None) -> SilenceRule:
    """Return the rule by which workers count as gone: learned, unless a time is given."""
    seconds = _seconds(silent_after, "fcdcc.anyk.silent-after")
    most = _seconds(grace, "fcdcc.anyk.grace")
    most = LearnedSilence().grace if most is None else most
    return LearnedSilence(grace=most) if seconds is None else FixedSilence(seconds, most)


def _seconds(given: float | str | None, option: str) -> float | None:
    value = dask.config.get(option, None) if given is None else given
    return None if value is None else float(parse_timedelta(value))
