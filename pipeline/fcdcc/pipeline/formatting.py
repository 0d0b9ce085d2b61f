"""Numbers as text for people: on terminals, on pages and in reports.

A value that is not known (None) or not finite is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

UNKNOWN = "–"

_PREFIXES = ("", "k", "M", "G", "T", "P")

MAX_RUNS = 20
"""Most runs of blocks that a text names."""

MIN_MENTIONED_WORK = 0.0005
"""Least part of extra arithmetic that is mentioned: less is shown as 0.0 %."""

LARGEST_PLAIN = 1e7
"""From this number on :func:`rounded` writes a power of ten."""


def count(value: float | None) -> str:
    """Return a whole number with commas between thousands.

    >>> count(1234567), count(None)
    ('1,234,567', '–')
    """
    return UNKNOWN if _is_unknown(value) else f"{value:,.0f}"


def counted(number: int, one: str, several: str | None = None) -> str:
    """Return a number of things in words; ``several`` is by default the word with an s.

    >>> counted(1, "chunk"), counted(0, "chunk"), counted(2, "block was made", "blocks were made")
    ('1 chunk', '0 chunks', '2 blocks were made')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def and_list(words: Sequence[str]) -> str:
    """Return words, at least one, as one phrase.

    >>> and_list(["a"]), and_list(["a", "b"]), and_list(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def blocks_in_words(blocks: Sequence[int]) -> str:
    """Return ascending numbers of blocks in words, the first runs of consecutive ones.

    >>> blocks_in_words([3]), blocks_in_words([1, 2, 3, 7])
    ('block 3', 'blocks 1 to 3, 7')
    """
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and runs[-1][1] == block - 1:
            runs[-1] = runs[-1][0], block
        else:
            runs.append((block, block))
    words = [str(a) if a == b else f"{a} to {b}" for a, b in runs[:MAX_RUNS]]
    more = ", …" if len(runs) > MAX_RUNS else ""
    return ("block " if len(blocks) == 1 else "blocks ") + ", ".join(words) + more


def rounded(value: float | None) -> str:
    """Return a number in at least three digits.

    >>> rounded(23.987), rounded(0.01234), rounded(1000.0), rounded(1.234e12), rounded(None)
    ('24', '0.0123', '1,000', '1.23e+12', '–')
    """
    if value is None or _is_unknown(value):
        return UNKNOWN
    if 999.5 <= abs(value) < LARGEST_PLAIN:
        return count(value)
    return f"{value:.3g}"


def percent(value: float | None) -> str:
    """Return a part of 1 as per cent.

    >>> percent(0.0512), percent(None)
    ('5.1 %', '–')
    """
    return UNKNOWN if value is None or _is_unknown(value) else f"{100 * value:,.1f} %"


def times(value: float | None) -> str:
    """Return a ratio.

    >>> times(2.345)
    '2.3 ×'
    """
    return UNKNOWN if _is_unknown(value) else f"{value:,.1f} ×"


def amount(value: float | None, unit: str) -> str:
    """Return a number in two or three digits, with a prefix before its unit.

    >>> amount(15_346_000_000, ""), amount(999.6e6, "B"), amount(0, "B"), amount(2.5e3, "B")
    ('15 G', '1.0 GB', '0 B', '2.5 kB')
    """
    if value is None or _is_unknown(value):
        return UNKNOWN
    size, step = float(value), 0
    while round(size) >= 1000 and step < len(_PREFIXES) - 1:
        size, step = size / 1000, step + 1
    digits = f"{size:.1f}" if 0 < size < 9.95 and step else f"{size:,.0f}"
    return f"{digits} {_PREFIXES[step]}{unit}".rstrip()


def memory_in_words(peak_memory: float, parity_memory: float) -> str:
    """Return the bytes that a process needs at most, and those where it computes parity.

    ``parity_memory`` are the bytes that parity needs in addition.

    >>> memory_in_words(436e6, 91e6), memory_in_words(436e6, 0)
    ('436 MB, 527 MB where it computes parity', '436 MB')
    """
    said = amount(peak_memory, "B")
    if not parity_memory:
        return said
    return f"{said}, {amount(peak_memory + parity_memory, 'B')} where it computes parity"


def duration(seconds: float | None) -> str:
    """Return a length of time in the units that suit it.

    >>> duration(0.0123), duration(4.26), duration(75), duration(7380), duration(2e5)
    ('12 ms', '4.3 s', '1 min 15 s', '2 h 3 min', '2 d 8 h')
    """
    if seconds is None or _is_unknown(seconds):
        return UNKNOWN
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return "{} h {} min".format(*divmod(minutes, 60))
    return "{} d {} h".format(*divmod(round(minutes / 60), 24))


def rate(per_second: float | None, unit: str) -> str:
    """Return how fast something goes, by its singular; a slow one as the time that each takes.

    >>> rate(26.9, "image"), rate(0.0317, "block"), rate(0.5, "image"), rate(0.0, "image")
    ('26.9 images/s', '31.5 s a block', '2.0 s an image', '')
    """
    if not per_second or _is_unknown(per_second):
        return ""
    if per_second >= 1:
        return f"{rounded(per_second)} {unit}s/s"
    return f"{duration(1 / per_second)} {'an' if unit[0] in 'aeiou' else 'a'} {unit}"


def time_left(seconds: float | None) -> str:
    """Return the time that is left in words; empty where it is not known, or less than a second.

    >>> time_left(75), time_left(None), time_left(0.2)
    ('about 1 min 15 s left', '', '')
    """
    if seconds is None or _is_unknown(seconds) or seconds < 1:
        return ""
    return f"about {duration(seconds)} left"


def longer_by(less: float, more: float) -> str:
    """Return by how much one length of time is longer than another, as :func:`duration` shows both.

    The unrounded difference is returned where both look the same.

    >>> duration(4.84), duration(4.96), longer_by(4.84, 4.96), longer_by(4.81, 4.84)
    ('4.8 s', '5.0 s', '200 ms', '30 ms')
    """
    return duration(_as_shown(more) - _as_shown(less) or more - less)


def _as_shown(seconds: float) -> float:
    """Return a length of time as rounded by :func:`duration`."""
    if seconds < 0.9995:
        return round(seconds, 3)
    if seconds < 59.95:
        return round(seconds, 1)
    if seconds < 3599.5:
        return round(seconds)
    minutes = round(seconds / 60)
    return 60 * minutes if minutes < 48 * 60 else 3600 * round(minutes / 60)


def clock(seconds: float) -> str:
    """Return seconds since a start, for an axis.

    >>> clock(0), clock(12.5), clock(75), clock(3725)
    ('0 s', '12.5 s', '1:15', '1:02:05')
    """
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def printable(text: str) -> str:
    r"""Return a text without line breaks and other characters that steer a terminal.

    Names of files and layers come from outside.

    >>> printable("red: \x1b[31m\nnext")
    'red: �[31m�next'
    """
    return "".join(character if character.isprintable() else "�" for character in text)


def _is_unknown(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
