"""Load the executable of a run on every worker once, including workers that join later.

To register or unregister a worker plugin, Dask sends a request to every worker and waits for
all responses, so a worker that has stopped would hold up the whole run. The scheduler stores the
plugin before it sends the requests, so it is safe to stop waiting for the last responses.

A worker imports PyTorch and loads the executable in a thread, so that its event loop goes on and
its heartbeats arrive: that takes seconds, and a worker that is silent for seconds looks as if it
had stopped. Importing this module does not import PyTorch.

Workers that are threads of the client's process share its executable, so that the weights are in
memory once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from distributed import Client, SchedulerPlugin, Worker, WorkerPlugin
from distributed.core import clean_exception
from distributed.protocol.pickle import dumps
from distributed.scheduler import heartbeat_interval

from ..anyk.queries import cluster_workers
from ..anyk.worker import READY
from .arrivals import begin, end
from .memory import PeakMemory
from .packed_executable import PackedExecutable, pack
from .signals import leave_on_sigterm, restore_sigterm

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

    from .executable import Executable, ExecutableRef

logger = logging.getLogger(__name__)

INSTALL_TIMEOUT_SECONDS = 60.0
"""How long :func:`install` waits for workers that do not respond."""

REMOVE = "fcdcc_remove_worker_plugin"
"""Name of the scheduler's handler that removes a plugin from all workers."""

UNINSTALL_TIMEOUT_SECONDS = 5.0
"""How long :func:`uninstall` waits for workers that do not respond."""

POLL_SECONDS = 0.5
"""Pause between two looks at the workers that have not responded."""

UNREACHED_SECONDS = 10.0
"""How long :func:`install` waits for the others once a worker could not be reached."""

SILENT_SECONDS = 3.0
"""A worker is silent if it was heard of so much earlier than another one, at least. Nothing waits
for silent workers, and the end of a run names them."""

SILENT_HEARTBEATS = 2.5
"""A worker is not silent before so many heartbeats are overdue: on clusters of hundreds of workers
these are seconds apart."""

RESEND_AFTER_LOOKS = 20
"""Looks that see a worker answer and not have the executable before it is sent once more."""

LATE_PATIENCE_SECONDS = 60.0
"""How long a task waits for the executable on a worker that was silent when it was sent."""

BYTES_SENT = "fcdcc-bytes-sent"
"""Name of the heartbeat metric for the bytes that a worker has sent to others in this run."""

PEAK_MEMORY = "fcdcc-peak-memory"
"""Name of the heartbeat metric for the peak memory of a worker's process in bytes."""

TASK_MODULES = ("fcdcc.pipeline.worker.kernels",)
"""Modules with the functions of tasks."""


class KeepExecutable(WorkerPlugin):
    """Keeps an executable on every worker for as long as the plugin is registered.

    Dask sends a worker plugin to all workers, including those that join later. If the
    executable were a key in the graph instead, the scheduler would prefer workers that already
    hold it.

    Parameters
    ----------
    executable
        The executable that tasks refer to; or how it travels, or its name, where the process of
        the workers has it already.
    name
        Of the plugin.
    modules
        Modules with the functions of tasks. A worker that got a task before it has imported them
        would do so in its event loop.
    """

    def __init__(
        self,
        executable: Executable | ExecutableRef | PackedExecutable,
        name: str,
        modules: tuple[str, ...] = TASK_MODULES,
    ) -> None:
        self.executable = executable
        self.name = name
        self.modules = modules
        self._ref: ExecutableRef | None = None
        self._removed = False

    async def setup(self, worker: Worker) -> None:
        """Load the executable."""
        await _beside_heartbeats(worker, self._load)
        if self._removed:  # meanwhile
            self._drop()

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - Dask calls it with the worker
        """Undo :meth:`setup`."""
        self._removed = True
        self._drop()

    @property
    def _is_loaded(self) -> bool:
        return self._ref is not None

    def _load(self) -> None:
        """Import what tasks need, and keep the executable in this process."""
        packed = self.executable if isinstance(self.executable, PackedExecutable) else None
        arriving = None if packed is None else begin(packed.fingerprint)
        try:
            for name in self.modules:
                import_module(name)
            self._before_loading()

            from .executable import find, hold

            # Another worker of this process may have it.
            self._ref = hold(packed.unpack() if packed else find(cast("Any", self.executable)))
            self.executable = self._ref  # what it came in is not needed any more
        finally:
            if packed is not None and arriving is not None:
                end(packed.fingerprint, arriving)

    def _before_loading(self) -> None:
        """Prepare the process, in the thread that loads the executable."""

    def _drop(self) -> None:
        from .executable import drop

        if self._ref is not None:
            drop(self._ref)
            self._ref = None


