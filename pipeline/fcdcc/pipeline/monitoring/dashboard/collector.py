"""What the scheduler knows of the runs, collected so that it can be shown.

A :class:`RunCollector` reads the any-k history and the state of the workers once a second, and
whenever something is shown; runs report their progress (:mod:`..record.recorder`). It changes
nothing in the scheduler. Time is an argument, so that tests can reach every state without a
cluster.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ...anyk.keys import ASSEMBLY_SUFFIX, parse_key
from ...anyk.state_machine.history import Counters, Log, RunHistory, ShareRecord
from ...anyk.state_machine.state import AnyKState
from ...anyk.state_machine.workers import QUIET_HEARTBEATS
from ...words import DEPARTURES
from ...worker.executable_plugin import SILENT_SECONDS
from ..record.loss_cost import WorkerLoss
from ..stragglers import WorkerView, mark_replaced
from .run_statistics import LayerFacts, RunStatistics, WorkerFacts

MAX_RUNS = 8
"""Runs that are remembered beside those of which the any-k plugin has a history, the latest."""

MAX_REPORTING = 1_000
"""Runs of which it is remembered what was counted of their reports, the latest."""

MAX_LAYERS = 200
"""Most layers with counts of their own over all runs."""

MAX_WORKERS = 100
"""Most workers with an erasure count of their own over all runs."""

OTHER_LAYERS = -1
"""The layer under which layers beyond :data:`MAX_LAYERS` are counted."""

OTHER_WORKERS = "other"
"""The address under which workers beyond :data:`MAX_WORKERS` are counted."""

MAX_TASKS = 5_000
"""Tasks beside the shares of a run that are kept until the run takes them, the latest."""

MAX_RECORDS = 5_000
"""Records of each kind in one answer to a run."""

RECORDS = ("shares", "groups", "settled", "events", "ghosts", "tasks")
"""The kinds of records that are sent to a run."""

MAX_PROCESSES = 4_000
"""Workers of which name, process and host are kept, also of those that are gone; the latest."""

MAX_NAME_LENGTH = 80
"""Longest name of a worker that is kept whole."""

MIN_HEARTBEAT_SECONDS = 0.5
"""Least time between two heartbeats."""

_COUNTED = ("blocks_done", "blocks_failed", "corrupt_shares")
"""Numbers in the reports of runs that are summed over all runs."""

_OF_SHARES = ("done", "erased", "lost", "late", "worst", "overdue")


class WorkerProcess(NamedTuple):
    """What Dask calls a worker, '' if that is its address, and its process and machine."""

    name: str
    pid: int
    host: str


@dataclass
class CollectedRun:
    """What is known of one run.

    Parameters
    ----------
    run
        Its id.
    statistics
        Sums over its shares and groups.
    history
        Its any-k history; None while the any-k plugin has none.
    heard
        When it last reported or had a new record.
    counters
        A copy of the counters of the any-k history.
    status, status_at
        What it last reported of itself, and when.
    left
        Workers that are gone: how they left, and when.
    seen_shares, seen_groups, seen_events
        How many records of ``history`` are in ``statistics``.
    """

    run: str
    statistics: RunStatistics
    history: RunHistory | None = None
    heard: float = 0.0
    counters: Counters = field(default_factory=Counters)
    status: dict[str, Any] = field(default_factory=dict)
    status_at: float = 0.0
    left: dict[str, tuple[str, float]] = field(default_factory=dict)
    seen_shares: int = 0
    seen_groups: int = 0
    seen_events: int = 0

    @property
    def saved_seconds(self) -> float:
        """Seconds of waiting that it saved, at least; once it is over, as its summary has it."""
        final = self.status.get("waiting_saved")
        return round(self.statistics.saved_at_once if final is None else float(final), 3)

    def read(self, history: RunHistory) -> None:
        """Take its records from a history from now on; from the start if it is another one."""
        if self.history is not history:
            self.history = history
            self.seen_shares = self.seen_groups = self.seen_events = 0


class RunCollector:
    """The runs of a scheduler.

    Parameters
    ----------
    state
        The any-k state machine, which is only read.
    log
        Called with every erasure, late group and worker that is gone.
    """

    def __init__(
        self, state: AnyKState, log: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.state = state
        self.runs: OrderedDict[str, CollectedRun] = OrderedDict()
        self.blocks_done = 0
        self.blocks_failed = 0
        self.corrupt_shares = 0
        self.erasures: dict[str, int] = {}
        """By worker, over all runs, for the first :data:`MAX_WORKERS` workers."""
        self.layers: dict[int, LayerFacts] = {}
        """Groups by layer, over all runs, for the first :data:`MAX_LAYERS` layers."""
        self.tasks: OrderedDict[str, Log[ShareRecord]] = OrderedDict()
        """By run: its tasks beside the shares, such as reads and writes, as they were done."""
        self.processes: OrderedDict[str, WorkerProcess] = OrderedDict()
        """By address: names and processes of the workers that are there or were."""
        self._log = log or (lambda _: None)
        self._seen_stuck: dict[str, float] = {}
        self._counted: OrderedDict[str, Counter[str]] = OrderedDict()
        """By run: what is in the sums of the numbers that it reports."""

    # --------------------------------------------------------------- collecting

    def follow(self, state: AnyKState) -> None:
        """Read another state machine from now on; what runs have reported of themselves stays."""
        self.state = state
        self.erasures.clear()
        self.layers.clear()
        self._seen_stuck.clear()
        for name, known in self.runs.items():
            statistics = RunStatistics(self._seen_stuck)
            self.runs[name] = CollectedRun(
                name,
                statistics,
                heard=known.heard,
                status=known.status,
                status_at=known.status_at,
            )

    def note_worker(self, address: str, name: object, pid: int, host: str) -> None:
        """Remember the name and the process of a worker, also for when it is gone."""
        called = "" if str(name) == address else str(name)[:MAX_NAME_LENGTH]
        process = WorkerProcess(called, pid, host)
        if self.processes.get(address) != process:  # it is new, or was started again there
            self.processes[address] = process
            self.processes.move_to_end(address)
            if len(self.processes) > MAX_PROCESSES:
                self.processes.popitem(last=False)

    def process(self, address: str) -> dict[str, Any]:
        """Return the name, the process and the host of a worker, as far as they are known."""
        return self.processes.get(address, WorkerProcess("", 0, ""))._asdict()

    def refresh(self, now: float) -> None:
        """Collect the records since the last call."""
        for name, history in self.state.history.runs.items():
            if name.endswith(ASSEMBLY_SUFFIX):
                continue
            known = self._run(name)
            known.read(history)
            if self._is_new(known, history):
                self._take(known, history)
                known.heard = now
                self.runs.move_to_end(name)
        self._forget_runs()
        self._look_at_ghosts(now)

    def add_task(self, run: str, record: ShareRecord) -> None:
        """Keep the record of a task that is no share."""
        log = self.tasks.get(run)
        if log is None:
            log = self.tasks[run] = Log(MAX_TASKS)
            while len(self.tasks) > MAX_RUNS:
                self.tasks.popitem(last=False)
        self.tasks.move_to_end(run)
        log.append(record)

    def report_status(self, run: str, status: Mapping[str, Any], now: float) -> None:
        """Store the status of a run; see :meth:`..record.recorder.RunRecorder.observe`."""
        known = self._run(run)
        if not known.status:
            self.runs.move_to_end(run)
        known.status, known.status_at, known.heard = dict(status), now, now
        if status.get("is_over"):
            known.statistics.close()
        # Not the status before says what is counted: the run may have been forgotten meanwhile.
        counted = self._counted.setdefault(run, Counter())
        self._counted.move_to_end(run)
        if len(self._counted) > MAX_REPORTING:
            self._counted.popitem(last=False)
        for name in _COUNTED:
            more = max(0, int(status.get(name, 0)) - counted[name])
            counted[name] += more
            setattr(self, name, getattr(self, name) + more)

    def _run(self, name: str) -> CollectedRun:
        known = self.runs.get(name)
        if known is None:
            known = self.runs[name] = CollectedRun(name, RunStatistics(self._seen_stuck))
        return known

    def _forget_runs(self) -> None:
        """Forget the runs that were not heard of for longest, if there are too many.

        A run of which there is a history is remembered, because the next look at the history would
        find the run again and count its records anew.
        """
        histories = self.state.history.runs
        others = [known for known in self.runs.values() if known.run not in histories]
        for known in others:
            known.history = None
        others.sort(key=lambda known: known.heard, reverse=True)
        for known in others[MAX_RUNS:]:
            del self.runs[known.run]

    @staticmethod
    def _is_new(known: CollectedRun, history: RunHistory) -> bool:
        """Return whether a history has records that are not in the statistics yet."""
        seen = (known.seen_shares, known.seen_groups, known.seen_events)
        return seen != (history.shares.total, history.groups.total, history.events.total)

    def _take(self, known: CollectedRun, history: RunHistory) -> None:
        """Add the new records of a run to the statistics."""
        statistics = known.statistics
        for share in history.shares.since(known.seen_shares):
            statistics.add_share(share)
            if share.state == "erased":
                self._count_erasure(share.worker)
                place = {"layer": share.layer, "block": share.block, "position": share.position}
                self._log_event(known, "erasure", share.stop, worker=share.worker, **place)
        known.seen_shares = history.shares.total
        for event in history.events.since(known.seen_events):
            what, worker = str(event.get("event")), event.get("worker")
            if what in DEPARTURES and worker is not None:
                known.left[worker] = (what, float(event["time"]))
                statistics.leave(worker, what, float(event["time"]))
            more = {k: v for k, v in event.items() if k not in ("event", "time", "run")}
            self._log_event(known, what, float(event["time"]), **more)
        known.seen_events = history.events.total
        for group in history.groups.since(known.seen_groups):
            statistics.add_group(group)
            full = len(self.layers) >= MAX_LAYERS and group.layer not in self.layers
            self.layers.setdefault(OTHER_LAYERS if full else group.layer, LayerFacts()).add(group)
        known.seen_groups = history.groups.total
        known.counters = Counters(**asdict(history.counters))
        workers = self.state.workers.by_address
        for address, facts in statistics.workers.items():
            if address in workers:
                facts.pace = workers[address].known_pace

    def _count_erasure(self, worker: str) -> None:
        if worker not in self.erasures and len(self.erasures) >= MAX_WORKERS:
            worker = OTHER_WORKERS
        self.erasures[worker] = self.erasures.get(worker, 0) + 1

    def _log_event(self, known: CollectedRun, what: str, time: float, **more: Any) -> None:
        self._log({"event": what, "run": known.run, "time": time, **more})

    def _look_at_ghosts(self, now: float) -> None:
        """Find out which workers are free of shares that were given up."""
        workers = self.state.workers.by_address
        for address, worker in workers.items():
            if worker.has_cancelled_tasks or worker.quiet:
                self._seen_stuck[address] = now
        for known in self.runs.values():
            for address in known.statistics.holders:
                ghosts = workers[address].ghosts if address in workers else {}
                known.statistics.free(address, _places(ghosts, known.run))
        for address in [a for a in self._seen_stuck if a not in workers]:
            del self._seen_stuck[address]

    # ------------------------------------------------------------------ showing

    def current(self) -> CollectedRun | None:
        """Return the run with the latest record; None if there is none."""
        return next(reversed(self.runs.values()), None)

    def workers(self, known: CollectedRun | None, now: float) -> list[WorkerView]:
        """Return what is known of each worker that is there, or was in a run."""
        facts = {} if known is None else known.statistics.workers
        left = {} if known is None else known.left
        end = max((found.seen for found in facts.values()), default=0.0)
        views = []
        for address, worker in self.state.workers.by_address.items():
            ghosts = worker.ghosts
            silent = now - worker.last_sign if worker.quiet or worker.removing else 0.0
            if silent > 0 and known is not None:  # what others do instead is told of this run
                ghosts = {key: since for key, since in ghosts.items() if _is_of(key, known.run)}
            oldest = min(ghosts.values(), default=now)
            of_shares = _of_shares(facts.get(address))
            if known is not None and of_shares:
                late, worst = known.statistics.pending(address)
                of_shares["late"] += late
                of_shares["worst"] = max(of_shares["worst"], worst)
            # What was learned in earlier runs does not say how its shares of this one go.
            is_paced = known is None or of_shares.get("done", 0) > 0
            views.append(
                WorkerView(
                    address,
                    pace=worker.known_pace if is_paced else None,
                    ghosts=len(ghosts),
                    taken_over=sum(not _is_share(key) for key in ghosts),
                    stuck=max(0.0, now - oldest),
                    silent=max(0.0, silent),
                    outlook=self.state.workers.outlook(address, now),
                    had_shares_for=_had_shares_for(facts.get(address), end),
                    **self.process(address),
                    **of_shares,
                )
            )
        for address, (how, moment) in left.items():
            if address not in self.state.workers.by_address:
                found = facts.get(address)
                pace = None if found is None else found.pace
                of_shares = _of_shares(found)
                of_shares |= self.process(address)
                gone_for = now - moment
                views.append(
                    WorkerView(address, pace=pace, gone=how, gone_for=gone_for, **of_shares)
                )
        return mark_replaced(views)

    def silent_workers(self, now: float) -> list[WorkerLoss]:
        """Return the workers that have not answered for :data:`SILENT_SECONDS`.

        All workers of the cluster count, also those that never had a share. Those that were
        bypassed and still do not answer are among them, however long that is. They count as given
        up when other workers were preferred to them, after some heartbeats.
        """
        found = []
        for address, worker in self.state.workers.by_address.items():
            if not worker.quiet:
                continue
            last = worker.last_sign
            if worker.bypassed is not None or now - last > SILENT_SECONDS:
                patience = QUIET_HEARTBEATS * max(worker.longest_gap, MIN_HEARTBEAT_SECONDS)
                found.append(WorkerLoss(address, last, min(now, last + patience), "silent"))
        return found

    def records_since(self, run: str, seen: Mapping[str, int]) -> dict[str, Any]:
        """Return a run's records after the first ``seen`` of each kind, a bounded number.

        The member ``seen`` of the answer is for the next call; ``more`` is whether more are left.
        """
        history = self.state.history.look(run)
        known = self.runs.get(run)
        nothing: Log[Any] = Log(0)
        logs: dict[str, Log[Any]] = {
            "shares": history.shares,
            "groups": history.groups,
            "settled": nothing if known is None else known.statistics.settled,
            "events": history.events,
            "ghosts": nothing if known is None else known.statistics.ghosts,
            "tasks": self.tasks.get(run, nothing),
        }
        answer: dict[str, Any] = {}
        now_seen: dict[str, int] = {}
        for name, log in logs.items():
            fresh = log.since(seen[name])
            answer[name] = fresh[:MAX_RECORDS]
            now_seen[name] = log.total - len(fresh) + len(answer[name])
        more = any(now_seen[name] < log.total for name, log in logs.items())
        return {**answer, "seen": now_seen, "more": more}


def _places(ghosts: Mapping[Any, float], run: str) -> Iterator[tuple[int, int, int]]:
    """Yield layer, block and position of a worker's ghosts that belong to a run."""
    for key in ghosts:
        known = parse_key(key)
        if known is not None and known.run == run:
            yield known.layer, known.block, known.position


def _is_of(key: Any, run: str) -> bool:
    """Return whether a task is of a run."""
    known = parse_key(key)
    return known is not None and known.run == run


def _is_share(key: Any) -> bool:
    """Return whether a task is a share: only tasks with keys of this package may be others."""
    known = parse_key(key)
    return known is None or known.stage in ("share", "parity")


def _had_shares_for(facts: WorkerFacts | None, end: float) -> float:
    """Return the seconds from a worker's first share to the end of what is known of its run."""
    return 0.0 if facts is None or not facts.since else max(0.0, end - facts.since)


def _of_shares(facts: WorkerFacts | None) -> dict[str, Any]:
    """Return the fields of a :class:`WorkerView` that are sums over the worker's shares."""
    return {} if facts is None else {name: getattr(facts, name) for name in _OF_SHARES}
