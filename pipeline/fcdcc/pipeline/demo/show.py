"""The demonstration: train, export, run, stop two of six workers, run again, compare.

One cluster of worker processes serves both runs, and has done a few blocks before, so that
their times can be compared.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ..model import open_model
from ..monitoring.progress import Quiet, RunProgress
from ..options import JobConfig
from ..runtime.cluster import Cluster, open_cluster
from ..runtime.job import run
from .digits import Digits, load_digits, split_digits, write_digits
from .faults import Names, RunWatcher, Stopper, worker_processes
from .files import DemoError, DemoFiles, make_folder
from .lanes import listed
from .lenet import EPOCHS, accuracy, export, logits, train
from .picture import draw_timeline
from .results import DemoResult, RunResult, compare, read_predictions
from .screen import Screen, Step, command_line

_ROWS: Mapping[str, Callable[[RunResult], str]] = {
    "images right": lambda r: f"{r.comparison.accuracy:.1%}",
    "classes as in plain PyTorch": lambda r: f"{r.comparison.agreeing} of {r.comparison.images}",
    "largest difference of a logit": lambda r: f"{r.comparison.largest_difference:.1e}",
    "shares erased": lambda r: str(r.summary.erasures),
    "layers decoded": lambda r: str(r.summary.decodes),
    "workers given up": lambda r: str(len(r.summary.workers_lost)),
    "seconds": lambda r: f"{r.summary.seconds:.1f}",
}


def draw(result: DemoResult, path: Path, layers: Mapping[int, str]) -> None:
    """Save the picture of the run with workers stopped, or of the only one."""
    shown = result.stalled or result.healthy
    answers, summary = shown.comparison, shown.summary
    what = f"{listed(shown.stopped)} stopped" if shown.stopped else "all workers at work"
    end = "every answer as in plain PyTorch" if answers.agrees else "answers differ"
    seconds = f"{summary.seconds:.1f} s"
    if result.stalled is not None:
        seconds += f", and {result.healthy.summary.seconds:.1f} s with all at work"
    facts = (
        f"{answers.images} images in {summary.blocks_total} blocks",
        f"{answers.accuracy:.1%} right",
        f"{answers.agreeing} of {answers.images} as plain PyTorch",
        f"largest difference of a logit {answers.largest_difference:.1e}",
        f"{summary.erasures} shares erased",
        f"{summary.decodes} layers decoded",
        seconds,
    )
    draw_timeline(
        shown.timeline,
        path,
        title=f"LeNet-5 on handwritten digits: {what}, {end}",
        facts=facts,
        layers=layers,
        baseline=result.healthy.timeline if result.stalled is not None else None,
    )


def tell(result: DemoResult, files: DemoFiles, screen: Screen) -> None:
    """Print what happened, where the files are, and what to try next."""
    runs = result.runs
    screen.table(
        list(runs), [[name, *(show(r) for r in runs.values())] for name, show in _ROWS.items()]
    )
    described = {
        files.model: "the network, as torch.export.save writes it",
        files.images: f"{result.healthy.comparison.images} images that it has not seen, labelled",
        files.healthy: "its predictions",
        files.stalled: "the same, made while workers were stopped",
        files.picture: "what happened then, as a picture",
    }
    screen.files(result.folder, {p.name: w for p, w in described.items() if p.exists()})
    paths = [files.model, files.images, files.folder / "mine.zarr"]
    screen.command(
        "To run it yourself:",
        " ".join([command_line(), "run", *(shlex.quote(str(path)) for path in paths)]),
    )
    for problem in result.problems:
        screen.problem(problem)


WORKERS = 6

TOLERATE = 2

BATCH = 24
"""Images per block: few, so that there are many blocks to watch."""

STOP_AFTER = 0.2
"""The part of the blocks that is done when workers are stopped."""

VICTIMS = (1, 4)
"""The workers that are stopped, by their places among those that are there."""


@dataclass(frozen=True)
class _Scene:
    """What both runs share."""

    files: DemoFiles
    held_out: Digits
    plain: NDArray[np.float32]
    cluster: Cluster
    names: Names
    screen: Screen

    @property
    def blocks(self) -> int:
        return -(-len(self.held_out) // BATCH)


def run_demo(
    folder: Path | None = None,
    stall: int = 2,
    console: Console | None = None,
    images: int | None = None,
) -> DemoResult:
    """Give the demonstration, and return what it showed.

    Parameters
    ----------
    folder
        For its files, new or empty; by default the first unused of ``demo``, ``demo-2``, …
    stall
        How many of the six worker processes are stopped in the middle, 0 to 2.
    console
        Where it says what it does; by default standard output.
    images
        How many of the held-out images are run; by default all.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    DemoError
        If the folder cannot be used, or ``stall`` is not a number of workers that may be lost.
    """
    if not 0 <= stall <= TOLERATE:
        raise DemoError(
            f"--stall {stall}; expected 0 to {TOLERATE}: with {WORKERS} shares per layer of "
            f"which any {WORKERS - TOLERATE} suffice, no more may be lost"
        )
    screen = Screen(console or Console())
    digits = load_digits()
    files = DemoFiles(make_folder(folder))
    training, others = split_digits(digits)
    held_out = others.take(np.arange(len(others))[:images])
    meanwhile = f"{stall} of {WORKERS} workers stopped in the middle" if stall else "nobody stopped"
    screen.heading(f"Real images through coded convolutions, {meanwhile}")
    plain = _make_files(files, training, held_out, screen)
    with ExitStack() as stack:
        with screen.step(f"starting {WORKERS} worker processes") as step:
            cluster = stack.enter_context(open_cluster(_config(files, files.healthy)))
            _warm_up(files, cluster)
            step.done = f"{WORKERS} worker processes started, dashboard at {cluster.dashboard}"
        names = Names(cluster.client.scheduler_info(n_workers=-1)["workers"])
        scene = _Scene(files, held_out, plain, cluster, names, screen)
        healthy = _run_healthy(scene)
        stalled = _run_stalled(scene, VICTIMS[:stall]) if stall else None
        with screen.step("ending the worker processes") as step:
            stack.close()
            step.done = "worker processes ended"
    result = DemoResult(files.folder, healthy, stalled)
    layers = {stage.index: stage.name for stage in open_model(files.model).network.convolutions}
    draw(result, files.picture, layers)
    tell(result, files, screen)
    return result


def _make_files(
    files: DemoFiles, training: Digits, held_out: Digits, screen: Screen
) -> NDArray[np.float32]:
    """Train and export the network, write the images, and return plain PyTorch's logits."""
    with screen.step("training LeNet-5", total=EPOCHS) as step:
        network = train(training, on_epoch=step.at)
        plain = logits(network, held_out.images)
        right = accuracy(plain, held_out.labels)
        step.done = (
            f"LeNet-5 trained on {len(training)} handwritten digits: {right:.1%} of "
            f"{len(held_out)} others right in plain PyTorch"
        )
    with screen.step("writing the network and the images"):
        export(network, files.model)
        write_digits(held_out, files.images)
    return plain


