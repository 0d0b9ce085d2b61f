"""What a change of a Dask task's state means to the any-k state machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from distributed.metrics import time

from . import messages as m

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import TaskState

__all__ = ["node_events", "share_events", "share_now"]


def share_events(task: TaskState, state: str, details: Mapping[str, Any]) -> Iterator[m.Event]:
    """Tell what it means that a share is now in a state of Dask's."""
    now, key = time(), task.key
    if state == "processing" and task.processing_on is not None:
        yield m.ShareStarted(now, key, task.processing_on.address)
    elif state == "memory" and "worker" in details:
        spans = [s for s in details.get("startstops", ()) if s["action"] == "compute"]
        start, stop = (spans[-1]["start"], spans[-1]["stop"]) if spans else (now, now)
        yield m.ShareDone(now, key, details["worker"], start, stop)
    elif state == "waiting":
        yield m.ShareWaiting(now, key)
    elif state == "released":
        yield m.ShareReleased(now, key)
    elif state == "erred":
        yield m.ShareErred(now, key)
    elif state == "forgotten":
        yield m.Forgotten(now, key)


def share_now(task: TaskState) -> Iterator[m.Event]:
    """Tell where a share stands that the scheduler knew already."""
    if task.state == "memory" and task.who_has:
        worker = next(iter(task.who_has)).address
        yield m.ShareStarted(time(), task.key, worker)
        yield from share_events(task, task.state, {"worker": worker})
    elif task.state != "released":
        yield from share_events(task, task.state, {})


def node_events(key: Key, state: str) -> Iterator[m.Event]:
    """Tell what it means that an any-k node is now in a state of Dask's."""
    now = time()
    if state == "waiting":
        yield m.NodeWaiting(now, key)
    elif state in ("processing", "queued", "no-worker"):
        yield m.NodeStarted(now, key)
    elif state == "memory":
        yield m.NodeDone(now, key)
    elif state == "released":
        yield m.NodeReleased(now, key)
    elif state == "erred":
        yield m.NodeErred(now, key)
    elif state == "forgotten":
        yield m.Forgotten(now, key)
