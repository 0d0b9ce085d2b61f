"""The tasks and workers of a simulated cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from dask.typing import Key

from fcdcc.pipeline.anyk.state_machine.events import TaskKind

Priority: TypeAlias = tuple[int, int]
"""Number of the block and place in its graph: the smallest runs first."""


class State(StrEnum):
    """State of a task, in Dask's words."""

    WAITING = "waiting"
    PROCESSING = "processing"
    MEMORY = "memory"
    RELEASED = "released"
    FORGOTTEN = "forgotten"


@dataclass(slots=True, eq=False)
class Task:
    """A task.

    Parameters
    ----------
    missing
        Its inputs that have no result yet.
    place
        The worker that it was placed on.
    wanted
        Whether a client wants its result.
    attempt
        Counts assignments, to distinguish a stale result from a current one.
    plain
        The positions with which an any-k node has nothing to solve for.
    solves
        Whether the node runs without some of these.
    """

    key: Key
    kind: TaskKind
    block: int
    seconds: float
    priority: Priority
    inputs: dict[Key, None]
    dependents: dict[Key, None] = field(default_factory=dict)
    missing: dict[Key, None] = field(default_factory=dict)
    state: State = State.RELEASED
    worker: str | None = None
    place: str | None = None
    held: bool = False
    wanted: bool = False
    is_backup: bool = False
    attempt: int = 0
    plain: frozenset[int] = frozenset()
    solves: bool = False


@dataclass(slots=True)
class Open:
    """A group that is not complete: its nodes without a result, and when its first task began."""

    nodes: set[Key]
    start: float | None = None


@dataclass(slots=True, eq=False)
class Worker:
    """A worker with one thread.

    ``queue`` has the tasks whose inputs it has, ``running`` the task that its thread is busy with,
    the attempt and when it began; ``ghost`` says that this task was given up. ``stopped`` is when
    the worker was stopped.
    """

    address: str
    host: str
    queue: list[tuple[Priority, int, Key]] = field(default_factory=list)
    running: tuple[Task, int, float] | None = None
    ghost: bool = False
    processing: dict[Key, None] = field(default_factory=dict)
    holds: dict[Key, None] = field(default_factory=dict)
    stopped: float | None = None
    leaving: bool = False
