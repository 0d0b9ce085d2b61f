"""The progress of a run, and how it is shown: on terminals, in logs and in notebooks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from ..formatting import counted, rate, time_left
from .drawing import render

LINE_SECONDS = 10.0
"""Time between two lines about a run that go to a log."""

REDRAW_SECONDS = 0.5
"""Time between two updates of a bar in a notebook."""

ROUNDS_BEFORE_ESTIMATE = 2
"""The time left is told once so many blocks have ended for each block in flight."""


class BlockPace:
    """How fast the blocks of a run end, once enough of them have ended to say so.

    The first blocks in flight do not count: workers load what they need with them, and nothing ends
    until the first of them is through.

    Parameters
    ----------
    in_flight
        Blocks that are computed at a time.

    Examples
    --------
    >>> pace = BlockPace(in_flight=2)
    >>> for seconds in (30, 32, 36):
    ...     pace.end(seconds)
    >>> pace.seconds_per_block(now=36)
    >>> pace.end(40)
    >>> pace.seconds_per_block(now=41), pace.seconds_per_block(now=60)
    (4.0, 10.0)
    """

    def __init__(self, in_flight: int) -> None:
        self._in_flight = max(1, in_flight)
        self._ended = 0
        self._first_round = self._last = 0.0

    def end(self, now: float) -> None:
        """Take note that a block has ended."""
        self._ended += 1
        self._last = now
        if self._ended == self._in_flight:
            self._first_round = now

    def seconds_per_block(self, now: float) -> float | None:
        """Return the time from one end to the next, on average; None while it is not known.

        If no block has ended for longer than a round of blocks takes, that time counts, too.
        """
        if self._ended < ROUNDS_BEFORE_ESTIMATE * self._in_flight:
            return None
        counted_blocks = self._ended - self._in_flight
        usual = (self._last - self._first_round) / counted_blocks
        overdue = max(0.0, now - self._last - self._in_flight * usual)
        return usual + overdue / counted_blocks


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
        With sending the model to the workers, as in the summary.
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
    is_plan_rough
        Whether the run has too few blocks for that to be known well.
    work_seconds
        Since the first block began: what the plan expects ``seconds_planned`` for.
    block_seconds
        Seconds from the end of one block to that of the next; None while it is not known. See
        :class:`BlockPace`.
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
    is_plan_rough: bool = False
    work_seconds: float = 0.0
    block_seconds: float | None = None

    @property
    def images_per_second(self) -> float:
        """Images per second since the first block began."""
        return self.images_done / self.work_seconds if self.work_seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all blocks are done at this rate; None while there is no rate.

        What the page, terminals and ``fcdcc status`` tell of the time that is left.
        """
        left = self.blocks_total - self.blocks_done - self.blocks_skipped - self.blocks_failed
        return None if self.block_seconds is None else left * self.block_seconds

    def __str__(self) -> str:
        parts = [rate(self.images_per_second, self.unit)] if self.images_done else []
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
        self._task = progress.add_task("", total=None, left="")

    def step(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def advance(self, advance: RunProgress) -> None:
        self._progress.update(
            self._task,
            description="blocks",
            total=advance.blocks_total,
            completed=advance.blocks_done + advance.blocks_skipped,
            left=time_left(advance.seconds_left),
        )
        facts = Text(str(advance), no_wrap=True, overflow="ellipsis")
        self._live.update(Group(self._progress, facts))


class _Lines(Quiet):
    """Lines for logs: each step, and how far the run is every :data:`LINE_SECONDS`."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._limit = _RateLimit(LINE_SECONDS)

    def step(self, what: str) -> None:
        self._show(what)

    def advance(self, advance: RunProgress) -> None:
        done = advance.blocks_done + advance.blocks_skipped
        line = _joined(f"{done} of {counted(advance.blocks_total, 'block')}", advance)
        self._limit.call(lambda: self._show(line), now=done == advance.blocks_total)


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
        facts = _joined("", advance)
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


def _joined(begin: str, advance: RunProgress) -> str:
    """Return what is said of a run in one line: a beginning, the facts, and the time left."""
    return ", ".join(filter(None, (begin, str(advance), time_left(advance.seconds_left))))


@contextmanager
def watch(progress: bool | None, show: Callable[[str], None] | None = None) -> Iterator[Watcher]:
    """Show a run: a bar on a terminal or in a notebook, else lines on standard error.

    By default only bars. ``show`` is called with lines in place of printing them.
    """
    console = _console(progress)
    if progress is not False and _in_notebook():
        yield _InNotebook()
    elif console is None:
        yield Quiet()
    elif console.is_terminal:
        progress_bar = _bar(console, of_run=True)
        with Live(progress_bar, console=console) as live:
            yield _Bar(live, progress_bar)
    else:
        yield _Lines(show or console.print)


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


def _bar(console: Console, *, of_run: bool = False) -> Progress:
    """Return a bar in one line; a narrow terminal shows less of it.

    That of a run has the time left as :attr:`RunProgress.seconds_left`, and its facts elsewhere.
    """
    room = max(12, console.width - 56)
    remark = TextColumn(
        "{task.fields[facts]}",
        table_column=Column(no_wrap=True, overflow="ellipsis", max_width=room),
    )
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *(
            [TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True))]
            if of_run
            else [TimeRemainingColumn(table_column=Column(no_wrap=True)), remark]
        ),
        console=console,
    )
