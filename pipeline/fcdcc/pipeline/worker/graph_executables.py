"""Executables that graphs refer to: when the workers of a scheduler load and forget them.

``infer`` has the scheduler load an executable on all workers (:data:`INSTALL`), and its graphs
refer to it. The workers keep it until each client that uses it has closed or has said that it sends
no more graphs (:data:`RELEASE`), and no task of these graphs is left: results that are computed or
persisted may have to be computed again when a worker is lost.

Tasks are found by what they hold, because Dask renames them: the scheduler unpickles each graph,
which makes an ``ExecutableRef`` there (:func:`arrive`), and the tasks of a graph with a reference
that was not found yet are searched for it. The message that no more are sent takes the way of the
graphs, the client's stream of messages: the scheduler handles these one after the other, and each
only when it is done with the one before. Importing this module does not import PyTorch.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask._task_spec import DataNode, Task
from distributed import SchedulerPlugin
from distributed.core import error_message
from tornado.ioloop import PeriodicCallback

from .executable_plugin import (
    INSTALL_TIMEOUT_SECONDS,
    POLL_SECONDS,
    remove_worker_plugin,
    silent_workers,
)

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler, TaskState

    from .executable import ExecutableRef
    from .packed_executable import PackedExecutable

USE = "fcdcc_use_executable"
"""Name of the scheduler's handler for a client that needs an executable."""

INSTALL = "fcdcc_install_executable"
"""Name of the scheduler's handler that loads an executable on all workers."""

RELEASE = "fcdcc_release_executable"
"""Name of the handler, for messages in a client's stream, that it sends no more graphs."""

LOOK_SECONDS = 1.0
"""Pause between two looks at the tasks of graphs of which no more will come."""

PATIENCE_SECONDS = 60.0
"""How long a task waits on a worker that was silent while the executable was sent."""

shared_memory: dict[str, PackedExecutable] = {}
"""By worker plugin: memory of this process that workers map, for the scheduler of this process."""

_uses: dict[str, ExecutableUse] = {}
"""By their names: the uses of executables that the schedulers of this process know."""


@dataclass(eq=False)
class ArrivedGraph:
    """A graph that has arrived on a scheduler, by its reference to an executable.

    ``tasks`` are those that hold the reference; None as long as no task was found to do so.
    """

    ref: weakref.ref[ExecutableRef]
    tasks: list[TaskState] | None = None


@dataclass(eq=False)
class ExecutableUse:
    """What one client's graphs have to do with one executable.

    ``client`` is the id of the client, and ``is_released`` says that it sends no more graphs.
    Graphs may be added by any thread.
    """

    client: str
    is_released: bool = False
    graphs: set[ArrivedGraph] = field(default_factory=set)

    def add(self, ref: ExecutableRef) -> None:
        """Note a graph that has arrived."""
        self.graphs.add(ArrivedGraph(weakref.ref(ref)))

    def is_over(self, scheduler: Scheduler) -> bool:
        """Return whether a scheduler has no task of the client's graphs, and none will come."""
        self.forget_graphs(scheduler)
        return self.is_released and not self.graphs

    def forget_graphs(self, scheduler: Scheduler) -> None:
        """Forget the graphs of which a scheduler has no task any more.

        A reference inside the argument of a task is not found. Such a graph is forgotten with the
        reference, which Dask may keep for long, or with the client.
        """

        def is_left(graph: ArrivedGraph) -> bool:
            if graph.tasks is not None:
                return any(scheduler.tasks.get(task.key) is task for task in graph.tasks)
            return graph.ref() is not None and self.client in scheduler.clients

        for graph in [*self.graphs]:
            if not is_left(graph):
                self.graphs.discard(graph)


def arrive(fingerprint: str, use: str) -> ExecutableRef:
    """Return the reference of a graph that has arrived on a scheduler.

    Parameters
    ----------
    fingerprint
        Of the executable.
    use
        Name of the client's use of it.
    """
    from .executable import ExecutableRef

    ref = ExecutableRef(fingerprint, patience_seconds=PATIENCE_SECONDS)
    known = _uses.get(use)
    if known is not None:
        known.add(ref)
    return ref


