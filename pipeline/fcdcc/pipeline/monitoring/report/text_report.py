"""The report on a terminal: tables, and what a run's numbers say in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich import box, markup
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from ...formatting import (
    MIN_MENTIONED_WORK,
    amount,
    and_list,
    count,
    counted,
    duration,
    percent,
    printable,
    rounded,
    times,
)
from ...words import DEPARTURES, WORDS, WORKER_ORDER, explained
from ..late_workers import bypassed_workers, started_elsewhere
from ..output_status import failure_line
from ..record.loss_cost import about, loss_sentence, lossy_workers
from ..record.standstill import standstill_sentence
from ..stragglers import UNKNOWN_PACE, WorkerView, behind, verdict
from ..summary import (
    MIN_SAVED_SECONDS,
    files_repaired_line,
    parity_in_words,
    silent_workers,
)
from .recorded_run import MAX_PLANNED_RATIO, OutputReport, RecordedRun

NO_TERMINAL_COLUMNS = 110
"""Width in columns if standard output is no terminal."""

WIDE_COLUMNS = 100
"""Width of a terminal from which on the table of runs has its widest columns, too."""

MAX_RUNS = 20
MAX_WORKERS = 20
MAX_FAILURES = 20

OTHER_PROGRAMS = "other programs may have used the machines of its workers"
"""What may have made a run longer than planned, and is never recorded."""

TOO_FEW_BLOCKS = "the run had too few blocks for that to be known well"
"""Why planned seconds are rough."""

MIN_UNEXPLAINED_PART = 0.1
"""Part of the seconds beyond the plan from which on the report says that they are not explained."""

MIN_PLANNED_RATIO = 0.5
"""Part of the planned time below which a report says that the plan took default speeds."""

UNKNOWN_REASON_OF_BYTES = "nothing that the run recorded says why"
"""Why workers sent more than planned, if nothing was lost, late or done twice."""

MIN_MENTIONED_BYTES = 1e6
"""Least number of bytes beyond the plan that are mentioned."""

MIN_TAIL_RATIO = 1.05
"""How many times later than its group the slowest share must be, to be mentioned."""

MIN_TAIL_GROUPS = 100
"""Least number of groups of which the report says how long the slowest hundredth took."""


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
    is_wide = console.width >= WIDE_COLUMNS
    console.print(_runs(report.runs[:MAX_RUNS], is_wide))
    _explain(
        console,
        "share",
        "shares needed",
        "not waited for",
        *(("decoded", "extra work") if is_wide else ()),
    )
    latest = report.runs[0]
    title = f"[bold]Run {escape(latest.run)}[/bold], {escape(latest.started)}"
    console.print(title, highlight=False)
    for sentence in conclusion(latest):
        console.print(escape(sentence), highlight=False)
    if latest.number("tasks_doubled"):
        _explain(console, "late task")
    if latest.expected:
        console.print(_expected(latest))
    if latest.workers:
        _print_workers(latest, console)
    if any(layer["groups"] for layer in latest.layers):
        console.print(_layers(latest))
        names = "group", "time to output", "time to slowest share", "work of a share"
        if latest.groups_note:
            console.print(latest.groups_note, highlight=False)
        _explain(console, "k_a × k_b", *names, "measured time")
    for block, reason in report.failures[:MAX_FAILURES]:
        console.print(escape(failure_line(block, reason)), highlight=False)
    if len(report.failures) > MAX_FAILURES:
        console.print(f"and {len(report.failures) - MAX_FAILURES} more")
    console.print(escape(report.next_step), highlight=False, soft_wrap=True)


def _explain(console: Console, *names: str) -> None:
    """Print what words of the table above mean, each once in a report."""
    for line in explained(names):
        console.print(Padding(escape(line), (0, 0, 0, 2)), style="dim", highlight=False)
    console.print()


def conclusion(run: RecordedRun) -> Iterator[str]:
    """Yield sentences that sum up a run: speed, end, what happened, saved waiting, slow workers."""
    workers = counted(int(run.about["workers"]), "worker")
    if silent := int((run.worker_loss or {}).get("early", 0)):
        workers += f", of which {silent:,} gave no sign of life from the start"
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
    elif (run.times_planned or 1.0) < MIN_PLANNED_RATIO and (why := _default_speeds(run)):
        yield f"It took {times(run.times_planned)} the planned time: {why}."
    yield from _more_sent(run)
    if run.worker_loss is not None:
        yield f"{_capitalized(loss_sentence(run.worker_loss))}."
        if stood := standstill_sentence(run.worker_loss, lossy_workers(run.worker_loss)):
            yield f"{_capitalized(stood)}."
    if not run.number("groups"):
        return
    happened = [*_happened(run)]
    sentence = "; ".join(happened)
    if not happened:
        groups = counted(int(run.number("groups") or 0), "group")
        sentence = f"No worker was lost, and every share of {groups} was waited for"
    tail = run.tail(0.99) if len(run.groups) >= MIN_TAIL_GROUPS else None
    if tail is not None and tail[1] > MIN_TAIL_RATIO * tail[0]:
        sentence += (
            f". 99 of 100 groups were completed within {duration(tail[0])}; with the slowest share "
            f"it would have been {duration(tail[1])} at least"
        )
    yield sentence + "."
    yield from _cost(run)
    if run.saved >= MIN_SAVED_SECONDS:
        yield f"Redundancy saved {duration(run.saved)} of waiting, at least."
    endings = {"running": "", "cut off": "when the run was last heard of"}
    yield verdict(run.worker_views, endings.get(run.state, "when the run ended"))


def _cost(run: RecordedRun) -> Iterator[str]:
    """Yield what redundancy and the split of layers cost: in arithmetic, and in planned time."""
    extra = run.number("extra_work") or 0.0
    if extra >= MIN_MENTIONED_WORK:
        yield f"{percent(extra)} more arithmetic was done than the network needs: {_extra_of(run)}."
    if run.has_redundancy and not _has_parity(run):
        yield "No parity was computed."
    plain, planned = run.planned.get("plain_seconds"), run.planned.get("seconds")
    if run.has_redundancy and planned and run.is_plan_rough:
        yield f"The plan expected roughly {duration(planned)} of work: {TOO_FEW_BLOCKS}."
    elif run.has_redundancy and plain and planned:
        yield (
            f"The plan expected {duration(planned)} of work with redundancy, and "
            f"{duration(plain)} for plain inference without it."
        )


def _has_parity(run: RecordedRun) -> bool:
    """Return whether parity was computed: on standby, when a share was late, or from the start."""
    is_eager = run.has_redundancy and run.about.get("redundancy") == "eager"
    return is_eager or bool(run.number("parity_started"))


def _extra_of(run: RecordedRun) -> str:
    """Return what the arithmetic was beyond the network's own, as far as that is recorded."""
    found = ["parity"] if _has_parity(run) else []
    if run.number("shares_lost"):
        found.append("shares that were computed again")
    if run.number("tasks_doubled"):
        found.append("late tasks that were started twice")
    if run.about.get("split") == "rows":
        found.append("rows at the edges of parts, which two shares both compute")
    elif not found:
        found.append("the last parts of images, which were filled up to the size of the others")
    return and_list(found)


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

    if silent := int((run.worker_loss or {}).get("silent", 0)):
        yield silent_workers(silent)
    if lost := number("workers_lost"):
        yield counted(lost, "worker was lost", "workers were lost")
    if bypassed := bypassed_workers(run.late_workers):
        yield bypassed
    if erasures := number("erasures"):
        yield counted(erasures, "share was", "shares were") + " not waited for"
    if decodes := number("decodes"):
        was = "was" if decodes == 1 else "were"
        groups = counted(number("groups"), "result")
        yield f"{decodes:,} of {groups} {was} made up from other shares"
    if parity := number("parity_started"):
        is_needed = bool(number("decodes")) or run.about.get("redundancy") == "eager"
        why = "" if is_needed else ": what they stood in for came first"
        yield parity_in_words(parity, is_needed) + why
    if again := number("shares_lost"):
        yield counted(again, "share was", "shares were") + " computed again"
    if late := number("tasks_doubled"):
        yield started_elsewhere(late, run.late_workers, int(number("tasks_waiting") or 0))
    if twice := number("blocks_repeated"):
        yield counted(twice, "block was", "blocks were") + " done twice"


