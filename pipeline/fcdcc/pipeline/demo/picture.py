"""The picture of a run: one lane per worker with a bar per share, and what happened to workers.

A :class:`Timeline` goes in, a figure comes out. It does not use pyplot, so it changes nothing
for a program that draws figures of its own.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from operator import sub
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..anyk.state_machine.history import ShareRecord
from ..formatting import and_list
from ..words import WAITED_FOR_LOST_INPUT

SIZE_INCHES, DOTS_PER_INCH = (12, 7), 100

LINE_CHARACTERS = 150
"""Longest line of key figures under the title."""

LABEL_ROWS = 3
"""Rows of fault labels above the lanes; a label that needs a higher row is left out."""

LABEL_ROW_PIXELS, LABEL_GAP_PIXELS = 20, 12
"""Height of a row of fault labels, and the least distance between two labels in a row."""

SAME_LABEL_SPAN = 0.04
"""Faults of a kind share a label if they are closer than this part of the time axis."""

LONGEST_PLAIN = 1.5
"""How much longer than the runs plain Dask is drawn; it may be waiting for minutes."""

LANE_HEIGHT, BAR_HEIGHT = 0.92, 0.8
"""Height of a lane and of the bars in it; the distance between two lanes is 1."""

INK, GREY, VERMILION = "#222222", "#6B6B6B", "#D55E00"

LAYER_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7")

PHASES = (("", "#F4F4F4"), ("worker stopped", "#FBE3D5"), ("worker removed", "#D9D9D9"))
"""What the background of a lane says, from left to right: text in the legend and colour."""

UNFINISHED = {
    "erased": ("not waited for", VERMILION, "/////"),
    "superfluous": ("not needed in the end", GREY, "....."),
    "lost": ("lost: computed again", "#555555", "xxxxx"),
}
"""How shares without a result look: text in the legend, colour and hatching."""

RECALLED = (textwrap.fill(WAITED_FOR_LOST_INPUT, 22), "#9A9A9A", 0.1)
"""How shares look that a healthy worker had and that were taken back: text in the legend, colour,
and the height of a line below the worker's bars. The worker did not compute in that time."""


@dataclass(frozen=True)
class Fault:
    """Something that happened to a worker, ``worker 3``, at a moment in seconds since the epoch.

    ``stopped``: the demo stopped its process; ``removed``: the run removed it because it did
    not answer; ``lost``: it left by itself; ``joined``: it joined during the run.
    """

    worker: str
    moment: float
    kind: Literal["stopped", "removed", "lost", "joined"]


@dataclass(frozen=True)
class Timeline:
    """What happened during a run. Times are seconds since the epoch.

    ``shares`` are the scheduler's records of shares, but with names of workers, ``worker 3``,
    for their addresses. ``blocks`` are the times at which blocks were done.
    """

    shares: tuple[ShareRecord, ...]
    faults: tuple[Fault, ...]
    start: float
    stop: float
    blocks: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """Duration of the run."""
        return self.stop - self.start

    @property
    def longest_gap(self) -> float:
        """Longest time in seconds in which no block was done, from the start to the last block."""
        return max(map(sub, sorted(self.blocks), [self.start, *sorted(self.blocks)]), default=0.0)

    @property
    def blocks_when_stopped(self) -> int:
        """How many blocks were done when the first worker was stopped; all if none was."""
        moment = min((f.moment for f in self.faults if f.kind == "stopped"), default=self.stop)
        return sum(done <= moment for done in self.blocks)

    @property
    def workers(self) -> list[str]:
        """Names of the workers in the order of their numbers."""
        names = {share.worker for share in self.shares} | {fault.worker for fault in self.faults}
        return sorted(names, key=lambda name: (int(name.split()[1]), name))


def timeline_figure(
    timeline: Timeline,
    *,
    title: str = "",
    facts: Iterable[str] = (),
    layers: Mapping[int, str],
    baseline: Timeline | None = None,
    plain: Timeline | None = None,
) -> Figure:
    """Return the picture of a run, 1200 × 700 pixels.

    Parameters
    ----------
    timeline
        What happened.
    title, facts
        The heading, and key figures for the lines under it, a short phrase each.
    layers
        Names of layers by number.
    baseline
        The same job run without faults: its finished blocks are drawn beside this run's.
    plain
        The same job on plain Dask, with the same workers stopped.
    """
    figure = Figure(SIZE_INCHES, DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    lanes, blocks = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (2.4, 1), "hspace": 0.06}
    )
    figure.subplots_adjust(left=0.1, right=0.825, bottom=0.085)
    end = max(timeline.seconds, baseline.seconds if baseline else 0, 1e-3)
    if plain is not None:
        end = max(end, min(plain.seconds, LONGEST_PLAIN * end))
    lanes.set_xlim(0, 1.005 * end)
    _draw_shares(lanes, timeline, layers)
    _draw_lanes(lanes, timeline)
    _draw_blocks(blocks, timeline, baseline, plain)
    for axes in (lanes, blocks):
        _style(axes)
    lanes.tick_params(axis="x", labelbottom=False)
    lanes.spines["bottom"].set_visible(False)
    blocks.set_xlabel("seconds since the start of the run")
    label_rows = _draw_faults(lanes, blocks, timeline, figure.bbox.width)
    text = _wrapped(facts)
    rows = label_rows + max(0, text.count("\n") - 1)  # there is room for two lines
    figure.subplots_adjust(top=0.865 - rows * LABEL_ROW_PIXELS / figure.bbox.height)
    figure.suptitle(title, x=0.015, y=0.978, ha="left", fontsize=16, weight="bold", color=INK)
    figure.text(0.015, 0.932, text, fontsize=10.5, color=INK, va="top", linespacing=1.35)
    return figure


