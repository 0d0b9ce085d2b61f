"""Logs of a command: one line per event on standard error, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from ..options import LogFormat


class _JsonLines(logging.Formatter):
    """One JSON object per line."""

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


class _TextLines(logging.Formatter):
    """One line per event; only a traceback follows it on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return " ".join(super().formatMessage(record).split())


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what standard error is now: a progress bar stands in for it while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr(level: str, form: LogFormat) -> None:
    """Send the logs of this project to standard error from now on; earlier settings end."""
    handler = _ToStderr()
    if form == "json":
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(_TextLines("fcdcc: %(levelname)s: %(message)s"))
    logger = logging.getLogger("fcdcc")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
