"""Small graphs with any-k nodes whose shares are slow when a test wants it.

Worker processes import the functions from here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from dask._task_spec import GraphNode, List, Task, TaskRef
from dask.typing import Key

from fcdcc.coding.errors import Abandoned
from fcdcc.pipeline.anyk import AnyK, Share, abandonable, wanted
from fcdcc.pipeline.anyk.keys import task_key

N, ENOUGH = 6, 4


def make_input(block: int) -> np.ndarray:
    """Return an array of the block's number."""
    return np.full(8, float(block))


def make_share(value: np.ndarray, position: int, gate: str | None, seconds: float = 0.0) -> Any:
    """Return a share after some seconds, and not before the file ``gate`` exists.

    It checks all the time whether it is still needed.
    """
    still_wanted = wanted()
    until = time.monotonic() + seconds
    with abandonable():
        while time.monotonic() < until or (gate is not None and not Path(gate).exists()):
            if not still_wanted():
                raise Abandoned(f"share {position}")
            time.sleep(0.002)
    return value * (position + 1)


def blind_share(value: np.ndarray, position: int, gate: str) -> Any:
    """Return a share when the file ``gate`` exists, without checks; touch a file when it begins."""
    Path(f"{gate}.begun").touch()
    while not Path(gate).exists():
        time.sleep(0.002)
    return value * (position + 1)


def slow_once(function: Callable[..., Any], once: str | None, *args: Any) -> Any:
    """Return what a function returns; the first call waits until the file ``once`` exists.

    The files ``once`` with ``.begun`` and ``.ended`` get a letter for every call that begins and
    ends.
    """
    if once is None:
        return function(*args)
    with open(f"{once}.begun", "a+") as file:  # noqa: PTH123 - appends
        file.seek(0)
        first = not file.read()
        file.write("x")
    while first and not Path(once).exists():
        time.sleep(0.01)
    result = function(*args)
    with open(f"{once}.ended", "a") as file:  # noqa: PTH123 - appends
        file.write("x")
    return result


def append(value: Any, path: str) -> Any:
    """Write a value and return it."""
    with open(path, "a") as file:  # noqa: PTH123 - appends
        file.write(f"{value}\n")
    return value


def fail(value: np.ndarray, position: int) -> Any:
    """Raise an error."""
    raise ArithmeticError(f"share {position} cannot be computed")


def decode(there: Mapping[int, np.ndarray], seconds: float = 0.0) -> tuple[float, tuple[int, ...]]:
    """Return the block's number, which every share has, and the positions of the shares."""
    time.sleep(seconds)
    (block,) = {float(value[0]) / (position + 1) for position, value in there.items()}
    return block, tuple(there)


def process_id() -> int:
    """Return the id of this process."""
    return os.getpid()


def do_nothing() -> None:
    """Do nothing."""


@dataclass
class GraphOf:
    """The graph of one layer of one block; ``results`` are its any-k nodes."""

    block: int
    run: str = "r"
    layer: int = 0
    tasks: dict[Key, GraphNode] = field(default_factory=dict)
    shares: dict[int, Key] = field(default_factory=dict)
    results: list[Key] = field(default_factory=list)


def gathered(
    block: int,
    gates: Mapping[int, str] | None = None,
    run: str = "r",
    seconds: float = 0.0,
    decode_seconds: float = 0.0,
    blind: Collection[int] = (),
    slow: Collection[int] = (),
    n: int = N,
    enough: int = ENOUGH,
) -> GraphOf:
    """Return a block whose single any-k node needs any ``enough`` of ``n`` shares.

    Shares at the positions ``slow`` take half a second longer than ``seconds``; those at the
    positions ``blind`` never check whether they are needed.
    """
    graph = GraphOf(block, run)
    times = {position: seconds + (0.5 if position in slow else 0.0) for position in range(n)}
    _add_shares(graph, times, gates or {}, blind, parity=())
    key = task_key("decode", run, 0, block)
    args = (decode_seconds,) if decode_seconds else ()
    graph.tasks[key] = AnyK(key, decode, graph.shares, enough, *args)
    graph.results.append(key)
    return graph


