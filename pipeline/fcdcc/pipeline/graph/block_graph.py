"""A block's graph as a value, and what the builders of all its forms have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from operator import getitem
from typing import Any, Protocol, TypeAlias

import torch
from dask._task_spec import GraphNode, Task, TaskRef
from dask.typing import Key

from fcdcc.coding import Code
from fcdcc.coding.conditioning import is_enough

from ..anyk import AnyK, Readiness, Share
from ..anyk.keys import RawKey, Stage, task_key
from ..halo import Rows
from ..model.network import Network
from ..plans.plan import LayerPlan, Plan
from ..worker.executable import Executable, ExecutableRef
from ..worker.kernels import common
from ..worker.kernels.task_specs import CheckShares, TaskSpec

ValueRef: TypeAlias = TaskRef | Task
"""A value as an argument of a task: a task's result, or one taken out of it by name."""

ExecutableSource: TypeAlias = ExecutableRef | Executable | TaskRef
"""How tasks refer to the executable: by its reference, if workers keep it, or by a task."""

Kernel: TypeAlias = Callable[..., Any]


class ImageReader(Protocol):
    """Makes the tasks that read a block's images."""

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
        What the tasks refer to: the workers keep it, or it is a task of the same graph.
    run, number
        Of the run and of the block, as in the task keys.
    images
        Images in this block.
    reader
        Makes the tasks that read them.
    first_position
        Positions in the task keys begin here; a block that is done again has others.
    allowed_workers
        Addresses of the workers that make the shares; any, if none are named.
    """

    executable: ExecutableSource
    run: str
    number: int
    images: int
    reader: ImageReader
    first_position: int = 0
    allowed_workers: Collection[str] = ()

    def key(self, stage: Stage, layer: int, position: int = 0) -> RawKey:
        """Return the key of one of its tasks."""
        return task_key(stage, self.run, layer, self.number, self.first_position + position)


@dataclass(frozen=True)
class BlockGraph:
    """The tasks of one block.

    Parameters
    ----------
    tasks
        By their keys.
    prediction
        The block's prediction, as an argument for the task that writes it.
    checks
        Tasks that compare the shares of a layer: the prediction is right when all are done.
    """

    tasks: Mapping[Key, GraphNode]
    prediction: ValueRef
    checks: tuple[TaskRef, ...] = ()


@dataclass(frozen=True)
class Decodable:
    """The readiness of a layer: whether the shares that are done can be decoded accurately.

    If decoding from δ shares would lose too many digits of the dtype, it waits for one more; and
    in any case for ``at_least`` shares.
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
    _refs: dict[str, ValueRef] = field(default_factory=dict)

    def add(self, task: Task, *names: str) -> None:
        """Add a task and say which values it makes: one as it is, several by name."""
        self.tasks[task.key] = task
        for name in names:
            ref = TaskRef(task.key)
            self._refs[name] = ref if len(names) == 1 else Task(None, getitem, ref, name)

    def __getitem__(self, name: str) -> ValueRef:
        return self._refs[name]


@dataclass(frozen=True)
class ShareGroup:
    """The shares of one coded layer of a block, by position, for the nodes that wait for them."""

    layer: LayerPlan
    shares: Mapping[int, Key]
    standby: tuple[int, ...] = ()


class GraphBuilder:
    """Makes the tasks of one block.

    Attributes
    ----------
    images
        Images in every value: those of the block.
    """

    def __init__(self, network: Network, plan: Plan, block: Block) -> None:
        self.network = network
        self.plan = plan
        self.block = block
        self.images = block.images
        self.tasks: dict[Key, GraphNode] = {}
        self.checks: list[TaskRef] = []

    def graph(self, prediction: ValueRef) -> BlockGraph:
        """Return the finished graph."""
        return BlockGraph(self.tasks, prediction, tuple(self.checks))

    def add(self, task: Task) -> TaskRef:
        """Add a task whose result is no value of the network; return a reference to it."""
        self.tasks[task.key] = task
        return TaskRef(task.key)

    def task(self, key: RawKey, kernel: Kernel, spec: TaskSpec, *values: ValueRef) -> Task:
        """Return a task that a kernel runs with the executable."""
        return Task(key, kernel, self.block.executable, spec, *values)

    def share(
        self, group: LayerPlan, position: int, kernel: Kernel, spec: TaskSpec, *values: ValueRef
    ) -> Share:
        """Return the task of one share of a layer, or of its parity."""
        stage: Stage = "parity" if position in group.parity else "share"
        key = self.block.key(stage, group.layer, position)
        return Share(key, kernel, self.block.executable, spec, *values)

    def add_group(
        self,
        layer: LayerPlan,
        make_share: Callable[[int], Share],
        positions: Collection[int] | None = None,
    ) -> ShareGroup:
        """Add the shares of a coded layer.

        Parameters
        ----------
        layer
            The layer.
        make_share
            Returns the task of the share at a position.
        positions
            Shares that all start; by default those that the plan starts or has on standby.
        """
        standby = self.plan.standby_positions(layer) if positions is None else ()
        shares: dict[int, Key] = {}
        for position in self.plan.shares_started(layer) if positions is None else positions:
            share = make_share(position)
            self.tasks[share.key] = share
            shares[position] = share.key
        return ShareGroup(layer, shares, standby)

    def part(self, group: ShareGroup, part: int, kernel: Kernel, spec: TaskSpec) -> AnyK:
        """Return the node of one part of a layer: its own share, or any that decode."""
        layer = group.layer
        return AnyK(
            self.block.key("part", layer.layer, part),
            kernel,
            self.plan.shares_of_part(layer, group.shares, part),
            Decodable(layer.coded_conv.code, self.plan.dtype),
            self.block.executable,
            spec,
            own=part,
            standby=group.standby,
            allowed_workers=self.block.allowed_workers,
        )

    def node(
        self,
        stage: Stage,
        group: ShareGroup,
        kernel: Kernel,
        spec: TaskSpec,
        *values: ValueRef,
        enough: int | Readiness | None = None,
        plain: Collection[int] | None = None,
    ) -> AnyK:
        """Return a node that needs any shares of a layer that decode.

        Parameters
        ----------
        stage, kernel, spec, values
            What it does.
        group
            The shares.
        enough
            When it is ready; by default as the plan requires.
        plain
            The positions with which there is nothing to solve for; by default the uncoded ones.
        """
        layer = group.layer
        if enough is None:
            waited_for = self.plan.shares_waited_for(layer)
            enough = Decodable(layer.coded_conv.code, self.plan.dtype, waited_for)
        return AnyK(
            self.block.key(stage, layer.layer),
            kernel,
            group.shares,
            enough,
            self.block.executable,
            spec,
            *values,
            standby=group.standby,
            plain=layer.uncoded if plain is None else plain,
            allowed_workers=self.block.allowed_workers,
        )

    def add_check(self, group: ShareGroup, images: int) -> None:
        """Add a task that checks shares of a layer, if the plan waits for more than it needs."""
        if self.plan.verify == "all":
            spec = CheckShares(group.layer.layer, images)
            self.checks.append(self.add(self.node("check", group, common.check_shares, spec)))
