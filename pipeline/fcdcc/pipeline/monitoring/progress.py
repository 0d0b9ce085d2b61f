"""The progress of a run, and how it is shown: on terminals, in logs and in notebooks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from ..formatting import counted
from .drawing import render

LINE_SECONDS = 10.0
"""Time between two lines about a run that go to a log."""

REDRAW_SECONDS = 0.5
"""Time between two updates of a bar in a notebook."""


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
        Blocks that are being computed.
    extra_work
        As in the summary, so far.
    slow
        The workers that are slow, in words; '' if none is.
    unit
        What an image is called: a tile in a job with tiles.
    seconds_planned
        Seconds that the plan expects for the blocks of this run; None if it has no forecast.
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
    unit: str = "image"
    seconds_planned: float | None = None

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
        parts = [f"{self.images_per_second:,.0f} {self.unit}s/s"]
        if self.erasures:
            parts.append(counted(self.erasures, "share") + " not waited for")
        if self.extra_work >= 0.005:
            parts.append(f"{100 * self.extra_work:.0f} % extra work")
        if self.workers_lost:
            parts.append(counted(self.workers_lost, "worker") + " lost")
        if self.corrupt_shares:
            parts.append(counted(self.corrupt_shares, "wrong share"))
        if self.blocks_failed:
            parts.append(counted(self.blocks_failed, "block") + " failed")
        if self.slow:
            parts.append(f"slow: {self.slow}")
        return ", ".join(parts)


class Watcher(Protocol):
    """The interface through which a run shows its progress."""

    def step(self, what: str) -> None:
        """Show what is done before the first block."""

    def begin(self, run: str) -> None:
        """Take note that the first block is about to start, and of the run's id in task keys."""

    def advance(self, advance: RunProgress) -> None:
        """Show how far the run is; called after every block and a few times a second."""


class Quiet:
    """Shows nothing."""

    def step(self, what: str) -> None:
        """Do nothing."""

    def begin(self, run: str) -> None:
        """Do nothing."""

    def advance(self, advance: RunProgress) -> None:
        """Do nothing."""


class _Bar(Quiet):
    """A bar on a terminal, and a line with numbers below it."""

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
    """Lines for logs: each step, and how far the run is every :data:`LINE_SECONDS`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._limit = _RateLimit(LINE_SECONDS)

    def step(self, what: str) -> None:
        self._console.print(what)

    def advance(self, advance: RunProgress) -> None:
        done = advance.blocks_done + advance.blocks_skipped
        line = f"{done} of {counted(advance.blocks_total, 'block')}, {advance}{_left(advance)}"
        self._limit.call(lambda: self._console.print(line), now=done == advance.blocks_total)


class _InNotebook(Quiet):
    """A bar in a notebook, which is drawn again in its place; this process must serve one."""

    def __init__(self) -> None:
        display: Any = sys.modules["IPython"].display  # IPython has no type hints
        self._html = display.HTML
        self._handle = display.display(self._html(""), display_id=True)
        self._limit = _RateLimit(REDRAW_SECONDS)

    def step(self, what: str) -> None:
        self._draw(what, 0, None, "", now=True)

    def advance(self, advance: RunProgress) -> None:
        done, total = advance.blocks_done + advance.blocks_skipped, advance.blocks_total
        facts = f"{advance}{_left(advance)}"
        self._draw("blocks", done, total, facts, now=done == total)

    def _draw(self, what: str, done: int, total: int | None, facts: str, *, now: bool) -> None:
        values = {"what": what, "done": done, "total": total, "facts": facts}
        self._limit.call(
            lambda: self._handle.update(self._html(render("notebook.html", **values))), now=now
        )


def _in_notebook() -> bool:
    """Return whether this process serves a notebook."""
    module: Any = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _left(advance: RunProgress) -> str:
    left = advance.seconds_left
    return "" if left is None or left < 1 else f", {timedelta(seconds=round(left))} left"


@contextmanager
def watch(progress: bool | None) -> Iterator[Watcher]:
    """Show a run: a bar on a terminal or in a notebook, else lines on standard error.

    By default only bars.
    """
    console = _console(progress)
    if progress is not False and _in_notebook():
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
def show_count(what: str, progress: bool | None) -> Iterator[Callable[[int, int, str], None]]:
    """Show how many of something are done, where :func:`watch` would show a run.

    What it yields takes how many are done, how many there are, and a remark.
    """
    console = _console(progress)
    if console is None:
        yield lambda done, total, remark: None  # noqa: ARG005 - nothing is shown
    elif console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(what, total=None, facts="")
            yield lambda done, total, remark: bar.update(
                task, completed=done, total=total, facts=remark
            )
    else:
        limit = _RateLimit(LINE_SECONDS)
        yield lambda done, total, remark: limit.call(
            lambda: console.print(f"{done} of {total} {what} {remark}".rstrip()),
            now=done == total,
        )


class _RateLimit:
    """Calls a function at most once per ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def call(self, action: Callable[[], None], *, now: bool) -> None:
        """Call ``action`` if enough time has passed, or in any case if ``now``."""
        if now or time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            action()


def _console(progress: bool | None) -> Console | None:
    """Return where progress is shown; None if it is not."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return None
    return Console(stderr=True, soft_wrap=True, highlight=False)


def _bar(console: Console, *, facts: bool = True) -> Progress:
    """Return a bar in one line; a narrow terminal shows less of it."""
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
