"""Graphs for a simulated cluster: simple ones, or those of real blocks without their functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dask._task_spec import GraphNode
from dask.typing import Key

from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.anyk.scheduler.groups import find_groups
from fcdcc.pipeline.anyk.state_machine.events import GroupSpec, NodeSpec, Readiness, ShareSpec
from fcdcc.pipeline.anyk.tasks import AnyK

RUN = "simulated"


@dataclass(frozen=True, slots=True)
class SimulatedTask:
    """The inputs of a task, and how many seconds it takes a worker of speed 1."""

    inputs: tuple[Key, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class SimulatedBlock:
    """The graph of a block. The block is finished when ``last`` is done.

    ``useful`` is the work of the block without redundancy, in seconds of a worker of speed 1.
    """

    number: int
    tasks: Mapping[Key, SimulatedTask]
    groups: tuple[GroupSpec, ...]
    last: Key
    useful: float


def one_layer(
    block: int,
    n: int,
    delta: int,
    seconds: float = 1.0,
    standby: bool = False,
    decode: float = 0.0,
    enough: Readiness | None = None,
) -> SimulatedBlock:
    """Return one coded layer: n shares of ``seconds``, decoded from any δ (or ``enough``).

    >>> block = one_layer(0, n=3, delta=2, standby=True)
    >>> len(block.tasks), [share.held for share in block.groups[0].shares], block.useful
    (4, [False, False, True], 2.0)
    """
    keys = [task_key("parity" if p >= delta else "share", RUN, 0, block, p) for p in range(n)]
    node = task_key("decode", RUN, 0, block)
    edges = tuple(enumerate(keys))
    spec = NodeSpec(node, edges, delta if enough is None else enough)
    shares = tuple(ShareSpec(key, p, p, standby and p >= delta) for p, key in edges)
    tasks: dict[Key, SimulatedTask] = {key: SimulatedTask((), seconds) for key in keys}
    tasks[node] = SimulatedTask(tuple(keys), decode)
    group = GroupSpec(RUN, 0, block, block, shares, (spec,))
    return SimulatedBlock(block, tasks, (group,), node, delta * seconds)


def chain(
    block: int, n: int, delta: int, layers: int, seconds: float = 1.0, part: float = 0.0
) -> SimulatedBlock:
    """Return consecutive layers whose parts stay on their workers, as in blocks split by images.

    A plain share needs its part of the layer before, parity all of them; parity is on standby.
    """
    tasks: dict[Key, SimulatedTask] = {}
    groups = []
    before: list[Key] = []
    for layer in range(layers):
        keys = {
            p: task_key("parity" if p >= delta else "share", RUN, layer, block, p) for p in range(n)
        }
        for p, key in keys.items():
            mine = () if not before else (before[p],) if p < delta else tuple(before)
            tasks[key] = SimulatedTask(mine, seconds)
        edges = {p: tuple((q, keys[q]) for q in (p, *range(delta, n))) for p in range(delta)}
        nodes = tuple(
            NodeSpec(task_key("part", RUN, layer, block, p), tuple(keys.items()), delta, own=p)
            for p in edges
        )
        tasks |= {node.key: SimulatedTask(tuple(keys.values()), part) for node in nodes}
        specs = tuple(ShareSpec(key, p, p, p >= delta) for p, key in keys.items())
        groups.append(GroupSpec(RUN, layer, block, block, specs, nodes))
        before = [node.key for node in nodes]
    last = task_key("gather", RUN, layers, block)
    tasks[last] = SimulatedTask(tuple(before), part)
    return SimulatedBlock(block, tasks, tuple(groups), last, layers * delta * seconds)


def simulated(
    block: int,
    tasks: Mapping[Key, GraphNode],
    last: Key,
    seconds: Callable[[Key], float],
    is_plain: Callable[[Key], bool],
) -> SimulatedBlock:
    """Return the graph of a real block, as :func:`fcdcc.pipeline.graph.build_block` makes it.

    Parameters
    ----------
    seconds
        How long a task takes a worker of speed 1.
    is_plain
        Whether its work would be done without redundancy as well.
    """
    nodes = [task for task in tasks.values() if isinstance(task, AnyK)]
    groups = find_groups(nodes, (), itertools.count())
    made = {
        key: SimulatedTask(tuple(i for i in task.dependencies if i in tasks), seconds(key))
        for key, task in tasks.items()
    }
    useful = sum(task.seconds for key, task in made.items() if is_plain(key))
    return SimulatedBlock(block, made, groups, last, useful)
