"""The demo: train and export a network, run it, run it again while workers stop, and compare.

One cluster of worker processes serves both runs, and runs a few blocks before, so that their
times can be compared. Then plain Dask does the same on a cluster of its own, and the same workers
of it are stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ..anyk.queries import cluster_workers
from ..formatting import counted
from ..model import open_model
from ..monitoring.progress import Quiet
from ..options import JobConfig
from ..runtime.cluster import Cluster, open_cluster
from ..runtime.job import run
from .digits import Digits, load_digits, split_digits, write_digits
from .faults import RunWatcher, Stopper, WorkerNames, worker_processes
from .files import HEALTHY_OUTPUT, IMAGES, MODEL, PICTURE, STALLED_OUTPUT, DemoError, make_folder
from .lenet import EPOCHS, accuracy, export, logits, train
from .picture import Timeline, listed, timeline_figure
from .plain import run_plain
from .results import SECONDS, DemoResult, RunResult, read_predictions
from .screen import print_result, show_step

WORKERS = 6

TOLERATE = 2
"""Shares of a layer that may be lost, one per worker."""

BATCH = 12
"""Images per block: few, so that there are many blocks."""

STOP_AFTER = 0.2
"""The part of the blocks that is done when workers are stopped."""

STOPPED_WORKERS = ("worker 1", "worker 4")


@dataclass(frozen=True)
class _Setup:
    """What both runs share; ``plain`` are plain PyTorch's logits, (n, 10)."""

    folder: Path
    held_out: Digits
    plain: NDArray[np.float32]
    cluster: Cluster
    names: WorkerNames
    console: Console


def run_demo(
    folder: Path | None = None,
    stall: int = TOLERATE,
    console: Console | None = None,
    images: int | None = None,
) -> DemoResult:
    """Run the demo and return its result.

    Parameters
    ----------
    folder
        For its files; see :func:`.files.make_folder`.
    stall
        How many of the six worker processes are stopped in the middle, 0 to 2.
    console
        Where progress and the result are printed; by default standard output.
    images
        How many of the held-out images are run; by default all.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    DemoError
        If the folder cannot be used, or more workers would be stopped than may be lost.
    """
    if not 0 <= stall <= TOLERATE:
        raise DemoError(
            f"--stall {stall}; expected 0 to {TOLERATE}: a layer has {WORKERS} shares and needs "
            f"any {WORKERS - TOLERATE} of them, so no more than {TOLERATE} workers may be lost"
        )
    console = console or Console()
    digits = load_digits()
    folder = make_folder(folder)
    training, others = split_digits(digits)
    held_out = others.take(np.arange(len(others))[:images])
    stopped = f"{stall or 'none'} of {WORKERS} workers stopped in the middle"
    console.print(f"\n[bold]Real images are classified, with {stopped}[/bold]")
    console.print(
        f"The work on every {BATCH} images, a block, is cut into {WORKERS} shares, one for each "
        f"worker; any {WORKERS - TOLERATE} of them give the predictions.\n",
        soft_wrap=True,
        highlight=False,
    )
    plain = _make_files(folder, training, held_out, console)
    with ExitStack() as stack:
        with show_step(console, f"starting {WORKERS} worker processes") as step:
            cluster = stack.enter_context(open_cluster(_config(folder, folder / HEALTHY_OUTPUT)))
            _warm_up(folder, cluster)
            step.done = f"{WORKERS} worker processes started, the dashboard is at {cluster.page}"
        names = WorkerNames(cluster_workers(cluster.client))
        setup = _Setup(folder, held_out, plain, cluster, names, console)
        healthy = _run(setup, HEALTHY_OUTPUT, ())
        stalled = _run(setup, STALLED_OUTPUT, STOPPED_WORKERS[:stall]) if stall else None
        with show_step(console, "ending the worker processes") as step:
            stack.close()
            step.done = "worker processes ended"
    plain_dask = _run_plain(folder, len(held_out), STOPPED_WORKERS[:stall], console)
    result = DemoResult(folder, healthy, stalled, plain_dask)
    convolutions = open_model(folder / MODEL).network.convolutions
    draw_result(result, folder / PICTURE, {stage.index: stage.name for stage in convolutions})
    print_result(result, console)
    return result


def _make_files(
    folder: Path, training: Digits, held_out: Digits, console: Console
) -> NDArray[np.float32]:
    """Train and export the network, write the images, and return plain PyTorch's logits."""
    with show_step(console, "training LeNet-5", total=EPOCHS) as step:
        network = train(training, on_epoch=step.update)
        plain = logits(network, held_out.images)
        step.done = (
            f"LeNet-5 trained on {len(training)} handwritten digits; plain PyTorch classifies "
            f"{accuracy(plain, held_out.labels):.1%} of {len(held_out)} others correctly"
        )
    with show_step(console, "writing the network and the images"):
        export(network, folder / MODEL)
        write_digits(held_out, folder / IMAGES)
    return plain


