"""How far a run is, and how that is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from .notebook import NotebookBar, in_notebook


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Parameters
    ----------
    blocks_total, blocks_done, blocks_skipped, blocks_failed
        As in the summary.
    images_done
        In this run.
    seconds
        Since the first block started.
    erasures, workers_lost, corrupt_shares
        So far.
    blocks_in_flight
        Blocks that are worked on.
    extra_work
        As in the summary, so far.
    slow
        The workers that are late, in words; '' while nobody is.
    """

    blocks_total: int
    blocks_done: int
    blocks_skipped: int
    blocks_failed: int
    images_done: int
    seconds: float
    erasures: int
    workers_lost: int
    corrupt_shares: int = 0
    blocks_in_flight: int = 0
    extra_work: float = 0.0
    slow: str = ""

    @property
    def images_per_second(self) -> float:
        """Images per second since the first block started."""
        return self.images_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all blocks are done at this rate; None while there is no rate."""
        left = self.blocks_total - self.blocks_done - self.blocks_skipped - self.blocks_failed
        return left * self.seconds / self.blocks_done if self.blocks_done else None

    def __str__(self) -> str:
        parts = [f"{self.images_per_second:.0f} images/s"]
        if self.erasures:
            parts.append(f"{self.erasures} shares not waited for")
        if self.extra_work >= 0.005:
            parts.append(f"{100 * self.extra_work:.0f} % extra work")
        if self.workers_lost:
            parts.append(f"{self.workers_lost} workers lost")
        if self.corrupt_shares:
            parts.append(f"{self.corrupt_shares} wrong shares")
        if self.blocks_failed:
            parts.append(f"{self.blocks_failed} blocks failed")
        if self.slow:
            parts.append(f"slow: {self.slow}")
        return ", ".join(parts)


class Watcher(Protocol):
    """Somebody who is told what a run does."""

    def step(self, what: str) -> None:
        """Tell what is done before the first block."""

    def begin(self, run: str) -> None:
        """Tell that the first block is about to start, and the run's id in its task keys."""

    def advance(self, advance: RunProgress) -> None:
        """Tell how far the run is; called after every block and a few times a second."""


class Quiet:
    """Nobody watches."""

    def step(self, what: str) -> None:
        """Do nothing."""

    def begin(self, run: str) -> None:
        """Do nothing."""

    def advance(self, advance: RunProgress) -> None:
        """Do nothing."""


class _Bar(Quiet):
    """A bar on a terminal, and a line with the facts below it."""

    def __init__(self, live: Live, progress: Progress) -> None:
        self._live = live
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def step(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def advance(self, advance: RunProgress) -> None:
        self._progress.update(
            self._task,
            description="blocks",
            total=advance.blocks_total,
            completed=advance.blocks_done + advance.blocks_skipped,
        )
        facts = Text(str(advance), no_wrap=True, overflow="ellipsis")
        self._live.update(Group(self._progress, facts))


class _Lines(Quiet):
    """Plain lines for logs: each step, and how far the run is every ten seconds."""

    EVERY = 10.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._every = _Every(self.EVERY)

    def step(self, what: str) -> None:
        self._console.print(what)

    def advance(self, advance: RunProgress) -> None:
        done = advance.blocks_done + advance.blocks_skipped
        line = f"{done} of {advance.blocks_total} blocks, {advance}{_left(advance)}"
        self._every.call(done == advance.blocks_total, lambda: self._console.print(line))


class _InNotebook(Quiet):
    """A bar in a notebook."""

    def __init__(self) -> None:
        self._bar = NotebookBar()

    def step(self, what: str) -> None:
        self._bar.draw(what, 0, None, "", now=True)

    def advance(self, advance: RunProgress) -> None:
        done, total = advance.blocks_done + advance.blocks_skipped, advance.blocks_total
        facts = f"{advance}{_left(advance)}"
        self._bar.draw("blocks", done, total, facts, now=done == total)


def _left(advance: RunProgress) -> str:
    left = advance.seconds_left
    return "" if left is None or left < 1 else f", {timedelta(seconds=round(left))} left"


@contextmanager
def watch(progress: bool | None) -> Iterator[Watcher]:
    """Show a run: a bar on a terminal or in a notebook, else lines on standard error.

    By default only bars.
    """
    console = _console(progress)
    if progress is not False and in_notebook():
        yield _InNotebook()
    elif console is None:
        yield Quiet()
    elif console.is_terminal:
        progress_bar = _bar(console, facts=False)
        with Live(progress_bar, console=console) as live:
            yield _Bar(live, progress_bar)
    else:
        yield _Lines(console)


@contextmanager
def count(what: str, progress: bool | None) -> Iterator[Callable[[int, int, str], None]]:
    """Show how many of something are done, where :func:`watch` would show a run.

    What it yields takes how many are done, how many there are, and a remark.
    """
    console = _console(progress)
    if console is None:
        yield lambda done, total, remark: None  # noqa: ARG005 - nobody watches
    elif console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(what, total=None, facts="")
            yield lambda done, total, remark: bar.update(
                task, completed=done, total=total, facts=remark
            )
    else:
        every = _Every(_Lines.EVERY)
        yield lambda done, total, remark: every.call(
            done == total, lambda: console.print(f"{done} of {total} {what} {remark}".rstrip())
        )


class _Every:
    """Does something at most every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def call(self, now: bool, action: Callable[[], None]) -> None:
        """Do it if it is time, or anyway."""
        if now or time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            action()


def _console(progress: bool | None) -> Console | None:
    """Return where progress is shown; None where it is not."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return None
    return Console(stderr=True, soft_wrap=True, highlight=False)


def _bar(console: Console, *, facts: bool = True) -> Progress:
    """Return a bar in one line; what a narrow terminal has no room for is left out."""
    room = max(12, console.width - 56)
    remark = TextColumn(
        "{task.fields[facts]}",
        table_column=Column(no_wrap=True, overflow="ellipsis", max_width=room),
    )
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        *([remark] if facts else []),
        console=console,
    )