@dataclass(eq=False)
class _Installed:
    """An executable on all workers."""

    plugin: str
    """Name of the worker plugin."""
    held: ExecutableRef | None
    """What this process itself keeps, where the workers are threads of it."""
    uses: set[str] = field(default_factory=set)
    is_loaded: asyncio.Event = field(default_factory=asyncio.Event)


class GraphExecutablesPlugin(SchedulerPlugin):
    """Loads executables on all workers, and removes those that no graph refers to any more.

    ``client.register_plugin(GraphExecutablesPlugin())`` adds it. Registering it again, by any
    client, changes nothing.
    """

    name = "fcdcc-graph-executables"
    idempotent = True

    def __init__(self) -> None:
        self._installed: dict[str, _Installed] = {}
        """By fingerprint."""
        self._begun: set[asyncio.Task[Any]] = set()

    async def start(self, scheduler: Scheduler) -> None:
        """Register the handlers with a scheduler."""
        self._scheduler = scheduler
        self._clock = PeriodicCallback(self._remove_unused, LOOK_SECONDS * 1000)
        scheduler.handlers[USE] = self._use
        scheduler.handlers[INSTALL] = self._install
        scheduler.stream_handlers[RELEASE] = self._release

    def update_graph(
        self,
        scheduler: Scheduler,
        *,
        tasks: list[Key],
        **kwargs: Any,  # noqa: ARG002 - the hook's signature
    ) -> None:
        """Find the tasks of a graph that refer to executables."""
        sought: dict[int, ArrivedGraph] = {}
        for installed in self._installed.values():
            for use in installed.uses:
                _uses[use].forget_graphs(scheduler)
                for graph in [*_uses[use].graphs]:
                    ref = graph.ref()
                    if graph.tasks is None and ref is not None:
                        sought[id(ref)] = graph
        if not sought:
            return
        for task in (scheduler.tasks[key] for key in tasks if key in scheduler.tasks):
            for value in _values(task.run_spec):
                if id(value) in sought:
                    graph = sought[id(value)]
                    graph.tasks = [*(graph.tasks or ()), task]

    def remove_client(self, scheduler: Scheduler, client: str) -> None:  # noqa: ARG002 - Dask's signature
        """Note that a client sends no more graphs."""
        for use in [*_uses.values()]:
            if use.client == client:
                use.is_released = True
        self._remove_unused()

    async def close(self) -> None:
        """Forget everything; the workers end with the scheduler."""
        self._clock.stop()
        for task in self._begun:
            task.cancel()
        for fingerprint in [*self._installed]:
            self._forget(fingerprint)

    async def _use(self, client: str, use: str, fingerprint: str) -> bool:
        """Note that a client needs an executable; return whether the workers have it."""
        found = self._installed.get(fingerprint)
        if found is None or client not in self._scheduler.clients:
            return False
        self._add(found, client, use)
        await found.is_loaded.wait()
        return self._installed.get(fingerprint) is found

    async def _install(
        self,
        client: str,
        use: str,
        fingerprint: str,
        name: str,
        plugin: bytes,
        held_here: bool,
    ) -> dict[str, Any]:
        """Load an executable on all workers, unless another client has done so meanwhile.

        Parameters
        ----------
        client, use, fingerprint
            Of the client, of its use of the executable, and of the executable.
        name, plugin
            Of the worker plugin, and the plugin.
        held_here
            Whether the workers are threads of this process, which must have the executable.

        Returns
        -------
        dict
            ``plugin``: the name of the plugin that is used, and ``responses`` of workers to it.

        Raises
        ------
        RuntimeError
            If the client has gone.
        """
        while fingerprint in self._installed and client in self._scheduler.clients:
            if await self._use(client, use, fingerprint):
                return {"plugin": self._installed[fingerprint].plugin, "responses": {}}
        if client not in self._scheduler.clients:
            raise RuntimeError("the scheduler has lost the connection to the client that asks")
        made = _Installed(name, _hold(fingerprint) if held_here else None)
        self._installed[fingerprint] = made
        self._add(made, client, use)
        responses: dict[str, Any] = {}
        try:
            responses = await self._send(name, plugin)
        finally:
            is_left = self._installed.get(fingerprint) is made  # the scheduler is not closing
            if is_left and any(found["status"] == "error" for found in responses.values()):
                self._remove(fingerprint)
            made.is_loaded.set()
            self._remove_unused()
        return {"plugin": name, "responses": responses}

    def _release(self, use: str, client: str) -> None:  # noqa: ARG002 - Dask gives the client to all handlers of its stream
        """Note that a client sends no more graphs."""
        if use in _uses:
            _uses[use].is_released = True
            self._remove_unused()

    def _add(self, installed: _Installed, client: str, use: str) -> None:
        _uses[use] = ExecutableUse(client)
        installed.uses.add(use)

    async def _send(self, name: str, plugin: bytes) -> dict[str, Any]:
        """Send a plugin to all workers; return the responses of those that are heard of."""
        self._scheduler.worker_plugins[name] = plugin
        message = {"op": "plugin-add", "plugin": plugin, "name": name}
        asked = {
            self._begin(
                self._scheduler.broadcast(msg=message, workers=[address], on_error="return")
            ): address
            for address in self._scheduler.workers
        }
        waiting, deadline = {*asked}, time.monotonic() + INSTALL_TIMEOUT_SECONDS
        while waiting and time.monotonic() < deadline:
            _, waiting = await asyncio.wait(waiting, timeout=POLL_SECONDS)
            seen = {a: worker.last_seen for a, worker in self._scheduler.workers.items()}
            if all(
                asked[task] in silent_workers(seen) or asked[task] not in seen for task in waiting
            ):
                break
        responses: dict[str, Any] = {}
        for task in asked.keys() - waiting:
            for address, response in task.result().items():
                if isinstance(response, OSError):  # it is not there any more
                    continue
                is_error = isinstance(response, Exception)
                responses[address] = error_message(response) if is_error else response
        return responses

    def _remove_unused(self) -> None:
        """Remove the executables that no task needs any more; look again while some may."""
        for fingerprint, installed in [*self._installed.items()]:
            for use in [*installed.uses]:
                if _uses[use].is_over(self._scheduler):
                    installed.uses.discard(use)
                    del _uses[use]
            if not installed.uses and installed.is_loaded.is_set():
                self._remove(fingerprint)
        uses = [_uses[use] for installed in self._installed.values() for use in installed.uses]
        ending = any(use.is_released for use in uses)
        if ending and not self._clock.is_running():
            self._clock.start()
        elif not ending:
            self._clock.stop()

    def _remove(self, fingerprint: str) -> None:
        name = self._forget(fingerprint)
        self._begin(remove_worker_plugin(self._scheduler, name))

    def _forget(self, fingerprint: str) -> str:
        """Forget an executable; return the name of its worker plugin."""
        installed = self._installed.pop(fingerprint)
        for use in installed.uses:
            del _uses[use]
        shared_memory.pop(installed.plugin, None)
        if installed.held is not None:
            from .executable import drop

            drop(installed.held)
        return installed.plugin

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin work that this plugin does not wait for."""
        task = asyncio.ensure_future(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return task


def _values(node: object) -> Iterator[object]:
    """Yield the values in a node of a graph, also where other nodes were fused into it."""
    left = [node]
    while left:
        found = left.pop()
        if isinstance(found, DataNode):
            yield found.value
        elif isinstance(found, Task):
            left += [*found.args, *found.kwargs.values()]
        elif isinstance(found, dict):
            left += found.values()
        elif isinstance(found, list | tuple):
            left += found
        else:
            yield found


def _hold(fingerprint: str) -> ExecutableRef:
    """Keep an executable in this process, which has it."""
    from .executable import ExecutableRef, find, hold

    return hold(find(ExecutableRef(fingerprint)))
