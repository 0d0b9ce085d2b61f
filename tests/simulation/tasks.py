"""What a simulated scheduler remembers: tasks and workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from dask.typing import Key

from fcdcc.pipeline.anyk.state_machine.events import TaskKind

__all__ = ["Open", "Priority", "State", "Task", "Worker"]

Priority: TypeAlias = tuple[int, int]
"""Block and place in its graph: the smaller goes first."""


class State(StrEnum):
    """Where a task stands, in Dask's words."""

    WAITING = "waiting"
    PROCESSING = "processing"
    MEMORY = "memory"
    RELEASED = "released"
    FORGOTTEN = "forgotten"


@dataclass(slots=True, eq=False)
class Task:
    """A task; ``attempt`` tells an answer from a stale one.

    ``plain`` are the positions with which an any-k node has nothing to solve for, ``solves``
    says that it runs without them.
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
    is_twin: bool = False
    attempt: int = 0
    plain: frozenset[int] = frozenset()
    solves: bool = False


@dataclass(slots=True)
class Open:
    """A group: its nodes without a result so far, and when its first task was assigned."""

    nodes: set[Key]
    start: float | None = None


@dataclass(slots=True, eq=False)
class Worker:
    """A worker with one thread.

    ``queue`` are the tasks whose inputs it has, ``running`` what its thread is busy with: the
    task, its attempt, and when that began; ``stopped`` since when it neither works nor answers.
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
