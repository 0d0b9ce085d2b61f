"""Check that Dask has the internal interfaces that the any-k plugin needs.

The plugin changes the scheduler's own state (:mod:`.graph_edits`), which is not a public interface
of Dask. So before it is installed, this module checks that everything that it uses exists, and
raises an error that lists what is missing.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any, get_args

from dask._task_spec import DataNode, Task, TaskRef
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, SchedulerState, TaskState, WorkerState
from distributed.stealing import WorkStealing
from distributed.worker_state_machine import TaskState as WorkerTaskState
from distributed.worker_state_machine import TaskStateState as WorkerTaskStateState
from distributed.worker_state_machine import WorkerState as WorkerMachine

from fcdcc.coding.errors import FcdccError

from ..tasks import ERASED, AnyK

OLDEST = "2025.7.0"
"""The oldest version of distributed that the plugin was tested with."""

NEWEST = "2026.8.0"
"""The newest version of distributed that the plugin was tested with."""

_TASK = {
    "dependencies": "the tasks that it needs",
    "dependents": "the tasks that need it",
    "waiting_on": "the inputs that are not there yet",
    "waiters": "the tasks that wait for it",
    "who_wants": "the clients that requested it",
    "who_has": "the workers that hold its result",
    "processing_on": "the worker that it was assigned to",
    "run_spec": "the graph node that is sent to the worker",
    "run_id": "whether it was ever sent to a worker",
    "annotations": "the annotations of the user",
    "priority": "when it runs, compared with others",
    "worker_restrictions": "the workers that it may run on",
    "host_restrictions": "the hosts that it may run on",
    "resource_restrictions": "what its worker must have",
    "loose_restrictions": "whether it may run elsewhere all the same",
}
_WORKER = ("last_seen", "metrics", "processing", "has_what", "nthreads", "host", "address")
_SCHEDULER = (
    "tasks", "workers", "running", "unrunnable", "plugins", "validate", "stream_handlers",
    "stream_comms",
)  # fmt: skip
_TRANSITIONS = (
    ("processing", "released"),
    ("waiting", "released"),
    ("no-worker", "released"),
    ("queued", "released"),
    ("released", "forgotten"),
    ("memory", "forgotten"),
    ("memory", "released"),
    ("waiting", "processing"),
    ("waiting", "no-worker"),
    ("no-worker", "processing"),
    ("released", "waiting"),
)
_CALLS = {
    "remove_worker": (Scheduler, ("address", "stimulus_id", "close")),
    "transitions": (Scheduler, ("recommendations", "stimulus_id")),
    "stimulus_queue_slots_maybe_opened": (Scheduler, ("stimulus_id",)),
    "log_event": (Scheduler, ("topic", "msg")),
    "request_remove_replicas": (Scheduler, ("addr", "keys", "stimulus_id")),
    "worker_send": (Scheduler, ("worker", "msg")),
    "gather": (Scheduler, ("keys", "serializers")),
    "handle_task_finished": (Scheduler, ("key", "worker", "stimulus_id")),
    "handle_request_refresh_who_has": (Scheduler, ("keys", "worker", "stimulus_id")),
    "remove_key_from_stealable": (WorkStealing, ("ts",)),
}
_HOOKS = {
    "update_graph": ("scheduler", "keys", "tasks", "stimulus_id"),
    "transition": ("key", "start", "finish", "stimulus_id"),
    "add_worker": ("scheduler", "worker"),
    "remove_worker": ("scheduler", "worker", "stimulus_id"),
}


class UnsupportedDaskError(FcdccError, RuntimeError):
    """A distributed scheduler that differs from what the plugin relies on.

    >>> check_contract()  # raises it where the plugin cannot work
    """


def check_contract() -> None:
    """Check that Dask is as the plugin needs it.

    Raises
    ------
    UnsupportedDaskError
        With a list of everything that differs.
    """
    found = breaches()
    if found:
        raise UnsupportedDaskError(
            f"distributed {version('distributed')} is not as the any-k plugin needs it "
            f"(tested with {OLDEST} to {NEWEST}): {'; '.join(found)}. Install {NEWEST}, "
            "or run without the plugin: every share is then waited for"
        )


def breaches() -> list[str]:
    """Return a message for each thing that the plugin needs and Dask lacks."""
    return [
        *_version(),
        *_attributes(),
        *_transitions(),
        *_signatures(),
        *_worker_side(),
        *_graph_nodes(),
    ]


def is_untested(given: str) -> bool:
    """Return whether a version of distributed is newer than the newest that was tested.

    >>> is_untested(NEWEST), is_untested("2099.1.0")
    (False, True)
    """
    return _parts(given) > _parts(NEWEST)


def _parts(given: str) -> tuple[int, ...]:
    return tuple(int(part) for part in given.split("+")[0].split(".")[:3])


def _version() -> list[str]:
    new_enough = _parts(version("distributed")) >= _parts(OLDEST)
    return [] if new_enough else [f"it is older than {OLDEST}"]


def _attributes() -> list[str]:
    task, worker, scheduler = (_names(owner) for owner in (TaskState, WorkerState, Scheduler))
    return [
        *(f"a scheduler task has no {n!r} ({text})" for n, text in _TASK.items() if n not in task),
        *(f"the scheduler's view of a worker has no {n!r}" for n in _WORKER if n not in worker),
        *(f"the scheduler has no {n!r}" for n in _SCHEDULER if n not in scheduler),
    ]


def _names(owner: type) -> set[str]:
    """Return the names of the attributes of a class and of its instances."""
    slots = (name for base in owner.__mro__ for name in getattr(base, "__slots__", ()))
    annotated = (name for base in owner.__mro__ for name in getattr(base, "__annotations__", ()))
    return {*dir(owner), *slots, *annotated}


def _transitions() -> list[str]:
    table = getattr(SchedulerState, "_TRANSITIONS_TABLE", {})
    return [
        f"the scheduler cannot move a task from {start!r} to {finish!r}"
        for start, finish in _TRANSITIONS
        if (start, finish) not in table
    ]


def _signatures() -> list[str]:
    found = []
    for name, (owner, needed) in _CALLS.items():
        found += _lacking(owner, name, needed)
    for name, needed in _HOOKS.items():
        found += _lacking(SchedulerPlugin, name, needed)
    return found


def _lacking(owner: type, name: str, needed: tuple[str, ...]) -> list[str]:
    function: Any = getattr(owner, name, None)
    if function is None:
        return [f"{owner.__name__} has no {name!r}"]
    parameters = inspect.signature(inspect.unwrap(function)).parameters
    return [
        f"{owner.__name__}.{name} takes no {parameter!r}"
        for parameter in needed
        if parameter not in parameters
    ]


def _worker_side() -> list[str]:
    """Check what :func:`fcdcc.pipeline.anyk.wanted` reads from a worker."""
    found = []
    if "tasks" not in _names(WorkerMachine):
        found.append("a worker's state has no 'tasks'")
    if "state" not in _names(WorkerTaskState):
        found.append("a worker's task has no 'state'")
    if "cancelled" not in get_args(WorkerTaskStateState):
        found.append("a worker's task cannot be 'cancelled'")
    return found


def _graph_nodes() -> list[str]:
    """Check that data can be put in place of an input of a graph node, as the plugin does."""
    if not hasattr(Task, "block_fusion"):
        return ["a graph node cannot refuse to be merged ('block_fusion')"]
    try:
        node = AnyK("node", dict, {0: "a", 1: "b"}, 1)
        erased = node.substitute({"b": DataNode("b", ERASED)})
        alone = erased({"a": 1})
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        return [f"data cannot be put in place of a graph node's input ({error!r})"]
    if erased.dependencies != {"a"} or TaskRef("a") not in erased.args:
        return ["putting data in place of a graph node's input leaves it a dependency"]
    if alone != {0: 1}:
        return ["a graph node is not called with its inputs by key"]
    return []