class ExecutablePlugin(KeepExecutable):
    """Keeps an executable on every worker for the duration of a run, and adds the run's metrics.

    Parameters
    ----------
    executable, modules
        As for :class:`KeepExecutable`.
    run
        Id of the run; it keeps apart the plugins of two runs of the same executable.
    torch_threads
        Threads per torch operation, for the whole process of the worker.
    """

    def __init__(
        self,
        executable: Executable | ExecutableRef | PackedExecutable,
        run: str,
        torch_threads: int,
        modules: tuple[str, ...] = TASK_MODULES,
    ) -> None:
        super().__init__(executable, f"fcdcc-executable-{run}", modules)
        self.run = run
        self.torch_threads = torch_threads
        self.packed: PackedExecutable | None = None
        """How :func:`install` has sent the executable; memory that it shares exists as long."""
        self.removal = "unregister_worker_plugin"
        """The scheduler's handler by which :func:`uninstall` removes the plugin."""

    def holding(self, executable: ExecutableRef | PackedExecutable) -> ExecutablePlugin:
        """Return this plugin as it travels."""
        return ExecutablePlugin(executable, self.run, self.torch_threads, self.modules)

    async def setup(self, worker: Worker) -> None:
        """Load the executable, handle SIGTERM, and add the metrics of the run."""
        await super().setup(worker)
        if not self._is_loaded:  # removed meanwhile
            return
        leave_on_sigterm(worker)
        sent_before = worker.transfer_outgoing_bytes_total

        async def bytes_sent(worker: Worker) -> int:
            return worker.transfer_outgoing_bytes_total - sent_before

        async def peak_memory(worker: Worker) -> int:  # noqa: ARG001 - Dask calls it with the worker
            return PeakMemory.peak()

        async def ready(worker: Worker) -> str:  # noqa: ARG001 - Dask calls it with the worker
            return self.run

        PeakMemory.start()
        worker.metrics[BYTES_SENT] = bytes_sent
        worker.metrics[PEAK_MEMORY] = peak_memory
        worker.metrics[READY] = ready

    def teardown(self, worker: Worker) -> None:
        """Undo :meth:`setup`."""
        worker.metrics.pop(READY, None)
        worker.metrics.pop(BYTES_SENT, None)
        if worker.metrics.pop(PEAK_MEMORY, None) is not None:
            PeakMemory.stop()
        if self._is_loaded:
            restore_sigterm(worker)
        super().teardown(worker)

    def _before_loading(self) -> None:
        import torch

        torch.set_num_threads(self.torch_threads)


class TaskModulesPlugin(SchedulerPlugin):
    """Imports the modules of tasks on the scheduler, in a thread.

    The scheduler unpickles graphs, and would import PyTorch in its event loop with the first.

    Parameters
    ----------
    modules
        Names of the modules.
    """

    name = "fcdcc-task-modules"
    idempotent = True

    def __init__(self, modules: tuple[str, ...] = TASK_MODULES) -> None:
        self.modules = modules

    async def start(self, scheduler: Scheduler) -> None:  # noqa: ARG002 - Dask's signature
        """Import them."""
        for name in self.modules:
            await asyncio.to_thread(import_module, name)


class WorkerPluginRemoval(SchedulerPlugin):
    """Lets a client remove a plugin from all workers, also while some of them die.

    Dask's own request fails with the first worker that dies meanwhile. The error of a second one
    is then never retrieved, and Python prints its traceback.
    """

    name = "fcdcc-worker-plugin-removal"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Register the handler with a scheduler."""

        async def remove(name: str) -> dict[str, Any]:
            return await remove_worker_plugin(scheduler, name)

        scheduler.handlers[REMOVE] = remove


async def remove_worker_plugin(scheduler: Scheduler, name: str) -> dict[str, Any]:
    """Remove a plugin from a scheduler and all its workers; return what those say that answer."""
    scheduler.worker_plugins.pop(name, None)
    message = {"op": "plugin-remove", "name": name}
    return await scheduler.broadcast(msg=message, on_error="ignore")


async def _beside_heartbeats(worker: Worker, work: Callable[[], None]) -> None:
    """Do work in a thread while the worker's heartbeats go on.

    A worker that has only just joined begins with its heartbeats after its plugins are set up, so
    this sends them.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work))
    beat = worker.periodic_callbacks["heartbeat"]
    while not (await asyncio.wait({working}, timeout=beat.callback_time / 1000))[0]:
        if not beat.is_running():
            await worker.heartbeat()
    working.result()


