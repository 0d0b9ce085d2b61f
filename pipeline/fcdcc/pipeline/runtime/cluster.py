"""The cluster of a job: a local one that the job starts, or a running one by its address."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import ssl
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.config
from dask.utils import key_split, parse_timedelta
from distributed import Client, LocalCluster, Nanny, Worker, utils
from distributed.comm.addressing import get_address_host_port
from distributed.comm.core import CommClosedError
from distributed.core import Status
from distributed.diskutils import DIR_LOCK_EXT
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from fcdcc.coding.errors import FcdccError
from fcdcc.storage.regular_files import open_regular

from ..anyk.queries import cluster_workers, worker_pids
from ..errors import ClusterError, ClusterLostError, SchedulerUnreachableError, full_line
from ..monitoring.dashboard.on_demand import DashboardOnDemand
from ..monitoring.stragglers import WorkerView
from ..options import SCHEDULER_FILE, JobConfig
from ..planner.cost.known_workers import local_worker_count
from ..worker.executable_plugin import SILENT_SECONDS
from .fork_server import METHOD, start_fork_server, uses_fork_server
from .main_guard import ADVICE, script_line
from .worker_versions import check_versions

logger = logging.getLogger(__name__)

DASK_SETTINGS = {
    # Dask's default of 30 s is too long for a worker that fetches from a peer that has stopped.
    "distributed.comm.timeouts.connect": "10s",
    # Dask ends the nanny of a lost worker after 15 s; on a busy machine the nanny needs longer to
    # start a replacement, which would end with it.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}
"""Configuration of Dask for the time that a job uses a cluster."""

LOCAL_TIMERS = {
    # Each setting with Dask's default, and with what a local cluster has instead.
    "distributed.worker.profile.interval": ("10ms", "100ms"),
    "distributed.admin.tick.interval": ("20ms", "200ms"),
    "distributed.admin.system-monitor.interval": ("500ms", "2s"),
}
"""How often Dask looks at its processes, which on one machine takes the time of its cores.

For a ResNet-50 on two workers these looks took 6 % of all CPU time. What the user has set stays.
"""

PRELOAD = [
    "fcdcc.pipeline.worker.preload",  # first, since it makes the process ignore Ctrl-C
    "fcdcc.pipeline.worker.kernels",
]
"""Modules that a local worker imports before it joins the cluster.

Importing torch takes seconds. A worker that imported it after joining would not answer
meanwhile, and on a busy machine would be taken for one that has stopped.
"""

LOOPBACK = "127.0.0.1"
"""Where a local cluster listens: nobody else can connect, who could run any code in it."""

RECONNECT_PAUSE_SECONDS = 1.0
"""Pause between two attempts to reach a scheduler, or two counts of its workers."""

MAX_STARTS = 3
"""How often the process of a worker is started that does not join the local cluster."""

START_SECONDS = 60.0
"""Time that a new worker process has to join, but for the last that is tried."""

KILL_SECONDS = 2.0
"""Time that killed worker processes have to end, and the scheduler to notice."""

KILL_POLL_SECONDS = 0.005
"""Pause between two looks at worker processes that have been killed."""

MIN_REQUEST_SECONDS = 90.0
"""Least time after which a request that the scheduler has not answered fails. Loading a model on
all workers is one request."""

MAX_CACHED_KEYS = 5_000
"""Task keys that Dask's ``key_split`` may cache; its own limit is 100,000."""

MAX_NAMED_WORKERS = 4
"""Workers that a warning names."""


def _scheduler_patience_seconds() -> float:
    """Return how long a run waits for a lost scheduler to come back, in seconds.

    Dask's configuration value ``fcdcc.scheduler-patience`` sets it; the default is two minutes.
    """
    return float(parse_timedelta(dask.config.get("fcdcc.scheduler-patience", "120s")))


