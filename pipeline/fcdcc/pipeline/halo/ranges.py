"""Ranges of rows, and the integer arithmetic of windows.

A window operation (convolution, pooling) with stride s, p rows of padding above and an
extent of K rows (dilated) computes output row o from the input rows

    o s − p, …, o s − p + K − 1,

so the output rows [a, b) need the input rows [a s − p, (b − 1) s − p + K): the arithmetic of
APCP (paper, section III), with rows counted from the first one that is not padding. Rows of
this range above row 0 or below the last row are padding.
"""

from __future__ import annotations

from typing import NamedTuple


class Rows(NamedTuple):
    """The rows from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def within(self, other: Rows) -> bool:
        """Return whether the other range holds all of these rows."""
        return other.start <= self.start and self.stop <= other.stop


class Window(NamedTuple):
    """Input rows, and the number of rows of padding above and below them.

    ``rows`` may be empty: a range of output rows may be computed from padding alone.
    """

    rows: Rows
    above: int
    below: int


def hull(one: Rows, other: Rows) -> Rows:
    """Return the smallest range that contains both."""
    return Rows(min(one.start, other.start), max(one.stop, other.stop))


def never_empty(rows: Rows, size: int) -> Rows:
    """Return the range, or one row next to it if it is empty.

    Steps read the batch size from a value, so at least one row of it is passed on.
    """
    if rows.size:
        return rows
    start = min(rows.start, size - 1)
    return Rows(start, start + 1)


def window(out: Rows, *, kernel: int, stride: int, before: int, size: int) -> Window:
    """Return the input rows that a range of output rows of a window operation needs.

    Parameters
    ----------
    out
        Output rows, one or more.
    kernel
        Extent of the window in rows, dilation included: (K − 1) d + 1.
    stride
        Rows between windows.
    before
        Rows of padding above the input.
    size
        Rows of the input.

    Examples
    --------
    >>> window(Rows(0, 4), kernel=3, stride=2, before=1, size=16)
    Window(rows=Rows(start=0, stop=8), above=1, below=0)
    """
    start = out.start * stride - before
    stop = (out.stop - 1) * stride - before + kernel
    first = min(max(start, 0), size)
    last = max(min(stop, size), first)
    above = min(max(-start, 0), stop - start)
    return Window(Rows(first, last), above, (stop - start) - above - (last - first))


def transposed_window(out: Rows, *, kernel: int, stride: int, before: int, size: int) -> Rows:
    """Return the input rows that a range of output rows of a transposed convolution needs.

    Input row i contributes to the output rows i s − p + k d for the K filter rows k, which is
    the window arithmetic with input and output exchanged. The range may be empty.

    Parameters
    ----------
    out, kernel, stride, before, size
        As for :func:`window`; ``before`` is the number of rows that the padding removes above.

    Examples
    --------
    >>> transposed_window(Rows(4, 6), kernel=2, stride=2, before=0, size=16)
    Rows(start=2, stop=3)
    """
    start = -(-(out.start + before - kernel + 1) // stride)
    stop = (out.stop - 1 + before) // stride + 1
    first = min(max(start, 0), size)
    return Rows(first, max(min(stop, size), first))
