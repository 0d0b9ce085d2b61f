"""The plugin: listens to Dask's scheduler, tells the state machine, and does what it says.

All decisions are made in :mod:`.state`; all changes to Dask's own state are in
:mod:`.edits`. What is left here is the order of things. The hooks run in the middle of the
scheduler's transitions, where nothing but the placement of tasks may be changed; so what
they bring about otherwise is decided and done in a callback of the event loop, when the
scheduler has finished.

What becomes of tasks is only written down at first: many changes at once cost a fraction of
what they cost one at a time. The state machine is told of them before anything else is told,
decided or answered, and at the latest when the plugin looks at the clock.
"""

from __future__ import annotations

import itertools
import logging
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

from ..state_machine import events as m
from ..state_machine.lateness import FixedSilence, LearnedSilence, SilenceRule
from ..state_machine.state import AnyKState
from ..tasks import AnyK
from ..worker import TOPIC, noticed
from . import graph_edits as edits
from .colocation import place_glue, place_lane
from .dask_contract import NEWEST, check_contract, is_untested
from .groups import find_groups
from .rpc import Failures, SchedulerRPC
from .transitions import (
    Change,
    ignore_stale,
    node_event,
    node_now,
    share_event,
    share_now,
    task_event,
)

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Recs, Scheduler, TaskState, WorkerState


logger = logging.getLogger(__name__)

NAME = "fcdcc-anyk"
TICK = 0.25
"""Seconds between two looks at the clock, at most, where workers are not very many."""

SHORTEST_TICK = 0.1
TICK_PER_WORKER = 0.0002
"""Seconds at least, and for every worker, so that looking stays cheap."""

_UNEXPECTED = ("handle-worker-cleanup", "worker-send-comm-fail", "send-all-comm-fail")
"""How the reason begins when a worker is gone that was not asked to leave."""


