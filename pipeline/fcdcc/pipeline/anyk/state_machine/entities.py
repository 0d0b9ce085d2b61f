"""What the any-k state machine remembers: shares, nodes, groups, blocks and workers."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from .events import Key
from .readiness import Readiness, is_ready, used

GAPS = 32
"""So many times between heartbeats are kept of a worker."""

SLOW = 3.0
"""A worker whose tasks take so many times what is usual is slow."""

JUDGEMENT = 0.3
"""How much one task counts in the judgement of a worker's speed."""

MOST = 6.0
"""No single task counts for more than so many times what is usual."""

PACES = 15
"""So many of a worker's latest tasks say how fast it is: their median, so that one slow task
says nothing."""

PACED_FROM = 2
"""So many of them must be known."""


class ShareStatus(StrEnum):
    """Where a share stands."""

    WAITING = "waiting"
    """It waits for its inputs, for a worker, or for somebody to want it."""
    HELD = "held"
    """It is on standby: it would run if it were started."""
    STARTED = "started"
    """It was assigned to a worker."""
    DONE = "done"
    """Its result is in a worker's memory."""
    LOST = "lost"
    """It was started or done, is not any more, and is still wanted: Dask makes it again."""
    ERASED = "erased"
    """It was started, and given up without a result."""
    RELEASED = "released"
    """Nobody wants it any more: its result was used, or it never started."""
    ERRED = "erred"
    """It raised an exception."""


class NodeStatus(StrEnum):
    """Where an any-k node stands."""

    IDLE = "idle"
    """Nobody wants it now."""
    WAITING = "waiting"
    """It waits for shares; only now can it be disconnected from some."""
    STARTED = "started"
    """It has the shares that it is connected to."""
    DONE = "done"
    """Its result is in a worker's memory."""
    ERRED = "erred"
    """It raised an exception, or a share did."""


@dataclass(slots=True)
class ShareState:
    """One share as a member of its group.

    ``nodes`` are the nodes that are connected to it, ``cut`` says that some were and are not
    any more, ``since`` is when it was assigned and ``attempts`` how often, ``reserve`` that it
    was on standby and was started, ``expected`` that it counts as work which the worker of its
    seat has yet to do.
    """

    key: Key
    group: int
    position: int
    seat: int
    stage: str
    state: ShareStatus = ShareStatus.WAITING
    worker: str | None = None
    since: float = 0.0
    attempts: int = 0
    reserve: bool = False
    cut: bool = False
    nodes: dict[Key, None] = field(default_factory=dict)
    expected: bool = False


@dataclass(slots=True)
class NodeState:
    """One any-k node.

    ``edges`` are the shares that it is connected to, by position; ``sent`` says that a worker
    may know them.
    """

    key: Key
    group: int
    edges: dict[int, Key]
    enough: int | Readiness
    own: int | None
    plain: frozenset[int]
    state: NodeStatus = NodeStatus.IDLE
    sent: bool = False

    def survivors(self, done: frozenset[int]) -> frozenset[int] | None:
        """Return the positions that it runs with, or None if these are not enough."""
        return used(self.own, done) if is_ready(self.enough, self.own, done) else None

    def solves(self, survivors: frozenset[int]) -> bool:
        """Return whether something is solved for with these positions."""
        if self.own is not None:
            return self.own not in survivors
        return not self.plain or not self.plain <= survivors


@dataclass(slots=True)
class GroupState:
    """Shares that belong together.

    ``unfinished`` are its nodes without any result so far, ``held`` the shares on standby,
    ``started`` is when its first share was assigned, and ``solved`` says whether a node
    solved for anything.
    """

    number: int
    run: str
    layer: int
    block: int
    shares: dict[Key, None] = field(default_factory=dict)
    nodes: dict[Key, None] = field(default_factory=dict)
    unfinished: dict[Key, None] = field(default_factory=dict)
    held: dict[Key, None] = field(default_factory=dict)
    started: float | None = None
    solved: bool = False


