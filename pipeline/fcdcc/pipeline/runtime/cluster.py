"""The cluster of a job: one of its own on this machine, or a running one by its address."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import dask.config
from dask.utils import key_split, parse_timedelta
from distributed import Client, LocalCluster, Nanny
from distributed.comm.addressing import get_address_host_port
from distributed.comm.core import CommClosedError
from distributed.security import Security

from fcdcc.coding.errors import FcdccError

from ..errors import ClusterError, ClusterLostError
from ..options import JobConfig

logger = logging.getLogger(__name__)

SETTINGS = {
    # A worker that is told about a peer which has stopped must not wait half a minute for it.
    "distributed.comm.timeouts.connect": "10s",
    # On a busy machine a replaced worker is back later than the 15 s after which Dask would
    # end its nanny, and the fresh worker with it.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}
"""Configuration of Dask for clusters of ours."""

PRELOAD = [
    "fcdcc.pipeline.worker.ignore_sigint",
    "fcdcc.pipeline.worker_memory",
    "fcdcc.pipeline.worker.kernels",
]
"""What a worker imports before it joins. Importing torch takes seconds, in which a worker that
has joined answers nobody and, on a busy machine, is taken for one that has stopped."""

PAUSE = 1.0
"""Seconds between two tries to reach a scheduler, or two looks at its workers."""

KEYS_REMEMBERED = 5_000
"""Keys of which Dask may remember the names' first parts; it would keep the last 100,000."""


def _patience() -> float:
    """Return the seconds that a scheduler which went away is given to come back.

    The configuration value ``fcdcc.scheduler-patience`` of Dask, by default two minutes.
    """
    return float(parse_timedelta(dask.config.get("fcdcc.scheduler-patience", "120s")))


