"""What a change of a Dask task's state means to the any-k state machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distributed.metrics import time

from . import messages as m

if TYPE_CHECKING:
    from distributed.scheduler import TaskState

__all__ = ["node_event", "node_now", "share_event", "share_now", "task_event"]


def share_event(task: TaskState, state: str, details: Mapping[str, Any]) -> m.Event | None:
    """Return what it means that a share is now in a state of Dask's."""
    now, key = time(), task.key
    if state == "waiting":
        return m.ShareWaiting(now, key)
    if state == "processing" and task.processing_on is not None:
        return m.ShareStarted(now, key, task.processing_on.address)
    if state == "memory" and "worker" in details:
        spans = [s for s in details.get("startstops", ()) if s["action"] == "compute"]
        start, stop = (spans[-1]["start"], spans[-1]["stop"]) if spans else (now, now)
        return m.ShareDone(now, key, details["worker"], start, stop)
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
        events.append(share_event(task, task.state, {"worker": worker}))
    elif task.state != "released":
        events.append(share_event(task, task.state, {}))
    return [event for event in events if event is not None]


def node_now(task: TaskState) -> list[m.Event]:
    """Return where an any-k node stands; a worker may know it from before."""
    event = node_event(task, task.state, {})
    events = [] if event is None else [event]
    if task.run_id is not None:
        events.insert(0, m.NodeStarted(time(), task.key))
    return events


def node_event(task: TaskState, state: str, details: Mapping[str, Any]) -> m.Event | None:
    """Return what it means that an any-k node is now in a state of Dask's."""
    now, key = time(), task.key
    if state == "waiting":
        return m.NodeWaiting(now, key)
    if state in ("processing", "queued", "no-worker"):
        worker = task.processing_on
        return m.NodeStarted(now, key, None if worker is None else worker.address)
    if state == "memory":
        return m.NodeDone(now, key, details.get("worker"))
    if state == "released":
        return m.NodeReleased(now, key)
    if state == "forgotten":
        return m.Forgotten(now, key)
    if state == "erred":
        return m.NodeErred(now, key)
    return None


def task_event(task: TaskState, state: str, details: Mapping[str, Any]) -> m.Event | None:
    """Return what it means that a single task, or a twin, is now in a state of Dask's."""
    now, key = time(), task.key
    if state == "processing" and task.processing_on is not None:
        return m.TaskStarted(now, key, task.processing_on.address)
    if state == "memory":
        return m.TaskDone(now, key, details["worker"]) if "worker" in details else None
    if state in ("waiting", "queued", "no-worker"):
        return m.TaskWaiting(now, key)
    if state == "forgotten":
        return m.Forgotten(now, key)
    return m.TaskGone(now, key)
