"""How far a run is, and how that is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Advance", "Quiet", "Watcher", "watch"]


@dataclass(frozen=True)
class Advance:
    """How far a run is.

    Parameters
    ----------
    blocks_total, blocks_done, blocks_skipped, blocks_failed
        As in the summary.
    images_done
        In this run.
    seconds
        Since the first block started.
    erasures, workers_lost
        So far.
    """

    blocks_total: int
    blocks_done: int
    blocks_skipped: int
    blocks_failed: int
    images_done: int
    seconds: float
    erasures: int
    workers_lost: int

    def __str__(self) -> str:
        rate = self.images_done / self.seconds if self.seconds > 0 else 0.0
        parts = [f"{rate:.0f} images/s"]
        if self.erasures:
            parts.append(f"{self.erasures} shares not waited for")
        if self.workers_lost:
            parts.append(f"{self.workers_lost} workers lost")
        if self.blocks_failed:
            parts.append(f"{self.blocks_failed} blocks failed")
        return ", ".join(parts)


class Watcher(Protocol):
    """Somebody who is told what a run does."""

    def step(self, what: str) -> None:
        """Tell what is done before the first block."""

    def begin(self, run: str) -> None:
        """Tell that the first block is about to start, and the run's id in its task keys."""

    def advance(self, advance: Advance) -> None:
        """Tell how far the run is; called after every block and a few times a second."""


class Quiet:
    """Nobody watches."""

    def step(self, what: str) -> None:
        """Do nothing."""

    def begin(self, run: str) -> None:
        """Do nothing."""

    def advance(self, advance: Advance) -> None:
        """Do nothing."""


class _Bar(Quiet):
    """A bar on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, facts="")

    def step(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def advance(self, advance: Advance) -> None:
        self._progress.update(
            self._task,
            description="blocks",
            total=advance.blocks_total,
            completed=advance.blocks_done + advance.blocks_skipped,
            facts=str(advance),
        )


class _Lines(Quiet):
    """Plain lines for logs: each step, and how far the run is every ten seconds."""

    EVERY = 10.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def step(self, what: str) -> None:
        self._console.print(what)

    def advance(self, advance: Advance) -> None:
        done = advance.blocks_done + advance.blocks_skipped
        if time.monotonic() >= self._next or done == advance.blocks_total:
            self._next = time.monotonic() + self.EVERY
            self._console.print(f"{done} of {advance.blocks_total} blocks, {advance}")


@contextmanager
def watch(progress: bool | None) -> Iterator[Watcher]:
    """Show a run on standard error: a bar on a terminal, else lines; by default only the bar."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if progress is False or (progress is None and not sys.stderr.isatty()):
        yield Quiet()
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
        )
        with Progress(*columns, console=console) as bar:
            yield _Bar(bar)
    else:
        yield _Lines(console)
