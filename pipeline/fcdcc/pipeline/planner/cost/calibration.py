"""The constants of the cost model, measured on the workers of a cluster in a few seconds.

What is measured is what tasks meet: operations as layers have them, one after the other, so that
each finds its weights and values where those of a network lie, alone and on all workers at once
(which share cores, caches and memory); arrays that go from worker to worker; and tasks that do
nothing. What tasks and fetches cost is read off the clocks of the processes, which stand still
while others have the cores.
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

from ...plans.forecast import Speeds, Work, WorkerPool, convolution_work
from ...worker.memory import return_freed_memory

Result = TypeVar("Result")

SHAPES = (
    (32, 32, 112, 3),
    (64, 64, 56, 3),
    (256, 256, 14, 3),
    (512, 512, 7, 3),
    (256, 64, 56, 1),
    (1024, 256, 14, 1),
    (512, 2048, 7, 1),
)
"""Convolutions: channels in and out, height and width, kernel."""

GLUE = (64, 112)
"""What is between them: channels, and height and width."""

IMAGES = 4
SECONDS = 0.1
"""For each operation."""

SENT = 16 * 2**20
"""Bytes of an array that goes from one worker to the next."""

TRIES = 3
HOPS = 12

STEPS = 8
"""Tasks in a chain of them."""

MOST_CHAINS = 64
SMALL = 2**16
"""Bytes of what these make."""

RESTING = 0.5
"""Seconds in which is measured what processes do while nobody wants anything of them."""


class _Sample(NamedTuple):
    """A measured operation: what it had to do, and its seconds."""

    work: Work
    seconds: float


class _Overhead(NamedTuple):
    """What tasks cost beside their work: constants of :class:`.speeds.Speeds`."""

    task: float
    scheduler: float
    fetch: float
    copied: float
    link: float


class _Clocks(NamedTuple):
    """Seconds that processes have had of cores."""

    workers: float
    scheduler: float
    both: float
    now: float

    def since(self, before: _Clocks) -> _Clocks:
        """Return what went by since then."""
        return _Clocks(*(float(a - b) for a, b in zip(self, before, strict=True)))

    def without(self, rest: _Clocks) -> _Clocks:
        """Return these seconds less those that the processes take anyway."""
        part = self.now / rest.now
        return _Clocks(
            max(0.0, self.workers - part * rest.workers),
            max(0.0, self.scheduler - part * rest.scheduler),
            max(0.0, self.both - part * rest.both),
            self.now,
        )


def calibrate(
    client: Client, workers: WorkerPool, torch_threads: int, tell: Callable[[str], None]
) -> Speeds:
    """Measure the workers of a cluster.

    Parameters
    ----------
    client
        Of the cluster. Nothing else should be running on it.
    workers
        What is known of them.
    torch_threads
        Threads of one operation.
    tell
        Is told what is measured.

    Raises
    ------
    Exception
        Whatever a task of these raises on a worker.
    """
    with client.as_current():
        return _measured(client, workers, torch_threads, tell)


def _measured(
    client: Client, workers: WorkerPool, torch_threads: int, tell: Callable[[str], None]
) -> Speeds:
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    alone, together = [], []
    for number in range(1, TRIES + 1):
        tell(f"measuring one worker alone, {number} of {TRIES}")
        alone += _operations(client, addresses[:1], 1, torch_threads)
        tell(f"measuring {len(addresses)} workers at once, {number} of {TRIES}")
        together.append(_operations(client, addresses, workers.slots, torch_threads))
    best = [min(samples, key=lambda sample: sample.seconds) for samples in zip(*alone, strict=True)]
    multiply_adds, touched = _fitted(best)
    parallel = median(
        sum(_seconds(best) / _seconds(samples) for samples in found) for found in together
    )
    parallel = max(1.0, min(parallel, float(len(addresses) * workers.slots)))
    tell("measuring tasks, and the ways between workers")
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


def _seconds(samples: Sequence[_Sample]) -> float:
    return sum(sample.seconds for sample in samples)


def _fitted(samples: Sequence[_Sample]) -> tuple[float, float]:
    """Return multiply-adds and bytes per second that explain the samples best, relatively."""
    known = np.array(
        [
            [s.work.multiply_adds / s.seconds, (s.work.touched + s.work.fixed) / s.seconds]
            for s in samples
        ]
    )
    costs, *_ = np.linalg.lstsq(known, np.ones(len(known)), rcond=None)
    if costs[0] > 0 and costs[1] > 0:
        return float(1 / costs[0]), float(1 / costs[1])
    # Some operation was kept from its core: each rate from those that it decides.
    return float(np.median(known[known[:, 0] > 0, 0])), float(np.median(known[known[:, 0] == 0, 1]))


def _operations(
    client: Client, addresses: Sequence[str], slots: int, torch_threads: int
) -> list[list[_Sample]]:
    """Return the samples of every task; all tasks begin together."""
    begin = time.time() + 0.2
    futures = [
        client.submit(_operate, begin, torch_threads, workers=[address], pure=False, priority=100)
        for address in addresses
        for _ in range(slots)
    ]
    return cast("list[list[_Sample]]", client.gather(futures))


def _operate(begin: float, torch_threads: int) -> list[_Sample]:
    """Time operations in turn; until they begin the others on the machine have begun, too."""
    torch.set_num_threads(torch_threads)
    made = [_convolution(*shape) for shape in SHAPES] + [_glue(*GLUE)]
    taken: list[list[float]] = [[] for _ in made]
    with torch.inference_mode():
        for _, run in made:
            run()  # prepares the kernel
        time.sleep(max(0.0, min(begin - time.time(), 1.0)))
        end = time.perf_counter() + SECONDS * len(made)
        while not taken[0] or time.perf_counter() < end:
            for (_, run), seconds in zip(made, taken, strict=True):
                before = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - before)
    return [
        _Sample(work, sum(seconds) / len(seconds))
        for (work, _), seconds in zip(made, taken, strict=True)
    ]


def _convolution(
    inputs: int, outputs: int, size: int, kernel: int
) -> tuple[Work, Callable[[], object]]:
    x = torch.randn(IMAGES, inputs, size, size)
    weight = torch.randn(outputs, inputs, kernel, kernel)
    values = x.itemsize * (x.numel() + IMAGES * outputs * size**2)
    adds = IMAGES * size**2 * weight.numel()
    work = convolution_work(adds, values, x.itemsize * weight.numel())
    return work, lambda: torch.nn.functional.conv2d(x, weight, padding=kernel // 2)


def _glue(channels: int, size: int) -> tuple[Work, Callable[[], object]]:
    x = torch.randn(IMAGES, channels, size, size)
    return Work(touched=5 * x.nbytes), lambda: torch.relu(x + x)  # three arrays, and two


def _overhead(
    client: Client, addresses: Sequence[str], workers: WorkerPool, parallel: float
) -> _Overhead:
    """Return what tasks and fetches cost, whatever they are for."""
    rest = _clocks(client)
    time.sleep(RESTING)
    rest = _clocks(client).since(rest)
    chains = min(2 * len(addresses) * workers.slots, MOST_CHAINS)
    _graph(client, chains, rest, meet=False)  # whatever is needed for the first time
    plain, few = _graph(client, chains, rest, meet=False)
    met, many = _graph(client, chains, rest, meet=True)
    # Both had as many tasks; where cores are busy some chains change their worker, too.
    fetch = max(0.0, met.workers - plain.workers) / max(many - few, 1)
    together = plain.both if _same_machine(client) else plain.workers
    task = max(together - few * fetch, 0.0) / (chains * STEPS)
    scheduler = plain.scheduler / (chains * STEPS)
    if len(addresses) == 1:
        defaults = Speeds()
        return _Overhead(task, scheduler, defaults.fetch, defaults.copied, defaults.link)
    copied, link = _ways(client, addresses, rest, parallel)
    return _Overhead(task, scheduler, fetch, copied, link)


def _graph(client: Client, chains: int, rest: _Clocks, *, meet: bool) -> tuple[_Clocks, int]:
    """Return what chains of tasks cost, and how many values they fetched.

    Where chains ``meet``, every task needs the one before it in the next chain, too.
    """
    name = f"calibrate-{uuid4().hex[:8]}"
    tasks: dict[Key, Task] = {}
    for step in range(STEPS):
        for chain in range(chains):
            with_whom = {chain, (chain + 1) % chains} if meet else {chain}
            needs = [TaskRef((name, step - 1, other)) for other in with_whom] if step else []
            key: Key = (name, step, chain)
            tasks[key] = Task(key, _array, SMALL, *needs)
    last = Task(
        f"{name}-end", _size, *(TaskRef((name, STEPS - 1, chain)) for chain in range(chains))
    )
    fetches = sum(_on_workers(client, _fetches).values())
    before = _clocks(client)
    client.get({**tasks, last.key: last}, last.key)
    taken = _clocks(client).since(before)
    return taken.without(rest), sum(_on_workers(client, _fetches).values()) - fetches


def _ways(
    client: Client, addresses: Sequence[str], rest: _Clocks, parallel: float
) -> tuple[float, float]:
    """Return bytes per second of a core, and of the way, from each worker to the next."""
    copied, link = [], []
    for _ in range(TRIES):
        made = [client.submit(_array, SENT, workers=[address], pure=False) for address in addresses]
        wait(made)
        before = _clocks(client)
        taken = [
            client.submit(_size, array, workers=[address], pure=False)
            for array, address in zip(made, [*addresses[1:], addresses[0]], strict=True)
        ]
        wait(taken)
        spent = _clocks(client).since(before)
        cores = max(spent.without(rest).workers, 1e-6)
        copied.append(cores / (len(addresses) * SENT))
        # What the cores need for it is not counted again as time on the way.
        link.append(max(spent.now - cores / min(parallel, len(addresses)), 1e-6) / SENT)
    return 1 / min(copied), 1 / min(link)


def _clocks(client: Client) -> _Clocks:
    """Return the clocks of the workers' processes and of the scheduler's."""
    workers = dict(_on_workers(client, _clock).values())
    place, scheduler = cast("tuple[tuple[str, int], float]", client.run_on_scheduler(_clock))
    both = sum({**workers, place: scheduler}.values())
    return _Clocks(sum(workers.values()), scheduler, both, time.perf_counter())


def _on_workers(client: Client, function: Callable[..., Result]) -> dict[str, Result]:
    """Return what a function says on every worker, by address."""
    return cast("dict[str, Result]", client.run(function))


def _clock() -> tuple[tuple[str, int], float]:
    """Return which process this is, and its seconds so far."""
    return (socket.gethostname(), os.getpid()), time.process_time()


def _same_machine(client: Client) -> bool:
    """Return whether the scheduler shares the machine of the workers."""
    hosts = set(_on_workers(client, socket.gethostname).values())
    return hosts == {client.run_on_scheduler(socket.gethostname)}


def _fetches(dask_worker: Worker) -> int:
    return int(dask_worker.state.transfer_incoming_count_total)


def _hop_seconds(client: Client, addresses: Sequence[str]) -> float:
    """Return the seconds from a task to the next one on another worker."""
    taken = []
    for _ in range(TRIES):
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
