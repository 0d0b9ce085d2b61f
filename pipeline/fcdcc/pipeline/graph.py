"""The Dask graph of one block of images.

::

    read ─ glue ─┬─ encode 0 ─ share 0 ─┐
                 ├─ encode 1 ─ share 1 ─┤
                 ├─    …         …      ├─ decode ─ glue ─┬─ encode 0 ─ …
                 └─ encode n ─ share n ─┘   any δ         └─ …

This is the gathered form: a layer is decoded on one worker, gets its glue there and is
split again. The graph is static and right for every Dask scheduler; where the any-k plugin
runs, ``decode`` starts as soon as its shares suffice (:mod:`fcdcc.pipeline.anyk`).

A value of the network is found by its name: :class:`_Values` says which task makes it and,
where a task makes several, how to take one. Nothing else knows how tasks hang together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from operator import getitem

import torch
from dask._task_spec import GraphNode, Task, TaskRef
from dask.typing import Key

from fcdcc.coding import Code
from fcdcc.coding.survivors import is_enough

from . import kernels
from .anyk import AnyK, Share
from .executable import Executable, ExecutableRef
from .keys import RawKey, task_key
from .network import ConvStage, GlueStage, Network
from .plans import LayerPlan, Plan

__all__ = ["BlockGraph", "Decodable", "build_block"]


@dataclass(frozen=True)
class Decodable:
    """The readiness of a gathered layer: the shares that are there decode, and well.

    Where δ shares would cost too many digits of the dtype, it waits for one more.
    """

    code: Code
    dtype: str

    def __call__(self, done: frozenset[int]) -> bool:
        """Return whether to decode from these positions."""
        return is_enough(self.code, done, getattr(torch, self.dtype))


@dataclass(frozen=True)
class BlockGraph:
    """The tasks of one block, and its prediction as an argument for the task that wants it."""

    tasks: dict[Key, GraphNode]
    prediction: TaskRef | Task


@dataclass
class _Values:
    """Which task makes which value of the network."""

    tasks: dict[Key, GraphNode] = field(default_factory=dict)
    _sources: dict[str, TaskRef | Task] = field(default_factory=dict)

    def add(self, task: Task, *names: str) -> None:
        """Add a task and say which values it makes: one as it is, several by name."""
        self.tasks[task.key] = task
        for name in names:
            ref = TaskRef(task.key)
            self._sources[name] = ref if len(names) == 1 else Task(None, getitem, ref, name)

    def __getitem__(self, name: str) -> TaskRef | Task:
        return self._sources[name]


def build_block(
    network: Network,
    plan: Plan,
    executable: ExecutableRef | Executable | TaskRef,
    run: str,
    block: int,
    images: int,
    source: Task,
) -> BlockGraph:
    """Return the graph that takes one block of images through the network.

    Parameters
    ----------
    network, plan
        What to run and how.
    executable
        What the tasks refer to: the workers hold it, or it is a task of the same graph.
    run, block
        Stand in the task keys.
    images
        Images in this block.
    source
        The task that returns them, (images, C, *space) in the plan's dtype.
    """
    values = _Values()
    values.add(source, network.input)
    for stage in network.stages:
        make_key = partial(task_key, run=run, layer=stage.index, block=block)
        if isinstance(stage, GlueStage):
            inputs = [values[name] for name in stage.inputs]
            task = Task(make_key("glue"), kernels.glue, executable, stage.index, *inputs)
            values.add(task, *stage.outputs)
            continue
        layer = plan.layer(stage.index)
        if layer.code is None:
            whole = Task(
                make_key("glue"),
                kernels.convolve_whole,
                executable,
                stage.index,
                values[stage.input],
            )
            values.add(whole, stage.output)
        else:
            _add_coded(values, stage, layer, plan, executable, make_key, images)
    return BlockGraph(values.tasks, values[network.output])


def _add_coded(
    values: _Values,
    stage: ConvStage,
    layer: LayerPlan,
    plan: Plan,
    executable: ExecutableRef | Executable | TaskRef,
    make_key: Callable[..., RawKey],
    images: int,
) -> None:
    """Add the n subtasks of one layer and the any-k node that decodes them."""
    shares: dict[int, Key] = {}
    for position in plan.shares_started(layer):
        encode = Task(
            make_key("encode", position=position),
            kernels.encode,
            executable,
            stage.index,
            position,
            values[stage.input],
        )
        share = Share(
            make_key("share", position=position),
            kernels.share,
            executable,
            stage.index,
            position,
            TaskRef(encode.key),
        )
        values.add(encode)
        values.add(share)
        shares[position] = share.key
    decode = AnyK(
        make_key("decode"),
        kernels.decode,
        shares,
        Decodable(layer.coded_conv.code, plan.dtype),
        executable,
        stage.index,
        images,
        seats=plan.placement.seats(shares),
    )
    values.add(decode, stage.output)