@dataclass
class Cluster:
    """A connection to a scheduler, and its workers.

    Parameters
    ----------
    client
        Connected to the scheduler; :meth:`reconnect` replaces it.
    local
        The cluster that the job started on this machine; None for a running cluster.
    config
        Options of the job.
    """

    client: Client
    local: LocalCluster | None
    config: JobConfig
    names: dict[str, str] = field(default_factory=dict)
    """What Dask calls workers, by address, where that is not their address."""
    pids: dict[str, int] = field(default_factory=dict)
    """The processes of workers, by address, where they are known."""

    @property
    def workers(self) -> int:
        """Number of workers that are registered with the scheduler now."""
        return len(cluster_workers(self.client))

    def addresses(self) -> list[str]:
        """Return the addresses of the workers that accept tasks now."""
        known = cluster_workers(self.client)
        return [address for address, worker in known.items() if worker["status"] == "running"]

    @property
    def dashboard(self) -> str | None:
        """URL of the dashboard; None if it has none."""
        try:
            link: str | None = self.client.dashboard_link or None
        except KeyError:  # a scheduler without one
            return None
        kind, _, place = str(self.client.scheduler_info(n_workers=0)["address"]).partition("://")
        listens = loopback_unless_given(self.config.dashboard_address).rpartition(":")[0]
        everywhere = "0.0.0.0"  # noqa: S104 - it is only compared with: nothing listens there
        if link is None or kind != "inproc" or self.local is None or listens == everywhere:
            return link
        # Dask names the host of the scheduler, which listens nowhere if it is in this process.
        return link.replace(f"//{place.partition('/')[0]}:", f"//{listens}:", 1)

    @property
    def page(self) -> str | None:
        """URL of the page ``/fcdcc`` of the dashboard; None if it has none."""
        found = self.dashboard
        return None if found is None else found.removesuffix("/status") + "/fcdcc"

    def reconnect(self, workers: int) -> None:
        """Connect to the scheduler again once it is back, and wait for this many workers.

        When the scheduler patience is over, fewer workers suffice.

        Raises
        ------
        ClusterLostError
            If the cluster is a local one, or the scheduler does not come back in time.
        """
        if self.local is not None:
            raise ClusterLostError("the local cluster is gone; run again to continue")
        patience = _scheduler_patience_seconds()
        logger.warning(
            "waiting up to %.0f s for the scheduler at %s to come back",
            patience, self.config.scheduler,
        )  # fmt: skip
        deadline = time.monotonic() + patience
        _close(self.client)
        while True:
            try:
                self.client = _connect(self.config)
                break
            except ClusterError as error:
                if time.monotonic() > deadline:
                    raise ClusterLostError(
                        f"{error}; it answered before: run again to continue when it is back"
                    ) from error
            time.sleep(RECONNECT_PAUSE_SECONDS)
        with translate_connection_loss(self.client):
            there = self.workers
            if there < workers:
                logger.warning(
                    "the scheduler is back with %d of %d workers: waiting up to %.0f s for the "
                    "others", there, workers, deadline - time.monotonic(),
                )  # fmt: skip
            while self.workers < workers and time.monotonic() < deadline:
                time.sleep(RECONNECT_PAUSE_SECONDS)

    def trim_key_cache(self) -> None:
        """Clear Dask's cache of task keys when it is large; only for a local scheduler.

        Dask caches the keys of the last 100,000 tasks, about 30 MB, without benefit here: the
        keys of one block never occur again.
        """
        if self.local is not None and key_split.cache_info().currsize > MAX_CACHED_KEYS:
            key_split.cache_clear()

    def replace_workers(self, addresses: Iterable[str]) -> None:
        """Replace workers of a local cluster that the scheduler has removed.

        A worker that was removed because it was silent never comes back by itself. This kills
        its process, and its nanny starts another.
        """
        removed = set(addresses)
        loop = self.client.loop
        if self.local is None or loop is None or not removed:
            return
        for nanny in self.local.workers.values():
            if isinstance(nanny, Nanny) and nanny.worker_address in removed:
                process = nanny.process
                if process is not None and process.process is not None:
                    logger.warning(
                        "replacing worker %s, which does not answer", nanny.worker_address
                    )
                    loop.add_callback(process.process.kill)

    def note_names(self) -> None:
        """Remember the workers' names and processes: the scheduler forgets those that are gone.

        They are needed for :meth:`warn_of_removed`.
        """
        known = cluster_workers(self.client)
        self.pids |= worker_pids(self.client, known)
        for address, worker in known.items():
            name = str(worker.get("name", address))
            if name != address:
                self.names[address] = name

    def warn_of_silent(self, silent: Mapping[str, float], *, at_start: bool = True) -> None:
        """Warn of workers that do not answer, in one line.

        With ``at_start``, none of them has work yet, and the run begins without them.

        Parameters
        ----------
        silent
            How many seconds ago each of them was heard of, by their addresses.
        """
        if not silent:
            return
        first = sorted(silent)[:MAX_NAMED_WORKERS]
        known, pids = cluster_workers(self.client), worker_pids(self.client, first)
        named = []
        for address in first:
            name = str(known.get(address, {}).get("name", address))
            name = "" if name == address else name
            named.append(WorkerView(address, name=name, pid=pids.get(address, 0)).called)
        more = len(silent) - len(named)
        names = ", ".join(named) + (f" and {more:,} more" if more else "")
        seconds = max(silent.values())
        if not at_start:
            which = "worker %s has not answered for"
            if len(silent) > 1:
                which = "workers %s have not answered for up to"
            logger.warning(
                f"{which} %.1f s: others are preferred, and compute again what is needed and does "
                "not come", names, seconds,
            )  # fmt: skip
        elif seconds <= SILENT_SECONDS:
            logger.warning(
                "the model could not be sent yet to %s: the run begins all the same", names
            )
        elif len(silent) == 1:
            logger.warning(
                "worker %s has not answered for %.1f s: the run begins all the same. Others "
                "compute what it is given, and it takes part once it answers",
                names, seconds,
            )  # fmt: skip
        else:
            logger.warning(
                "workers %s have not answered for up to %.1f s: the run begins all the same. "
                "Others compute what they are given, and they take part once they answer",
                names, seconds,
            )  # fmt: skip

    def warn_of_removed(self, addresses: Sequence[str]) -> None:
        """Warn of workers of a running cluster that the scheduler has removed, in one line.

        Those of a local cluster are replaced, which says so.
        """
        if self.local is not None or not addresses:
            return
        named = [
            WorkerView(
                address, name=self.names.get(address, ""), pid=self.pids.get(address, 0)
            ).called
            for address in addresses[:MAX_NAMED_WORKERS]
        ]
        more = len(addresses) - len(named)
        names = ", ".join(named) + (f" and {more:,} more" if more else "")
        if len(addresses) == 1:
            logger.warning(
                "worker %s does not answer and was removed: others compute what it had, and it "
                "ends if it answers again", names,
            )  # fmt: skip
        else:
            logger.warning(
                "workers %s do not answer and were removed: others compute what they had, and they "
                "end if they answer again", names,
            )  # fmt: skip