@dataclass(slots=True)
class BlockState:
    """The groups of one block of one run, and the workers of its seats.

    ``parity_seats`` are those on which nothing but parity sits, ``allowed_workers`` the workers
    that they are given to, or none if to any, ``left`` is how many shares are yet to be computed
    at a seat.
    """

    run: str
    number: int
    rotation: int
    seats: dict[int, str] = field(default_factory=dict)
    wanted_seats: set[int] = field(default_factory=set)
    parity_seats: set[int] = field(default_factory=set)
    allowed_workers: frozenset[str] = frozenset()
    groups: dict[int, None] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class WorkerRecord:
    """One worker.

    ``seen`` is when it was last heard of, ``last_result`` when it last returned the result
    of any task (or joined); ``delivered`` says whether it has returned any at all,
    ``ghosts`` which tasks were given up there and when, ``has_cancelled_tasks`` whether its last
    heartbeat reported cancelled tasks, ``quiet`` whether it has missed heartbeats, ``late``
    whether it takes longer than usual for what it has, ``slowness`` how many times longer
    than usual its tasks took lately and ``judged_at`` when that was seen last, ``pace`` the
    same learned from more of them, ``load`` how many shares it has yet to compute, ``running``
    whether it takes tasks, ``busy`` how many it had at the last tick, ``heartbeat`` when the
    last one arrived and ``gaps`` the seconds between the latest ones, ``longest_gap`` the most
    of them, ``removing`` whether its removal has been asked for, ``distrusted`` whether it gave
    too many wrong shares, ``unfit`` whether its seats were given away.
    """

    address: str
    host: str
    nthreads: int
    seen: float
    last_result: float
    delivered: bool = False
    ghosts: dict[Key, float] = field(default_factory=dict)
    has_cancelled_tasks: bool = False
    quiet: bool = False
    late: bool = False
    slowness: float = 1.0
    judged_at: float = 0.0
    pace: float = 1.0
    load: int = 0
    running: bool = True
    busy: int = 0
    heartbeat: float = 0.0
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=GAPS))
    longest_gap: float = 0.0
    removing: bool = False
    distrusted: bool = False
    unfit: bool = False
    _ratios: array[float] = field(default_factory=lambda: array("d"))  # near each other in memory

    @property
    def avoided(self) -> int:
        """How much other workers are to be preferred.

        1 if it is late or busy with what nobody wants, 2 if it does not answer or answers wrongly.
        """
        if self.quiet or self.removing or self.distrusted:
            return 2
        return 1 if self.ghosts or self.has_cancelled_tasks or self.late else 0

    @property
    def slow(self) -> bool:
        """Whether its tasks take much longer than those of others."""
        return self.slowness > SLOW or self.pace > SLOW

    def heard(self, gap: float) -> None:
        """Note that so many seconds were between two heartbeats."""
        self.gaps.append(gap)
        self.longest_gap = max(self.gaps)

    def judged(self, ratio: float, now: float) -> None:
        """Note that a task took ``ratio`` times as long as usual."""
        self.slowness += JUDGEMENT * (min(ratio, MOST) - self.slowness)
        self.judged_at = now

    def paced(self, ratio: float) -> None:
        """Note that a share took ``ratio`` times as long as usual."""
        self._ratios.append(ratio)
        del self._ratios[:-PACES]
        self._learn()

    @property
    def learned(self) -> float | None:
        """Its pace, or None while too little is known of it."""
        return self.pace if len(self._ratios) >= PACED_FROM else None

    @property
    def known(self) -> bool:
        """Whether its pace is known from so many shares that others may be judged by it."""
        return 2 * len(self._ratios) > PACES

    def forgive(self, now: float) -> None:
        """Forget a little of what was slow: there was nothing to judge it by for long."""
        self.slowness, self.judged_at = 1.0, now
        if self._ratios:
            self._ratios.pop(0)
            self._learn()

    def _learn(self) -> None:
        known = len(self._ratios)
        self.pace = sorted(self._ratios)[(known - 1) // 2] if known >= PACED_FROM else 1.0
