"""The report as one HTML file that needs nothing else, to be sent to a colleague."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from fcdcc.coding import __version__

from ...anyk.keys import name_in_words, place_in_words, step_in_words
from ...anyk.state_machine.workers import STRAGGLER_PACE
from ...formatting import clock, count, counted, duration, percent, rounded
from ...words import DEPARTURES, WAITED_FOR_LOST_INPUT, WORDS, WORKER_ORDER
from ..drawing import ConditionStrip, Span, condition_strip, render, staircase
from ..stragglers import UNKNOWN_PACE, WorkerView, behind
from ..summary import MIN_SAVED_SECONDS
from .recorded_run import WITH_THE_NEXT, OutputReport, RecordedRun
from .text_report import conclusion

if TYPE_CHECKING:
    from ...anyk.state_machine.history import ShareRecord

MAX_RUNS = 50
MAX_DETAILED_RUNS = 10
MAX_WORKERS = 100
MAX_LAYERS = 200
MAX_FAILURES = 200
MAX_EVENT_ROWS = 60

MAX_PLACES = 6
"""Successive equal events are one row; it names at most this many places where they happened."""

MAX_LANES = 40
"""Workers in a timeline."""

LINE_HEIGHT = 0.25
"""Height, as a part of a lane, of the line that a share is which waited for lost input."""

MIN_GAP = 0.0007
"""Spans of the same kind are drawn as one if the gap is less than this part of the width."""

MAX_KEY_LAYERS = 6
"""Layers that have colours of their own; further layers have the same colours again."""

MIN_GROUP_SECONDS = 1e-3
"""Least end of the axis on which groups' seconds are drawn."""

MAX_SECONDS_RATIO = 1e4
"""Largest ratio of the end of that axis to its start."""

MAX_AXIS_MARKS = 7
"""Most texts along an axis."""

