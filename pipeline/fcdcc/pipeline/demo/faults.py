"""Stops worker processes on purpose, and records what happens during a run.

A process that gets SIGSTOP is the hardest kind of straggler: it computes nothing and answers
nothing, but keeps its connections open, so the scheduler does not see that it is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import psutil
from distributed import Client

from ..anyk import anyk_report
from ..anyk.queries import cluster_workers
from ..anyk.state_machine.history import ShareRecord
from ..monitoring.progress import Quiet, RunProgress
from ..runtime.cluster import Cluster
from .picture import Fault, Timeline


class WorkerNames(dict[str, str]):
    """Short names of workers by address, ``worker 0`` and so on, as reports and the page call them.

    Parameters
    ----------
    workers
        What the scheduler says of the workers of a local cluster, by address: Dask numbers them.

    Examples
    --------
    >>> names = WorkerNames({"tcp://a:1": {"name": 1}, "tcp://b:1": {"name": 0}})
    >>> names.add("tcp://c:1", {"name": 1})
    >>> names["tcp://b:1"], names["tcp://c:1"], names["tcp://d:1"]
    ('worker 0', 'worker 1 (new)', 'worker 3')
    """

    def __init__(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        for address, worker in workers.items():
            self.add(address, worker)

    def add(self, address: str, worker: Mapping[str, Any]) -> None:
        """Name a worker; one that replaces another has the same number, and is called new."""
        name = f"worker {worker['name']}"
        while name in self.values():
            name += " (new)"
        self[address] = name

    def __missing__(self, address: str) -> str:
        """Give a name to a worker that has none."""
        self[address] = f"worker {len(self)}"
        return self[address]


def worker_processes(client: Client) -> dict[str, psutil.Process]:
    """Return the process of each worker of a cluster on this machine, by the worker's address."""
    pids = cast("Mapping[str, int]", client.run(os.getpid))
    return {address: psutil.Process(pid) for address, pid in pids.items()}


class Stopper:
    """A context that can stop workers' processes, and kills the stopped ones when it ends.

    No stopped process stays behind, whatever happens inside, Ctrl-C included. ``faults`` are
    the workers that were stopped so far, and when.
    """

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = dict(processes)
        self.faults: list[Fault] = []

    def stop(self) -> None:
        """Send SIGSTOP to the processes, the first time; skip those that have ended."""
        if self.faults:
            return
        for name, process in self._processes.items():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
                self.faults.append(Fault(name, time.time(), "stopped"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A stopped process handles no signal but SIGKILL.
        for fault in self.faults:
            with suppress(psutil.NoSuchProcess):
                self._processes[fault.worker].kill()


@dataclass
class RunWatcher(Quiet):
    """Records one run, and stops workers once enough blocks are done.

    It replaces workers that the run removes, as a run does that starts its own cluster. It calls
    ``show`` with the progress of the run after every block and a few times a second.
    """

    cluster: Cluster
    names: WorkerNames
    show: Callable[[RunProgress], None]
    stopper: Stopper
    stop_after: int
    _run: str = ""
    _start: float = field(default_factory=time.time)
    _blocks: list[float] = field(default_factory=list)
    _joined: list[Fault] = field(default_factory=list)
    _replaced: set[str] = field(default_factory=set)

    def begin(self, run: str) -> None:
        """Record the run's id, and when it began."""
        self._run = run
        self._start = time.time()

    def advance(self, advance: RunProgress) -> None:
        """Record finished blocks, and stop or replace workers."""
        self._blocks += [time.time()] * (advance.blocks_done - len(self._blocks))
        if advance.blocks_done >= self.stop_after:
            self.stopper.stop()
        if self.stopper.faults:
            self._replace_workers()
        self.show(advance)

    def _replace_workers(self) -> None:
        """Replace workers that were removed, and record those that join."""
        client = self.cluster.client
        removed = set(anyk_report(client, self._run, timeline=False)["workers_removed"])
        self.cluster.replace_workers(removed - self._replaced)
        self._replaced |= removed
        for address, worker in cluster_workers(client).items():
            if address not in self.names:
                self.names.add(address, worker)
                self._joined.append(Fault(self.names[address], time.time(), "joined"))

    def timeline(self) -> Timeline:
        """Return what happened; to be called after the run."""
        report = anyk_report(self.cluster.client, self._run)
        left = [
            Fault(self.names[event["worker"]], event["time"], event["event"])
            for event in report["events"]
            if event["event"] in ("removed", "lost")
        ]
        return Timeline(
            shares=tuple(named_share(record, self.names) for record in report["timeline"]),
            faults=(*self.stopper.faults, *left, *self._joined),
            start=self._start,
            stop=max([self._start, *self._blocks]),
            blocks=tuple(self._blocks),
        )


def named_share(record: Mapping[str, Any], names: WorkerNames) -> ShareRecord:
    """Return the scheduler's record of a share with its worker's name for the address."""
    share = ShareRecord(**record)
    # The clocks of scheduler and worker may differ a little: no share ends before it starts.
    return replace(share, worker=names[share.worker], stop=max(share.start, share.stop))