class AnyKPlugin(SchedulerPlugin):
    """Lets any-k nodes run as soon as they have enough: ``client.register_plugin(AnyKPlugin())``.

    Registering it again, by any client, changes nothing. Without it any-k nodes wait for all
    their shares.

    Parameters
    ----------
    silent_after
        After so many seconds of silence a worker that belongs to a run counts as gone; by
        default the configuration value ``fcdcc.anyk.silent-after``. Without either it is
        learned from how regularly workers are heard of, and at least 3 s.
    grace
        The same for a worker that has not returned any result yet, which may be importing
        libraries, and the most that is learned; by default ``fcdcc.anyk.grace``, or 15 s.

    A worker that was removed does not come back: when it wakes up it learns that the
    scheduler does not know it, and shuts down.
    """

    name = NAME
    idempotent = True

    def __init__(
        self, silent_after: float | str | None = None, grace: float | str | None = None
    ) -> None:
        self.rule = _silence(silent_after, grace)

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
        self._heard: dict[str, float] = {}
        self._block_numbers = itertools.count()
        self._changes: list[Change] = []
        self._settling = False
        for address in scheduler.workers:
            self.add_worker(scheduler, address)
        self._look_at(list(scheduler.tasks))
        answers = SchedulerRPC(self.state, self._guarded, self.failures, self.catch_up)
        answers.install(scheduler)
        ignore_stale(scheduler, self._guarded)
        if NAME in scheduler.periodic_callbacks:  # of a plugin that was unregistered
            scheduler.periodic_callbacks[NAME].stop()
        self._ticker = PeriodicCallback(self._tick, TICK * 1000)
        scheduler.periodic_callbacks[NAME] = self._ticker
        self._ticker.start()

    # -------------------------------------------------------------------- hooks

    def update_graph(
        self,
        scheduler: Scheduler,  # noqa: ARG002 - the hook's signature
        *,
        tasks: list[Key],
        **kwargs: Any,  # noqa: ARG002 - the hook's signature
    ) -> None:
        """Look for any-k nodes in a graph that arrived."""
        with self.failures.kept("update_graph"):
            self._look_at(tasks)

    def transition(
        self,
        key: Key,
        start: str,
        finish: str,
        *args: Any,  # noqa: ARG002 - the hook's signature
        stimulus_id: str,
        **kwargs: Any,
    ) -> None:
        """Write down what happened to a task; this runs for every task, several times."""
        now, worker = time(), None
        if finish == "memory" and "worker" in kwargs:
            worker = kwargs["worker"]
            self._heard[worker] = now
        if key not in self._guarded:
            return
        if finish == "processing":
            task = self.scheduler.tasks[key]
            worker = None if task.processing_on is None else task.processing_on.address
            if parse_key(key) is not None:
                edits.keep(self.scheduler, task)
        elif finish == "released" and start == "processing":
            self._find_gone(key, stimulus_id)
        elif finish == "forgotten":
            self._guarded.discard(key)
        elif worker is not None and self.state.knows_node(key):  # before its glue is assigned
            with self.failures.kept("place glue"):
                place_glue(self.scheduler.tasks[key], worker)
        self._changes.append(Change(now, key, finish, worker, kwargs.get("startstops", ())))
        if not self._settling and self._may_decide(key, finish):
            self._settle_soon()

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Take note of a worker."""
        with self.failures.kept("add_worker"):
            known = scheduler.workers[worker]
            running = known in scheduler.running
            self._tell(m.WorkerJoined(time(), worker, known.host, known.nthreads, running))

    def remove_worker(
        self,
        scheduler: Scheduler,  # noqa: ARG002 - the hook's signature
        worker: str,
        *,
        stimulus_id: str,
        **kwargs: Any,  # noqa: ARG002 - the hook's signature
    ) -> None:
        """Take note that a worker is gone."""
        with self.failures.kept("remove_worker"):
            self._heard.pop(worker, None)
            self._tell(m.WorkerLeft(time(), worker, _was_asked(stimulus_id)))

    def log_event(self, topic: str, msg: Any) -> None:
        """Take note of what a task has found out about shares."""
        if topic == TOPIC and isinstance(msg, dict):
            with self.failures.kept("log_event"):
                notice = noticed(time(), msg)
                if notice is not None:
                    self._tell(notice)

    def valid_workers_downscaling(
        self,
        scheduler: Scheduler,  # noqa: ARG002 - the hook's signature
        workers: list[WorkerState],
    ) -> list[WorkerState]:
        """Return the workers that adaptive scaling may take: those that no run needs."""
        with self.failures.kept("valid_workers_downscaling"):
            return [worker for worker in workers if not self._is_needed(worker.address)]
        return workers

    def catch_up(self) -> None:
        """Tell the state machine what became of tasks since it was last told of anything."""
        changes, self._changes = self._changes, []
        for change in changes:
            try:
                event = self._event_of(change)
                if event is not None:
                    self.state.handle(event)  # what becomes of tasks is not answered at once
            except Exception:  # noqa: BLE001 - as in Failures.kept, which would cost too much here
                self.failures.note("transition")
        if self.state.unsettled:
            self._settle_soon()

    def _may_decide(self, key: Key, finish: str) -> bool:
        """Return whether a change may be what a node, a lost share or a twin waited for."""
        if finish in ("memory", "waiting") and self.state.knows_share(key):
            return True
        if finish == "waiting" and self.state.knows_node(key):
            return True
        return self.state.doubles.knows(key)

    def _event_of(self, change: Change) -> m.Event | None:
        """Return what a change means to the state machine, if anything."""
        if self.state.knows_share(change.key):
            return share_event(change)
        if self.state.knows_node(change.key):
            return node_event(change)
        if change.state == "processing" or self.state.tracks(change.key):
            return task_event(change)
        return None

    def _look_at(self, keys: Iterable[Key]) -> None:
        """Tell the state machine about the any-k nodes among some tasks."""
        tasks = [self.scheduler.tasks[key] for key in keys]
        specs = [task.run_spec for task in tasks]
        nodes = [spec for spec in specs if isinstance(spec, AnyK)]
        if not nodes:
            return
        self.catch_up()
        self._guarded.update(task.key for task in tasks)
        self._look_at_workers()
        fresh = [node for node in nodes if not self.state.knows_node(node.key)]
        groups = find_groups(fresh, self._needed_otherwise(fresh), self._block_numbers)
        for group in groups:
            self._defer(group, len(tasks))
        self._tell(m.GroupsAdded(time(), groups))
        for group in groups:
            self._guarded.update(share.key for share in group.shares)  # some may be older
            for share in group.shares:
                for event in share_now(self.scheduler.tasks[share.key]):
                    self._tell(event)
            for node in group.nodes:
                for event in node_now(self.scheduler.tasks[node.key]):
                    self._tell(event)
        if len(fresh) < len(nodes):
            self.scheduler.loop.add_callback(self._forget_orphans, tasks)

    def _defer(self, group: m.GroupSpec, number: int) -> None:
        """Let a group's shares run when a worker has nothing else of a graph of so many tasks.

        Of all its tasks only they can be given up: a slow one must not stand before what other
        workers wait for. What serves parity alone comes after what serves other shares.
        """
        for spec in group.shares:
            share = self.scheduler.tasks[spec.key]
            edits.defer(share, 2 * number)
            known = parse_key(spec.key)
            if known is not None and known.stage == "parity":
                for other in share.dependencies:
                    if len(other.dependents) == 1:
                        edits.defer(other, number)

    def _look_at_workers(self) -> None:
        """Tell of workers that have begun to take tasks, or ceased to."""
        for address, known in self.state.roster.workers.items():
            running = self.scheduler.workers.get(address) in self.scheduler.running
            if running != known.running:
                self._tell(m.WorkerStatus(time(), address, running))

    def _needed_otherwise(self, nodes: Iterable[AnyK]) -> set[Key]:
        """Return the standby shares that somebody needs besides any-k nodes."""
        shares = {key for node in nodes for p, key in node.shares.items() if p in node.standby}
        tasks = (self.scheduler.tasks[key] for key in shares)
        return {
            task.key
            for task in tasks
            if task.who_wants or not all(isinstance(d.run_spec, AnyK) for d in task.dependents)
        }

    def _find_gone(self, key: Key, stimulus_id: str) -> None:
        """Tell of workers that are gone before Dask says so, and chooses others for a share."""
        with self.failures.kept("transition"):
            if self.state.knows_share(key):
                known = self.state.roster.workers
                for address in [a for a in known if a not in self.scheduler.workers]:
                    self._tell(m.WorkerLeft(time(), address, _was_asked(stimulus_id)))

    def _tick(self) -> None:
        with self.failures.kept("tick"):
            self.catch_up()
            if not self._guarded:
                return  # nobody waits for anything; the next tick will be late, and says so
            self._look_at_workers()
            now = time()
            interval = heartbeat_interval(len(self.scheduler.workers))
            news = tuple(self._news(now, interval))
            expected = self._ticker.callback_time / 1000
            self._do(self.state.handle(m.Tick(now, expected, interval, news)))
            self._follow(edits.stranded(self.scheduler, self._guarded), "stranded")
            self._ticker.callback_time = 1000 * self._until_next()

    def _until_next(self) -> float:
        """Return when to look at the clock again, in seconds: soon where shares are short.

        A look costs some microseconds for every worker, so with thousands they are rarer.
        """
        least = SHORTEST_TICK + TICK_PER_WORKER * len(self.scheduler.workers)
        return max(least, min(TICK, self.state.workload.shortest / 4))

    def _news(self, now: float, interval: float) -> Iterator[m.WorkerNews]:
        for address, worker in self.scheduler.workers.items():
            result = self._heard.get(address, 0.0)
            silence = now - max(worker.last_seen, result)
            needed = silence > interval and self._is_needed(address)
            ghosts = (worker.metrics or {}).get("task_counts", {}).get("cancelled", 0)
            busy = len(worker.processing)
            yield m.WorkerNews(address, worker.last_seen, result, ghosts, needed, busy)

    def _is_needed(self, address: str) -> bool:
        """Return whether a worker runs or holds anything of a graph with any-k nodes."""
        worker = self.scheduler.workers[address]
        tasks = itertools.chain(worker.processing, worker.has_what)
        return any(task.key in self._guarded for task in tasks)

    # --------------------------------------------------------------------- doing

    def _tell(self, event: m.Event) -> None:
        """Tell the state machine, place what it says, and let it settle later."""
        self.catch_up()
        for instruction in self.state.handle(event):
            if isinstance(instruction, m.Place):
                self._place(instruction)
            elif isinstance(instruction, m.Hold):
                edits.hold(self.scheduler.tasks[instruction.share])
        if self.state.unsettled:
            self._settle_soon()

    def _settle_soon(self) -> None:
        """Let the state machine decide when the scheduler has finished what it is doing."""
        if not self._settling:
            self._settling = True
            self.scheduler.loop.add_callback(self._settle)

    def _place(self, instruction: m.Place) -> None:
        share = self.scheduler.tasks.get(instruction.share)
        if share is not None:
            place_lane(share, instruction.worker, self.scheduler.tasks)

    def _settle(self) -> None:
        self.catch_up()
        self._settling = False
        if self.state.unsettled:
            with self.failures.kept("settle"):
                self._do(self.state.handle(m.Settle(time())))

    def _do(self, instructions: Iterable[m.Instruction]) -> None:
        """Carry out instructions; the scheduler is not in the middle of anything."""
        recommendations: Recs = {}
        no_more: list[Key] = []
        for instruction in instructions:
            with self.failures.kept(instruction):
                if isinstance(instruction, m.UseBackup | m.CancelBackup):
                    no_more.append(instruction.backup)
                recommendations |= self._changed(instruction)
        self._follow(recommendations, "settle")
        for backup in no_more:  # an adopted one is needed by its task now
            edits.drop(self.scheduler, backup, f"{NAME}-twin-{time()}")
        if self.scheduler.validate:
            self.state.validate()

    def _changed(self, instruction: m.Instruction) -> Recs:
        """Carry out one instruction and return what the scheduler is to do then."""
        tasks = self.scheduler.tasks
        if isinstance(instruction, m.Cut):
            shares = [tasks[key] for key in instruction.shares]
            return edits.cut(tasks[instruction.node], shares)
        if isinstance(instruction, m.Start):
            return edits.start(tasks[instruction.share], instruction.worker)
        if isinstance(instruction, m.StartBackup):
            self._guarded.add(instruction.backup)
            task = tasks[instruction.task]
            return edits.double(self.scheduler, task, instruction.backup, instruction.worker)
        if isinstance(instruction, m.UseBackup):
            return edits.adopt(tasks[instruction.task], tasks[instruction.backup])
        if isinstance(instruction, m.Place):
            self._place(instruction)
        if isinstance(instruction, m.RemoveWorker):
            logger.warning("%s: removing it", instruction.reason)
            self.scheduler.log_event(NAME, {"event": "remove-worker", "worker": instruction.worker})
            self.scheduler.loop.add_callback(self._remove, instruction.worker)
        if isinstance(instruction, m.StopUsingWorker):
            logger.warning(
                "worker %s gave wrong shares in %d blocks: it is given no more work; look at its "
                "memory and processor, and start it again",
                instruction.worker, instruction.offences,
            )  # fmt: skip
            edits.shut_out(self.scheduler, instruction.worker, f"{NAME}-distrust-{time()}")
            self._look_at_workers()
        return {}

    def _follow(self, recommendations: Recs, what: str) -> None:
        if recommendations:
            stimulus_id = f"{NAME}-{what}-{time()}"
            self.scheduler.transitions(recommendations, stimulus_id)
            self.scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=stimulus_id)

    def _forget_orphans(self, tasks: Iterable[TaskState]) -> None:
        with self.failures.kept("orphans"):
            known = (task for task in tasks if self.scheduler.tasks.get(task.key) is task)
            self._follow(edits.orphans(known), "orphans")

    async def _remove(self, worker: str) -> None:
        with self.failures.kept("remove"):
            stimulus_id = f"{NAME}-silent-{time()}"
            await self.scheduler.remove_worker(worker, close=False, stimulus_id=stimulus_id)


def _was_asked(stimulus_id: str) -> bool:
    """Return whether a worker left because somebody asked it to, by what Dask gives as cause."""
    return not stimulus_id.startswith(_UNEXPECTED)


def _silence(silent_after: float | str | None, grace: float | str | None) -> SilenceRule:
    """Return the rule by which workers count as gone: learned, unless a time is given."""
    seconds = _seconds(silent_after, "fcdcc.anyk.silent-after")
    most = _seconds(grace, "fcdcc.anyk.grace")
    most = LearnedSilence().grace if most is None else most
    return LearnedSilence(grace=most) if seconds is None else FixedSilence(seconds, most)


def _seconds(given: float | str | None, option: str) -> float | None:
    value = dask.config.get(option, None) if given is None else given
    return None if value is None else float(parse_timedelta(value))