def _capitalized(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}"


def _why_longer(run: RecordedRun) -> str:
    """Return sentences on a run that took longer than planned: what explains it, and how much."""
    beyond = run.shown_seconds - float(run.planned["seconds"])
    loss = run.worker_loss or {}
    known = min(float(loss.get("cost_seconds") or 0.0), beyond)
    said = f"It took {times(run.times_planned)} the planned time, {duration(beyond)} more."
    of = ""
    if known:
        workers = _capitalized(lossy_workers(loss))
        explain = "explains" if loss["workers"] == 1 else "explain"
        said += f" {workers} {explain} {about(loss, known)} of that (an estimate)."
        of = f" for the other {duration(beyond - known)}"
    if beyond - known < MIN_UNEXPLAINED_PART * beyond:
        return said
    reasons = [*_likely_reasons(run), OTHER_PROGRAMS]
    they = "A likely reason" if len(reasons) == 1 else "Likely reasons"
    return f"{said} {they}{of}, not measured: {'; '.join(reasons)}."


def _default_speeds(run: RecordedRun) -> str:
    """Return that the plan took default speeds, or ''."""
    if run.about.get("speeds") == "default":
        return "the plan took default speeds (--calibrate measures them)"
    return ""


def _likely_reasons(run: RecordedRun) -> Iterator[str]:
    """Yield what may have made a run longer than planned, by seconds that are not known."""
    if run.is_plan_rough:
        yield "the run had too few blocks for the plan to know its time well"
    if why := _default_speeds(run):
        yield why
    if run.about.get("verify") == "checksum":
        yield "the plan leaves out the work of checksums (--verify checksum)"
    if (run.worker_loss or {}).get("cost_seconds") is None:  # 0 if their loss held nothing up
        if lost := int(run.number("workers_lost") or 0):
            yield counted(lost, "worker was lost", "workers were lost")
        if silent := int((run.worker_loss or {}).get("silent", 0)):
            yield silent_workers(silent)
    views = run.worker_views
    slow = {worker.address for worker in views if worker.is_slow}
    slow |= {worker.address for worker in behind(views)}
    if slow:
        yield counted(len(slow), "worker was", "workers were") + " slow or did not answer"
    if int(run.number("blocks_repeated") or 0):
        yield "blocks were done twice"


