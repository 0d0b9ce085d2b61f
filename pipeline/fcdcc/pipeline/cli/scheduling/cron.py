"""Parse cron expressions, so that every scheduler gets the same times.

Schedulers interpret the text differently. Cron counts weekdays from Sunday, APScheduler 3 from
Monday. If both the day of the month and the weekday are given, cron takes days that match
either, APScheduler and systemd days that match both. So this module parses the text once, by
cron's rules (crontab(5)), and the modules beside it write the times for each scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import OptionError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MAX_DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

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
class _CronField:
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()


CRON_FIELDS = (
    _CronField("minute", 0, 59),
    _CronField("hour", 0, 23),
    _CronField("day of the month", 1, 31),
    _CronField("month", 1, 12, MONTHS),
    _CronField("weekday", 0, 7, WEEKDAYS),
)

_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([0-9]{1,9}))?")


@dataclass(frozen=True)
class DaySet:
    """All days whose day of the month and whose weekday are both listed."""

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
        Alternatives: a day in any of these sets matches. Weekday 0 is Sunday.
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
        If a field is invalid (the message names it and its valid values), or no day matches.
    """
    fields = MACROS.get(text.strip().lower(), text).split()
    if len(fields) != len(CRON_FIELDS):
        raise OptionError(
            f"--cron {text!r} has {len(fields)} fields; expected five: minute, hour, day of the "
            "month, month, weekday, such as '0 2 * * *' for every night at two"
        )
    minutes, hours, days, months, weekdays = (
        _values(text, part, field) for part, field in zip(fields, CRON_FIELDS, strict=True)
    )
    weekdays = tuple(sorted({day % 7 for day in weekdays}))
    every_day, every_weekday = tuple(range(1, 32)), tuple(range(7))
    alternatives: tuple[DaySet, ...]
    if fields[2].startswith("*") or fields[4].startswith("*"):
        alternatives = (DaySet(days, weekdays),)
    else:
        alternatives = (DaySet(days, every_weekday), DaySet(every_day, weekdays))
    if all(
        min(option.days) > max(MAX_DAYS_OF_MONTH[m - 1] for m in months) for option in alternatives
    ):
        raise OptionError(f"--cron {text!r} never occurs: these months have no such day")
    return CronTimes(" ".join(fields), minutes, hours, months, alternatives)


def _values(text: str, part: str, field: _CronField) -> tuple[int, ...]:
    """Return the numbers that match one field, ascending."""
    found: set[int] = set()
    for piece in part.split(","):
        match = _PART.fullmatch(piece)
        if match is None:
            raise _field_error(text, piece, field)
        first, last, step = match.groups()
        if first is None:
            low, high = field.lowest, 6 if field.names == WEEKDAYS else field.highest
        else:
            low = _number(text, piece, first, field)
            high = low if last is None else _number(text, piece, last, field)
            if last is None and step is not None:  # a/s means a-highest/s, as in cron
                high = field.highest
        if low > high or (step is not None and int(step) == 0):
            raise _field_error(text, piece, field)
        found.update(range(low, high + 1, int(step or 1)))
    return tuple(sorted(found))


def _number(text: str, piece: str, word: str, field: _CronField) -> int:
    lower = word.lower()
    if lower in field.names:
        return field.names.index(lower) + field.lowest
    if not (word.isascii() and word.isdecimal() and len(word) <= 2):
        raise _field_error(text, piece, field)
    number = int(word)
    if not field.lowest <= number <= field.highest:
        raise _field_error(text, piece, field)
    return number


def _field_error(text: str, piece: str, field: _CronField) -> OptionError:
    names = f", or {', '.join(field.names)}" if field.names else ""
    return OptionError(
        f"--cron {text!r}: the {field.name} is {piece!r}; expected {field.lowest} to "
        f"{field.highest}{names}, also as a-b, */s, a-b/s or a list with commas"
    )


def kubernetes_schedule(times: CronTimes) -> str:
    """Return the five fields in which Kubernetes finds the same times.

    Kubernetes reads them with robfig/cron, which differs from crontab(5): weekdays are 0 to 6,
    and if the day of the month and the weekday are both given, it takes days that match either,
    except where a field contains a ``*`` without a step.

    >>> kubernetes_schedule(parse_cron("0 2 * * fri-7"))
    '0 2 * * 0,5,6'

    Raises
    ------
    OptionError
        If a day has to match both fields, which Kubernetes cannot express.
    """
    minute, hour, day, month, weekday = times.text.split()
    days, weekdays = tuple(range(1, 32)), tuple(range(7))
    if DaySet(days, weekdays) in times.days:
        day = weekday = "*"
    elif len(times.days) == 2:
        weekday = _weekdays(times.days[1].weekdays)
    elif times.days[0].days == days:
        day, weekday = "*", _weekdays(times.days[0].weekdays)
    elif times.days[0].weekdays == weekdays:
        weekday = "*"
    else:
        raise OptionError(
            f"--cron {times.text!r} with --print kubernetes: cron takes days that match both the "
            f"day of the month ({day}) and the weekday ({weekday}), Kubernetes days that match "
            "either; give only one of the two, or use --print systemd"
        )
    return f"{minute} {hour} {day} {month} {weekday}"


def _weekdays(numbers: tuple[int, ...]) -> str:
    """Return weekdays as ``a-b`` if they follow each other, else separated by commas."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and numbers == tuple(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, numbers))


def comma_list(values: Sequence[int], all_values: range) -> str:
    """Return values separated by commas, or ``*`` for all possible values."""
    return "*" if len(values) == len(all_values) else ",".join(map(str, values))