def _config(files: DemoFiles, output: Path, scheduler: str | None = None) -> JobConfig:
    """Return the job; with a scheduler's address, on its cluster."""
    return JobConfig.of(
        model=str(files.model),
        input=str(files.images),
        output=str(output),
        n=WORKERS,
        tolerate=TOLERATE,
        batch=BATCH,
        split="images",
        scheduler=scheduler,
        progress=False,
    )


def _warm_up(files: DemoFiles, cluster: Cluster) -> None:
    """Run a few blocks for nothing: what a process does for the first time takes longer."""
    with TemporaryDirectory(prefix="fcdcc-") as folder:
        config = _config(files, Path(folder) / "predictions.zarr", _address(cluster))
        run(config.model_copy(update={"limit": WORKERS * BATCH}), Quiet())


def _address(cluster: Cluster) -> str:
    address: str = cluster.client.scheduler_info()["address"]
    return address


def _run_healthy(scene: _Scene) -> RunResult:
    """Run the job with all workers at work."""
    doing = "running with all workers at work"
    with scene.screen.step(doing, total=scene.blocks) as step:
        watcher = RunWatcher(scene.cluster, scene.names, _shown_by(step))
        result = _run(scene, scene.files.healthy, watcher)
        step.done = f"run with all workers at work: {result.summary.images_done} images"
    return result


def _run_stalled(scene: _Scene, victims: Sequence[int]) -> RunResult:
    """Run the job again, with some workers stopped once the first blocks are done."""
    processes = {
        scene.names[address]: process
        for address, process in worker_processes(scene.cluster.client).items()
    }
    chosen = dict([*processes.items()][number] for number in victims)
    after = max(1, round(STOP_AFTER * scene.blocks))
    said = f"{listed(chosen)} stopped after {after} blocks"
    with (
        scene.screen.step(f"running again, {said}", total=scene.blocks) as step,
        Stopper(chosen) as stopper,
        _without_warnings(),
    ):
        watcher = RunWatcher(scene.cluster, scene.names, _shown_by(step), stopper, after)
        result = _run(scene, scene.files.stalled, watcher)
        step.done = f"run again, {said}: {result.summary.images_done} images"
    return result


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep quiet about workers that do not answer: that is what everybody is waiting for."""
    ours = logging.getLogger("fcdcc")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(level)


def _run(scene: _Scene, output: Path, watcher: RunWatcher) -> RunResult:
    """Run the job on the cluster that is there, and look at its answers."""
    summary = run(_config(scene.files, output, _address(scene.cluster)), watcher)
    predicted = read_predictions(output, scene.held_out)
    comparison = compare(predicted, scene.plain, scene.held_out.labels)
    return RunResult(summary, comparison, watcher.timeline())


def _shown_by(step: Step) -> Callable[[RunProgress], None]:
    """Return what shows on the screen how far a run is."""
    return lambda advance: step.at(advance.blocks_done, str(advance))
