"""What the plugin changes in the scheduler's own state: where tasks run, and what they need.

Each function leaves the scheduler in a state that its own validation accepts, once the
recommendations that it returns have been followed. None may be called while the scheduler is in the
middle of its transitions, except :func:`place`, :func:`hold_back` and :func:`defer`, which only say
where and when a task that is not assigned yet may run, and :func:`forbid_stealing`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from dask._task_spec import Task, TaskRef

from ..tasks import AnyK, BackedUpTask

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Recs, Scheduler, TaskState


BACKUP_CLIENT = "fcdcc-anyk"
"""Name of the client on the scheduler that wants the results of backup tasks. Dask itself does the
same for published data sets and queues."""

NO_WORKER = "held://fcdcc"
"""An address that no worker has. A task that is restricted to it waits in ``no-worker``."""

_UNASSIGNED = ("released", "waiting", "no-worker")
_WORKERS = {"workers", "restrictions"}
"""Annotations by which a user says where a task may run."""


def place(task: TaskState, worker: str) -> bool:
    """Let a task run on one worker, or elsewhere if that is gone; return whether it was placed.

    A task that is assigned already is not placed, nor is one for which the user has chosen
    workers, hosts or resources.
    """
    if task.state not in _UNASSIGNED or _has_chosen_workers(task):
        return False
    task.worker_restrictions = {worker}
    task.loose_restrictions = True
    return True


def _annotated(task: TaskState) -> set[str]:
    return set(task.annotations or ())


def _has_chosen_workers(task: TaskState) -> bool:
    """Return whether the user has chosen workers, hosts or resources for a task."""
    restrictions = task.resource_restrictions or task.host_restrictions
    return bool(restrictions or _WORKERS & _annotated(task))


def run_stranded(scheduler: Scheduler, ours: Collection[Key]) -> Recs:
    """Let tasks run elsewhere whose worker takes no tasks or is gone, if others take some.

    When a task that was placed becomes ready, Dask runs it anywhere if its worker takes no tasks.
    But if no worker at all takes tasks at that moment, Dask considers it again only when a worker
    takes tasks that it was placed on.
    """
    if not scheduler.running:
        return {}
    waiting = (task for task in scheduler.unrunnable if task.loose_restrictions)
    return {task.key: "processing" for task in waiting if task.key in ours}


def forbid_stealing(scheduler: Scheduler, task: TaskState) -> None:
    """Keep a task that was just assigned from being stolen by another worker.

    Its inputs are on its worker. Moving them because the worker is busy costs more time on the
    network than it saves, and late tasks get backup tasks.
    """
    stealing = scheduler.extensions.get("stealing")
    if stealing is not None:
        stealing.remove_key_from_stealable(task)
        # Dask makes these stealable when it learns how long such tasks take.
        stealing.unknown_durations.get(task.prefix.name, set()).discard(task)


def defer(task: TaskState, by: int) -> None:
    """Let a task that is not assigned yet run after others of its graph on the same worker.

    ``by`` is added to its number in the order of the graph.
    """
    if task.state in _UNASSIGNED and task.priority:
        *first, number = task.priority
        task.priority = (*first, number + by)


def hold_back(task: TaskState) -> None:
    """Let a task wait, with its inputs computed and not moved, until it is started."""
    if task.state in _UNASSIGNED:
        task.worker_restrictions = {NO_WORKER}
        task.loose_restrictions = False


def start_held(task: TaskState, worker: str | None) -> Recs:
    """Let a task run that was held back, on one worker if one is named."""
    task.worker_restrictions = {worker} if worker else None
    task.loose_restrictions = worker is not None
    return {task.key: "processing"} if task.state == "no-worker" else {}


def disconnect(node: TaskState, shares: Iterable[TaskState]) -> Recs:
    """Disconnect an any-k node that waits from some of its shares.

    In the node's arguments the shares are replaced by ``ERASED``. A share that has no dependents
    left and that no client wants is to be forgotten; one that has some, none of which waits, is to
    be released. The node is to run if it waits for nothing else.

    Raises
    ------
    RuntimeError
        If the task is not an any-k node that waits; then nothing was changed.
    """
    spec = node.run_spec
    if not isinstance(spec, AnyK) or node.state != "waiting":
        raise RuntimeError(
            f"{node!r} was to be disconnected from shares, but it is no any-k node that waits"
        )
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


def start_backup(scheduler: Scheduler, task: TaskState, backup: Key, worker: str) -> Recs:
    """Add a backup of a running task: the same work on another worker.

    It needs the same inputs, unless the task says how to do without them
    (:class:`~fcdcc.pipeline.anyk.tasks.BackedUpTask`).

    :data:`BACKUP_CLIENT` wants it until :func:`release_backup`.

    Raises
    ------
    RuntimeError
        If the task does not run, or the backup exists; then nothing was changed.
    """
    spec = task.run_spec
    if task.state != "processing" or spec is None or backup in scheduler.tasks:
        raise RuntimeError(
            f"{task!r} was to get the backup task {backup!r}, but it does not run or has that one"
        )
    other_way = spec.backup if isinstance(spec, BackedUpTask) else None
    copy = scheduler.new_task(backup, (other_way or spec).substitute({}, key=backup), "released")
    for other in task.dependencies if other_way is None else ():
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
    scheduler.client_desires_keys([backup], BACKUP_CLIENT)
    return {backup: "waiting"}


def use_backup_result(task: TaskState, backup: TaskState) -> Recs:
    """Take a task from its worker, and let it return the result of its backup instead.

    It keeps its inputs, because a worker that remembers the task expects them.

    Raises
    ------
    RuntimeError
        If the task does not run or the backup has no result; then nothing was changed.
    """
    if task.state != "processing" or not backup.who_has:
        raise RuntimeError(
            f"{task!r} was to use the result of its backup {backup!r}, but it does not run, or "
            "there is no result"
        )
    inputs = [TaskRef(other.key) for other in task.dependencies]
    task.run_spec = Task(task.key, _first, TaskRef(backup.key), *inputs)
    # Not TaskState.add_dependency: both are in the same task group, which must not need itself.
    task.dependencies.add(backup)
    backup.dependents.add(task)
    task.resource_restrictions = task.host_restrictions = None
    task.worker_restrictions = {worker.address for worker in backup.who_has}
    task.loose_restrictions = True
    return {task.key: "released"}


def _first(value: object, *_: object) -> object:
    return value


def release_backup(scheduler: Scheduler, backup: Key, stimulus_id: str) -> None:
    """Release a backup task; if its task does not need it, Dask forgets it."""
    owner = scheduler.clients.get(BACKUP_CLIENT)
    if owner is None:
        return
    scheduler.client_releases_keys([backup], BACKUP_CLIENT, stimulus_id)
    if not owner.wants_what:
        del scheduler.clients[BACKUP_CLIENT]


def pause_worker(scheduler: Scheduler, worker: str, stimulus_id: str) -> None:
    """Assign no more tasks to a worker, as if it had paused; what it runs and holds stays."""
    scheduler.handle_worker_status_change("paused", worker, stimulus_id)


def bypass(scheduler: Scheduler, address: str, ours: Collection[Key], stimulus_id: str) -> Recs:
    """Take from a worker what it runs and holds of our tasks, so that others compute it again.

    Results that another worker has as well only lose this copy. Nothing else changes: the tasks and
    results of others stay on the worker, which drops ours when it answers again. After the
    recommendations :meth:`.transfers.Transfers.abort` must be called.
    """
    silent = scheduler.workers.get(address)
    elsewhere = {worker.address for worker in scheduler.running if worker is not silent}
    if silent is None or not elsewhere:
        return {}
    held = [task for task in silent.has_what if task.key in ours and task.run_spec is not None]
    copies = [task.key for task in held if len(task.who_has or ()) > 1]
    if copies:
        scheduler.request_remove_replicas(address, copies, stimulus_id=stimulus_id)
    alone = [task for task in held if task.who_has == {silent}]
    running = [task for task in silent.processing if task.key in ours]
    for key in ours:
        task = scheduler.tasks.get(key)
        if task is None or task.worker_restrictions != {address} or _WORKERS & _annotated(task):
            continue
        if task.loose_restrictions:
            task.worker_restrictions = set(elsewhere)
    taken = (*running, *alone)
    for task in taken:  # to Dask the silent worker looks as if it had room
        if not task.worker_restrictions and not _has_chosen_workers(task):
            task.worker_restrictions, task.loose_restrictions = set(elsewhere), True
    return {task.key: "released" for task in taken}


def forget_orphans(tasks: Iterable[TaskState]) -> Recs:
    """Forget those of some tasks that no client wants and no task depends on.

    A graph that is submitted again brings back the shares that a node was disconnected from.
    """
    return {
        task.key: "forgotten"
        for task in tasks
        if task.state == "released" and not task.dependents and not task.who_wants
    }
