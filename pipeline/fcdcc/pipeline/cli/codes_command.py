"""``fcdcc codes``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import click

from .results import check_can_write, write_result

if TYPE_CHECKING:
    from rich.table import Table

    from fcdcc.coding.comparison import CodeRow


WIDTH = 132
"""Columns that the tables need; narrower terminals wrap, which loses nothing."""

Cells: TypeAlias = "dict[str, Callable[[CodeRow], str]]"
"""Columns: their names, and what stands in them."""


@click.command()
@click.option("--n", type=click.IntRange(1, 512), required=True, help="shares per layer")
@click.option("--delta", type=click.IntRange(1, 512), required=True, help="δ: how many suffice")
@click.option("--json", "json_file", metavar="FILE", help="write JSON; - for standard output")
@click.option("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
def codes(n: int, delta: int, json_file: str | None, plot: str | None) -> None:
    """Compare all codes with N shares of which DELTA suffice: conditioning, error, cost.

    Measured on a real layer, the fourth of AlexNet, with random survivors and the worst found.
    """
    for file in (json_file, plot):
        if file is not None:
            check_can_write(file)
    from fcdcc.coding.comparison import compare_codes

    rows = compare_codes(n, delta)
    if plot is not None:
        from .codes_plot import draw_codes

        draw_codes(rows, plot)
    if json_file != "-":
        _show(rows)
    if json_file is not None:
        write_result(json_file, json.dumps([row.to_dict() for row in rows], indent=2))


def _show(rows: Sequence[CodeRow]) -> None:
    """Print the comparison as two tables: what a loss does to accuracy, and what a share costs."""
    from rich.console import Console

    first = rows[0]
    title = f"n = {first.n}, any δ = {first.recovery_threshold} suffice"
    console = Console(width=max(WIDTH, Console().width))
    console.print(_table(f"Accuracy: {title}", rows, ACCURACY))
    console.print(_table("Cost of the costliest share, in float32", rows, COST))
    console.print(
        "Condition numbers over all losses of γ shares where they can be counted (all), else "
        "over samples, contiguous losses and a search for bad ones (search: a lower bound). Mean "
        "squared errors relative to the output's power, from random / from the worst survivors. "
        "AlexNet conv4, one image.",
        soft_wrap=True,
    )


def _table(title: str, rows: Sequence[CodeRow], columns: Cells) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name == "code" else "right")
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    return table


ACCURACY: Cells = {
    "code": lambda row: row.label,
    "γ": lambda row: str(row.tolerance),
    "worst": lambda row: f"{row.conditions.worst:.3g}",
    "99 %": lambda row: f"{row.conditions.percentile_99:.3g}",
    "median": lambda row: f"{row.conditions.median:.3g}",
    "losses": lambda row: f"{row.conditions.looked_at} ({row.conditions.method})",
    "error float32": lambda row: f"{row.float32.random:.1e} / {row.float32.worst:.1e}",
    "error float64": lambda row: f"{row.float64.random:.1e} / {row.float64.worst:.1e}",
}

COST: Cells = {
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
"""Work and decoding relative to the plain convolution."""
