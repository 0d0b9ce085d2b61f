"""Where things go in the picture of a run: bars within lanes, labels beside each other.

Geometry only; nothing here knows how anything looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .timeline import Fault, ShareSpan, Timeline

__all__ = ["Bar", "FaultMark", "fault_marks", "label_rows", "stack_bars"]


@dataclass(frozen=True)
class Bar:
    """A share as a rectangle: seconds since the start of the run, and lanes from the top."""

    share: ShareSpan
    left: float
    right: float
    top: float
    height: float


def stack_bars(timeline: Timeline, rows: Mapping[str, int], height: float) -> list[Bar]:
    """Return a bar for each share, none over another.

    The shares of one lane that overlap in time stand above each other and share the lane's
    height; where only one runs, it has all of it.

    Parameters
    ----------
    timeline
        The shares; one whose end is not known lasts until the end of the run.
    rows
        The lane of each worker; its middle is at this number.
    height
        Of a lane, at most 1.
    """
    bars: list[Bar] = []
    for worker, row in rows.items():
        spans = sorted(
            (_span(share, timeline) for share in timeline.shares if share.worker == worker),
            key=lambda span: span[:2],
        )
        for pile in _piles(spans):
            levels = _levels(pile)
            thickness = height / (max(levels) + 1)
            bars += [
                Bar(share, left, right, row - height / 2 + level * thickness, thickness)
                for (left, right, share), level in zip(pile, levels, strict=True)
            ]
    return bars


_Span = tuple[float, float, ShareSpan]


def _span(share: ShareSpan, timeline: Timeline) -> _Span:
    """Return a share's seconds since the start of the run, and the share."""
    stop = timeline.stop if share.stop is None else share.stop
    return share.start - timeline.start, max(stop, share.start) - timeline.start, share


def _piles(spans: Sequence[_Span]) -> list[list[_Span]]:
    """Return the spans, sorted by their start, in runs that do not touch each other."""
    piles: list[list[_Span]] = []
    end = 0.0
    for span in spans:
        if not piles or span[0] >= end:
            piles.append([])
            end = span[1]
        piles[-1].append(span)
        end = max(end, span[1])
    return piles


def _levels(pile: Sequence[_Span]) -> list[int]:
    """Return for each span the first level that is free when it starts."""
    free_from: list[float] = []
    levels: list[int] = []
    for left, right, _ in pile:
        level = next((i for i, free in enumerate(free_from) if free <= left), len(free_from))
        free_from[level : level + 1] = [right]
        levels.append(level)
    return levels


@dataclass(frozen=True)
class FaultMark:
    """Faults of one kind at about one moment, in seconds since the start of the run."""

    moment: float
    kind: str
    text: str


_VERBS = {
    "stopped": "stopped",
    "killed": "killed",
    "removed": "given up",
    "joined": "joined",
}


def fault_marks(timeline: Timeline, within: float) -> list[FaultMark]:
    """Return what to write at which moment, faults of a kind ``within`` seconds in one."""
    groups: list[list[Fault]] = []
    for fault in sorted(timeline.faults, key=lambda fault: (fault.kind, fault.moment)):
        first = groups[-1][0] if groups else None
        if first and first.kind == fault.kind and fault.moment - first.moment <= within:
            groups[-1].append(fault)
        else:
            groups.append([fault])
    marks = [
        FaultMark(
            group[0].moment - timeline.start,
            group[0].kind,
            f"{_listed(sorted({fault.worker for fault in group}))} {_VERBS[group[0].kind]}",
        )
        for group in groups
    ]
    return sorted(marks, key=lambda mark: mark.moment)


def _listed(names: Sequence[str]) -> str:
    """Return names as people list them; ``worker 1, worker 4`` become ``workers 1 and 4``."""
    first = names[0].rpartition(" ")[0]
    if first and len(names) > 1 and all(name.rpartition(" ")[0] == first for name in names):
        numbers = [name.rpartition(" ")[2] for name in names]
        return f"{first}s {_listed(numbers)}"
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def label_rows(extents: Iterable[tuple[float, float]], gap: float, rows: int) -> list[int | None]:
    """Return for each label, (left, right), a row where it touches no earlier one, else None.

    >>> label_rows([(0, 10), (5, 15), (11, 20)], gap=1, rows=2)
    [0, 1, 0]
    """
    ends: list[float] = [float("-inf")] * rows
    chosen: list[int | None] = []
    for left, right in extents:
        row = next((i for i, end in enumerate(ends) if end + gap <= left), None)
        if row is not None:
            ends[row] = right
        chosen.append(row)
    return chosen
