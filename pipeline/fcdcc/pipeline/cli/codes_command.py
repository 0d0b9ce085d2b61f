"""``fcdcc codes``: compare codes as tables, as JSON or as a figure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from .command_output import STDOUT, check_can_write, write_result

if TYPE_CHECKING:
    from rich.table import Table

    from fcdcc.coding.comparison import CodeRow


TABLE_WIDTH = 132
"""Characters per line that the tables need; narrower terminals wrap the lines."""

Columns: TypeAlias = "dict[str, Callable[[CodeRow], str]]"
"""Columns of a table: their headings, and functions that return the text of a cell."""


@click.command()
@click.option("--n", type=click.IntRange(1, 512), required=True, help="number of shares per layer")
@click.option(
    "--delta", type=click.IntRange(1, 512), required=True, help="δ: number of shares that suffice"
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="write the comparison as JSON to this file; - for standard output",
)
@click.option(
    "--plot", metavar="FILE", help="draw the comparison into this file: .png, .svg or .pdf"
)
def codes(n: int, delta: int, json_file: str | None, plot: str | None) -> None:
    """Compare all codes with N shares of which DELTA suffice: conditioning, error, cost.

    Errors are measured on the fourth convolution of AlexNet, with random survivors and with the
    worst survivors found.
    """
    for file in (json_file, plot):
        if file is not None:
            check_can_write(file)
    from fcdcc.coding.comparison import compare_codes

    rows = compare_codes(n, delta)
    if plot is not None:
        draw_codes(rows, plot)
    if json_file != STDOUT:
        _print_tables(rows)
    if json_file is not None:
        write_result(json_file, json.dumps([row.to_dict() for row in rows], indent=2))


def _print_tables(rows: Sequence[CodeRow]) -> None:
    """Print the comparison as tables: accuracy after losses, cost of a share, every split."""
    from rich.console import Console

    first = rows[0]
    title = f"n = {first.n}, any δ = {first.recovery_threshold} suffice"
    console = Console(width=max(TABLE_WIDTH, Console().width))
    console.print(_table(f"Accuracy: {title}", rows, ACCURACY))
    console.print(_table("Cost of the most expensive share, in float32", rows, COST))
    if any(row.splits for row in rows):
        console.print(
            _table("Worst condition number of every split, k_a × k_b parts", rows, SPLITS)
        )
    console.print(
        "Condition numbers: over all losses of γ shares if these can be enumerated (all), else "
        "over samples, contiguous losses and a search for bad ones (search: a lower bound). "
        "Errors: mean squared error relative to the power of the output, from random / from the "
        "worst survivors. Layer: AlexNet conv4, one image. Plans do not use the splits in "
        "brackets; complex: with complex parity, the systematic code's others with quaternions.",
        soft_wrap=True,
    )


def _table(title: str, rows: Sequence[CodeRow], columns: Columns) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in ("code", "every split") else "right")
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    return table


ACCURACY: Columns = {
    "code": lambda row: row.label,
    "γ": lambda row: str(row.tolerance),
    "worst": lambda row: f"{row.conditions.worst:.3g}",
    "99 %": lambda row: f"{row.conditions.percentile_99:.3g}",
    "median": lambda row: f"{row.conditions.median:.3g}",
    "losses": lambda row: f"{row.conditions.looked_at} ({row.conditions.method})",
    "error float32": lambda row: f"{row.float32.random:.1e} / {row.float32.worst:.1e}",
    "error float64": lambda row: f"{row.float64.random:.1e} / {row.float64.worst:.1e}",
}

COST: Columns = {
    "code": lambda row: row.label,
    "k_a × k_b": lambda row: f"{row.k_a} × {row.k_b}",
    "multiply-adds": lambda row: f"{row.work / 1e6:.1f} M",
    "up": lambda row: f"{row.upload_bytes / 1024:.0f} KiB",
    "down": lambda row: f"{row.download_bytes / 1024:.0f} KiB",
    "stored": lambda row: f"{row.stored_bytes / 1024:.0f} KiB",
    "work, all shares": lambda row: f"{row.total_work:.2f}",
    "decoding, worst": lambda row: f"{row.decoding:.4f}",
    "decoding, none lost": lambda row: f"{row.decoding_none_lost:.4f}",
}
"""Columns of costs; work and decoding are relative to the uncoded convolution."""


def _splits(row: CodeRow) -> str:
    """Return the worst condition number of every split of a code, for one cell."""
    cells = []
    for split in row.splits:
        parity = " complex" if split.parity == "complex" else ""
        cell = f"{split.k_a} × {split.k_b}{parity}: {split.worst:.3g}"
        cells.append(cell if split.planned else f"({cell})")
    return ", ".join(cells)


SPLITS: Columns = {"code": lambda row: row.label, "every split": _splits}


def draw_codes(rows: Sequence[CodeRow], path: str | Path) -> None:
    """Draw the rows of :func:`fcdcc.coding.comparison.compare_codes` into a file.

    The left panel shows the worst, 99th percentile and median condition number of every code;
    the right panel its mean squared errors in float32 and float64, from random and from the worst
    survivors. Both axes are logarithmic. A code that does not decode has no mark.

    Parameters
    ----------
    rows
        At least one row.
    path
        The file; matplotlib takes the format from its suffix: .png, .svg, .pdf.

    Raises
    ------
    ValueError
        If there are no rows, or matplotlib does not know the format.
    """
    if not rows:
        raise ValueError("no codes to draw; expected at least one row")
    # These classes need neither a window system nor the global state of pyplot.
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
