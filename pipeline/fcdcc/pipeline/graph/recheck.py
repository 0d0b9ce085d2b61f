"""The graphs of a block that is done again: with all its shares, or without a code.

Where shares contradicted each other, all n of every layer are made and waited for, located and
left out if they are wrong, and the layer is decoded from the others::

    read ─ glue ─┬─ share 0 ─┐
                 ├─    …     ├─ check ─┐
                 └─ share n ─┴─ decode ┴─ glue ─ …

Where values are not finite, every layer is run whole, as without a code: then no image meets
another.
"""

from __future__ import annotations

from dask._task_spec import Task, TaskRef
from dask.typing import Key

from ..anyk import AnyK, Share
from ..anyk.keys import Stage
from ..model.network import GlueStage, Network
from ..plans.plan import LayerPlan, Plan
from ..worker.kernels import common, gathered_kernels, recheck_kernels
from .block_graph import Block, BlockGraph, TaskOutputs

ATTEMPT_STRIDE = 1_000_000
"""Positions of one try's tasks differ by so much from those of the next.

A worker may still be busy with a task of an earlier try, and must not give its result for one
of the same key.
"""


def build_recheck(network: Network, plan: Plan, block: Block) -> BlockGraph:
    """Return the graph that makes and checks all shares of every layer."""
    return _RecheckBuilder(network, plan, block).build(coded=True)


def build_uncoded(network: Network, plan: Plan, block: Block) -> BlockGraph:
    """Return the graph that runs every layer whole."""
    return _RecheckBuilder(network, plan, block).build(coded=False)


class _RecheckBuilder:
    def __init__(self, network: Network, plan: Plan, block: Block) -> None:
        self._network = network
        self._plan = plan
        self._block = block
        self._executable = block.executable
        self._padded = plan.batch if plan.fixed_batch else block.images
        self._values = TaskOutputs({})
        self._checks: list[TaskRef] = []

    def build(self, coded: bool) -> BlockGraph:
        """Return the whole graph."""
        values = self._values
        read = self._block.reader(self._block.key("read", 0), 0, self._block.images, self._padded)
        values.add(read, self._network.input)
        for stage in self._network.stages:
            key = self._block.key("glue", stage.index)
            if isinstance(stage, GlueStage):
                inputs = [values[name] for name in stage.inputs]
                task = Task(key, common.glue, self._executable, stage.index, *inputs)
                values.add(task, *stage.outputs)
                continue
            layer = self._plan.layer(stage.index)
            if coded and layer.code is not None:
                self._add_group(layer, stage.input, stage.output)
            else:
                value = values[stage.input]
                whole = Task(
                    key, gathered_kernels.convolve_whole, self._executable, stage.index, value
                )
                values.add(whole, stage.output)
        key = self._block.key("gather", len(self._network.stages))
        take = Task(key, common.take, values[self._network.output], self._block.images)
        values.add(take)
        return BlockGraph(values.tasks, TaskRef(take.key), tuple(self._checks))

    def _add_group(self, layer: LayerPlan, source: str, target: str) -> None:
        """Add all shares of a layer, what finds the wrong ones, and what decodes the others."""
        number, code = layer.layer, layer.coded_conv.code
        shares: dict[int, Key] = {}
        for position in range(code.n):
            stage: Stage = "parity" if position in layer.parity else "share"
            task = Share(
                self._block.key(stage, number, position),
                gathered_kernels.encode_and_share, self._executable, number, position,
                self._values[source],
            )  # fmt: skip
            self._values.add(task)
            shares[position] = task.key
        seats = self._plan.placement.seats(shares)
        check = AnyK(
            self._block.key("check", number),
            recheck_kernels.check,
            shares, code.n, self._executable, number, self._padded, seats=seats,
            allowed_workers=self._block.allowed_workers,
        )  # fmt: skip
        self._values.add(check)
        self._checks.append(TaskRef(check.key))
        decode = AnyK(
            self._block.key("decode", number),
            recheck_kernels.decode,
            shares, code.n, self._executable, number, self._padded, TaskRef(check.key),
            seats=seats, plain=layer.uncoded, allowed_workers=self._block.allowed_workers,
        )  # fmt: skip
        self._values.add(decode, target)
