"""The constants of the cost model, measured on the workers of a cluster in a few seconds.

It times operations of typical layers, in turn, so that caches hold as little of their weights and
values as in a network, on one worker and on all at once (which share cores, caches and memory);
arrays that go from worker to worker; and tasks that do nothing. What tasks and fetches cost is read
off the CPU clocks of the processes, which do not count the time of other processes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeVar, cast
from uuid import uuid4

import numpy as np
import psutil
import torch
from dask._task_spec import Task, TaskRef
from dask.typing import Key
from distributed import Client, wait
from distributed.worker import Worker
from numpy.typing import NDArray

from ...anyk.queries import cluster_workers
from ...formatting import counted
from ...plans.forecast import Speeds, Work, WorkerPool, convolution_work
from ...worker.memory import return_freed_memory

Answer = TypeVar("Answer")

CONVOLUTIONS = (
    (32, 32, 112, 3),
    (64, 64, 56, 3),
    (256, 256, 14, 3),
    (512, 512, 7, 3),
    (256, 64, 56, 1),
    (1024, 256, 14, 1),
    (512, 2048, 7, 1),
)
"""Convolutions that are timed: channels in and out, height and width, kernel."""

GLUE = (64, 112)
"""The elementwise operation that is timed after these convolutions: channels, height and width."""

BATCH = 4
"""Images that these operations are timed with."""

SECONDS_PER_OPERATION = 0.1

REPETITIONS = 3
"""How often operations, and transfers between workers, are timed: the best time counts."""

SENT_BYTES = 16 * 2**20
"""Size of an array that goes from one worker to the next."""

HOPS = 12
"""Tasks in a chain of which each is on another worker than the one before it."""

CHAIN_STEPS = 8
"""Tasks in each of the chains that measure the overhead of tasks."""

MAX_CHAINS = 64
"""Most such chains; there are two for each slot of a worker if that is fewer."""

CHAIN_VALUE_BYTES = 2**16
"""Size of the result of each task in these chains."""

IDLE_SECONDS = 0.5
"""How long the CPU use of idle processes is measured, to be subtracted from what is measured."""


class _Timing(NamedTuple):
    """A measured operation: its work, and its seconds."""

    work: Work
    seconds: float


class _Overhead(NamedTuple):
    """What tasks cost beside their work: constants of :class:`Speeds`."""

    task: float
    scheduler: float
    fetch: float
    copied: float
    link: float


class _Clocks(NamedTuple):
    """CPU seconds of processes, and the time on the clock."""

    workers: float
    """Of all workers."""
    scheduler: float
    """Of the scheduler."""
    on_hosts: float
    """Of all these processes that are on the hosts of workers: the scheduler counts if the workers
    are all on its host, and a process that is a worker and the scheduler counts once."""
    now: float

    def since(self, before: _Clocks) -> _Clocks:
        """Return what was added since then."""
        return _Clocks(*(float(a - b) for a, b in zip(self, before, strict=True)))

    def without(self, idle: _Clocks) -> _Clocks:
        """Return these seconds less those that the processes take while they are idle."""
        part = self.now / idle.now
        return _Clocks(
            max(0.0, self.workers - part * idle.workers),
            max(0.0, self.scheduler - part * idle.scheduler),
            max(0.0, self.on_hosts - part * idle.on_hosts),
            self.now,
        )


def calibrate(
    client: Client, workers: WorkerPool, torch_threads: int, report: Callable[[str], None]
) -> Speeds:
    """Measure the workers of a cluster.

    Parameters
    ----------
    client
        Connected to the cluster. Nothing else should be running on it.
    workers
        Number of the workers and of their slots.
    torch_threads
        Threads of one operation.
    report
        Called with a line of text about what is measured next.

    Raises
    ------
    Exception
        If a measurement raises it on a worker.
    """
    with client.as_current():
        return _measured(client, workers, torch_threads, report)


def _measured(
    client: Client, workers: WorkerPool, torch_threads: int, report: Callable[[str], None]
) -> Speeds:
    addresses = list(cluster_workers(client))
    alone, together = [], []
    for number in range(1, REPETITIONS + 1):
        report(f"measuring one worker alone, {number} of {REPETITIONS}")
        alone += _operations(client, addresses[:1], 1, torch_threads)
        report(f"measuring {counted(len(addresses), 'worker')} at once, {number} of {REPETITIONS}")
        together.append(_operations(client, addresses, workers.slots, torch_threads))
    best = [min(timings, key=lambda one: one.seconds) for timings in zip(*alone, strict=True)]
    multiply_adds, touched = _fitted(best)
    parallel = median(
        sum(_seconds(best) / _seconds(timings) for timings in found) for found in together
    )
    parallel = max(1.0, min(parallel, float(len(addresses) * workers.slots)))
    report("measuring tasks, and the links between workers")
    resident = _on_workers(client, _resident)
    found = _overhead(client, addresses, workers, parallel)
    hop = _hop_seconds(client, addresses)
    return Speeds(
        multiply_adds=multiply_adds,
        touched=touched,
        **found._asdict(),
        hop=max(hop - found.task - found.fetch, 0.0),
        parallel=parallel,
        memory_at_rest=float(median(resident.values())),
        source="measured",
    )


def _seconds(timings: Sequence[_Timing]) -> float:
    return sum(one.seconds for one in timings)


def _fitted(timings: Sequence[_Timing]) -> tuple[float, float]:
    """Return multiply-adds and bytes per second: least squares of relative errors."""
    known = np.array(
        [
            [t.work.multiply_adds / t.seconds, (t.work.touched + t.work.fixed) / t.seconds]
            for t in timings
        ]
    )
    costs, *_ = np.linalg.lstsq(known, np.ones(len(known)), rcond=None)
    if costs[0] > 0 and costs[1] > 0:
        return float(1 / costs[0]), float(1 / costs[1])
    # Times were disturbed by another process: take medians instead, the rate of multiply-adds
    # from the convolutions and that of bytes from the other operation.
    return float(np.median(known[known[:, 0] > 0, 0])), float(np.median(known[known[:, 0] == 0, 1]))


def _operations(
    client: Client, addresses: Sequence[str], slots: int, torch_threads: int
) -> list[list[_Timing]]:
    """Return the timings of every task; all tasks begin together."""
    begin = time.time() + 0.2
    futures = [
        client.submit(_operate, begin, torch_threads, workers=[address], pure=False, priority=100)
        for address in addresses
        for _ in range(slots)
    ]
    return cast("list[list[_Timing]]", client.gather(futures))


def _operate(begin: float, torch_threads: int) -> list[_Timing]:
    """Time operations in turn, beginning at ``begin`` (seconds since the epoch)."""
    torch.set_num_threads(torch_threads)
    made = [_convolution(*shape) for shape in CONVOLUTIONS] + [_glue(*GLUE)]
    taken: list[list[float]] = [[] for _ in made]
    with torch.inference_mode():
        for _, run in made:
            run()  # prepares the kernel
        time.sleep(max(0.0, min(begin - time.time(), 1.0)))
        end = time.perf_counter() + SECONDS_PER_OPERATION * len(made)
        while not taken[0] or time.perf_counter() < end:
            for (_, run), seconds in zip(made, taken, strict=True):
                before = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - before)
    return [
        _Timing(work, sum(seconds) / len(seconds))
        for (work, _), seconds in zip(made, taken, strict=True)
    ]


def _convolution(
    inputs: int, outputs: int, size: int, kernel: int
) -> tuple[Work, Callable[[], object]]:
    x = torch.randn(BATCH, inputs, size, size)
    weight = torch.randn(outputs, inputs, kernel, kernel)
    values = x.itemsize * (x.numel() + BATCH * outputs * size**2)
    adds = BATCH * size**2 * weight.numel()
    work = convolution_work(adds, values, x.itemsize * weight.numel())
    return work, lambda: torch.nn.functional.conv2d(x, weight, padding=kernel // 2)


def _glue(channels: int, size: int) -> tuple[Work, Callable[[], object]]:
    x = torch.randn(BATCH, channels, size, size)
    return Work(touched=5 * x.nbytes), lambda: torch.relu(x + x)  # + touches 3, relu 2


def _overhead(
    client: Client, addresses: Sequence[str], workers: WorkerPool, parallel: float
) -> _Overhead:
    """Return what tasks and fetches cost beside their work."""
    idle = _clocks(client)
    time.sleep(IDLE_SECONDS)
    idle = _clocks(client).since(idle)
    chains = min(2 * len(addresses) * workers.slots, MAX_CHAINS)
    _graph(client, chains, idle, meet=False)  # the first one opens connections, too
    plain, few = _graph(client, chains, idle, meet=False)
    met, many = _graph(client, chains, idle, meet=True)
    # Both graphs have the same number of tasks. Chains that do not meet fetch values, too, when
    # Dask moves a task to a worker that is less busy.
    fetch = max(0.0, met.workers - plain.workers) / max(many - few, 1)
    task = max(plain.on_hosts - few * fetch, 0.0) / (chains * CHAIN_STEPS)
    scheduler = plain.scheduler / (chains * CHAIN_STEPS)
    if len(addresses) == 1:
        defaults = Speeds()
        return _Overhead(task, scheduler, defaults.fetch, defaults.copied, defaults.link)
    copied, link = _link_speeds(client, addresses, idle, parallel)
    return _Overhead(task, scheduler, fetch, copied, link)


def _graph(client: Client, chains: int, idle: _Clocks, *, meet: bool) -> tuple[_Clocks, int]:
    """Return the time that chains of tasks take, and how many values their tasks fetch.

    If chains ``meet``, every task also needs the previous task of the next chain.
    """
    name = f"calibrate-{uuid4().hex[:8]}"
    tasks: dict[Key, Task] = {}
    for step in range(CHAIN_STEPS):
        for chain in range(chains):
            with_whom = {chain, (chain + 1) % chains} if meet else {chain}
            needs = [TaskRef((name, step - 1, other)) for other in with_whom] if step else []
            key: Key = (name, step, chain)
            tasks[key] = Task(key, _array, CHAIN_VALUE_BYTES, *needs)
    last = Task(
        f"{name}-end", _size, *(TaskRef((name, CHAIN_STEPS - 1, chain)) for chain in range(chains))
    )
    fetches = sum(_on_workers(client, _fetches).values())
    before = _clocks(client)
    client.get({**tasks, last.key: last}, last.key)
    taken = _clocks(client).since(before)
    return taken.without(idle), sum(_on_workers(client, _fetches).values()) - fetches


def _link_speeds(
    client: Client, addresses: Sequence[str], idle: _Clocks, parallel: float
) -> tuple[float, float]:
    """Return bytes per second that a core copies, and that a link between workers carries."""
    copied, link = [], []
    for _ in range(REPETITIONS):
        made = [
            client.submit(_array, SENT_BYTES, workers=[address], pure=False)
            for address in addresses
        ]
        wait(made)
        before = _clocks(client)
        taken = [
            client.submit(_size, array, workers=[address], pure=False)
            for array, address in zip(made, [*addresses[1:], addresses[0]], strict=True)
        ]
        wait(taken)
        spent = _clocks(client).since(before)
        cores = max(spent.without(idle).workers, 1e-6)
        copied.append(cores / (len(addresses) * SENT_BYTES))
        # The time of the cores is in ``copied`` already.
        link.append(max(spent.now - cores / min(parallel, len(addresses)), 1e-6) / SENT_BYTES)
    return 1 / min(copied), 1 / min(link)


def _clocks(client: Client) -> _Clocks:
    """Return the clocks of the workers' processes and of the scheduler's."""
    workers = dict(_on_workers(client, _clock).values())
    place, scheduler = cast("tuple[tuple[str, int], float]", client.run_on_scheduler(_clock))
    same_host = {host for host, _ in workers} == {place[0]}
    on_hosts = sum(({**workers, place: scheduler} if same_host else workers).values())
    return _Clocks(sum(workers.values()), scheduler, on_hosts, time.perf_counter())


def _on_workers(client: Client, function: Callable[..., Answer]) -> dict[str, Answer]:
    """Return what a function returns on every worker, by address."""
    return cast("dict[str, Answer]", client.run(function))


def _clock() -> tuple[tuple[str, int], float]:
    """Return which process this is, and its CPU seconds so far."""
    return (socket.gethostname(), os.getpid()), time.process_time()


def _fetches(dask_worker: Worker) -> int:
    return int(dask_worker.state.transfer_incoming_count_total)


def _hop_seconds(client: Client, addresses: Sequence[str]) -> float:
    """Return the seconds from a task to the next one on another worker."""
    taken = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        future: Any = 0
        for number in range(HOPS):
            future = client.submit(
                _nothing, future, workers=[addresses[number % len(addresses)]], pure=False
            )
        wait(future)
        taken.append((time.perf_counter() - begin) / HOPS)
    return min(taken)


def _array(size: int, *_: object) -> NDArray[np.uint8]:
    return np.ones(size, dtype=np.uint8)


def _size(*arrays: NDArray[np.uint8]) -> int:
    return sum(array.nbytes for array in arrays)


def _nothing(value: Any) -> Any:
    return value


def _resident() -> int:
    return_freed_memory()  # used by the measurements
    return int(psutil.Process().memory_info().rss)
