"""Queries of clients about any-k groups, and how the plugin answers them on the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from distributed import Client
from distributed.metrics import time

from .keys import Stage, parse_key
from .state_machine.events import RunDropped
from .state_machine.state import AnyKState

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler, TaskState, WorkerState

REPORT = "fcdcc_anyk_report"
"""Name of the scheduler's handler that answers :func:`anyk_report`."""

ALIVE = "fcdcc_anyk_alive"
"""Name of the scheduler's handler that answers :func:`anyk_alive`."""

WAITING = "fcdcc_anyk_waiting"
"""Name of the scheduler's handler that answers :func:`anyk_waiting`."""

FORGET = "fcdcc_anyk_forget"
"""Name of the scheduler's handler that answers :func:`anyk_forget`."""

PIDS = "fcdcc_anyk_pids"
"""Name of the scheduler's handler that answers :func:`worker_pids`."""


class RunTotals(TypedDict):
    """The counters of a run, the workers that it lost, and its wrong shares."""

    counters: dict[str, int]
    workers_removed: list[str]
    workers_lost: list[str]
    corrupt: list[tuple[int, int, int, str]]


class Report(RunTotals):
    """What happened in a run.

    ``timeline`` and ``groups`` have the fields of :class:`.state_machine.history.ShareRecord` and
    :class:`.state_machine.history.GroupRecord`. ``failures`` are tracebacks of errors inside the
    plugin, over all runs: Dask only logs them, and a healthy plugin has none.
    """

    timeline: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    events: list[dict[str, Any]]
    failures: list[str]


def scheduler_identity(client: Client) -> dict[str, Any]:
    """Return what a scheduler says of itself, with ``workers`` by their addresses.

    ``Client.scheduler_info`` returns a cache. A thread of the client refreshes it every two
    seconds without any workers, also in the moment between a call and its return.

    Parameters
    ----------
    client
        A synchronous client.
    """
    scheduler: Any = client.scheduler  # it has no types
    found: Any = client.sync(scheduler.identity, n_workers=-1)
    return cast("dict[str, Any]", found)


def cluster_workers(client: Client) -> dict[str, dict[str, Any]]:
    """Return what a scheduler says of its workers, by their addresses.

    Parameters
    ----------
    client
        A synchronous client.
    """
    found: dict[str, dict[str, Any]] = scheduler_identity(client)["workers"]
    return found


def worker_pids(client: Client, addresses: Iterable[str]) -> dict[str, int]:
    """Return the process ids of workers by their addresses; empty without the plugin."""
    found: dict[str, int] = _call(client, PIDS, workers=[*addresses]) or {}
    return found


def anyk_report(client: Client, run: str, *, timeline: bool = True) -> Report:
    """Return the plugin's record of a run; empty if there is none, or no plugin.

    The history is bounded: for very long runs the counters are complete, but the oldest shares
    are missing.

    Parameters
    ----------
    client
        A synchronous client of a cluster that has the plugin.
    run
        The run id in the task keys; '' for keys that have none.
    timeline
        Whether to include one record per share and per group, which may be many.

    >>> anyk_report(client, "1f3a")["workers_lost"]  # client: a distributed.Client
    []
    """
    nothing: Report = {
        "counters": {},
        "timeline": [],
        "groups": [],
        "events": [],
        "workers_removed": [],
        "workers_lost": [],
        "corrupt": [],
        "failures": [],
    }
    report: Report | None = _call(client, REPORT, run=run, timeline=timeline)
    return report or nothing


def anyk_alive(client: Client) -> dict[str, int]:
    """Return how many groups, shares, nodes, blocks, tasks and ``doubles`` the plugin knows.

    ``doubles`` are backup tasks. Empty if the plugin is not installed.

    >>> from fcdcc.pipeline.anyk import AnyKPlugin
    >>> _ = client.register_plugin(AnyKPlugin())  # client: a distributed.Client
    >>> anyk_alive(client)["groups"]
    0
    """
    alive: dict[str, int] = _call(client, ALIVE) or {}
    return alive