ROUND_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds between two marks of a timeline; multiples of these above and decimal parts below."""

_COUNTS = (
    ("groups", "group", "completed"),
    ("erasures", "share", "not waited for"),
    ("decodes", "group", "decoded"),
    ("parity_started", "parity share", "started"),
    ("shares_lost", "share", "computed again"),
    ("tasks_doubled", "late task", "started again on another worker"),
    ("workers_lost", "worker", "lost"),
    ("corrupt_shares", "wrong share", "found"),
)
"""What is counted in a run: name in the summary, what it is, and what happened to it."""

_TASK_KINDS = {"parity": "parity", "read": "read", "write": "write", "glue": "glue"}
"""How tasks of a stage are drawn; all others as glue."""

_UNFINISHED = {
    "erased": "given up",
    "superfluous": "started in place of others, which came first after all",
    "lost": "lost, because the worker left or did not answer",
    "recalled": f"{WAITED_FOR_LOST_INPUT}, and was computed again",
    "erred": "failed",
}
"""What happened to shares without a result, by their state."""

_KEY = (
    ("read", "reading images"),
    ("glue", "between coded layers: parts, decoding, other operations"),
    ("write", "writing predictions"),
    ("parity", "parity"),
    ("waited", "given to the worker, not finished there"),
    ("recalled", WAITED_FOR_LOST_INPUT),
    ("ghost", "ghost: the worker is still busy with it, no task needs it"),
    ("lost", "lost: the worker left or did not answer"),
    ("away", "worker not there any more"),
)
"""What the spans of a timeline stand for, by their kinds; layers have names of their own."""

_EVENTS = {
    "late": "a group was late: its parity was started",
    "doubled": "a late task was started again elsewhere",
    "removed": "a worker did not answer and was removed",
    "bypassed": "a worker with tasks of others did not answer: its work was done elsewhere",
    "lost": "a worker was lost",
    "retired": "a worker left as requested",
    "corrupt-share": "a wrong share was found and left out",
    "failed-check": "a result failed its checksum: the block was computed again",
    "mismatch": "shares contradicted each other: the block was computed again",
    "not-finite": "NaN or infinity arose",
}


def render_report(report: OutputReport) -> str:
    """Return the report of an output as a whole HTML document."""
    failures = report.failures[:MAX_FAILURES]
    return render(
        "report.html",
        name=report.output.rstrip("/").rpartition("/")[2] or report.output,
        report=report,
        status=report.status,
        runs=[_shown_run(run) for run in report.runs[:MAX_DETAILED_RUNS]],
        all_runs=[[*_summary_cells(run)] for run in report.runs[:MAX_RUNS]],
        failures=failures,
        failures_left_out=len(report.failures) - len(failures),
        straggler_pace=STRAGGLER_PACE,
        words=WORDS,
        worker_order=WORKER_ORDER,
        version=__version__,
    )


@dataclass(frozen=True)
class TimeWindow:
    """A part of a run that is drawn; times are seconds since the epoch."""

    begin: float
    end: float
    title: str = ""


class AxisMark(NamedTuple):
    """A text along an axis, and its place from 0 to 1."""

    place: float
    text: str


@dataclass(frozen=True)
class TimelineChart:
    """A lane per worker with its shares, in the order in which they are drawn.

    Parameters
    ----------
    title
        Which part of the run it is; '' if it is all of it.
    lanes
        For each worker its address and its spans.
    marks
        Round times along the axis.
    left_out
        Workers that have no lane because there are too many.
    """

    title: str
    lanes: tuple[tuple[str, tuple[Span, ...]], ...]
    marks: tuple[AxisMark, ...]
    left_out: int


@dataclass(frozen=True)
class Latency:
    """Cumulative counts of groups by their seconds.

    ``curves`` are pairs of a CSS class and an SVG path, ``key`` pairs of a CSS class and what it
    stands for; ``marks`` are the labels of the axis.
    """

    groups: int
    curves: tuple[tuple[str, str], ...]
    key: tuple[tuple[str, str], ...]
    marks: tuple[AxisMark, ...]


def _shown_run(run: RecordedRun) -> Mapping[str, Any]:
    """Return all that the report shows of one run."""
    workers = run.worker_views
    bad = {worker.address for worker in workers if _is_bad(worker)}
    bad |= {worker.address for worker in behind(workers)}
    called = {worker.address: worker.called for worker in workers}
    timelines = [_timeline(run, window) for window in _windows(run)]
    return {
        "title": f"Run {run.run}, {run.started}: {run.ending}",
        "sentences": [*conclusion(run)],
        "is_bad": run.state not in ("complete", "running") or bool(bad),
        "tiles": [*_tiles(run)],
        "timelines": timelines,
        "timeline_key": [*_timeline_key(run, timelines)],
        "latency": _latency(run),
        "groups_total": int(run.number("groups") or 0),
        "groups_note": run.groups_note,
        "strip": _condition_strip(run),
        "expected": run.expected,
        "workers": workers[:MAX_WORKERS],
        "unknown_paces": UNKNOWN_PACE if any(worker.pace is None for worker in workers) else "",
        "called": called,
        "bad": bad,
        "has_late_shares": any(worker.erased for worker in workers),
        "has_lost_shares": any(worker.lost for worker in workers),
        "layers": [_layer_row(run, row) for row in run.layers[:MAX_LAYERS]],
        "events": [*_event_rows(run, called)][-MAX_EVENT_ROWS:],
        "about": [*_about(run)],
    }


def _is_bad(worker: WorkerView) -> bool:
    return worker.is_slow or bool(worker.gone) or worker.silent > 0


def _summary_cells(run: RecordedRun) -> Iterator[str]:
    """Yield a run's row in the table of all runs."""
    yield from (
        run.run,
        run.started,
        run.ending,
        ", ".join(run.workers_in_words),
        run.shares_needed,
    )
    yield from (count(run.number(name)) for name in ("blocks_done", "blocks_failed"))
    yield from (duration(run.shown_seconds), rounded(run.shown_images_per_second))
    yield from (count(run.number(name)) for name in ("erasures", "decodes"))
    yield percent(run.number("extra_work"))


def _tiles(run: RecordedRun) -> Iterator[tuple[str, str]]:
    """Yield the main numbers of a run as text, each with its label; counts that are not zero."""
    number = run.number
    yield from _tile_of_count(number("blocks_done") or 0, "block", "done")
    if number("blocks_failed"):
        yield from _tile_of_count(number("blocks_failed"), "block", "failed")
    yield duration(run.shown_seconds), "of work"
    yield rounded(run.shown_images_per_second), "images a second"
    for name, what, how in _COUNTS:
        if number(name):
            yield from _tile_of_count(number(name), what, how)
    yield percent(number("extra_work")), "extra work"
    if number("decodes"):
        yield rounded(number("max_condition_number")), "largest condition number"
    if run.saved >= MIN_SAVED_SECONDS:
        yield duration(run.saved), "waiting saved, at least"