def opening_in_words(config: JobConfig) -> str:
    """Return what :func:`open_cluster` does for a job, as a step of the run."""
    return f"{'starting' if config.scheduler is None else 'connecting to'} the cluster"


@contextmanager
def open_cluster(config: JobConfig) -> Iterator[Cluster]:
    """Connect to the scheduler that the options name, or start a local cluster.

    A local cluster is closed at the end; a running cluster keeps running.

    Raises
    ------
    ClusterError
        If the scheduler does not answer, or workers have another version of this package.
    """
    with dask.config.set(DASK_SETTINGS):
        if config.scheduler is None:
            with (
                dask.config.set({**_start_method(config), **_local_timers()}),
                _silenced_dask_loggers(),
                _local_cluster(config) as local,
                Client(local, set_as_default=False) as client,
            ):
                yield Cluster(client, local, config)
        else:
            cluster = Cluster(_connect(config), None, config)
            try:
                check_versions(cluster.client)
                yield cluster
            finally:
                _close(cluster.client)


@contextmanager
def cluster_started_early(config: JobConfig) -> Iterator[Callable[[JobConfig], Cluster]]:
    """Start a job's local cluster in a thread, while this thread goes on, and close it at the end.

    The function that this yields waits for the cluster and returns it. It takes the options as the
    plan has changed them: if these want another number of workers than the first ones did, the
    cluster is replaced. It raises what :func:`open_cluster` raises.
    """
    with ExitStack() as opened, ThreadPoolExecutor(1, "start of the cluster") as thread:
        started = thread.submit(opened.enter_context, open_cluster(config))

        def cluster(planned: JobConfig) -> Cluster:
            found = started.result()
            if local_worker_count(planned) == local_worker_count(config):
                return found
            opened.close()
            return opened.enter_context(open_cluster(planned))

        yield cluster


