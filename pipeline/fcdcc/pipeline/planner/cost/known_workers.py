"""What is known of the workers that a plan is for: from a scheduler, or from the options."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import psutil
from distributed import Client
from distributed.system import MEMORY_LIMIT

from ...options import JobConfig
from ...plans.forecast import DEFAULTS, Speeds, WorkerPool, on_this_machine
from .calibration_file import read_speeds


@dataclass(frozen=True)
class KnownWorkers:
    """Workers, and under which name their speeds are kept.

    Parameters
    ----------
    workers
        How many, and how large.
    name
        The scheduler's address, or this machine and how workers are started on it.
    here
        Whether all of them share this machine.
    measured
        Their speeds, if they were measured just now.
    """

    workers: WorkerPool
    name: str
    here: bool
    measured: Speeds | None = None

    def with_speeds(self, speeds: Speeds) -> KnownWorkers:
        """Return the workers with speeds that were measured just now."""
        return replace(self, measured=speeds)

    def speeds(self) -> Speeds:
        """Return what was measured on them before, else the defaults."""
        found = self.measured or read_speeds(self.name)
        if found is not None:
            return found
        places = self.workers.count * self.workers.slots
        if self.here:
            return on_this_machine(places)
        return replace(DEFAULTS, parallel=float(places))


def workforce_of_options(config: JobConfig) -> KnownWorkers:
    """Return what the local cluster of a job will be, before it is started."""
    count = config.workers or config.n
    memory = _share_of_machine(count)
    workers = WorkerPool(
        count, config.threads_per_worker, memory=memory, in_one_process=not config.processes
    )
    return KnownWorkers(workers, _name_here(workers, config.torch_threads), here=True)


def workforce_of_client(client: Client, torch_threads: int = 1) -> KnownWorkers | None:
    """Return the workers that a scheduler has now; None where there are none."""
    info = client.scheduler_info(n_workers=-1)
    found: list[Mapping[str, Any]] = list(info["workers"].values())
    if not found:
        return None
    hosts = {str(worker["host"]) for worker in found}
    address = str(info["address"])
    here = address.startswith("inproc:") or all(map(_is_loopback, hosts))
    limits = [int(worker["memory_limit"]) for worker in found if worker["memory_limit"]]
    if here:
        limits.append(_share_of_machine(len(found)))
    workers = WorkerPool(
        len(found),
        min(int(worker["nthreads"]) for worker in found),
        len(hosts),
        min(limits, default=None),
        in_one_process=address.startswith("inproc:"),
    )
    name = _name_here(workers, torch_threads) if here else address
    return KnownWorkers(workers, name, here)


def _share_of_machine(workers: int) -> int:
    """Return what each worker may use where all of them share this machine.

    Dask's own limits of local workers add up to more than there is.
    """
    return min(int(MEMORY_LIMIT), int(psutil.virtual_memory().total)) // workers


def _name_here(workers: WorkerPool, torch_threads: int) -> str:
    kind = "threads" if workers.in_one_process else "processes"
    return (
        f"{socket.gethostname()}, {os.cpu_count()} cores: {workers.count} workers of "
        f"{workers.slots} as {kind}, {torch_threads} torch threads"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", socket.gethostname())
