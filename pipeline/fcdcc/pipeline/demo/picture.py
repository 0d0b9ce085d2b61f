"""A picture of a run: one lane per worker, one bar per share, and what went wrong.

Drawing only: a :class:`~.timeline.Timeline` goes in, a figure or a PNG comes out. There is no
pyplot in it, so nothing is shared with a program that draws pictures of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from .lanes import Bar, Label, fault_marks, label_rows, stack_bars
from .timeline import Timeline

LABEL_ROWS, LABEL_GAP, LABEL_STEP = 3, 0.007, 0.028
"""Rows of labels above the lanes, and their places in parts of the height."""

INDENT = 0.004
"""Between a fault's line and its label, in parts of the width."""

BESIDE = 12.0
"""Pixels between labels of a row, at least."""

TOGETHER = 0.04
"""Faults of a kind that are less than this part of the picture apart share a label."""

NAME_LENGTH, LINE_LENGTH = 16, 135
"""Characters that a layer's name has room for, and a line of key figures."""


def draw_faults(figure: Figure, axes: Sequence[Axes], timeline: Timeline) -> None:
    """Draw a line through all axes at each fault, with a label above where there is room."""
    left, right = axes[0].get_xlim()
    for fault in timeline.faults:
        colour = fault_colour(fault.kind)
        for ax in axes:
            moment = fault.moment - timeline.start
            ax.axvline(moment, color=colour, linewidth=1.4, zorder=3, gid=f"fault: {fault.kind}")
    top = axes[0].get_position().y1
    # From the right: a label that has to make room moves up, and its line passes on the left of
    # those below.
    marks = fault_marks(timeline, within=TOGETHER * (right - left))[::-1]
    places = [LEFT + SPAN * (mark.moment - left) / (right - left) for mark in marks]
    texts = [
        figure.text(
            x + INDENT,
            top,
            mark.text,
            color=fault_colour(mark.kind),
            fontsize=10,
            weight="bold",
            gid="mark",
        )
        for x, mark in zip(places, marks, strict=True)
    ]
    labels = [_label(text, x) for text, x in zip(texts, places, strict=True)]
    rows = label_rows(labels, BESIDE, LABEL_ROWS)
    for text, mark, x, row in zip(texts, marks, places, rows, strict=True):
        if row is None:
            text.remove()
            continue
        y = top + LABEL_GAP + row * LABEL_STEP
        text.set_y(y)
        stem = Line2D([x, x], [top, y + 0.7 * LABEL_STEP], linewidth=1.4, gid="stem")
        stem.set_color(fault_colour(mark.kind))
        figure.add_artist(stem)


def _label(text: Text, line: float) -> Label:
    """Return where a text is, in pixels; to the left of its line if it would leave the picture."""
    if text.get_window_extent().x1 > 0.995 * WIDTH:
        text.set_horizontalalignment("right")
        text.set_x(line - INDENT)
    box = text.get_window_extent()
    return Label(box.x0, box.x1, line * WIDTH)


def draw_legend(figure: Figure, timeline: Timeline, names: Mapping[int, str]) -> None:
    """Say what the colours mean, in one line at the bottom."""
    colours = layer_colours(timeline)
    shown = list(colours)
    if len(shown) > len(LAYER_COLOURS):
        shown = [shown[0], shown[len(shown) // 2], shown[-1]]
    entries = [_entry(Look(colours[layer]), _name(layer, names)) for layer in shown]
    states = {share.state for share in timeline.shares}
    if "erased" in states:
        entries.append(_entry(ERASED, "erased: not needed"))
    if "lost" in states:
        entries.append(_entry(LOST, "lost: made again"))
    kinds = {fault.kind for fault in timeline.faults}
    if kinds & {"stopped", "killed", "lost"}:
        entries.append(_entry(Look(STOPPED_TINT), "worker stopped"))
    if "removed" in kinds:
        entries.append(_entry(Look(REMOVED_TINT), "worker given up"))
    if entries:
        figure.legend(
            handles=entries,
            loc="lower left",
            bbox_to_anchor=(LEFT - 0.008, 0.008),
            ncols=len(entries),
            frameon=False,
            fontsize=10,
            handlelength=1.6,
            columnspacing=1.8,
            labelcolor=INK,
        )


def _entry(look: Look, label: str) -> Patch:
    return Patch(
        facecolor=look.face,
        edgecolor=look.edge if look.hatch else "none",
        hatch=look.hatch or None,
        label=label,
    )


def _name(layer: int, names: Mapping[int, str]) -> str:
    name = names.get(layer, f"layer {layer}")
    return name if len(name) <= NAME_LENGTH else f"…{name[1 - NAME_LENGTH :]}"


def draw_heading(figure: Figure, title: str, facts: Sequence[str]) -> None:
    """Write the title, and under it the key figures in as many lines as they need."""
    figure.text(0.015, 0.978, title, fontsize=16, weight="bold", color=INK, va="top")
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + len(fact) < LINE_LENGTH:
            lines[-1] += f"   ·   {fact}"
        else:
            lines.append(fact)
    figure.text(
        0.015, 0.932, "\n".join(lines), fontsize=10.5, color=INK, va="top", linespacing=1.35
    )


WIDTH, HEIGHT = 1200, 700
"""Of the picture, in pixels."""

DPI = 100

LEFT, SPAN = 0.085, 0.895
"""Where the axes begin and how wide they are, in parts of the width."""

LAYER_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7")

STOPPED_TINT, REMOVED_TINT, LANE_TINT = "#FBE3D5", "#D9D9D9", "#F4F4F4"

INK, FAINT, VERMILION = "#222222", "#6B6B6B", "#D55E00"


@dataclass(frozen=True)
class Look:
    """How bars of one kind look."""

    face: str
    edge: str = "white"
    hatch: str = ""


ERASED = Look("#FFF4EC", VERMILION, "/////")

LOST = Look("#EEEEEE", "#555555", "xxxxx")


def layer_colours(timeline: Timeline) -> dict[int, str]:
    """Return a colour per layer: a few that differ clearly, or many in order."""
    layers = sorted({share.layer for share in timeline.shares})
    if len(layers) <= len(LAYER_COLOURS):
        return dict(zip(layers, LAYER_COLOURS, strict=False))
    shades = colormaps["viridis"].resampled(len(layers))
    return {layer: to_hex(shades(i)) for i, layer in enumerate(layers)}


def fault_colour(kind: str) -> str:
    """Return the colour of what was done to a worker, or of what came of it."""
    return VERMILION if kind in ("stopped", "killed", "lost") else FAINT


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