def _tile_of_count(number: float | None, what: str, how: str) -> Iterator[tuple[str, str]]:
    yield count(number), f"{what if number == 1 else what + 's'} {how}"


# ------------------------------------------------------------------------ timeline


def _windows(run: RecordedRun) -> list[TimeWindow]:
    """Return what can be drawn of a run: all of it, or its beginning and its end."""
    drawn = [*run.shares, *run.tasks]
    if not drawn:
        return []
    end = max(run.begin + run.shown_seconds, max(share.stop for share in drawn))
    begin = min(run.begin, min(share.start for share in drawn))
    if run.all_done_recorded:
        return [TimeWindow(begin, end)]
    done = run.done_shares
    middle = len(done) // 3  # of a long run the first third is its beginning, the rest its end
    return [
        TimeWindow(begin, max(share.stop for share in done[:middle]), "The beginning"),
        TimeWindow(min(share.start for share in done[middle:]), end, "The end"),
    ]


def _timeline(run: RecordedRun, window: TimeWindow) -> TimelineChart:
    """Return the lanes of a window, if too many those with the most given-up or lost shares."""
    shares: dict[str, list[ShareRecord]] = defaultdict(list)
    ghosts: dict[str, list[ShareRecord]] = defaultdict(list)
    for records, by_worker in (([*run.shares, *run.tasks], shares), (run.ghosts, ghosts)):
        for record in records:
            if record.stop >= window.begin and record.start <= window.end:
                by_worker[record.worker].append(record)
    odd = {w: sum(share.state != "done" for share in some) for w, some in shares.items()}
    chosen = sorted(shares, key=lambda worker: (-odd[worker], worker))[:MAX_LANES]
    gone = {
        str(event["worker"]): float(event["time"])
        for event in run.events
        if event.get("event") in DEPARTURES and "worker" in event
    }
    lane = _Lane(run.begin, window, _colour_numbers(run), _last_layer(run))
    return TimelineChart(
        window.title,
        tuple((w, tuple(lane.spans(shares[w], ghosts[w], gone.get(w)))) for w in sorted(chosen)),
        tuple(round_times(window.begin - run.begin, window.end - run.begin)),
        len(shares) - len(chosen),
    )


def _colour_numbers(run: RecordedRun) -> dict[int, int]:
    """Return a number for each layer that has shares, in the order of the layers."""
    return {number: i for i, number in enumerate(sorted({s.layer for s in run.shares}))}


def round_times(begin: float, end: float) -> Iterator[AxisMark]:
    """Yield marks at round times between two times, in seconds, of an axis that has both as ends.

    >>> [mark.text for mark in round_times(0.0, 18.6)]
    ['0 s', '5 s', '10 s', '15 s']
    >>> [mark.text for mark in round_times(0.0, 0.42)]
    ['0 s', '0.1 s', '0.2 s', '0.3 s', '0.4 s']
    """
    length = max(end - begin, 1e-9)
    step = _round_step(length / (MAX_AXIS_MARKS - 1))
    for number in range(math.ceil(begin / step - 1e-9), math.floor(end / step + 1e-9) + 1):
        yield AxisMark((number * step - begin) / length, clock(number * step))


def _round_step(least: float) -> float:
    """Return the smallest round number of seconds that is at least so large."""
    if least < 1:
        power = 10.0 ** math.floor(math.log10(least))
        return next(step * power for step in (1, 2, 5, 10) if step * power >= least)
    below = [step for step in ROUND_STEPS if step >= least]
    return float(below[0]) if below else 3600.0 * math.ceil(least / 3600)


