"""Job files: the options of a run in TOML; flags on the command line override them.

A key is an option of the command line, with ``_`` or ``-`` between its words. Relative paths
start from the folder of the file, so that a job is the same wherever it is started.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fcdcc.storage.regular_files import read_text

from ..errors import OptionError, one_line
from ..options import SCHEDULER_FILE, CommandOptions, JobConfig, shown_value

PATH_OPTIONS = frozenset(
    {"model", "input", "output", "classes", "tls_ca_file", "tls_cert", "tls_key", "json", "plan"}
)
"""Options whose relative values start from the folder of the file."""

MAX_FILE_BYTES = 2**20

PLACEHOLDER = "-"
"""Value of required options that are missing in a file, while its other options are checked."""


@dataclass(frozen=True)
class JobFile:
    """The options in a job file: those of the job, and those of the command that runs it."""

    job: Mapping[str, Any]
    command: Mapping[str, Any]


def read_options(config: str | None, flags: Mapping[str, Any]) -> JobFile:
    """Return the options of a job file, if one is given, overridden by flags that are not None.

    Raises
    ------
    OptionError
        As :func:`read_job_file`.
    """
    file = read_job_file(config) if config else JobFile({}, {})
    given = {name: value for name, value in flags.items() if value is not None}
    names = CommandOptions.option_names()
    command = {name: value for name, value in given.items() if name in names}
    job = {name: value for name, value in given.items() if name not in names}
    return JobFile({**file.job, **job}, {**file.command, **command})


def checked_options(options: JobFile) -> dict[str, Any]:
    """Return options in the form in which job files have them, without those of no value.

    Raises
    ------
    OptionError
        If values are invalid or do not go together; the model, the input and the output may be
        missing.
    """
    required = {name for name, field in JobConfig.model_fields.items() if field.is_required()}
    job = JobConfig.of(**(dict.fromkeys(required, PLACEHOLDER) | dict(options.job)))
    command = CommandOptions.of(**options.command)
    values = job.model_dump(by_alias=True) | command.model_dump(by_alias=True)
    return {name: values[name] for name in (*options.job, *options.command)}


def read_job_file(path: str | Path) -> JobFile:
    """Return the options in a job file.

    Each value is checked by itself; whether options go together is checked later, when flags
    have been added.

    Raises
    ------
    OptionError
        If the file cannot be read or is not TOML, or if keys are unknown or values invalid; the
        message names each of these with its line.
    """
    file = Path(path)
    try:
        text = read_text(file, MAX_FILE_BYTES)
        members = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the job file {path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # also a number with thousands of digits
        raise OptionError(f"{path} is not TOML: {one_line(error)}") from error
    names = {key: key.replace("-", "_") for key in members}
    problems = [*_unknown_keys(names), *_repeated_keys(names)]
    options = {names[key]: value for key, value in members.items()}
    job = {name: options[name] for name in JobConfig.option_names() if name in options}
    command = {name: options[name] for name in CommandOptions.option_names() if name in options}
    required = {name for name, field in JobConfig.model_fields.items() if field.is_required()}
    problems += _invalid_values(JobConfig, dict.fromkeys(required, PLACEHOLDER) | job)
    problems += _invalid_values(CommandOptions, command)
    if problems:
        spelled = {name: key for key, name in names.items()}
        lines = sorted(_located(text, spelled.get(name, name), what) for name, what in problems)
        raise OptionError(f"{path}, " + "; ".join(message for _, message in lines))
    return JobFile(_absolute_paths(job, file.parent), _absolute_paths(command, file.parent))


def _unknown_keys(names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    known = [*JobConfig.option_names(), *CommandOptions.option_names()]
    for key, name in names.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            yield key, "there is no such option" + (f"; is {close[0]} meant?" if close else "")


def _repeated_keys(names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for key, name in names.items():
        if name in seen:
            yield key, f"it is the same option as {seen[name]}: leave one of the two out"
        seen[name] = key


def _invalid_values(
    model: type[JobConfig] | type[CommandOptions], values: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    """Yield options with invalid values; errors of combinations are left for later."""
    try:
        model.model_validate(dict(values), strict=True)
    except ValidationError as error:
        for item in error.errors():
            if item["loc"]:
                message = str(item["msg"]).removeprefix("Value error, ")
                shown = f"{shown_value(item['input'])}: {message[0].lower()}{message[1:]}"
                yield str(item["loc"][0]), f"it is {shown}"


def _located(text: str, key: str, what: str) -> tuple[int, str]:
    """Return the line of a key, and a message with that line; problems are sorted by line."""
    line = _line_of(text, key)
    return line, (f"line {line}: " if line else "") + f"{key}: {what}"


def _line_of(text: str, key: str) -> int:
    """Return the line, from 1, on which a top-level key or table begins; 0 if none does."""
    start = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    for number, line in enumerate(text.splitlines(), start=1):
        if start.match(line):
            return number
    return 0


def _absolute_paths(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return options whose relative paths start from ``folder``; URLs and ``-`` stay.

    Raises
    ------
    OptionError
        If a path begins in the home of a user whom nobody knows.
    """
    return {
        name: _absolute_path(name, value, folder)
        if isinstance(value, str) and _is_path(name, value)
        else value
        for name, value in options.items()
    }


def _is_path(name: str, value: str) -> bool:
    if name == "scheduler":
        return value.endswith(SCHEDULER_FILE)
    return name in PATH_OPTIONS and "://" not in value and value != "-"


def _absolute_path(name: str, value: str, folder: Path) -> str:
    try:
        return str(folder / Path(value).expanduser())
    except RuntimeError as error:
        raise OptionError(f"{name}: {shown_value(value)} cannot be used: {error}") from None
