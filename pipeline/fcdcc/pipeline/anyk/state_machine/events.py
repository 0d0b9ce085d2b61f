"""The values that go into and come out of the any-k state machine: events and instructions.

In goes what happened: a graph arrived (:class:`GroupsAdded`), a task changed its state
(:class:`TaskChanged`), a worker joined or left, time passed (:class:`Tick`). Out comes what the
scheduler has to do: place or start a share, let a node run with the shares that are done, run a
task a second time, remove a worker.

All of them are values without behaviour, so that a run can be recorded and replayed. Times are
seconds on the scheduler's clock; the state machine has no clock of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

Key: TypeAlias = str | int | float | tuple["Key", ...]
"""What Dask accepts as the key of a task."""

# ------------------------------------------------------------------------- readiness


@runtime_checkable
class Readiness(Protocol):
    """Says whether the shares at some positions are enough. It must be picklable and pure.

    >>> from fcdcc.coding import make_code
    >>> enough: Readiness = make_code("systematic", n=6, k_a=16, k_b=1).is_decodable
    >>> enough(frozenset({0, 1, 4, 5}))
    True
    """

    def __call__(self, done: frozenset[int], /) -> bool:
        """Return whether the node can run with the shares at these positions."""
        ...


def is_ready(enough: int | Readiness, own: int | None, done: Collection[int]) -> bool:
    """Return whether a node can run with the shares at these positions.

    >>> is_ready(2, None, {0, 3}), is_ready(2, None, {3}), is_ready(2, 3, {3})
    (True, False, True)
    """
    if own is not None and own in done:
        return True
    if isinstance(enough, int):
        return len(done) >= enough
    return bool(enough(frozenset(done)))


def used_positions(own: int | None, done: Collection[int]) -> frozenset[int]:
    """Return the positions that a ready node uses: its own share alone if that is done, else all.

    >>> sorted(used_positions(3, {0, 3})), sorted(used_positions(None, {0, 3}))
    ([3], [0, 3])
    """
    if own is not None and own in done:
        return frozenset((own,))
    return frozenset(done)


# ------------------------------------------------------------------------- the graph


@dataclass(frozen=True)
class ShareSpec:
    """One share of a group; ``held`` says that it is on standby at first."""

    key: Key
    position: int
    seat: int
    held: bool = False


@dataclass(frozen=True)
class NodeSpec:
    """One any-k node.

    Parameters
    ----------
    edges
        Position and key of each share that it needs.
    enough
        How many shares suffice, or a predicate over their positions.
    own
        The position that suffices alone, if there is one.
    plain
        Positions that together leave nothing to be solved for.
    """

    key: Key
    edges: tuple[tuple[int, Key], ...]
    enough: int | Readiness
    own: int | None = None
    plain: frozenset[int] = frozenset()


@dataclass(frozen=True)
class GroupSpec:
    """Shares that belong together and the nodes that they feed.

    Parameters
    ----------
    run, layer, block
        Labels. All groups of one block of one run have the same seats.
    rotation
        Index of the worker at which seating begins.
    allowed_workers
        Addresses of the workers that may have the seats; all if empty.
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


TaskKind: TypeAlias = Literal["share", "node", "task"]
"""A share of a group, an any-k node, or any other task of a graph with any-k nodes. A backup task
is of kind ``task``, whatever it is a copy of."""

TaskStatus: TypeAlias = Literal["waiting", "started", "done", "released", "erred"]
"""``waiting``: for its inputs or for a worker. ``started``: assigned to a worker; for a node, all
shares that it is connected to are done. ``done``: the result is in a worker's memory.
``released``: neither running nor in memory, because nothing needs it any more or because it was
lost. ``erred``: it, or a task that it needs, raised an exception."""


class TaskChanged(NamedTuple):
    """A task changed its state. A named tuple because there are several for every task.

    Parameters
    ----------
    worker
        For ``started`` and ``done``, the address of the worker; '' for a node that has all of its
        shares and no worker yet.
    start, stop
        For a share that is ``done``, when the computation began and ended.
    """

    now: float
    key: Key
    kind: TaskKind
    state: TaskStatus
    worker: str = ""
    start: float = 0.0
    stop: float = 0.0


@dataclass(frozen=True)
class Forgotten:
    """The scheduler deleted a task."""

    now: float
    key: Key


@dataclass(frozen=True)
class WorkerJoined:
    """A worker joined; ``running`` if it takes tasks already."""

    now: float
    worker: str
    host: str
    nthreads: int
    running: bool = True


@dataclass(frozen=True)
class WorkerStatus:
    """A worker takes tasks from now on (``running``), or takes none for now."""

    now: float
    worker: str
    running: bool