def _wrapped(facts: Iterable[str]) -> str:
    """Return phrases with dots between them, as lines that break only between phrases."""
    kept_whole = (fact.replace(" ", "\N{NO-BREAK SPACE}") for fact in facts)
    lines = textwrap.wrap("   ·   ".join(kept_whole), LINE_CHARACTERS, break_on_hyphens=False)
    return "\n".join(line.strip(" ·") for line in lines)


def _draw_lanes(axes: Axes, timeline: Timeline) -> None:
    """Draw the background of the lanes: since when each worker was stopped or removed."""
    workers = timeline.workers
    axes.set_ylim(max(len(workers), 1) - 0.45, -0.55)
    axes.set_yticks(range(len(workers)), workers)
    bounds = np.array([_phase_bounds(timeline, worker) for worker in workers]).reshape(-1, 4).T
    for (label, colour), left, right in zip(PHASES, bounds, bounds[1:], strict=False):
        seen = np.flatnonzero(right > left)
        if len(seen):
            width = (right - left)[seen]
            axes.barh(seen, width, LANE_HEIGHT, left[seen], color=colour, label=label, zorder=0)


def _phase_bounds(timeline: Timeline, worker: str) -> tuple[float, float, float, float]:
    """Return when a worker joined, stopped and was removed, and the end, in seconds of the run."""
    first: dict[str, float] = {}
    for fault in sorted(timeline.faults, key=lambda fault: fault.moment):
        if fault.worker == worker:
            first.setdefault(fault.kind, fault.moment - timeline.start)
    removed = first.get("removed", timeline.seconds)
    stopped = min(first.get("stopped", removed), first.get("lost", removed), removed)
    return first.get("joined", 0.0), stopped, removed, timeline.seconds


def _draw_shares(axes: Axes, timeline: Timeline, layers: Mapping[int, str]) -> None:
    """Draw a bar per share: in the colour of its layer, hatched if it has no result."""
    bars: dict[int | str, list[tuple[float, ...]]] = defaultdict(list)
    recalled: list[tuple[float, float, float]] = []
    for row, worker in enumerate(timeline.workers):
        own = [share for share in timeline.shares if share.worker == worker]
        for share in own:
            if share.waited_for_lost_input:
                left, width = share.start - timeline.start, share.stop - share.start
                recalled.append((row + BAR_HEIGHT / 2, width, left))
        for share, level, levels in stacked(s for s in own if not s.waited_for_lost_input):
            unfinished = share.state if share.state in UNFINISHED else "lost"
            kind = share.layer if share.state == "done" else unfinished
            height = BAR_HEIGHT / levels
            bottom = row - BAR_HEIGHT / 2 + level * height
            left, width = share.start - timeline.start, share.stop - share.start
            bars[kind].append((bottom, width, height, left))
    numbers = sorted(kind for kind in bars if isinstance(kind, int))
    finished = {
        number: (layers[number], colour, "")
        for number, colour in zip(numbers, cycle(LAYER_COLOURS), strict=False)
    }
    for kind, (label, colour, hatch) in (finished | UNFINISHED).items():
        if kind in bars:
            # The edge has a width in pixels: the shortest shares are seen too.
            style: dict[str, Any] = {
                "color": (colour, 0.1 if hatch else 0.7),
                "edgecolor": colour,
                "linewidth": 1,
            }
            bottom, width, height, left = np.array(bars[kind]).T
            axes.barh(bottom, width, height, left, align="edge", label=label, hatch=hatch, **style)
    if recalled:
        label, colour, thickness = RECALLED
        middle, width, left = np.array(recalled).T
        axes.barh(middle, width, thickness, left, label=label, color=colour)


