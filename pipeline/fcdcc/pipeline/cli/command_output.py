"""What commands write: logs to standard error, and results to files or standard output."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from fcdcc.storage.errors import OutputError

from ..errors import OptionError
from ..formatting import printable

if TYPE_CHECKING:
    from ..options import LogFormat

STDOUT = "-"
"""Name that stands for standard output in place of a file."""


class _JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _OneLineFormatter(logging.Formatter):
    """Formats the message of a log record as one line; a traceback may follow it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(" ".join(super().formatMessage(record).split()))


class _CurrentStderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the present ``sys.stderr``, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr(level: str, form: LogFormat) -> None:
    """Send the logs of this project to standard error; this replaces earlier settings."""
    handler = _CurrentStderrHandler()
    if form == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_OneLineFormatter("fcdcc: %(levelname)s: %(message)s"))
    logger = logging.getLogger("fcdcc")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def check_can_write(path: str) -> None:
    """Check that a result file can be written, before the work whose result it will hold.

    Raises
    ------
    OptionError
        If the path is a folder, or its folder does not exist or is not writable.
    """
    if path == STDOUT:
        return
    file = Path(path)
    place = file if file.exists() else file.parent
    if "\0" in path or file.is_dir() or not place.exists() or not os.access(place, os.W_OK):
        raise OptionError(f"{path!r} cannot be written: expected a file in an existing folder")


def write_result(path: str, text: str) -> None:
    """Write a text and a line break to a file, or to standard output for ``-``.

    A regular file is replaced in one step, so that other programs never read half a result.
    Halves of characters, which names of files may have, become question marks.

    Raises
    ------
    OutputError
        If it cannot be written (a full disk); an earlier file stays.
    """
    if path == STDOUT:
        click.echo(text)
        return
    file = Path(path)
    try:
        if file.exists() and not file.is_file():  # a pipe or a device
            file.write_text(text + "\n", encoding="utf-8", errors="replace")
            return
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            partial.write_text(text + "\n", encoding="utf-8", errors="replace")
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}; the work whose result it "
            "would hold is done"
        ) from error