def _config(folder: Path, output: Path, cluster: Cluster | None = None) -> JobConfig:
    """Return the job, with a local cluster of its own or on a cluster that runs already."""
    return JobConfig.of(
        model=str(folder / MODEL),
        input=str(folder / IMAGES),
        output=str(output),
        workers=WORKERS,
        n=WORKERS,
        tolerate=TOLERATE,
        batch=BATCH,
        split="images",
        scheduler=cluster and cluster.client.scheduler_info()["address"],
        progress=False,
    )


def _warm_up(folder: Path, cluster: Cluster) -> None:
    """Run a few blocks and discard them: the first blocks of a process take longer."""
    with TemporaryDirectory(prefix="fcdcc-") as temporary:
        config = _config(folder, Path(temporary) / HEALTHY_OUTPUT, cluster)
        run(config.model_copy(update={"limit": WORKERS * BATCH}), Quiet())


def _run(setup: _Setup, output: str, stopped: Sequence[str]) -> RunResult:
    """Run the job, stop some workers once the first blocks are done, and check predictions."""
    blocks = len(_blocks(len(setup.held_out)))
    stop_after = _stop_after(blocks)
    conditions = "with all workers at work"
    if stopped:
        conditions = f"again, {listed(stopped)} are stopped in the middle"
    processes = {
        setup.names[address]: process
        for address, process in worker_processes(setup.cluster.client).items()
    }
    with ExitStack() as stack:
        step = stack.enter_context(show_step(setup.console, f"running {conditions}", total=blocks))
        stopper = stack.enter_context(Stopper({name: processes[name] for name in stopped}))
        if stopped:  # hide the warnings that workers do not answer
            logger = logging.getLogger("fcdcc")
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        watcher = RunWatcher(
            setup.cluster,
            setup.names,
            lambda progress: step.update(progress.blocks_done, str(progress)),
            stopper,
            stop_after,
        )
        summary = run(_config(setup.folder, setup.folder / output, setup.cluster), watcher)
        timeline = watcher.timeline()
        if stopped:
            conditions = f"again, {_stops(stopped, timeline)}"
        step.done = f"ran {conditions}: {summary.images_done} images"
        step.included = "with planning, opening and closing the output"
    predicted = read_predictions(setup.folder / output, setup.held_out)
    labels = setup.held_out.labels
    return RunResult(summary, timeline, predicted, setup.plain, labels)


def _run_plain(
    folder: Path, images: int, stopped: Sequence[str], console: Console
) -> Timeline | None:
    """Run the job on plain Dask while workers stop; do nothing where none is to be stopped."""
    if not stopped:
        return None
    blocks = _blocks(images)
    doing = f"plain Dask, {listed(stopped)} are stopped in the middle"
    with show_step(console, doing, total=len(blocks)) as step:
        config = _config(folder, folder / HEALTHY_OUTPUT)
        found = run_plain(config, blocks, stopped, _stop_after(len(blocks)), step.update)
        step.done = (
            f"plain Dask, {_stops(stopped, found)}: {len(found.blocks)} of {len(blocks)} blocks"
        )
    return found


def _stops(stopped: Sequence[str], timeline: Timeline) -> str:
    """Return which workers were stopped when, in words."""
    return f"{listed(stopped)} stopped after {counted(timeline.blocks_when_stopped, 'block')}"


def _blocks(images: int) -> list[tuple[int, int]]:
    """Return the first image of each block, and the one after its last."""
    return [(first, min(first + BATCH, images)) for first in range(0, images, BATCH)]


def _stop_after(blocks: int) -> int:
    """Return how many blocks are done when workers are stopped."""
    return max(1, round(STOP_AFTER * blocks))


def draw_result(result: DemoResult, path: Path, layers: dict[int, str]) -> None:
    """Save the picture of the run with workers stopped, or of the only run."""
    shown = result.stalled or result.healthy
    what = f"{listed(shown.stopped)} stopped" if shown.stopped else "all workers at work"
    same = "every class" if shown.agreeing == len(shown.labels) else "not every class"
    facts = {"blocks": str(shown.summary.blocks_total)} | shown.facts
    baseline = None
    if result.stalled is not None:
        facts["seconds without faults"] = result.healthy.facts[SECONDS]
        baseline = result.healthy.timeline
    if shown.not_removed:
        who, _, why = shown.not_removed_in_words.partition(": ")
        facts[who] = why
    if result.plain is not None:
        facts["plain Dask, the same workers stopped"] = result.plain_in_words
    timeline_figure(
        shown.timeline,
        title=f"LeNet-5 on handwritten digits: {what}, {same} as in plain PyTorch",
        facts=[f"{name}: {value}" for name, value in facts.items()],
        layers=layers,
        baseline=baseline,
        plain=result.plain,
    ).savefig(path)
