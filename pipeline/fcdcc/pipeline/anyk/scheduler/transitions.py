"""What a change of a Dask task's state means to the any-k state machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed.metrics import time

from ..state_machine import events as m

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler, TaskState


def ignore_stale(scheduler: Scheduler, ours: Collection[Key]) -> None:
    """Let a scheduler pass over late results of tasks that another worker has made since."""
    usual = scheduler.handle_task_finished

    def handle(key: Key, worker: str, stimulus_id: str, **message: Any) -> None:
        task = scheduler.tasks.get(key)
        is_made = task is not None and task.state == "memory" and key in ours
        if task is not None and is_made and task.run_id != message.get("run_id"):
            return
        usual(key=key, worker=worker, stimulus_id=stimulus_id, **message)

    scheduler.stream_handlers["task-finished"] = handle


class Change(NamedTuple):
    """A task is now in a state of Dask's.

    ``worker`` is who was given it, or has returned its result; ``spans`` say what it did when,
    as Dask tells it.
    """

    now: float
    key: Key
    state: str
    worker: str | None = None
    spans: Iterable[Mapping[str, Any]] = ()


def share_event(change: Change) -> m.Event | None:
    """Return what it means that a share is now in a state of Dask's."""
    now, key, state, worker, spans = change
    if state == "waiting":
        return m.ShareWaiting(now, key)
    if state == "processing" and worker is not None:
        return m.ShareStarted(now, key, worker)
    if state == "memory" and worker is not None:
        computed = [span for span in spans if span["action"] == "compute"]
        start, stop = (computed[-1]["start"], computed[-1]["stop"]) if computed else (now, now)
        return m.ShareDone(now, key, worker, start, stop)
    if state == "released":
        return m.ShareReleased(now, key)
    if state == "forgotten":
        return m.Forgotten(now, key)
    if state == "erred":
        return m.ShareErred(now, key)
    return None


def share_now(task: TaskState) -> list[m.Event]:
    """Return where a share stands that the scheduler knew before its any-k node."""
    events: list[m.Event | None] = []
    if task.state == "memory" and task.who_has:
        worker = next(iter(task.who_has)).address
        events.append(m.ShareStarted(time(), task.key, worker))
        events.append(share_event(Change(time(), task.key, task.state, worker)))
    elif task.state != "released":
        events.append(share_event(_as_it_is(task)))
    return [event for event in events if event is not None]


def node_now(task: TaskState) -> list[m.Event]:
    """Return where an any-k node stands; a worker may know it from before."""
    event = None if task.state == "released" else node_event(_as_it_is(task))
    events = [] if event is None else [event]
    if task.run_id is not None:
        events.insert(0, m.NodeStarted(time(), task.key))
    return events


def _as_it_is(task: TaskState) -> Change:
    worker = task.processing_on
    return Change(time(), task.key, task.state, None if worker is None else worker.address)


def node_event(change: Change) -> m.Event | None:
    """Return what it means that an any-k node is now in a state of Dask's."""
    now, key, state, worker, _ = change
    if state == "waiting":
        return m.NodeWaiting(now, key)
    if state in ("processing", "queued", "no-worker"):
        return m.NodeStarted(now, key, worker)
    if state == "memory":
        return m.NodeDone(now, key, worker)
    if state == "released":
        return m.NodeReleased(now, key)
    if state == "forgotten":
        return m.Forgotten(now, key)
    if state == "erred":
        return m.NodeErred(now, key)
    return None


def task_event(change: Change) -> m.Event | None:
    """Return what it means that a single task, or a twin, is now in a state of Dask's."""
    now, key, state, worker, _ = change
    if state == "processing" and worker is not None:
        return m.TaskStarted(now, key, worker)
    if state == "memory":
        return None if worker is None else m.TaskDone(now, key, worker)
    if state in ("waiting", "queued", "no-worker"):
        return m.TaskWaiting(now, key)
    if state == "forgotten":
        return m.Forgotten(now, key)
    return m.TaskGone(now, key)
