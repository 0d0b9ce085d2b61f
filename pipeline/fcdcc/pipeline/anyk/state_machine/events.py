"""What the any-k state machine is told and what it asks for: events in, instructions out.

All of them are values without behaviour, so that a run can be recorded and replayed. Times
are seconds on the scheduler's clock; the machine has none of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .readiness import Readiness

Key: TypeAlias = str | int | float | tuple["Key", ...]
"""What Dask accepts as a task's key."""


@dataclass(frozen=True)
class ShareSpec:
    """One share of a group: its key, position and seat, and whether it is held back at first."""

    key: Key
    position: int
    seat: int
    held: bool = False


@dataclass(frozen=True)
class NodeSpec:
    """One any-k node: (position, share key) of its inputs, and what is enough for it.

    ``own`` is the position that is enough alone; with all of ``plain`` there (or ``own``),
    nothing needs to be solved for.
    """

    key: Key
    edges: tuple[tuple[int, Key], ...]
    enough: int | Readiness
    own: int | None = None
    plain: frozenset[int] = frozenset()


@dataclass(frozen=True)
class GroupSpec:
    """Shares that belong together and the nodes that they feed.

    ``run``, ``layer`` and ``block`` are labels; the shares of one block of one run are
    placed alike, rotated by ``rotation``, on the workers ``allowed_workers`` if any are named.
    """

    run: str
    layer: int
    block: int
    rotation: int
    shares: tuple[ShareSpec, ...]
    nodes: tuple[NodeSpec, ...]
    allowed_workers: frozenset[str] = frozenset()


# ---------------------------------------------------------------------------- events


@dataclass(frozen=True)
class GroupsAdded:
    """A graph with any-k nodes arrived."""

    now: float
    groups: tuple[GroupSpec, ...]


@dataclass(frozen=True)
class ShareWaiting:
    """Somebody wants a share; it waits for its inputs or for a worker."""

    now: float
    share: Key


@dataclass(frozen=True)
class ShareStarted:
    """A share was assigned to a worker."""

    now: float
    share: Key
    worker: str


@dataclass(frozen=True)
class ShareDone:
    """A share's result is in a worker's memory; it was computed from ``start`` to ``stop``."""

    now: float
    share: Key
    worker: str
    start: float
    stop: float


@dataclass(frozen=True)
class ShareReleased:
    """A share is neither running nor in memory any more: given up, used up, or lost."""

    now: float
    share: Key


@dataclass(frozen=True)
class ShareErred:
    """A share raised an exception."""

    now: float
    share: Key


@dataclass(frozen=True)
class NodeWaiting:
    """A node waits for its shares."""

    now: float
    node: Key


@dataclass(frozen=True)
class NodeStarted:
    """A node has all the shares that it is connected to, and goes to a worker, if one is free."""

    now: float
    node: Key
    worker: str | None = None


@dataclass(frozen=True)
class NodeDone:
    """A node's result is in memory."""

    now: float
    node: Key
    worker: str | None = None


@dataclass(frozen=True)
class NodeReleased:
    """A node's result is not wanted any more, or was lost."""

    now: float
    node: Key


@dataclass(frozen=True)
class NodeErred:
    """A node, or a share that it needs, raised an exception."""

    now: float
    node: Key


@dataclass(frozen=True)
class TaskWaiting:
    """Any other task of ours, or the double of one, waits for its inputs."""

    now: float
    key: Key


@dataclass(frozen=True)
class TaskStarted:
    """Any other task of ours, or the double of one, was assigned to a worker."""

    now: float
    key: Key
    worker: str


@dataclass(frozen=True)
class TaskDone:
    """The result of any other task of ours, or of a double, is in a worker's memory."""

    now: float
    key: Key
    worker: str


@dataclass(frozen=True)
class TaskGone:
    """Any other task of ours, or a double, is neither running nor in memory any more."""

    now: float
    key: Key


@dataclass(frozen=True)
class Forgotten:
    """The scheduler deleted a share or a node."""

    now: float
    key: Key


