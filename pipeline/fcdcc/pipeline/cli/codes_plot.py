"""The comparison of codes as a picture: condition numbers beside errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from fcdcc.coding.comparison import CodeRow


def draw_codes(rows: Sequence[CodeRow], path: str | Path) -> None:
    """Draw the rows of :func:`fcdcc.coding.comparison.compare_codes` into a file.

    On the left the worst, 99th percentile and median condition number of every code, on the
    right its mean squared errors in float32 and float64, from random and from the worst
    survivors; both axes logarithmic. What does not decode has no mark.

    Parameters
    ----------
    rows
        At least one.
    path
        The file; its ending says the format, as matplotlib knows it: .png, .svg, .pdf.

    Raises
    ------
    ValueError
        If there are no rows, or matplotlib does not know the format.
    """
    if not rows:
        raise ValueError("no codes to draw; expected at least one row")
    # Drawn without a window system, and without the global state of pyplot.
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.6 + 0.38 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    places = list(range(len(rows)))[::-1]

    def mark(axis: Axes, value: Callable[[CodeRow], float], style: str, label: str) -> None:
        shown = [value(row) for row in rows]
        finite = [(v, p) for v, p in zip(shown, places, strict=True) if math.isfinite(v) and v > 0]
        axis.plot([v for v, _ in finite], [p for _, p in finite], style, label=label)

    mark(left, lambda row: row.conditions.worst, "C3s", "worst")
    mark(left, lambda row: row.conditions.percentile_99, "C1o", "99th percentile")
    mark(left, lambda row: row.conditions.median, "C0|", "median")
    mark(right, lambda row: row.float32.worst, "C3s", "float32, worst survivors")
    mark(right, lambda row: row.float32.random, "C1o", "float32, random survivors")
    mark(right, lambda row: row.float64.worst, "C4s", "float64, worst survivors")
    mark(right, lambda row: row.float64.random, "C0o", "float64, random survivors")
    left.set_yticks(places, [row.label for row in rows])
    left.set_xlabel("condition number")
    right.set_xlabel("mean squared error / power of the output")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.grid(visible=True, axis="both", alpha=0.3)
        axis.legend(fontsize="small")
    coded = next((row for row in rows if row.tolerance), rows[0])
    how = "all losses" if coded.conditions.method == "all" else "samples and a search"
    figure.suptitle(f"Codes for n = {coded.n}, δ = {coded.n - coded.tolerance}: {how}")
    figure.savefig(path)
