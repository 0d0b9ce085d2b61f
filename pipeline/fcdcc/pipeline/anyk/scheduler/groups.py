"""Which tasks of a graph belong together: in a group, or on one worker.

A *group* has the shares that feed a common node, and these nodes (:func:`find_groups`).

A *lane* has the tasks that work on the same strip or run of images, one after another. They should
run on one worker, the one of their seat, so that only the rows which neighbours need are sent::

    read 1 ─ glue 1 ─ share 1 ─ part 1 ─ glue 1 ─ share 1 ─ part 1 ─ glue 1        one lane
                │                          │
               halo                       halo ─ …

Dask alone chooses a worker for every such task separately, and may send a whole strip to a less
busy worker that holds only a few of its rows. There are lanes where the nodes have a share of their
own (``AnyK.own``), so that a part stays where its share was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from dask._task_spec import Alias, GraphNode
from dask.typing import Key

from fcdcc.pipeline.anyk.keys import parse_key

from ..state_machine.events import GroupSpec, NodeSpec, ShareSpec
from ..tasks import AnyK
from .graph_edits import place

if TYPE_CHECKING:
    from distributed.scheduler import TaskState


# ---------------------------------------------------------------------------- groups


def find_groups(
    nodes: Iterable[AnyK], needed: Collection[Key], block_numbers: Iterator[int]
) -> tuple[GroupSpec, ...]:
    """Return the groups: shares that feed a common node, directly or through other nodes.

    Parameters
    ----------
    nodes
        All any-k nodes of a graph.
    needed
        Shares that other tasks or clients need as well. These are never on standby.
    block_numbers
        Numbers for groups whose keys do not name a block (:mod:`fcdcc.pipeline.anyk.keys`). Each
        of these groups is a block of its own.
    """
    return tuple(_group(together, needed, block_numbers) for together in _connected(nodes))


def _connected(nodes: Iterable[AnyK]) -> list[list[AnyK]]:
    """Return the nodes in sets that are connected through shares or have a label in common."""
    sets: dict[int, list[AnyK]] = {}
    set_of: dict[object, int] = {}
    for number, node in enumerate(nodes):
        keys = node.shares.values()
        marks = (*keys, *_labels(key for key in keys if key not in set_of))
        met = dict.fromkeys(set_of[mark] for mark in marks if mark in set_of)
        first = next(iter(met), number)
        together = sets.setdefault(first, [])
        together.append(node)
        for other in [other for other in met if other != first]:
            together += sets.pop(other)
            set_of.update({mark: first for mark, which in set_of.items() if which == other})
        set_of.update(dict.fromkeys(marks, first))
    return list(sets.values())


def _labels(keys: Iterable[Key]) -> set[object]:
    """Return what the shares of one group have in common: run, layer and block.

    Without redundancy every part needs its own share alone, and still all are one group.
    """
    parsed = (parse_key(key) for key in keys)
    return {(label.run, label.layer, label.block) for label in parsed if label is not None}


def _group(nodes: list[AnyK], needed: Collection[Key], block_numbers: Iterator[int]) -> GroupSpec:
    shares: dict[Key, ShareSpec] = {}
    specs: list[NodeSpec] = []
    for node in nodes:
        seats = dict(zip(node.positions, node.seats, strict=True))
        edges = tuple(node.shares.items())
        standby = _standby_positions(node)
        specs.append(NodeSpec(node.key, edges, node.enough, node.own, node.plain))
        for position, key in edges:
            held = position in standby and key not in needed
            known = shares.get(key)
            if known is None or (known.held and not held):
                shares[key] = ShareSpec(key, position, seats[position], held)
    labels = (parse_key(key) for key in shares)
    label = next((label for label in labels if label is not None), None)
    allowed_workers = frozenset[str]().union(*(node.allowed_workers for node in nodes))
    if label is None:
        number = next(block_numbers)
        run, layer, block = "", 0, number
    else:
        run, layer, block = label.run, label.layer, label.block
    members = tuple(shares.values()), tuple(specs)
    return GroupSpec(run, layer, block, block, *members, allowed_workers)


def _standby_positions(node: AnyK) -> Collection[int]:
    """Return the standby positions of a node, or none if the others alone are not enough."""
    others = [position for position in node.shares if position not in node.standby]
    return node.standby if node.standby and node.is_ready(others) else ()


# ----------------------------------------------------------------------------- lanes


def place_lane(share: TaskState, worker: str, tasks: Mapping[Key, TaskState]) -> None:
    """Place a share, the task that it is an alias of, and the tasks of its lane before it.

    The search ends at tasks that are assigned already, because they have their inputs, and at
    tasks that are placed on this worker already, because those before them are as well.
    """
    place(share, worker)
    spec = share.run_spec
    if isinstance(spec, Alias):
        if spec.target not in tasks:
            return
        share = tasks[spec.target]
        place(share, worker)
    if not _is_own_share(share):
        return

    def needs(key: Key) -> list[Key]:
        return [other.key for other in tasks[key].dependencies]

    pending = [share.key]
    while pending:
        found = [tasks[key] for key in _alongside(pending.pop(), needs)]
        fresh = [task for task in found if task.worker_restrictions != {worker}]
        pending += [task.key for task in fresh if place(task, worker)]


def place_glue(node: TaskState, worker: str) -> None:
    """Place the glue that follows a part on the part's worker, if no share has placed it.

    That is the glue behind the last share, and the glue on a part that was decoded: it is better
    placed where the part was decoded than at the seat of the share that did not come.
    """
    spec = node.run_spec
    if not isinstance(spec, AnyK) or spec.own is None:
        return
    decoded = spec.own not in spec.shares
    for task in node.dependents:
        if (decoded or not task.worker_restrictions) and _is_glue_on(task.key, node.key):
            place(task, worker)


def lane_seats(tasks: Mapping[Key, GraphNode]) -> dict[Key, int]:
    """Return the seats of the tasks of all lanes in a graph, as they are if nothing is lost."""
    parts = {
        key: node.shares[node.own]
        for key, node in tasks.items()
        if isinstance(node, AnyK) and node.own is not None
    }
    seats: dict[Key, int] = {}
    for key, share in parts.items():
        node = tasks[key]
        if isinstance(node, AnyK) and node.own is not None:
            seats[share] = node.seats[node.positions.index(node.own)]
    pending = list(seats)
    while pending:
        user = pending.pop()
        for key in _alongside(user, lambda key: tasks[key].dependencies & tasks.keys()):
            if key not in seats:
                seats[key] = seats[user]
                pending.append(key)
    for key, task in tasks.items():
        for part in task.dependencies & parts.keys():
            if key not in seats and _is_glue_on(key, part):
                seats[key] = seats[parts[part]]
    return seats


def _is_own_share(share: TaskState) -> bool:
    """Return whether a share suffices alone for some node."""
    specs = (task.run_spec for task in share.dependents)
    return any(
        isinstance(spec, AnyK) and spec.own is not None and spec.shares.get(spec.own) == share.key
        for spec in specs
    )


def _alongside(user: Key, needs: Callable[[Key], Iterable[Key]]) -> Iterator[Key]:
    """Yield the tasks of a lane that come right before one of its tasks.

    They are among the tasks that it needs; or they read images of which it needs some, or some
    rows.
    """
    for key in needs(user):
        if _prepares(key, user):
            yield key
        elif _stage(key) == "halo":
            for source in needs(key):
                if _stage(source) == "read" and _prepares(source, user):
                    yield source


def _prepares(key: Key, user: Key) -> bool:
    known, wanted = parse_key(key), parse_key(user)
    if known is None or wanted is None or known.position != wanted.position:
        return False
    return known.stage in ("read", "glue") and wanted.stage in ("share", "glue", "read")


def _is_glue_on(key: Key, part: Key) -> bool:
    known, wanted = parse_key(part), parse_key(key)
    if known is None or wanted is None or known.position != wanted.position:
        return False
    return wanted.stage == "glue"


def _stage(key: Key) -> str | None:
    known = parse_key(key)
    return None if known is None else known.stage
