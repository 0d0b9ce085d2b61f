"""What is written around the picture of a run: faults, legend, heading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from .lanes import Label, fault_marks, label_rows
from .look import (
    ERASED,
    INK,
    LAYER_COLOURS,
    LEFT,
    LOST,
    REMOVED_TINT,
    SPAN,
    STOPPED_TINT,
    WIDTH,
    Look,
    fault_colour,
    layer_colours,
)
from .timeline import Timeline

__all__ = ["draw_faults", "draw_heading", "draw_legend"]

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
