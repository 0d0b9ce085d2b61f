"""What the scheduler knows of the runs, kept ready to be shown.

A :class:`RunCollector` reads the any-k history and the roster of workers whenever somebody looks,
and a few times a second otherwise; runs tell it about their blocks (:mod:`.asking`). It
decides nothing and changes nothing. Time is an argument, so that every state can be reached
without a cluster.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...anyk.keys import parse_key
from ...anyk.state_machine.history import Counters, Log, RunHistory
from ...anyk.state_machine.state import AnyKState
from ..stragglers import WorkerView
from .run_statistics import LayerFacts, RunStatistics, WorkerFacts

RunStatus = Mapping[str, Any]
"""What a run says of itself: see :func:`.asking.told`."""

MAX_RUNS = 8
MAX_LAYERS = 200
NEWS_LIMIT = 5_000
"""Records of each kind that one answer to a client holds."""

_LEFT = ("removed", "lost", "retired")


@dataclass
class RunBoard:
    """What is known of one run.

    ``seen_shares``, ``seen_groups`` and ``seen_events`` say how much of its history has been
    taken into the account.
    """

    run: str
    since: float
    account: RunStatistics
    counters: Counters = field(default_factory=Counters)
    told: dict[str, Any] = field(default_factory=dict)
    told_at: float = 0.0
    left: dict[str, tuple[str, float]] = field(default_factory=dict)
    seen_shares: int = 0
    seen_groups: int = 0
    seen_events: int = 0


class RunCollector:
    """The runs of a scheduler.

    Parameters
    ----------
    state
        The any-k state machine, which is only read.
    log
        Told of every erasure, late group and worker that is gone.
    """

    def __init__(
        self, state: AnyKState, log: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.state = state
        self.runs: OrderedDict[str, RunBoard] = OrderedDict()
        self.blocks_done = 0
        self.blocks_failed = 0
        self.corrupt_shares = 0
        self.erasures: dict[str, int] = {}
        """By worker, over all runs, as far as they can be told apart."""
        self.layers: dict[int, LayerFacts] = {}
        """Groups by layer, over all runs; those of very many layers are under −1."""
        self._log = log or (lambda _: None)
        self._haunted: dict[str, float] = {}

    # ---------------------------------------------------------------- taking in

    def refresh(self, now: float) -> None:
        """Take in what has happened since the last time."""
        for name, history in self.state.history.runs.items():
            known = self._run(name, now)
            if self._has_news(known, history):
                self._take(known, history)
                self.runs.move_to_end(name)
        self._look_at_ghosts(now)

    def tell(self, run: str, told: RunStatus, now: float) -> None:
        """Take what a run says of itself."""
        known = self._run(run, now)
        before = known.told
        known.told, known.told_at = dict(told), now
        for name in ("blocks_done", "blocks_failed", "corrupt_shares"):
            new = int(told.get(name, 0)) - int(before.get(name, 0))
            setattr(self, name, getattr(self, name) + max(0, new))
        if not before:
            self.runs.move_to_end(run)

    def _run(self, name: str, now: float) -> RunBoard:
        known = self.runs.get(name)
        if known is None:
            known = self.runs[name] = RunBoard(name, now, RunStatistics(self._haunted))
            while len(self.runs) > MAX_RUNS:
                self.runs.popitem(last=False)
        return known

    @staticmethod
    def _has_news(known: RunBoard, history: RunHistory) -> bool:
        seen = (known.seen_shares, known.seen_groups, known.seen_events)
        return seen != (history.shares.total, history.groups.total, history.events.total)

    def _take(self, known: RunBoard, history: RunHistory) -> None:
        for share in history.shares.since(known.seen_shares):
            known.account.add_share(share)
            if share.state == "erased":
                count(self.erasures, share.worker, 1)
                place = {"layer": share.layer, "block": share.block, "position": share.position}
                self._tell_log(known, "erasure", share.stop, worker=share.worker, **place)
        known.seen_shares = history.shares.total
        for event in history.events.since(known.seen_events):
            what, worker = str(event.get("event")), event.get("worker")
            if what in _LEFT and worker is not None:
                known.left[worker] = (what, float(event["time"]))
                known.account.leave(worker, what, float(event["time"]))
            self._tell_log(known, what, float(event["time"]), **_plain(event))
        known.seen_events = history.events.total
        for group in history.groups.since(known.seen_groups):
            known.account.add_group(group)
            full = len(self.layers) >= MAX_LAYERS and group.layer not in self.layers
            self.layers.setdefault(-1 if full else group.layer, LayerFacts()).add(group)
        known.seen_groups = history.groups.total
        known.counters = Counters(**asdict(history.counters))

    def _tell_log(self, known: RunBoard, what: str, time: float, **more: Any) -> None:
        self._log({"event": what, "run": known.run, "time": time, **more})

    def _look_at_ghosts(self, now: float) -> None:
        """Find out which workers are free of shares that were given up."""
        for address, worker in self.state.workers.by_address.items():
            if worker.has_cancelled_tasks or worker.quiet:
                self._haunted[address] = now
        for known in self.runs.values():
            for address in list(known.account.stuck):
                held = self.state.workers.by_address.get(address)
                ghosts = () if held is None else tuple(_places(held.ghosts, known.run))
                known.account.free(address, ghosts)
        for address in [a for a in self._haunted if a not in self.state.workers.by_address]:
            del self._haunted[address]

    # ------------------------------------------------------------------ showing

    def current(self) -> RunBoard | None:
        """Return the run that something happened in last; None if there was none."""
        return next(reversed(self.runs.values()), None)

    def workers(self, known: RunBoard | None, now: float) -> list[WorkerView]:
        """Return what is known of each worker that is there, or was in a run."""
        facts = {} if known is None else known.account.workers
        left = {} if known is None else known.left
        views = []
        for address, worker in self.state.workers.by_address.items():
            oldest = min(worker.ghosts.values(), default=now)
            silent = now - worker.seen if worker.quiet or worker.removing else 0.0
            known_of = _shares(facts.get(address))
            if known is not None and known_of:
                late, worst = known.account.pending(address)
                known_of |= {
                    "late": known_of["late"] + late,
                    "worst": max(known_of["worst"], worst),
                }
            views.append(
                WorkerView(
                    address,
                    learned_pace=worker.known_pace,
                    ghosts=len(worker.ghosts),
                    stuck=max(0.0, now - oldest),
                    silent=max(0.0, silent),
                    **known_of,
                )
            )
        for address, (what, moment) in left.items():
            if address not in self.state.workers.by_address:
                view = _shares(facts.get(address))
                views.append(WorkerView(address, gone=what, gone_for=now - moment, **view))
        return views

    def news(
        self, run: str, *, shares: int, groups: int, settled: int, events: int, freed: int
    ) -> dict[str, Any]:
        """Return a run's records after the first so many of each kind, a bounded number.

        ``seen`` of the answer says where to go on, and ``more`` whether there is more.
        """
        history = self.state.history.look(run)
        known = self.runs.get(run)
        recent = known.account.recent if known is not None else None
        answer: dict[str, Any] = {}
        seen: dict[str, int] = {}
        more = False
        logs: list[tuple[str, Log[Any], int]] = [
            ("shares", history.shares, shares),
            ("groups", history.groups, groups),
            ("settled", Log(0) if recent is None else recent, settled),
            ("events", history.events, events),
            ("freed", Log(0) if known is None else known.account.freed, freed),
        ]
        for name, log, before in logs:
            fresh = log.since(before)
            answer[name] = fresh[:NEWS_LIMIT]
            seen[name] = log.total - len(fresh) + len(answer[name])
            more = more or seen[name] < log.total
        return {**answer, "seen": seen, "more": more}


def count(counts: dict[str, Any], name: str, value: float, limit: int = 100) -> None:
    """Add to a named count; names beyond the first ``limit`` share the name ``other``."""
    if name not in counts and len(counts) >= limit:
        name = "other"
    counts[name] = counts.get(name, 0) + value


def _plain(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("event", "time", "run")}


def _places(ghosts: Mapping[Any, float], run: str) -> Iterator[tuple[int, int, int]]:
    for key in ghosts:
        known = parse_key(key)
        if known is not None and known.run == run:
            yield known.layer, known.block, known.position


def _shares(facts: WorkerFacts | None) -> dict[str, Any]:
    """Return the part of a worker's view that its shares decide."""
    if facts is None:
        return {}
    return {name: getattr(facts, name) for name in _FROM_FACTS}


_FROM_FACTS = ("done", "erased", "lost", "late", "worst", "pace")