def install(
    client: Client, plugin: ExecutablePlugin, *, same_machine: bool = False
) -> dict[str, float]:
    """Register a plugin with all workers, and with those that will join.

    This waits for workers that are heard of, at most a minute, and not for workers that die or
    are silent meanwhile.

    Parameters
    ----------
    client
        Of the scheduler.
    plugin
        The plugin. It must not be garbage-collected before the run is over.
    same_machine
        Whether all workers are processes on this machine, which share the memory of the weights.

    Returns
    -------
    dict
        The workers that were not waited for because they are silent or could not be reached, by
        their addresses, and how many seconds ago they were heard of; :class:`SilentWorkers` sends
        the executable to those that answer later.

    Raises
    ------
    Exception
        Any error that the plugin's setup raised on a worker.
    """
    from .executable import ExecutableRef, find, hold

    try:
        client.register_plugin(WorkerPluginRemoval())
        plugin.removal = REMOVE
    except Exception as error:  # noqa: BLE001 - a scheduler without fcdcc raises what it likes
        logger.info("Dask's own request will remove the plugin of the run: %r", error)
    executable = plugin.executable
    if is_in_process(client):
        executable = hold(find(cast("Executable | ExecutableRef", executable)))
    if isinstance(executable, ExecutableRef | PackedExecutable):
        return _register(client, plugin.holding(executable))
    silent: dict[str, float] = {}

    def send(packed: PackedExecutable) -> None:
        silent.update(_register(client, plugin.holding(packed)))

    plugin.packed = send_packed(executable, same_machine, send)
    return silent


def send_packed(
    executable: Executable, same_machine: bool, send: Callable[[PackedExecutable], None]
) -> PackedExecutable:
    """Pack an executable and send it; again without shared memory if workers cannot reach it.

    Parameters
    ----------
    executable, same_machine
        As for :func:`.packed_executable.pack`.
    send
        Sends it. It raises OSError where the workers cannot reach the memory.

    Returns
    -------
    PackedExecutable
        What was sent; memory that it shares exists as long.
    """
    packed = pack(executable, same_machine)
    try:
        send(packed)
    except OSError as error:
        if packed.shared is None:
            raise
        logger.info("the workers cannot share memory with this process: %s", error)
        packed = pack(executable, same_machine=False)
        send(packed)
    return packed


def _register(client: Client, plugin: ExecutablePlugin) -> dict[str, float]:
    """Register a plugin as it travels; return the workers without it, as :func:`install`.

    Raises
    ------
    Exception
        Any error that the plugin's setup raised on a worker.
    """
    missing: dict[str, float] = {}

    def all_others_are_ready(workers: Mapping[str, Mapping[str, Any]]) -> bool:
        seen = _last_seen(workers)
        latest = max(seen.values(), default=0.0)
        missing.clear()
        for name, worker in workers.items():
            if worker["metrics"].get(READY) != plugin.run:
                missing[name] = latest - seen[name]
        return missing.keys() <= silent_workers(seen)

    responses = _request_all_workers(
        client,
        "register_worker_plugin",
        INSTALL_TIMEOUT_SECONDS,
        all_others_are_ready,
        plugin=dumps(plugin),
        name=plugin.name,
        idempotent=False,
    )
    raise_setup_error(responses)
    return {} if responses else missing


class SilentWorkers:
    """Sends the executable once more to workers that were silent when it was sent.

    Dask may have given up its message to such a worker, because no connection was made. The caller
    looks regularly; workers that have loaded the executable, or are gone, are forgotten.

    Parameters
    ----------
    client
        Of the scheduler.
    plugin
        Which :func:`install` has sent.
    silent
        The addresses that :func:`install` returned.
    """

    def __init__(self, client: Client, plugin: ExecutablePlugin, silent: Collection[str]) -> None:
        self.addresses = set(silent)
        self._client = client
        self._plugin = plugin
        self._looks: Counter[str] = Counter()
        self._sending: list[asyncio.Future[None]] = []

    def look(self) -> None:
        """Send the executable to the workers that answer again and do not load it."""
        if not self.addresses:
            return
        workers = cluster_workers(self._client)
        silent = silent_workers(_last_seen(workers))
        for address in [*self.addresses]:
            worker = workers.get(address)
            if worker is None or worker["metrics"].get(READY) == self._plugin.run:
                self.addresses.discard(address)
            elif address in silent:
                self._looks.pop(address, None)
            else:
                self._looks[address] += 1
                if self._looks[address] % RESEND_AFTER_LOOKS == 0:
                    self._send(address)

    def _send(self, address: str) -> None:
        packed = self._plugin.packed or cast("ExecutableRef", self._plugin.executable)
        travelling = self._plugin.holding(packed)
        name = self._plugin.name
        question = {"op": "run", "function": dumps(_has_plugin), "args": dumps((name,))}
        message = {"op": "plugin-add", "plugin": dumps(travelling), "name": name}
        scheduler: Any = self._client.scheduler  # it has no types

        async def send() -> None:
            try:
                to_it = {"workers": [address], "on_error": "ignore"}
                answers = await scheduler.broadcast(msg=question, **to_it)
                # A second message would end what the first one has begun to load.
                if not answers.get(address, {}).get("result"):
                    logger.info("worker %s answers again, and is given the model", address)
                    await scheduler.broadcast(msg=message, **to_it)
            except OSError as error:
                logger.info("worker %s cannot be given the model: %r", address, error)

        async def begin() -> None:
            self._sending.append(asyncio.ensure_future(send()))

        self._client.sync(begin)


