"""Graphs in which shares were given up, as the any-k plugin leaves them."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping

from dask._task_spec import DataNode, GraphNode

from fcdcc.pipeline.anyk import ERASED, AnyK


def erase(tasks: Mapping[Hashable, GraphNode], count: int, seed: int) -> dict[Hashable, GraphNode]:
    """Return the tasks with ``count`` shares of every any-k node given up, drawn at random.

    Their tasks are taken out, so that a graph that still needed one could not run.
    """
    draw = random.Random(seed)
    left = dict(tasks)
    for key, task in tasks.items():
        if isinstance(task, AnyK):
            gone = draw.sample(sorted(task.shares), count)
            keys = [task.shares[position] for position in gone]
            left[key] = task.substitute({share: DataNode(share, ERASED) for share in keys})
            for share in keys:
                del left[share]
    return left
