"""What is placed along with a share, because it is done to the same strip or run of images.

::

    read 1 ─ glue 1 ─ share 1 ─ part 1 ─ glue 1 ─ share 1 ─ part 1 ─ glue 1        one lane
                │                          │
               halo                       halo ─ …

Where parts stay put (an any-k node has a share of its own), the images that a share is made
from are read, and the glue in front of it is done, at its seat; so nothing travels but the rows
that neighbours need. Left to itself Dask weighs every such task anew: a worker that happens
to have less to do, and holds a few rows, is then sent the whole strip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from dask._task_spec import Alias, GraphNode
from dask.typing import Key

from fcdcc.pipeline.anyk.keys import parse_key

from ..tasks import AnyK
from .graph_edits import place

if TYPE_CHECKING:
    from distributed.scheduler import TaskState


def place_lane(share: TaskState, worker: str, tasks: Mapping[Key, TaskState]) -> None:
    """Place a share, the task that it is an alias of, and what goes along with it.

    What was assigned already has its inputs, and what is bound to the worker has brought them
    along.
    """
    place(share, worker)
    spec = share.run_spec
    if isinstance(spec, Alias):
        if spec.target not in tasks:
            return
        share = tasks[spec.target]
        place(share, worker)
    if not _stays(share):
        return

    def needs(key: Key) -> list[Key]:
        return [other.key for other in tasks[key].dependencies]

    pending = [share.key]
    while pending:
        found = [tasks[key] for key in _alongside(pending.pop(), needs)]
        fresh = [task for task in found if task.worker_restrictions != {worker}]
        pending += [task.key for task in fresh if place(task, worker)]


def place_glue(node: TaskState, worker: str) -> None:
    """Place the glue on a part that has come to be on a worker, where no share has.

    That is the glue behind the last share, and on a part that was decoded: wherever that was done
    is a better place than the seat of the share that did not come.
    """
    spec = node.run_spec
    if not isinstance(spec, AnyK) or spec.own is None:
        return
    decoded = spec.own not in spec.shares
    for task in node.dependents:
        if (decoded or not task.worker_restrictions) and _is_glue_on(task.key, node.key):
            place(task, worker)


def lane_seats(tasks: Mapping[Key, GraphNode]) -> dict[Key, int]:
    """Return the seats of shares that stay, and of what goes along, where nothing is lost."""
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


def _stays(share: TaskState) -> bool:
    """Return whether some part is this share as it is."""
    specs = (task.run_spec for task in share.dependents)
    return any(
        isinstance(spec, AnyK) and spec.own is not None and spec.shares.get(spec.own) == share.key
        for spec in specs
    )


def _alongside(user: Key, needs: Callable[[Key], Iterable[Key]]) -> Iterator[Key]:
    """Yield the tasks that do something for another one alone, at the same place.

    They are those that it needs, and the reading of images of which it needs some rows.
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
    return known.stage in ("read", "glue") and wanted.stage in ("share", "glue")


def _is_glue_on(key: Key, part: Key) -> bool:
    known, wanted = parse_key(part), parse_key(key)
    if known is None or wanted is None or known.position != wanted.position:
        return False
    return wanted.stage == "glue"


def _stage(key: Key) -> str | None:
    known = parse_key(key)
    return None if known is None else known.stage