def _has_plugin(name: str, dask_worker: Worker) -> bool:
    """Return whether a worker has a plugin, or is setting it up. It runs on the worker."""
    return name in dask_worker.plugins


def raise_setup_error(responses: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise the first error among the responses of workers to a plugin.

    Raises
    ------
    Exception
        Any error that the plugin's setup raised on a worker.
    """
    for response in responses.values():
        if response["status"] == "error":
            _, error, traceback = clean_exception(response["exception"], response["traceback"])
            if error is not None:
                raise error.with_traceback(traceback)


def _last_seen(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return when each worker was last heard of, from what the scheduler says of them."""
    return {name: worker["last_seen"] for name, worker in workers.items()}


def silent_workers(last_seen: Mapping[str, float]) -> set[str]:
    """Return the workers that were heard of much earlier than another one."""
    latest = max(last_seen.values(), default=0.0)
    usual = SILENT_HEARTBEATS * heartbeat_interval(len(last_seen))
    patience = max(SILENT_SECONDS, usual)
    return {name for name, seen in last_seen.items() if seen < latest - patience}


def uninstall(client: Client, plugin: ExecutablePlugin) -> None:
    """Unregister a plugin; this waits only briefly for workers that do not respond."""
    if is_in_process(client):
        from .executable import drop, find

        drop(find(cast("Executable | ExecutableRef", plugin.executable)).ref)

    def all_others_have_removed_it(workers: Mapping[str, Mapping[str, Any]]) -> bool:
        silent = silent_workers(_last_seen(workers))
        return bool(silent) and all(
            name in silent or worker["metrics"].get(READY) != plugin.run
            for name, worker in workers.items()
        )

    _request_all_workers(
        client, plugin.removal, UNINSTALL_TIMEOUT_SECONDS, all_others_have_removed_it,
        name=plugin.name,
    )  # fmt: skip


def is_in_process(client: Client) -> bool:
    """Return whether scheduler and workers are threads of this process."""
    return client.scheduler is not None and str(client.scheduler.address).startswith("inproc:")


def _retrieve_error(done: asyncio.Future[Any]) -> None:
    """Keep asyncio from logging an error that nobody waits for: an interrupted run goes on."""
    if not done.cancelled():
        done.exception()


def _request_all_workers(
    client: Client,
    operation: str,
    timeout: float,
    is_enough: Callable[[Mapping[str, Mapping[str, Any]]], bool] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Call an operation of the scheduler that sends a request to every worker.

    Returns the responses by worker; none at all if one worker does not respond within
    ``timeout`` seconds, or ``is_enough`` returns True for what the scheduler says of its workers.
    If a worker cannot be reached, its error ends the request; then only ``is_enough`` is waited
    for.
    """

    async def request() -> Any:
        scheduler: Any = client.scheduler  # it has no types
        loop = asyncio.get_running_loop()
        responses = asyncio.ensure_future(getattr(scheduler, operation)(**arguments))
        responses.add_done_callback(_retrieve_error)
        deadline = loop.time() + timeout
        while loop.time() < deadline:
            if responses.done():
                await asyncio.sleep(POLL_SECONDS)
            elif (await asyncio.wait({responses}, timeout=POLL_SECONDS))[0]:
                error = responses.exception()
                if not isinstance(error, OSError):
                    return responses.result()
                logger.info("a worker cannot be reached: %r", error)
                if is_enough is None:
                    break
                deadline = min(deadline, loop.time() + UNREACHED_SECONDS)
            if is_enough is not None:
                try:
                    workers = (await scheduler.identity(n_workers=-1))["workers"]
                except OSError:  # the scheduler is gone; the next request says so
                    break
                if is_enough(workers):
                    break
        responses.cancel()
        logger.info("not waiting any longer for workers that do not respond")
        return {}

    return cast("dict[str, Any]", client.sync(request))
