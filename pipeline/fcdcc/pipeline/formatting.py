"""NEW."""

from __future__ import annotations

import math


def count(value: float) -> str:
    r"""Return a whole number with thin spaces between thousands.

    >>> count(1234567)
    '1\u202f234\u202f567'
    """
    return f"{value:,.0f}".replace(",", "\u202f")


def percent(value: float | None) -> str:
    """Return a part of 1 as per cent; a dash where there is none.

    >>> percent(0.0512), percent(None)
    ('5.1 %', '–')
    """
    return "–" if value is None else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """Return a length of time in units that suit it.

    >>> seconds(0.0123), seconds(4.26), seconds(75), seconds(7380), seconds(None)
    ('12 ms', '4.3 s', '1 min 15 s', '2 h 3 min', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value < 0.9995:
        return f"{1000 * value:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short(value: float | None) -> str:
    """Return a number in three digits.

    >>> short(23.987), short(1234567.0), short(None)
    ('24', '1.23e+06', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def times(value: float | None) -> str:
    """Return a ratio.

    >>> times(2.345)
    '2.3 ×'
    """
    return "–" if value is None else f"{value:.1f} ×"


def clock(value: float) -> str:
    """Return seconds since a start, for an axis.

    >>> clock(0), clock(12.5), clock(75), clock(3725)
    ('0 s', '12.5 s', '1:15', '1:02:05')
    """
    if value < 60:
        return f"{value:.3g} s"
    whole = round(value)
    tail = f"{whole // 60 % 60:02d}:{whole % 60:02d}" if whole >= 3600 else f"{whole % 60:02d}"
    return f"{whole // 3600}:{tail}" if whole >= 3600 else f"{whole // 60}:{tail}"


_PREFIXES = ("", "k", "M", "G", "T", "P")


def amount(value: float, unit: str) -> str:
    """Return a number with two or three digits and a prefix.

    >>> amount(15_346_000_000, ""), amount(999.6e6, "B"), amount(0, "B"), amount(2.5e3, "B")
    ('15 G', '1.0 GB', '0 B', '2.5 kB')
    """
    size, step = float(value), 0
    while round(size) >= 1000 and step < len(_PREFIXES) - 1:
        size, step = size / 1000, step + 1
    digits = f"{size:.1f}" if 0 < size < 9.95 and step else f"{size:.0f}"
    return f"{digits} {_PREFIXES[step]}{unit}".rstrip()


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(0.0123), duration(2.5), duration(95), duration(7800), duration(2e5)
    ('12 ms', '2.5 s', '95 s', '2 h 10 min', '2 d 8 h')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    hours = round(seconds / 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
