"""Job files: the options of a run in TOML, wrong ones named with their line.

A key is an option of the command line, with ``_`` or ``-`` between its words. Paths that are
not absolute are taken from the folder of the file, so that a job is the same wherever it is
started from.
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

from ..errors import OptionError, one_line
from ..options import CommandOptions, JobConfig
from ..prediction_format import read_text

PATHS = frozenset(
    {"model", "input", "output", "classes", "tls_ca_file", "tls_cert", "tls_key", "json", "plan"}
)
MOST_BYTES = 1 << 20

STAND_IN = "-"
"""For what a file may leave to the command line while the rest of it is checked."""


@dataclass(frozen=True)
class JobFile:
    """What a job file says: options of the job, and of the command that runs it."""

    job: Mapping[str, Any]
    command: Mapping[str, Any]


def read_job_file(path: str | Path) -> JobFile:
    """Return what a job file says; options that belong together are checked later.

    Raises
    ------
    OptionError
        If it cannot be read, is no TOML, or has unknown keys or values of a wrong type; all
        of them are named, each with its line.
    """
    file = Path(path)
    try:
        text = read_text(file, MOST_BYTES)
        members = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the job file {path} cannot be read: {error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(f"{path} is no TOML: {one_line(error)}") from error
    keys = {key: key.replace("-", "_") for key in members}
    complaints = [*_unknown(keys), *_twice(keys)]
    options = {keys[key]: value for key, value in members.items()}
    job = {name: options[name] for name in JobConfig.option_names() if name in options}
    command = {name: options[name] for name in CommandOptions.option_names() if name in options}
    needed = {name for name, field in JobConfig.model_fields.items() if field.is_required()}
    complaints += _wrong(JobConfig, dict.fromkeys(needed, STAND_IN) | job)
    complaints += _wrong(CommandOptions, command)
    if complaints:
        spelled = {name: key for key, name in keys.items()}
        lines = sorted(_located(text, spelled.get(key, key), what) for key, what in complaints)
        raise OptionError(f"{path}, " + "; ".join(words for _, words in lines))
    return JobFile(_resolved(job, file.parent), _resolved(command, file.parent))


def _unknown(keys: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    known = [*JobConfig.option_names(), *CommandOptions.option_names()]
    for key, name in keys.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            yield key, "there is no such option" + (f"; is {close[0]} meant?" if close else "")


def _twice(keys: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for key, name in keys.items():
        if name in seen:
            yield key, f"it is the same as {seen[name]}, which is there, too"
        seen[name] = key


def _wrong(
    model: type[JobConfig] | type[CommandOptions], values: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    """Return what is wrong with single values; what does not go together is left for later."""
    try:
        model.model_validate(dict(values), strict=True)
    except ValidationError as error:
        for item in error.errors():
            if item["loc"]:
                message = str(item["msg"]).removeprefix("Value error, ")
                shown = f"{item['input']!r}: {message[0].lower()}{message[1:]}"
                yield str(item["loc"][0]), f"it is {shown}"


def _located(text: str, key: str, what: str) -> tuple[int, str]:
    """Return a complaint with its line, and that line to sort by."""
    line = _line_of(text, key)
    return line, (f"line {line}: " if line else "") + f"{key}: {what}"


def _line_of(text: str, key: str) -> int:
    """Return the line, from 1, on which a top-level key or table of this name begins, else 0."""
    start = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    for number, line in enumerate(text.splitlines(), start=1):
        if start.match(line):
            return number
    return 0


def _resolved(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return options with their relative paths taken from a folder."""
    return {
        name: str(folder / Path(value).expanduser())
        if name in PATHS and isinstance(value, str) and "://" not in value and value != "-"
        else value
        for name, value in options.items()
    }
