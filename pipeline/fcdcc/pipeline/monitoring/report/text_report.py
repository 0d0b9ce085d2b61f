"""The report on a terminal: tables, and what a run's numbers say in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box, markup
from rich.console import Console
from rich.table import Table

from ...formatting import count, counted, duration, percent, printable, rounded, times
from ..output_status import failure_line
from ..stragglers import WorkerView, behind, verdict
from ..summary import files_repaired_line, started_elsewhere
from .recorded_run import MAX_PLANNED_RATIO, WITH_THE_NEXT, OutputReport, RecordedRun

NO_TERMINAL_COLUMNS = 110
"""Width in columns if standard output is no terminal."""

MAX_RUNS = 20
MAX_WORKERS = 20
MAX_FAILURES = 20

MIN_SAVED_SECONDS = 0.05
"""Least seconds of saved waiting that are mentioned."""

UNKNOWN_REASON = "nothing that the run recorded says why; other programs may have used its machines"
"""Why a run took longer than planned, if it lost no worker and none was slow."""

MIN_TAIL_RATIO = 1.05
"""How many times later than its group the slowest share must be, to be mentioned."""


def escape(text: str) -> str:
    """Return a text for Rich that is shown as it is; names in it may come from a model file."""
    return markup.escape(printable(text))


def print_report(report: OutputReport, console: Console | None = None) -> None:
    """Print what is known of an output's runs, the latest in detail."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, NO_TERMINAL_COLUMNS)
    status = report.status
    console.print(
        f"[bold]{escape(report.output)}[/bold]: {status.in_words}",
        highlight=False,
    )
    if not report.runs:
        console.print("No run has left a journal: the output was made by an older version.")
        return
    console.print(_runs(report.runs[:MAX_RUNS]))
    latest = report.runs[0]
    title = f"[bold]Run {escape(latest.run)}[/bold], {escape(latest.started)}"
    console.print(f"\n{title}", highlight=False)
    for sentence in conclusion(latest):
        console.print(escape(sentence), highlight=False)
    if latest.expected:
        console.print(_expected(latest))
    if latest.workers:
        console.print(_workers(latest))
    if any(layer["groups"] for layer in latest.layers):
        console.print(_layers(latest))
    for block, reason in report.failures[:MAX_FAILURES]:
        console.print(escape(failure_line(block, reason)), highlight=False)
    if len(report.failures) > MAX_FAILURES:
        console.print(f"and {len(report.failures) - MAX_FAILURES} more")


def conclusion(run: RecordedRun) -> Iterator[str]:
    """Yield sentences that sum up a run: speed, end, what happened, saved waiting, slow workers."""
    workers = counted(int(run.about["workers"]), "worker")
    work = "" if run.work_seconds is None else " of work"
    yield (
        f"{counted(int(run.number('images_done') or 0), run.unit)} in {duration(run.shown_seconds)}"
        f"{work}, {run.shown_images_per_second:,.1f} a second, with {workers}."
    )
    if run.error:
        yield f"It ended with an error: {run.error}."
    if run.state in ("interrupted", "cut off"):
        done = sum(int(run.number(name) or 0) for name in ("blocks_done", "blocks_skipped"))
        blocks = counted(int(run.number("blocks_total") or 0), "block")
        were = "was" if done == 1 else "were"
        there = f"{done:,} of {blocks} {were} done"
        yield f"It was {run.state} when {there}; the same command continues it."
    yield from _repaired(run)
    if failed := int(run.number("blocks_failed") or 0):
        them = "it" if failed == 1 else "them"
        yield f"{counted(failed, 'block')} failed; the same command tries {them} again."
    if bands := int(run.number("bands_failed") or 0):
        them = "it" if bands == 1 else "them"
        yield f"{counted(bands, 'band')} failed; the same command tries {them} again."
    if (run.times_planned or 0.0) > MAX_PLANNED_RATIO:
        yield _why_longer(run)
    if not run.number("groups"):
        return
    happened = [*_happened(run)]
    sentence = "; ".join(happened)
    if not happened:
        groups = counted(int(run.number("groups") or 0), "group")
        sentence = f"No worker was lost, and every share of {groups} was waited for"
    tail = run.tail(0.99)
    if tail is not None and tail[1] > MIN_TAIL_RATIO * tail[0]:
        sentence += (
            f". 99 of 100 groups were completed within {duration(tail[0])}; with the slowest share "
            f"it would have been {duration(tail[1])} at least"
        )
    yield sentence + "."
    cost = f"Redundancy cost {percent(run.number('extra_work'))} more arithmetic"
    if run.saved >= MIN_SAVED_SECONDS:
        yield f"{cost}; it saved {duration(run.saved)} of waiting, at least."
    elif happened:
        yield f"{cost}."
    else:
        yield f"{cost}; no worker was late."
    yield verdict(worker_views(run))


