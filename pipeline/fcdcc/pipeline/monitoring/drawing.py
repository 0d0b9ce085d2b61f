"""Templates and drawings for the HTML of the page and of the report.

Drawings are SVG that is
stretched to the width of the page. So they contain no text: labels are HTML beside them, which
keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .. import templates
from ..formatting import rounded

WIDTH = 1000
"""Units of a drawing from its left to its right end."""

MIN_SPAN_WIDTH = 0.8
"""Least width of a span in units of the drawing, so that it stays visible."""

CURVE_HEIGHT = 120
MAX_CURVE_STEPS = 400


def render(name: str, /, **values: object) -> str:
    """Return a template of this package as HTML; all values are escaped."""
    return templates.render(__name__.rpartition(".")[0], name, **values)


@dataclass(frozen=True)
class Span:
    """A part of a lane: from ``left`` to ``right``, both from 0 to 1 over its width."""

    left: float
    right: float
    kind: str
    label: str = ""
    height: float = 1.0
    """From the bottom of the lane, as a part of its height."""

    @property
    def x(self) -> float:
        """Where it begins, in units of the drawing."""
        return WIDTH * min(1.0, max(0.0, self.left))

    @property
    def width(self) -> float:
        """How wide it is, in units of the drawing."""
        return max(MIN_SPAN_WIDTH, WIDTH * min(1.0, max(0.0, self.right)) - self.x)


@dataclass(frozen=True)
class AxisTick:
    """An upright line, in units of the drawing from its left end."""

    x: float
    label: str
    kind: str = ""


@dataclass(frozen=True)
class ConditionStrip:
    """Condition numbers along a logarithmic axis from 1 to ``top``."""

    ticks: tuple[AxisTick, ...]
    sentence: str
    top: float


def condition_strip(
    recent: Iterable[float | None], largest: float | None, limit: float | None
) -> ConditionStrip | None:
    """Return the condition numbers of recent decodes, with the limit; None if there are none.

    Parameters
    ----------
    recent
        Of the latest decodes.
    largest
        Of all decodes.
    limit
        Above which one more share is waited for.
    """
    some = [*recent]
    if not some:
        return None
    values = [value for value in some if value is not None and value >= 1]
    limits = [limit * 1.5] if limit else []
    top = max(10.0, *values, *limits)
    scale = WIDTH / math.log10(top)
    ticks = [AxisTick(scale * math.log10(value), rounded(value)) for value in values]
    sentence = f"largest of all {rounded(largest)}"
    if limit:
        ticks.append(AxisTick(scale * math.log10(limit), f"limit {rounded(limit)}", "limit"))
        sentence += f"; one more share is waited for above {rounded(limit)}"
    return ConditionStrip(tuple(ticks), sentence, top)


def staircase(places: Sequence[float]) -> str:
    """Return the cumulative distribution of some values from 0 to 1 as the path of an SVG.

    The path rises from left to right: at each x its height is the fraction of the values that are
    at most x.
    """
    ordered = sorted(places)
    step = max(1, len(ordered) // MAX_CURVE_STEPS)
    chosen = sorted({*range(step - 1, len(ordered), step), len(ordered) - 1})
    path, height = f"M0 {CURVE_HEIGHT}", float(CURVE_HEIGHT)
    for number in chosen:
        x, top = WIDTH * ordered[number], CURVE_HEIGHT * (1 - (number + 1) / len(ordered))
        path += f"L{x:.1f} {height:.1f}L{x:.1f} {top:.1f}"
        height = top
    return f"{path}L{WIDTH} {height:.1f}"