def is_connection_loss(client: Client, error: Exception) -> bool:
    """Return whether an error means that the connection to the scheduler is lost."""
    return client.status != "running" or isinstance(error, CommClosedError | TimeoutError)


@contextmanager
def translate_connection_loss(client: Client) -> Iterator[None]:
    """Raise ClusterLostError in place of any error of Dask that means a lost scheduler."""
    try:
        yield
    except FcdccError:
        raise
    except Exception as error:
        if not is_connection_loss(client, error):
            raise
        raise ClusterLostError(
            f"the scheduler went away ({type(error).__name__}); run again to continue when it is "
            "back"
        ) from error


@contextmanager
def _silenced_dask_loggers() -> Iterator[None]:
    """Keep messages of the local scheduler about its workers off the terminal.

    Dask's ``silence_logs`` does that in worker processes. In this process it would change the
    levels of handlers that other code may have installed, so this changes the levels of Dask's
    loggers instead.
    """
    loggers = [logging.getLogger(name) for name in ("distributed", "bokeh")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class PlainNanny(Nanny):
    """Starts a worker without pages of its own, for which every worker would import bokeh.

    A worker process that ends while it starts, or does not get ready in time, is replaced; Dask
    would give up the whole cluster, or wait for ever.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "dashboard": False})

    async def instantiate(self) -> Status:
        """Start the worker process and wait until it has joined the cluster."""
        attempts = MAX_STARTS if self.status in (Status.init, Status.starting) else 1
        for _ in range(attempts - 1):
            with suppress(TimeoutError):
                if await asyncio.wait_for(super().instantiate(), START_SECONDS) == Status.running:
                    return Status.running
            found, self.process = self.process, None
            if found is not None and found.process is not None:
                with suppress(ValueError):  # it has ended meanwhile
                    await found.process.kill()
        return await super().instantiate()


class PlainWorker(Worker):
    """A worker in this process without pages of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "dashboard": False})


class SteadyLocalCluster(LocalCluster):
    """A local cluster that survives the loss of a worker that has only just joined.

    ``LocalCluster`` may be notified that such a worker is removed without having been notified
    that it was added. It then stops following its workers, and raises ``KeyError`` when closed.
    """

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op != "remove" or msg in self.scheduler_info["workers"]:
            super()._update_worker_status(op, msg)  # type: ignore[no-untyped-call] # no types


@contextmanager
def _local_cluster(config: JobConfig) -> Iterator[LocalCluster]:
    """Start a cluster on this machine and close it; not closing in time is only a warning."""
    cluster = _start_local(config)
    try:
        yield cluster
    finally:
        try:
            cluster.sync(_kill_workers, cluster)
            cluster.close()
        except TimeoutError:
            logger.warning(
                "the local cluster did not close in time; it ends when this process does"
            )


