"""The terminal output of the demo: its steps while they run, and its result."""

from __future__ import annotations

import shlex
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID
from rich.table import Column, Table

from ..installation import typed_program
from .files import HEALTHY_OUTPUT, IMAGES, MODEL, PICTURE, STALLED_OUTPUT
from .results import DemoResult

BAR_CHARACTERS, OTHER_CHARACTERS, MIN_FACTS_CHARACTERS = 16, 30, 12
"""Widths on a line of progress: of the bar, of spinner, bar and counts together, of the facts."""


@dataclass
class ShownStep:
    """A step of the demo that runs now; ``done`` is printed when it is over.

    So is how long it took; ``included`` says what beside its work is in that.
    """

    done: str
    _progress: Progress
    _task: TaskID
    _facts_characters: int
    included: str = ""

    def update(self, completed: int, facts: str = "") -> None:
        """Show how many parts are done, and facts, shortened to stay on one line."""
        facts = textwrap.shorten(facts, self._facts_characters, placeholder=" …")
        self._progress.update(self._task, completed=completed, facts=escape(facts))


@contextmanager
def show_step(console: Console, doing: str, total: int | None = None) -> Iterator[ShownStep]:
    """Show a step of ``total`` parts, or of unknown length, while it runs; leave one line of it."""
    counted = [BarColumn(BAR_CHARACTERS), MofNCompleteColumn(table_column=Column(no_wrap=True))]
    begun = time.monotonic()
    if not console.is_terminal:
        console.print(f"  {escape(doing)} …", soft_wrap=True)
    with Progress(
        SpinnerColumn(),
        "{task.description}",
        *(counted if total is not None else []),
        "[dim]{task.fields[facts]}[/dim]",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        room = console.width - len(doing) - OTHER_CHARACTERS
        task = progress.add_task(escape(doing), total=total, facts="")
        step = ShownStep(doing, progress, task, max(MIN_FACTS_CHARACTERS, room))
        yield step
    seconds = time.monotonic() - begun
    taken = f"{seconds:.1f} s{f' {step.included}' if step.included else ''}"
    console.print(f"  [green]✓[/green] {escape(step.done)} [dim]({taken})[/dim]", soft_wrap=True)


def print_result(result: DemoResult, console: Console) -> None:
    """Print what the runs returned, the files, a command to try next, and what is wrong."""
    table = Table("", box=None, padding=(0, 4, 0, 0))
    for name in result.runs:
        table.add_column(name, justify="right", header_style="bold")
    for fact in result.healthy.facts:
        table.add_row(fact, *(run.facts[fact] for run in result.runs.values()))
    console.print(Padding(table, (1, 0, 1, 2), expand=False))
    if result.plain is not None:
        console.print(
            f"Plain Dask with the same workers stopped: [bold]{result.plain_in_words}[/bold]\n"
        )

    stalled = result.stalled
    if stalled is not None and stalled.not_removed:
        said = stalled.not_removed_in_words
        console.print(f"Of the stopped workers, {said}.\n", highlight=False)

    console.print(f"Files in [bold]{escape(str(result.folder))}[/bold]", soft_wrap=True)
    files = Table.grid(padding=(0, 3, 0, 0))
    for name, description in {
        MODEL: "the network, as torch.export.save writes it",
        IMAGES: f"{len(result.healthy.labels)} labelled images that it was not trained on",
        HEALTHY_OUTPUT: "predictions made with all workers at work",
        STALLED_OUTPUT: "predictions made while workers were stopped",
        PICTURE: "a picture of the run with workers stopped",
    }.items():
        if (result.folder / name).exists():
            files.add_row(f"[cyan]{name}[/cyan]", description)
    console.print(Padding(files, (0, 0, 1, 2), expand=False))

    paths = [str(result.folder / name) for name in (MODEL, IMAGES, "mine.zarr")]
    commands = {"To run it yourself:": f"run {shlex.join(paths)}"}
    if stalled is not None:
        output = shlex.quote(str(result.folder / STALLED_OUTPUT))
        commands["To see what happened while workers were stopped, and more:"] = f"report {output}"
    for purpose, command in commands.items():
        console.print(purpose)
        line = f"  {escape(typed_program())} {escape(command)}"
        console.print(line, style="bold", soft_wrap=True, highlight=False)
    for problem in result.problems:
        console.print(f"[bold red]✗[/bold red] {escape(problem)}", soft_wrap=True)