@dataclass(frozen=True)
class WorkerLeft:
    """A worker is gone; ``expected`` if it was retired or closed in order."""

    now: float
    worker: str
    expected: bool = False


@dataclass(frozen=True)
class WorkerObservation:
    """What the scheduler knows of one worker at a tick.

    Parameters
    ----------
    worker
        Its address.
    heartbeat
        When its last heartbeat arrived.
    result
        When the last result of any task arrived from it; 0 if none has.
    cancelled
        How many cancelled tasks its last heartbeat reported.
    needed
        Whether it runs or holds anything that belongs to a graph with any-k nodes.
    processing
        How many tasks of any kind are assigned to it.
    shared
        Whether it runs or holds anything that does not.
    ready
        Whether it has said that it has loaded what its tasks need.
    """

    worker: str
    heartbeat: float
    result: float
    cancelled: int
    needed: bool
    processing: int = 1
    shared: bool = False
    ready: bool = False


@dataclass(frozen=True)
class Tick:
    """Time has passed.

    Parameters
    ----------
    interval
        Seconds between two ticks, as intended.
    heartbeat_interval
        Seconds between two heartbeats of a worker, as intended.
    """

    now: float
    interval: float
    heartbeat_interval: float
    workers: tuple[WorkerObservation, ...]


@dataclass(frozen=True)
class Idle:
    """Time has passed, and nothing is waited for.

    Parameters
    ----------
    interval
        Seconds between two of these events, as intended.
    heartbeat_interval
        As of :class:`Tick`.
    """

    now: float
    interval: float
    heartbeat_interval: float
    workers: tuple[WorkerObservation, ...]


@dataclass(frozen=True)
class Settle:
    """The scheduler has finished what it was doing: decide what follows from it."""

    now: float


@dataclass(frozen=True)
class SharesReported:
    """A task found shares that are wrong, contradict each other, or are not finite.

    Parameters
    ----------
    problem
        ``corrupt-share``, ``failed-check``, ``mismatch`` or ``not-finite``.
    shares
        Position of each share and the worker that computed it.
    """

    now: float
    problem: str
    run: str
    layer: int
    block: int
    shares: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class RunDropped:
    """The history of a run is not needed any more."""

    now: float
    run: str


Event: TypeAlias = (
    GroupsAdded
    | TaskChanged
    | Forgotten
    | WorkerJoined
    | WorkerStatus
    | WorkerLeft
    | Tick
    | Idle
    | Settle
    | SharesReported
    | RunDropped
)


# ---------------------------------------------------------------------- instructions


@dataclass(frozen=True)
class PlaceShare:
    """Run this share on this worker when it is ready, or elsewhere if the worker is gone."""

    share: Key
    worker: str


@dataclass(frozen=True)
class HoldShare:
    """Do not run this share until it is started."""

    share: Key


@dataclass(frozen=True)
class StartShare:
    """Let a held share run, on this worker if one is named."""

    share: Key
    worker: str | None


@dataclass(frozen=True)
class DisconnectNode:
    """Disconnect a node from these shares, and run it with the survivors.

    A share that feeds nothing any more is given up.
    """

    node: Key
    shares: tuple[Key, ...]
    survivors: tuple[int, ...]


@dataclass(frozen=True)
class RemoveWorker:
    """Treat this worker as gone, without a message to it."""

    worker: str
    reason: str


@dataclass(frozen=True)
class BypassWorker:
    """Compute elsewhere what this worker runs or holds of graphs with any-k nodes.

    What it runs and holds of others stays, and so does the worker.
    """

    worker: str
    reason: str


@dataclass(frozen=True)
class StopUsingWorker:
    """Assign no more tasks to this worker; what it runs and holds stays.

    ``offences`` is the number of blocks in which it returned wrong shares, or of its results that
    failed their checksum.
    """

    worker: str
    offences: int


@dataclass(frozen=True)
class StartBackup:
    """Run a task a second time under the key ``backup`` on this worker; the first run goes on."""

    task: Key
    backup: Key
    worker: str


@dataclass(frozen=True)
class UseBackup:
    """Take a task from its worker, and give it the result of its backup task."""

    task: Key
    backup: Key


@dataclass(frozen=True)
class CancelBackup:
    """Forget a backup task."""

    backup: Key


Instruction: TypeAlias = (
    PlaceShare
    | HoldShare
    | StartShare
    | DisconnectNode
    | RemoveWorker
    | BypassWorker
    | StopUsingWorker
    | StartBackup
    | UseBackup
    | CancelBackup
)