def in_parts(
    block: int,
    gates: Mapping[int, str] | None = None,
    run: str = "r",
    seconds: float = 0.0,
    standby: bool = True,
) -> GraphOf:
    """Return a block with a part for every plain share; the others are parity."""
    graph = GraphOf(block, run)
    parity = range(ENOUGH, N)
    _add_shares(graph, dict.fromkeys(range(N), seconds), gates or {}, (), parity)
    for position in range(ENOUGH):
        key = task_key("part", run, 0, block, position)
        graph.tasks[key] = AnyK(
            key,
            decode,
            graph.shares,
            ENOUGH,
            own=position,
            standby=parity if standby else (),
        )
        graph.results.append(key)
    return graph


def _add_shares(
    graph: GraphOf,
    times: Mapping[int, float],
    gates: Mapping[int, str],
    blind: Collection[int],
    parity: Collection[int],
) -> None:
    read = task_key("read", graph.run, 0, graph.block)
    graph.tasks[read] = Task(read, make_input, graph.block)
    for position, seconds in times.items():
        stage = "parity" if position in parity else "share"
        key = task_key(stage, graph.run, 0, graph.block, position)
        gate = gates.get(position)
        source = TaskRef(read)
        if position in blind and gate is not None:
            graph.tasks[key] = Share(key, blind_share, source, position, gate)
        else:
            graph.tasks[key] = Share(key, make_share, source, position, gate, seconds)
        graph.shares[position] = key


Kind = Literal["gathered", "parts", "parts and parity at once"]


def network(block: int, layers: int, kind: Kind, slow: Callable[[], bool]) -> GraphOf:
    """Return a block of several layers of one kind whose result is its number.

    A plain share needs one part of the layer before, a parity share all of them. ``slow`` is
    called for every share and says whether it takes half a second.
    """
    graph = GraphOf(block)
    read = task_key("read", "r", 0, block)
    graph.tasks[read] = Task(read, make_input, block)
    before: list[Key] = [read] * ENOUGH
    for layer in range(layers):
        shares = _add_layer(graph, layer, before, kind, slow)
        if kind == "gathered":
            key = task_key("decode", "r", layer, block)
            graph.tasks[key] = AnyK(key, rejoin, shares, ENOUGH)
            before = [key] * ENOUGH
            continue
        parity = range(ENOUGH, N) if kind == "parts" else ()
        before = [task_key("part", "r", layer, block, position) for position in range(ENOUGH)]
        for position, key in enumerate(before):
            graph.tasks[key] = AnyK(key, rejoin, shares, ENOUGH, own=position, standby=parity)
    last = task_key("gather", "r", layers, block)
    graph.tasks[last] = Task(last, number_of, _all(before))
    graph.results.append(last)
    return graph


def _add_layer(
    graph: GraphOf, layer: int, before: Sequence[Key], kind: Kind, slow: Callable[[], bool]
) -> dict[int, Key]:
    shares: dict[int, Key] = {}
    for position in range(N):
        plain = position < ENOUGH
        stage = "share" if plain or kind == "gathered" else "parity"
        key = task_key(stage, "r", layer, graph.block, position)
        source = TaskRef(before[position]) if plain else _first_of(before)
        seconds = 0.5 if slow() else 0.005
        graph.tasks[key] = Share(key, make_share, source, position, None, seconds)
        shares[position] = key
    return shares


def _all(keys: Sequence[Key]) -> List:
    return List(*(TaskRef(key) for key in dict.fromkeys(keys)))


def _first_of(keys: Sequence[Key]) -> Task:
    return Task(None, itemgetter(0), _all(keys))


def rejoin(there: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return what :func:`make_input` made, from the shares."""
    return np.full(8, decode(there)[0])


def number_of(parts: Sequence[np.ndarray]) -> float:
    """Return a block's number, which all its parts must have."""
    (number,) = {float(part[0]) for part in parts}
    return number
