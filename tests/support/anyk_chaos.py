"""Runs with faults at random moments, drawn by a seed: in this process, or with processes.

What runs is drawn as well: blocks of the small graphs of :mod:`anyk_graphs`, of which some
shares are slow, or the network of :mod:`small`, split by rows or images. Every run must end,
with the right answers, and leave nothing on the scheduler, in the plugin or on the workers.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import sleep
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client, Worker

from fcdcc.pipeline import Model, infer
from support.anyk_cluster import Running
from support.anyk_graphs import Kind, network, process_id
from support.network import Network

KINDS: list[Kind] = ["gathered", "parts", "parts and parity at once"]
FEWEST = 3
"""Number of workers that have no faults."""


class Target:
    """The faults that the workers of a cluster can have."""

    def __init__(self, running: Running, draw: random.Random) -> None:
        self.running = running
        self.draw = draw
        self.lost: set[str] = set()

    @property
    def workers(self) -> list[str]:
        """The workers that are there and have no lasting fault."""
        return [w for w in sorted(self.running.scheduler.workers) if w not in self.lost]

    def pick(self) -> str | None:
        """Return a worker that may have a fault, if enough others are left."""
        workers = self.workers
        return self.draw.choice(workers) if len(workers) > FEWEST else None

    def retire(self) -> None:
        worker = self.pick()
        if worker is not None:
            self.lost.add(worker)
            self.running.client.retire_workers([worker])

    def slow(self) -> None:
        worker = self.pick()
        if worker is not None:
            self.running.client.run(hold_up, seconds=1.5, workers=[worker], on_error="ignore")

    def happen(self, fault: str) -> None:
        """Cause a fault."""
        getattr(self, fault.replace(" ", "_"))()

    def repair(self) -> None:
        """Undo lasting faults; lost workers stay lost."""


class Threads(Target):
    """Workers in this process: a stopped one runs nothing and sends no heartbeats."""

    faults = ("kill", "kill", "stop", "stop", "proceed", "slow", "slow", "retire", "join")

    def __init__(self, running: Running, draw: random.Random) -> None:
        super().__init__(running, draw)
        self.stopped: dict[str, threading.Event] = {}

    def kill(self) -> None:
        worker = self.pick()
        if worker is not None:
            self.lost.add(worker)
            scheduler = self.running.scheduler
            self.running.cluster.sync(
                scheduler.remove_worker, worker, close=True, stimulus_id="handle-worker-cleanup"
            )

    def stop(self) -> None:
        address = self.pick()
        worker = self._worker(address)
        if worker is None or address is None:
            return
        self.lost.add(address)
        gate = self.stopped[address] = threading.Event()
        worker.periodic_callbacks["heartbeat"].stop()
        worker.executors["default"].submit(gate.wait)

    def proceed(self) -> None:
        for address in list(self.stopped)[:1]:
            self.stopped.pop(address).set()
            worker = self._worker(address)
            if worker is not None:
                worker.loop.add_callback(worker.periodic_callbacks["heartbeat"].start)

    def join(self) -> None:
        self.running.cluster.scale(len(self.running.scheduler.workers) + 1)

    def repair(self) -> None:
        while self.stopped:
            self.proceed()

    def _worker(self, address: str | None) -> Worker | None:
        there = self.running.cluster.workers.values()
        return next((worker for worker in there if worker.address == address), None)


class RealProcesses(Target):
    """Workers that are processes, each with a supervisor that replaces it when it ends."""

    def __init__(self, running: Running, draw: random.Random) -> None:
        super().__init__(running, draw)
        self.pids: dict[str, int] = running.client.run(process_id)
        self.stopped: list[int] = []

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def stop(self) -> None:
        pid = self._send(signal.SIGSTOP)
        if pid is not None:
            self.stopped.append(pid)

    def proceed(self) -> None:
        if self.stopped:
            with suppress(ProcessLookupError):
                os.kill(self.stopped.pop(0), signal.SIGCONT)

    def repair(self) -> None:
        for pid in self.stopped:  # its supervisor starts another
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stopped.clear()

    def _send(self, how: signal.Signals) -> int | None:
        worker = self.pick()
        if worker is None or worker not in self.pids:
            return None
        self.lost.add(worker)
        with suppress(ProcessLookupError):
            os.kill(self.pids[worker], how)
        return self.pids[worker]


class Processes(RealProcesses):
    """Worker processes of a local cluster, each with a nanny."""

    faults = ("kill", "kill", "stop", "stop", "proceed", "slow", "retire", "join")

    def __init__(self, running: Running, draw: random.Random) -> None:
        super().__init__(running, draw)
        self.retired = 0

    def retire(self) -> None:
        before = len(self.lost)
        super().retire()
        self.retired += len(self.lost) - before

    def join(self) -> None:
        if len(self.running.scheduler.workers) < 7:
            self.running.cluster.scale(len(self.running.cluster.worker_spec) + 1)

    def repair(self) -> None:
        if self.retired:  # the cluster still counts them
            self.running.cluster.scale(len(self.running.cluster.worker_spec) + self.retired)
        super().repair()


class Hosts(RealProcesses):
    """Workers on hosts of their own, whose links can be bad for some time.

    Parameters
    ----------
    running, draw
        As of all targets.
    network
        With the hosts.
    """

    faults = ("cut", "cut", "lose", "delay", "flap", "slow", "kill", "stop", "proceed")
    harmless_faults = ("cut", "lose", "delay", "flap", "slow")
    """Those during which Dask itself would run nothing twice."""

    def __init__(self, running: Running, draw: random.Random, network: Network) -> None:
        super().__init__(running, draw)
        self.network = network

    def cut(self) -> None:
        self._change(cut=self.draw.choice([0.5, 2.0, 6.0]))

    def lose(self) -> None:
        self._change(loss=self.draw.choice([0.02, 0.1]))

    def delay(self) -> None:
        self._change(delay=self.draw.choice([0.02, 0.1, 0.3]))

    def flap(self) -> None:
        seconds = self.draw.choice([0.2, 1.5])
        self._change(flap=(seconds, seconds))

    def repair(self) -> None:
        self.network.mend()
        super().repair()

    def _change(self, **how: Any) -> None:
        worker = self.pick()
        if worker is not None:
            self.lost.add(worker)
            self.network.set(self.running.scheduler.workers[worker].name, **how)


def hold_up(seconds: float, dask_worker: Worker) -> None:
    """Keep a worker's thread busy with something else for a while."""
    dask_worker.executors["default"].submit(sleep, seconds)


