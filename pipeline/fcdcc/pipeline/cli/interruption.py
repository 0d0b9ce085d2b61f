"""How a command ends when it is told to: cleanly, within seconds, and so that it can go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import psutil

from .exit_codes import ExitCode

SIGNALS = (signal.SIGINT, signal.SIGTERM)

GRACE = 8.0
"""Seconds that a command may take to close what it has open, before it is ended as it is."""


@contextmanager
def interruptible(grace: float = GRACE) -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGINT and SIGTERM, and see to it that the process ends.

    Closing a cluster with a stopped worker may take long. What a run has recorded is safe at
    every moment, so after ``grace`` seconds, or at a second signal, the process and its
    children end as they are. Outside the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timer = threading.Timer(grace, _end_now)
    timer.daemon = True

    def interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        if timer.ident is not None:
            _end_now()
        timer.start()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_now() -> NoReturn:
    """End this process and all that it has started, at once."""
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    os._exit(ExitCode.INTERRUPTED)
