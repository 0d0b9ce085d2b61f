"""A picture of a run: one lane per worker, one bar per share, and what went wrong.

Drawing only: a :class:`~.timeline.Timeline` goes in, a figure or a PNG comes out. There is no
pyplot in it, so nothing is shared with a program that draws pictures of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .captions import draw_faults, draw_heading, draw_legend
from .lanes import Bar, stack_bars
from .look import (
    DPI,
    ERASED,
    FAINT,
    HEIGHT,
    INK,
    LANE_TINT,
    LEFT,
    LOST,
    REMOVED_TINT,
    SPAN,
    STOPPED_TINT,
    WIDTH,
    Look,
    layer_colours,
)
from .timeline import Timeline

__all__ = ["HEIGHT", "WIDTH", "draw_timeline", "timeline_figure"]

BAR_HEIGHT = 0.8
"""Of a lane's 1; the rest is space between lanes."""

THINNEST = 1.3
"""Pixels: a share that took less time is still seen."""

OUTLINED = 4.0
"""Pixels: a bar that is at least so wide has an outline, to tell it from the next."""


def draw_timeline(
    timeline: Timeline,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    facts: Iterable[str] = (),
    layers: Mapping[int, str] | None = None,
    baseline: Timeline | None = None,
) -> None:
    """Write the picture of a run as a PNG of 1200 × 700 pixels.

    The parameters are those of :func:`timeline_figure`.
    """
    figure = timeline_figure(timeline, title=title, facts=facts, layers=layers, baseline=baseline)
    figure.savefig(path, format="png", dpi=DPI)


def timeline_figure(
    timeline: Timeline,
    *,
    title: str = "",
    facts: Iterable[str] = (),
    layers: Mapping[int, str] | None = None,
    baseline: Timeline | None = None,
) -> Figure:
    """Return the picture of a run.

    Parameters
    ----------
    timeline
        What happened.
    title
        The heading: what the reader should see.
    facts
        Key figures, a short phrase each, for the lines under the heading.
    layers
        Names of layers by number; the others are called ``layer i``.
    baseline
        The same run without faults: its blocks are drawn beside this one's, if both say when
        they were done.
    """
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    bottom = 0.315 if timeline.blocks else 0.15
    top = 0.785 if timeline.faults else 0.86
    lanes = figure.add_axes((LEFT, bottom, SPAN, top - bottom), label="lanes")
    axes = [lanes]
    ends = [timeline.seconds]
    if timeline.blocks:
        axes.append(figure.add_axes((LEFT, 0.145, SPAN, 0.145), sharex=lanes, label="blocks"))
        _draw_blocks(axes[1], timeline, baseline)
        ends += [baseline.seconds] if baseline is not None and baseline.blocks else []
    lanes.set_xlim(0, max(*ends, 1e-3) * 1.005)
    _draw_lanes(lanes, timeline)
    _dress(axes)
    draw_faults(figure, axes, timeline)
    draw_legend(figure, timeline, layers or {})
    draw_heading(figure, title, tuple(facts))
    return figure


def _draw_lanes(axes: Axes, timeline: Timeline) -> None:
    """Draw every worker's lane: its background and its shares."""
    rows = {worker: row for row, worker in enumerate(timeline.workers)}
    for worker, row in rows.items():
        _draw_background(axes, timeline, worker, row)
    bars = stack_bars(timeline, rows, BAR_HEIGHT)
    for layer, colour in layer_colours(timeline).items():
        done = [bar for bar in bars if bar.share.state == "done" and bar.share.layer == layer]
        _add_bars(axes, done, f"done: {layer}", Look(colour))
    _add_bars(axes, [bar for bar in bars if bar.share.state == "erased"], "erased", ERASED)
    _add_bars(axes, [bar for bar in bars if bar.share.state == "lost"], "lost", LOST)
    axes.set_ylim(max(len(rows), 1) - 0.45, -0.55)
    axes.set_yticks(list(rows.values()), list(rows))
    if not timeline.shares:
        axes.text(0.5, 0.5, "no shares", transform=axes.transAxes, ha="center", color=FAINT)


