"""How a command ends: its exit code, and what it does on SIGINT and SIGTERM."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from types import FrameType
from typing import NoReturn

import psutil

INTERRUPTING_SIGNALS = (signal.SIGINT, signal.SIGTERM)

GRACE_SECONDS = 8.0
"""Time that an interrupted command has to close what it has open before it is killed."""

RESEND_SECONDS = 0.01
"""Time after which a signal is sent again that came while an object was finalised."""


class ExitCode(IntEnum):
    """Exit codes of the commands; scripts of users depend on the numbers."""

    DONE = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    LOCKED = 3
    BLOCKS_FAILED = 4
    DAMAGED = 5
    INTERRUPTED = 130


@contextmanager
def interruptible(grace: float = GRACE_SECONDS) -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM, and limit the time until the process ends.

    Closing a cluster with a stopped worker may take long. What a run has recorded is safe at
    every moment, so after ``grace`` seconds, or at a second signal, the process and its
    children are killed. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timer = threading.Timer(grace, _kill_all)
    timer.daemon = True

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if _is_in_finalizer(frame):  # Python would ignore an exception that is raised there
            again = threading.Timer(RESEND_SECONDS, os.kill, (os.getpid(), signum))
            again.daemon = True
            again.start()
            return
        if timer.ident is not None:
            _kill_all()
        timer.start()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTING_SIGNALS}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_in_finalizer(frame: FrameType | None) -> bool:
    """Return whether a frame is, or was called by, the ``__del__`` of an object."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def end_process(code: str | int | None) -> NoReturn:
    """End this process with the code of a SystemExit, without the clean-up of the interpreter.

    Python would take PyTorch apart for two seconds. What was registered with atexit is called, and
    all output is flushed.
    """
    if isinstance(code, str):  # as Python does with sys.exit("message")
        sys.stderr.write(code + "\n")
        code = ExitCode.UNEXPECTED
    atexit._run_exitfuncs()  # the only way to call them before os._exit
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever read it is gone
            stream.flush()
    os._exit(code or ExitCode.DONE)


def _kill_all() -> NoReturn:
    """Kill all child processes and end this process at once."""
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    os._exit(ExitCode.INTERRUPTED)