def stacked(shares: Iterable[ShareRecord]) -> Iterator[tuple[ShareRecord, int, int]]:
    """Yield shares with their levels, so that those that run at the same time do not overlap.

    Yields
    ------
    tuple
        A share, its level from 0, and the number of levels where it is: 1 if it runs alone.
    """
    pile: list[tuple[ShareRecord, int]] = []
    free_from: list[float] = []  # when each level of the pile is free again
    for share in sorted(shares, key=lambda share: (share.start, share.stop)):
        if share.start >= max(free_from, default=share.start):
            yield from ((other, level, len(free_from)) for other, level in pile)
            pile, free_from = [], []
        free = (level for level, moment in enumerate(free_from) if moment <= share.start)
        level = next(free, len(free_from))
        free_from[level : level + 1] = [share.stop]
        pile.append((share, level))
    yield from ((other, level, len(free_from)) for other, level in pile)


def _draw_blocks(
    axes: Axes, timeline: Timeline, baseline: Timeline | None, plain: Timeline | None
) -> None:
    """Draw the number of finished blocks over time."""
    looks = [
        (timeline, "this run", INK, "solid"),
        (baseline, "without faults", GREY, "dashed"),
        (plain, "plain Dask, the same\nworkers stopped", VERMILION, "solid"),
    ]
    for run, label, colour, style in looks:
        if run is not None:
            moments = [0.0, *(moment - run.start for moment in sorted(run.blocks))]
            done = [*range(len(moments))]
            if run is plain:  # until it was given up
                moments.append(run.seconds)
                done.append(done[-1])
            axes.step(moments, done, where="post", color=colour, linestyle=style, label=label)
    if plain is not None and (stops := [f.moment for f in plain.faults if f.kind == "stopped"]):
        axes.plot(
            [min(stops) - plain.start], [plain.blocks_when_stopped], "X", color=VERMILION,
            markeredgecolor=INK, markersize=9, zorder=4, label="its workers stopped",
        )  # fmt: skip
    axes.set_ylabel("blocks\ndone", rotation=0, ha="right", va="center")
    axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def _style(axes: Axes) -> None:
    """Show a light grid in place of a frame, and the legend to the right."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1), borderaxespad=0, frameon=False)


def _draw_faults(lanes: Axes, blocks: Axes, timeline: Timeline, figure_width: float) -> int:
    """Draw a line at each fault, with a label above the lanes; return the rows of labels.

    Labels are placed from right to left, each one row above the labels that it would touch. So
    the line up to a label passes to the left of all labels below it.
    """
    placed: list[tuple[float, int]] = []  # left edge in pixels and row of each label
    for faults in _labelled_together(timeline, SAME_LABEL_SPAN * lanes.get_xlim()[1]):
        colour = VERMILION if faults[0].kind in ("stopped", "lost") else GREY
        moments = [fault.moment - timeline.start for fault in faults]
        for moment in moments:
            for axes in (lanes, blocks):
                axes.axvline(moment, color=colour, linewidth=1.4, zorder=3, gid="fault")
        stem = {"arrowstyle": "-", "relpos": (0, 0.7), "shrinkA": 0, "shrinkB": 0, "patchA": None}
        label = lanes.annotate(
            f" {listed(sorted({fault.worker for fault in faults}))} {faults[0].kind}",
            (moments[0], 1),
            (0, 0),
            xycoords=lanes.get_xaxis_transform(),
            textcoords="offset pixels",
            arrowprops=stem | {"color": colour, "linewidth": 1.4},
            color=colour,
            weight="bold",
            annotation_clip=False,
            gid="label",
        )
        box = label.get_window_extent()
        touched = (row for left, row in placed if left < box.x1 + LABEL_GAP_PIXELS)
        row = 1 + max(touched, default=-1)
        if row >= LABEL_ROWS or box.x1 > figure_width:
            label.remove()
            continue
        label.set_position((0, 6 + row * LABEL_ROW_PIXELS))
        placed.append((box.x0, row))
    return 1 + max((row for _, row in placed), default=-1)


def _labelled_together(timeline: Timeline, within: float) -> list[list[Fault]]:
    """Return groups of faults of one kind within ``within`` seconds, the latest group first."""
    groups: list[list[Fault]] = []
    for fault in sorted(timeline.faults, key=lambda fault: (fault.kind, fault.moment)):
        first = groups[-1][0] if groups else None
        if first and first.kind == fault.kind and fault.moment - first.moment <= within:
            groups[-1].append(fault)
        else:
            groups.append([fault])
    return sorted(groups, key=lambda group: -group[0].moment)


def listed(workers: Iterable[str]) -> str:
    """Return names of workers as one phrase.

    >>> listed(["worker 1", "worker 4"])
    'workers 1 and 4'
    """
    numbers = [name.removeprefix("worker ") for name in workers]
    if len(numbers) == 1:
        return f"worker {numbers[0]}"
    if len(numbers) > 4:
        numbers[3:] = [f"{len(numbers) - 3} more"]
    return f"workers {and_list(numbers)}"
