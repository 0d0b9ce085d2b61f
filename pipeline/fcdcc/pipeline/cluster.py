"""The cluster of a job: one of its own on this machine, or a running one by its address."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

import dask.config
from distributed import Client, LocalCluster, Nanny
from distributed.security import Security

from .errors import ClusterError
from .options import JobConfig

__all__ = ["Cluster", "open_cluster"]

logger = logging.getLogger(__name__)

SETTINGS = {
    # A worker that is told about a peer which has stopped must not wait half a minute for it.
    "distributed.comm.timeouts.connect": "10s",
    # On a busy machine a replaced worker is back later than the 15 s after which Dask would
    # end its nanny, and the fresh worker with it.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}

PRELOAD = ["fcdcc.pipeline.worker_process", "fcdcc.pipeline.kernels"]
"""What a worker imports before it joins. Importing torch takes seconds, in which a worker that
has joined answers nobody and, on a busy machine, is taken for one that has stopped."""


@dataclass(frozen=True)
class Cluster:
    """A client and, where the cluster is ours, the cluster."""

    client: Client
    local: LocalCluster | None

    @property
    def workers(self) -> int:
        """Number of workers that the scheduler knows now."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    @property
    def dashboard(self) -> str | None:
        """Address of the dashboard, if it is there."""
        return self.client.dashboard_link or None

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
                _start_local(config) as local,
                Client(local, set_as_default=False) as client,
            ):
                yield Cluster(client, cast("LocalCluster", local))
        else:
            with _connect(config) as client:
                yield Cluster(client, None)


def _start_local(config: JobConfig) -> LocalCluster:
    """Start a cluster on this machine, with its dashboard on the next free port."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
        return LocalCluster(
            n_workers=config.workers or config.n,
            processes=config.processes,
            threads_per_worker=config.threads_per_worker,
            dashboard_address=config.dashboard_address,
            silence_logs=logging.CRITICAL,
            preload=PRELOAD,
        )


@contextmanager
def _connect(config: JobConfig) -> Iterator[Client]:
    security: Security | None = None
    if config.tls_ca_file is not None:
        security = Security(
            tls_ca_file=config.tls_ca_file,
            tls_client_cert=config.tls_cert,
            tls_client_key=config.tls_key,
            require_encryption=True,
        )
    try:
        client = Client(config.scheduler, security=security, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {config.scheduler}: {error}; expected an address such "
            "as tcp://host:8786 of one that is running"
        ) from error
    try:
        yield client
    finally:
        with suppress(OSError):
            client.close()