@dataclass(frozen=True)
class _Lane:
    """Makes the spans of a worker's lane.

    ``begin`` is when the run began, in seconds since the epoch; ``layers`` numbers the layers for
    their colours; ``last_layer`` is the last convolution of the network.
    """

    begin: float
    window: TimeWindow
    layers: Mapping[int, int]
    last_layer: int | None

    def spans(
        self, shares: Sequence[ShareRecord], ghosts: Sequence[ShareRecord], gone: float | None
    ) -> Iterator[Span]:
        """Yield the spans of a worker, those in front last; ``gone`` is when it left."""
        if gone is not None and gone < self.window.end:
            since = f"not there any more since {clock(gone - self.begin)}"
            yield self._span(gone, self.window.end, "away", since)
        odd = [share for share in shares if share.state != "done"]
        waiting = [share for share in odd if share.waited_for_lost_input]
        for share in odd:
            if not share.waited_for_lost_input:
                yield self._span(share.start, share.stop, "waited", self._label(share))
        done = sorted((s for s in shares if s.state == "done"), key=lambda share: share.start)
        yield from _merged(self._span(s.start, s.stop, self._kind(s)) for s in done)
        for ghost in ghosts:
            label = f"{self._name(ghost)}: it is not needed any more"
            yield self._span(ghost.start, ghost.stop, "ghost", label)
        for share in waiting:
            span = self._span(share.start, share.stop, "recalled", self._label(share))
            yield replace(span, height=LINE_HEIGHT)
        mark = 0.002 * (self.window.end - self.window.begin)
        for share in odd:
            if share.state == "lost":
                yield self._span(share.stop - mark, share.stop, "lost", self._label(share))

    def _label(self, share: ShareRecord) -> str:
        return f"{self._name(share)}: {_UNFINISHED.get(share.state, share.state)}"

    def _name(self, share: ShareRecord) -> str:
        place = place_in_words(share.stage, share.layer, share.block, self.last_layer)
        return f"{place}, {name_in_words(share.stage, share.layer, share.position)}"

    def _kind(self, share: ShareRecord) -> str:
        if share.stage not in ("share", ""):
            return _TASK_KINDS.get(share.stage, _TASK_KINDS["glue"])
        return f"l{self.layers[share.layer] % MAX_KEY_LAYERS}"

    def _span(self, start: float, stop: float, kind: str, label: str = "") -> Span:
        length = max(self.window.end - self.window.begin, 1e-9)
        left, right = ((time - self.window.begin) / length for time in (start, stop))
        return Span(left, right, kind, label)


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Join successive spans of the same kind whose gap is too small to be seen."""
    last: Span | None = None
    for span in spans:
        if last is not None and last.kind == span.kind and span.left - last.right < MIN_GAP:
            last = Span(last.left, max(last.right, span.right), last.kind)
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last


def _layer_in_key(number: int, names: Mapping[int, str]) -> str:
    """Return what the key of a timeline says of a layer: its number, and its name if it has one."""
    return f"layer {number} ({names[number]})" if names.get(number) else f"layer {number}"


def _timeline_key(
    run: RecordedRun, timelines: Iterable[TimelineChart]
) -> Iterator[tuple[str, str]]:
    """Yield what the colours stand for that timelines of a run have."""
    lanes = [spans for timeline in timelines for _, spans in timeline.lanes]
    drawn = {span.kind for spans in lanes for span in spans}
    names = {layer["layer"]: layer["name"] for layer in run.layers}
    numbers = _colour_numbers(run)
    done = {share.layer for share in run.done_shares if share.stage != "parity"}
    used = [number for number in numbers if number in done]
    for number in used[:MAX_KEY_LAYERS]:
        yield f"k-l{numbers[number] % MAX_KEY_LAYERS}", _layer_in_key(number, names)
    if len(used) > MAX_KEY_LAYERS:
        yield "f-share", f"and so on, {len(used)} layers"
    for kind, what in _KEY:
        if kind in drawn:
            yield f"f-{kind}", what


# ------------------------------------------------------------------------- latency


def _latency(run: RecordedRun) -> Latency | None:
    """Return the counts of groups by their seconds, with and without the slowest share."""
    groups = run.groups
    if len(groups) < 2:
        return None
    seconds, slowest = [g.seconds for g in groups], [g.slowest_seconds for g in groups]
    end = max(*slowest, MIN_GROUP_SECONDS)
    start = min(max(min(seconds), end / MAX_SECONDS_RATIO), end / 2)
    if len(round_values(start, end)) < 2:
        start, end = _round_ends(start, end)
    place = _logarithmic(start, end)
    curves = [("group", staircase([place(value) for value in seconds]))]
    key = [("k-good", "groups that were completed within this time")]
    if slowest != seconds:
        curves.insert(0, ("slowest", staircase([place(value) for value in slowest])))
        key.append(("k-slowest", "if they had waited for their slowest shares, at least"))
    return Latency(
        len(groups),
        tuple(curves),
        tuple(key),
        tuple(AxisMark(place(value), duration(value)) for value in round_values(start, end)),
    )


def round_values(start: float, end: float) -> list[float]:
    """Return round values between two values, for a logarithmic axis.

    >>> round_values(0.056, 1.3)
    [0.1, 0.2, 0.5, 1.0]
    >>> round_values(*_round_ends(0.21, 0.49))
    [0.2, 0.5]
    """
    powers = range(math.floor(math.log10(start)), math.ceil(math.log10(end)) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [float(f"{step}e{power}") for power in powers for step in steps]
        found = [value for value in found if start <= value <= end]
        if len(found) <= MAX_AXIS_MARKS:
            break
    return found


def _round_ends(start: float, end: float) -> tuple[float, float]:
    """Return the nearest round values on both sides of two values."""
    powers = range(math.floor(math.log10(start)), math.ceil(math.log10(end)) + 1)
    values = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    below = max(value for value in values if value <= start)
    return below, min(value for value in values if value >= end)


def _logarithmic(start: float, end: float) -> Callable[[float], float]:
    """Return a function that gives a value's place, from 0 to 1, on a logarithmic axis."""
    reach = math.log(end / start)
    return lambda value: math.log(max(value, start) / start) / reach