async def _kill_workers(cluster: LocalCluster) -> None:
    """Kill the worker processes of a cluster, and wait until its scheduler has noticed.

    Whoever closes a cluster needs nothing of its workers any more. Each of them would hand over its
    results and close its connections, and one that is stopped would answer only after seconds.
    """
    nannies = [worker for worker in cluster.workers.values() if isinstance(worker, Nanny)]
    deadline = time.monotonic() + KILL_SECONDS
    folders = []
    for nanny in nannies:
        nanny.close_gracefully()  # it starts no other worker
        folders.append(nanny.worker_dir)
        process = nanny.process
        if process is not None and process.process is not None:
            with suppress(ValueError):  # it has ended meanwhile
                await process.process.kill()
    while any(map(Nanny.is_alive, nannies)) or (nannies and cluster.scheduler_info["workers"]):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(KILL_POLL_SECONDS)
    for folder in filter(None, folders):  # Dask removes these itself if a worker ends in order
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder + DIR_LOCK_EXT).unlink(missing_ok=True)


def _start_method(config: JobConfig) -> dict[str, str]:
    """Return Dask's setting for how worker processes start; empty to leave Dask's default."""
    if not uses_fork_server(config):
        return {}
    return {"distributed.worker.multiprocessing-method": METHOD}


def _local_timers() -> dict[str, str]:
    """Return the timers of a local cluster, but for those that the user has set."""
    return {
        name: ours for name, (default, ours) in LOCAL_TIMERS.items()
        if dask.config.get(name) == default
    }  # fmt: skip


