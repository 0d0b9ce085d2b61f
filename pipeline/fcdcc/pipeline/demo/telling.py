"""What the demonstration leaves at the end: a picture, a table, and what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from .files import DemoFiles
from .lanes import listed
from .picture import draw_timeline
from .results import DemoResult, RunResult
from .screen import Screen, command_line

__all__ = ["draw", "tell"]

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
