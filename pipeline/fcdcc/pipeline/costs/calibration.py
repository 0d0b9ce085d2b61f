"""The constants of the cost model, measured on the workers of a cluster in a few seconds.

What is measured is what tasks meet: convolutions as layers have them, alone and on all workers
at once (which share cores, caches and memory), arrays that go from worker to worker, and tasks
that do nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple, cast

import numpy as np
import psutil
import torch
from distributed import Client, wait
from numpy.typing import NDArray

from .forecast import Workers
from .speeds import Speeds

__all__ = ["calibrate"]

SHAPES = (
    (64, 64, 56, 3),
    (256, 256, 14, 3),
    (512, 512, 14, 3),
    (256, 64, 56, 1),
    (64, 128, 56, 3),
)
"""Convolutions: channels in and out, height and width, kernel."""

IMAGES = 4
SECONDS = 0.15
"""For each convolution at least."""

SENT = 16 * 2**20
"""Bytes of an array that goes from one worker to the next."""

TRIES = 3
EMPTY_TASKS = 60
HOPS = 12


class _Sample(NamedTuple):
    """A measured convolution: what it had to do, and its seconds."""

    multiply_adds: float
    touched: float
    seconds: float


def calibrate(
    client: Client, workers: Workers, torch_threads: int, tell: Callable[[str], None]
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
    client: Client, workers: Workers, torch_threads: int, tell: Callable[[str], None]
) -> Speeds:
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    alone, together = [], []
    for number in range(1, TRIES + 1):
        tell(f"measuring one worker alone, {number} of {TRIES}")
        alone += _convolutions(client, addresses[:1], 1, torch_threads)
        tell(f"measuring {len(addresses)} workers at once, {number} of {TRIES}")
        together.append(_convolutions(client, addresses, workers.slots, torch_threads))
    best = [min(samples, key=lambda sample: sample.seconds) for samples in zip(*alone, strict=True)]
    multiply_adds, touched = _fitted(best)
    parallel = median(
        sum(_seconds(best) / _seconds(samples) for samples in found) for found in together
    )
    tell("measuring the ways between workers")
    link = _link(client, addresses)
    tell("measuring tasks")
    resident = cast("dict[str, int]", client.run(_resident))
    return Speeds(
        multiply_adds=multiply_adds,
        touched=touched,
        link=link,
        task=_task_seconds(client, addresses[0]),
        hop=_hop_seconds(client, addresses),
        parallel=max(1.0, min(parallel, float(len(addresses) * workers.slots))),
        memory_at_rest=float(median(resident.values())),
        source="measured",
    )


def _seconds(samples: Sequence[_Sample]) -> float:
    return sum(sample.seconds for sample in samples)


def _fitted(samples: Sequence[_Sample]) -> tuple[float, float]:
    """Return multiply-adds and bytes per second that explain the samples best, relatively."""
    known = np.array([[s.multiply_adds / s.seconds, s.touched / s.seconds] for s in samples])
    costs, *_ = np.linalg.lstsq(known, np.ones(len(known)), rcond=None)
    fastest = float(known[:, 0].max())
    defaults = Speeds()
    if costs[0] <= 0 or costs[1] <= 0:  # nothing but arithmetic, or nothing but memory
        return float(np.median(known[:, 0])), max(defaults.touched, float(known[:, 1].max()))
    return float(min(1 / costs[0], 1.5 * fastest)), float(min(1 / costs[1], 1e11))


def _convolutions(
    client: Client, addresses: Sequence[str], slots: int, torch_threads: int
) -> list[list[_Sample]]:
    """Return the samples of every task; all tasks begin together."""
    begin = time.time() + 0.2
    futures = [
        client.submit(_convolve, begin, torch_threads, workers=[address], pure=False, priority=100)
        for address in addresses
        for _ in range(slots)
    ]
    return cast("list[list[_Sample]]", client.gather(futures))


def _convolve(begin: float, torch_threads: int) -> list[_Sample]:
    """Time convolutions; until then the others on the machine have begun, too."""
    torch.set_num_threads(torch_threads)
    time.sleep(max(0.0, min(begin - time.time(), 1.0)))
    return [_timed(*shape) for shape in SHAPES]


def _timed(inputs: int, outputs: int, size: int, kernel: int) -> _Sample:
    x = torch.randn(IMAGES, inputs, size, size)
    weight = torch.randn(outputs, inputs, kernel, kernel)
    with torch.inference_mode():
        y = torch.nn.functional.conv2d(x, weight, padding=kernel // 2)  # prepares the kernel
        taken: list[float] = []
        begin = time.perf_counter()
        while time.perf_counter() - begin < SECONDS:
            before = time.perf_counter()
            torch.nn.functional.conv2d(x, weight, padding=kernel // 2)
            taken.append(time.perf_counter() - before)
    work = float(y.numel() * weight[0].numel())
    touched = float(x.itemsize * (x.numel() + y.numel() + weight.numel()))
    return _Sample(work, touched, sum(taken) / len(taken))


def _link(client: Client, addresses: Sequence[str]) -> float:
    """Return bytes per second from each worker to the next, all at once."""
    if len(addresses) == 1:
        return Speeds().link
    rates = []
    for _ in range(TRIES):
        made = [client.submit(_array, SENT, workers=[address], pure=False) for address in addresses]
        wait(made)
        begin = time.perf_counter()
        taken = [
            client.submit(_size, array, workers=[address], pure=False)
            for array, address in zip(made, [*addresses[1:], addresses[0]], strict=True)
        ]
        wait(taken)
        rates.append(SENT / (time.perf_counter() - begin))
    return max(rates)


def _task_seconds(client: Client, address: str) -> float:
    """Return the seconds of a task that does nothing, one after the other on a worker."""
    taken = []
    for _ in range(TRIES):
        begin = time.perf_counter()
        wait(client.map(_nothing, range(EMPTY_TASKS), workers=[address], pure=False))
        taken.append((time.perf_counter() - begin) / EMPTY_TASKS)
    return min(taken)


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


def _array(size: int) -> NDArray[np.uint8]:
    return np.ones(size, dtype=np.uint8)


def _size(array: NDArray[np.uint8]) -> int:
    return array.nbytes


def _nothing(value: Any) -> Any:
    return value


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
