"""The same images on plain Dask, one task for each block, with the same workers stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distributed import Future

from ..anyk.queries import cluster_workers
from ..options import JobConfig
from ..runtime.cluster import open_cluster
from .faults import Stopper, WorkerNames, worker_processes
from .files import IMAGES, MODEL
from .lenet import stored_logits
from .picture import Timeline

PATIENCE_SECONDS = 12.0
"""How long the demo waits for another block. Dask itself gives a silent worker five minutes."""

POLL_SECONDS = 0.05

BLOCKS_OF_A_WORKER = 2
"""Blocks that are submitted at a time for each worker. All at once could be done before the workers
are stopped: they take milliseconds."""


def run_plain(
    config: JobConfig,
    blocks: Sequence[tuple[int, int]],
    stopped: Sequence[str],
    stop_after: int,
    show: Callable[[int], None],
) -> Timeline:
    """Run blocks as tasks of Dask on a cluster of its own, and stop some of its workers.

    Parameters
    ----------
    config
        The job, whose model and images lie in one folder; it says how many workers there are.
    blocks
        The first image of each block, and the one after its last.
    stopped, stop_after
        The workers that get SIGSTOP, and after how many blocks.
    show
        Called with the number of blocks that are done.

    Returns
    -------
    Timeline
        When blocks were done. Its ``stop`` is the last block's time, or, if some are missing, the
        moment at which no block had followed for :data:`PATIENCE_SECONDS`.
    """
    files = [str(Path(config.model).with_name(name)) for name in (MODEL, IMAGES)]
    with open_cluster(config) as cluster:
        client = cluster.client
        names = WorkerNames(cluster_workers(client))
        processes = {names[address]: found for address, found in worker_processes(client).items()}
        client.run(stored_logits, *files, *blocks[0])  # each worker has read the network
        with Stopper({name: processes[name] for name in stopped}) as stopper:
            start = time.time()
            tasks: list[Future[Any]] = []
            moments: list[float] = []
            while len(moments) < len(blocks):
                finished = sum(task.status == "finished" for task in tasks)
                moments += [time.time()] * (finished - len(moments))
                show(len(moments))
                if len(moments) >= stop_after:
                    stopper.stop()
                more = blocks[len(tasks) : len(moments) + BLOCKS_OF_A_WORKER * len(names)]
                tasks += [
                    client.submit(stored_logits, *files, *block, pure=False) for block in more
                ]
                if time.time() - max([start, *moments]) > PATIENCE_SECONDS:
                    break
                time.sleep(POLL_SECONDS)
            stop = moments[-1] if len(moments) == len(blocks) else time.time()
            return Timeline((), tuple(stopper.faults), start, stop, tuple(moments))
