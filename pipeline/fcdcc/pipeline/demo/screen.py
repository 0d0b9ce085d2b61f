"""What the demonstration says while it runs and at the end."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column, Table


class Step:
    """A step that is being taken.

    Parameters
    ----------
    done
        What to say of it when it is over.
    """

    def __init__(self, progress: Progress, doing: str, total: int | None) -> None:
        self.done = doing
        self._progress = progress
        self._task = progress.add_task(doing, total=total, facts="")

    def at(self, completed: int, facts: str = "") -> None:
        """Show how far it is."""
        self._progress.update(self._task, completed=completed, facts=facts)


class Screen:
    """A console with steps, each shown while it is taken and left as one line."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def heading(self, text: str) -> None:
        """Print a heading."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]\n")

    @contextmanager
    def step(self, doing: str, total: int | None = None) -> Iterator[Step]:
        """Show a step of ``total`` parts, or of unknown length, until it is over."""
        # What a narrow terminal has no room for is left out, and everything stays in one line.
        room = max(12, self.console.width - len(doing) - 30)
        whole = Column(no_wrap=True)
        cut = Column(no_wrap=True, overflow="ellipsis", max_width=room)
        columns = [SpinnerColumn(), TextColumn("{task.description}", table_column=whole)]
        if total is not None:
            number = MofNCompleteColumn(table_column=Column(no_wrap=True))
            columns += [BarColumn(bar_width=16), number]
        columns.append(TextColumn("[dim]{task.fields[facts]}[/dim]", table_column=cut))
        begun = time.monotonic()
        quiet = not self.console.is_terminal
        if quiet:
            self.console.print(f"  {escape(doing)} …", soft_wrap=True)
        with Progress(*columns, console=self.console, transient=True, disable=quiet) as progress:
            step = Step(progress, doing, total)
            yield step
        seconds = time.monotonic() - begun
        self.console.print(
            f"  [green]✓[/green] {escape(step.done)} [dim]({seconds:.1f} s)[/dim]", soft_wrap=True
        )

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column names the rows."""
        table = Table(box=None, padding=(0, 4, 0, 0))
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right", header_style="bold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(Padding(table, (1, 0, 1, 2), expand=False))

    def files(self, folder: Path, described: Mapping[str, str]) -> None:
        """Print the names of files, and what they are."""
        self.console.print(f"Files in [bold]{escape(str(folder))}[/bold]", soft_wrap=True)
        table = Table.grid(padding=(0, 3, 0, 0))
        for name, what in described.items():
            table.add_row(f"[cyan]{escape(name)}[/cyan]", what)
        self.console.print(Padding(table, (0, 0, 1, 2), expand=False))

    def command(self, says: str, command: str) -> None:
        """Print a command to copy, never broken into lines."""
        self.console.print(says)
        self.console.print(f"  {escape(command)}", style="bold", soft_wrap=True, highlight=False)

    def problem(self, text: str) -> None:
        """Print what is wrong."""
        self.console.print(f"[bold red]✗[/bold red] {escape(text)}", soft_wrap=True)


def command_line() -> str:
    """Return how the user calls ``fcdcc`` from where they are."""
    if shutil.which("fcdcc") is not None:
        return "fcdcc"
    script = Path(sys.executable).with_name("fcdcc")
    if script.exists():
        return os.path.relpath(script)
    return f"{os.path.relpath(sys.executable)} -m fcdcc.pipeline"
