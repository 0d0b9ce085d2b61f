"""What is known of the workers that a plan is for: how many, how large and how fast.

They are described by a scheduler, or by the options of a job before its local cluster is started.
Measured speeds are kept in a file of the user, for later plans. It is ``calibration.json`` in the
folder ``fcdcc`` of the user's caches (``$XDG_CACHE_HOME``, else ``~/.cache``), or what Dask's
configuration value ``fcdcc.calibration-file`` names. It has an entry for every cluster: the
scheduler's address, or, for clusters on this machine, its name and how the workers were started. If
it is lost, speeds can be measured again.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dask.config
import dask.system
import distributed.system
from distributed import Client
from pydantic import TypeAdapter, ValidationError

from fcdcc.storage.regular_files import read_text

from ...anyk.queries import scheduler_identity
from ...options import AUTO, JobConfig
from ...plans.forecast import DEFAULTS, Speeds, WorkerPool, on_this_machine

logger = logging.getLogger(__name__)

CALIBRATION_FORMAT = 2
"""The version of the file; others are not read."""

MIN_WORKER_BYTES = 2**29
"""Memory that a local worker process needs at least: PyTorch, Dask, and room for values."""

EXPECTED_WORKERS = 6
"""Workers that a plan is made for if a scheduler has none yet, and n is ``auto``."""

MAX_CLUSTERS_KEPT = 100
"""Most clusters in the file; the latest measured are kept."""

MAX_FILE_BYTES = 2**20

START_AND_END_SECONDS = 2.9
"""Seconds that ``fcdcc run`` takes beside its work, without those for the workers."""

SECONDS_PER_WORKER = 0.3
"""Seconds by which each worker of a local cluster makes the start longer. Whole commands on two
cores took 3.5 to 3.9 seconds more than their work (``benchmarks/peers.py``)."""


@dataclass(frozen=True)
class KnownWorkers:
    """Workers, and the name that their speeds are kept under.

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
    may_be_fewer
        Whether fewer may be started, each with more memory, if a plan needs that.
    """

    workers: WorkerPool
    name: str
    here: bool
    measured: Speeds | None = None
    may_be_fewer: bool = False

    def with_memory(self, needed: float) -> KnownWorkers | None:
        """Return fewer of these workers, as many as may have so many bytes each.

        None if there may not be fewer of them.
        """
        pool = self.workers
        if not self.may_be_fewer or pool.count == 1:
            return None
        most = pool.count // 2 if pool.in_one_process else int(_memory_of_machine() / needed)
        count = max(1, min(most, pool.count - 1))
        return replace(self, workers=replace(pool, count=count, memory=_share_of_machine(count)))

    def with_speeds(self, speeds: Speeds) -> KnownWorkers:
        """Return the workers with speeds that were measured just now."""
        return replace(self, measured=speeds)

    def speeds(self) -> Speeds:
        """Return the speeds that were measured on them before, else the defaults."""
        found = self.measured or read_speeds(self.name)
        if found is not None:
            return found
        places = self.workers.count * self.workers.slots
        if self.here:
            return on_this_machine(places)
        return replace(DEFAULTS, parallel=float(places))


def local_worker_count(config: JobConfig) -> int:
    """Return how many workers the local cluster of a job has at most.

    As many as the options say; else as many as this process has cores for, if each of them has the
    memory that it needs at least.
    """
    if config.workers is not None:
        return config.workers
    cores = dask.system.CPU_COUNT // (config.threads_per_worker * config.torch_threads)
    if config.processes:
        needed = config.memory or MIN_WORKER_BYTES
        cores = min(cores, _memory_of_machine() // needed)
    return max(1, cores)


def start_and_end_seconds(config: JobConfig) -> float:
    """Return about how many seconds a job takes before its first image and after its last one.

    Modules are imported, the plan is made and a local cluster is started, if there is none.
    """
    if config.scheduler is not None:
        return START_AND_END_SECONDS
    return START_AND_END_SECONDS + SECONDS_PER_WORKER * local_worker_count(config)


def workers_of_options(config: JobConfig) -> KnownWorkers:
    """Return the workers of the local cluster that a job will start.

    With ``scheduler``, those that are expected there as long as it has none.
    """
    if config.scheduler is None:
        count = local_worker_count(config)
    else:
        count = config.workers or (EXPECTED_WORKERS if config.n == AUTO else config.n)
    workers = WorkerPool(
        count,
        config.threads_per_worker,
        memory=_share_of_machine(count),
        in_one_process=not config.processes,
    )
    is_open = config.scheduler is None and config.workers is None and config.memory is None
    name = _name_here(workers, config.torch_threads)
    return KnownWorkers(workers, name, here=True, may_be_fewer=is_open)


def workers_of_client(client: Client, torch_threads: int = 1) -> KnownWorkers | None:
    """Return the workers that a scheduler has now; None where there are none."""
    info = scheduler_identity(client)
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
    """Return the bytes that each worker may use if all of them share this machine.

    Dask's own limits of local workers may add up to more than its memory.
    """
    return _memory_of_machine() // workers


def _memory_of_machine() -> int:
    """Return the bytes of this machine, or of the container that this process is in."""
    return int(distributed.system.MEMORY_LIMIT)


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


# ------------------------------------------------------------- measured speeds

SPEEDS_SAVED = "the measured speeds are saved in %s, for later plans with as many workers"
"""What is said of the file of measured speeds."""


def calibration_file() -> Path:
    """Return where speeds are kept."""
    own = dask.config.get("fcdcc.calibration-file", None)
    if own:
        return Path(own).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    folder = Path(caches) if caches else Path.home() / ".cache"
    return folder / "fcdcc" / "calibration.json"


def read_speeds(cluster: str) -> Speeds | None:
    """Return the speeds that were measured on a cluster; None where none were.

    A file that cannot be read is logged and ignored.
    """
    entry = _entries().get(cluster)
    if entry is None:
        return None
    try:
        return TypeAdapter(Speeds).validate_python(entry["speeds"])
    except (ValidationError, KeyError, TypeError):
        _warn_unusable(calibration_file(), f"its entry for {cluster} is not complete")
        return None


def save_speeds(cluster: str, speeds: Speeds) -> Path:
    """Keep the speeds of a cluster, and return the file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    file = calibration_file()
    entries = _entries()
    entries[cluster] = {"measured": time.time(), "speeds": asdict(speeds)}
    latest = sorted(entries, key=lambda name: -_measured_at(entries[name]))[:MAX_CLUSTERS_KEPT]
    text = json.dumps(
        {"format": CALIBRATION_FORMAT, "clusters": {n: entries[n] for n in latest}}, indent=2
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(file)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return file


def _measured_at(entry: Any) -> float:
    found = entry.get("measured") if isinstance(entry, dict) else None
    return float(found) if isinstance(found, int | float) else 0.0


def _entries() -> dict[str, Any]:
    """Return what is in the file; nothing if it is not there or cannot be used."""
    file = calibration_file()
    try:
        content = json.loads(read_text(file, MAX_FILE_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError, ValueError) as error:
        _warn_unusable(file, str(error))
        return {}
    if not isinstance(content, dict) or content.get("format") != CALIBRATION_FORMAT:
        _warn_unusable(file, f"expected format {CALIBRATION_FORMAT}")
        return {}
    entries = content.get("clusters")
    return entries if isinstance(entries, dict) else {}


def _warn_unusable(file: Path, why: str) -> None:
    logger.warning(
        "the measured speeds in %s cannot be used (%s): default ones are taken; --calibrate "
        "measures again", file, " ".join(why.split()),
    )  # fmt: skip
