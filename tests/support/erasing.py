"""Graphs in which shares were given up, as the any-k plugin leaves them."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from dask._task_spec import DataNode, GraphNode, Task
from dask.typing import Key

from fcdcc.pipeline.anyk import ERASED, AnyK
from fcdcc.pipeline.graph import BlockGraph, ImageReader, build_block
from fcdcc.pipeline.halo import Rows
from fcdcc.pipeline.runtime import job_run


def reading(images: torch.Tensor) -> ImageReader:
    """Return a reader of images that are in memory, (n, C, *space)."""

    def reader(key: Key, start: int, stop: int, pad_to: int, rows: Rows | None = None) -> Task:
        chosen = images if rows is None else images[:, :, rows.start : rows.stop]
        missing = torch.zeros(pad_to - (stop - start), *chosen.shape[1:], dtype=images.dtype)
        return Task(key, torch.cat([chosen[start:stop], missing]).numpy)

    return reader


def erase(tasks: Mapping[Hashable, GraphNode], count: int, seed: int) -> dict[Hashable, GraphNode]:
    """Return the tasks with ``count`` shares of every group given up, drawn at random.

    Their tasks are taken out, so that a graph that still needed one could not run.
    """
    draw = random.Random(seed)
    left = dict(tasks)
    gone: dict[tuple[Key, ...], dict[Key, Key | GraphNode]] = {}
    for key, task in tasks.items():
        if isinstance(task, AnyK):
            group = tuple(task.shares.values())
            if group not in gone:
                gone[group] = {
                    share: DataNode(share, ERASED) for share in draw.sample(group, count)
                }
            left[key] = task.substitute(gone[group])
    for shares in gone.values():
        for share in shares:
            del left[share]
    return left


@contextmanager
def erased_runs(count: int, seed: int) -> Iterator[list[int]]:
    """Have every block of a run begin without ``count`` shares of every group, drawn at random.

    The list gets the number of groups of each block.
    """
    groups: list[int] = []

    def build(*arguments: Any) -> BlockGraph:
        graph = build_block(*arguments)
        nodes = [task for task in graph.tasks.values() if isinstance(task, AnyK)]
        groups.append(len({tuple(node.shares.values()) for node in nodes}))
        return replace(graph, tasks=erase(graph.tasks, count, seed))

    with patch.object(job_run, "build_block", build):
        yield groups
