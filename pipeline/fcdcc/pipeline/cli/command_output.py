"""What commands write: logs to standard error, and results to files or standard output."""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from fcdcc.storage.errors import OutputError

from ..errors import OptionError
from ..formatting import printable

if TYPE_CHECKING:
    from ..options import LogFormat

_FORM = "fcdcc.log-format"
"""Where a command's context has the form of its messages."""

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


_JSON = _JsonFormatter()


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
    if click.get_current_context(silent=True) is not None:
        choose_form(form)
    handler = _CurrentStderrHandler()
    if form == "json":
        handler.setFormatter(_JSON)
    else:
        handler.setFormatter(_OneLineFormatter("fcdcc: %(levelname)s: %(message)s"))
    logger = logging.getLogger("fcdcc")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def choose_form(form: object) -> None:
    """Set how the present command prints messages from now on: ``json`` or, by default, text."""
    click.get_current_context().meta[_FORM] = form


def say(line: str, level: int = logging.INFO, error: BaseException | None = None) -> None:
    """Print a message as one line on standard error, in the form of the present command's logs.

    As JSON it has the traceback of an error.
    """
    if prints_json():
        traced = None if error is None else (type(error), error, error.__traceback__)
        record = logging.LogRecord("fcdcc", level, "", 0, line, None, traced)
        click.echo(_JSON.format(record), err=True)
    else:
        click.echo(f"fcdcc: {line}", err=True)


def prints_json() -> bool:
    """Return whether the present command prints its messages as JSON."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and ctx.meta.get(_FORM) == "json"


@contextmanager
def others_as_json() -> Iterator[None]:
    """Print warnings of Python and the logs of other packages, such as Dask, as JSON, too."""
    logging.captureWarnings(True)
    warned = logging.getLogger("py.warnings")
    ours = _CurrentStderrHandler()
    warned.addHandler(ours)
    loggers = [logging.root, *map(logging.getLogger, [*logging.root.manager.loggerDict])]
    handlers: dict[logging.Handler, logging.Formatter | None] = {
        handler: handler.formatter
        for handler in itertools.chain.from_iterable(found.handlers for found in loggers)
        if type(handler) is logging.StreamHandler or handler is ours
    }
    if logging.lastResort is not None:  # of loggers without a handler
        handlers[logging.lastResort] = logging.lastResort.formatter
    for handler in handlers:
        handler.setFormatter(_JSON)
    try:
        yield
    finally:
        for handler, formatter in handlers.items():
            handler.setFormatter(formatter)
        warned.removeHandler(ours)
        logging.captureWarnings(False)


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
