"""Task keys: ``("share-<run>", layer, block, position)``, made and parsed.

Dask's own views group tasks by the first element, so it begins with the stage. What must be known
about a task is in its key, because every part of Dask passes the key along, and nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, get_args

Stage: TypeAlias = Literal[
    "read",
    "encode",
    "share",
    "parity",
    "decode",
    "part",
    "halo",
    "gather",
    "glue",
    "check",
    "write",
]
STAGES: tuple[Stage, ...] = get_args(Stage)

ATTEMPT_STRIDE = 1_000_000
"""Offset of the positions in task keys from one attempt at a block to the next.

A worker may still run a task of an earlier attempt. With another key, its result is not taken for
that of this attempt.
"""

RawKey: TypeAlias = tuple[str, int, int, int]


class TaskKey(NamedTuple):
    """The parts of a task key."""

    stage: Stage
    run: str
    layer: int
    block: int
    position: int


def task_key(stage: Stage, run: str, layer: int, block: int, position: int = 0) -> RawKey:
    """Return the Dask key of one task.

    >>> task_key("share", "1f3a", layer=2, block=7, position=5)
    ('share-1f3a', 2, 7, 5)
    """
    return (f"{stage}-{run}", layer, block, position)


def parse_key(key: object) -> TaskKey | None:
    """Return the parts of a key, or None if it has another form.

    >>> parse_key(("share-1f3a", 2, 7, 5))
    TaskKey(stage='share', run='1f3a', layer=2, block=7, position=5)
    >>> parse_key("sum-9b2c") is None
    True
    """
    if not (isinstance(key, tuple) and len(key) == 4 and isinstance(key[0], str)):
        return None
    name, layer, block, position = key
    if not (isinstance(layer, int) and isinstance(block, int) and isinstance(position, int)):
        return None
    known = _stage_and_run(name)
    return None if known is None else TaskKey(*known, layer, block, position)


@lru_cache(maxsize=1024)
def _stage_and_run(name: str) -> tuple[Stage, str] | None:
    """Return the stage and run in the first element of a key; many keys have the same one."""
    stage, _, run = name.partition("-")
    for known in STAGES:
        if stage == known and run:
            return known, run
    return None
