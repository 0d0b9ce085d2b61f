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

INPUT_LAYER = -1
"""The layer in the keys of tasks that read a stored chunk of the images, or cut images out of it.

A task that reads a whole chunk has the number of the chunk in place of that of a block.
"""

ASSEMBLY_SUFFIX = ".bands"
"""End of the run id in the keys of tasks that put bands together from tiles.

They are groups for the any-k plugin, but of no layer of the network, and are not shown as such.
"""

RawKey: TypeAlias = tuple[str, int, int, int]


class TaskKey(NamedTuple):
    """The parts of a task key."""

    stage: Stage
    run: str
    layer: int
    block: int
    position: int


def step_in_words(stage: str, layer: int, last_layer: int | None = None) -> str:
    """Return to which step of the work on a block a task belongs.

    Reads and writes have numbers of layers in their keys that are no layers of the network, and the
    tasks after the last convolution have numbers that no table of layers has.

    Parameters
    ----------
    stage, layer
        As in the task's key.
    last_layer
        The number of the last convolution of the network; None if it is not known.

    >>> step_in_words("share", 3), step_in_words("read", 0), step_in_words("part", 9, last_layer=7)
    ('layer 3', 'reading the images', 'after the last convolution')
    """
    if stage == "read" or layer == INPUT_LAYER:
        return "reading the images"
    if stage == "write":
        return "writing predictions"
    if last_layer is not None and layer > last_layer:
        return "after the last convolution"
    return f"layer {layer}"


def place_in_words(stage: str, layer: int, block: int, last_layer: int | None = None) -> str:
    """Return the block and the step that a task belongs to; see :func:`step_in_words`.

    >>> place_in_words("share", 3, 12), place_in_words("read", INPUT_LAYER, 5)
    ('block 12, layer 3', 'chunk 5 of the images')
    """
    if stage == "read" and layer == INPUT_LAYER:
        return f"chunk {block} of the images"
    return f"block {block}, {step_in_words(stage, layer, last_layer)}"


def name_in_words(stage: str, layer: int, position: int) -> str:
    """Return what a task is called among those of its block and step.

    Another attempt at a block has the same numbers as the first one. A task that writes a block, or
    reads a chunk, has no number.

    >>> name_in_words("share", 3, 2), name_in_words("share", 3, ATTEMPT_STRIDE + 2)
    ('share 2', 'share 2')
    >>> name_in_words("write", 8, 0), name_in_words("read", INPUT_LAYER, 1)
    ('write', 'read')
    """
    has_number = stage != "write" and not (stage == "read" and layer == INPUT_LAYER)
    return f"{stage} {position % ATTEMPT_STRIDE}" if has_number else stage


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