Check = Callable[[], None]


def abstract(draw: random.Random, client: Client) -> Check:
    """Submit blocks of graphs whose shares are sometimes slow; return the check of the answers."""
    futures: dict[int, Any] = {}
    for block in range(draw.randint(4, 12)):
        chance = draw.choice([0.0, 0.1, 0.3])
        layers, kind = draw.randint(1, 3), draw.choice(KINDS)
        graph = network(block, layers, kind, lambda chance=chance: draw.random() < chance)
        [futures[block]] = client.get(graph.tasks, graph.results, sync=False)

    def check() -> None:
        while futures:
            block, future = futures.popitem()
            assert future.result(timeout=150) == block

    return check


def real(draw: random.Random, client: Client, model: Model, expected: Any, pixels: Any) -> Check:
    """Submit the small network on images; return the check of its predictions."""
    form = {
        "split": draw.choice(["rows", "images"]),
        "redundancy": draw.choice(["eager", "standby", "standby"]),
    }
    images = da.from_array(pixels, chunks=(8, *pixels.shape[1:]), name=f"images-{draw.random()}")
    [future] = client.compute([infer(model, images, n=6, tolerate=2, batch=8, **form).data])
    kept = [future]
    del future

    def check() -> None:
        made = kept.pop().result(timeout=150)
        assert np.linalg.norm(made - expected) < 1e-4 * np.linalg.norm(expected)

    return check


def run_with_faults(target: Target, faults: Iterable[str], check: Check) -> list[str]:
    """Cause one to three faults at random moments; check results and that nothing is left."""
    draw, running = target.draw, target.running
    happened = []
    try:
        for _ in range(draw.randint(1, 3)):
            sleep(draw.random() * 0.5)  # a random moment
            happened.append(draw.choice(list(faults)))
            target.happen(happened[-1])
        check()
    finally:
        target.repair()
    running.wait_until_empty()
    running.wait_until(lambda: not left(running), "no worker holds or runs anything", 120)
    running.check(losses=True)
    return happened


def left(running: Running) -> dict[str, Any]:
    """Return what is left in the memory of the workers that are there."""
    try:
        found = running.client.run(what_is_left, on_error="ignore")
    except (OSError, TimeoutError):
        return {"": "a worker was leaving"}
    return {address: keys for address, keys in found.items() if keys}


def what_is_left(dask_worker: Worker) -> list[str]:
    """Return the tasks that a worker knows and the data that it holds."""
    return [str(key) for key in (*dask_worker.state.tasks, *dask_worker.data)]
