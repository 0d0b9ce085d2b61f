"""Stopping worker processes on purpose, and leaving none behind.

A process that gets SIGSTOP is the nastiest kind of straggler: it computes nothing, answers
nothing and keeps its connections open, so nobody is told that it is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, cast

import psutil
from distributed import Client

from ..anyk import anyk_report
from ..monitoring.progress import Quiet, RunProgress
from ..runtime.cluster import Cluster
from .timeline import Fault, ShareSpan, Timeline


class Names:
    """Short names for workers: ``worker 0``, ``worker 1``, … in the order they are met.

    >>> names = Names(["tcp://127.0.0.1:4001", "tcp://127.0.0.1:4002"])
    >>> names["tcp://127.0.0.1:4002"], names["tcp://127.0.0.1:9999"]
    ('worker 1', 'worker 2')
    """

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        for address in addresses:
            self[address]

    def __getitem__(self, address: str) -> str:
        """Return the name of a worker, a new one if it was not met before."""
        return self._names.setdefault(address, f"worker {len(self._names)}")

    def __contains__(self, address: object) -> bool:
        """Return whether a worker was met."""
        return address in self._names


class RunWatcher(Quiet):
    """Follows one run, and stops workers when enough blocks are done.

    Workers that the run gives up are replaced, as a run on a local cluster of its own does.

    Parameters
    ----------
    cluster
        On which the run takes place.
    names
        Of its workers.
    on_advance
        Called whenever the run tells how far it is.
    stopper
        Stops workers; None for nobody.
    stop_after
        Blocks that are done before.
    """

    def __init__(
        self,
        cluster: Cluster,
        names: Names,
        on_advance: Callable[[RunProgress], None],
        stopper: Stopper | None = None,
        stop_after: int = 1,
    ) -> None:
        self._cluster = cluster
        self._names = names
        self._on_advance = on_advance
        self._stopper = stopper
        self._stop_after = stop_after
        self._run = ""
        self._start = time.time()
        self._blocks: list[float] = []
        self._faults: list[Fault] = []
        self._replaced: set[str] = set()

    def begin(self, run: str) -> None:
        """Note which run it is, and when it began."""
        self._run = run
        self._start = time.time()

    def advance(self, advance: RunProgress) -> None:
        """Note how far the run is, and stop or replace workers."""
        self._blocks += [time.time()] * (advance.blocks_done - len(self._blocks))
        if self._stopper is not None:
            if advance.blocks_done >= self._stop_after:
                self._stopper.stop()
            if self._stopper.faults:
                self._follow_workers()
        self._on_advance(advance)

    def _follow_workers(self) -> None:
        """Replace workers that were given up, and note those that join."""
        client = self._cluster.client
        removed = anyk_report(client, self._run, timeline=False)["workers_removed"]
        fresh = set(removed) - self._replaced
        self._replaced |= fresh
        self._cluster.replace_workers(fresh)
        for address in client.scheduler_info(n_workers=-1)["workers"]:
            if address not in self._names:
                self._faults.append(Fault(self._names[address], time.time(), "joined"))

    def timeline(self) -> Timeline:
        """Return what happened, when the run is over."""
        report = anyk_report(self._cluster.client, self._run)
        gone = [
            Fault(self._names[event["worker"]], event["time"], _GONE[event["event"]])
            for event in report["events"]
            if event["event"] in _GONE
        ]
        stopped = self._stopper.faults if self._stopper is not None else ()
        return Timeline(
            shares=share_spans(report["timeline"], self._names),
            faults=(*stopped, *gone, *self._faults),
            start=self._start,
            stop=max([self._start, *self._blocks]),
            blocks=tuple(self._blocks),
        )


_GONE: Mapping[str, Literal["removed", "lost"]] = {"removed": "removed", "lost": "lost"}

_STATES: Mapping[str, Literal["done", "erased", "lost"]] = {
    "done": "done",
    "erased": "erased",
    "lost": "lost",
    "erred": "lost",
}


def share_spans(records: Sequence[Mapping[str, Any]], names: Names) -> tuple[ShareSpan, ...]:
    """Return the any-k plugin's records of shares as spans of named workers."""
    return tuple(
        ShareSpan(
            worker=names[record["worker"]],
            layer=record["layer"],
            block=record["block"],
            position=record["position"],
            start=record["start"],
            # Clocks of two processes need not agree to the last microsecond.
            stop=max(record["start"], record["stop"]),
            state=_STATES[record["state"]],
        )
        for record in records
    )


def worker_processes(client: Client) -> dict[str, psutil.Process]:
    """Return the process of each worker of a cluster on this machine, by the worker's address."""
    pids = cast("Mapping[str, int]", client.run(os.getpid))
    return {address: psutil.Process(pid) for address, pid in pids.items()}


class Stopper:
    """Stops some processes when it is told to, and ends them when it is left.

    A context: whatever happens inside, Ctrl-C included, no stopped process stays behind.

    Parameters
    ----------
    processes
        By name; a :class:`psutil.Process` is not mistaken for a later one of the same number.
    clock
        Gives the moments of the faults, in seconds.
    """

    def __init__(
        self, processes: Mapping[str, psutil.Process], clock: Callable[[], float] = time.time
    ) -> None:
        self._processes = dict(processes)
        self._clock = clock
        self._faults: list[Fault] = []

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What has been done so far, by the names of the processes."""
        return tuple(self._faults)

    def stop(self) -> None:
        """Stop the processes, once; those that have ended meanwhile are left out."""
        if self._faults:
            return
        for name, process in self._processes.items():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
                self._faults.append(Fault(name, self._clock(), "stopped"))

    def end(self) -> None:
        """End what was stopped: a stopped process obeys nothing but SIGKILL."""
        for fault in self._faults:
            with suppress(psutil.NoSuchProcess):
                self._processes[fault.worker].kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