class WaitingTask(NamedTuple):
    """A task that is assigned to a worker, or for which there is no suitable worker.

    ``silent`` is the time in seconds since the last heartbeat of its worker.
    """

    block: int
    layer: int
    stage: Stage
    position: int
    worker: str | None
    silent: float

    @property
    def identity(self) -> Hashable:
        """What stays the same while the task does not move."""
        return self[:-1]


def anyk_waiting(client: Client, run: str) -> list[WaitingTask] | None:
    """Return the tasks of a run that workers have, or that wait for a worker, by block.

    None if the plugin is not installed.
    """
    found: Iterable[tuple[Any, ...]] | None = _call(client, WAITING, run=run)
    return None if found is None else [WaitingTask(*fields) for fields in found]


def anyk_forget(client: Client, run: str) -> None:
    """Drop the history of a run.

    >>> anyk_forget(client, "1f3a")  # client: a distributed.Client
    """
    _call(client, FORGET, run=run)


def _call(client: Client, handler: str, **arguments: Any) -> Any:
    async def call() -> Any:
        answer = await getattr(client.scheduler, handler)(**arguments)
        if isinstance(answer, dict):  # lists arrive as tuples over some connections
            return {k: list(v) if isinstance(v, tuple) else v for k, v in answer.items()}
        return answer

    return client.sync(call)


class SchedulerRPC:
    """Answers the clients of a scheduler.

    Parameters
    ----------
    state
        The state machine.
    guarded
        The tasks of graphs with any-k nodes.
    failures
        Tracebacks of errors inside the plugin.
    catch_up
        Called before every answer, so that the state machine knows what has happened so far.
    """

    def __init__(
        self,
        state: AnyKState,
        guarded: Collection[Key],
        failures: Iterable[str],
        catch_up: Callable[[], None],
    ) -> None:
        self._state = state
        self._guarded = guarded
        self._failures = failures
        self._catch_up = catch_up
        self._tasks: Mapping[Key, TaskState] = {}
        self._workers: Mapping[str, WorkerState] = {}

    def install(self, scheduler: Scheduler) -> None:
        """Register the handlers with a scheduler."""
        scheduler.handlers[REPORT] = self.report
        scheduler.handlers[ALIVE] = self.alive
        scheduler.handlers[FORGET] = self.forget
        scheduler.handlers[WAITING] = self.waiting
        scheduler.handlers[PIDS] = self.pids
        self._tasks = scheduler.tasks
        self._workers = scheduler.workers

    async def pids(self, workers: Iterable[str]) -> dict[str, int]:
        """Answer :func:`worker_pids`."""
        return {a: self._workers[a].pid for a in workers if a in self._workers}

    async def report(self, run: str, timeline: bool = True) -> dict[str, Any]:
        """Answer :func:`anyk_report`."""
        self._catch_up()
        answer = self._state.history.look(run).as_dict(timeline)
        return {**answer, "failures": list(self._failures)}

    async def alive(self) -> dict[str, int]:
        """Answer :func:`anyk_alive`."""
        self._catch_up()
        registry = self._state.registry
        return {
            "groups": len(registry.groups),
            "shares": len(registry.shares),
            "nodes": len(registry.nodes),
            "blocks": len(registry.blocks),
            "tasks": len(self._guarded),
            "doubles": len(self._state.backup_tasks),
        }

    async def waiting(self, run: str) -> list[tuple[Any, ...]]:
        """Answer :func:`anyk_waiting`, with the fields of :class:`WaitingTask`."""
        now, found = time(), list[tuple[Any, ...]]()
        for key, task in self._tasks.items():
            known = parse_key(key)
            if known is None or known.run != run or task.state not in ("processing", "no-worker"):
                continue
            if task.state == "no-worker" and known.stage == "parity":
                continue  # standby parity starts only when a share is late
            worker = task.processing_on
            address = None if worker is None else worker.address
            silent = 0.0 if worker is None else now - worker.last_seen
            found.append((known.block, known.layer, known.stage, known.position, address, silent))
        return sorted(found, key=lambda fields: fields[:4])

    async def forget(self, run: str) -> None:
        """Answer :func:`anyk_forget`."""
        self._catch_up()
        self._state.handle(RunDropped(time(), run))