def _start_local(config: JobConfig) -> LocalCluster:
    """Start a cluster on this machine, with its dashboard on the next free port."""
    if uses_fork_server(config):
        # Dask would choose other modules for the server, and import all of them here.
        utils._forkserver_preload_set = True
        start_fork_server()
    address = loopback_unless_given(config.dashboard_address)
    handlers = [h for name in ("distributed", "bokeh") for h in logging.getLogger(name).handlers]
    levels = [handler.level for handler in handlers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
        try:
            cluster = SteadyLocalCluster(  # type: ignore[no-untyped-call] # no types
                n_workers=local_worker_count(config),
                processes=config.processes,
                worker_class=PlainNanny if config.processes else PlainWorker,
                scheduler_kwargs={"dashboard": False},  # see DashboardOnDemand
                threads_per_worker=config.threads_per_worker,
                dashboard_address=address,
                worker_dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.CRITICAL,
                preload=PRELOAD,
                # A worker compares its limit with the memory of its process, which threads share.
                memory_limit="auto" if config.processes else MEMORY_LIMIT,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"no local cluster can be started with its dashboard at {address}: "
                f"{_causes(error)}; look at --dashboard-address and --workers{_guard_advice()}"
            ) from error
    for handler, level in zip(handlers, levels, strict=True):
        handler.setLevel(level)
    if cluster.scheduler is not None:  # which it is, in this process
        DashboardOnDemand(cluster.scheduler)
    return cluster


def _guard_advice() -> str:
    """Return what else may be wrong if worker processes of a script do not start."""
    return "" if script_line() is None else f". If they run this script again, {ADVICE}"


class _PatientClient(Client):
    """A client whose requests fail if the scheduler does not answer them for long.

    The connection to a scheduler that has stopped stays open, so a request would never end. After
    the scheduler patience, and at least :data:`MIN_REQUEST_SECONDS`, it raises TimeoutError.
    Connecting ends after twice Dask's time limit for connections: a stopped scheduler accepts
    connections and then says nothing, which for Dask has no limit.
    """

    async def _ensure_connected(self, timeout: float | None = None) -> None:
        connecting = super()._ensure_connected(timeout=timeout)  # type: ignore[no-untyped-call] # no types
        try:
            await asyncio.wait_for(connecting, None if timeout is None else 2 * timeout)
        except TimeoutError as error:
            raise TimeoutError(str(error) or "it accepts connections and does not answer") from None

    def sync(
        self,
        func: Any,
        *args: Any,
        asynchronous: bool | None = None,
        callback_timeout: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Call ``func`` in the event loop and return its result, as Dask does."""
        if callback_timeout is None:
            callback_timeout = max(MIN_REQUEST_SECONDS, _scheduler_patience_seconds())
        return super().sync(  # type: ignore[no-untyped-call] # no types
            func, *args, asynchronous=asynchronous, callback_timeout=callback_timeout, **kwargs
        )


def loopback_unless_given(address: str) -> str:
    """Return HOST:PORT for the dashboard: without a host, that of this machine alone.

    >>> loopback_unless_given(":8787"), loopback_unless_given("0.0.0.0:8787")
    ('127.0.0.1:8787', '0.0.0.0:8787')
    """
    host, _, port = address.rpartition(":")
    return f"{host or LOOPBACK}:{port}"


def _causes(error: BaseException) -> str:
    """Return an error and those that caused it, in one line: Dask's own names no reason."""
    found = [full_line(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        found.append(full_line(error))
    return ", because of ".join(found)


def _connect(config: JobConfig) -> Client:
    """Return a client of the scheduler that the options name.

    Raises
    ------
    SchedulerUnreachableError
        If it does not answer.
    ClusterError
        If the address, or a certificate or key, cannot be used.
    """
    security: Security | None = None
    if config.tls_ca_file is not None:
        _check_files(config.tls_ca_file, config.tls_cert, config.tls_key)
        security = Security(
            tls_ca_file=config.tls_ca_file,
            tls_client_cert=config.tls_cert,
            tls_client_key=config.tls_key,
            require_encryption=True,
        )
    address = _address(str(config.scheduler))
    try:
        if address.startswith("tls:"):
            _check_certificates(security or Security())
        if not address.startswith("inproc:"):
            # Client() with an invalid address would warn later, when it is garbage-collected.
            get_address_host_port(address)
        return _PatientClient(  # type: ignore[no-untyped-call] # no types
            address, security=security, set_as_default=False
        )
    except (OSError, ValueError) as error:
        kind = SchedulerUnreachableError if _may_pass(error) else ClusterError
        raise kind(
            f"no Dask scheduler answers at {address}: {error}; expected an address such as "
            "tcp://host:8786 of one that is running"
        ) from error


def _may_pass(error: BaseException) -> bool:
    """Return whether a later try to connect may succeed, with the same address and certificates."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, (ValueError, FileNotFoundError, PermissionError, ssl.SSLError)):
            return False
        found = found.__cause__
    return True


def _address(scheduler: str) -> str:
    """Return the address of a scheduler that is named by its address or by its scheduler file.

    Raises
    ------
    ClusterError
        If the scheduler file cannot be read.
    """
    if not scheduler.endswith(SCHEDULER_FILE):
        return scheduler
    try:
        return str(json.loads(Path(scheduler).read_text("utf-8"))["address"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ClusterError(
            f"--scheduler {scheduler} cannot be read ({type(error).__name__}: {error}); expected "
            "the file that dask scheduler --scheduler-file writes, or an address such as "
            "tcp://host:8786"
        ) from error


def _check_files(*paths: str | None) -> None:
    """Check that files of certificates can be opened, and that they end.

    Raises
    ------
    ClusterError
        If one cannot be opened, or is a device or a pipe.
    """
    for path in paths:
        try:
            open_regular(str(path)).close()
        except OSError as error:
            raise ClusterError(
                f"the certificate or key {path} cannot be read: {error.strerror or error}"
            ) from error


def _check_certificates(security: Security) -> None:
    """Check that there are TLS certificates, and that they can be read.

    Raises
    ------
    ValueError
        If no certificates are configured.
    OSError
        If they cannot be read.
    """
    if security.get_connection_args("client")["ssl_context"] is None:
        raise ValueError(
            "it uses TLS and no certificate was given: give --tls-ca-file, --tls-cert and "
            "--tls-key, or set them in Dask's configuration"
        )


def _close(client: Client) -> None:
    """Close a client without errors or log messages, even if its scheduler is gone."""
    logs = logging.getLogger("distributed.client")
    level = logs.level
    logs.setLevel(logging.CRITICAL)
    try:
        with suppress(OSError, AssertionError):
            client.close(timeout=5)
    finally:
        logs.setLevel(level)
