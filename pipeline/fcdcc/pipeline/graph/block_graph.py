"""What every form of graph is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from operator import getitem
from typing import Protocol, TypeAlias

import torch
from dask._task_spec import GraphNode, Task, TaskRef
from dask.typing import Key

from fcdcc.coding import Code
from fcdcc.coding.conditioning import is_enough

from ..anyk.keys import RawKey, Stage, task_key
from ..halo import Rows
from ..worker.executable import Executable, ExecutableRef

Source: TypeAlias = TaskRef | Task
"""A value as an argument of a task: a task's result, or one taken out of it."""

ExecutableSource: TypeAlias = ExecutableRef | Executable | TaskRef
"""What tasks refer to: held by the workers, or itself a task of the same graph."""


class Reader(Protocol):
    """Says how a run of a block's images is read."""

    def __call__(
        self, key: Key, start: int, stop: int, pad_to: int, rows: Rows | None = None, /
    ) -> Task:
        """Return the task for images start … stop − 1 of the block, (pad_to, C, *space).

        Images of zeros follow the last one where ``pad_to`` is more than there are. With
        ``rows`` only these, of the first spatial axis.
        """
        ...


@dataclass(frozen=True)
class Block:
    """A block of images that is to be taken through a network.

    Parameters
    ----------
    executable
        What the tasks refer to: the workers hold it, or it is a task of the same graph.
    run, number
        Stand in the task keys.
    images
        Images in this block.
    reader
        Says how runs of them are read.
    apart
        Positions in the task keys begin here; a block that is done again has others.
    among
        Addresses of the workers that make the shares; any, if none are named.
    """

    executable: ExecutableSource
    run: str
    number: int
    images: int
    reader: Reader
    apart: int = 0
    allowed_workers: Collection[str] = ()

    def key(self, stage: Stage, layer: int, position: int = 0) -> RawKey:
        """Return the key of one of its tasks."""
        return task_key(stage, self.run, layer, self.number, self.apart + position)


@dataclass(frozen=True)
class BlockGraph:
    """The tasks of one block, and its prediction as an argument for the task that wants it.

    ``checks`` are what compares the shares of a layer: the prediction holds when all of them
    are through.
    """

    tasks: Mapping[Key, GraphNode]
    prediction: Source
    checks: tuple[TaskRef, ...] = ()


@dataclass(frozen=True)
class Decodable:
    """The readiness of a layer: the shares that are there decode, and well.

    Where δ shares would cost too many digits of the dtype, it waits for one more, and for
    ``at_least`` so many in any case.
    """

    code: Code
    dtype: str
    at_least: int = 0

    def __call__(self, done: frozenset[int]) -> bool:
        """Return whether to decode from these positions."""
        if len(done) < self.at_least:
            return False
        return is_enough(self.code, done, getattr(torch, self.dtype))


@dataclass(frozen=True)
class TaskOutputs:
    """Which task makes which value of the network."""

    tasks: MutableMapping[Key, GraphNode]
    _sources: dict[str, Source] = field(default_factory=dict)

    def add(self, task: Task, *names: str) -> None:
        """Add a task and say which values it makes: one as it is, several by name."""
        self.tasks[task.key] = task
        for name in names:
            ref = TaskRef(task.key)
            self._sources[name] = ref if len(names) == 1 else Task(None, getitem, ref, name)

    def __getitem__(self, name: str) -> Source:
        return self._sources[name]