def _condition_strip(run: RecordedRun) -> ConditionStrip | None:
    status = run.status
    recent, limit = status.get("conditions") or (), status.get("condition_limit")
    return condition_strip(recent, run.number("max_condition_number"), limit)


# -------------------------------------------------------------------------- tables


def _layer_row(run: RecordedRun, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a layer with how it was cut into parts, and why it was not if it was not."""
    is_whole = row["code"] is None and not str(row["reason"]).startswith(WITH_THE_NEXT)
    return {**row, "parts": run.parts_in_words(row), "why": row["reason"] if is_whole else ""}


def _event_rows(run: RecordedRun, called: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield time, kind and places of each event; successive events of one kind are one row.

    ``called`` has what workers are called, by their addresses.
    """
    last = _last_layer(run)
    for name, group in groupby(run.events, key=lambda event: str(event["event"])):
        events = list(group)
        what = _EVENTS.get(name, name) + (f" ({len(events)} times)" if len(events) > 1 else "")
        places = Counter(_place(event, last, called) for event in events)
        named = [
            f"{place} ({count(times)} times)" if times > 1 and len(places) > 1 else place
            for place, times in [*places.items()][:MAX_PLACES]
        ]
        if len(places) > MAX_PLACES:
            named.append(counted(len(places) - MAX_PLACES, "other place"))
        yield clock(max(0.0, float(events[0]["time"]) - run.begin)), what, "; ".join(named)


def _last_layer(run: RecordedRun) -> int | None:
    """Return the number of the last convolution of the network; None if it is not known."""
    return max((int(layer["layer"]) for layer in run.layers), default=None)


def _place(event: Mapping[str, Any], last_layer: int | None, called: Mapping[str, str]) -> str:
    """Return where an event happened; ``last_layer`` is the last convolution of the network."""
    worker = str(event.get("worker") or "")
    where = []
    if "layer" in event:
        where.append(step_in_words(str(event.get("stage")), int(event["layer"]), last_layer))
    where += [f"block {event['block']}"] if "block" in event else []
    where += [f"share {event['position']}"] if "position" in event else []
    where += [called.get(worker, worker)] if worker else []
    return " ".join(where)


def _about(run: RecordedRun) -> Iterator[tuple[str, Any]]:
    """Yield options and versions."""
    for name, value in run.about.items():
        if not isinstance(value, dict | list) and value is not None:
            yield name.replace("_", " "), value
    yield from run.about.get("versions", {}).items()
