"""What the plugin does to Dask's tasks: everything that touches the scheduler's own state.

Each function leaves the scheduler in a state that its own validation accepts, once the
recommendations that it returns have been followed. None may be called while the scheduler
is in the middle of its transitions, except :func:`place`, :func:`hold` and :func:`defer`, which
only say where and when a task that is not assigned yet may run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from dask._task_spec import Task, TaskRef

from ..tasks import AnyK

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Recs, Scheduler, TaskState


OWNER = "fcdcc-anyk"
"""In whose name twins are wanted, as Dask does it for what is published or in a queue."""

NOBODY = "held://fcdcc"
"""An address that no worker has: a task that is restricted to it waits in ``no-worker``."""

_UNASSIGNED = ("released", "waiting", "no-worker")
_WORKERS = {"workers", "restrictions"}
"""Annotations by which a user says where a task may run."""


def place(task: TaskState, worker: str) -> bool:
    """Let a task run on one worker, and elsewhere if that is gone; return whether it may be.

    A task whose workers, hosts or resources somebody has chosen is left alone, and so is one that
    is assigned.
    """
    chosen = task.resource_restrictions or task.host_restrictions or _WORKERS & _annotated(task)
    if task.state not in _UNASSIGNED or chosen:
        return False
    task.worker_restrictions = {worker}
    task.loose_restrictions = True
    return True


def _annotated(task: TaskState) -> set[str]:
    return set(task.annotations or ())


def stranded(scheduler: Scheduler, ours: Collection[Key]) -> Recs:
    """Let tasks run that wait for workers which take none, or are gone, where others take some.

    Dask lets a task that need not run where it was placed run anywhere when it becomes ready; but
    if nobody takes tasks then, it looks again only when a worker does that the task was placed on.
    """
    if not scheduler.running:
        return {}
    waiting = (task for task in scheduler.unrunnable if task.loose_restrictions)
    return {task.key: "processing" for task in waiting if task.key in ours}


def keep(scheduler: Scheduler, task: TaskState) -> None:
    """Keep a task that was just assigned from being stolen by another worker.

    It is where its data is: a strip that is moved because its worker has much to do costs more
    time on the network than it saves, and late tasks are dealt with otherwise.
    """
    stealing = scheduler.extensions.get("stealing")
    if stealing is not None:
        stealing.remove_key_from_stealable(task)
        # Dask looks at these again when it learns how long such tasks take.
        stealing.unknown_durations.get(task.prefix.name, set()).discard(task)


def defer(task: TaskState, by: int) -> None:
    """Let a task that is not assigned yet run after others of its graph on the same worker.

    ``by`` is added to its number in the order of the graph.
    """
    if task.state in _UNASSIGNED and task.priority:
        *first, number = task.priority
        task.priority = (*first, number + by)


def hold(task: TaskState) -> None:
    """Let a task wait, with its inputs ready and not moved, until it is started."""
    if task.state in _UNASSIGNED:
        task.worker_restrictions = {NOBODY}
        task.loose_restrictions = False


def start(task: TaskState, worker: str | None) -> Recs:
    """Let a held task run, on one worker if one is named."""
    task.worker_restrictions = {worker} if worker else None
    task.loose_restrictions = worker is not None
    return {task.key: "processing"} if task.state == "no-worker" else {}


def cut(node: TaskState, shares: Iterable[TaskState]) -> Recs:
    """Disconnect an any-k node that waits from some of its shares.

    The shares stand as erased in the node's arguments. Who has no dependents left and is
    not wanted by a client is to be forgotten; who has some, none of which waits, is to be
    released; the node is to run if it waits for nothing else.

    Raises
    ------
    RuntimeError
        If the task is not an any-k node that waits; then nothing was changed.
    """
    spec = node.run_spec
    if not isinstance(spec, AnyK) or node.state != "waiting":
        raise RuntimeError(f"{node!r} was to be cut, but it is no any-k node that waits")
    recommendations: Recs = {}
    gone: dict[Key, None] = {}
    for share in shares:
        gone[share.key] = None
        node.dependencies.discard(share)
        share.dependents.discard(node)
        if node.waiting_on:
            node.waiting_on.discard(share)
        if share.waiters:
            share.waiters.discard(node)
        if share.who_wants or share.waiters:
            continue
        if not share.dependents:
            recommendations[share.key] = "forgotten"
        elif share.state not in ("released", "erred"):
            recommendations[share.key] = "released"
    node.run_spec = spec.without(gone)
    if not node.waiting_on:
        # Recommendations are followed from the last to the first: the shares leave their
        # workers before a worker is chosen for the node.
        recommendations = {node.key: "processing", **recommendations}
    return recommendations


def double(scheduler: Scheduler, task: TaskState, backup: Key, worker: str) -> Recs:
    """Add a twin of a task that runs: the same work, from the same inputs, on another worker.

    It is wanted in the plugin's own name until :func:`drop`.

    Raises
    ------
    RuntimeError
        If the task does not run, or the twin exists; then nothing was changed.
    """
    spec = task.run_spec
    if task.state != "processing" or spec is None or backup in scheduler.tasks:
        raise RuntimeError(f"{task!r} was to be doubled as {backup!r}, but does not run or was")
    copy = scheduler.new_task(backup, spec.substitute({}, key=backup), "released")
    for other in task.dependencies:
        copy.add_dependency(other)
    copy.priority = task.priority
    copy.annotations = task.annotations
    copy.retries = task.retries
    copy.host_restrictions = task.host_restrictions
    copy.resource_restrictions = task.resource_restrictions
    if _WORKERS & _annotated(task):
        copy.worker_restrictions = task.worker_restrictions
        copy.loose_restrictions = task.loose_restrictions
    else:
        place(copy, worker)
    scheduler.client_desires_keys([backup], OWNER)
    return {backup: "waiting"}


def adopt(task: TaskState, backup: TaskState) -> Recs:
    """Take a task from its worker, and let it take over the result of its twin.

    It keeps the inputs that it has: a worker that remembers it was told of them.

    Raises
    ------
    RuntimeError
        If the task does not run or there is no result to take over; then nothing was changed.
    """
    if task.state != "processing" or not backup.who_has:
        raise RuntimeError(
            f"{task!r} was to adopt the result of {backup!r}, but one of them is gone"
        )
    inputs = [TaskRef(other.key) for other in task.dependencies]
    task.run_spec = Task(task.key, _first, TaskRef(backup.key), *inputs)
    task.dependencies.add(backup)  # the groups of the two are one: that is no dependency
    backup.dependents.add(task)
    task.resource_restrictions = task.host_restrictions = None
    task.worker_restrictions = {worker.address for worker in backup.who_has}
    task.loose_restrictions = True
    return {task.key: "released"}


def _first(value: object, *_: object) -> object:
    return value


def drop(scheduler: Scheduler, backup: Key, stimulus_id: str) -> None:
    """Want a twin no longer; if nobody else does, it is forgotten."""
    owner = scheduler.clients.get(OWNER)
    if owner is None:
        return
    scheduler.client_releases_keys([backup], OWNER, stimulus_id)
    if not owner.wants_what:
        del scheduler.clients[OWNER]


def shut_out(scheduler: Scheduler, worker: str, stimulus_id: str) -> None:
    """Give a worker no more tasks, as if it had paused; what it has and holds stays."""
    scheduler.handle_worker_status_change("paused", worker, stimulus_id)


def orphans(tasks: Iterable[TaskState]) -> Recs:
    """Return recommendations to forget tasks that nobody wants and nobody depends on.

    A graph that is submitted again brings back the shares that a node was cut from, and
    nothing leads to them any more.
    """
    return {
        task.key: "forgotten"
        for task in tasks
        if task.state == "released" and not task.dependents and not task.who_wants
    }
