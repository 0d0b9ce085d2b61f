"""The graph of one block in the gathered form: every layer is decoded on one worker.

::

    read ─ glue ─┬─ encode 0 ─ share 0 ─┐
                 ├─ encode 1 ─ share 1 ─┤
                 ├─    …         …      ├─ decode ─ glue ─┬─ encode 0 ─ …
                 └─ encode n ─ share n ─┘   any δ         └─ …

It serves every code, and every split of input and filters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from dask._task_spec import Task, TaskRef
from dask.typing import Key

from ..anyk import AnyK, Share
from ..anyk.keys import RawKey, Stage
from ..model.network import ConvStage, GlueStage, Network
from ..plans.plan import LayerPlan, Plan
from ..worker.kernels import common, gathered_kernels
from ..worker.share_checks import ShareMessage
from .block_graph import Block, BlockGraph, Decodable, ExecutableSource, TaskOutputs


def build_gathered(network: Network, plan: Plan, block: Block) -> BlockGraph:
    """Return the graph of one block; see :func:`fcdcc.pipeline.graph.build_block`."""
    executable, images = block.executable, block.images
    padded = plan.batch if plan.fixed_batch else images
    values = TaskOutputs({})
    values.add(block.reader(block.key("read", 0), 0, images, padded), network.input)
    for stage in network.stages:
        make_key = partial(block.key, layer=stage.index)
        if isinstance(stage, GlueStage):
            inputs = [values[name] for name in stage.inputs]
            task = Task(make_key("glue"), common.glue, executable, stage.index, *inputs)
            values.add(task, *stage.outputs)
            continue
        layer = plan.layer(stage.index)
        if layer.code is None:
            whole = Task(
                make_key("glue"),
                gathered_kernels.convolve_whole,
                executable,
                stage.index,
                values[stage.input],
            )
            values.add(whole, stage.output)
        else:
            add_gathered(values, stage, layer, plan, executable, make_key)
    prediction = values[network.output]
    if padded > images:
        key = block.key("gather", len(network.stages))
        take = Task(key, common.take, prediction, images)
        values.tasks[take.key] = take
        prediction = TaskRef(take.key)
    return BlockGraph(values.tasks, prediction)


def add_gathered(
    values: TaskOutputs,
    stage: ConvStage,
    layer: LayerPlan,
    plan: Plan,
    executable: ExecutableSource,
    make_key: Callable[..., RawKey],
    allowed_workers: Collection[str] = (),
) -> None:
    """Add the n subtasks of one layer and the any-k node that decodes them.

    The shares are made ``allowed_workers`` these workers, if any are named.
    """
    shares: dict[int, Key] = {}
    standby = plan.standby_positions(layer)
    for position in plan.shares_started(layer):
        name: Stage = "parity" if position in layer.parity else "share"
        value = values[stage.input]
        kernel: Callable[..., ShareMessage] = gathered_kernels.share
        if position in standby:  # encodes when it starts, and pulls nothing before
            kernel = gathered_kernels.encode_and_share
        else:
            encode = Task(
                make_key("encode", position=position),
                gathered_kernels.encode,
                executable,
                stage.index,
                position,
                value,
            )
            values.add(encode)
            value = TaskRef(encode.key)
        share = Share(
            make_key(name, position=position), kernel, executable, stage.index, position, value
        )
        values.add(share)
        shares[position] = share.key
    decode = AnyK(
        make_key("decode"),
        gathered_kernels.decode,
        shares,
        Decodable(layer.coded_conv.code, plan.dtype, plan.shares_waited_for(layer)),
        executable,
        stage.index,
        plain=layer.uncoded,
        standby=standby,
        seats=plan.placement.seats(shares),
        allowed_workers=allowed_workers,
    )
    values.add(decode, stage.output)