def _more_sent(run: RecordedRun) -> Iterator[str]:
    """Yield a sentence if workers sent each other more than planned, with the likely reasons."""
    planned, measured = run.planned.get("bytes_sent"), run.number("bytes_sent")
    if not isinstance(planned, int | float) or measured is None:
        return
    if measured <= MAX_PLANNED_RATIO * planned or measured - planned < MIN_MENTIONED_BYTES:
        return

    def number(name: str) -> int:
        return int(run.number(name) or 0)

    reasons = []
    if number("workers_lost"):
        reasons.append("what lost workers had was computed and sent again")
    loss = run.worker_loss or {}
    silent = int(loss.get("silent", 0)) - int(loss.get("early", 0))
    if silent > 0:  # those before the first block had no work
        reasons.append(f"{silent_workers(silent)}, and others needed the inputs of its work")
    if doubled := number("tasks_doubled"):
        reasons.append(f"{started_elsewhere(doubled)}, which needs their inputs, too")
    if parity := number("parity_started"):
        shares = counted(parity, "parity share was", "parity shares were")
        reasons.append(f"{shares} started, and parity needs the inputs of several shares")
    if repeated := number("blocks_repeated"):
        reasons.append(counted(repeated, "block was", "blocks were") + " done twice")
    why = f"likely because {'; '.join(reasons)}" if reasons else UNKNOWN_REASON_OF_BYTES
    less = ". What lost workers sent is not counted" if number("workers_lost") else ""
    yield (
        f"Workers sent {amount(measured, 'B')} to each other, and {amount(planned, 'B')} were "
        f"planned: {why}{less}."
    )