@dataclass
class Cluster:
    """A client and, where the cluster is ours, the cluster."""

    client: Client
    local: LocalCluster | None
    config: JobConfig

    @property
    def workers(self) -> int:
        """Number of workers that the scheduler knows now."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def addresses(self) -> list[str]:
        """Return the addresses of the workers that take tasks now."""
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        return [address for address, worker in known.items() if worker["status"] == "running"]

    @property
    def dashboard(self) -> str | None:
        """Address of the dashboard, if it is there."""
        return self.client.dashboard_link or None

    def reconnect(self, workers: int) -> None:
        """Wait for a scheduler that went away, and then for so many workers, and use them.

        Fewer workers will do when the time is over.

        Raises
        ------
        ClusterLostError
            If the cluster is ours, or the scheduler does not come back.
        """
        if self.local is not None:
            raise ClusterLostError("the local cluster is gone; run again to continue")
        patience = _patience()
        logger.warning(
            "waiting up to %.0f s for the scheduler at %s to come back",
            patience, self.config.scheduler,
        )  # fmt: skip
        deadline = time.monotonic() + patience
        _close(self.client)
        while True:
            try:
                self.client = _client(self.config)
                break
            except ClusterError as error:
                if time.monotonic() > deadline:
                    raise ClusterLostError(
                        f"{error}; it was there before: run again to continue when it is back"
                    ) from error
            time.sleep(PAUSE)
        with noticing_loss(self.client):
            while self.workers < workers and time.monotonic() < deadline:
                time.sleep(PAUSE)

    def tidy(self) -> None:
        """Let go of finished tasks' keys, where the scheduler is in this process.

        Dask keeps those of the last 100,000 tasks in a cache, some 30 MB, for nothing: the keys
        of a run of blocks do not come again.
        """
        if self.local is not None and key_split.cache_info().currsize > KEYS_REMEMBERED:
            key_split.cache_clear()

    def replace(self, addresses: Iterable[str]) -> None:
        """Start fresh workers in place of removed ones, where the cluster is ours.

        A worker that was removed for its silence never comes back by itself: its process is
        ended, and its nanny starts another.
        """
        gone = set(addresses)
        loop = self.client.loop
        if self.local is None or loop is None or not gone:
            return
        for nanny in self.local.workers.values():
            if isinstance(nanny, Nanny) and nanny.worker_address in gone:
                process = nanny.process
                if process is not None and process.process is not None:
                    logger.warning(
                        "replacing worker %s, which does not answer", nanny.worker_address
                    )
                    loop.add_callback(process.process.kill)


@contextmanager
def open_cluster(config: JobConfig) -> Iterator[Cluster]:
    """Connect to the scheduler that the options name, or start a local cluster.

    A local cluster is closed at the end; a running one is left as it was.

    Raises
    ------
    ClusterError
        If the scheduler does not answer.
    """
    with dask.config.set(SETTINGS):
        if config.scheduler is None:
            with (
                _quiet_dask(),
                _local_cluster(config) as local,
                Client(local, set_as_default=False) as client,
            ):
                yield Cluster(client, local, config)
        else:
            cluster = Cluster(_client(config), None, config)
            try:
                yield cluster
            finally:
                _close(cluster.client)


@contextmanager
def noticing_loss(client: Client) -> Iterator[None]:
    """Raise ClusterLostError for whatever Dask raises when its scheduler is gone."""
    try:
        yield
    except FcdccError:
        raise
    except Exception as error:
        if client.status == "running" and not isinstance(error, CommClosedError):
            raise
        raise ClusterLostError(
            f"the scheduler went away ({type(error).__name__}); run again to continue when it is "
            "back"
        ) from error


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Keep what the local scheduler has to say of its workers off the terminal.

    ``silence_logs`` does that for the workers' processes. For this one it would change the
    levels of handlers, which may be those of others, too; here the loggers' levels are.
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


class SteadyLocalCluster(LocalCluster):
    """A cluster on this machine that goes on when a worker is lost as soon as it has joined.

    Dask's then stops watching its workers, since it may hear of the loss alone, and says so with
    a ``KeyError`` when it is closed.
    """

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op != "remove" or msg in self.scheduler_info["workers"]:
            super()._update_worker_status(op, msg)  # type: ignore[no-untyped-call] # no types


@contextmanager
def _local_cluster(config: JobConfig) -> Iterator[LocalCluster]:
    """Start a cluster on this machine and close it; what does not close in time harms no run."""
    cluster = _start_local(config)
    try:
        yield cluster
    finally:
        try:
            cluster.close()
        except TimeoutError:
            logger.warning("the local cluster did not close in time: it ends with this process")


def _start_local(config: JobConfig) -> LocalCluster:
    """Start a cluster on this machine, with its dashboard on the next free port."""
    handlers = [h for name in ("distributed", "bokeh") for h in logging.getLogger(name).handlers]
    levels = [handler.level for handler in handlers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
        cluster = SteadyLocalCluster(  # type: ignore[no-untyped-call] # no types
            n_workers=config.workers or config.n,
            processes=config.processes,
            threads_per_worker=config.threads_per_worker,
            dashboard_address=config.dashboard_address,
            silence_logs=logging.CRITICAL,
            preload=PRELOAD,
        )
    for handler, level in zip(handlers, levels, strict=True):
        handler.setLevel(level)
    return cluster


def _client(config: JobConfig) -> Client:
    """Connect to the scheduler that the options name.

    Raises
    ------
    ClusterError
        If it does not answer.
    """
    security: Security | None = None
    if config.tls_ca_file is not None:
        security = Security(
            tls_ca_file=config.tls_ca_file,
            tls_client_cert=config.tls_cert,
            tls_client_key=config.tls_key,
            require_encryption=True,
        )
    address = str(config.scheduler)
    try:
        if address.startswith("tls:"):
            _check_certificates(security or Security())
        if not address.startswith("inproc:"):
            # A client made with an address that cannot be one complains when it is collected.
            get_address_host_port(address)
        return Client(address, security=security, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address}: {error}; expected an address such as "
            "tcp://host:8786 of one that is running"
        ) from error


def _check_certificates(security: Security) -> None:
    """Check that there are certificates, and that they can be read.

    Raises
    ------
    ValueError, OSError
        If not.
    """
    if security.get_connection_args("client")["ssl_context"] is None:
        raise ValueError(
            "it speaks TLS and no certificate was given: give --tls-ca-file, --tls-cert and "
            "--tls-key, or set them in Dask's configuration"
        )


def _close(client: Client) -> None:
    """Close a client, whatever has become of its scheduler, and without a word about that."""
    logs = logging.getLogger("distributed.client")
    level = logs.level
    logs.setLevel(logging.CRITICAL)
    try:
        with suppress(OSError, AssertionError):
            client.close(timeout=5)
    finally:
        logs.setLevel(level)
