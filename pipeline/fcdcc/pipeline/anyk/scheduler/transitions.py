"""What a transition of a Dask task means to the any-k state machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed.metrics import time

from ..state_machine.events import Event, Forgotten, TaskChanged, TaskKind, TaskStatus

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler, TaskState


class Change(NamedTuple):
    """A task entered a state of Dask's scheduler.

    ``worker`` is the address of the worker that it was assigned to or that returned its result, ''
    if there is none. ``spans`` say what the worker did for it and when, as in Dask's
    ``startstops``.
    """

    now: float
    key: Key
    state: str
    worker: str = ""
    spans: Iterable[Mapping[str, Any]] = ()


_COMMON: dict[str, TaskStatus] = {
    "waiting": "waiting",
    "processing": "started",
    "memory": "done",
    "released": "released",
    "erred": "erred",
}
# A task in the states "queued" and "no-worker" has its inputs and waits for a worker. A share keeps
# its status then; a node needs no further share then, so it counts as started.
_STATUS: dict[TaskKind, dict[str, TaskStatus]] = {
    "share": _COMMON,
    "node": {**_COMMON, "queued": "started", "no-worker": "started"},
    "task": {**_COMMON, "queued": "waiting", "no-worker": "waiting"},
}


def task_event(change: Change, kind: TaskKind) -> Event | None:
    """Return the event for a change of a task of this kind; None if it changes nothing."""
    now, key, state, worker, spans = change
    if state == "forgotten":
        return Forgotten(now, key)
    status = _STATUS[kind].get(state)
    if status is None:
        return None
    if not worker and kind != "node" and status in ("started", "done"):
        return None
    if kind == "share" and status == "done":
        computed = [span for span in spans if span["action"] == "compute"]
        start, stop = (computed[-1]["start"], computed[-1]["stop"]) if computed else (now, now)
        return TaskChanged(now, key, kind, status, worker, start, stop)
    return TaskChanged(now, key, kind, status, worker)


def current_events(task: TaskState, kind: TaskKind) -> list[Event]:
    """Return the events that lead to the present state of a task that Dask knew already."""
    now, events = time(), list[Event]()
    if kind == "node" and task.run_id is not None:  # it was sent to a worker, maybe earlier
        events.append(TaskChanged(now, task.key, kind, "started"))
    if kind == "share" and task.state == "memory" and task.who_has:
        worker = next(iter(task.who_has)).address
        events.append(TaskChanged(now, task.key, kind, "started", worker))
    elif task.processing_on is not None:
        worker = task.processing_on.address
    else:
        worker = ""
    if task.state != "released":
        event = task_event(Change(now, task.key, task.state, worker), kind)
        if event is not None:
            events.append(event)
    return events


def ignore_stale(scheduler: Scheduler, ours: Collection[Key]) -> None:
    """Let a scheduler ignore a late result of a task whose result it has from another worker."""
    usual = scheduler.handle_task_finished

    def handle(key: Key, worker: str, stimulus_id: str, **message: Any) -> None:
        task = scheduler.tasks.get(key)
        is_done = task is not None and task.state == "memory" and key in ours
        if task is not None and is_done and task.run_id != message.get("run_id"):
            return
        usual(key=key, worker=worker, stimulus_id=stimulus_id, **message)

    scheduler.stream_handlers["task-finished"] = handle


def ignore_removed_workers(scheduler: Scheduler) -> None:
    """Let a scheduler ignore the question of a removed worker who has results; it raises else.

    A worker that was removed because it is silent may still be heard of before it knows.
    """
    usual = scheduler.handle_request_refresh_who_has

    def handle(keys: Iterable[Key], worker: str, stimulus_id: str) -> None:
        if worker in scheduler.stream_comms:
            usual(keys=keys, worker=worker, stimulus_id=stimulus_id)

    scheduler.stream_handlers["request-refresh-who-has"] = handle
