"""Where things go in the picture of a run: bars within lanes, labels beside each other.

Geometry only; nothing here knows how anything looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .timeline import Fault, ShareSpan, Timeline


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
    "lost": "lost",
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
            f"{listed(sorted({fault.worker for fault in group}))} {_VERBS[group[0].kind]}",
        )
        for group in groups
    ]
    return sorted(marks, key=lambda mark: mark.moment)


def listed(workers: Iterable[str]) -> str:
    """Return names as people list them.

    >>> listed(["worker 1", "worker 4"])
    'workers 1 and 4'
    """
    names = list(workers)
    first = names[0].rpartition(" ")[0]
    if first and len(names) > 1 and all(name.rpartition(" ")[0] == first for name in names):
        numbers = [name.rpartition(" ")[2] for name in names]
        return f"{first}s {listed(numbers)}"
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


@dataclass(frozen=True)
class Label:
    """A label of a vertical line that ends below it: its own ends, and where the line is."""

    left: float
    right: float
    line: float

    def meets(self, other: Label, gap: float) -> bool:
        """Return whether two labels of one row would touch."""
        return self.left < other.right + gap and other.left < self.right + gap


def label_rows(labels: Sequence[Label], gap: float, rows: int) -> list[int | None]:
    """Return a row for each label, counted from the bottom; None where there is no room.

    Labels of a row do not touch, and no line on its way up to a label crosses another. Those
    that come first are served first.

    >>> label_rows([Label(0, 10, 0), Label(5, 15, 5), Label(11, 20, 11)], gap=1, rows=2)
    [0, None, 0]
    >>> label_rows([Label(11, 20, 11), Label(5, 15, 5), Label(0, 10, 0)], gap=1, rows=3)
    [0, 1, 2]
    """
    placed: list[tuple[int, Label]] = []
    chosen: list[int | None] = []
    for label in labels:
        row = next((row for row in range(rows) if _fits(label, row, placed, gap)), None)
        if row is not None:
            placed.append((row, label))
        chosen.append(row)
    return chosen


def _fits(label: Label, row: int, placed: Iterable[tuple[int, Label]], gap: float) -> bool:
    """Return whether a label can stand in a row beside those that have their places."""
    for other_row, other in placed:
        if other_row == row and label.meets(other, gap):
            return False
        lower, upper = (label, other) if row < other_row else (other, label)
        if other_row != row and lower.left - gap / 2 < upper.line < lower.right + gap / 2:
            return False
    return True
