"""The timeline of a run: a lane per worker, with what its shares were and what became of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...formatting import clock
from ..html import Span, element, lane, text
from .recorded_run import Ghost, RecordedRun, Share

MAX_LANES = 40
GRAIN = 0.0007
"""Spans of a kind that are nearer than this part of the width are drawn as one."""


@dataclass(frozen=True)
class TimeWindow:
    """A part of a run that is drawn: seconds since its beginning."""

    begin: float
    end: float
    title: str = ""


def windows(run: RecordedRun) -> list[TimeWindow]:
    """Return what can be drawn of a run: all of it, or its beginning and its end."""
    shares = run.shares
    if not shares:
        return []
    end = max(run.seconds, max(share.stop for share in shares))
    begin = min(0.0, shares[0].start)
    total, kept = int(run.members["shares_total"]), run.members["shares"]
    if total <= len(kept):
        return [TimeWindow(begin, end)]
    stops = [row[5] for row in kept]
    middle = len(kept) // 3  # the first third is the beginning, see story.py
    return [
        TimeWindow(begin, max(stops[:middle]), "The beginning"),
        TimeWindow(min(row[4] for row in kept[middle:]), end, "The end"),
    ]


def timeline(run: RecordedRun, window: TimeWindow) -> str:
    """Return the lanes of a window as HTML, the worst workers if there are too many."""
    by_worker: dict[str, list[Share]] = defaultdict(list)
    for share in run.shares:
        if share.stop >= window.begin and share.start <= window.end:
            by_worker[share.worker].append(share)
    odd = {w: sum(s.state != "done" for s in shares) for w, shares in by_worker.items()}
    chosen = sorted(by_worker, key=lambda worker: (-odd[worker], worker))[:MAX_LANES]
    gone = {
        str(event["worker"]): float(event["time"]) - run.begin
        for event in run.events
        if event.get("event") in ("removed", "lost", "retired") and "worker" in event
    }
    ghosts: dict[str, list[Ghost]] = defaultdict(list)
    for ghost in run.ghosts:
        if ghost.stop >= window.begin and ghost.start <= window.end:
            ghosts[ghost.worker].append(ghost)
    layers = {number: i for i, number in enumerate(sorted({s.layer for s in run.shares}))}
    rows = [
        element("span", text(worker), title=worker)
        + lane(_spans(by_worker[worker], ghosts[worker], window, layers, gone.get(worker)))
        for worker in sorted(chosen)
    ]
    places = [window.begin + i * (window.end - window.begin) / 4 for i in range(5)]
    axis = element("span", "") + element(
        "div", "".join(element("span", text(clock(max(0.0, at)))) for at in places), class_="axis"
    )
    head = element("h3", text(window.title)) if window.title else ""
    more = len(by_worker) - len(chosen)
    note = element("p", text(f"and {more} more workers"), class_="faint") if more else ""
    return head + element("div", "".join(rows) + axis, class_="lanes") + note


def _spans(
    shares: Sequence[Share],
    ghosts: Sequence[Ghost],
    window: TimeWindow,
    layers: Mapping[int, int],
    gone: float | None,
) -> Iterator[Span]:
    """Yield the spans of a lane, those in front last."""
    length = max(window.end - window.begin, 1e-9)

    def span(start: float, stop: float, kind: str, label: str = "") -> Span:
        return Span((start - window.begin) / length, (stop - window.begin) / length, kind, label)

    if gone is not None and gone < window.end:
        yield span(gone, window.end, "away", f"not there any more since {clock(gone)}")
    odd = [share for share in shares if share.state != "done"]
    for share in odd:
        yield span(share.start, share.stop, "waited", f"{_name(share)}: given up")
    done = sorted((s for s in shares if s.state == "done"), key=lambda share: share.start)
    yield from _merged(
        span(s.start, s.stop, "parity" if s.stage == "parity" else f"l{layers[s.layer] % 4}")
        for s in done
    )
    for ghost in ghosts:
        what = f"block {ghost.block}, share {ghost.position}: nobody waits for it any more"
        yield span(ghost.start, ghost.stop, "ghost", f"layer {ghost.layer}, {what}")
    for share in odd:
        if share.state != "erased":
            yield span(share.stop - 0.002 * length, share.stop, "lost", f"{_name(share)}: lost")


def _name(share: Share) -> str:
    return f"layer {share.layer}, block {share.block}, {share.stage} {share.position}"


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Join spans of a kind that nobody could tell apart."""
    held: Span | None = None
    for span in spans:
        if held is not None and held.kind == span.kind and span.left - held.right < GRAIN:
            held = Span(held.left, max(held.right, span.right), held.kind)
            continue
        if held is not None:
            yield held
        held = span
    if held is not None:
        yield held