def _table(*names: str, title: str = "", wrapped: int = 1) -> Table:
    """Return a table whose first columns are broken where the terminal is narrow; numbers never."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
    for number, name in enumerate(names):
        table.add_column(
            name,
            justify="left" if number < wrapped else "right",
            no_wrap=number >= wrapped,
            overflow="fold",
        )
    return table


def _runs(runs: tuple[RecordedRun, ...], is_wide: bool) -> Table:
    more = ("decoded", "extra\nwork") if is_wide else ()
    table = _table(
        "began",
        "ended",
        "workers",
        "shares\nneeded",
        "blocks",
        "time",
        "images/s",
        "not waited\nfor",
        *more,
    )
    for run in runs:
        number = run.number
        more = (count(number("decodes")), percent(number("extra_work"))) if is_wide else ()
        table.add_row(
            run.started[5:19],
            escape(run.ending),
            "\n".join(run.workers_in_words),
            escape(run.shares_needed),
            count(number("blocks_done")),
            duration(run.shown_seconds),
            rounded(run.shown_images_per_second),
            count(number("erasures")),
            *more,
        )
    return table


def _expected(run: RecordedRun) -> Table:
    table = _table("", "planned", "measured", title="The whole run: plan and measurement")
    for cells in run.expected:
        table.add_row(*cells)
    return table


def _print_workers(run: RecordedRun, console: Console) -> None:
    """Print the workers, with what is known of each and what these columns mean."""
    workers = run.worker_views
    were_late, were_lost = (any(w.erased for w in workers), any(w.lost for w in workers))
    columns: list[tuple[str, Callable[[WorkerView], str], bool]] = [
        ("worker", _named, True),
        ("shares", lambda worker: count(worker.done), True),
        ("pace", lambda worker: times(worker.pace), True),
        ("not\nwaited\nfor", lambda worker: count(worker.erased), were_late),
        ("late on\naverage", lambda worker: _late(worker, worker.late_mean), were_late),
        ("longest\nlate", lambda worker: _late(worker, worker.worst), were_late),
        ("lost\nwith it", lambda worker: count(worker.lost), were_lost),
    ]
    shown = [(name, cell) for name, cell, is_shown in columns if is_shown]
    table = _table(*(name for name, _ in shown), title=f"Workers: {WORKER_ORDER}")
    for worker in workers[:MAX_WORKERS]:
        table.add_row(*(cell(worker) for _, cell in shown))
    console.print(table)
    if len(workers) > MAX_WORKERS:
        console.print(f"and {len(workers) - MAX_WORKERS} more")
    names = [name.replace("\n", " ") for name, _ in shown]
    names += [how for how in DEPARTURES if any(worker.gone == how for worker in workers)]
    if any(worker.pace is None for worker in workers):
        console.print(Padding(UNKNOWN_PACE, (0, 0, 0, 2)), style="dim", highlight=False)
    _explain(console, *(name for name in names if name in WORDS and name != "not waited for"))


def _named(worker: WorkerView) -> str:
    """Return the address of a worker, and below it its name, its process and how it left."""
    silent = f"silent for {duration(worker.silent)}" if worker.silent else ""
    below = ", ".join(filter(None, (worker.details, worker.gone or silent)))
    return f"{escape(worker.address)}\n  {escape(below)}" if below else escape(worker.address)


def _late(worker: WorkerView, seconds: float) -> str:
    return duration(seconds if worker.was_seen_late else None)


def _layers(run: RecordedRun) -> Table:
    table = _table(
        "layer", "name", "k_a × k_b", "groups", "decoded", "time to\noutput",
        "time to\nslowest\nshare", "work of\na share", "measured\ntime",
        title="Layers: plan and measurement; a share counts in the row of its last layer",
        wrapped=3,
    )  # fmt: skip
    for row in run.layers:
        table.add_row(
            count(row["layer"]),
            escape(str(row["name"])),
            escape(run.parts_in_words(row)),
            count(row["groups"] or None),
            count(row["decodes"]),
            duration(row["seconds"]),
            duration(row["slowest"]),
            percent(row["part_of_share"]),
            percent(row["part_measured"]),
        )
    return table