def _draw_background(axes: Axes, timeline: Timeline, worker: str, row: int) -> None:
    """Draw a lane from when its worker was there, in another tint when it was not at work."""
    joined, stopped, killed, lost, removed = (
        timeline.moment(worker, kind) for kind in ("joined", "stopped", "killed", "lost", "removed")
    )
    halted = min((m for m in (stopped, killed, lost) if m is not None), default=None)
    phases = [
        (timeline.start if joined is None else joined, LANE_TINT, "at work"),
        (halted, STOPPED_TINT, "stopped"),
        (removed, REMOVED_TINT, "removed"),
        (timeline.stop, "", ""),
    ]
    known = [(moment, tint, what) for moment, tint, what in phases if moment is not None]
    for (left, tint, what), (right, _, _) in pairwise(known):
        axes.add_patch(
            Rectangle(
                (left - timeline.start, row - 0.46),
                max(right - left, 0),
                0.92,
                facecolor=tint,
                edgecolor="none",
                zorder=0,
                gid=f"{what}: {worker}",
            )
        )


def _add_bars(axes: Axes, bars: Sequence[Bar], name: str, look: Look) -> None:
    """Add bars that look alike, as one artist whose gid is their name."""
    if not bars:
        return
    pixel = _seconds_per_pixel(axes)
    corners, outlines = [], []
    for bar in bars:
        right = max(bar.right, bar.left + THINNEST * pixel)
        low, high = bar.top, bar.top + bar.height
        corners.append([(bar.left, low), (right, low), (right, high), (bar.left, high)])
        wide = right - bar.left >= OUTLINED * pixel
        outlines.append((1.0 if wide else 0.4) if look.hatch else (0.5 if wide else 0.0))
    collection = PolyCollection(
        corners,
        facecolors=look.face,
        edgecolors=look.edge,
        linewidths=outlines,
        hatch=look.hatch or None,
    )
    collection.set_gid(name)
    collection.set_zorder(2 if look.hatch else 1.5)
    axes.add_collection(collection, autolim=False)


def _seconds_per_pixel(axes: Axes) -> float:
    """Return how much time one pixel of the picture is."""
    left, right = axes.get_xlim()
    return float(right - left) / (SPAN * WIDTH)


def _draw_blocks(axes: Axes, timeline: Timeline, baseline: Timeline | None) -> None:
    """Draw how many blocks were done by when."""
    if baseline is not None and baseline.blocks:
        _draw_steps(axes, baseline, FAINT, "without faults", (0, (4, 2)))
    _draw_steps(axes, timeline, INK, "this run", "solid")
    if len(axes.lines) > 1:
        axes.legend(
            loc="upper left", fontsize=10, labelcolor=INK, framealpha=1, edgecolor="none"
        ).set_zorder(4)
    axes.set_ylabel("blocks\ndone", rotation=0, ha="right", va="center", fontsize=10)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def _draw_steps(
    axes: Axes, timeline: Timeline, colour: str, label: str, dashes: str | tuple[float, Any]
) -> None:
    """Draw one staircase, from nothing at the start to all at the end."""
    moments = [moment - timeline.start for moment in sorted(timeline.blocks)]
    heights = range(len(moments) + 1)
    axes.step([0.0, *moments], heights, where="post", color=colour, label=label, linestyle=dashes)


def _dress(axes: Sequence[Axes]) -> None:
    """Remove what is not needed, and say what the horizontal axis is."""
    for ax in axes:
        for side in ("top", "right", "left"):
            ax.spines[side].set_visible(False)
        ax.tick_params(axis="both", length=0, labelsize=10, colors=INK)
        ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)
    for ax in axes[:-1]:
        ax.tick_params(axis="x", labelbottom=False)
        ax.spines["bottom"].set_visible(False)
    axes[-1].set_xlabel("seconds since the start of the run", fontsize=10, color=INK)
