"""Workers that are slower than they are: machines of a fraction of a core, some of them sick.

Six worker processes on few cores get in each other's way, and whoever waits makes the others
faster. So every task is stretched: after its work it sleeps until ``pace`` times the CPU
time that it took has passed. With ``pace`` larger than workers divided by cores, the workers
behave like machines of their own. What is slow sleeps ``FACTOR`` times as long. A task that
sleeps asks whether it is still wanted, as one that computes does between two slices.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from dask.context import thread_state
from distributed import Reschedule, Worker, WorkerPlugin, get_worker

from fcdcc.pipeline.anyk import wanted
from fcdcc.pipeline.worker.kernels import (
    common,
    gathered_kernels,
    image_kernels,
    row_kernels,
)

FACTOR = 10.0
SLOW_WORKERS = (0, 1)
NAPS = 0.004

PACED = {
    gathered_kernels: ("encode", "share", "encode_and_share", "decode"),
    common: ("run_stage",),
    image_kernels: ("share", "parity", "run_output", "glue"),
    row_kernels: ("share", "parity", "strip_output", "glue", "whole"),
}


class Pacing(WorkerPlugin):
    """Stretches the tasks of a worker; ``worker.trace`` says which are slow.

    ``speeds`` are those of workers by name; the others have 1.
    """

    name = "pacing"

    def __init__(self, pace: float, seed: int, speeds: Mapping[str, float] | None = None) -> None:
        self.pace = pace
        self.seed = seed
        self.speeds = dict(speeds or {})

    def setup(self, worker: Worker) -> None:
        """Put the stretched functions in the places of the true ones."""
        torch.set_num_threads(1)
        worker.trace = {
            "pace": self.pace, "seed": self.seed, "share": 0.0, "workers": False,
            "speeds": self.speeds,
        }  # fmt: skip
        for module, names in PACED.items():
            for name in names:
                function = getattr(module, name)
                if not hasattr(function, "paced"):
                    setattr(module, name, paced(function))


def set_trace(share: float, workers: bool, seed: int, dask_worker: Worker) -> None:
    """Say what is slow from now on: a part of all shares at random, or two of the workers."""
    dask_worker.trace |= {"share": share, "workers": workers, "seed": seed}


def paced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes longer."""
    is_share = function.__name__ in ("share", "parity", "encode_and_share")

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with Stretch(is_share, thread_state.key):
            return function(*args)

    run.paced = True
    return run


class Stretch:
    """What is done inside takes ``pace`` times its CPU time, or ten times that.

    Who is slow is drawn by the task's layer, block and position and by its worker.
    """

    def __init__(self, is_share: bool, label: Any) -> None:
        self._is_share = is_share
        self._label = label[1:4] if isinstance(label, tuple) else label

    def __enter__(self) -> None:
        self._wanted = wanted()
        self._wall, self._cpu = time.perf_counter(), time.thread_time()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            return
        trace = get_worker().trace
        name = get_worker().name
        draw = random.Random(f"{trace['seed']} {self._label} {name}").random()
        slow = self._is_share and draw < trace["share"]
        slow = slow or (trace["workers"] and name in SLOW_WORKERS)
        factor = trace["pace"] * (FACTOR if slow else 1.0) / trace["speeds"].get(str(name), 1.0)
        end = self._wall + factor * (time.thread_time() - self._cpu)
        while (left := end - time.perf_counter()) > 0:
            time.sleep(min(NAPS, left))
            if not self._wanted():
                raise Reschedule("nobody waits for it any more")