def _repaired(run: RecordedRun) -> Iterator[str]:
    """Yield sentences on what had been damaged and was made again."""
    if blocks := int(run.number("blocks_repaired") or 0):
        yield f"{counted(blocks, 'block was', 'blocks were')} made again (damaged)."
    if run.files_repaired:
        yield f"{files_repaired_line(run.files_repaired)}."


def _happened(run: RecordedRun) -> Iterator[str]:
    """Yield what happened to workers, shares and groups, without what did not happen."""

    def number(name: str) -> int:
        return int(run.number(name) or 0)

    if lost := number("workers_lost"):
        yield counted(lost, "worker was lost", "workers were lost")
    if erasures := number("erasures"):
        yield counted(erasures, "share was", "shares were") + " not waited for"
    if decodes := number("decodes"):
        was = "was" if decodes == 1 else "were"
        groups = counted(number("groups"), "result")
        yield f"{decodes:,} of {groups} {was} made up from other shares"
    if parity := number("parity_started"):
        yield counted(parity, "parity share was", "parity shares were") + " started"
    if again := number("shares_lost"):
        yield counted(again, "share was", "shares were") + " computed again"
    if late := number("tasks_doubled"):
        yield started_elsewhere(late)
    if twice := number("blocks_repeated"):
        yield counted(twice, "block was", "blocks were") + " done twice"


def _why_longer(run: RecordedRun) -> str:
    """Return a sentence on a run that took longer than planned, with the reasons that are known."""
    reasons = []
    if run.about.get("speeds") == "default":
        reasons.append("the plan took default speeds, and --calibrate measures them")
    if lost := int(run.number("workers_lost") or 0):
        reasons.append("a worker was lost" if lost == 1 else "workers were lost")
    views = worker_views(run)
    slow = {worker.address for worker in views if worker.is_slow}
    slow |= {worker.address for worker in behind(views)}
    if slow:
        reasons.append(counted(len(slow), "worker was", "workers were") + " slow")
    if int(run.number("blocks_repeated") or 0):
        reasons.append("blocks were done twice")
    why = "; ".join(reasons) or UNKNOWN_REASON
    return f"It took {times(run.times_planned)} the planned time: {why}."


def worker_views(run: RecordedRun) -> list[WorkerView]:
    """Return what is known of each worker of a run, the slowest first."""
    names = ("address", "done", "erased", "lost", "late", "worst", "pace")
    end = max((float(row.get("seen", 0.0)) for row in run.workers), default=0.0)
    return [
        WorkerView(
            **{name: row[name] for name in names},
            overdue=row.get("overdue", 0),
            gone=str(row["gone"] or ""),
            gone_for=-1.0,
            had_shares_for=max(0.0, end - row["since"]) if row.get("since") else 0.0,
        )
        for row in run.workers
    ]


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


def _runs(runs: tuple[RecordedRun, ...]) -> Table:
    table = _table(
        "began", "ended", "workers", "shares", "blocks", "time", "images/s", "erased", "decoded",
        "extra",
    )  # fmt: skip
    for run in runs:
        number = run.number
        table.add_row(
            run.started[5:19],
            escape(run.ending),
            str(run.about["workers"]),
            escape(run.shares_needed),
            count(number("blocks_done")),
            duration(run.shown_seconds),
            rounded(run.shown_images_per_second),
            *(count(number(name)) for name in ("erasures", "decodes")),
            percent(number("extra_work")),
        )
    return table


def _expected(run: RecordedRun) -> Table:
    table = _table("", "planned", "measured", title="The whole run: plan and measurement")
    for cells in run.expected:
        table.add_row(*cells)
    return table


def _workers(run: RecordedRun) -> Table:
    names = ("worker", "shares", "erased", "pace", "late", "worst", "ended")
    table = _table(*names, title="Workers, the slowest first")
    for worker in worker_views(run)[:MAX_WORKERS]:
        table.add_row(
            escape(worker.address),
            count(worker.done),
            count(worker.erased),
            times(worker.pace),
            duration(worker.late_mean if worker.erased else None),
            duration(worker.worst if worker.erased else None),
            escape(worker.gone),
        )
    return table


def _layers(run: RecordedRun) -> Table:
    table = _table(
        "layer", "plan", "groups", "decoded", "after", "slowest", "work", "time",
        title="Layers: plan and measurement; a share counts in the row of its last layer",
    )  # fmt: skip
    for row in run.layers:
        code = "with the next" if str(row["reason"]).startswith(WITH_THE_NEXT) else "whole"
        if row["code"] is not None:
            code = escape(f"{row['k_a']}×{row['k_b']} {row['split']}")
        table.add_row(
            escape(f"{row['layer']} {row['name']}"),
            code,
            count(row["groups"] or None),
            count(row["decodes"]),
            duration(row["seconds"]),
            duration(row["slowest"]),
            percent(row["part_of_share"]),
            percent(row["part_measured"]),
        )
    return table
