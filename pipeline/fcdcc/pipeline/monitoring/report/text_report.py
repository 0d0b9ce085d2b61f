"""The report on a terminal: tables."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...formatting import duration, percent, rounded, times
from .conclusion import conclusion, state_words
from .recorded_run import OutputReport, RecordedRun

WIDTH = 110
"""Columns where nobody says how many there are."""

SHOWN_RUNS = 20
SHOWN_WORKERS = 20
SHOWN_FAILURES = 20


def print_report(past: OutputReport, console: Console | None = None) -> None:
    """Print what is known of an output's runs, the latest in detail."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    status = past.status
    console.print(
        f"[bold]{escape(past.output)}[/bold]: {status.blocks_done} of {status.blocks_total} blocks "
        f"done, {status.blocks_missing} missing, {status.blocks_failed} failed",
        highlight=False,
    )
    if not past.runs:
        console.print("No run has left a story: the output was made by an older version.")
        return
    console.print(_runs(past.runs[:SHOWN_RUNS]))
    latest = past.runs[0]
    console.print(f"\n[bold]Run {latest.run}[/bold], {latest.started}", highlight=False)
    for sentence in conclusion(latest):
        console.print(escape(sentence), highlight=False)
    if latest.expected_of_run:
        console.print(_planned(latest))
    if latest.workers:
        console.print(_workers(latest))
    if any(layer["groups"] for layer in latest.layers):
        console.print(_layers(latest))
    for block, reason in past.failures[:SHOWN_FAILURES]:
        console.print(f"block {block} failed: {escape(reason)}", highlight=False)
    if len(past.failures) > SHOWN_FAILURES:
        console.print(f"and {len(past.failures) - SHOWN_FAILURES} more failed")


def _table(*names: str, title: str = "") -> Table:
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        padding=(0, 1),
        collapse_padding=True,
    )
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _runs(runs: tuple[RecordedRun, ...]) -> Table:
    table = _table(
        "began", "ended", "blocks", "time", "images/s", "erased", "decoded", "extra",
    )  # fmt: skip
    for run in runs:
        number = run.number
        table.add_row(
            run.started[5:19],
            state_words(run.state),
            _whole(number("blocks_done")),
            duration(run.seconds),
            rounded(run.images_per_second),
            *(_whole(number(name)) for name in ("erasures", "decodes")),
            percent(number("extra_work")),
        )
    return table


def _planned(run: RecordedRun) -> Table:
    table = _table("", "planned", "measured", title="The whole run: plan and measurement")
    for name, expected, found in run.expected_of_run:
        table.add_row(name, expected, found)
    return table


def _workers(run: RecordedRun) -> Table:
    names = ("worker", "shares", "erased", "pace", "late", "worst", "ended")
    table = _table(*names, title="Workers, the slowest first")
    for row in run.workers[:SHOWN_WORKERS]:
        table.add_row(
            escape(row["address"]),
            _whole(row["done"]),
            _whole(row["erased"]),
            times(row["pace"]),
            duration(row["late_mean"]) if row["erased"] else "–",
            duration(row["worst"]) if row["erased"] else "–",
            row["gone"] or "",
        )
    return table


def _layers(run: RecordedRun) -> Table:
    table = _table(
        "layer", "plan", "groups", "decoded", "after", "slowest", "work", "time",
        title="Layers: plan and measurement",
    )  # fmt: skip
    for row in run.layers:
        code = "whole" if row["code"] is None else f"{row['k_a']}×{row['k_b']} {row['split']}"
        measured = bool(row["groups"])
        table.add_row(
            f"{row['layer']} {escape(row['name'])}",
            code,
            _whole(row["groups"]) if measured else "–",
            _whole(row["decodes"]) if measured else "–",
            duration(row["seconds"]) if measured else "–",
            duration(row["slowest"]) if measured else "–",
            percent(row["part"]),
            percent(row["part_measured"]) if measured else "–",
        )
    return table