@dataclass(frozen=True)
class WorkerJoined:
    """A worker is there; ``running`` if it takes tasks already."""

    now: float
    worker: str
    host: str
    nthreads: int
    running: bool = True


@dataclass(frozen=True)
class WorkerStatus:
    """A worker begins to take tasks, or takes none for now."""

    now: float
    worker: str
    running: bool


@dataclass(frozen=True)
class WorkerLeft:
    """A worker is gone; ``expected`` if it was asked to leave."""

    now: float
    worker: str
    expected: bool = False


@dataclass(frozen=True)
class WorkerNews:
    """What is known of one worker at a tick.

    Parameters
    ----------
    worker
        Its address.
    heartbeat
        When its last heartbeat arrived.
    result
        When the last result of any task arrived from it; 0 if none has.
    ghosts
        How many cancelled tasks its last heartbeat reported.
    needed
        Whether it runs or holds anything that belongs to a graph with any-k nodes.
    busy
        How many tasks of any kind it was given and has not finished.
    """

    worker: str
    heartbeat: float
    result: float
    ghosts: int
    needed: bool
    busy: int = 1


@dataclass(frozen=True)
class Tick:
    """Time has passed. ``interval`` is the time between ticks as it should be."""

    now: float
    interval: float
    heartbeat_interval: float
    workers: tuple[WorkerNews, ...]


@dataclass(frozen=True)
class Settle:
    """All that happened so far has been told: decide."""

    now: float


@dataclass(frozen=True)
class Noticed:
    """A task found shares that are wrong, contradict each other, or hold no numbers.

    ``what`` is ``corrupt-share``, ``mismatch`` or ``not-finite``; ``shares`` are positions with
    the workers that made them.
    """

    now: float
    what: str
    run: str
    layer: int
    block: int
    shares: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class RunDropped:
    """Nobody will ask for the history of this run again."""

    now: float
    run: str


Event: TypeAlias = (
    GroupsAdded
    | ShareWaiting
    | ShareStarted
    | ShareDone
    | ShareReleased
    | ShareErred
    | NodeWaiting
    | NodeStarted
    | NodeDone
    | NodeReleased
    | NodeErred
    | TaskWaiting
    | TaskStarted
    | TaskDone
    | TaskGone
    | Forgotten
    | WorkerJoined
    | WorkerStatus
    | WorkerLeft
    | Tick
    | Settle
    | RunDropped
    | Noticed
)


# ---------------------------------------------------------------------- instructions


@dataclass(frozen=True)
class Place:
    """Let this share run on this worker when its turn comes, elsewhere if it is gone."""

    share: Key
    worker: str


@dataclass(frozen=True)
class Hold:
    """Do not run this share until it is started."""

    share: Key


@dataclass(frozen=True)
class Start:
    """Let a held share run, on this worker if one is named."""

    share: Key
    worker: str | None


@dataclass(frozen=True)
class Cut:
    """Disconnect a node from these shares, and let it run with the survivors.

    Whoever is left with nobody waiting for it is given up.
    """

    node: Key
    shares: tuple[Key, ...]
    survivors: tuple[int, ...]


@dataclass(frozen=True)
class RemoveWorker:
    """Treat this worker as gone, and tell it nothing."""

    worker: str
    reason: str


@dataclass(frozen=True)
class StopUsingWorker:
    """Give this worker no more work; what it has and what it holds stays."""

    worker: str
    offences: int


@dataclass(frozen=True)
class StartBackup:
    """Run a task a second time, as ``backup``, on this worker; the first run goes on."""

    task: Key
    backup: Key
    worker: str


@dataclass(frozen=True)
class UseBackup:
    """Take a task from its worker, and give it the result of its twin."""

    task: Key
    backup: Key


@dataclass(frozen=True)
class CancelBackup:
    """Forget a twin."""

    backup: Key


Instruction: TypeAlias = (
    Place
    | Hold
    | Start
    | Cut
    | RemoveWorker
    | StopUsingWorker
    | StartBackup
    | UseBackup
    | CancelBackup
)
