"""Cron expressions as values, so that every scheduler is told the same times.

The schedulers differ in what they make of the text. Cron counts weekdays from Sunday,
APScheduler 3 from Monday; where both the day of the month and the weekday are given, cron
takes days that match either, APScheduler and systemd days that match both. So the text is
read here once, by cron's rules (crontab(5)), and written out for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import OptionError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True)
class _Field:
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()


FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("weekday", 0, 7, WEEKDAYS),
)

_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")


@dataclass(frozen=True)
class DaySet:
    """Days on which both the day of the month and the weekday are among these."""

    days: tuple[int, ...]
    weekdays: tuple[int, ...]


@dataclass(frozen=True)
class CronTimes:
    """The times of a cron expression.

    Parameters
    ----------
    text
        The five fields.
    minutes, hours, months
        Ascending.
    days
        Alternatives: a day that is in one of them counts. Weekdays begin with Sunday as 0.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    days: tuple[DaySet, ...]


def parse_cron(text: str) -> CronTimes:
    """Return the times of a cron expression: five fields, or a macro such as ``@daily``.

    >>> parse_cron("0 2 * * mon-fri").days[0].weekdays
    (1, 2, 3, 4, 5)

    Raises
    ------
    OptionError
        If a field is wrong, named with what it may be, or the time never comes.
    """
    fields = MACROS.get(text.strip().lower(), text).split()
    if len(fields) != len(FIELDS):
        raise OptionError(
            f"--cron {text!r} has {len(fields)} fields; expected five: minute, hour, day of the "
            "month, month, weekday, such as '0 2 * * *' for every night at two"
        )
    minutes, hours, days, months, weekdays = (
        _values(text, part, field) for part, field in zip(fields, FIELDS, strict=True)
    )
    weekdays = tuple(sorted({day % 7 for day in weekdays}))
    every_day, every_weekday = tuple(range(1, 32)), tuple(range(7))
    alternatives: tuple[DaySet, ...]
    if fields[2].startswith("*") or fields[4].startswith("*"):
        alternatives = (DaySet(days, weekdays),)
    else:
        alternatives = (DaySet(days, every_weekday), DaySet(every_day, weekdays))
    if all(min(option.days) > max(LONGEST[m - 1] for m in months) for option in alternatives):
        raise OptionError(f"--cron {text!r} never comes: these months have no such day")
    return CronTimes(" ".join(fields), minutes, hours, months, alternatives)


def _values(text: str, part: str, field: _Field) -> tuple[int, ...]:
    """Return the numbers that one field stands for, ascending."""
    found: set[int] = set()
    for piece in part.split(","):
        match = _PART.fullmatch(piece)
        if match is None:
            raise _wrong(text, piece, field)
        first, last, step = match.groups()
        if first is None:
            low, high = field.lowest, 6 if field.names == WEEKDAYS else field.highest
        else:
            low = _number(text, piece, first, field)
            high = low if last is None else _number(text, piece, last, field)
            if last is None and step is not None:  # from here to the end, as cron does
                high = field.highest
        if low > high or (step is not None and int(step) == 0):
            raise _wrong(text, piece, field)
        found.update(range(low, high + 1, int(step or 1)))
    return tuple(sorted(found))


def _number(text: str, piece: str, word: str, field: _Field) -> int:
    lower = word.lower()
    if lower in field.names:
        return field.names.index(lower) + field.lowest
    if not (word.isascii() and word.isdecimal()):
        raise _wrong(text, piece, field)
    number = int(word)
    if not field.lowest <= number <= field.highest:
        raise _wrong(text, piece, field)
    return number


def _wrong(text: str, piece: str, field: _Field) -> OptionError:
    names = f", or {', '.join(field.names)}" if field.names else ""
    return OptionError(
        f"--cron {text!r}: the {field.name} is {piece!r}; expected {field.lowest} to "
        f"{field.highest}{names}, also as a-b, */s, a-b/s or a list with commas"
    )


def listed(values: Sequence[int], every: range) -> str:
    """Return values as a list with commas, or ``*`` for all there are."""
    return "*" if len(values) == len(every) else ",".join(map(str, values))
