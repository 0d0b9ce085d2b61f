"""The graph of one block in the gathered form: every layer is decoded on one worker.

::

    read ─ glue ─┬─ encode 0 ─ share 0 ─┐
                 ├─ encode 1 ─ share 1 ─┤
                 ├─    …         …      ├─ decode ─ glue ─┬─ encode 0 ─ …
                 └─ encode n ─ share n ─┘   any δ         └─ …

It serves every code, and every split of input and filters. It also serves a block that is done
again. Where its shares contradicted each other, all n of every layer are made and waited for; the
wrong ones are found and left out, and the layer is decoded from the others::

    read ─ glue ─┬─ share 0 ─┐
                 ├─    …     ├─ check ─┐
                 └─ share n ─┴─ decode ┴─ glue ─ …

Where values were not finite, every layer is run whole, as without a code: then no image meets
another.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from dask._task_spec import Task

from ..anyk import Share
from ..model.network import ConvStage, Network
from ..plans.plan import LayerPlan, Plan
from ..worker.kernels import common, gathered_kernels
from ..worker.kernels.task_specs import (
    DecodeLayer,
    DecodeRightShares,
    EncodeInput,
    GatheredShare,
    RecheckShares,
    RunStage,
    TakeImages,
)
from .block_graph import Block, BlockGraph, GraphBuilder, TaskOutputs, ValueRef

Layers: TypeAlias = Literal["coded", "recheck", "uncoded"]
"""How coded layers are run: decoded from any shares that suffice, from all of them that are right,
or not coded at all."""


def build_gathered(
    network: Network, plan: Plan, block: Block, layers: Layers = "coded"
) -> BlockGraph:
    """Return the graph of one block; see :func:`fcdcc.pipeline.graph.build_block`."""
    return _GatheredGraphBuilder(network, plan, block).build(layers)


class _GatheredGraphBuilder(GraphBuilder):
    """Builds one block; every value is in one place."""

    def build(self, layers: Layers) -> BlockGraph:
        """Return the whole graph."""
        block, network, values = self.block, self.network, TaskOutputs(self.tasks)
        values.add(block.reader(block.key("read", 0), 0, block.images, self.images), network.input)
        for stage in network.stages:
            is_coded = isinstance(stage, ConvStage) and layers != "uncoded"
            if is_coded and self.plan.layer(stage.index).code is not None:
                layer, value = self.plan.layer(stage.index), values[stage.inputs[0]]
                add = add_rechecked if layers == "recheck" else add_gathered
                values.add(add(self, layer, value), *stage.outputs)
            else:
                inputs = (values[name] for name in stage.inputs)
                key, spec = block.key("glue", stage.index), RunStage(stage.index)
                values.add(self.task(key, common.run_stage, spec, *inputs), *stage.outputs)
        prediction = values[network.output]
        if layers != "coded":
            key = block.key("gather", len(network.stages))
            prediction = self.add(Task(key, common.take, TakeImages(block.images), prediction))
        return self.graph(prediction)


def add_gathered(builder: GraphBuilder, layer: LayerPlan, value: ValueRef) -> Task:
    """Add the n subtasks of one layer, and return the any-k node that decodes them."""
    number, standby = layer.layer, builder.plan.standby_positions(layer)

    def make_share(position: int) -> Share:
        spec = GatheredShare(number, position)
        if position in standby:  # encodes when it starts, and pulls nothing before
            return builder.share(layer, position, gathered_kernels.encode_and_share, spec, value)
        key, encode = builder.block.key("encode", number, position), EncodeInput(number, position)
        coded = builder.add(builder.task(key, gathered_kernels.encode, encode, value))
        return builder.share(layer, position, gathered_kernels.share, spec, coded)

    group = builder.add_group(layer, make_share)
    spec = DecodeLayer(number, builder.images)
    return builder.node("decode", group, gathered_kernels.decode, spec)


def add_rechecked(builder: GraphBuilder, layer: LayerPlan, value: ValueRef) -> Task:
    """Add all shares of a layer and a check that finds wrong ones; return the node that decodes."""
    number, n = layer.layer, layer.coded_conv.code.n

    def make_share(position: int) -> Share:
        spec = GatheredShare(number, position)
        return builder.share(layer, position, gathered_kernels.encode_and_share, spec, value)

    group = builder.add_group(layer, make_share, range(n))
    spec = RecheckShares(number, builder.images)
    check = builder.add(
        builder.node("check", group, gathered_kernels.recheck, spec, enough=n, plain=())
    )
    builder.checks.append(check)
    right = DecodeRightShares(number, builder.images)
    return builder.node("decode", group, gathered_kernels.decode_right, right, check, enough=n)
